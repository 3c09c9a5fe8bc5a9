"""A moving test pattern with a machine-readable frame number and time code drawn into it."""

from __future__ import annotations

import time
import zlib

import cv2
import numpy as np

from engines import Pixels, Size
from realtime.frame import Frame
from realtime.pacing import NS_PER_S, Timeline
from realtime.sources.base import Source, SourceInfo, check_size

DEFAULT_SIZE = (640, 360)
CELL_PX = 8
"""A bit is a black or white square of this side: it survives H.264 and moderate scaling."""
_NUMBER_BITS, _TIME_BITS, _CHECK_BITS = 32, 56, 24
_BITS = _NUMBER_BITS + _TIME_BITS + _CHECK_BITS


class SyntheticSource(Source):
    """Colour bars, a moving ball and a code; paced like a camera, or as fast as asked."""

    name = "test-pattern"
    live = True

    def __init__(self, size: Size | None = None, fps: float = 30.0) -> None:
        super().__init__()
        self._fps = fps
        self._size = size
        self._pattern: Pixels | None = None
        self._timeline: Timeline | None = None
        self._number = 0

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        chosen = self._size or size or DEFAULT_SIZE
        check_size(chosen, self.name)
        self._timeline = Timeline() if realtime else None
        self._number = 0
        return SourceInfo(chosen, self._fps, None, f"test pattern, {self._fps:g} fps")

    def read(self, frame: Frame) -> bool:
        pts_ns = round(self._number * NS_PER_S / self._fps)
        due_ns = time.monotonic_ns()
        if self._timeline is not None:
            due_ns = self._timeline.due_ns(pts_ns, due_ns)
        self._draw(frame.pixels)  # before it is due: drawing is not age
        write_code(frame.pixels, self._number, due_ns)
        if not self._sleep_until(due_ns):
            return False
        frame.captured_ns, frame.pts_ns = due_ns, pts_ns
        self._number += 1
        return True

    def close(self) -> None:
        self._pattern = None

    def _draw(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        if self._pattern is None or self._pattern.shape != pixels.shape:
            self._pattern = _colour_bars(height, width)
        np.copyto(pixels, self._pattern)
        phase = self._number / self._fps
        centre = (
            int(width * (0.5 + 0.4 * np.sin(phase * 1.3))),
            int(height * (0.65 + 0.2 * np.cos(phase * 2.1))),
        )
        cv2.circle(pixels, centre, max(4, height // 10), (40, 160, 250), -1, cv2.LINE_AA)
        cv2.circle(pixels, centre, max(4, height // 10), (20, 20, 20), 2, cv2.LINE_AA)


def _colour_bars(height: int, width: int) -> Pixels:
    colours = [(235, 235, 235), (0, 220, 220), (220, 220, 0), (0, 200, 0)]
    colours += [(220, 0, 220), (0, 0, 220), (220, 0, 0), (30, 30, 30)]
    bars = np.array(colours, np.uint8)[np.arange(width) * len(colours) // width]
    picture = np.repeat(bars[None], height, axis=0)
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    picture[height * 9 // 10 :] = ramp[None, :, None]
    return np.ascontiguousarray(picture)


def write_code(pixels: Pixels, number: int, time_ns: int) -> None:
    """Draw ``number`` (32 bit) and ``time_ns`` (56 bit) with a checksum into the top rows."""
    number &= 2**_NUMBER_BITS - 1
    time_ns &= 2**_TIME_BITS - 1
    payload = number << _TIME_BITS | time_ns
    word = payload << _CHECK_BITS | _checksum(payload)
    bits = np.array([word >> place & 1 for place in reversed(range(_BITS))], np.uint8)
    rows, columns = _layout(pixels.shape[1])
    cells = np.zeros(rows * columns, np.uint8)
    cells[:_BITS] = bits * 255
    block = np.kron(cells.reshape(rows, columns), np.ones((CELL_PX, CELL_PX), np.uint8))
    visible = block[: pixels.shape[0], : pixels.shape[1]]
    pixels[: visible.shape[0], : visible.shape[1]] = visible[..., None]


def read_code(pixels: Pixels) -> tuple[int, int] | None:
    """Return (number, time_ns) as `write_code` drew them; None when the checksum is wrong."""
    rows, columns = _layout(pixels.shape[1])
    height, width = rows * CELL_PX, columns * CELL_PX
    if pixels.shape[0] < height or pixels.shape[1] < width:
        return None
    grey = pixels[:height, :width].mean(axis=2).reshape(rows, CELL_PX, columns, CELL_PX)
    inner = grey[:, 2:-2, :, 2:-2].mean(axis=(1, 3))
    word: int = 0
    for bit in (inner.ravel()[:_BITS] > 127).tolist():
        word = word << 1 | int(bit)
    payload, check = word >> _CHECK_BITS, word & (2**_CHECK_BITS - 1)
    if check != _checksum(payload):
        return None
    return int(payload >> _TIME_BITS), int(payload & (2**_TIME_BITS - 1))


def _checksum(payload: int) -> int:
    return int(zlib.crc32(payload.to_bytes(11, "big")) & (2**_CHECK_BITS - 1))


def _layout(width: int) -> tuple[int, int]:
    columns = max(1, min(width // CELL_PX, 64))
    return -(-_BITS // columns), columns
