"""Stabiliser: the previous output, moved along, calms what flickers in the translation."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect
from realtime.effects.flow import Motion, Moved, places
from realtime.effects.words import Words
from realtime.frame import Frame

STRENGTH: Final = 0.8
HEAVIEST: Final = 0.9
"""Weight of the previous output at strength 1. In 8 bits what is mixed stays up to 4 of 255 behind
then (1 at the default strength); with a weight of 1 nothing would ever change again."""
NEIGHBOURS_PX: Final = 5
MARGIN: Final = 8
"""Of 255: how far a colour may lie outside of those around it."""


class Stabiliser(Effect):
    """Mixes the previous output, moved by optical flow, into each translated picture.

    The flow is that of the captured pictures, as in Ruder, Dosovitskiy and Brox, "Artistic Style
    Transfer for Videos" (2016), at low resolution; where the moved captured picture does not fit
    the present one, the translation is left as it is. Two more things keep ghosts away: moved
    colours that are found nowhere near in the new translation are clipped to those that are
    (neighbourhood clamping, Karis, "High-Quality Temporal Supersampling", 2014), and after a cut
    everything begins anew.

    Args:
        strength: 0 (nothing happens) to 1 (90 % of what fits comes from before). More is calmer
            and softer, and follows changes later.
    """

    name = "stabilise"
    latency_ms = 5.0

    def __init__(self, strength: float = STRENGTH) -> None:
        super().__init__()
        if not 0 <= strength <= 1:
            raise SettingsError(f"stabilise: the strength must be 0 to 1, found {strength:g}")
        self.strength = strength
        self._motion: Motion | None = None
        self._label = ""
        self._previous: Pixels | None = None

    @classmethod
    def from_words(cls, words: str) -> Stabiliser:
        """``stabilise`` or ``stabilise:0.6``."""
        found = Words(cls.name, words)
        word = found.plain()
        strength = STRENGTH if word is None else found.as_number(word, "the strength")
        found.done()
        return cls(strength)

    def prepare(self, size: Size, context: Context) -> None:
        shape = (size[1], size[0], 3)
        self._size = size
        self._motion = Motion(size)
        self._places = places(size)
        self._where = np.empty_like(self._places)
        self._kept, self._moved, self._least, self._most = np.empty((4, *shape), np.uint8)
        self._kernel = np.ones((NEIGHBOURS_PX, NEIGHBOURS_PX), np.uint8)
        self._margin = np.full((4, 1), float(MARGIN))  # a scalar, as OpenCV takes it
        self.reset()

    def process(self, frame: Frame, context: Context) -> Pixels:
        assert self._motion is not None
        assert frame.source is not None
        if self.strength == 0:
            self._previous = None
            return frame.pixels
        if context.label != self._label:  # another filter: its pictures are no flicker
            self._label = context.label
            self._previous = None
        moved = self._motion.update(frame.source)
        if moved is not None and self._previous is not None:
            self._mix(frame.pixels, moved)
        # A copy of its own: later effects may draw into the picture.
        np.copyto(self._kept, frame.pixels)
        self._previous = self._kept
        return frame.pixels

    def reset(self) -> None:
        self._previous = None
        if self._motion is not None:
            self._motion.reset()

    def close(self) -> None:
        self._motion = self._previous = None

    def _mix(self, pixels: Pixels, moved: Moved) -> None:
        """Mix the kept output, moved, into ``pixels``, in place."""
        cv2.resize(moved.flow, self._size, dst=self._where)
        cv2.add(self._where, self._places, dst=self._where)
        # In fixed point: right to 1/32 pixel, and a little faster than floating-point maps.
        across, down = cv2.convertMaps(self._where, None, cv2.CV_16SC2)  # type: ignore[call-overload]
        cv2.remap(
            self._kept,
            across,
            down,
            cv2.INTER_LINEAR,
            dst=self._moved,
            borderMode=cv2.BORDER_REPLICATE,
        )
        self._clamp(pixels)
        weight = cv2.resize(moved.sure * np.float32(self.strength * HEAVIEST), self._size)
        cv2.blendLinear(self._moved, pixels, weight, 1 - weight, dst=pixels)

    def _clamp(self, pixels: Pixels) -> None:
        """Clip the moved output to the colours near each place of ``pixels``."""
        cv2.erode(pixels, self._kernel, dst=self._least)
        cv2.dilate(pixels, self._kernel, dst=self._most)
        cv2.subtract(self._least, self._margin, dst=self._least)
        cv2.add(self._most, self._margin, dst=self._most)
        cv2.max(self._moved, self._least, dst=self._moved)
        cv2.min(self._moved, self._most, dst=self._moved)
