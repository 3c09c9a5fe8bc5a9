"""Pictures that a page sends from the camera of whoever looks at it."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from engines import Pixels, Size
from realtime.frame import Frame
from realtime.sources.base import Source, SourceInfo, check_size, fit_picture
from realtime.web.strip import HEIGHT_PX, read_strip

if TYPE_CHECKING:
    import av

TICK_S = 0.1
TAGS_KEPT = 64
"""More than any queue holds on the way from the source to a sink."""
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that begin with the size of the picture (ITU-T T.81, table B.1)."""
SEQUENTIAL = {0xC0, 0xC1}
"""Those of baseline and extended sequential JPEG. Others may go over the whole picture in any
number of scans: a few hundred kB of them keep a decoder busy for minutes."""
ALONE = {0x00, 0x01, *range(0xD0, 0xDB)}
"""Markers without a length, and the start of scan: none may come before the size."""
START_OF_SCAN = b"\xff\xda"
MOST_SCANS = 10
"""A sequential JPEG has one, or one for each colour."""
HEADER_BYTES = 65_536
"""The size is looked for in so many bytes."""
_PADDING = re.compile(rb"\xff+")


class BrowserSource(Source):
    """The freshest picture of one page: JPEG by WebSocket, or decoded video by WebRTC.

    A picture's age counts from its arrival here; what came before, the page measures.

    Args:
        size: (width, height) of the pictures, without the strip.
        strip: each picture has a coded strip below it, `realtime.web.strip.HEIGHT_PX` high, with
            the page's number for it; it is cut off and kept as the picture's tag.
        fps: the rate that the page means to keep.
    """

    name = "browser"
    live = True

    def __init__(self, size: Size, *, strip: bool = True, fps: float = 30.0) -> None:
        super().__init__()
        check_size(size, "the page's picture")
        self.size = size
        self.unreadable = 0
        """Pictures that were none, or of another size."""
        self._strip_px = HEIGHT_PX if strip else 0
        self._fps = fps
        self._waiting: deque[tuple[bytes | av.VideoFrame, int]] = deque(maxlen=1)
        self._came = threading.Event()
        self._tags: dict[int, int | None] = {}
        self._last_ns = 0

    @property
    def wire_size(self) -> Size:
        """(width, height) of a picture with its strip, as it is sent."""
        return self.size[0], self.size[1] + self._strip_px

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        self.unreadable = 0
        width, height = self.size
        return SourceInfo(self.size, self._fps, description=f"a browser's camera, {width}x{height}")

    def offer(self, picture: bytes | av.VideoFrame, arrived_ns: int) -> None:
        """Hand over a picture; one that nobody has taken yet gives way. Thread: one, any."""
        if self._waiting:
            self.dropped += 1
        self._waiting.append((picture, arrived_ns))
        self._came.set()

    def read(self, frame: Frame) -> bool:
        while not self._cancelled:
            try:
                picture, arrived_ns = self._waiting.popleft()
            except IndexError:
                self._came.wait(TICK_S)
                self._came.clear()
                continue
            pixels = self._decode(picture)
            if pixels is None:
                continue
            tag = None
            if self._strip_px:
                # A video may arrive smaller than it was sent: the strip has shrunk with it.
                cut = round(pixels.shape[0] * self.size[1] / self.wire_size[1])
                tag = read_strip(pixels[cut:])
                pixels = pixels[:cut]
            fit_picture(pixels, frame.pixels)
            self._last_ns = max(arrived_ns, self._last_ns + 1)  # unique: the tag is kept by it
            self._remember(self._last_ns, tag)
            frame.captured_ns = frame.pts_ns = self._last_ns
            return True
        return False

    def tag(self, captured_ns: int) -> int | None:
        """Return the page's number of the picture that was captured then. Thread: any."""
        return self._tags.get(captured_ns)

    def cancel(self) -> None:
        super().cancel()
        self._came.set()

    def close(self) -> None:
        self._waiting.clear()
        self._tags.clear()
        self._last_ns = 0

    def _remember(self, captured_ns: int, tag: int | None) -> None:
        self._tags[captured_ns] = tag
        if len(self._tags) > TAGS_KEPT:
            del self._tags[next(iter(self._tags))]

    def _decode(self, picture: bytes | av.VideoFrame) -> Pixels | None:
        """Return the picture as BGR; None, with a note, for what is none."""
        if not isinstance(picture, bytes):
            # threads=1: the scaler's own thread pool costs more than it brings.
            return np.asarray(picture.to_ndarray(format="bgr24", threads=1), np.uint8)
        if found := self._other_than_agreed(picture):
            width, height = self.wire_size
            self._note_unreadable(f"expected a sequential JPEG of {width}x{height}, found {found}")
            return None
        data: Any = np.frombuffer(picture, np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None or pixels.shape[1::-1] != self.wire_size:
            self._note_unreadable("a JPEG that cannot be decoded")
            return None
        return np.asarray(pixels, np.uint8)

    def _other_than_agreed(self, picture: bytes) -> str:
        """Return what a picture is that the decoder must not see; "" for one that it may."""
        header = jpeg_header(picture)
        if header is None:
            return "no JPEG"
        marker, size = header
        if size != self.wire_size:
            return f"a JPEG of {size[0]}x{size[1]}"
        if marker not in SEQUENTIAL:
            return f"a progressive or lossless one (SOF{marker - 0xC0}), which may take minutes"
        if (scans := picture.count(START_OF_SCAN)) > MOST_SCANS:
            return f"one of {scans} scans ({MOST_SCANS} at most), which may take minutes"
        return ""

    def _note_unreadable(self, why: str) -> None:
        self.unreadable += 1
        self._note("unreadable", f"{self.unreadable} pictures of the page left out: {why}")


def jpeg_header(data: bytes) -> tuple[int, Size] | None:
    """Return (kind, (width, height)) of a JPEG without decoding it; None where it is none.

    Kind is the second byte of its start-of-frame marker, 0xC0 for baseline (ITU-T T.81, table
    B.1). What a decoder may read in another way than this is taken for no JPEG.
    """
    if data[:2] != b"\xff\xd8":
        return None
    data = data[:HEADER_BYTES]
    place = 2
    while padding := _PADDING.match(data, place):
        place = padding.end()
        if place + 8 > len(data) or data[place] in ALONE:
            return None
        length = int.from_bytes(data[place + 1 : place + 3], "big")
        if data[place] in START_OF_FRAME:
            height = int.from_bytes(data[place + 4 : place + 6], "big")
            width = int.from_bytes(data[place + 6 : place + 8], "big")
            return data[place], (width, height)
        if length < 2:
            return None
        place += 1 + length
    return None
