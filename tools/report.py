"""What a person sees of a run: the status line, the progress bar, the table of ages, the JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from engines import SinkError
from realtime import Pipeline
from realtime.labels import filter_label
from realtime.stats import Ages
from tools import environment

if TYPE_CHECKING:
    from typing_extensions import Self

STATS_SCHEMA = 1


class LiveStatus:
    """One line on a terminal while a pipeline runs; anywhere else only the notes, once each."""

    def __init__(
        self,
        pipeline: Pipeline,
        console: Console,
        frames: int | None,
        build: BuildProgress | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._build = build
        self._console = console
        self._said: set[str] = set()
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
        for note in self._pipeline.all_notes():
            if note not in self._said:
                self._said.add(note)
                self._console.print(
                    f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True
                )
        if self._progress is not None:
            done = self._pipeline.stats.engine_out.count
            self._progress.update(self._task, completed=done, description=self._line())
            self._progress.refresh()

    def close(self) -> None:
        """Remove the line; say the last notes."""
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
        if recent is None:
            return f"{label}  waiting for frames"
        dropped = sum(stats.dropped().values())
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
        table.caption = f"{stats.size_steps_taken} steps of the working size, {size} at the end"
        table.caption_justify = "left"
    return table


def stats_json(pipeline: Pipeline, settings: dict[str, Any]) -> dict[str, Any]:
    """Return everything about a run as JSON types."""
    engine = pipeline.engine
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
        "notes": pipeline.all_notes(),
        **pipeline.stats.to_dict(),
    }


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        SinkError: the folder is missing, the disk is full, ...
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise SinkError(f"{path} is no ordinary file; the statistics need one")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"cannot write {path}: {error.strerror}") from error
