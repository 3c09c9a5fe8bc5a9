"""The window of a glass-to-glass test: the coded pattern, and beside it what the filter makes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from engines import Pixels, SinkError
from realtime.coded_pattern import draw_pattern, pattern_size
from realtime.frame import Frame
from realtime.glass_to_glass import LoopLog
from realtime.pacing import NS_PER_S
from realtime.sinks.base import Sink, SinkInfo
from realtime.sinks.window import why_no_window

TITLE: Final = "pix2live latency"
SIZE: Final = (1024, 576)
UNIT_PX: Final = 32
PREVIEW_PX: Final = 226
MARGIN_PX: Final = 10
_GREY: Final = 128
"""Of what is around the pattern: a white window would blind the camera's exposure control."""
TEXT_PX: Final = 484
LINE_PX: Final = 26
_LONGEST_LINE: Final = 86
_GOLDEN: Final = 0.618034
"""Its multiples, less whole numbers, are spread evenly."""
_QUIT: Final = (ord("q"), ord("Q"), 27, 0xFF1B)


class PatternWindow(Sink):
    """Shows a new number whenever a frame comes, and between frames.

    The translated frame is beside the pattern, small, and mirrored where the pattern is not: no
    marker is one in a mirror, so what the camera sees of it is not read.

    Args:
        log: told when a number and a frame were shown: when the window had taken the picture.
        clock: monotonic, in nanoseconds.
        rate: numbers a second between frames, on average.
        mirrored: the camera sees the window in a mirror: the frame is shown as it came.
        blind: open no window, for a simulated camera that asks the log what there would be.
    """

    name = "window"
    freshest = True
    main_thread = True

    def __init__(
        self,
        log: LoopLog,
        clock: Callable[[], int],
        *,
        rate: float = 60.0,
        mirrored: bool = False,
        blind: bool = False,
        title: str = TITLE,
    ) -> None:
        super().__init__()
        self.lines: tuple[str, ...] = ()
        """What is written below the pattern."""
        self._log = log
        self._clock = clock
        self._period_ns = round(NS_PER_S / rate)
        self._mirrored = mirrored
        self._blind = blind
        self._title = title
        self._canvas = np.full((SIZE[1], SIZE[0], 3), _GREY, np.uint8)
        self._written: tuple[str, ...] = ()
        self._due_ns = 0
        self._open = self._gone = False

    def open(self, info: SinkInfo) -> None:
        if not self._blind:
            reason = why_no_window()
            if reason is not None:
                raise SinkError(f"cannot show the pattern: {reason}")
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL | cv2.WINDOW_KEEPRATIO
            try:
                cv2.namedWindow(self._title, flags)
                cv2.resizeWindow(self._title, *SIZE)
            except cv2.error as error:
                raise SinkError(f"cannot show the pattern: {error.err or error}") from error
        self._open, self._gone = True, False
        self._show()

    def write(self, frame: Frame) -> None:
        if not self._open or self._gone:
            return
        if not self._blind:
            height, width = frame.pixels.shape[:2]
            size = PREVIEW_PX, max(1, min(400, PREVIEW_PX * height // width))
            left, top = SIZE[0] - PREVIEW_PX - MARGIN_PX, MARGIN_PX
            place = self._canvas[top : top + size[1], left : left + size[0]]
            small = np.asarray(cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA))
            np.copyto(place, small if self._mirrored else small[:, ::-1])
        self._log.displayed(frame.index, self._show())

    def idle(self) -> bool:
        """Show the next number when it is due; False when the person closed the window."""
        if not self._open or self._gone:
            return False
        if self._clock() >= self._due_ns:
            self._show()
        elif not self._blind:
            self._look_at_keys()
        return not self._gone

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._blind:
            return
        try:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)
        except cv2.error:
            return  # the person closed it already

    def picture(self) -> Pixels:
        """Return what the window shows: uint8 (576, 1024, 3) BGR, the window's own."""
        width, height = pattern_size(UNIT_PX)
        top = left = MARGIN_PX
        draw_pattern(
            self._canvas[top : top + height, left : left + width], self._log.shows.next_number
        )
        if self.lines != self._written:
            self._written = self.lines
            self._write_lines()
        return self._canvas

    def _show(self) -> int:
        """Show the next number with the newest frame; return when the window had taken them."""
        if not self._blind:
            cv2.imshow(self._title, self.picture())
            self._look_at_keys()  # this is when the toolkit paints
        now_ns = self._clock()
        self._log.shows.add(now_ns)
        # Uneven: a camera of half the rate would see every number at the same moment of its time.
        uneven = 0.75 + 0.5 * (len(self._log.shows.times_ns) * _GOLDEN % 1)
        self._due_ns = now_ns + round(self._period_ns * uneven)
        return now_ns

    def _look_at_keys(self) -> None:
        key = cv2.waitKeyEx(1)
        try:
            closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:
            closed = True
        self._gone = self._gone or closed or key & 0xFFFF in _QUIT

    def _write_lines(self) -> None:
        self._canvas[TEXT_PX - LINE_PX + 8 :] = _GREY
        wrapped = [part for line in self.lines for part in textwrap.wrap(line, _LONGEST_LINE)]
        for number, line in enumerate(wrapped):
            at = MARGIN_PX, TEXT_PX + number * LINE_PX
            cv2.putText(
                self._canvas, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA
            )
