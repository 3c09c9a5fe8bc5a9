"""A window (OpenCV HighGUI): the picture, its fps and age, and keys."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from engines import Pixels, SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.pictures import write_picture

KEYS = {
    "q": "quit",
    "f": "filter on or off",
    "s": "split view",
    "n": "next filter",
    "p": "screenshot",
    "r": "record",
    "h": "these keys",
}
_ESCAPE = 27


def why_no_window() -> str | None:
    """Return None where a window can be opened, else the reason.

    Asked before OpenCV is: without a display its toolkit ends the whole process.
    """
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return "there is no screen here: DISPLAY is not set"
    return None


class WindowSink(Sink):
    """Shows the newest frame. Keys act through ``actions``; q, p and h are the window's own."""

    name = "window"
    freshest = True
    main_thread = True

    def __init__(self, title: str | None = None, folder: str | os.PathLike[str] = ".") -> None:
        super().__init__()
        self._title = title
        self._folder = Path(folder)
        self._open = False
        self._shown: Pixels | None = None
        self.help = False

    @property
    def title(self) -> str:
        return self._title or "pix2live"

    def open(self, info: SinkInfo) -> None:
        reason = why_no_window()
        if reason is not None:
            raise SinkError(f"cannot open a window: {reason}")
        self._title = self._title or info.title
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL | cv2.WINDOW_KEEPRATIO
        try:
            cv2.namedWindow(self.title, flags)
            cv2.resizeWindow(self.title, *info.size)
        except cv2.error as error:
            raise SinkError(f"cannot open a window: {error}") from error
        self._open = True

    def write(self, frame: Frame) -> None:
        self._shown = frame.pixels.copy()
        picture = _with_help(self._shown) if self.help else self._shown
        cv2.imshow(self.title, picture)

    def idle(self) -> bool:
        """Handle keys; False when the window was closed or ``q`` was pressed."""
        if not self._open:
            return False
        key = cv2.waitKey(1)
        if self._closed_by_person():
            return False
        if key < 0:
            return True
        letter = chr(key & 0xFF).lower()
        if letter == "q" or key & 0xFF == _ESCAPE:
            return False
        if letter == "p":
            self._screenshot()
        elif letter == "h":
            self.help = not self.help
        elif letter in self.actions:
            self.actions[letter]()
        return True

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)
        except cv2.error:
            return  # the person closed it already

    def _closed_by_person(self) -> bool:
        if self._shown is None:
            return False  # not mapped yet
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:
            return True

    def _screenshot(self) -> None:
        if self._shown is None:
            return
        path = self._folder / f"pix2live-{datetime.now():%Y%m%d-%H%M%S-%f}.png"
        try:
            write_picture(path, self._shown)
        except SinkError as error:
            self.notes.append(str(error))
        else:
            self.notes.append(f"screenshot: {path}")


def _with_help(picture: Pixels) -> Pixels:
    shown = picture.copy()
    height = min(shown.shape[0], 24 * len(KEYS) + 16)
    shown[:height, :260] = (shown[:height, :260] * np.float32(0.35)).astype(np.uint8)
    for row, (key, meaning) in enumerate(KEYS.items()):
        place = 12, 28 + 24 * row
        cv2.putText(
            shown,
            f"{key}  {meaning}",
            place,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.55,
            (255,) * 3,
            1,
            cv2.LINE_AA,
        )
    return shown
