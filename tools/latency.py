"""`pix2live latency`: the delay from glass to glass, by a camera that films this screen."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from engines import SettingsError, SinkError, Size, SourceError, open_engine
from realtime import Pipeline, Source, open_source
from realtime.coded_pattern import NOT_FOUND, PROBLEMS, Reading
from realtime.glass_to_glass import LoopLog
from realtime.labels import filter_label
from realtime.pacing import NS_PER_S
from realtime.pattern_reader import PatternReader
from realtime.sinks.pattern_window import PatternWindow
from realtime.sinks.window import why_no_window
from realtime.sources.filmed import FilmedSource
from tools import environment
from tools.option_types import precision_option, size_and_seconds
from tools.report import counted, refuse_unlike_json, write_json
from tools.run import (
    DEFAULT_FILTER,
    SWITCH_INTERVAL_S,
    first_camera,
    keep_what_is_loaded,
)
from tools.signals import end_on_signals

SCHEMA: Final = 1
SIMULATED_MS: Final = 60.0
SETTLE_S: Final = 0.5
"""From the first number that was read to the measurement: the person lets go of the camera."""
AIM_SECONDS: Final = 60.0
OFTEN: Final = 0.1
"""A larger share of pictures than this is worth an advice."""
SMALL_UNIT_PX: Final = 5.0
ENOUGH_SAMPLES: Final = 20
PARTS: Final = {
    "camera": "camera: shown -> captured",
    "engine": "engine: captured -> translated",
    "display": "display: translated -> in the window",
    "total": "glass to glass",
}
SCOPE: Final = (
    "The camera's part has the screen's own delay and half of the exposure in it; the number is"
    " read as captured, not off the filtered picture."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    camera: str | None = None
    filter: str = DEFAULT_FILTER
    backend: str = "auto"
    precision: str = "auto"
    size: Size | None = None
    mirror: bool = False
    seconds: float = 20.0
    rate: float = 60.0
    aim_seconds: float = AIM_SECONDS
    simulate: float | None = None
    json: Path | None = None


@click.command()
@click.option(
    "--camera",
    metavar="SOURCE",
    help="0, /dev/video0, a live URL; or screen, which films itself.  [default: the first camera]",
)
@click.option(
    "--filter",
    "filter",
    default=DEFAULT_FILTER,
    show_default=True,
    metavar="NAME|FILE.onnx",
    help="A shipped filter or a frame model.",
)
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="As for run.")
@precision_option("auto takes a reduced one only where it is proven.")
@size_and_seconds(
    "Work at this size.  [default: the camera's]",
    "How long to measure, from the first number that is read.",
    seconds=20.0,
    range_s=(1, 600),
)
@click.option(
    "--mirror",
    is_flag=True,
    help="The camera sees the screen in a mirror: a laptop's own camera.",
)
@click.option(
    "--rate",
    type=click.FloatRange(5, 240),
    default=60.0,
    show_default=True,
    help="Numbers a second; not more than the screen shows.",
)
@click.option(
    "--aim-seconds",
    type=click.FloatRange(1, 600),
    default=AIM_SECONDS,
    show_default=True,
    help="Give up when no number could be read for so long.",
)
@click.option(
    "--simulate",
    type=click.FloatRange(0, 5000),
    is_flag=False,
    flag_value=SIMULATED_MS,
    metavar="[MS]",
    help=f"A simulated camera with this delay ({SIMULATED_MS:g}); needs no screen either.",
)
@click.option(
    "--json",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write everything as JSON; - is the standard output.",
)
def latency(**options: Any) -> None:
    """Measure the delay from glass to glass: what the camera sees until the window shows it.

    A window shows a number that changes all the time. Point the camera at it: its frames go
    through the filter as ever, and the number in each says when it was on the screen.

    \b
    pix2live latency                          the first camera, the default filter
    pix2live latency --camera 0 --filter scream --json latency.json
    pix2live latency --mirror                 a laptop before a mirror
    pix2live latency --backend identity       the camera and the screen alone
    pix2live latency --simulate 80            no camera: a simulated one, 80 ms late
    """  # noqa: D301  (click reads \b as a control character)
    settings = Settings(**options)
    console = Console(stderr=True)
    if settings.json is not None and str(settings.json) != "-":
        refuse_unlike_json(settings.json, "give another name")
    result, code = measure(settings, console)
    if settings.json is not None:
        if str(settings.json) == "-":
            click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        else:
            write_json(settings.json, result)
    report(result, console)
    if not result["samples"] and not code:
        raise SourceError(why_nothing(result))
    sys.exit(code)


class Measurement:
    """One pipeline with the pattern in its window.

    Raises:
        Pix2liveError: there is no camera or no screen, or a name leads nowhere.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = LoopLog()
        no_window = why_no_window()
        simulated = settings.simulate is not None
        if no_window is not None and not simulated:
            raise SinkError(
                f"cannot show the pattern: {no_window} (pix2live latency --simulate needs no"
                " screen)"
            )
        self.source = self._open_source()
        self.window = PatternWindow(
            self.log,
            time.monotonic_ns,
            rate=settings.rate,
            mirrored=settings.mirror,
            blind=simulated and no_window is not None,
        )
        model = None if settings.backend == "identity" else settings.filter
        self.pipeline = Pipeline(
            self.source,
            open_engine(model, backend=settings.backend, precision=settings.precision),
            [self.window],
            mode="freshest",
            size=settings.size,
            overlay=False,
            effects=[PatternReader(self.log, time.monotonic_ns, mirrored=settings.mirror)],
            stand_in=False,
        )
        self._give_up_s = math.inf

    def _open_source(self) -> Source:
        settings = self.settings
        if settings.simulate is not None:
            if settings.camera is not None or settings.mirror:
                raise SettingsError("--simulate stands alone: leave out --camera and --mirror")
            size = settings.size or (640, 360)
            return FilmedSource(self.log.shows, settings.simulate, size)
        source = open_source(settings.camera if settings.camera is not None else first_camera())
        if not source.live:
            raise SettingsError(
                f"{settings.camera} is no camera: a recording cannot film this screen"
            )
        return source

    @property
    def begun(self) -> bool:
        """Whether a number could be read, so that the measurement begins."""
        return self.log.start_ns is not None

    def tick(self, now_s: float) -> str:
        """Begin when a number was read, end when the time is over; return what is going on."""
        log, settings = self.log, self.settings
        if self._give_up_s == math.inf:
            self._give_up_s = now_s + settings.aim_seconds
        if log.start_ns is None and log.last is not None and log.last.numbers is not None:
            log.start_ns = round((now_s + SETTLE_S) * NS_PER_S)
        if log.start_ns is None:
            said = "point the camera at this window, so that it sees all four corners"
            over = now_s >= self._give_up_s
        else:
            done_s = max(0.0, now_s - log.start_ns / NS_PER_S)
            said = f"measuring: {done_s:.0f} of {settings.seconds:g} s"
            over = done_s >= settings.seconds
        if over:
            self.pipeline.stop()
        self.window.lines = said, *_hints(log.last)
        return "; ".join((said, *_hints(log.last)[:1]))

    def result(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        pipeline, settings = self.pipeline, self.settings
        engine = pipeline.engine
        true_ms = self.source.true_ms if isinstance(self.source, FilmedSource) else []
        summary = self.log.summary()
        written = None if settings.json is None else str(settings.json)
        return {
            "schema": SCHEMA,
            "environment": environment.describe(),
            "settings": asdict(settings) | {"json": written},
            "source": pipeline.info.description if pipeline.info else None,
            "size": list(pipeline.size or ()),
            "engine": {
                "filter": filter_label(engine),
                "backend": engine.name,
                "device": engine.device,
                "precision": engine.precision,
            },
            **summary,
            "simulated_camera_ms": round(float(np.median(true_ms)), 2) if true_ms else None,
            "advice": advice(summary),
            "scope": SCOPE,
            "notes": pipeline.all_notes(),
            "run": pipeline.stats.to_dict(),
        }


def measure(settings: Settings, console: Console) -> tuple[dict[str, Any], int]:
    """Run to the end; return what was measured, and the exit code: 0, 130 or 143."""
    measurement = Measurement(settings)
    pipeline = measurement.pipeline
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with end_on_signals(pipeline) as caught:
        pipeline.start()
        keep_what_is_loaded()
        status = console.status("starting") if console.is_terminal else None

        def tick() -> None:
            begun = measurement.begun
            said = measurement.tick(time.monotonic())
            if status is not None:
                status.update(said)
            elif measurement.begun and not begun:
                console.print(f"a number was read: measuring for {settings.seconds:g} s")

        with status or nullcontext():
            pipeline.wait(tick)
    return measurement.result(), 128 + caught[0] if caught else 0


def advice(summary: dict[str, Any]) -> list[str]:
    """Return what a person can do for a better measurement, the most important first."""
    tried = summary["pictures_read"]
    found = [
        f"{100 * count / tried:.0f} % of the pictures: {PROBLEMS[problem]}"
        for problem, count in summary["problems"].items()
        if count > OFTEN * tried
    ]
    unit_px = summary["unit_px"]
    if unit_px is not None and unit_px < SMALL_UNIT_PX:
        found.append("the pattern is small in the picture: move the camera nearer")
    if 0 < summary["samples"] < ENOUGH_SAMPLES:
        found.append(f"{counted(summary['samples'], 'sample')} are few: give it more --seconds")
    return found


def why_nothing(result: dict[str, Any]) -> str:
    """Return why there is no sample, and what to do."""
    if not result["run"]["frames"]:
        return "no frame came from the camera"
    if not result["pictures_read"]:
        return f"no number could be read: {PROBLEMS[result['last_problem'] or NOT_FOUND]}"
    return f"no number went round; {'; '.join(result['advice']) or 'give it more --seconds'}"


def report(result: dict[str, Any], console: Console) -> None:
    """Print the table, how sure it is, and what would make it better."""
    engine = result["engine"]
    size = "x".join(map(str, result["size"]))
    title = f"Glass to glass, ms: {engine['filter']} on {engine['backend']}, {size}"
    table = Table(title=title, title_justify="left")
    for name in ("part", "p50", "p95", "min", "max"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, words in PARTS.items():
        if part == "total":
            table.add_section()
        found = result["ms"][part]
        table.add_row(words, *(_number(found[name]) for name in ("p50", "p95", "min", "max")))
    console.print(table)
    for line in _lines(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in (*result["advice"], *result["notes"]):
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _lines(result: dict[str, Any]) -> list[str]:
    samples = counted(result["samples"], "sample")
    if not result["samples"]:
        return [f"{samples} of {counted(result['pictures_read'], 'picture')}"]
    how_good = (
        f"{samples} of {counted(result['pictures_read'], 'picture')},"
        f" {100 * result['unreadable_share']:.0f} % unreadable; each is right to"
        f" {result['plus_or_minus_ms']:.0f} ms (a new number every"
        f" {result['pattern_period_ms']:.0f} ms)"
    )
    lines = [how_good, SCOPE]
    if result["simulated_camera_ms"] is not None:
        lines.append(f"the simulated camera's part was {result['simulated_camera_ms']:.1f} ms")
    return lines


def _hints(last: Reading | None) -> Sequence[str]:
    """Return what to tell the person who aims the camera."""
    if last is None:
        return ("no frame yet",)
    if last.numbers is None:
        return f"{last.markers} of 4 corners seen: {last.problem}", PROBLEMS[last.problem]
    return (f"it is read: {last.unit_px:.0f} px a unit, contrast {last.contrast:.0f} of 255",)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
