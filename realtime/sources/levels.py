"""Windows of grey levels: pictures of more than 8 bits as frames of 8 bits a channel, and back.

A window is a range of levels, as radiology uses it: LOW is shown black, HIGH white, what lies
outside is cut off. A frame is uint8 BGR, so one channel would keep 256 levels. The three channels
share the value instead: 766 levels survive, and the frame still looks grey to every filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError

STEPS: Final = 765
"""B + G + R of white: three channels of 255."""

FORM: Final = "a window is LOW:HIGH with LOW below HIGH, for instance 0:4095 or -160:240"


@dataclass(frozen=True, slots=True)
class Window:
    """The range of levels from black (``low``) to white (``high``).

    Raises:
        SettingsError: ``low`` is not below ``high``, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high - self.low) and self.low < self.high):
            raise SettingsError(f"{FORM}, found {self}")

    def __str__(self) -> str:
        return f"{self.low:.10g}:{self.high:.10g}"

    @property
    def step(self) -> float:
        """The distance of two neighbours among the 766 levels that a frame holds."""
        return (self.high - self.low) / STEPS

    @classmethod
    def parse(cls, text: str) -> Window:
        """Return the window that ``LOW:HIGH`` names.

        Raises:
            SettingsError: it is none.
        """
        low, _, high = text.partition(":")
        try:
            numbers = float(low), float(high)
        except ValueError as error:
            raise SettingsError(f"{FORM}, found {text!r}") from error
        return cls(*numbers)


@dataclass(frozen=True, slots=True)
class GreyPicture:
    """A picture of one channel before it becomes a frame: all levels that the file has."""

    levels: NDArray[Any]
    """(H, W), integers or floats, in the file's own unit (Hounsfield for a CT)."""
    window: Window
    """What becomes black and white."""
    origin: str
    """Who chose the window: ``as asked``, ``the file's own`` or ``its full range``."""
    inverted: bool = False
    """``low`` is white (DICOM's MONOCHROME1)."""

    def pixels(self) -> Pixels:
        """Return the frame: uint8 (H, W, 3) BGR."""
        pixels = pixels_from_levels(self.levels, self.window)
        return np.ascontiguousarray(255 - pixels[..., ::-1]) if self.inverted else pixels

    def cut_share(self) -> float:
        """Return which share of the pixels lies outside the window, 0 to 1."""
        outside = (self.levels < self.window.low) | (self.levels > self.window.high)
        return float(np.mean(outside))


def pixels_from_levels(levels: NDArray[Any], window: Window) -> Pixels:
    """Return ``levels`` (H, W) as a frame: uint8 (H, W, 3) BGR that looks grey.

    With s = round(765 (v - low) / (high - low)), limited to 0..765, the channels are s // 3,
    (s + 1) // 3 and (s + 2) // 3: they sum up to s and differ by 1 at most. NaN becomes black.
    """
    # Limited first, so that no level is large enough to overflow.
    limited = np.clip(levels.astype(np.float64), window.low, window.high)
    scaled = STEPS * ((limited - window.low) / (window.high - window.low))
    total = np.rint(np.nan_to_num(scaled, nan=0.0)).astype(np.uint16)
    pixels = np.empty((*total.shape, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = (total + channel) // 3
    return pixels


def levels_from_pixels(pixels: Pixels, window: Window) -> NDArray[np.float64]:
    """Return the levels (H, W) of a frame (H, W, 3): low + (high - low) (B + G + R) / 765.

    A level that went through `pixels_from_levels` comes back within half a `Window.step`; whole
    numbers, rounded again, come back as they were where high - low is 765 or less.
    """
    levels = window.low + (window.high - window.low) * np.arange(STEPS + 1) / STEPS
    found: NDArray[np.float64] = levels[pixels.sum(axis=2, dtype=np.uint16)]
    return found
