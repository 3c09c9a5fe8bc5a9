"""DICOM files as grey pictures, with pydicom: one frame, one channel, in the modality's unit.

To show that the path carries such pictures; nothing here is for medical use.
"""

from __future__ import annotations

import io
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from engines import Pix2liveError, SourceError
from realtime.sources.levels import GreyPicture, Window

DICOM_SUFFIX = ".dcm"
GREY = ("MONOCHROME1", "MONOCHROME2")


def read_dicom(path: Path, window: Window | None = None) -> GreyPicture:
    """Read a DICOM file: stored values times rescale slope plus intercept (Hounsfield for a CT).

    Without ``window`` the file's own (window center and width, DICOM PS3.3 C.11.2.1.2; the first
    where there are several), else all that its stored bits can hold. MONOCHROME1 is inverted.

    Raises:
        SourceError: pydicom is missing, or it is no grey picture of one frame that can be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    try:
        import pydicom
    except ImportError as error:
        raise SourceError(
            f"{path} is a DICOM file, which pydicom reads: pip install 'pix2live[medical]'"
        ) from error
    try:
        return _grey_picture(path, pydicom.dcmread(io.BytesIO(data)), window)
    except Pix2liveError:
        raise
    except pydicom.errors.InvalidDicomError as error:
        raise SourceError(f"{path} is no DICOM file (it has no DICM mark), or truncated") from error
    except Exception as error:  # pydicom raises whatever the bytes led to
        reason = " ".join((str(error) or type(error).__name__).split())
        raise SourceError(f"{path} is no DICOM picture that can be read: {reason[:200]}") from error


def _grey_picture(path: Path, dataset: Any, window: Window | None) -> GreyPicture:
    _check_grey(path, dataset)
    _check_decoder(path, dataset)
    slope = _number(path, dataset, "RescaleSlope", 1.0)
    intercept = _number(path, dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise SourceError(f"{path} has RescaleSlope 0: all its levels would be one")
    levels = dataset.pixel_array.astype(np.float64) * slope + intercept
    if levels.ndim != 2 or not levels.size:
        raise SourceError(f"{path} has pixels of shape {levels.shape}, expected (rows, columns)")
    found, origin = window, "as asked"
    if found is None:
        found, origin = _own_window(path, dataset), "the file's own"
    if found is None:
        found, origin = _full_range(dataset, slope, intercept), "its full range"
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return GreyPicture(levels, found, origin, inverted)


def _check_grey(path: Path, dataset: Any) -> None:
    if "PixelData" not in dataset:
        raise SourceError(f"{path} is a DICOM file without a picture (no PixelData), or truncated")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise SourceError(f"{path} has {frames} frames; split it into files of one frame")
    kind = str(dataset.get("PhotometricInterpretation", "of no known kind"))
    if kind not in GREY or dataset.get("SamplesPerPixel", 1) != 1:
        raise SourceError(f"{path} is {kind}; only grey is read ({' and '.join(GREY)})")
    if "ModalityLUTSequence" in dataset:
        raise SourceError(f"{path} has a modality table; only RescaleSlope and intercept are read")


def _check_decoder(path: Path, dataset: Any) -> None:
    """Refuse compressed pixels that nothing installed can decode (pydicom itself: RLE)."""
    get_decoder = import_module("pydicom.pixels").get_decoder  # exported, but not for mypy
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise SourceError(
            f"{path} is compressed ({syntax.name}) and no decoder is installed:"
            " pip install 'pylibjpeg[all]', or decompress it first"
        )


def _own_window(path: Path, dataset: Any) -> Window | None:
    if _first(dataset, "WindowCenter") is None or _first(dataset, "WindowWidth") is None:
        return None
    center = _number(path, dataset, "WindowCenter", 0.0)
    width = _number(path, dataset, "WindowWidth", 0.0)
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if function == "LINEAR":  # by the standard its first and last level are half a level inside
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise SourceError(f"{path} has a window of the form {function}; give one as LOW:HIGH")
    if width <= 0:
        raise SourceError(f"{path} has a window without width; give one as LOW:HIGH")
    return Window(center - width / 2, center + width / 2)


def _full_range(dataset: Any, slope: float, intercept: float) -> Window:
    bits = int(dataset.BitsStored)
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    ends = [level * slope + intercept for level in (lowest, lowest + 2**bits - 1)]
    return Window(min(ends), max(ends))


def _number(path: Path, dataset: Any, keyword: str, default: float) -> float:
    value = _first(dataset, keyword)
    number = default if value is None else float(value)
    if not math.isfinite(number):
        raise SourceError(f"{path} has {keyword} {value}, expected a number")
    return number


def _first(dataset: Any, keyword: str) -> Any:
    """Return the value, the first of several, or None where it is missing or empty."""
    value = dataset.get(keyword)
    if value is None or isinstance(value, (str, int, float)):
        return None if value == "" else value
    try:
        return value[0] if len(value) else None
    except TypeError:
        return value
