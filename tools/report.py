"""What a person sees of a run: the status line, the progress bar, the table of ages, the JSON."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from engines import SinkError
from engines.artefact import replace_file
from realtime import Pipeline
from realtime.labels import filter_label
from realtime.stats import Ages
from tools import environment

if TYPE_CHECKING:
    from typing_extensions import Self

STATS_SCHEMA = 1
SAID_KEPT = 1000
NOTHING_AFTER_S = 3.0
"""A run that has shown nothing for so long, although frames came, says so."""


class LiveStatus:
    """One line on a terminal while a pipeline runs; anywhere else only the notes, once each."""

    def __init__(
        self,
        pipeline: Pipeline,
        console: Console,
        frames: int | None,
        build: BuildProgress | None = None,
        max_age_ms: float | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._max_age_ms = max_age_ms
        self._said_nothing = False
        self._build = build
        self._console = console
        self._said: dict[str, None] = {}
        """Notes that were said; those that nobody has any more are forgotten first."""
        self._progress: Progress | None = None
        if console.is_terminal:
            columns = [TextColumn("{task.description}")]
            known = frames is not None and pipeline.mode == "every"
            extra: list[Any] = [BarColumn(), TimeRemainingColumn()] if known else [SpinnerColumn()]
            self._progress = Progress(
                *extra, *columns, console=console, auto_refresh=False, transient=True
            )
            self._task = self._progress.add_task("starting", total=frames if known else None)
            self._progress.start()

    def tick(self) -> None:
        """Draw the line again, and say what is new in the notes."""
        started_ns = self._pipeline.stats.started_ns
        if not self._said_nothing and time.monotonic_ns() - started_ns > NOTHING_AFTER_S * 1e9:
            said = nothing_shown(self._pipeline, self._max_age_ms)
            self._said_nothing = bool(said)
            if said:
                self._pipeline.notes.append(f"so far {said}")
        notes = [*what_runs(self._pipeline), *self._pipeline.all_notes()]
        for note in notes:
            if note not in self._said:
                self._console.print(
                    f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True
                )
            self._said.pop(note, None)
            self._said[note] = None
        for note in list(self._said)[: -max(SAID_KEPT, len(notes))]:
            del self._said[note]
        if self._progress is not None:
            done = self._pipeline.stats.engine_out.count
            self._progress.update(self._task, completed=done, description=self._line())
            self._progress.refresh()

    def close(self) -> None:
        """Remove the line; say the last notes."""
        self._said_nothing = True  # the end says it
        self.tick()
        if self._progress is not None:
            self._progress.stop()

    def _line(self) -> str:
        stats = self._pipeline.stats
        label = filter_label(self._pipeline.engine)
        if stats.working_size is not None:
            label += f" {'x'.join(map(str, stats.working_size))}"
        ages = stats.sinks[0].ages if stats.sinks else stats.engine_out
        recent = ages.recent()
        dropped = sum(stats.dropped().values())
        if recent is None:
            return f"{label}  nothing shown yet" + (f"  dropped {dropped}" if dropped else "")
        line = f"{label}  {recent[0]:.1f} fps  age {recent[1]:.0f} ms  dropped {dropped}"
        building = self._build is not None and self._pipeline.compiling
        return f"{line}  {self._build.text}" if self._build and building else line


class BuildProgress:
    """Says how far an engine is that has to be built before the first frame; it takes minutes."""

    def __init__(self, console: Console, cancelled: Callable[[], bool]) -> None:
        self.text = ""
        """How far it is, once others have the screen; see `LiveStatus`."""
        self._console = console
        self._cancelled = cancelled
        self._status: Status | None = None
        self._has_screen = True

    def __call__(self, progress: Any) -> bool:
        """Take an `engines.nvidia.tensorrt_builder.Progress`; return False to cancel."""
        if progress.depth == 0:
            self.text = f"building the engine: {progress.phase}, {progress.step}/{progress.steps}"
        if progress.depth == 0 and self._has_screen:
            if self._status is None:
                self._console.print("building an engine for this GPU: once, it may take minutes")
                self._status = self._console.status("")
                self._status.start()
            self._status.update(f"{progress.phase}: {progress.step} of {progress.steps}")
        return not self._cancelled()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the screen: what is still being built goes on beside a stand-in."""
        self._has_screen = False
        if self._status is not None:
            self._status.stop()


def age_table(pipeline: Pipeline) -> Table:
    """Return the ages of every stage and sink, and what was dropped before it."""
    stats = pipeline.stats
    table = Table(title=f"Age of the frames, {stats.fps():.1f} fps", title_justify="left")
    for name in ("at", "frames", "p50 ms", "p95 ms", "p99 ms", "dropped"):
        table.add_column(name, justify="left" if name == "at" else "right")
    engine_drops = stats.engine_overwritten + stats.engine_too_old
    rows: list[tuple[str, Ages, int]] = [
        ("captured", stats.captured, stats.source_dropped),
        ("engine took it", stats.engine_in, engine_drops),
        ("translated", stats.engine_out, 0),
    ]
    rows += [(f"effect {item.name}, its time", item.times, item.too_old) for item in stats.effects]
    rows += [(sink.name, sink.ages, sink.overwritten + sink.too_old) for sink in stats.sinks]
    for name, ages, dropped in rows:
        found = [ages.percentile_ms(percent) for percent in (50, 95, 99)]
        cells = ["-" if value is None else f"{value:.1f}" for value in found]
        table.add_row(name, str(ages.count), *cells, str(dropped))
    if stats.working_size is not None:
        size = "x".join(map(str, stats.working_size))
        steps = counted(stats.size_steps_taken, "step")
        table.caption = f"{steps} of the working size, {size} at the end"
        table.caption_justify = "left"
    return table


def what_runs(pipeline: Pipeline) -> list[str]:
    """Return which filter runs on what and in which precision; nothing before it is open."""
    engine = pipeline.engine
    if not engine.precision:
        return []
    where = f", {engine.device}" if engine.device else ""
    return [f"{filter_label(engine)} on {engine.name} in {engine.precision}{where}"]


def counted(count: int, thing: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def end_notes(pipeline: Pipeline, max_age_ms: float | None = None) -> list[str]:
    """Return what a person must not miss at the end of a run that did not fail."""
    found = [nothing_shown(pipeline, max_age_ms)]
    found += [
        f"{item.name} was dropped after {counted(item.times.count, 'frame')}: {item.error}"
        for item in pipeline.stats.effects
        if item.error
    ]
    return [note for note in found if note]


def where_it_was_stopped(pipeline: Pipeline) -> str:
    """Return how far a run came that somebody stopped; empty where the source has no end."""
    total = pipeline.info.frames if pipeline.info is not None else None
    done = pipeline.stats.engine_out.count
    if not total or done >= total:
        return ""
    return f"stopped after {done} of {counted(total, 'frame')}; what was written ends there"


def what_was_written(pipeline: Pipeline) -> list[str]:
    """Return a line for each sink with a path: whether there is anything of this run."""
    counts = iter([sink.ages.count for sink in pipeline.stats.sinks if not sink.left])
    lines = []
    for sink in pipeline.sinks:  # in the same order
        count = next(counts, 0)  # there is none where the run was stopped before it began
        if sink.path is not None:
            came = count > 0 and sink.path.exists()
            lines.append(f"{'written' if came else 'no frame came to'}: {sink.path}")
    return lines


def nothing_shown(pipeline: Pipeline, max_age_ms: float | None) -> str:
    """Return where and by how much all frames were too old for a sink, and what would help.

    Empty where every sink has shown some, or where age is not the reason.
    """
    stats = pipeline.stats
    blind = [sink for sink in stats.sinks if not sink.ages.count]
    in_effects = sum(item.too_old for item in stats.effects)
    total = stats.engine_too_old + in_effects + sum(sink.too_old for sink in blind)
    if max_age_ms is None or not blind or not total:
        return ""
    captured_ms = stats.captured.percentile_ms(50) or 0.0
    age_ms = stats.engine_out.percentile_ms(50) or 0.0
    oldest_ms = stats.engine_out.percentile_ms(95) or 0.0
    places = []
    if stats.engine_too_old:
        places.append(f"{stats.engine_too_old} before the filter ({captured_ms:.1f} ms at capture)")
    for item in stats.effects:
        age_ms += item.times.percentile_ms(50) or 0.0
        oldest_ms += item.times.percentile_ms(95) or 0.0
        if item.too_old:
            places.append(f"{item.too_old} after the effect {item.name} (about {age_ms:.1f} ms)")
    places += [
        f"{sink.too_old} at {sink.name} (about {age_ms:.1f} ms)" for sink in blind if sink.too_old
    ]
    who = "nothing was shown"
    if len(blind) < len(stats.sinks):
        who = f"{' and '.join(sink.name for sink in blind)} showed nothing"
    enough_ms = math.ceil(max(1.25 * oldest_ms, captured_ms + max_age_ms) / 10) * 10
    slow = captured_ms > max_age_ms
    instead = "a source with less delay" if slow else "a smaller --size or a lighter filter"
    return (
        f"{who}: {counted(total, 'frame')}, all too old for --max-age {max_age_ms:g}:"
        f" {', '.join(places)}; try --max-age {enough_ms}, or {instead}"
    )


def stats_json(pipeline: Pipeline, settings: dict[str, Any]) -> dict[str, Any]:
    """Return everything about a run as JSON types."""
    engine = pipeline.engine
    nothing = nothing_shown(pipeline, settings.get("max_age_ms"))
    return {
        "schema": STATS_SCHEMA,
        "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment.describe(),
        "settings": settings,
        "engine": {
            "filter": filter_label(engine),
            "sha256": getattr(engine.model, "sha256", None),
            "backend": engine.name,
            "device": engine.device,
            "precision": engine.precision,
            "depth": engine.depth,
        },
        "source": pipeline.info.description if pipeline.info else None,
        "mode": pipeline.mode,
        "size": list(pipeline.size or ()),
        "notes": [*pipeline.all_notes(), *([nothing] if nothing else [])],
        **pipeline.stats.to_dict(),
    }


def refuse_existing(paths: Sequence[Path]) -> None:
    """Refuse to write over files, before any is written.

    Raises:
        SinkError: which exists.
    """
    existing = [path for path in paths if path.exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        verb = "exist" if more else "exists"
        raise SinkError(f"{existing[0]}{more} {verb} already; --overwrite replaces what is there")


def refuse_unlike_json(path: Path, instead: str) -> None:
    """Refuse to put JSON in the place of another kind of file, by its name; older JSON may go.

    Args:
        path: a link counts as what it leads to.
        instead: what the person may do.

    Raises:
        SinkError: there is a file that does not end in ``.json``.
    """
    real = Path(os.path.realpath(path))
    if real.is_file() and real.suffix.lower() != ".json":
        raise SinkError(f"{path} exists already and is no .json; {instead}")


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        SinkError: the folder is missing, the disk is full, ...
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise SinkError(f"{path} is no ordinary file; the statistics need one")
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    try:
        replace_file(path, [text.encode()])
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}") from error
