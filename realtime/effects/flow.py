"""Motion: where each part of a captured picture was in the one before, and how sure that is.

The optical flow is DIS (Kroeger, Timofte, Dai and Van Gool, "Fast Optical Flow using Dense Inverse
Search", 2016) on small grey copies, refined down to their full resolution, with fewer steps than
OpenCV's medium preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, Size

LONG_SIDE_PX: Final = 160
"""Of the small copies: the flow at 192 is a little better and costs half as much again."""
SHORTEST_PX: Final = 16
"""DIS wants two patches of 8 pixels."""
STEPS: Final = 12
STRIDE_PX: Final = 4
REFINEMENTS: Final = 0
"""Variational ones: each would cost a millisecond, and 1 % of what the stabiliser reaches."""
DIFFERENCE: Final = 16.0
"""Of 255: where the moved picture is as far off as that, the flow is right with 1/e."""
STILL_LEVELS: Final = (1.0, 3.0)
"""Of 255: what changes less than the first stands still, what changes more than the second has its
flow in full. The flow of noise is no motion, and moving a picture by parts of a pixel blurs it."""
CUT_SHARE: Final = 0.3
"""Where less than this of a picture was in the one before, the scene was cut."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What `Motion.update` found; valid until its next call."""

    flow: NDArray[np.float32]
    """(h, w, 2), small: from here to where it was in the previous picture, right and down, in
    pixels of the full size."""
    sure: NDArray[np.float32]
    """(h, w), 0 to 1: 0 where it cannot be seen in the previous picture (hidden, outside, or
    the flow is wrong)."""


class Motion:
    """Follows captured pictures of one size."""

    def __init__(self, size: Size) -> None:
        scale = min(1.0, LONG_SIDE_PX / max(size))
        self.small = (
            max(SHORTEST_PX, round(size[0] * scale)),
            max(SHORTEST_PX, round(size[1] * scale)),
        )
        """(width, height) of the flow."""
        self._scale = np.float32(size[0] / self.small[0]), np.float32(size[1] / self.small[1])
        self._places = places(self.small)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._flow.setFinestScale(0)
        self._flow.setGradientDescentIterations(STEPS)
        self._flow.setPatchStride(STRIDE_PX)
        self._flow.setVariationalRefinementIterations(REFINEMENTS)
        self._before: tuple[Pixels, Pixels] | None = None

    def reset(self) -> None:
        """Forget the previous picture."""
        self._before = None

    def update(self, picture: Pixels) -> Moved | None:
        """Compare ``picture``, uint8 (H, W, 3) BGR, with the one of the call before.

        Returns None for the first one, and where the scene was cut.
        """
        small = cv2.resize(picture, self.small, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        before, self._before = self._before, (small, grey)  # type: ignore[assignment]
        if before is None:
            return None
        flow = self._flow.calc(grey, before[1], None)  # type: ignore[call-overload]
        flow *= _moving(small, before[0])[..., None]  # type: ignore[arg-type]
        sure = self._sure(small, before[0], flow)  # type: ignore[arg-type]
        if sure.mean() < CUT_SHARE:
            return None
        flow *= self._scale
        return Moved(flow, sure)

    def _sure(
        self, small: Pixels, before: Pixels, flow: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Compare with the previous picture, moved: a third of the cost of a second flow, back."""
        where = flow + self._places
        moved = cv2.remap(before, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        apart = _apart(small, moved, 3)
        sure = cv2.exp(np.square(apart) * np.float32(-1 / DIFFERENCE**2))
        width, height = self.small
        for axis, last in ((0, width - 0.5), (1, height - 0.5)):
            sure[(where[..., axis] < -0.5) | (where[..., axis] > last)] = 0
        return sure  # type: ignore[return-value]


def _moving(small: Pixels, before: Pixels) -> NDArray[np.float32]:
    """Return (h, w): 0 where the picture stands still, 1 where it does not."""
    low, high = STILL_LEVELS
    apart = _apart(small, before, 5)
    moving: NDArray[np.float32] = np.clip((apart - low) / (high - low), 0, 1).astype(np.float32)
    return moving


def _apart(one: Pixels, other: Pixels, side: int) -> NDArray[np.float32]:
    """Return (h, w): the largest difference of the colours; one pixel alone is noise."""
    blue, green, red = cv2.split(cv2.absdiff(one, other))
    worst = cv2.max(cv2.max(blue, green), red).astype(np.float32)
    return cv2.blur(worst, (side, side))  # type: ignore[return-value]


def places(size: Size) -> NDArray[np.float32]:
    """Return (H, W, 2): the x and y of every pixel of a picture of ``size`` (width, height)."""
    down, across = np.mgrid[: size[1], : size[0]].astype(np.float32)
    return np.dstack((across, down))
