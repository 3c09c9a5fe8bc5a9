"""A camera through OpenCV: by index or by device path."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import cv2
import numpy as np

from engines import Size, SourceError
from realtime.frame import Frame
from realtime.pacing import NS_PER_MS, NS_PER_S
from realtime.sources import v4l2
from realtime.sources.base import Source, SourceInfo, check_size, fit_picture
from realtime.sources.v4l2 import Mode

DEFAULT_SIZE = (640, 360)
DEFAULT_FPS = 30.0
MAX_DAMAGED_IN_A_ROW = 30
RAW_IS_ENOUGH_PX = 640 * 480
"""Above this, raw pixels at 30 fps are too much for USB 2."""
PLAUSIBLE_DRIVER_DELAY_NS = NS_PER_S
"""A driver's time stamp that is older, or in the future, is on another clock."""


class CameraSource(Source):
    """A live camera; what the driver really gave is in the notes.

    ``captured_ns`` is the driver's own time stamp where it is on the monotonic clock (Linux, most
    drivers), so that waiting in the driver's buffers counts as age; else when it was handed over.
    """

    name = "camera"
    live = True

    def __init__(self, target: int | str = 0, fps: float = DEFAULT_FPS) -> None:
        super().__init__()
        self._target = f"/dev/video{target}" if _linux() and isinstance(target, int) else target
        self._fps = fps
        self._capture: Any = None
        self._picture: Any = None
        self._started_ns: int | None = None

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        self._started_ns = None
        wanted = size or DEFAULT_SIZE
        mode = self._check_and_choose(wanted)
        self._capture = self._open_capture()
        if not self._capture.isOpened():
            self.close()
            raise SourceError(
                f"the camera {self._target} cannot be opened: another program may be using it"
            )
        width, height = wanted
        if mode is not None:  # the format first: drivers list sizes by format
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*mode.fourcc))
            width, height = mode.width, mode.height
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, self._fps)
        try:
            if not self._capture.grab():
                raise SourceError(f"the camera {self._target} opens, but sends no picture")
            return self._describe(wanted)
        except SourceError:
            self.close()
            raise

    def read(self, frame: Frame) -> bool:
        if self._capture is None:
            raise SourceError(f"the camera {self._target} is not open")
        for _ in range(MAX_DAMAGED_IN_A_ROW):
            if self._cancelled:
                return False
            if not self._capture.grab():
                if self._cancelled:
                    return False
                raise SourceError(f"the camera {self._target} went away")
            now_ns = time.monotonic_ns()
            done, self._picture = self._capture.retrieve(self._picture)
            if done and self._picture is not None:
                break
            self.dropped += 1  # cameras on USB send a damaged JPEG now and then
        else:
            raise SourceError(f"the camera {self._target} sends nothing that can be decoded")
        fit_picture(_as_bgr(self._picture), frame.pixels)
        frame.captured_ns = self._driver_time(now_ns)
        if self._started_ns is None:
            self._started_ns = frame.captured_ns
        frame.pts_ns = max(0, frame.captured_ns - self._started_ns)
        return True

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
        self._picture = None

    def _open_capture(self) -> Any:
        backend = cv2.CAP_V4L2 if _linux() else cv2.CAP_ANY
        return cv2.VideoCapture(self._target, backend)

    def _check_and_choose(self, size: Size) -> Mode | None:
        """Return the mode to ask for, where one is known; refuse a camera that is not there.

        Raises:
            SourceError: no such device, or no right to use it.
        """
        if not _linux():
            large = size[0] * size[1] > RAW_IS_ENOUGH_PX
            return Mode(size[0], size[1], self._fps, "MJPG") if large else None
        path = str(self._target)
        if not os.path.exists(path):
            found = ", ".join(item.path for item in v4l2.list_cameras()) or "none"
            raise SourceError(f"there is no camera {path} (cameras here: {found})")
        device = v4l2.query(path)
        if device.problem:
            raise SourceError(f"the camera {path}: {device.problem}")
        if not device.captures:
            raise SourceError(f"{path} ({device.name}) is no camera: it does not capture")
        return v4l2.choose_mode(device.modes, size, self._fps)

    def _describe(self, wanted: Size) -> SourceInfo:
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        fourcc = (
            code.to_bytes(4, "little", signed=False).decode("ascii", "replace") if code > 0 else ""
        )
        check_size((width, height), f"the camera {self._target}")
        given = f"{width}x{height} {fourcc} {fps:.4g} fps"
        if (width, height) != wanted or (fps and abs(fps - self._fps) > 1):
            self.notes.append(
                f"asked the camera for {wanted[0]}x{wanted[1]} {self._fps:g} fps, it gave {given}"
            )
        return SourceInfo((width, height), fps or None, None, f"{self._target}, {given}")

    def _driver_time(self, now_ns: int) -> int:
        if not _linux():
            return now_ns
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * NS_PER_MS)
        return stamp_ns if 0 <= now_ns - stamp_ns < PLAUSIBLE_DRIVER_DELAY_NS else now_ns


def _as_bgr(picture: Any) -> Any:
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    return picture if picture.dtype == np.uint8 else picture.astype(np.uint8)


def _linux() -> bool:
    return sys.platform.startswith("linux")
