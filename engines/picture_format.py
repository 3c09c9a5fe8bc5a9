"""What the pictures of a network look like inside it: colours, range and layout.

Frames are uint8 BGR; networks want something else, each its own. A `PictureFormat` says what, and
the frame model's graph does the conversion.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from engines.errors import SettingsError

COLOURS: Final = {"rgb": 3, "bgr": 3, "grey": 1, "rgba": 4}
"""Name -> channels. ``rgba`` goes in opaque; what comes out is also the frame's alpha."""

LAYOUTS: Final = ("nchw", "nhwc")

LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in a grey picture (ITU-R BT.601), as Pillow's mode ``L`` has them."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""Of R, G and B, 0 to 1."""

RANGES: Final = "0..1, -1..1, 0..255, imagenet, or LOW..HIGH"


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """Float pictures of a network: ``value = level / 255 * scale + offset`` for each channel."""

    colour: str = "rgb"
    """``rgb``, ``bgr``, ``grey`` or ``rgba``: which channels, in this order."""
    scale: tuple[float, ...] = (1.0,)
    """One for every channel, or one for all."""
    offset: tuple[float, ...] = (0.0,)
    layout: str = "nchw"
    """``nchw`` (1, C, H, W) or ``nhwc`` (1, H, W, C)."""

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise SettingsError(f"no colour order {self.colour!r}; there are: {', '.join(COLOURS)}")
        if self.layout not in LAYOUTS:
            raise SettingsError(f"no layout {self.layout!r}; there are: {', '.join(LAYOUTS)}")
        for name, values in (("scale", self.scale), ("offset", self.offset)):
            if len(values) not in (1, self.channels):
                raise SettingsError(
                    f"{name} must have 1 or {self.channels} values, found {len(values)}"
                )
        if 0 in self.scale:
            raise SettingsError("the range of a picture must not be empty")

    @property
    def channels(self) -> int:
        return COLOURS[self.colour]

    @classmethod
    def parse(cls, text: str, colour: str = "rgb", layout: str = "nchw") -> PictureFormat:
        """Read a range as people type it.

        Args:
            text: ``0..1``, ``-1..1``, ``0..255``, any other LOW..HIGH, or ``imagenet`` (0 to 1,
                minus the mean, divided by the standard deviation of ImageNet; colours only).
            colour: ``rgb``, ``bgr``, ``grey`` or ``rgba``.
            layout: ``nchw`` or ``nhwc``.

        Raises:
            SettingsError: it is none of these.
        """
        if text == "imagenet":
            if colour not in ("rgb", "bgr"):
                raise SettingsError(f"the range imagenet is for rgb and bgr, not {colour}")
            channels = (0, 1, 2) if colour == "rgb" else (2, 1, 0)
            scale = tuple(1 / IMAGENET_STD[channel] for channel in channels)
            offset = tuple(-IMAGENET_MEAN[channel] / IMAGENET_STD[channel] for channel in channels)
            return cls(colour, scale, offset, layout)
        number = r"([+-]?(?:\d+\.?\d*|\.\d+))"
        found = re.fullmatch(rf"\s*{number}\s*\.\.\s*{number}\s*", text)
        if found is None:
            raise SettingsError(f"no range {text!r}; there are: {RANGES}")
        low, high = float(found[1]), float(found[2])
        if not low < high or not math.isfinite(high - low):
            raise SettingsError(f"the range {text} must rise, and be finite")
        return cls(colour, (high - low,), (low,), layout)


UNIT_RGB: Final = PictureFormat()
"""RGB, 0 to 1."""
SIGNED_RGB: Final = PictureFormat("rgb", (2.0,), (-1.0,))
"""RGB, -1 to 1."""
BYTE_RGB: Final = PictureFormat("rgb", (255.0,), (0.0,))
"""RGB, 0 to 255."""
