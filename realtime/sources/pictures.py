"""Still pictures: reading any common format as BGR, and writing without half-written files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SinkError, SourceError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

JPEG_MAGIC = b"\xff\xd8"


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


def read_picture(path: Path) -> Pixels:
    """Read a picture as uint8 (H, W, 3) BGR: EXIF turned, grey tripled, alpha over black.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    picture: Any = None
    if data.size:
        try:
            if data[:2].tobytes() != JPEG_MAGIC:  # a JPEG has no alpha: decode it once
                raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
                if raw is not None and raw.ndim == 3 and raw.shape[2] == 4:
                    eight_bit = raw if raw.dtype == np.uint8 else raw // 257
                    return flatten_alpha(eight_bit.astype(np.uint8))
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)  # turns by EXIF, makes 8 bit of 16
        except cv2.error:
            picture = None
    if picture is None:
        raise SourceError(f"{path} is no picture that can be read")
    return np.ascontiguousarray(picture, dtype=np.uint8)


def flatten_alpha(picture: NDArray[np.uint8]) -> Pixels:
    """Return BGR over black of a BGRA picture (straight alpha)."""
    alpha = picture[..., 3:].astype(np.uint16)
    flat = (picture[..., :3] * alpha + 127) // 255
    return np.ascontiguousarray(flat.astype(np.uint8))


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG or JPEG (by the suffix) atomically; a link keeps pointing where it does.

    Raises:
        SinkError: the folder is missing, the disk is full, ...
    """
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix.lower() == ".png" else []
    done, data = cv2.imencode(path.suffix, pixels, settings)
    if not done:
        raise SinkError(f"cannot encode {path}")
    try:
        target = link_target(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(data.tobytes())
            os.replace(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
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
