"""Still pictures: reading any common format as BGR, and writing without half-written files."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SinkError, SourceError
from engines.artefact import replace_file
from realtime.sources.dicom import DICOM_SUFFIX, read_dicom
from realtime.sources.levels import GreyPicture, Window

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    DICOM_SUFFIX,
)

JPEG_MAGIC = b"\xff\xd8"

FULL_RANGE = {
    np.dtype(np.uint16): Window(0, 65535),
    np.dtype(np.int16): Window(-32768, 32767),
}
"""The window of deep grey files where none is asked for."""


def is_picture(path: Path) -> bool:
    """Return whether the name looks like a still picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order that a person expects (2 before 10).

    Raises:
        SourceError: the folder cannot be read.
    """
    try:
        found = [item for item in folder.iterdir() if is_picture(item) and item.is_file()]
    except OSError as error:
        raise SourceError(f"cannot read the folder {folder}: {error.strerror}") from error
    shown = [item for item in found if not item.name.startswith(".")]
    return sorted(shown, key=lambda item: (_natural_order(item.name), item.name))


def read_picture(path: Path, window: Window | None = None) -> Pixels:
    """Read a picture as uint8 (H, W, 3) BGR: EXIF turned, grey tripled, alpha over black.

    16-bit grey (and DICOM, where pydicom is installed) keeps 766 levels of its ``window``, shared
    among the channels, which differ by 1 at most: see `pixels_from_levels`. Without ``window``
    that is the full range, for DICOM the file's own window. Other 16-bit pictures become 8 bit.

    Args:
        path: the file.
        window: the levels that become black and white; for pictures of one channel only.

    Raises:
        SourceError: it cannot be read, or has colours where a window was asked for.
    """
    picture = load_picture(path, window)
    return picture.pixels() if isinstance(picture, GreyPicture) else picture


def load_picture(path: Path, window: Window | None = None) -> Pixels | GreyPicture:
    """Do as `read_picture`, but return grey that has a window with all its levels.

    Raises:
        SourceError: as `read_picture`.
    """
    if path.suffix.lower() == DICOM_SUFFIX:
        return read_dicom(path, window)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    picture: Any = None
    if data.size:
        try:
            # A JPEG has neither alpha nor 16 bits: without a window it is decoded once.
            if window is not None or data[:2].tobytes() != JPEG_MAGIC:
                raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
                if raw is not None and raw.ndim == 2:
                    grey = _grey_picture(path, data, raw.dtype, window)
                    if grey is not None:
                        return grey
                elif raw is not None and window is not None:
                    raise SourceError(
                        f"{path} has {raw.shape[2]} channels; a window is for pictures of one"
                    )
                elif raw is not None and raw.shape[2] == 4:
                    eight_bit = raw if raw.dtype == np.uint8 else raw // 257
                    return flatten_alpha(eight_bit.astype(np.uint8))
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)  # turns by EXIF, makes 8 bit of 16
        except cv2.error:
            picture = None
    if picture is None:
        raise SourceError(f"{path} is no picture that can be read")
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _grey_picture(
    path: Path, data: NDArray[np.uint8], depth: np.dtype[Any], window: Window | None
) -> GreyPicture | None:
    """Return a picture of one channel with its window; None for 8 bit without a window."""
    if window is None and depth == np.uint8:
        return None
    found = window or FULL_RANGE.get(depth)
    if found is None:
        raise SourceError(f"{path} has levels of type {depth}; give a window LOW:HIGH of them")
    levels = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH)  # turns by EXIF, keeps the depth
    if levels is None:
        raise SourceError(f"{path} is no picture that can be read")
    return GreyPicture(levels, found, "as asked" if window else "its full range")


def flatten_alpha(picture: NDArray[np.uint8]) -> Pixels:
    """Return BGR over black of a BGRA picture (straight alpha)."""
    alpha = picture[..., 3:].astype(np.uint16)
    flat = (picture[..., :3] * alpha + 127) // 255
    return np.ascontiguousarray(flat.astype(np.uint8))


def write_picture(path: Path, pixels: Pixels | NDArray[np.uint16]) -> None:
    """Write a PNG or JPEG (by the suffix) atomically; a link keeps pointing where it does.

    Args:
        path: where to.
        pixels: uint8 (H, W, 3) BGR, or uint16 (H, W) for a grey PNG of 16 bits.

    Raises:
        SinkError: the folder is missing, the disk is full, ...
    """
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix.lower() == ".png" else []
    done, data = cv2.imencode(path.suffix, pixels, settings)
    if not done:
        raise SinkError(f"cannot encode {path}")
    try:
        replace_file(link_target(path), [data.tobytes()])
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error


def link_target(path: Path) -> Path:
    """Return the absolute path of the file itself, where ``path`` may be a link.

    Raises:
        OSError: links that lead in a circle, on every version of Python.
    """
    try:
        target = path.resolve()
        in_a_circle = target.is_symlink()  # what Python 3.13 and newer leave of a circle
    except RuntimeError:
        in_a_circle = True
    if in_a_circle:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in re.split(r"(\d+)", name.lower()) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
