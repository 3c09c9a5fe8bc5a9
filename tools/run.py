"""`pix2live run`: words -> frozen Settings -> Pipeline."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from engines import Engine, SettingsError, Size, SourceError, open_engine
from realtime import Pipeline, open_source
from realtime.effects.views import VIEWS
from realtime.pipeline import MODES
from realtime.sinks.window import why_no_window
from realtime.sources import parse_size
from tools.report import LiveStatus, age_table, stats_json, write_json

EXIT_TERMINATED = 143
DEFAULT_FILTER = "comic"
SWITCH_INTERVAL_S = 0.0005
"""Python hands its lock to a waiting thread this soon; the default of 5 ms would be age."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was asked to do."""

    source: str
    filter: str
    sinks: tuple[str, ...]
    size: Size | None = None
    backend: str = "auto"
    precision: str = "auto"
    mode: str | None = None
    max_age_ms: float | None = None
    view: str = "filtered"
    overlay: bool | None = None
    seconds: float | None = None
    frames: int | None = None
    stats: Path | None = None


class SizeType(click.ParamType[Size]):
    """WIDTHxHEIGHT."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        try:
            return value if isinstance(value, tuple) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("source", required=False)
@click.option(
    "--filter",
    "filter_",
    default=DEFAULT_FILTER,
    show_default=True,
    metavar="NAME|FILE.onnx",
    help="A shipped filter or a frame model.",
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="SPEC",
    help="window, virtual-camera[:DEVICE], FILE.mp4, FOLDER/ or null; repeatable.",
)
@click.option("--size", type=SizeType(), help="Work at this size.  [default: the source's]")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, openvino, onnxruntime, torch or identity; never replaced by another.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16", "f16"]),
    default="auto",
    show_default=True,
    help="auto takes a reduced one only where it is proven.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="freshest: a live picture; every: no frame is lost.  [default: every for files"
    " into files, else freshest]",
)
@click.option(
    "--max-age",
    "max_age_ms",
    type=click.FloatRange(0, min_open=True),
    metavar="MS",
    help="Show nothing older.",
)
@click.option("--view", type=click.Choice(VIEWS), default="filtered", show_default=True)
@click.option(
    "--overlay/--no-overlay",
    default=None,
    help="Draw fps and age on the picture.  [default: in windows only]",
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option("--frames", type=click.IntRange(1), help="Stop after this many frames.")
@click.option(
    "--stats",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write ages, drops, versions and device.",
)
def run(source: str | None, filter_: str, sinks: tuple[str, ...], **options: Any) -> None:
    r"""Translate SOURCE, live: 0, /dev/video0, a file, a folder, a URL, screen, test-pattern.

    Without SOURCE the first camera; without a sink a window, or a file where there is no screen.

    \b
    pix2live run                                   camera to window
    pix2live run 0 --sink virtual-camera           camera to OBS, Zoom, ...
    pix2live run film.mp4 --sink comic.mp4         a file, as fast as possible
    pix2live run rtsp://host/stream --max-age 200  a stream, nothing older than 200 ms
    """
    console = Console(stderr=True)
    source = source if source is not None else first_camera()
    open_source(source)  # a wrong source is said before a sink is chosen
    settings = Settings(
        source=source,
        filter=filter_,
        sinks=sinks or (default_sink(console),),
        **options,
    )
    pipeline = make_pipeline(settings)
    terminated = run_pipeline(pipeline, console, settings)
    if console.is_terminal:
        console.print(age_table(pipeline))
        for sink in pipeline.sinks:
            if sink.path is not None:
                console.print(f"written: {sink.path}", highlight=False, markup=False)
    if terminated:
        sys.exit(EXIT_TERMINATED)


def make_pipeline(settings: Settings) -> Pipeline:
    """Return the pipeline for ``settings``; nothing is opened yet."""
    engine: Engine
    if settings.backend == "identity":
        engine = open_engine(None, backend="identity")
    else:
        engine = open_engine(
            settings.filter, backend=settings.backend, precision=settings.precision
        )
    return Pipeline(
        settings.source,
        engine,
        settings.sinks,
        mode=settings.mode,
        size=settings.size,
        max_age_ms=settings.max_age_ms,
        view=settings.view,
        overlay=settings.overlay,
        seconds=settings.seconds,
        frames=settings.frames,
    )


def run_pipeline(pipeline: Pipeline, console: Console, settings: Settings) -> bool:
    """Run to the end with a status line; returns whether the process was terminated.

    The statistics are written however the run ended.
    """
    if settings.stats is not None and not settings.stats.parent.is_dir():
        raise SettingsError(f"the folder {settings.stats.parent} does not exist; mkdir it first")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with stop_on_terminate(pipeline) as terminated:
        pipeline.start()
        frames = settings.frames or (pipeline.info.frames if pipeline.info else None)
        status = LiveStatus(pipeline, console, frames)
        try:
            pipeline.wait(status.tick)
        finally:
            status.close()
            if settings.stats is not None:
                data = stats_json(pipeline, asdict(settings) | {"stats": str(settings.stats)})
                write_json(settings.stats, data)
    return terminated.is_set()


@contextmanager
def stop_on_terminate(pipeline: Pipeline) -> Iterator[threading.Event]:
    """Let SIGTERM end the run as Ctrl-C does: recordings are finished."""
    terminated = threading.Event()

    def handle(_: int, __: FrameType | None) -> None:
        terminated.set()
        pipeline.stop()

    if threading.current_thread() is not threading.main_thread():
        yield terminated  # a test, or an embedding program, has its own signals
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def first_camera() -> str:
    """Return the first camera that can be asked.

    Raises:
        SourceError: there is none; the message says what else can be a source.
    """
    if not sys.platform.startswith("linux"):
        return "0"
    from realtime.sources.v4l2 import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        if not camera.problem:
            return camera.path
    problems = "; ".join(f"{camera.path}: {camera.problem}" for camera in cameras)
    raise SourceError(
        f"no camera here{f' ({problems})' if problems else ''}; give a file, a URL, screen or"
        " test-pattern as the source"
    )


def default_sink(console: Console) -> str:
    """Return the window, or a new file where there is no screen, and say so."""
    reason = why_no_window()
    if reason is None:
        return "window"
    path = f"pix2live-{datetime.now():%Y%m%d-%H%M%S}.mp4"
    console.print(
        f"no window ({reason}); recording to {path}", highlight=False, markup=False, soft_wrap=True
    )
    return path
