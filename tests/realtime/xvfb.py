"""A screen without a screen: starts Xvfb, presses real keys in it, and looks at it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest

from engines import Pixels

WAIT_S = 30.0
"""A busy machine is no failure."""
T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """A window as the X server knows it."""

    number: int
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Screen:
    """One running Xvfb."""

    display: str

    @property
    def env(self) -> dict[str, str]:
        """Return the environment for a program that shall open its windows here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QT_")}
        return kept | {"DISPLAY": self.display}

    def xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=self.env, capture_output=True, text=True, timeout=WAIT_S
        )
        return done.stdout.strip()

    def press(self, key: str) -> None:
        """Press and release a key, as a keyboard would; the focused window gets it."""
        self.xdotool("key", key)

    def find(self, title: str) -> Window:
        """Wait for the window of this exact title, and give it the focus."""
        found = until(
            lambda: self.xdotool("search", "--onlyvisible", "--name", f"^{title}$"), title
        )
        number = found.split()[0]
        lines = self.xdotool("getwindowgeometry", "--shell", number).splitlines()
        place = dict(line.split("=", 1) for line in lines if "=" in line)
        window = Window(int(number), *(int(place[key]) for key in ("X", "Y", "WIDTH", "HEIGHT")))
        middle = window.left + window.width // 2, window.top + window.height // 2
        self.xdotool("mousemove", str(middle[0]), str(middle[1]))
        # No window manager gives it the focus here.
        until(
            lambda: self.xdotool("windowfocus", number, "getwindowfocus") == number,
            f"the focus on {title}",
        )
        looks = itertools.count(1)
        until(lambda: self._painted(window, next(looks)), f"a picture in {title}")
        return window

    def _painted(self, window: Window, looks: int) -> bool:
        """Return whether it shows anything; ask again for what it did not notice.

        Without a window manager Qt misses one time in ten that its window is on the screen.
        """
        if self.look(window).max() > 0:
            return True
        if looks % 20 == 0:
            self.xdotool("windowunmap", "--sync", str(window.number))
            self.xdotool("windowmap", "--sync", str(window.number))
            self.xdotool("windowfocus", str(window.number))
        return False

    def look(self, window: Window) -> Pixels:
        """Return what this part of the screen shows, BGR."""
        import mss

        with mss.MSS(display=self.display) as grabber:
            shot = grabber.grab(
                {
                    "left": window.left,
                    "top": window.top,
                    "width": window.width,
                    "height": window.height,
                }
            )
            return np.ascontiguousarray(np.asarray(shot)[..., :3])

    def ask_to_close(self, window: Window) -> None:
        """Send what a window manager sends when a person clicks on the cross."""
        from Xlib import X
        from Xlib.display import Display
        from Xlib.protocol.event import ClientMessage

        display = Display(self.display)
        try:
            target = display.create_resource_object("window", window.number)
            protocols = display.intern_atom("WM_PROTOCOLS")
            delete = display.intern_atom("WM_DELETE_WINDOW")
            event = ClientMessage(
                window=target, client_type=protocols, data=(32, [delete, X.CurrentTime, 0, 0, 0])
            )
            target.send_event(event)
            display.sync()  # the server has it
        finally:
            display.close()


@contextmanager
def virtual_screen(width: int = 1600, height: int = 1000) -> Iterator[Screen]:
    """Start Xvfb on a free display number, and stop it afterwards; skip where it is missing."""
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: sudo apt-get install {package}")
    pytest.importorskip("mss", reason="mss is missing: pip install mss")
    pytest.importorskip("Xlib", reason="python-xlib is missing: pip install python-xlib")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24"]
    server = subprocess.Popen(
        [*command, "-nolisten", "tcp", "-noreset"], pass_fds=[writer], stderr=subprocess.DEVNULL
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as answer:
            number = answer.readline().strip()  # written when the server is ready
        assert number, "Xvfb did not start"
        yield Screen(f":{number}")
    finally:
        server.terminate()
        server.wait(WAIT_S)


def until(look: Callable[[], T], what: str) -> T:
    """Look again and again until there is something; fail when there is nothing for long."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT_S:g} s in vain for {what}")
