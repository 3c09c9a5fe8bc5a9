"""`pix2live calibrate`: a printed board in front of the camera -> the camera's calibration."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import numpy as np
from click.core import ParameterSource

from engines import EffectError, SinkError, Size
from realtime import Frame, Source, open_source
from realtime.effects.calibration import (
    BOARD_SQUARE_MM,
    LEAST_VIEWS,
    Board,
    BoardView,
    Calibration,
    is_new,
)
from tools.markers import write_printable
from tools.option_types import size_and_seconds
from tools.report import counted

ENOUGH_VIEWS: Final = 25
LIVE_SECONDS: Final = 120.0
SQUARE_PX: Final = 366
"""300 dots an inch at `BOARD_SQUARE_MM`."""
LARGE_ERROR_PX: Final = 1.0

Report = Callable[[int, int], None]
"""Called with the number of views, and of pictures read."""


@click.command()
@click.argument("source", required=False)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Where the calibration goes.",
)
@click.option(
    "--board",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Write the board to print (A4 or letter, landscape), and nothing else.",
)
@size_and_seconds(
    "Ask a camera for this size: the one to be used later.",
    "How long to look at a camera.",
    seconds=LIVE_SECONDS,
)
@click.option(
    "--views",
    type=click.IntRange(LEAST_VIEWS, 200),
    default=ENOUGH_VIEWS,
    show_default=True,
    help="Different views of the board that are enough.",
)
@click.pass_context
def calibrate(
    context: click.Context,
    *,
    source: str | None,
    out: Path | None,
    board: Path | None,
    size: Size | None,
    views: int,
    seconds: float,
) -> None:
    """Measure the camera SOURCE with a printed board: focal length and lens distortion.

    First print the board (--board FILE.png) and put it on something flat. Then show it to the
    camera from near and far, tilted to all sides, and in every part of the picture; a video or a
    folder of pictures of it will do as well.
    """
    if board is not None:
        given = [
            parameter
            for parameter in context.command.params
            if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        ]
        others = [item.opts[0] for item in given if item.name != "board"]
        if others:
            raise click.UsageError(
                f"--board FILE.png stands alone: the board is always the same; found {others[0]}"
            )
        write_printable(board, Board().draw(SQUARE_PX), SQUARE_PX / (BOARD_SQUARE_MM / 1000))
        click.echo(
            f"{board}: print it at 100 % on A4 or letter paper, landscape, and put it on something"
            " flat"
        )
        return
    if source is None or out is None:
        raise click.UsageError(
            "pix2live calibrate SOURCE --out FILE.json, or pix2live calibrate --board FILE.png"
        )
    if not out.absolute().parent.is_dir():
        raise SinkError(f"no folder {out.parent} for {out.name}")
    progress = Progress()
    try:
        found = calibrate_source(
            open_source(source), size=size, views=views, seconds=seconds, report=progress
        )
    finally:
        progress.close()
    found.save(out)
    width, height = found.size
    focal_px = found.camera_matrix[0, 0]
    angle = 2 * np.degrees(np.arctan(width / 2 / focal_px))
    click.echo(
        f"{out}: {width}x{height}, focal length {focal_px:.1f} px ({angle:.0f} degrees across),"
        f" error {found.error_px:.2f} px"
    )
    if found.error_px > LARGE_ERROR_PX:
        click.echo(
            f"an error of more than {LARGE_ERROR_PX:g} px: is the board flat, and the picture"
            " sharp?",
            err=True,
        )


def calibrate_source(
    source: Source,
    *,
    size: Size | None = None,
    views: int = ENOUGH_VIEWS,
    seconds: float = LIVE_SECONDS,
    report: Report | None = None,
) -> Calibration:
    """Look at a source until there are ``views`` different views of the board, and calibrate.

    Args:
        source: opened and closed here.
        size: (width, height) asked for.
        views: how many are enough; a source that ends may have fewer.
        seconds: how long to look at a live source.
        report: told after every picture.

    Raises:
        SourceError: the source cannot be read.
        EffectError: there are too few different views of the board.
    """
    board = Board()
    found: list[BoardView] = []
    pictures = with_board = 0
    try:
        info = source.open(size, realtime=source.live)
        width, height = info.size
        frame = Frame(np.empty((height, width, 3), np.uint8))
        end_s = time.monotonic() + seconds if source.live else float("inf")
        while len(found) < views and time.monotonic() < end_s and source.read(frame):
            pictures += 1
            view = board.find(frame.pixels)
            if view is not None:
                with_board += 1
                if is_new(view, found, info.size):
                    found.append(view)
            if report is not None:
                report(len(found), pictures)
    finally:
        source.close()
    if len(found) < LEAST_VIEWS:
        raise EffectError(
            f"the board was in {with_board} of {counted(pictures, 'picture')}, with"
            f" {counted(len(found), 'different view')}; a calibration needs {LEAST_VIEWS} or more"
            " (pix2live calibrate --board FILE.png writes the board; show it near and far, and"
            " tilted to all sides)"
        )
    return board.calibrate(found, info.size)


class Progress:
    """How many views there are: all the time on a terminal, elsewhere once at the end."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._line = ""

    def __call__(self, views: int, pictures: int) -> None:
        self._line = f"{counted(views, 'view')} of the board in {counted(pictures, 'picture')}"
        if self._live:
            click.echo(f"\r{self._line}", nl=False, err=True)

    def close(self) -> None:
        """End the line, or say it."""
        if self._line:
            click.echo("" if self._live else self._line, err=True)
