"""The screen as a source, through python-mss (the extra ``screen``)."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import cv2
import numpy as np

from engines import Size, SourceError
from realtime.frame import Frame
from realtime.pacing import Beat
from realtime.sources.base import Source, SourceInfo, fit_picture


class ScreenSource(Source):
    """One monitor (1 is the first), grabbed at a steady rate."""

    name = "screen"
    live = True

    def __init__(self, monitor: int = 1, fps: float = 30.0) -> None:
        super().__init__()
        self._monitor = monitor
        self._fps = fps
        self._grabber: Any = None
        self._area: Any = None
        self._beat = Beat(fps)
        self._started_ns: int | None = None

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        try:
            import mss
        except ImportError as error:
            raise SourceError("the screen needs mss: pip install 'pix2live[screen]'") from error
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise SourceError("there is no screen here: DISPLAY is not set")
        self._beat, self._started_ns = Beat(self._fps), None
        try:
            self._grabber = mss.MSS()
            monitors = self._grabber.monitors
            if not 0 <= self._monitor < len(monitors):
                count = len(monitors) - 1
                raise SourceError(f"there is no monitor {self._monitor}, only 1 to {count}")
            self._area = monitors[self._monitor]
            self._grabber.grab(self._area)  # what cannot be grabbed says so only now
        except SourceError:
            self.close()
            raise
        except Exception as error:  # the X11 backend raises its own and ctypes' errors
            self.close()
            raise SourceError(f"the screen cannot be grabbed: {_reason(error)}") from error
        status = getattr(self._grabber, "performance_status", ())
        self.notes += [note for note in status if "working correctly" not in note]
        shown = self._area["width"], self._area["height"]
        return SourceInfo(shown, self._fps, None, f"monitor {self._monitor}")

    def read(self, frame: Frame) -> bool:
        if not self._sleep_until(self._beat.next_ns(time.monotonic_ns())):
            return False
        if self._grabber is None:
            raise SourceError("the screen is not open")
        try:
            shot = self._grabber.grab(self._area)
        except Exception as error:
            raise SourceError(f"the screen went away: {_reason(error)}") from error
        frame.captured_ns = time.monotonic_ns()
        if self._started_ns is None:
            self._started_ns = frame.captured_ns
        frame.pts_ns = frame.captured_ns - self._started_ns
        bgra = np.frombuffer(shot.bgra, np.uint8).reshape(shot.height, shot.width, 4)
        if bgra.shape[:2] == frame.pixels.shape[:2]:
            cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR, dst=frame.pixels)
        else:
            fit_picture(cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR).astype(np.uint8), frame.pixels)
        return True

    def close(self) -> None:
        grabber, self._grabber = self._grabber, None
        if grabber is not None:
            with contextlib.suppress(Exception):  # the X server may be gone
                grabber.close()


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
