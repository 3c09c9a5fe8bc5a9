"""Flicker: how much a filter's pictures change from frame to frame where the world did not.

The warping error of Lai, Huang, Wang, Shechtman, Yumer and Yang, "Learning Blind Video Temporal
Consistency" (2018): optical flow between consecutive input frames says where each pixel was; the
previous output, moved there, is compared with the current one. Occluded pixels are left out as by
Ruder, Dosovitskiy and Brox, "Artistic Style Transfer for Videos" (2016), after Sundaram, Brox and
Keutzer (2010). The flow is DIS (Kroeger, Timofte, Dai and Van Gool, 2016), medium preset, refined
down to full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import SettingsError

Translate = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
Flow = NDArray[np.float32]
"""(H, W, 2): how far each pixel goes, right and down, in pixels."""

STILL_PX: Final = 0.1
SMALLEST_PX: Final = 16
LEAST_VISIBLE: Final = 0.05
"""Share of the pixels. Less is left where the scene was cut, and those are chance matches."""


@dataclass(frozen=True, slots=True)
class Flicker:
    """What was measured on a clip. Shares are 0 to 1, means over the measured pairs."""

    frames: int
    pairs: int
    """Pairs of consecutive frames that were measured."""
    cuts: int
    """Pairs that were left out: next to nothing of one frame was found in the other."""
    warping_error: float
    """Mean squared difference of the outputs, on values 0 to 1."""
    input_warping_error: float
    """The same of the input: what noise, light and errors of the flow make of it."""
    still_difference: float | None
    """Mean absolute difference of consecutive outputs, of 255, where the input's flow is under
    0.1 pixels; None where nothing stood still."""
    input_still_difference: float | None
    visible_share: float
    """Pixels that are not occluded."""
    still_share: float

    @property
    def ratio(self) -> float | None:
        """Output to input; under 1 is calmer than the camera. None when the input's error is 0."""
        return ratio(self.warping_error, self.input_warping_error)

    @property
    def still_ratio(self) -> float | None:
        """The same of the still areas."""
        return ratio(self.still_difference, self.input_still_difference)


def ratio(value: float | None, floor: float | None) -> float | None:
    """Return value / floor, where there is such a number."""
    return value / floor if value is not None and floor else None


def flicker(translate: Translate, frames: Iterable[NDArray[np.uint8]]) -> Flicker:
    """Translate a clip frame by frame and measure its flicker.

    Args:
        translate: uint8 (H, W, 3) BGR in, the same shape out. It is called once a frame, in order,
            and may return the same array each time.
        frames: uint8 (H, W, 3) BGR, all of one size, 16 x 16 or more. They are read one by one;
            nobody keeps them, so that they may be one array too.

    Raises:
        SettingsError: fewer than two frames, no measurable pair, or frames that do not fit.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)  # the preset stops at half resolution
    found = _Sums()
    previous: _Moment | None = None
    for frame in frames:
        now = _moment(translate, frame, previous)
        if previous is not None:
            backward = flow.calc(now.grey, previous.grey, None)  # type: ignore[call-overload]
            forward = flow.calc(previous.grey, now.grey, None)  # type: ignore[call-overload]
            found.add(previous, now, visible(forward, backward), backward)
        found.frames += 1
        previous = now
    return found.result()


def visible(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    """Return (H, W): which pixels of the current frame can be found in the previous one.

    Args:
        forward: flow of the previous frame to the current one.
        backward: flow of the current frame to the previous one.

    A pixel is left out when it comes from outside the picture, when following both flows does
    not lead back (|w + w'|^2 > 0.01 (|w|^2 + |w'|^2) + 0.5), and on motion boundaries
    (|grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002), where neither flow is to be trusted. Ruder,
    Dosovitskiy and Brox (2016), equations 5 and 6.
    """
    height, width = backward.shape[:2]
    there = warp(forward, backward)
    squared, there_squared = (np.square(field).sum(2) for field in (backward, there))
    leads_back = np.square(there + backward).sum(2) <= 0.01 * (there_squared + squared) + 0.5
    slope = np.zeros((height, width), np.float32)
    slope[:, :-1] += np.square(np.diff(backward, axis=1)).sum(2)
    slope[:-1] += np.square(np.diff(backward, axis=0)).sum(2)
    across, down = _places(backward)
    inside = (across >= 0) & (across <= width - 1) & (down >= 0) & (down <= height - 1)
    seen: NDArray[np.bool_] = leads_back & (slope <= 0.01 * squared + 0.002) & inside
    return seen


def warp(picture: NDArray[np.float32], backward: Flow) -> NDArray[Any]:
    """Move the previous ``picture`` (H, W, C) to where the current frame has it; bilinear."""
    across, down = _places(backward)
    return cv2.remap(picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _places(backward: Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel was: its x and y in the previous frame."""
    height, width = backward.shape[:2]
    down, across = np.mgrid[:height, :width].astype(np.float32)
    return across + backward[..., 0], down + backward[..., 1]


@dataclass(frozen=True, slots=True)
class _Moment:
    """A frame and its translation; own copies, values 0 to 1."""

    grey: NDArray[np.uint8]
    given: NDArray[np.float32]
    made: NDArray[np.float32]


def _moment(translate: Translate, frame: NDArray[np.uint8], previous: _Moment | None) -> _Moment:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise SettingsError(f"frames are uint8 (H, W, 3), found {frame.dtype} {frame.shape}")
    if min(frame.shape[:2]) < SMALLEST_PX:
        raise SettingsError(
            f"optical flow needs frames of {SMALLEST_PX}x{SMALLEST_PX} or more, found"
            f" {frame.shape[1]}x{frame.shape[0]}"
        )
    if previous is not None and previous.given.shape != frame.shape:
        raise SettingsError(
            f"the frames of a clip have one size, found {previous.given.shape} and {frame.shape}"
        )
    given = _unit(frame)
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    made = translate(frame)
    if made.shape != frame.shape or made.dtype != np.uint8:
        raise SettingsError(
            f"the filter must return uint8 {frame.shape}, found {made.dtype} {made.shape}"
        )
    return _Moment(grey, given, _unit(made))


def _unit(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.multiply(picture, np.float32(1 / 255), dtype=np.float32)


class _Sums:
    """Adds up the pairs of a clip."""

    def __init__(self) -> None:
        self.frames = self._pairs = self._cuts = 0
        self._errors = np.zeros(2)
        self._visible = 0.0
        self._still = np.zeros(2)
        self._still_pixels = self._pixels = 0

    def add(self, previous: _Moment, now: _Moment, seen: NDArray[np.bool_], backward: Flow) -> None:
        if seen.mean() < LEAST_VISIBLE:
            self._cuts += 1
            return
        self._pairs += 1
        self._pixels += seen.size
        self._visible += float(seen.mean())
        still = seen & (np.square(backward).sum(2) < STILL_PX**2)
        self._still_pixels += int(still.sum())
        both = ((previous.made, now.made), (previous.given, now.given))
        for place, (before, after) in enumerate(both):
            moved = warp(before, backward)
            self._errors[place] += np.square(moved - after)[seen].mean(dtype=np.float64)
            apart = np.abs(after - before)[still].sum(dtype=np.float64)
            self._still[place] += 255 * apart / 3

    def result(self) -> Flicker:
        if self.frames < 2:
            raise SettingsError(f"flicker needs two frames or more, found {self.frames}")
        if not self._pairs:
            raise SettingsError(
                f"no two consecutive frames of {self.frames} show the same thing: nothing to"
                " measure flicker on"
            )
        errors = (self._errors / self._pairs).tolist()
        still = (self._still / self._still_pixels).tolist() if self._still_pixels else (None, None)
        return Flicker(
            frames=self.frames,
            pairs=self._pairs,
            cuts=self._cuts,
            warping_error=errors[0],
            input_warping_error=errors[1],
            still_difference=still[0],
            input_still_difference=still[1],
            visible_share=self._visible / self._pairs,
            still_share=self._still_pixels / self._pixels,
        )
