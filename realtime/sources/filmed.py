"""A simulated camera that films the coded pattern with a known delay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, Size
from realtime.coded_pattern import HIGH, WIDE, draw_pattern, pattern_size
from realtime.frame import Frame
from realtime.glass_to_glass import Shows
from realtime.pacing import NS_PER_MS, NS_PER_S
from realtime.sources.base import Source, SourceInfo, check_size

DEFAULT_SIZE: Final = (640, 360)
_UNIT_PX: Final = 16
_GAMMA: Final = 2.2
"""Light adds up in an exposure, levels do not."""
_NOISES: Final = 8

Corners = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Lens:
    """How the simulated camera sees the screen."""

    corners: Corners = ((0.17, 0.16), (0.80, 0.09), (0.86, 0.86), (0.13, 0.79))
    """Where the pattern's corners are, as parts of the picture, clockwise from the top left."""
    exposure_ms: float = 16.0
    readout_ms: float = 10.0
    """From the first line to the last one (a rolling shutter)."""
    blur_px: float = 0.9
    noise: float = 4.0
    """Standard deviation of each pixel, of 255."""
    gain: float = 0.85
    """How bright white becomes, as a part of 255."""
    tint: tuple[float, float, float] = (0.92, 1.0, 0.96)
    """Of blue, green and red."""
    room: float = 0.03
    """Light that the screen reflects, as a part of white."""


def film(
    shown: Sequence[tuple[int, int, int]],
    middle_ns: int,
    size: Size = DEFAULT_SIZE,
    lens: Lens | None = None,
    seed: int = 0,
) -> Pixels:
    """Return the picture of a camera that films the pattern.

    Args:
        shown: (number, from, to) of what the screen showed, see `Shows.during`.
        middle_ns: the middle of the exposure, of the line in the middle.
        size: (width, height) of the picture.
        lens: how it sees the screen.
        seed: of the noise.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    lens = lens or Lens()
    width, height = size
    exposure_ns, readout_ns = lens.exposure_ms * NS_PER_MS, lens.readout_ms * NS_PER_MS
    rows_ns = middle_ns + ((np.arange(height) + 0.5) / height - 0.5) * readout_ns
    begins, ends = rows_ns - exposure_ns / 2, rows_ns + exposure_ns / 2
    light = np.zeros((height, width), np.float32)
    total = np.zeros(height)
    for number, start_ns, end_ns in shown:
        overlap = np.minimum(ends, end_ns) - np.maximum(begins, start_ns)
        share = np.clip(overlap, 0, None) / exposure_ns
        if share.max() > 0:
            light += share.astype(np.float32)[:, None] * _seen(number, size, lens)
            total += share
    light += (1 - total).astype(np.float32)[:, None] * 0.02  # nothing was shown yet
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), lens.blur_px), np.float32)
    levels = 255 * lens.gain * (np.clip(light, 0, 1) + lens.room) ** (1 / _GAMMA)
    rng = np.random.default_rng(seed % _NOISES)
    levels += rng.standard_normal(levels.shape, np.float32) * lens.noise
    coloured = levels[..., None] * np.array(lens.tint, np.float32)
    return np.asarray(np.clip(coloured, 0, 255), np.uint8)


def _seen(number: int, size: Size, lens: Lens) -> NDArray[np.float32]:
    """Return the light of a picture that shows one number only, (H, W), 1 is white."""
    width, height = pattern_size(_UNIT_PX)
    pattern = np.empty((height, width, 3), np.uint8)
    draw_pattern(pattern, number)
    light = (pattern[..., 0] / np.float32(255)) ** np.float32(_GAMMA)
    flat = np.array([[0, 0], [WIDE, 0], [WIDE, HIGH], [0, HIGH]], np.float32) * _UNIT_PX - 0.5
    corners = np.array(lens.corners, np.float32) * size - 0.5
    matrix = cv2.getPerspectiveTransform(flat, corners.astype(np.float32))
    seen = cv2.warpPerspective(light, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(0.15,))
    return np.asarray(seen, np.float32)


class FilmedSource(Source):
    """Films what a window shows, by the window's own log: the delay is known.

    Args:
        shows: what was shown, and when.
        delay_ms: from the middle of the exposure to the hand-over of a frame: what a test is to
            find as the camera's part. At least half of exposure and readout.
        size: (width, height).
        fps: frames a second.
        lens: how it sees the screen.
    """

    name = "simulated camera"
    live = True

    def __init__(
        self,
        shows: Shows,
        delay_ms: float,
        size: Size = DEFAULT_SIZE,
        fps: float = 30.0,
        lens: Lens | None = None,
    ) -> None:
        super().__init__()
        self.lens = lens or Lens()
        self.shows = shows
        self.delay_ms = max(delay_ms, (self.lens.exposure_ms + self.lens.readout_ms) / 2)
        self.true_ms: list[float] = []
        """The delay of each frame: a busy machine hands one over later than it should."""
        self._size, self._fps = size, fps
        self._started_ns = 0
        self._number = 0

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        check_size(self._size, self.name)
        self._started_ns = time.monotonic_ns()
        self._number = 0
        self.true_ms.clear()
        words = f"simulated camera, {self._fps:g} fps, delay {self.delay_ms:g} ms"
        return SourceInfo(self._size, self._fps, None, words)

    def read(self, frame: Frame) -> bool:
        self._number += 1
        due_ns = self._started_ns + round(self._number * NS_PER_S / self._fps)
        late_ns = time.monotonic_ns() - due_ns
        if late_ns > 0:  # as a camera would, it leaves out what nobody took
            missed = int(late_ns * self._fps / NS_PER_S) + 1
            self.dropped += missed
            self._number += missed
            due_ns = self._started_ns + round(self._number * NS_PER_S / self._fps)
        middle_ns = due_ns - round(self.delay_ms * NS_PER_MS)
        half_ns = round((self.lens.exposure_ms + self.lens.readout_ms) / 2 * NS_PER_MS)
        if not self._sleep_until(middle_ns + half_ns):
            return False
        shown = self.shows.during(middle_ns - half_ns, middle_ns + half_ns)
        size = frame.pixels.shape[1], frame.pixels.shape[0]
        frame.pixels[:] = film(shown, middle_ns, size, self.lens, self._number)
        if not self._sleep_until(due_ns):
            return False
        frame.captured_ns = max(due_ns, time.monotonic_ns())
        frame.pts_ns = frame.captured_ns - self._started_ns
        self.true_ms.append((frame.captured_ns - middle_ns) / NS_PER_MS)
        return True

    def close(self) -> None:
        """Nothing to free."""
