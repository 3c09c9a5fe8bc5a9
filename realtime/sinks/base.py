"""Sink: the contract of everything that shows, sends or keeps frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines import Pixels, SinkError, Size
from realtime.frame import Frame


@dataclass(frozen=True, slots=True)
class SinkInfo:
    """What a sink learns before the first frame."""

    size: Size
    """(width, height) of the pictures that `Sink.write` will get."""
    fps: float
    """The source's rate, as far as it is known."""
    title: str = "pix2live"


class Sink(ABC):
    """Shows, sends or keeps frames.

    Thread: `open` in the caller's thread, `write` and `close` in the sink's own thread (the main
    thread for those that say so). Ownership: a frame may be read during `write` only.
    """

    name: str = "sink"
    freshest: bool = False
    """Wants the newest frame only, also when the pipeline keeps every frame (displays)."""
    main_thread: bool = False
    """`write` and `idle` must run in the main thread (GUI toolkits insist)."""
    beat_fps: float | None = None
    """A sink with a clock (it is `freshest` too): the newest frame is written at this rate, again
    if none is newer. May be set as late as in `open`."""

    path: Path | None = None
    """Where it writes, so that two sinks are not given one file."""
    overwrite: bool = False
    """Puts its file in the place of one that is at `path`. A program may set it to False before
    `open`; then such a sink refuses one that exists, or keeps it if it appears later."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.actions: dict[str, Callable[[], str]] = {}
        """Key -> what to do, for sinks with keys; the pipeline fills it in. Each returns what to
        say to the person, or nothing."""

    @abstractmethod
    def open(self, info: SinkInfo) -> None:
        """Start.

        Raises:
            SinkError: it is not there or refuses the size; the message says what to do.
        """

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Show, send or keep one frame: uint8 (H, W, 3) BGR in ``frame.pixels``.

        Raises:
            SinkError: it cannot take any more (a full disk, a device that went away).
        """

    def idle(self) -> bool:
        """Look after events between frames; False when the person closed the sink."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Finish what is to be kept, and free everything. Safe to call twice, or before `open`.

        A sink that got no frame leaves nothing behind.

        Raises:
            SinkError: what was to be kept could not be finished; everything is freed all the same.
        """


class NullSink(Sink):
    """Takes every frame and forgets it: for measuring, and for tests."""

    name = "null"

    def open(self, info: SinkInfo) -> None:
        """Nothing to start."""

    def write(self, frame: Frame) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing to finish."""


class CallableSink(Sink):
    """Hands each frame to a function, in a thread of its own.

    The frame is the function's for the time of the call; copy ``frame.pixels`` to keep it.
    """

    def __init__(self, function: Callable[[Frame], None]) -> None:
        super().__init__()
        self._function = function
        self.name = getattr(function, "__name__", "callable")

    def open(self, info: SinkInfo) -> None:
        """Nothing to start."""

    def write(self, frame: Frame) -> None:
        self._function(frame)

    def close(self) -> None:
        """Nothing to finish."""


def even_picture(pixels: Pixels, size: Size, name: str) -> Pixels:
    """Return ``pixels`` with even sides, as 4:2:0 colour wants: the last row or column is doubled.

    Raises:
        SinkError: they are not of the ``size`` that the sink was opened for.
    """
    height, width = pixels.shape[:2]
    if (width, height) != size:
        raise SinkError(f"{name} was opened for {size[0]}x{size[1]}, found {width}x{height}")
    if not (width % 2 or height % 2):
        return pixels
    padded = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


def even_size(size: Size) -> Size:
    """Return the size that `even_picture` makes of ``size``."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2
