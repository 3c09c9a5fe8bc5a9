"""Reads the coded pattern off captured frames, beside the run and not in its way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from engines import Pixels, Size
from realtime.coded_pattern import read_pattern
from realtime.effects.base import Context, Effect
from realtime.frame import Frame
from realtime.glass_to_glass import LoopLog
from realtime.pacing import NS_PER_S

READS_PER_S: Final = 15.0
"""Finding markers takes milliseconds of a processor that the filter wants, too."""
_Picture = tuple[int, int, Pixels]


class PatternReader(Effect):
    """Notes when each frame was translated, and has some captured pictures read in a thread.

    A picture that comes while another one is read is left out.

    Args:
        log: told of both.
        clock: monotonic, in nanoseconds.
        reads_per_s: pictures that are read, at the most.
        mirrored: the camera sees the screen in a mirror.
    """

    name = "pattern reader"
    latency_ms = 0.1
    draws = False

    def __init__(
        self,
        log: LoopLog,
        clock: Callable[[], int],
        *,
        reads_per_s: float = READS_PER_S,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self._mirrored = mirrored
        self._log = log
        self._clock = clock
        self._period_ns = round(NS_PER_S / reads_per_s)
        self._next_ns = 0
        self._waiting: queue.Queue[_Picture | None] = queue.Queue(1)
        self._free: queue.Queue[Pixels] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def prepare(self, size: Size, context: Context) -> None:
        self.close()
        self._failure = None
        width, height = size
        self._free = queue.Queue()
        self._free.put(np.empty((height, width, 3), np.uint8))
        self._thread = threading.Thread(target=self._read, name="pix2live pattern", daemon=True)
        self._thread.start()

    def process(self, frame: Frame, context: Context) -> Pixels:
        if self._failure is not None:
            raise self._failure
        now_ns = self._clock()
        self._log.translated(frame.index, now_ns)
        if now_ns < self._next_ns or frame.source is None:
            return frame.pixels
        try:
            kept = self._free.get_nowait()
        except queue.Empty:
            return frame.pixels
        self._next_ns = now_ns + self._period_ns
        np.copyto(kept, frame.source)
        self._waiting.put((frame.index, frame.captured_ns, kept))
        return frame.pixels

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _read(self) -> None:
        while (item := self._waiting.get()) is not None:
            index, captured_ns, picture = item
            started_ns = self._clock()
            try:
                straight = np.ascontiguousarray(picture[:, ::-1]) if self._mirrored else picture
                reading = read_pattern(straight)
                self._log.read(index, captured_ns, reading, self._clock() - started_ns)
            except Exception as error:  # noqa: BLE001  (the engine's thread raises it)
                self._failure = error
            self._free.put(picture)
