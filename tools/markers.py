"""`pix2live markers`: markers to print, one PNG each, at the size that they are to have."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Final

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from engines import SettingsError, SinkError
from engines.artefact import replace_file
from realtime.effects.markers import (
    DEFAULT_DICTIONARY,
    DICTIONARIES,
    dictionary_name,
    marker_id,
    predefined_dictionary,
)
from tools.report import refuse_existing

LEAST_PIXELS_PER_M: Final = 300 / 0.0254
"""300 dots an inch."""
MOST_MARKERS: Final = 1000


@click.command()
@click.argument("ids", metavar="[IDS]", default="0-3")
@click.option(
    "--dictionary",
    default=DEFAULT_DICTIONARY,
    show_default=True,
    metavar="NAME",
    help=f"One of: {', '.join(DICTIONARIES)}.",
)
@click.option(
    "--size",
    "size_mm",
    type=click.FloatRange(5, 2000),
    default=80.0,
    show_default=True,
    metavar="MM",
    help="Side of the black square, in millimetres.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("markers"),
    show_default=True,
    metavar="DIR",
    help="Where to.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def markers(ids: str, dictionary: str, size_mm: float, out: Path, overwrite: bool) -> None:
    """Write printable markers: IDS is for instance 7, or 1,2,3,4, or 0-9 (default: 0-3).

    Print them at 100 %, and leave the white margin: without it no marker is found. The names of
    the files go to the standard output.
    """
    name = dictionary_name(dictionary)
    numbers = parse_ids(ids)
    count = len(predefined_dictionary(name).bytesList)
    for number in numbers:
        if number >= count:
            raise SettingsError(f"{name} has the markers 0 to {count - 1}, found {number}")
    paths = {number: out / f"{name}-{number}.png" for number in numbers}
    if not overwrite:
        refuse_existing(list(paths.values()))
    for number, path in paths.items():
        pixels, pixels_per_m = draw_marker(name, number, size_mm)
        write_printable(path, pixels, pixels_per_m)
        click.echo(path)
    many = f"{len(numbers)} markers" if len(numbers) > 1 else f"marker {numbers[0]}"
    click.echo(f"{many} of {name}, {size_mm:g} mm, in {out}; print at 100 %", err=True)


def parse_ids(text: str) -> list[int]:
    """Return the numbers of ``1,2,5-7``, each once, in the order in which they stand.

    Raises:
        SettingsError: something else stands there.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = marker_id("markers", first)
        end = marker_id("markers", last) if dash else start
        if not start <= end < start + MOST_MARKERS:
            raise SettingsError(f"markers: {part!r} is no range; for instance 0-9")
        found += range(start, end + 1)
    return list(dict.fromkeys(found))


def draw_marker(name: str, number: int, size_mm: float) -> tuple[NDArray[np.uint8], float]:
    """Return a marker with its white margin and a caption, and its pixels to the metre.

    The picture is uint8 (H, W); the caption is in the margin below, which is a cell taller.
    """
    dictionary = predefined_dictionary(name)
    cells = dictionary.markerSize + 2
    cell_px = max(1, int(-(-LEAST_PIXELS_PER_M * size_mm / 1000 // cells)))
    side = cells * cell_px
    drawn = np.asarray(cv2.aruco.generateImageMarker(dictionary, number, side), np.uint8)
    picture = np.full((side + 3 * cell_px, side + 2 * cell_px), 255, np.uint8)
    picture[cell_px : cell_px + side, cell_px : cell_px + side] = drawn
    caption = f"{name}  {number}  {size_mm:g} mm"
    scale = cell_px / 100
    (wide, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, side / max(1, wide))
    place = cell_px, picture.shape[0] - cell_px // 2
    weight = max(1, cell_px // 40)
    cv2.putText(
        picture, caption, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (110,), weight, cv2.LINE_AA
    )
    return picture, side / (size_mm / 1000)


def write_printable(path: Path, pixels: NDArray[np.uint8], pixels_per_m: float) -> None:
    """Write a grey PNG, uint8 (H, W), that says how large it is on paper; atomically.

    Raises:
        SinkError: it cannot be written.
    """
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise SinkError(f"cannot encode {path}")
    encoded = data.tobytes()
    per_m = round(pixels_per_m)
    body = b"pHYs" + struct.pack(">IIB", per_m, per_m, 1)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header_end = 8 + 25  # the signature, and IHDR with its length and check sum
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [encoded[:header_end], chunk, encoded[header_end:]])
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
