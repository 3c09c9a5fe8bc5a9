"""Playing: a second source inside an effect, shown at its own pace on the run's timeline."""

from __future__ import annotations

import queue
import threading
from typing import Final

import numpy as np

from engines import Pixels, Size, SourceError
from realtime.frame import Frame
from realtime.pacing import NS_PER_S
from realtime.sources import Source

MOST_PX: Final = 1280
"""Long side at which pictures are read: they are drawn into a part of a frame."""
AHEAD: Final = 3
"""Pictures of a recording that are read ahead."""
DEFAULT_FPS: Final = 25.0
JOIN_S: Final = 6.0
"""A stream may wait so long for its next packet."""


class Playing:
    """Reads a source in a thread of its own.

    Recordings play by the time that `at` is given, again and again; of a live source the newest
    picture counts. A live run does not wait: while a picture is late, the one before it stays.

    Thread: `start`, `at` and `close` from one thread at a time; `cancel` and `notes` from any.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        """Of the two below: a source is not closed under a thread that reads it."""
        self._reading = False
        self._abandoned = False
        self._own_notes: list[str] = []
        self._earlier_notes: list[str] = []
        self._error: Exception | None = None
        self._shown: Pixels | None = None

    def start(self, *, wait: bool) -> None:
        """Open the source, unless it is open.

        Args:
            wait: whether `at` waits for the picture that is due, so that the same run gives the
                same pictures.

        Raises:
            SourceError: it cannot be opened, or an earlier `close` did not get its thread to end.
        """
        self._wait = wait
        if self._thread is not None:
            return
        if self._reading:
            raise SourceError(f"{self.source.name}: still waits for its last read; try again later")
        info = self.source.open(None, realtime=self.source.live)
        self._live = self.source.live
        scale = min(1.0, MOST_PX / max(info.size))
        width, height = (max(1, round(side * scale)) for side in info.size)
        self._size: Size = (width, height)
        self._step_ns = round(NS_PER_S / (info.fps or DEFAULT_FPS))
        self._stop.clear()
        self._own_notes, self._earlier_notes = [], []
        self._error = self._shown = None
        self._next: tuple[int, Pixels] | None = None
        self._last_ns: int | None = None
        self._position_ns = 0
        self._ready: queue.Queue[tuple[int, Pixels]] = queue.Queue(AHEAD)
        self._reading, self._abandoned = True, False
        self._thread = threading.Thread(
            target=self._read, name=f"pix2live {self.source.name} on a marker", daemon=True
        )
        self._thread.start()

    def at(self, pts_ns: int) -> Pixels | None:
        """Return the picture to show at a time of the run, uint8 (H, W, 3) BGR.

        None before the first; the same object until there is another. Not to be changed.

        Raises:
            SourceError: the source failed.
        """
        if self._live:
            while not self._ready.empty():
                self._shown = self._ready.get()[1]
            if self._shown is None:
                self._take()
                if self._next is not None:
                    self._shown, self._next = self._next[1], None
        else:
            # A run whose time goes back (its source began anew) does not take the video back.
            if self._last_ns is not None and pts_ns > self._last_ns:
                self._position_ns += pts_ns - self._last_ns
            self._last_ns = pts_ns
            while self._take() and self._next is not None and self._next[0] <= self._position_ns:
                self._shown, self._next = self._next[1], None
        if self._error is not None and self._next is None and self._ready.empty():
            raise self._error
        return self._shown

    @property
    def notes(self) -> list[str]:
        """What a person should know of the source, of this round and the one before."""
        return list(dict.fromkeys([*self._earlier_notes, *self.source.notes, *self._own_notes]))

    def cancel(self) -> None:
        """Make an `at` that waits return soon, and end the reading; `close` is still needed."""
        self._stop.set()
        self.source.cancel()

    def close(self) -> None:
        """End the thread and close the source; more than once is no error.

        A thread that does not end closes the source itself when it does; a note says so.
        """
        self.cancel()
        if self._thread is not None:
            self._thread.join(JOIN_S)
            self._thread = None
        with self._lock:
            if not self._reading:
                self.source.close()
            elif not self._abandoned:
                self._abandoned = True
                self._own_notes.append(
                    f"{self.source.name} does not answer: it is left open until its last read ends"
                )

    def _take(self) -> bool:
        """Get the next picture ready; False where there is none, none yet, or none any more."""
        while self._next is None:
            if self._stop.is_set():
                return False
            try:
                self._next = (
                    self._ready.get(timeout=0.05) if self._wait else (self._ready.get_nowait())
                )
            except queue.Empty:
                alive = self._thread is not None and self._thread.is_alive()
                if not self._wait or not alive:
                    return False
        return True

    def _read(self) -> None:
        offset_ns = 0
        try:
            while not self._stop.is_set():
                last_ns = self._play_once(offset_ns)
                if self._stop.is_set():
                    return
                if self._live:
                    self._own_notes.append(f"{self.source.name} has ended; its last picture stays")
                    return
                if last_ns is None:
                    raise SourceError(f"{self.source.name}: no frame to show on the marker")
                offset_ns = last_ns + self._step_ns
                self._earlier_notes = list(self.source.notes)  # opening empties them
                self.source.open(None, realtime=False)
        except Exception as error:  # noqa: BLE001  (raised where the picture is asked for)
            if not self._stop.is_set():  # what was cancelled may fail as it likes
                self._error = error
        finally:
            with self._lock:
                self._reading = False
                if self._abandoned:
                    self.source.close()

    def _play_once(self, offset_ns: int) -> int | None:
        """Read to the end; return the time of the last picture."""
        last_ns = None
        while not self._stop.is_set():
            frame = Frame(np.empty((self._size[1], self._size[0], 3), np.uint8))
            if not self.source.read(frame):
                break
            last_ns = offset_ns + frame.pts_ns
            self._put((last_ns, frame.pixels))
        return last_ns

    def _put(self, item: tuple[int, Pixels]) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.05)
                return
            except queue.Full:
                if self._live:  # the newest counts
                    self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._ready.get_nowait()
        except queue.Empty:
            pass
