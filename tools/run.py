"""`pix2live run`: words -> frozen Settings -> Pipeline."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from engines import Pix2liveError, SettingsError, Size, SourceError, open_engine
from realtime import Pipeline, Sink, Source, open_sink, open_source
from realtime.crossfade import LONGEST_MS
from realtime.effects.chain import ON_ERROR
from realtime.effects.views import VIEWS
from realtime.outlets import DEFAULT_FPS
from realtime.pipeline import MODES
from realtime.recorder import new_recording
from realtime.sinks.images import ImagesSink
from realtime.sinks.window import why_no_window
from realtime.sources.images import ImagesSource
from realtime.sources.levels import Window
from tools.option_types import SizesType, SizeType, WindowType, precision_option
from tools.report import (
    BuildProgress,
    LiveStatus,
    age_table,
    end_notes,
    refuse_existing,
    refuse_unlike_json,
    stats_json,
    what_was_written,
    where_it_was_stopped,
    write_json,
)
from tools.signals import end_on_signals

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
    effects: tuple[str, ...] = ()
    effect_errors: str = "stop"
    stand_in: bool = True
    crossfade_ms: float = 0.0
    fps: float | None = None
    keep: bool = False
    keep_sizes: tuple[Size, ...] = ()
    view: str = "filtered"
    split_at: float = 0.5
    overlay: bool | None = None
    window: Window | None = None
    out_window: Window | None = None
    seconds: float | None = None
    frames: int | None = None
    stats: Path | None = None
    overwrite: bool = False


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
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace recordings that exist. A folder with numbered pictures is refused all the same.",
)
@click.option("--size", type=SizeType(), help="Work at this size.  [default: the source's]")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, openvino, onnxruntime, torch or identity; no other takes its place, but for the"
    " time that it compiles (see --no-stand-in).",
)
@precision_option(
    "auto takes the fastest one that is proven; int8 needs a twin beside the filter, as all shipped"
    " ones have."
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
@click.option(
    "--effect",
    "effects",
    multiple=True,
    metavar="SPEC",
    help="person, face:MODEL.onnx, stabilise:0.7, FILE.py:NAME, ...; repeatable, in this order.",
)
@click.option(
    "--effect-errors",
    type=click.Choice(ON_ERROR),
    default="stop",
    show_default=True,
    help="When an effect fails: stop the run, or drop the effect.",
)
@click.option(
    "--crossfade",
    "crossfade_ms",
    type=click.FloatRange(0, LONGEST_MS),
    default=0.0,
    metavar="MS",
    help="Switch filters smoothly.",
)
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="What --keep keeps.")
@click.option(
    "--keep",
    is_flag=True,
    help=f"Live: work at a smaller size while the machine is too slow for {DEFAULT_FPS:g} or"
    " --fps frames a second. A file into files or null needs --mode freshest with it.",
)
@click.option(
    "--keep-sizes",
    type=SizesType(),
    default=(),
    help="Sizes that --keep may work at, of the frame's shape.  [default: 100, 83, 67, 50, 37 % of"
    " its sides]",
)
@click.option(
    "--stand-in/--no-stand-in",
    default=True,
    show_default=True,
    help="Live: another backend shows the picture while this one compiles.",
)
@click.option("--view", type=click.Choice(VIEWS), default="filtered", show_default=True)
@click.option(
    "--overlay/--no-overlay",
    default=None,
    help="Draw fps and age on the picture.  [default: in windows only]",
)
@click.option(
    "--window",
    type=WindowType(),
    help="For grey pictures of 16 bits and DICOM: the levels that become black and white."
    "  [default: all of 16 bits; DICOM's own]",
)
@click.option(
    "--out-window",
    type=WindowType(),
    help="Folders get grey PNGs of 16 bits, named after the source's files: these levels are"
    " black and white.",
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option("--frames", type=click.IntRange(1), help="Stop after this many frames.")
@click.option(
    "--stats",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write ages, drops, versions and device. An older .json is replaced, another file only"
    " with --overwrite.",
)
def run(source: str | None, filter_: str, sinks: tuple[str, ...], **options: Any) -> None:
    """Translate SOURCE, live: 0, /dev/video0, a file, a folder, a URL, screen, test-pattern.

    Without SOURCE the first camera; without a sink a window, or a file where there is no screen.

    \b
    pix2live run                                   camera to window
    pix2live run 0 --sink virtual-camera           camera to OBS, Zoom, ...
    pix2live run film.mp4 --sink comic.mp4         a file, as fast as possible
    pix2live run rtsp://host/stream --max-age 200  a stream, nothing older than 200 ms
    """  # noqa: D301  (click reads \b as a control character)
    console = Console(stderr=True)
    settings = Settings(
        source=source if source is not None else first_camera(),
        filter=filter_,
        sinks=sinks or (default_sink(),),
        **options,
    )
    pipeline = make_pipeline(settings)
    if not sinks and settings.sinks[0] != "window":
        pipeline.notes.append(f"no window ({why_no_window()}); recording to {settings.sinks[0]}")
    code = run_pipeline(pipeline, console, settings)
    console.print(age_table(pipeline))
    stopped = [where_it_was_stopped(pipeline)] if code else []
    for note in filter(None, [*stopped, *end_notes(pipeline, settings.max_age_ms)]):
        console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for line in what_was_written(pipeline):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


def make_pipeline(settings: Settings, more_sinks: Sequence[Sink] = ()) -> Pipeline:
    """Return the pipeline for ``settings``; nothing is opened yet.

    Raises:
        Pix2liveError: a name or path that leads nowhere, settings that do not fit together, or a
            file that exists and may not be replaced.
    """
    if not settings.keep and (settings.fps is not None or settings.keep_sizes):
        raise SettingsError("--fps and --keep-sizes say what --keep keeps; give it too")
    source = open_source(settings.source)
    sinks = [*(open_sink(spec) for spec in settings.sinks), *more_sinks]
    set_windows(settings, source, sinks)
    model = None if settings.backend == "identity" else settings.filter
    engine = open_engine(model, backend=settings.backend, precision=settings.precision)
    pipeline = Pipeline(
        source,
        engine,
        sinks,
        effects=settings.effects,
        effect_errors=settings.effect_errors,
        stand_in=settings.stand_in,
        crossfade_ms=settings.crossfade_ms,
        keep_fps=(settings.fps or DEFAULT_FPS) if settings.keep else None,
        keep_sizes=settings.keep_sizes,
        mode=settings.mode,
        size=settings.size,
        max_age_ms=settings.max_age_ms,
        view=settings.view,
        split_at=settings.split_at,
        overlay=settings.overlay,
        seconds=settings.seconds,
        frames=settings.frames,
    )
    if not settings.overwrite:  # here a sink that is the source has been refused for that
        recordings = [sink for sink in sinks if sink.overwrite and sink.path is not None]
        refuse_existing([sink.path for sink in recordings if sink.path and sink.path.is_file()])
        for sink in recordings:
            sink.overwrite = False  # nor what appears while it records
    if settings.stats is not None:
        check_stats_path(settings.stats, pipeline)
        if not settings.overwrite:
            refuse_unlike_json(settings.stats, "--overwrite replaces it")
    return pipeline


def set_windows(settings: Settings, source: Source, sinks: Sequence[Sink]) -> None:
    """Hand the windows of grey levels to who can use them.

    Raises:
        SettingsError: nobody can.
    """
    if settings.window is not None:
        if not isinstance(source, ImagesSource):
            raise SettingsError(
                f"--window is for pictures and folders of pictures; the source is {source.name}"
            )
        source.window = settings.window
    if settings.out_window is not None:
        folders = [sink for sink in sinks if isinstance(sink, ImagesSink)]
        if not folders:
            raise SettingsError("--out-window is for sinks that are folders: --sink FOLDER/")
        for folder in folders:
            folder.window = settings.out_window
            if isinstance(source, ImagesSource):
                folder.names = source.names  # filled when the source opens


def check_stats_path(path: Path, pipeline: Pipeline) -> None:
    """Refuse a place for the statistics that is missing, or that something else uses.

    Raises:
        SettingsError: what is wrong with it.
    """
    if not path.parent.is_dir():
        raise SettingsError(f"the folder {path.parent} does not exist; mkdir it first")
    used = [pipeline.source.path, *(sink.path for sink in pipeline.sinks)]
    if os.path.realpath(path) in {os.path.realpath(item) for item in used if item is not None}:
        raise SettingsError(f"{path} is the source or a sink; write the statistics elsewhere")


def run_pipeline(pipeline: Pipeline, console: Console, settings: Settings) -> int:
    """Run to the end with a status line; returns the exit code: 0, 130 or 143.

    The statistics are written however a run ended that had begun.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with end_on_signals(pipeline) as caught:
        build = BuildProgress(console, lambda: bool(caught))
        if hasattr(pipeline.engine, "on_progress"):  # an engine that may have to be built first
            pipeline.engine.on_progress = build
        try:
            with build:
                pipeline.start()
        except Pix2liveError:
            if caught:
                return 128 + caught[0]
            raise
        keep_what_is_loaded()
        frames = settings.frames or (pipeline.info.frames if pipeline.info else None)
        status = LiveStatus(pipeline, console, frames, build, settings.max_age_ms)
        try:
            pipeline.wait(status.tick)
        except KeyboardInterrupt:
            if not caught:
                raise
        finally:
            status.close()
            if settings.stats is not None:
                data = stats_json(pipeline, asdict(settings) | {"stats": str(settings.stats)})
                write_json(settings.stats, data)
    return 128 + caught[0] if caught else 0


def keep_what_is_loaded() -> None:
    """Let the garbage collector pass over everything that is loaded now.

    Looking through all modules takes it up to 70 ms, in which no frame moves.
    """
    gc.collect()
    gc.freeze()


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


def default_sink() -> str:
    """Return the window, or a new file where there is no screen."""
    if why_no_window() is None:
        return "window"
    return str(new_recording())
