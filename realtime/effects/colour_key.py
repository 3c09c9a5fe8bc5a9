"""A mask by colour, as with a green screen: soft in the CbCr plane, with spill removal."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from engines import Pixels, SettingsError
from realtime.effects.base import Context
from realtime.effects.colours import KEY_COLOURS, read_rgb
from realtime.effects.mask import Mask, mask_words
from realtime.effects.words import Words
from realtime.frame import Frame

LEAST_CHROMA: Final = 20.0
"""A colour nearer to grey than this (of 181) says nothing about hue."""

SOFTNESS: Final = 0.2
"""How far the default outer tolerance is from the inner one."""

SPILL_ANGLE: Final = math.radians(120)
"""Hues within half of this on each side of the key are taken for spill."""


class ColourKey(Mask):
    """Shows the translation where the captured picture has the key colour.

    So the person before a green screen stays as captured and the screen becomes the translation;
    ``invert`` translates the person and leaves the screen. The light that the screen throws on
    the person (spill) is removed from the picture that shows beside the key colour: the captured
    one, or with ``invert`` the translated one.

    The matte is the distance to the key in the CbCr plane, which ignores brightness, so that
    shadows on the screen stay screen. Spill is what a colour has of the key's hue, within an
    acceptance angle (K. Jack, "Video Demystified", 3rd edition, 2001): a colour 60 degrees away
    from the key has none.

    Args:
        colour: ``green`` and others of `KEY_COLOURS`, or ``#rrggbb``: best the screen's own colour.
        tolerance: how far from the key a colour still is the key: 0 only the key itself, 1 all
            the way to grey.
        outer: from here on a colour is not the key at all; in between it is mixed. Default: 0.2
            more than ``tolerance``.
        spill: how much of the spill is removed, 0 to 1.
        feather_px: how wide the soft edge is, besides.
        invert: show the translation where the key colour is not.
    """

    name = "key"
    latency_ms = 1.2

    def __init__(
        self,
        colour: str = "green",
        *,
        tolerance: float = 0.65,
        outer: float | None = None,
        spill: float = 1.0,
        feather_px: float = 2.0,
        invert: bool = False,
    ) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        outer = tolerance + SOFTNESS if outer is None else outer
        if not 0 <= tolerance < outer <= 2:
            raise SettingsError(
                f"key: tolerance must be at least 0 and less than outer (at most 2), found"
                f" {tolerance:g} and {outer:g}"
            )
        if not 0 <= spill <= 1:
            raise SettingsError(f"key: spill must be 0 to 1, found {spill:g}")
        self.spill = spill
        key = _chroma(colour)
        self._table, self._falls = _table(key, tolerance, outer, spill)
        self._planes: tuple[Pixels, ...] = ()

    @classmethod
    def from_words(cls, words: str) -> ColourKey:
        """``COLOUR`` with ``tolerance=``, ``outer=``, ``spill=``, ``feather=PX``, ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken, 2.0)
        tolerance = taken.number("tolerance", 0.65)
        outer = taken.number("outer", tolerance + SOFTNESS)
        spill = taken.number("spill", 1.0)
        colour = taken.plain() or "green"
        taken.done()
        return cls(colour, tolerance=tolerance, outer=outer, spill=spill, **look)

    def find(self, frame: Frame, context: Context) -> Pixels:
        assert frame.source is not None
        self._planes = self._look_up(frame.source)
        return self._planes[0]

    def process(self, frame: Frame, context: Context) -> Pixels:
        mask = self.soft(frame, context)
        context.mask = mask
        inside, outside = frame.pixels, frame.source
        assert outside is not None
        if self.spill and self.invert:
            inside = self._without_spill(inside, self._look_up(inside))
        elif self.spill:
            outside = self._without_spill(outside, self._planes)
        return self.blended(inside, outside, mask)

    def _look_up(self, pixels: Pixels) -> tuple[Pixels, ...]:
        """Return matte and spill in B, G and R, each uint8 (H, W), from a table of all chromas."""
        chroma = np.empty((*pixels.shape[:2], 2), np.uint8)
        # Cb and Cr side by side are one number of 16 bits: the place in the table.
        cv2.mixChannels([cv2.cvtColor(pixels, cv2.COLOR_BGR2YCrCb)], [chroma], [2, 0, 1, 1])
        found = np.take(self._table, chroma.view("<u2")[..., 0])
        return tuple(cv2.split(found.view(np.uint8).reshape(*found.shape, 4)))  # type: ignore[arg-type]

    def _without_spill(self, pixels: Pixels, planes: tuple[Pixels, ...]) -> Pixels:
        changed = [
            cv2.subtract(plane, spill) if falls else cv2.add(plane, spill)
            for plane, spill, falls in zip(cv2.split(pixels), planes[1:], self._falls)
        ]
        return cv2.merge(changed)  # type: ignore[return-value]


def _chroma(colour: str) -> tuple[float, float]:
    """Return (Cb, Cr) of a colour's name or ``#rrggbb``, 0 being grey.

    Raises:
        SettingsError: it is no colour, or a grey one.
    """
    pixel = np.array(read_rgb(colour, KEY_COLOURS, "key"), np.uint8).reshape(1, 1, 3)
    _, cr, cb = (float(part) - 128 for part in cv2.cvtColor(pixel, cv2.COLOR_RGB2YCrCb)[0, 0])
    if math.hypot(cb, cr) < LEAST_CHROMA:
        raise SettingsError(f"key: {colour} is nearly grey; a key needs a colour")
    return cb, cr


def _table(
    key: tuple[float, float], tolerance: float, outer: float, spill: float
) -> tuple[Pixels, list[bool]]:
    """Return what to do with each chroma, and which of B, G and R fall where spill is removed.

    uint32 (65536), at Cb + 256 Cr: four bytes, the matte and by how much B, G and R change.
    """
    length = math.hypot(*key)
    along = np.array(key) / length
    cr, cb = np.mgrid[:256, :256] - 128.0
    distance = np.hypot(cb - key[0], cr - key[1]) / length
    matte = (outer - distance) / (outer - tolerance)
    towards = cb * along[0] + cr * along[1]
    across = np.abs(cr * along[0] - cb * along[1])
    excess = np.maximum(0, towards - across / math.tan(SPILL_ANGLE / 2)) * spill
    # What the inverse transform of BT.601 makes of a step back along the key, brightness kept.
    steps = -1.773 * along[0], 0.344 * along[0] + 0.714 * along[1], -1.403 * along[1]
    layers = [matte.clip(0, 1) * 255, *(abs(step) * excess for step in steps)]
    table = np.stack([np.rint(layer.clip(0, 255)) for layer in layers], axis=-1).astype(np.uint8)
    return table.reshape(-1, 4).view(np.uint32)[:, 0].copy(), [step < 0 for step in steps]  # type: ignore[return-value]
