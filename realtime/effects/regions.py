"""Masks that stand still: a rectangle, a polygon."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context
from realtime.effects.mask import Mask, mask_words
from realtime.effects.words import Words
from realtime.frame import Frame

Points = NDArray[np.float64]
SLACK_PX: Final = 1e-3
"""Shares such as 0.3 + 0.7 may be a little more than 1."""


class Region(Mask):
    """A mask that is the same on every frame: drawn, feathered and inverted once.

    Its corners are pixels, or, where none is above 1, shares of width and height. Pixels are
    those of the frames, which keep their size in a run, whatever size the filter works at. Where
    the same object is prepared for another size later (a second run), it is scaled.
    """

    latency_ms = 0.2

    def __init__(self, points: Points, *, feather_px: float = 8.0, invert: bool = False) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        if not np.isfinite(points).all():
            raise SettingsError(f"{self.name}: corners must be numbers, found {points.tolist()}")
        self._points = points
        self._unit: Size | None = (1, 1) if points.max() <= 1 else None
        self._mask: Pixels | None = None
        self._soft: Pixels | None = None

    def prepare(self, size: Size, context: Context) -> None:
        """Draw the mask.

        Raises:
            SettingsError: the region reaches out of the picture, or covers no pixel of it.
        """
        first = self._unit or size
        points = self._points * np.divide(size, first)
        left, top = points.min(axis=0)
        right, bottom = points.max(axis=0)
        if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
            raise SettingsError(f"{self.name}: {self._place(size)} lies outside of the picture")
        beyond = max(-left, -top, right - size[0], bottom - size[1])
        if beyond > SLACK_PX:
            raise SettingsError(
                f"{self.name}: {self._place(size)} {_reach((left, top, right, bottom), size)}; it"
                " must lie inside"
            )
        mask = self._draw(points, size)
        if not mask.any():
            raise SettingsError(f"{self.name}: {self._place(size)} covers no pixel")
        self._unit, self._mask, self._soft = first, mask, None

    def find(self, frame: Frame, context: Context) -> Pixels:
        assert self._mask is not None
        return self._mask

    def soft(self, frame: Frame, context: Context) -> Pixels:
        if self._soft is None:
            self._soft = super().soft(frame, context).copy()
            self._soft.flags.writeable = False  # it is handed out again on the next frame
        return self._soft

    @abstractmethod
    def _draw(self, points: Points, size: Size) -> Pixels:
        """Return the mask, uint8 (H, W): 255 where the middle of a pixel is inside."""

    def _place(self, size: Size) -> str:
        """Return where the region is, and where it should be, for an error."""
        said = " ".join(f"{x:g},{y:g}" for x, y in self._points)
        unit = "shares of " if self._unit == (1, 1) else ""
        return f"{said} ({unit}{size[0]}x{size[1]} pixels)"


class Rectangle(Region):
    """Shows the translation inside an upright rectangle.

    Args:
        left, top, width, height: in pixels, or, all at most 1, as shares of the picture.
        feather_px: how wide the soft edge is.
        invert: show it outside.
    """

    name = "rectangle"

    def __init__(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        *,
        feather_px: float = 8.0,
        invert: bool = False,
    ) -> None:
        if not (width > 0 and height > 0):
            raise SettingsError(
                f"rectangle: width and height must be more than 0, found {width:g}x{height:g}"
            )
        super().__init__(
            np.array([(left, top), (left + width, top + height)], np.float64),
            feather_px=feather_px,
            invert=invert,
        )
        if max(left, top, width, height) <= 1:
            self._unit = (1, 1)  # 0.5 + 0.6 is too large, not a number of pixels

    @classmethod
    def from_words(cls, words: str) -> Rectangle:
        """``LEFT,TOP,WIDTH,HEIGHT`` with ``feather=PX`` and ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken)
        place = taken.numbers(_needed(taken, "LEFT,TOP,WIDTH,HEIGHT", cls.name), "the place", 4)
        taken.done()
        return cls(*place, **look)

    def _draw(self, points: Points, size: Size) -> Pixels:
        mask = np.zeros(size[::-1], np.uint8)
        # A pixel's middle is half a pixel to the right of its left edge.
        (left, top), (right, bottom) = np.ceil(points - 0.5).clip(0).astype(int)
        mask[top:bottom, left:right] = 255
        return mask


class Polygon(Region):
    """Shows the translation inside a polygon; where its sides cross, by the even-odd rule.

    Args:
        points: (x, y) of three corners or more, in pixels, or, all at most 1, as shares.
        feather_px: how wide the soft edge is.
        invert: show it outside.
    """

    name = "polygon"

    def __init__(
        self,
        points: Sequence[tuple[float, float]],
        *,
        feather_px: float = 8.0,
        invert: bool = False,
    ) -> None:
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise SettingsError(
                f"polygon: three corners x,y or more are needed, found {len(points)}"
            )
        super().__init__(np.array(points, np.float64), feather_px=feather_px, invert=invert)

    @classmethod
    def from_words(cls, words: str) -> Polygon:
        """``X,Y,X,Y,X,Y`` (three corners or more) with ``feather=PX`` and ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken)
        found = taken.numbers(_needed(taken, "X,Y,X,Y,X,Y", cls.name), "a corner")
        taken.done()
        if len(found) % 2:
            many = f"{len(found)} numbers" if len(found) > 1 else "1 number"
            raise SettingsError(f"polygon: corners are pairs x,y, found {many}")
        return cls(list(zip(found[::2], found[1::2])), **look)

    def _draw(self, points: Points, size: Size) -> Pixels:
        """Count along each row how many sides are left of a pixel's middle: odd is inside."""
        width, height = size
        crossings = np.zeros((height, width + 1), np.int32)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
            # Rows whose middle lies between the ends; the lower end belongs to the next side.
            first, last = (math.ceil(y - 0.5) for y in sorted((y0, y1)))
            rows = np.arange(max(0, first), min(height, last))
            if rows.size:
                x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                columns = np.ceil(x - 0.5).clip(0, width).astype(int)
                np.add.at(crossings, (rows, columns), 1)
        inside = np.cumsum(crossings, axis=1)[:, :width] % 2
        return (inside * 255).astype(np.uint8)


def _reach(box: tuple[float, float, float, float], size: Size) -> str:
    """Return how a box (left, top, right, bottom) does not fit into a picture of ``size``."""
    left, top, right, bottom = box
    if right - left > size[0] or bottom - top > size[1]:
        return "is larger than the picture"
    beyond = {
        "left of it": -left,
        "above it": -top,
        "right of it": right - size[0],
        "below it": bottom - size[1],
    }
    parts = [f"{most:.3g} px {where}" for where, most in beyond.items() if most > SLACK_PX]
    return f"reaches out of the picture, {' and '.join(parts)}"


def _needed(words: Words, what: str, name: str) -> str:
    found = words.plain()
    if found is None:
        raise SettingsError(f"{name} needs a place: {name}:{what}")
    return found
