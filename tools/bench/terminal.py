"""What a person sees of a bench on a terminal: how far it is, then the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from engines.proof import HIGHEST_PSNR_DB
from tools.bench.compare import WHY_ABOVE, Comparison, above_roofline, is_above
from tools.bench.results import (
    MEASURED,
    NOT_HERE,
    NOT_REACHED,
    Case,
    Result,
    Round,
    Spread,
    flags,
    mark,
    name_of,
)

ABOVE: Final = "(!)"
"""Beside a share of more than 100 %."""


class Progressing:
    """A bar on a terminal; anywhere else nothing."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,  # a thread that draws would be measured
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)

    def begin(self, turns: int) -> None:
        self._progress.update(self._task, total=turns)
        self._progress.start()

    def now(self, what: str) -> None:
        self._progress.update(self._task, description=what)
        self._progress.refresh()

    def turn(self) -> None:
        self._progress.advance(self._task)

    def tick(self) -> None:
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()


def print_result(result: Result, console: Console) -> None:
    """Print the machine, two tables a filter and size, and what was not measured, with reasons."""
    for line in machine_lines(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for (name, size), cases in result.groups().items():
        measured = [case for case in cases if case.status == MEASURED]
        if measured:
            title = f"{name}, {size[0]}x{size[1]}"
            console.print()
            console.print(bare_table(title, measured))
            console.print(live_table(result.settings.fps, measured))
            if any(case.roofline is not None for case in measured):
                console.print(roofline_table(measured))
            if above_roofline(measured):
                text = f"{ABOVE} more than 100 %: {WHY_ABOVE}"
                console.print(text, style="yellow", highlight=False, soft_wrap=True)
    _print_reasons(result, console)
    for reason, labels in without_roofline(result).items():
        text = f"roofline of {', '.join(labels)}: {reason}"
        console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
    for case in result.measured:
        said = flags(case)
        if not said:
            continue
        text = f"{mark(case)}: {name_of(case)}: {'; '.join(said)}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for note in [*result.machine.get("notes", []), *result.throttled]:
        console.print(f"note: {note}", style="dim", highlight=False, markup=False, soft_wrap=True)
    if not result.finished:
        console.print("interrupted: what was measured until then", style="yellow")


def machine_lines(result: Result) -> list[str]:
    """Return what this is about, in two or three lines."""
    facts, settings = result.environment, result.settings
    gpus = [gpu.get("name", "?") for gpu in result.machine.get("gpus", [])]
    what = ", ".join([facts.get("board") or "", str(facts.get("cpu")), *gpus]).strip(", ")
    power = ", ".join(f"{name} {value}" for name, value in facts.get("power_mode", {}).items())
    how = f"{settings.rounds} rounds in turn, {settings.seconds:g} s for each measurement of a case"
    return [
        f"{what}, {facts.get('cpus')} processors{f' ({power})' if power else ''}",
        f"pix2live {result.pix2live}{commit_of(result)}, {result.taken}",
        f"{how}; frames: {result.clip.description}",
    ]


def commit_of(result: Result) -> str:
    """Return the commit in brackets, where it was a checkout."""
    commit = result.environment.get("commit")
    return f" ({commit})" if commit else ""


def bare_table(title: str, cases: Iterable[Case]) -> Table:
    """Return the figures of the engines alone."""
    table = _table(f"{title}: the engine alone, copies included")
    for name in ("fps", "p50 ms", "p95", "p99", "open s", "MB", "PSNR dB"):
        table.add_column(name, justify="right", no_wrap=True)
    for case in cases:
        fps = Spread.of(case.values(lambda item: item.throughput.fps))
        times = [
            _median(case, lambda item: item.latency.p50_ms),
            _median(case, lambda item: item.latency.p95_ms),
            _median(case, lambda item: item.latency.p99_ms),
        ]
        table.add_row(
            Text(case.label),
            f"{fps.median:.1f} ±{fps.share / 2:.0%}",
            *(f"{value:.2f}" for value in times),
            f"{case.open_s:.2f}" if case.open_s is not None else "-",
            f"{case.memory_mb:.0f}" if case.memory_mb is not None else "-",
            psnr_words(case),
        )
    return table


def live_table(fps: float, cases: Iterable[Case]) -> Table:
    """Return the figures of the whole path."""
    table = _table(f"live, from a source of {fps:g} fps: ages at the sink")
    for name in ("fps", "p50 ms", "p95", "p99", "jitter", "dropped", "CPUs"):
        table.add_column(name, justify="right", no_wrap=True)
    for case in cases:
        table.add_row(
            Text(case.label),
            f"{_median(case, lambda item: item.live.fps):.1f}",
            f"{_median(case, lambda item: item.live.p50_ms):.1f}",
            f"{_median(case, lambda item: item.live.p95_ms):.1f}",
            f"{_median(case, lambda item: item.live.p99_ms):.1f}",
            f"{_median(case, lambda item: item.live.jitter_ms):.1f}",
            f"{dropped_share(case):.0%}",
            f"{_median(case, live_cpus):.2f}",
        )
    return table


def roofline_table(cases: Iterable[Case]) -> Table:
    """Return how near each case is to the least time that the hardware allows a frame."""
    table = _table("the roofline: least time of a frame, by the ceilings that were measured")
    for name in ("of the roofline", "limit ms", "bound by", "GOP/frame", "MB/frame"):
        table.add_column(name, justify="right", no_wrap=True)
    for case in cases:
        found = case.roofline
        if found is None:
            table.add_row(Text(case.label), *("-" * 5))
            continue
        table.add_row(
            Text(case.label),
            f"{f'{ABOVE} ' if is_above(case) else ''}{found.share:.0%}",
            f"{found.limit_ms:.2f}",
            found.binds,
            f"{found.operations / 1e9:.2f}",
            f"{found.bytes / 1e6:.1f}",
        )
    return table


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print warnings, then a row a figure that changed, then how many did not."""
    for warning in comparison.warnings:
        text = f"careful: {warning}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in ("case", "figure", "before", "after", "after / before", ""):
        right = name in ("before", "after", "after / before")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for change in comparison.changes:
        style = {"better": "green", "worse": "red"}.get(change.verdict, "")
        table.add_row(
            Text(change.case),
            change.figure,
            change.before,
            change.after,
            f"{change.ratio:.3f}" if change.ratio is not None else "-",
            Text(change.verdict, style=style),
        )
    if comparison.changes:
        console.print(table)
    console.print(comparison.summary(), highlight=False, markup=False, soft_wrap=True)


def reasons(result: Result) -> dict[str, list[str]]:
    """Return what was not measured: reason -> which backends and precisions, each once."""
    found: dict[str, dict[str, None]] = {}
    # What cannot run here at one size was not left out at another because of an interruption.
    never = {case.label for case in result.cases if case.status == NOT_HERE}
    never -= {case.label for case in result.cases if case.open_s is not None}
    for case in result.cases:
        if case.reason:
            said = case.reason if case.status != "failed" else f"failed: {case.reason}"
            found.setdefault(said, {})[case.label] = None
        elif case.status == NOT_REACHED and case.label not in never:
            size = "x".join(map(str, case.size))
            found.setdefault("not finished before it was interrupted", {})[
                f"{case.filter} {size} {case.label}"
            ] = None
    return {reason: list(labels) for reason, labels in found.items()}


def without_roofline(result: Result) -> dict[str, list[str]]:
    """Return why measured cases have no roofline, or a part of one: reason -> which, each once."""
    found: dict[str, dict[str, None]] = {}
    for case in result.measured:
        if case.no_roofline:
            found.setdefault(case.no_roofline, {})[f"{case.filter} {case.label}"] = None
    return {reason: list(labels) for reason, labels in found.items()}


def psnr_words(case: Case) -> str:
    """Return how close the pictures are to the reference's."""
    if case.difference is None:
        return "-"
    if case.difference.psnr_db >= HIGHEST_PSNR_DB:
        return "same"
    return f"{case.difference.psnr_db:.1f}"


def dropped_share(case: Case) -> float:
    """Return which share of the offered frames was never shown, over all rounds."""
    dropped = sum(item.live.dropped for item in case.rounds)
    return dropped / (dropped + sum(item.live.shown for item in case.rounds))


def live_cpus(item: Round) -> float:
    """Return how many processors the live path kept busy."""
    return item.live.cpu_s / item.live.seconds


def _print_reasons(result: Result, console: Console) -> None:
    for reason, labels in reasons(result).items():
        text = f"{', '.join(labels)}: {reason}"
        console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True, min_width=20)
    return table


def _median(case: Case, figure: Callable[[Round], float]) -> float:
    return Spread.of(case.values(figure)).median
