"""Reading a picture of somebody's folder: what is cut off or enormous is told before decoding."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError
from realtime.sources.pictures import read_picture

Picture = NDArray[np.uint8]

LARGEST_PICTURE_PX: Final = 2**27  # 134 million: the larger telephones, and no bomb
LARGEST_FILE_BYTES: Final = 2**30
JPEG_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker that has a length, or the end: no stuffed byte, no restart, no filling."""
JPEG_END: Final = 0xD9
JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PNM_HEADER: Final = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
TIFF_WIDTH, TIFF_HEIGHT = 256, 257


def read_checked(path: Path) -> Picture:
    """Return a picture, uint8 (H, W, 3) BGR, as `read_picture`, but check the file first.

    Decoders fill what is missing of a JPEG with grey, and allocate what a header asks for.

    Raises:
        SourceError: the reason alone, without the name: the caller tells it.
    """
    try:
        size_bytes = path.stat().st_size
        data = path.read_bytes() if size_bytes <= LARGEST_FILE_BYTES else b""
    except OSError as error:
        raise SourceError(error.strerror) from error
    if size_bytes > LARGEST_FILE_BYTES:
        raise SourceError(f"too large, {size_bytes >> 20} MiB")
    if not data:
        raise SourceError("empty")
    size, is_whole = look_at_header(data)
    if size is not None and size[0] * size[1] > LARGEST_PICTURE_PX:
        raise SourceError(f"too large, {size[0]}x{size[1]}")
    if not is_whole:
        raise SourceError("truncated")
    try:
        return read_picture(path)
    except SourceError as error:
        reason = str(error).removeprefix(f"cannot read {path}: ").removeprefix(f"{path} ")
        raise SourceError(reason) from error


def look_at_header(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """Return (width, height) as a file claims, and False where its end is missing.

    The size is None for formats that are not known here; the decoder decides about them.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _look_at_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16), True
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data), True
        if data.startswith(b"BM"):
            old = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
            return (abs(width), abs(height)), True
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data), True
    except struct.error:
        return None, False
    found = PNM_HEADER.match(data[:4096])
    return (int(found[1]), int(found[2])) if found else None, True


def _look_at_jpeg(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """From marker to marker: an embedded preview has an end of its own, within a segment."""
    size: tuple[int, int] | None = None
    at = 2
    while found := JPEG_MARKER.search(data, at):
        at = found.start()
        if data[at + 1] == JPEG_END:
            return size, True
        if data[at + 1] in JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return size, False


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width + 1, height + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data.startswith(b"II") else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    sides: dict[int, int] = {}
    for number in range(struct.unpack_from(f"{order}H", data, at)[0]):
        tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * number)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            value = f"{order}{'H' if kind == 3 else 'I'}"
            sides[tag] = struct.unpack_from(value, data, at + 10 + 12 * number)[0]
    return (sides[TIFF_WIDTH], sides[TIFF_HEIGHT]) if len(sides) == 2 else None


def reduced(picture: Picture, short_side_px: int) -> Picture:
    """Return a picture with a short side of at most this; it is never enlarged."""
    scale = short_side_px / min(picture.shape[:2])
    if scale >= 1:
        return picture
    found = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return found.astype(np.uint8, copy=False)
