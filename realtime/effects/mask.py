"""Mask: an effect that says where the translation shows; elsewhere the captured picture does."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Final, TypedDict

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect
from realtime.effects.words import Words
from realtime.frame import Frame

BAND_PIXELS: Final = 1 << 16
"""Pictures are mixed in bands of so many pixels, whose intermediate results stay in the cache."""


class MaskWords(TypedDict):
    """What every mask understands, as arguments of `Mask`."""

    feather_px: float
    invert: bool


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
        mask = self.soft(frame, context)
        context.mask = mask
        assert frame.source is not None
        return self.blended(frame.pixels, frame.source, mask)

    def soft(self, frame: Frame, context: Context) -> Pixels:
        """Return the mask as it is used, uint8 (H, W): feathered, and inverted where asked."""
        mask = feathered(self.find(frame, context), self.feather_px)
        return cv2.bitwise_not(mask) if self.invert else mask  # type: ignore[return-value]

    def blended(self, inside: Pixels, outside: Pixels, mask: Pixels) -> Pixels:
        """Return `blend` in a picture of this effect's own, valid until the next call."""
        if self._blended is None or self._blended.shape != inside.shape:
            self._blended = np.empty_like(inside)
        return blend(inside, outside, mask, self._blended)


def mask_words(words: Words, feather_px: float = 8.0) -> MaskWords:
    """Take what every mask understands: ``feather=PX`` and ``invert``."""
    return {"feather_px": words.number("feather", feather_px), "invert": words.flag("invert")}


def check_ranges(effect: str, *ranges: tuple[str, float, float, float]) -> None:
    """Refuse a setting out of its range; each range is (label, value, least, most).

    Raises:
        SettingsError: which one, of which effect.
    """
    for label, value, least, most in ranges:
        if not least <= value <= most:
            wanted = f"{least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
            raise SettingsError(f"{effect}: {label} must be {wanted}, found {value:g}")


def narrowed(size: Size, width_px: int) -> Size:
    """Return the (width, height) of a picture of ``size`` at most ``width_px`` wide."""
    width = min(width_px, size[0])
    return width, max(1, round(size[1] * width / size[0]))


def feathered(mask: Pixels, feather_px: float) -> Pixels:
    """Return a mask, uint8 (H, W), with edges about ``feather_px`` wide, half of it on each side.

    The mask goes on beyond the picture's border as it is there: what touches the border stays
    whole. Without feather it is ``mask`` itself, which is never changed.
    """
    if feather_px < 1:
        return mask
    reach = round(feather_px / 2)
    x, y, width, height = cv2.boundingRect(mask)
    if reach == 0 or not width:
        return mask
    # Twice a box: a ramp without corners, whose cost does not depend on its width. Only where
    # something is: beyond twice the reach around it, all stays 0.
    top, left = max(0, y - 2 * reach), max(0, x - 2 * reach)
    rows, columns = slice(top, y + height + 2 * reach), slice(left, x + width + 2 * reach)
    soft = mask[rows, columns]
    for _ in range(2):
        soft = cv2.blur(soft, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    if soft.shape == mask.shape:
        return soft
    result = np.zeros_like(mask)
    result[rows, columns] = soft
    return result


def blend(inside: Pixels, outside: Pixels, mask: Pixels, result: Pixels) -> Pixels:
    """Mix two pictures, uint8 (H, W, 3), by a mask, uint8 (H, W): 255 is all ``inside``.

    Rounded to the nearest value, exact at 0 and 255. Written into ``result``, which may be one of
    the two pictures, and returned.
    """
    x, y, width, height = cv2.boundingRect(mask)
    right, bottom = x + width, y + height
    result[:y], result[bottom:] = outside[:y], outside[bottom:]
    result[y:bottom, :x] = outside[y:bottom, :x]
    result[y:bottom, right:] = outside[y:bottom, right:]
    step = max(1, BAND_PIXELS // max(1, width))
    for start in range(y, bottom, step):
        band = slice(start, min(start + step, bottom)), slice(x, right)
        _mix(inside[band], outside[band], mask[band], result[band])
    return result


def _mix(inside: Pixels, outside: Pixels, mask: Pixels, result: Pixels) -> None:
    """Add the mask's share of the difference to ``outside``, in uint8 that never wraps around.

    Half of a subtraction is lost in uint8 (it stops at 0), so the share is taken of the distance
    and split into what goes up (at most where ``inside`` is more) and what goes down.
    """
    more = cv2.subtract(inside, outside)
    share = cv2.absdiff(inside, outside)
    weight = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)
    cv2.multiply(share, weight, dst=share, scale=1 / 255)
    up = cv2.min(share, more, dst=more)
    down = cv2.subtract(share, up, dst=share)
    cv2.subtract(cv2.add(outside, up, dst=up), down, dst=result)
