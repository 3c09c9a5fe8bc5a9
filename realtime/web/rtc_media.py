"""From RTP packets to the decoder of a WebRTC peer, made for the freshest picture.

aiortc's own parts hand a video frame over only when the next one begins (33 ms at 30 fps), let
frames pile up without bound before a slow decoder, and wait seconds for a lost packet. These take
their places in one peer; nothing here imports aiortc.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engines import Pixels, Size
from realtime.web.rtc_encoder import CLOCK_HZ
from realtime.web.strip import CELLS

if TYPE_CHECKING:
    import av

PATIENCE_S = 0.25
"""How long a lost packet may hold up the frames after it: two round trips of a far network."""
MOST_PACKETS = 1024
FAR = 1000
"""So many packets back is no late packet, but a sender that began anew."""
MOST_WAIT_S = 0.1
"""For the decoder: what waits longer is left out, up to a frame that needs no other."""
ASK_EVERY = 15
"""Frames without a whole picture after which one is asked for again."""


class Packet(Protocol):
    """What is read of an RTP packet of aiortc."""

    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes
    """Without the codec's payload descriptor."""


@dataclass(slots=True)
class EncodedFrame:
    """A frame for the decoder; the names are aiortc's."""

    data: bytes
    timestamp: int


class Reassembly:
    """Puts the packets of one video stream in order, and joins them to frames (RFC 3550).

    A frame is handed over with the packet that is marked as its last one. A packet that does not
    come again within `PATIENCE_S` is given up, with all frames before the newest one.

    Thread: the loop's. Stands in for aiortc's ``JitterBuffer``.

    Args:
        on_loss: frames were given up: the next ones build on what nobody has.
        on_early: one packet has completed several frames, and `add` returns the last one only:
            those before it.
    """

    def __init__(
        self, on_loss: Callable[[], None], on_early: Callable[[EncodedFrame], None]
    ) -> None:
        self._on_loss = on_loss
        self._on_early = on_early
        self._waiting: dict[int, Packet] = {}
        self._next: int | None = None
        """Sequence number that is to come, without the 16 bits' turning over."""

    def add(self, packet: Packet) -> tuple[bool, EncodedFrame | None]:
        """Return (whether a whole picture must be asked for, a frame if one is complete now)."""
        if self._next is None:
            self._next = packet.sequence_number
        number = self._next + _signed(packet.sequence_number - self._next, 16)
        lost = number < self._next - FAR
        if lost:
            self._waiting.clear()
            self._next = number
        elif number < self._next:
            return False, None  # came twice, or was given up
        self._waiting[number] = packet
        frame = self._complete()
        while frame is not None and (later := self._complete()) is not None:
            self._on_early(frame)
            frame = later
        if frame is None and self._is_stuck(packet):
            lost = True
            self._skip()
        if lost:
            self._on_loss()
        return lost, frame

    def _complete(self) -> EncodedFrame | None:
        while True:
            assert self._next is not None
            number, parts = self._next, list[Packet]()
            done = False
            while not done and (packet := self._waiting.get(number)) is not None:
                if parts and packet.timestamp != parts[0].timestamp:
                    done = True  # a sender that marks none, or padding after the last frame
                    break
                parts.append(packet)
                number += 1
                done = bool(packet.marker)
            if not done:
                return None
            for taken in range(self._next, number):
                del self._waiting[taken]
            self._next = number
            if data := b"".join(part._data for part in parts):
                return EncodedFrame(data, parts[0].timestamp)

    def _is_stuck(self, newest: Packet) -> bool:
        if not self._waiting:
            return False  # the last one was whole, and empty
        oldest = self._waiting[min(self._waiting)]  # numbers that do not turn over
        waited = _signed(newest.timestamp - oldest.timestamp, 32)
        return waited > PATIENCE_S * CLOCK_HZ or len(self._waiting) > MOST_PACKETS

    def _skip(self) -> None:
        """Go on after the newest frame whose end is here."""
        ends = [number for number, packet in self._waiting.items() if packet.marker]
        last = max(ends, default=max(self._waiting))
        self._waiting = {key: value for key, value in self._waiting.items() if key > last}
        self._next = last + 1


class DecoderQueue:
    """The way of frames to the decoder's thread; never more than it decodes in `MOST_WAIT_S`.

    Where frames are left out, all are, up to the next whole picture, which is asked for: a frame
    without its predecessors decodes to smears.

    Thread: `put` in the loop's, `get` in the decoder's. Stands in for aiortc's ``queue.Queue``.

    Args:
        ask: asks the sender for a whole picture.
        largest: (width, height) that a frame may have. A few bytes can announce 16383x16383 px,
            for which the decoder would allocate and fill gigabytes. None: any.
        note: told once, for a person, of a frame that was larger.
    """

    def __init__(
        self,
        ask: Callable[[], None],
        *,
        largest: Size | None = None,
        note: Callable[[str], object] | None = None,
    ) -> None:
        self.dropped = 0
        self._ask = ask
        self._largest = largest
        self._note = note
        self._changed = threading.Condition()
        self._items: deque[tuple[float, Any]] = deque()
        self._whole = False
        self._waited_for = 0
        self._codec: Any = None

    def lost(self) -> None:
        """Frames are missing before the next one."""
        self._whole = False
        self._waited_for = 0

    def early(self, frame: EncodedFrame) -> None:
        """Add a frame of the codec that there was before."""
        if self._codec is None:
            self.lost()
        else:
            self.put((self._codec, frame))

    def put(self, item: tuple[Any, EncodedFrame] | None) -> None:
        """Add (codec, frame); None ends it, at once."""
        now_s = time.monotonic()
        if item is not None:
            self._codec = item[0]
        with self._changed:
            if item is None or (self._items and now_s - self._items[0][0] > MOST_WAIT_S):
                self.dropped += len(self._items)
                self._items.clear()
                self.lost()
            too_large = item is not None and self._is_too_large(item[1].data)
            if too_large and self._whole:
                self.lost()
            if item is not None and not self._whole:
                self._whole = is_whole(item[1].data) and not too_large
                if not self._whole:
                    self.dropped += 1
                    if self._waited_for % ASK_EVERY == 0:
                        self._ask()
                    self._waited_for += 1
                    return
            self._items.append((now_s, item))
            self._changed.notify()

    def get(self) -> tuple[Any, EncodedFrame] | None:
        """Wait for the next one."""
        with self._changed:
            while not self._items:
                self._changed.wait()
            item: tuple[Any, EncodedFrame] | None = self._items.popleft()[1]
            return item

    def _is_too_large(self, data: bytes) -> bool:
        size = announced_size(data)
        if size is None or self._largest is None:
            return False
        (width, height), (most_width, most_height) = size, self._largest
        if width <= most_width and height <= most_height:
            return False
        if self._note is not None:
            limit = f"{most_width}x{most_height} px at most"
            self._note(f"expected a video of {limit}, found {width}x{height}: it is left out")
            self._note = None
        return True


def announced_size(data: bytes) -> Size | None:
    """Return (width, height) that a whole VP8 frame tells (RFC 6386, section 9.1); else None."""
    if len(data) < 10 or not is_whole(data):
        return None
    width, height = (int.from_bytes(data[place : place + 2], "little") for place in (6, 8))
    return width & 0x3FFF, height & 0x3FFF


def is_whole(data: bytes) -> bool:
    """Return whether a VP8 frame needs no other frame (RFC 6386, section 9.1)."""
    return len(data) > 6 and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a"


def is_full_range(frame: av.VideoFrame, strip: float) -> bool | None:
    """Return whether black is 0 and white 255, not 16 and 235; None where no strip tells it.

    VP8 does not say it, and aiortc does not read the RTP extension in which Chromium does: a
    canvas is sent by it with the full range (and BT.709), a camera is not.

    Args:
        frame: yuv420p, with a coded strip at its bottom.
        strip: how much of the height the strip is, 0 to 1.
    """
    plane = frame.planes[0]
    luma: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    cell = frame.width / CELLS
    middle, rows = frame.height * (1 - strip / 2), frame.height * strip / 4
    band = luma[round(middle - rows) : round(middle + rows)]
    white, black = (band[:, round((n + 0.3) * cell) : round((n + 0.7) * cell)] for n in (0, 1))
    if not white.size or not black.size:
        return None
    contrast = float(white.mean() - black.mean())
    return contrast > (219 + 255) / 2 if contrast > 180 else None


def _signed(difference: int, bits: int) -> int:
    """Return the difference of two numbers that turn over, nearest to 0."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
