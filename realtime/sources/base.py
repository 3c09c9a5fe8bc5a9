"""Source: the contract of everything that makes frames."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines import Pixels, Size, SourceError
from realtime.frame import Frame

MAX_SIDE_PX = 16384


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source really gives, once it is open."""

    size: Size
    """(width, height) as a person sees it: rotated, square pixels."""
    fps: float | None = None
    """None where the source does not know."""
    frames: int | None = None
    """How many frames there will be, where that is known (it may be off by a few)."""
    description: str = ""


class Source(ABC):
    """Makes frames.

    Thread: `open` and `close` in the caller's thread, `read` in the source thread, `cancel` from
    any thread. Ownership: `read` fills the caller's picture and keeps no reference to it.
    """

    name: str = "source"
    live: bool = False
    """Frames come when they come, and cannot be asked for again."""

    path: Path | None = None
    """The file or folder that is read, so that no sink is given the same."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """What a person should know: a mode that was not given, a reconnect, a truncated file."""
        self.dropped = 0
        """Frames that this source lost or left out."""
        self._cancelled = False
        self._noted: dict[str, str] = {}

    def _begin(self) -> None:
        """Forget the last run; the first line of every `open`."""
        self.close()
        self._noted.clear()
        self.notes.clear()
        self.dropped = 0
        self._cancelled = False

    def _note(self, kind: str, text: str) -> None:
        """Keep the newest note of a kind only: a stream may come and go for days."""
        self._noted[kind] = text
        self.notes[:] = self._noted.values()

    @abstractmethod
    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        """Start.

        Args:
            size: (width, height) that the pipeline would like; a camera picks its nearest mode.
            realtime: recordings play at their own rate, as a camera would; else as fast as asked.

        Raises:
            SourceError: it is not there or cannot be read; the message says what to do.
        """

    @abstractmethod
    def read(self, frame: Frame) -> bool:
        """Wait for the next frame; fill ``frame.pixels`` at its size, and the times.

        Sets ``captured_ns`` (monotonic) and ``pts_ns`` (since the first frame). The index is the
        pipeline's. Returns False when the source has ended, or was cancelled.

        Raises:
            SourceError: the source went away.
        """

    def cancel(self) -> None:
        """Make a `read` that waits return False soon."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called since `open`."""
        return self._cancelled

    @abstractmethod
    def close(self) -> None:
        """Free everything. Safe to call twice, or before `open`."""

    def _sleep_until(self, due_ns: int) -> bool:
        """Sleep until ``due_ns``; False when cancelled meanwhile."""
        while not self._cancelled:
            remaining_s = (due_ns - time.monotonic_ns()) / 1e9
            if remaining_s <= 0:
                return True
            time.sleep(min(remaining_s, 0.05))
        return False


def fit_picture(picture: Pixels, target: Pixels) -> None:
    """Scale ``picture`` (H, W, 3) into ``target``; another aspect ratio is cropped at the edges."""
    height, width = target.shape[:2]
    top, left, crop_height, crop_width = crop_to_aspect(picture.shape[1::-1], (width, height))
    part = picture[top : top + crop_height, left : left + crop_width]
    if part.shape == target.shape:
        np.copyto(target, part)
        return
    shrinks = crop_width > width
    cv2.resize(
        part,
        (width, height),
        dst=target,
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )


def crop_to_aspect(size: Size, target: Size) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the middle of ``size`` with the aspect of ``target``.

    Differences of under one percent are scaled away instead: no picture loses a row for rounding.
    """
    (width, height), (to_width, to_height) = size, target
    ratio = (width * to_height) / (height * to_width)
    if abs(ratio - 1) < 0.01:
        return 0, 0, height, width
    if ratio > 1:
        crop_width = max(1, round(height * to_width / to_height))
        return 0, (width - crop_width) // 2, height, crop_width
    crop_height = max(1, round(width * to_height / to_width))
    return (height - crop_height) // 2, 0, crop_height, width


def check_size(size: Size, what: str) -> None:
    """Refuse sizes that are none.

    Raises:
        SourceError: a side is 0 or absurd.
    """
    if not all(0 < side <= MAX_SIDE_PX for side in size):
        raise SourceError(f"{what} has an impossible size, {size[0]}x{size[1]}")
