"""The plots of the page, as SVG to put into it: text stays text, colours are the page's own.

Matplotlib draws with stand-in colours, which become CSS variables: one picture for light, dark and
paper. Plots are as wide as a phone; a page on a larger screen sets several side by side.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from engines import SettingsError
from tools.bench.results import Case, Result, Round, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN: Final = 4.3
PLOT_IN: Final = 2.6
ROW_IN: Final = 0.27
WORDS_SHARE: Final = 0.15
"""Of a plot's width, taken by a percentage."""
INK, FADED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES: Final = tuple(f"#0a0a{number:02x}" for number in range(1, 9))
COLOURS: Final = {
    INK: "var(--ink)",
    FADED: "var(--faded)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, 1)},
}
DASHES: Final = ("-", "--", ":")
"""Should there be more series than colours."""
RC: Final[Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FADED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FADED,
    "ytick.labelcolor": FADED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.labelsize": 9,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def check_plots() -> None:
    """Refuse, before anything is measured, where plots cannot be drawn.

    Raises:
        SettingsError: what to install.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("the page's plots need matplotlib: pip install 'pix2live[bench]'")


def styles(result: Result) -> dict[str, tuple[str, str]]:
    """Return colour and dashes of every backend and precision, the same in all plots."""
    labels = list(dict.fromkeys(case.label for case in result.measured))
    count = len(SERIES)
    return {
        label: (SERIES[place % count], DASHES[place // count % len(DASHES)])
        for place, label in enumerate(labels)
    }


def fps_bars(result: Result, name: str) -> str:
    """Return the throughput of one filter: a bar a case, a line from the least to the most."""
    cases = [case for case in result.measured if case.filter == name]
    sizes = list(dict.fromkeys(case.size for case in cases))
    rows = len(cases) + len(sizes)
    shown = styles(result)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        most = max(Spread.of(_fps(case)).most for case in cases)
        row, places, names = 0, [], []
        for size in sizes:
            words = f"{size[0]}x{size[1]}"
            axes.text(0, row, words, va="center", fontweight="bold", fontsize=10)
            row += 1
            for case in (case for case in cases if case.size == size):
                spread = Spread.of(_fps(case))
                axes.barh(row, spread.median, 0.66, color=shown[case.label][0])
                axes.plot([spread.least, spread.most], [row, row], color=INK, lw=1.2)
                value = f"{spread.median:.0f}" if spread.median >= 100 else f"{spread.median:.1f}"
                axes.text(spread.most + most * 0.02, row, value, va="center", fontsize=9)
                places.append(row)
                names.append(case.label)
                row += 1
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(row - 0.4, -0.6)
        axes.set_xlim(0, most * 1.16)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("frames a second")

    said = f"{name}: frames a second of the engine alone, by size and backend"
    return svg(draw, 0.7 + rows * ROW_IN, said)


def age_curves(result: Result, cases: Sequence[Case]) -> str:
    """Return how old the shown frames were: the share of frames up to each age."""
    shown = styles(result)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for case in cases:
            ages = sorted(age for item in case.rounds for age in item.live.ages_ms)
            if not ages:
                continue
            shares = [100 * (place + 1) / len(ages) for place in range(len(ages))]
            colour, dashes = shown[case.label]
            axes.plot(ages, shares, color=colour, ls=dashes, label=case.label)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain)
        axes.xaxis.set_minor_formatter(lambda value, _: _minor(value))
        axes.tick_params(axis="x", which="minor", labelsize=8, labelcolor=FADED)
        axes.set_ylim(0, 101)
        axes.set_yticks([0, 25, 50, 75, 95], ["0", "25", "50", "75", "95 %"])
        axes.set_xlabel("age at the sink, ms (logarithmic)")
        axes.set_ylabel("frames at most as old")
        _legend(figure, axes)

    return svg(draw, PLOT_IN + 0.2 * (len(cases) + 1) // 2, f"{_where(cases)}: ages")


def over_time(result: Result, cases: Sequence[Case]) -> str:
    """Return frames a second as the bench went on, with temperature and power where they are."""
    shown = styles(result)
    begin_s = min(item.at_s for case in cases for item in case.rounds) - 1
    end_s = max(item.at_s + _round_s(item) for case in cases for item in case.rounds) + 1
    panels = [
        (words, names)
        for words, ending in (("°C", "_temperature_c"), ("W", "_power_w"))
        if (names := _sensors(result, ending, begin_s, end_s))
    ]

    def draw(figure: Figure) -> None:
        heights = [2.2, *(1.0 for _ in panels)]
        found = figure.subplots(1 + len(panels), 1, sharex=True, height_ratios=heights)
        every = found.flatten().tolist() if panels else [found]
        top = every[0]
        for case in cases:
            points = [point for item in case.rounds for point in _steps(item)]
            style = {"color": shown[case.label][0], "marker": "o", "ms": 2.5, "lw": 0.7}
            top.plot(*zip(*points, strict=True), **style, label=case.label)
        top.set_ylim(bottom=0)
        top.set_ylabel("frames a second")
        for axes, (words, names) in zip(every[1:], panels, strict=True):
            lines = {name: _line(result, name, begin_s, end_s) for name in names}
            lowest = min(names, key=lambda name: lines[name][1][-1])
            for place, (name, (times, values)) in enumerate(lines.items()):
                axes.plot(times, values, color=INK if not place else FADED, lw=1.2)
                above = "top" if name == lowest and len(names) > 1 else "bottom"
                axes.text(end_s, values[-1], f" {name.split('_')[0]}", fontsize=8, va=above)
            axes.set_ylabel(words)
        every[-1].set_xlim(begin_s, end_s)
        every[-1].set_xlabel("seconds since the bench began")
        _legend(figure, top)

    height = PLOT_IN + 0.2 * (len(cases) + 1) // 2 + 0.9 * len(panels)
    return svg(draw, height, f"{_where(cases)}: frames a second over time")


def roofline_bars(result: Result, name: str) -> str:
    """Return how much of the hardware's ceiling each case of a filter reached, where measured."""
    cases = [
        (case, case.roofline)
        for case in result.measured
        if case.filter == name and case.roofline is not None
    ]
    shown = styles(result)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = 114 * max(1.0, *(found.share for _, found in cases))
        names = []
        for row, (case, found) in enumerate(cases):
            share = 100 * found.share
            axes.barh(row, share, 0.6, color=shown[case.label][0])
            _share_words(axes, row, share, width)
            limit = f"\n{found.limit_ms:.3g} ms, {found.binds}" if found.limit_ms else ""
            names.append(f"{case.size[0]}x{case.size[1]} {case.label}{limit}")
        axes.axvline(100, color=INK, lw=1)
        axes.set_yticks(range(len(cases)), names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(cases) - 0.4, -0.6)
        axes.set_xlim(0, width)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the ceiling")

    return svg(draw, 0.7 + len(cases) * 0.45, f"{name}: share of the roofline")


def _share_words(axes: Axes, row: int, share: float, width: float) -> None:
    """Write a percentage inside the end of its bar: right of the line at 100 is more than 100."""
    gap, room = 0.014 * width, WORDS_SHARE * width
    text = f"{share:.0f} %"
    if share > 100 or share + room < min(100, 2 * room):  # a bar too short to write in
        axes.text(share + gap, row, text, va="center", fontsize=9)
        return
    end = max(share, room) - gap
    behind = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none"}
    axes.text(end, row, text, va="center", ha="right", fontsize=9, bbox=behind)


def svg(draw: Callable[[Figure], None], height_in: float, title: str) -> str:
    """Return what ``draw`` draws as an SVG element whose names no other plot has."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    file = io.StringIO()
    with mpl.rc_context(RC):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return _in_page(file.getvalue(), title)


_numbered = iter(range(1, 1 << 62))


def _in_page(text: str, title: str) -> str:
    """Return the SVG file ``text`` as an element of a page."""
    found = text[text.index("<svg") :]
    found = re.sub(r"\s*<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    found = re.sub(r"^<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", found)
    prefix = f"p{next(_numbered)}-"
    found = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", found)
    for colour, variable in COLOURS.items():
        found = found.replace(colour, variable)
    name = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    found = found.replace("xlink:href", "href")
    return found.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, labelcolor=INK)


def _steps(item: Round) -> list[tuple[float, float]]:
    """Return (time, frames a second) over one round; one point where it was short."""
    at_s, through = item.at_s + item.latency.seconds, item.throughput
    if len(through.fps_steps) < 2:
        return [(at_s + through.seconds / 2, through.fps)]
    found = []
    # Groups of as many frames: each took as long as its rate says.
    whole_s = sum(1 / fps for fps in through.fps_steps)
    for fps in through.fps_steps:
        taken_s = through.seconds / fps / whole_s
        found.append((at_s + taken_s / 2, fps))
        at_s += taken_s
    return found


def _round_s(item: Round) -> float:
    return item.latency.seconds + item.throughput.seconds + item.live.seconds


def _sensors(result: Result, ending: str, begin_s: float, end_s: float) -> list[str]:
    """Return the sensors of a kind that were read in a span of time."""
    found = {
        name: None
        for sample in result.samples
        if begin_s <= sample["t_s"] <= end_s
        for name in sample
        if name.endswith(ending)
    }
    return list(found)[:2]


def _line(
    result: Result, name: str, begin_s: float, end_s: float
) -> tuple[list[float], list[float]]:
    """Return times and values of one sensor in a span of time."""
    found = [x for x in result.samples if name in x and begin_s <= x["t_s"] <= end_s]
    return [x["t_s"] for x in found], [x[name] for x in found]


def _fps(case: Case) -> list[float]:
    return case.values(lambda item: item.throughput.fps)


def _where(cases: Sequence[Case]) -> str:
    return f"{cases[0].filter} {cases[0].size[0]}x{cases[0].size[1]}"


def _plain(value: float, _: Any = None) -> str:
    return f"{value:g}"


def _minor(value: float) -> str:
    """Between powers of ten, 2 and 5 are enough."""
    return _plain(value) if f"{value:e}"[0] in "25" else ""
