"""Mask: an effect that says where the translation shows; elsewhere the captured picture does."""

from __future__ import annotations

from abc import abstractmethod

import cv2
import numpy as np

from engines import Pixels, SettingsError
from realtime.effects.base import Context, Effect
from realtime.effects.words import Words
from realtime.frame import Frame


class Mask(Effect):
    """Shows the translation inside a mask with soft edges, the captured picture outside.

    Several masks in a chain show the translation where all of them do.
    """

    def __init__(self, *, feather_px: float = 8.0, invert: bool = False) -> None:
        """``feather_px`` is how wide the soft edge is; ``invert`` changes inside and outside."""
        super().__init__()
        if not 0 <= feather_px <= 200:
            raise SettingsError(f"{self.name}: feather must be 0 to 200 pixels, found {feather_px}")
        self.feather_px = feather_px
        self.invert = invert
        self._blended: Pixels | None = None

    @abstractmethod
    def find(self, frame: Frame, context: Context) -> Pixels:
        """Return uint8 (H, W), 255 where the translation shows, before feathering and inverting.

        It is not changed, and valid until the next call.
        """

    def process(self, frame: Frame, context: Context) -> Pixels:
        mask = feathered(self.find(frame, context), self.feather_px)
        if self.invert:
            mask = ~mask
        context.mask = mask
        assert frame.source is not None
        if self._blended is None or self._blended.shape != frame.pixels.shape:
            self._blended = np.empty_like(frame.pixels)
        return blend(frame.pixels, frame.source, mask, self._blended)


def mask_words(words: Words, feather_px: float = 8.0) -> dict[str, float | bool]:
    """Take what every mask understands: ``feather=PX`` and ``invert``."""
    return {"feather_px": words.number("feather", feather_px), "invert": words.flag("invert")}


def feathered(mask: Pixels, feather_px: float) -> Pixels:
    """Return a mask, uint8 (H, W), with edges about ``feather_px`` wide."""
    if feather_px < 1:
        return mask
    side = 2 * round(feather_px / 2) + 1
    # Twice a box: a ramp without corners, whose cost does not depend on its width.
    return cv2.blur(cv2.blur(mask, (side, side)), (side, side))  # type: ignore[return-value]


def blend(inside: Pixels, outside: Pixels, mask: Pixels, result: Pixels) -> Pixels:
    """Mix two pictures, uint8 (H, W, 3), by a mask, uint8 (H, W): 255 is all ``inside``.

    Exact at 0 and 255; in between within 1 of 255. Written into ``result`` and returned.
    """
    weight = mask.astype(np.float32) * np.float32(1 / 255)
    cv2.blendLinear(inside, outside, weight, 1 - weight, dst=result)
    return result
