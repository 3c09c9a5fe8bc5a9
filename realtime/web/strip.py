"""The coded strip below a picture: its number, readable after JPEG, scaling and video codecs.

A page draws it below what its camera gave, and it comes back below (or in the header of) the
translated picture: the time between is the age from glass to glass.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engines import Pixels

HEIGHT_PX = 16
CELLS = 32
NUMBERS = 1 << 16
"""Numbers go round: they are modulo this."""

_NUMBER_BITS = 16
_CHECK_BITS = 12
_MULTIPLIER = 2654435761
"""Multiplicative hashing (D. Knuth, The Art of Computer Programming, volume 3, 1973, 6.4)."""
_LEAST_CONTRAST = 64.0
_LEAST_MARGIN = 0.2
"""A cell this near to the middle of black and white (in parts of their distance) is neither."""


def draw_strip(strip: Pixels, number: int) -> None:
    """Draw ``number`` (modulo 65536) over all of ``strip``.

    Args:
        strip: uint8, (16, W, 3); black and white, so in any order of colours. W is 80 or more, or
            64: narrower cells cannot be told apart.
        number: any integer.
    """
    bits = _bits(number % NUMBERS)
    strip[:] = (bits * 255)[_cell_of_value(strip.shape[1])]


def read_strip(strip: Pixels) -> int | None:
    """Return the number (0 to 65535) of a strip; None where it cannot be read.

    Args:
        strip: uint8, (H, W, 3) of any size, as it came out of a codec or a scaler: the cells scale
            with it, and a row too many or too few does no harm.
    """
    height, width = strip.shape[:2]
    if height < 1 or width < CELLS:
        return None
    # The middle half only: the picture above and the neighbouring cells bleed in at the borders.
    top = height // 4
    rows = strip[top : max(top + 1, height - top)]
    sums = np.zeros(width + 1)
    np.cumsum(rows.sum(axis=0, dtype=np.uint32).sum(axis=1), out=sums[1:])
    # Parts of columns count in part: a scaled cell is rarely a whole number of them wide.
    starts, ends = _MIDDLES * (width / CELLS)
    columns = np.arange(width + 1)
    cells = np.interp(ends, columns, sums) - np.interp(starts, columns, sums)
    cells *= 2 * CELLS / (width * rows.shape[0] * 3)
    white, black = (cells[0] + cells[-1]) / 2, (cells[1] + cells[-2]) / 2
    contrast = white - black
    if contrast < _LEAST_CONTRAST:
        return None
    levels = (cells - black) / contrast
    bits = levels > 0.5
    if np.abs(levels - 0.5).min() < _LEAST_MARGIN:
        return None
    number = int(bits[2 : 2 + _NUMBER_BITS] @ _POWERS)
    return number if np.array_equal(bits, _bits(number)) else None


_MIDDLES = np.arange(CELLS) + np.array([[0.25], [0.75]])
_POWERS = 1 << np.arange(_NUMBER_BITS)[::-1]


def _bits(number: int) -> NDArray[np.uint8]:
    """Return the 32 cells, from the left: 1 is white."""
    check = (number * _MULTIPLIER & 0xFFFFFFFF) >> (32 - _CHECK_BITS)
    code = (0b10 << _NUMBER_BITS | number) << _CHECK_BITS | check
    return np.unpackbits(np.array([code << 2 | 0b01], ">u4").view(np.uint8))


@lru_cache(maxsize=16)
def _cell_of_value(width: int) -> NDArray[np.int64]:
    """Return (W, 3): cell i covers columns from floor(i * W / 32) to floor((i + 1) * W / 32)."""
    return np.repeat(((np.arange(width) + 1) * CELLS - 1) // width, 3).reshape(width, 3)
