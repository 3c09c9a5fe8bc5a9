"""The page of a bench: one file, no script, nothing fetched."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from engines import SinkError
from engines.artefact import replace_file
from tools.bench import plots
from tools.bench.compare import WHY_ABOVE, above_roofline
from tools.bench.method import METHOD, ROOFLINE
from tools.bench.plan import MOST_TOGETHER
from tools.bench.results import MEASURED, Case, Result, Round, Spread, flags, mark, name_of
from tools.bench.style import CSS
from tools.bench.terminal import (
    commit_of,
    dropped_share,
    live_cpus,
    psnr_words,
    reasons,
    without_roofline,
)

Figure = Callable[[Round], float]

COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("fps", "throughput"),
    ("p50", "latency, ms"),
    ("p95", "latency, ms"),
    ("p99", "latency, ms"),
    ("fps", "live"),
    ("dropped", "live"),
    ("jitter", "live, ms"),
    ("age p50", "live, ms"),
    ("age p95", "live, ms"),
    ("age p99", "live, ms"),
    ("CPUs", "live"),
    ("PSNR, dB", "picture"),
    ("open, s", "start"),
    ("memory, MB", "start"),
)


def write_page(path: Path, result: Result) -> None:
    """Write the page, whole or not at all.

    Raises:
        SettingsError: matplotlib is not installed.
        SinkError: it cannot be written.
    """
    if result.measured:
        plots.check_plots()
    try:
        replace_file(path, [page(result).encode()])
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error


def page(result: Result) -> str:
    """Return the page as HTML."""
    parts = [_head(result), _best(result), _careful(result), *_tables(result)]
    if result.measured:
        parts.append(_plots(result))
    parts += [_not_measured(result), _method(result), _machine(result), _repeat(result)]
    title = escape(f"pix2live bench: {machine_words(result)}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def machine_words(result: Result) -> str:
    """Return board, GPUs and processor in one line."""
    facts = result.environment
    gpus = [str(gpu.get("name", "GPU")) for gpu in result.machine.get("gpus", [])]
    words = [facts.get("board"), *gpus, f"{facts.get('cpu')}, {facts.get('cpus')} processors"]
    return ", ".join(str(word) for word in words if word)


def _head(result: Result) -> str:
    when = result.taken.replace("T", " ").replace("+00:00", " UTC")
    version = f"pix2live {result.pix2live}{commit_of(result)}"
    return (
        "<header><h1>Image-to-image filters, measured</h1>"
        f'<p class="machine">{escape(machine_words(result))}</p>'
        f'<p class="faded">{escape(version)}, {escape(when)}'
        f" · {len(result.measured)} cases measured</p></header>"
    )


def _best(result: Result) -> str:
    """Return the fastest case of each filter and size, large."""
    cards = []
    for (name, size), cases in result.groups().items():
        measured = [case for case in cases if case.status == MEASURED]
        if not measured:
            continue
        best = _fastest(measured)
        age_ms = _median(best, lambda item: item.live.p50_ms)
        fps, said = Spread.of(best.values(_fps)), [it for it in (mark(best), best.part) if it]
        if said and len(best.rounds) > 1:
            said.append(f"{_number(fps.least)} to {_number(fps.most)} fps")
        careful = f'<span class="noisy">{escape(", ".join(said))}</span>' if said else ""
        cards.append(
            f"<div><span>{escape(name)} {size[0]}x{size[1]}</span>"
            f"<b>{_number(fps.median)} <small>fps</small></b>{careful}"
            f"<span>{age_ms:.0f} ms old when shown<br>{escape(best.label)}</span></div>"
        )
    return f'<div class="best">{"".join(cards)}</div>' if cards else ""


def _careful(result: Result) -> str:
    """Return what a reader has to know before believing a number."""
    lines = [] if result.finished else ["Interrupted: this is what was measured until then."]
    lines += [f"Throttled: {why}" for why in result.throttled]
    marked = [(name_of(case), flags(case)) for case in result.measured if flags(case)]
    count = len(result.measured)
    if noisy := sum(mark(case) == "noisy" for case in result.measured):
        lines.append(f"{noisy} of {count} cases are noisy: their numbers may be off.")
    if parts := sum(bool(case.part) for case in result.measured):
        lines.append(f"{parts} of {count} cases were measured in part: not all rounds.")
    if above := above_roofline(result.measured):
        lines.append(f"More than 100 % of the roofline: {', '.join(above)}: {WHY_ABOVE}.")
    lines += [str(note) for note in result.machine.get("notes", [])]
    if not lines:
        return ""
    said = [f"<b>{escape(label)}</b>: {escape('; '.join(why))}" for label, why in marked]
    each = f"<details><summary>Which, and why</summary>{_list(said)}</details>" if said else ""
    return f'<div class="careful"><b>Read with care</b>{_list(map(escape, lines))}{each}</div>'


def _tables(result: Result) -> Iterable[str]:
    for (name, size), cases in result.groups().items():
        measured = [case for case in cases if case.status == MEASURED]
        if measured:
            rows = "".join(_row(case, case is _fastest(measured)) for case in measured)
            yield (
                f"<h2>{escape(name)}, {size[0]}x{size[1]}</h2>"
                f'<div class="wide" tabindex="0"><table class="cases"><thead>{_header()}</thead>'
                f"<tbody>{rows}</tbody></table></div>"
            )


def _header() -> str:
    groups: list[list[Any]] = []
    for _, group in COLUMNS:
        words = group.partition(",")[0]
        if groups and groups[-1][0] == words:
            groups[-1][1] += 1
        else:
            groups.append([words, 1])
    above = "".join(
        f'<th class="group" colspan="{span}"><span>{words}</span></th>' for words, span in groups
    )
    below = "".join(
        f"<th>{name}{', ms' if group.endswith('ms') else ''}</th>" for name, group in COLUMNS
    )
    return f'<tr><th class="group"></th>{above}</tr><tr><th></th>{below}</tr>'


def _row(case: Case, top: bool) -> str:
    fps = Spread.of(case.values(_fps))
    span = f"<small>{_number(fps.least)} to {_number(fps.most)}</small>"
    cells = [
        f"{_number(fps.median)}{span}",
        _ms(_median(case, lambda item: item.latency.p50_ms)),
        _ms(_median(case, lambda item: item.latency.p95_ms)),
        _ms(_median(case, lambda item: item.latency.p99_ms)),
        f"{_median(case, lambda item: item.live.fps):.1f}",
        f"{dropped_share(case):.0%}",
        _ms(_median(case, lambda item: item.live.jitter_ms)),
        _ms(_median(case, lambda item: item.live.p50_ms)),
        _ms(_median(case, lambda item: item.live.p95_ms)),
        _ms(_median(case, lambda item: item.live.p99_ms)),
        f"{_median(case, live_cpus):.2f}",
        psnr_words(case),
        _given(case.open_s, ".2f"),
        _given(case.memory_mb, ".0f"),
    ]
    said = ", ".join(dict.fromkeys(it for it in (mark(case), case.part) if it))
    noisy = f'<small class="noisy">{escape(said)}</small>' if said else ""
    first = f"<td>{escape(case.label)}<small>{escape(case.device)}</small>{noisy}</td>"
    rest = "".join(
        f'<td data-label="{escape(_label(place))}">{cell}</td>' for place, cell in enumerate(cells)
    )
    return f"<tr{' class=top' if top else ''}>{first}{rest}</tr>"


def _label(place: int) -> str:
    """Return the heading of a cell where the table is a list, on a phone."""
    name, group = COLUMNS[place]
    words, _, unit = group.partition(", ")
    return f"{words} {name}{f', {unit}' if unit else ''}"


def _plots(result: Result) -> str:
    figures, speeds = [], []
    for name in dict.fromkeys(case.filter for case in result.measured):
        words = "frames a second of the engine alone; the thin line is the range of the rounds"
        speeds.append(_figure(plots.fps_bars(result, name), name, words))
        if any(case.roofline for case in result.measured if case.filter == name):
            words = "100 % is the least time that the ceilings allow a frame (beside the bars, with"
            words += " what takes most of it)"
            bars = plots.roofline_bars(result, name)
            speeds.append(_figure(bars, f"Share of the roofline, {name}", words))
    for (name, size), cases in result.groups().items():
        measured = [case for case in cases if case.status == MEASURED]
        if not measured:
            continue
        where = f"{name}, {size[0]}x{size[1]}"
        fps = result.settings.fps
        words = f"ages of the shown frames, live at {fps:g} fps; further left is fresher"
        figures.append(_figure(plots.age_curves(result, measured), where, words))
        words = "throughput as the bench went on"
        if not any(key.endswith("_temperature_c") for item in result.samples for key in item):
            words += "; this machine shows no temperature"
        figures.append(_figure(plots.over_time(result, measured), where, words))
    parts = (("Speed", speeds), ("Age, and speed over time", figures))
    return "".join(
        f'<h2>{title}</h2><div class="plots">{"".join(found)}</div>' for title, found in parts
    )


def _figure(svg: str, title: str, words: str) -> str:
    caption = f"<figcaption><b>{escape(title)}</b>: {escape(words)}.</figcaption>"
    return f"<figure>{svg}{caption}</figure>"


def _not_measured(result: Result) -> str:
    lines = [
        f"<b>{escape(', '.join(labels))}</b>: {escape(reason)}"
        for reason, labels in reasons(result).items()
    ]
    lines += [
        f"<b>Roofline of {escape(', '.join(labels))}</b>: {escape(reason)}"
        for reason, labels in without_roofline(result).items()
    ]
    return f"<h2>Not measured, and why</h2>{_list(lines)}" if lines else ""


def _method(result: Result) -> str:
    compared = [case.difference for case in result.measured if case.difference is not None]
    words = {
        "fps": result.settings.fps,
        "rounds": result.settings.rounds,
        "together": MOST_TOGETHER,
        "reference": escape(compared[0].reference) if compared else "nothing (no backend had f32)",
        "compared": compared[0].frames if compared else 0,
    }
    real = "" if result.clip.real else " Made frames: the film clip is not installed."
    frames = (
        f"<b>Frames</b>: {escape(result.clip.description)}"
        f" (SHA-256 {result.clip.sha256[:16]}…).{real}"
    )
    rooflines = [case.roofline for case in result.measured if case.roofline is not None]
    lines = [line.format(**words) for line in METHOD]
    if rooflines:
        words_of = dict.fromkeys(it for found in rooflines for it in found.basis.split("; "))
        lines.append(ROOFLINE.format(ceilings=escape("; ".join(words_of))))
    return f"<h2>Method</h2>{_list([*lines, frames])}"


def _machine(result: Result) -> str:
    facts, more = result.environment, result.machine
    power = facts.get("power_mode") or {}
    rows = {
        "board": facts.get("board"),
        "processor": f"{facts.get('cpu')}, {facts.get('cpus')} processors",
        "instruction sets": " ".join(facts.get("cpu_flags") or []),
        "memory": f"{facts['memory_gb']} GB" if facts.get("memory_gb") else None,
        **{f"GPU {place}": _gpu_words(gpu) for place, gpu in enumerate(more.get("gpus", []))},
        "system": facts.get("platform"),
        "guest of": facts.get("virtualisation"),
        "power mode": ", ".join(f"{name} {value}" for name, value in power.items()) or "not shown",
        "load before": more.get("load_average"),
        "Python": facts.get("python"),
        "packages": ", ".join(f"{name} {it}" for name, it in facts.get("packages", {}).items()),
        "sensors": "; ".join([*more.get("sensors", []), *more.get("no_sensor", [])]),
    }
    shown = {name: str(value) for name, value in rows.items() if value not in (None, "")}
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(it)}</dd>" for name, it in shown.items())
    return f"<h2>Machine</h2><dl>{listed}</dl>"


def _gpu_words(gpu: dict[str, Any]) -> str:
    words = {
        "driver": "driver {}",
        "memory_mb": "{} MB",
        "power_limit_w": "power limit {} W",
        "most_clock_mhz": "up to {} MHz",
    }
    known = [how.format(gpu[name]) for name, how in words.items() if name in gpu]
    return ", ".join([str(gpu.get("name", "GPU")), *known])


def _repeat(result: Result) -> str:
    settings = result.settings
    words = [f"--filter {shlex.quote(name)}" for name in settings.filters]
    words += [f"--backend {name}" for name in settings.backends]
    words += [f"--precision {name}" for name in settings.precisions]
    words += [f"--size {width}x{height}" for width, height in settings.sizes]
    words.append(
        f"--seconds {settings.seconds:g} --rounds {settings.rounds} --fps {settings.fps:g}"
    )
    words.append("--json mine.json --html mine.html")
    command = escape(" \\\n    ".join(["pix2live bench", *words]))
    return (
        f"<h2>Repeat it on your machine</h2><pre><code>{command}</code></pre>"
        "<p><code>pix2live bench --compare theirs.json mine.json</code> says what differs beyond"
        " the noise.</p><footer>Made by pix2live bench; one file, no scripts, nothing"
        " fetched.</footer>"
    )


def _fastest(cases: Sequence[Case]) -> Case:
    return max(cases, key=lambda case: _median(case, _fps))


def _fps(item: Round) -> float:
    return item.throughput.fps


def _median(case: Case, figure: Figure) -> float:
    return Spread.of(case.values(figure)).median


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ms(value: float) -> str:
    """Return three or four figures: no table is wide for digits that nobody reads."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _given(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
