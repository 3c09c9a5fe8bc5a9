"""A window (OpenCV HighGUI): the picture, its fps and age, and keys."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from engines import Pixels, SinkError
from realtime.effects.views import draw_panel
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.pictures import write_picture

KEYS = {
    "q": "quit",
    "f": "filter on or off",
    "s": "split view",
    "i": "picture in picture",
    "d": "difference",
    "n": "next filter",
    "p": "screenshot",
    "r": "record",
    "h": "these keys",
}
MOUSE = {"mouse": "drag the split line"}
OWN_KEYS = "qph"
"""The others do what `Sink.actions` says, and nothing where it does not say."""
SAID_FRAMES = 90
"""How long a message stays on the picture."""
_ESCAPES = (27, 0xFF1B)
"""As a character, and as an X11 key symbol."""


def why_no_window() -> str | None:
    """Return None where a window can be opened, else the reason.

    Asked before OpenCV is: where its toolkit finds no display, it ends the whole process.
    """
    if not sys.platform.startswith("linux"):
        return None
    if not os.environ.get("DISPLAY"):
        return "there is no screen here: DISPLAY is not set"
    plugin = Path(cv2.__file__).parent / "qt" / "plugins" / "platforms" / "libqxcb.so"
    if plugin.is_file():  # the wheel from PyPI, with a Qt of its own that knows X11 only
        if "xcb" not in os.environ.get("QT_QPA_PLATFORM", "xcb"):
            asked = os.environ["QT_QPA_PLATFORM"]
            return f"OpenCV's windows know xcb only; unset QT_QPA_PLATFORM (it is {asked!r})"
        try:
            ctypes.CDLL(str(plugin))
        except OSError as error:
            return f"{error}; sudo apt-get install libsm6 libxcb1 libgl1 libglib2.0-0"
        if _mixed_up():
            return "OpenCV's windows hang when PyAV is loaded first; import cv2 before av"
    return _why_no_display()


def _mixed_up() -> bool:
    """Return whether Qt got X11 helpers of another wheel, which has files of the same names.

    They talk to another libxcb; the first window would wait for ever (PyAV issue 1050).
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    words = (line.split(maxsplit=5) for line in maps.read_text().splitlines())
    loaded = {Path(part[5]) for part in words if len(part) == 6}
    own = set(Path(cv2.__file__).parent.parent.glob("opencv*.libs/libxcb*"))
    names = {path.name for path in own}
    return any(path.name in names and path not in own for path in loaded)


def _why_no_display() -> str | None:
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return None  # then nothing here needs it
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connection_has_error.argtypes = xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(None, None)
    failed = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return f"the screen {os.environ['DISPLAY']} (DISPLAY) does not answer" if failed else None


class WindowSink(Sink):
    """Shows the newest frame. Keys act through ``actions``; q, p and h are the window's own."""

    on_drag: Callable[[float], None] | None = None
    """Called, in the main thread, while the left mouse button is down on the picture: where it
    is, as a part of the picture's width (`Presenter.drag`). It may be outside of 0 to 1."""

    name = "window"
    freshest = True
    main_thread = True

    def __init__(self, title: str | None = None, folder: str | os.PathLike[str] = ".") -> None:
        super().__init__()
        self._title = title
        self._folder = Path(folder)
        self._open = False
        self._gone = False
        self._shown: Pixels | None = None
        self._said = ""
        self._said_frames = 0
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
            cv2.setMouseCallback(self.title, self._mouse)
        except cv2.error as error:
            raise SinkError(f"cannot open a window: {error.err or error}") from error
        self._open, self._gone = True, False
        self._say("h: keys")

    def write(self, frame: Frame) -> None:
        if not self._open or self._gone:
            return  # showing a picture would open the window again
        if self._shown is None or self._shown.shape != frame.pixels.shape:
            self._shown = np.empty_like(frame.pixels)
        np.copyto(self._shown, frame.pixels)
        cv2.imshow(self.title, self._with_text(self._shown))

    def idle(self) -> bool:
        """Handle keys; False when the window was closed or ``q`` was pressed."""
        if not self._open or self._gone:
            return False
        key = cv2.waitKeyEx(1)
        if self._closed_by_person():
            self._gone = True
            return False
        return key < 0 or self._press(key & 0xFFFF)  # above: shift, num lock, ...

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._shown = None
        try:
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)
        except cv2.error:
            return  # the person closed it already

    def _press(self, code: int) -> bool:
        """Do what a key stands for; False for quit."""
        # Not masked to 8 bits: the left arrow is 0xFF51 and would be a Q.
        letter = chr(code).lower() if code < 128 else ""
        if letter == "q" or code in _ESCAPES:
            return False
        if letter == "p":
            self._screenshot()
        elif letter == "h":
            self.help = not self.help
            self._said_frames = 0
        elif letter in self.actions:
            self._say(self.actions[letter]())
        return True

    def _mouse(self, event: int, x: int, y: int, flags: int, _: object) -> None:
        down = event == cv2.EVENT_LBUTTONDOWN
        moved = event == cv2.EVENT_MOUSEMOVE and bool(flags & cv2.EVENT_FLAG_LBUTTON)
        if (down or moved) and self.on_drag is not None and self._shown is not None:
            self.on_drag((x + 0.5) / self._shown.shape[1])

    def _rows(self) -> list[tuple[str, str]]:
        """Return the help: what does something here."""
        keys = [row for row in KEYS.items() if row[0] in OWN_KEYS or row[0] in self.actions]
        return keys + (list(MOUSE.items()) if self.on_drag is not None else [])

    def _closed_by_person(self) -> bool:
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
            self._say(str(error))
        else:
            self.notes.append(f"screenshot: {path}")
            self._say(f"screenshot: {path.name}")

    def _say(self, text: str) -> None:
        self._said, self._said_frames = text, SAID_FRAMES

    def _with_text(self, picture: Pixels) -> Pixels:
        """Return the picture with help or a message on it; not what a screenshot keeps."""
        if not self.help and self._said_frames <= 0:
            return picture
        shown = picture.copy()
        if self.help:
            draw_panel(shown, self._rows())
        else:
            self._said_frames -= 1
            draw_panel(shown, [(self._said,)])
        return shown
