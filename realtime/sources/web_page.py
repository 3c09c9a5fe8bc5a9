"""A live web page as a source, drawn by a Chromium without a window (the extra ``page``)."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from engines import Size, SourceError
from realtime.frame import Frame
from realtime.sources.base import Source, SourceInfo, fit_picture

DEFAULT_SIZE: Size = (1280, 720)
FPS = 30.0
"""What Chromium gives at best; a page that does not move is captured less often."""
STILL_S = 0.5
"""A page that has not changed for so long is captured as it is."""
OPENS_WITHIN_S = 30.0
PUMP_MS = 10.0
QUALITY = 90
"""Of the JPEG that Chromium hands over."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCHEMES = ("http", "https", "file")


class WebPageSource(Source):
    """What a page shows, whenever it changes: a clock, a chart, a chat on a marker.

    Args:
        address: an http, https or file address, or the path of an HTML file.
        size: (width, height) of the page's window in CSS pixels.
    """

    name = "page"
    live = True

    def __init__(self, address: str, size: Size = DEFAULT_SIZE) -> None:
        super().__init__()
        self._address = _checked(address)
        self._size = size
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._came = threading.Event()
        self._stop = threading.Event()
        self._error: str | None = None
        self._waiting: deque[tuple[bytes, int]] = deque(maxlen=1)
        self._picture: Any = None
        self._shown_s = 0.0
        self._started_ns: int | None = None

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        try:
            import playwright.sync_api as _  # noqa: F401
        except ImportError as error:
            raise SourceError(
                "a web page needs playwright: pip install 'pix2live[page]'"
            ) from error
        for event in (self._ready, self._came, self._stop):
            event.clear()
        self._error, self._picture, self._started_ns = None, None, None
        # Playwright's objects belong to the thread that made them.
        self._thread = threading.Thread(target=self._browse, name="pix2live page", daemon=True)
        self._thread.start()
        came = self._ready.wait(OPENS_WITHIN_S)
        if self._error is not None or not came:
            reason = self._error or f"it showed nothing within {OPENS_WITHIN_S:.0f} s"
            self.close()
            raise SourceError(f"cannot show the page {self._address}: {reason}")
        width, height = self._size
        return SourceInfo(self._size, FPS, description=f"{self._address}, {width}x{height}")

    def read(self, frame: Frame) -> bool:
        while not self._cancelled:
            try:
                data, captured_ns = self._waiting.popleft()
            except IndexError:
                if self._error is not None:
                    raise SourceError(
                        f"the page {self._address} went away: {self._error}"
                    ) from None
                if self._picture is None or time.monotonic() - self._shown_s < STILL_S:
                    self._came.wait(0.1)
                    self._came.clear()
                    continue
                captured_ns = time.monotonic_ns()  # it still looks like that
            else:
                found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                if found is None:
                    continue
                self._picture = np.asarray(found, np.uint8)
            fit_picture(self._picture, frame.pixels)
            self._shown_s = time.monotonic()
            if self._started_ns is None:
                self._started_ns = captured_ns
            frame.captured_ns = captured_ns
            frame.pts_ns = captured_ns - self._started_ns
            return True
        return False

    def cancel(self) -> None:
        super().cancel()
        self._came.set()

    def close(self) -> None:
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(OPENS_WITHIN_S)
        self._waiting.clear()

    def _browse(self) -> None:
        """Run the browser until `close`; its own thread."""
        from playwright.sync_api import Error, sync_playwright

        try:
            with sync_playwright() as tool, contextlib.closing(self._launch(tool)) as browser:
                width, height = self._size
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(self._address, wait_until="load", timeout=OPENS_WITHIN_S * 1000)
                cast = page.context.new_cdp_session(page)
                cast.on("Page.screencastFrame", lambda event: self._take(cast, event))
                cast.send("Page.startScreencast", {"format": "jpeg", "quality": QUALITY})
                while not self._stop.is_set():
                    page.wait_for_timeout(PUMP_MS)
        except Error as error:
            self._error = str(error).strip().splitlines()[0]
        except Exception as error:  # noqa: BLE001  (told by `open` or `read`)
            self._error = str(error) or type(error).__name__
        finally:
            self._ready.set()
            self._came.set()

    def _launch(self, tool: Any) -> Any:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        # Chromium refuses its sandbox to root.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        return tool.chromium.launch(executable_path=found, chromium_sandbox=not root)

    def _take(self, cast: Any, event: dict[str, Any]) -> None:
        if self._waiting:
            self.dropped += 1
        self._waiting.append((base64.b64decode(event["data"]), time.monotonic_ns()))
        self._ready.set()
        self._came.set()
        cast.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})


def _checked(address: str) -> str:
    """Return ``address`` as a browser takes it.

    Raises:
        SourceError: it is no address and no file.
    """
    if urlsplit(address).scheme in SCHEMES:
        return address
    path = Path(address)
    if "://" in address or not path.is_file():
        raise SourceError(
            f"a page is page:https://..., or page:FILE.html that is there; found {address!r}"
        )
    return path.resolve().as_uri()
