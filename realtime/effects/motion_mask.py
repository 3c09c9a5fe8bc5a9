"""A mask of what moves before a background that the camera has learnt."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, Size
from realtime.effects.base import Context
from realtime.effects.mask import Mask, check_ranges, mask_words, narrowed
from realtime.effects.words import Words
from realtime.frame import Frame
from realtime.pacing import NS_PER_S

WIDTH_PX: Final = 160
"""The background is learnt at this width: fast, and deaf to a camera's noise."""

LONGEST_STEP_S: Final = 0.5
"""After a gap nothing is learnt faster than this."""

WARM_UP_S: Final = 1.0
"""So long the background is the plain mean of all pictures: known at once, if not well."""

BACKGROUND_SHARE: Final = 0.9
"""The Gaussians that make up so much of a pixel's past are background; what stands still is when
its share reaches the rest."""

SHADOW: Final = 127
"""How pixels that only got darker are marked: they have not moved."""

SPECK: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
GAP: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
"""What is smaller, at `WIDTH_PX`, is taken away or closed."""


class MotionMask(Mask):
    """Shows the translation on what moves; the camera must stand still.

    Each pixel's background is a mixture of Gaussians (Z. Zivkovic, "Improved adaptive Gaussian
    mixture model for background subtraction", 2004; Z. Zivkovic and F. van der Heijden, 2006). What
    differs from it has moved: specks are taken away, gaps closed, and a place stays in the mask
    for ``hold_ms`` after the last motion in it.

    Args:
        learn_s: how long something must stand still to become background; `math.inf`: what is
            learnt in the first second stays.
        hold_ms: how long a place stays in the mask.
        threshold: how many standard deviations from the background are motion.
        feather_px: how wide the soft edge is.
        invert: show the translation on what does not move.
    """

    name = "motion"
    latency_ms = 1.0

    def __init__(
        self,
        *,
        learn_s: float = 20.0,
        hold_ms: float = 300.0,
        threshold: float = 4.0,
        feather_px: float = 8.0,
        invert: bool = False,
    ) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        check_ranges(
            self.name,
            ("learn_s", learn_s, 0.1, math.inf),
            ("hold_ms", hold_ms, 0, math.inf),
            ("threshold", threshold, 0.5, math.inf),
        )
        self.learn_s, self.hold_ms, self.threshold = learn_s, hold_ms, threshold
        self._size: Size = (0, 0)
        self._small: Size = (0, 0)
        self.reset()

    @classmethod
    def from_words(cls, words: str) -> MotionMask:
        """``learn_s=``, ``hold_ms=``, ``threshold=`` with ``feather=PX`` and ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken)
        learn_s = taken.number("learn_s", 20.0)
        hold_ms = taken.number("hold_ms", 300.0)
        threshold = taken.number("threshold", 4.0)
        taken.done()
        return cls(learn_s=learn_s, hold_ms=hold_ms, threshold=threshold, **look)

    def prepare(self, size: Size, context: Context) -> None:
        self._size, self._small = size, narrowed(size, WIDTH_PX)
        self.reset()

    def reset(self) -> None:
        self._model = cv2.createBackgroundSubtractorMOG2(
            varThreshold=self.threshold**2, detectShadows=True
        )
        self._model.setBackgroundRatio(BACKGROUND_SHARE)
        self._model.setShadowValue(SHADOW)
        self._frames, self._seen_s = 0, 0.0
        self._last_ns = 0
        self._held_ms: NDArray[np.float32] | None = None

    def find(self, frame: Frame, context: Context) -> Pixels:
        assert frame.source is not None
        small = cv2.resize(frame.source, self._small, interpolation=cv2.INTER_AREA)
        step_s = self._step_s(frame.pts_ns, context.fps)
        found = self._model.apply(small, learningRate=self._rate(step_s))
        if self._held_ms is None:  # nothing can be said of the first picture
            self._held_ms = np.full(small.shape[:2], -1, np.float32)
        else:
            self._held_ms = np.maximum(self._held_ms - np.float32(step_s * 1000), -1)
            self._held_ms[_cleaned(found)] = self.hold_ms
        shown = (self._held_ms >= 0).astype(np.uint8) * np.uint8(255)
        return cv2.resize(shown, self._size)  # type: ignore[return-value]

    def _step_s(self, now_ns: int, fps: float) -> float:
        """Return the time since the last frame, on the source's own timeline."""
        step_s = (now_ns - self._last_ns) / NS_PER_S
        self._last_ns = now_ns
        if step_s <= 0 or not self._frames:  # a recording that starts again
            step_s = 1 / fps
        return min(step_s, LONGEST_STEP_S)

    def _rate(self, step_s: float) -> float:
        """Return what this picture's share of the background is."""
        self._frames += 1
        self._seen_s += step_s
        # With this rate the share of something new is 1 - BACKGROUND_SHARE after learn_s.
        rate: float = 1 - BACKGROUND_SHARE ** (step_s / self.learn_s)
        return max(rate, 1 / self._frames) if self._seen_s <= WARM_UP_S else rate


def _cleaned(found: cv2.typing.MatLike) -> NDArray[np.bool_]:
    """Return what moved, without shadows, specks and gaps."""
    moved = (np.asarray(found) > SHADOW).astype(np.uint8)
    opened = cv2.morphologyEx(moved, cv2.MORPH_OPEN, SPECK)
    return np.asarray(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, GAP)) > 0
