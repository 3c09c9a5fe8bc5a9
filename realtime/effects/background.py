"""Latest: what takes longer than a frame, in a thread of its own, on the newest item only."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from engines import SettingsError

In = TypeVar("In")
Out = TypeVar("Out")


class Latest(Generic[In, Out]):
    """One thread that computes ``work`` of the newest item offered; others are passed over.

    Thread: `offer`, `newest` and `close` from one thread (an effect's); neither `offer` nor
    `newest` ever waits for the work. ``work`` runs in the thread of this object only.
    Ownership: an item belongs to the worker once it is offered: offer a copy of what is written
    to again. A result is shared: neither side changes it.
    """

    def __init__(
        self, work: Callable[[In], Out], *, name: str, most_hz: float | None = None
    ) -> None:
        """``name`` is the thread's; ``most_hz`` bounds how often ``work`` is called a second.

        Raises:
            SettingsError: ``most_hz`` is not more than 0.
        """
        if most_hz is not None and not most_hz > 0:
            raise SettingsError(f"{name}: the rate must be more than 0 a second, found {most_hz}")
        self._work = work
        self._pause_s = 1 / most_hz if most_hz else 0.0
        # One place, replaced and emptied in one step each: no lock of our own.
        self._waiting: deque[In] = deque(maxlen=1)
        self._result: Out | None = None
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pix2live {name}", daemon=True)
        self._thread.start()

    def offer(self, item: In) -> None:
        """Hand over ``item``; it replaces one that still waits. Ignored after `close`."""
        if not self._closing.is_set():
            self._waiting.append(item)
            self._wake.set()

    def newest(self) -> Out | None:
        """Return the newest result, the same object until there is a newer one; None before any.

        Raises:
            Exception: what ``work`` raised; it is not called again after that.
        """
        if self._error is not None:
            raise self._error
        return self._result

    def close(self) -> None:
        """End the thread, after the item that it works on; one that waits is dropped.

        Closing twice is no error.
        """
        self._closing.set()
        self._wake.set()
        self._thread.join()
        self._waiting.clear()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()  # before looking: an offer after the look wakes again
            if self._closing.is_set() or not self._waiting:
                continue
            item = self._waiting.pop()
            started_s = time.monotonic()
            try:
                self._result = self._work(item)
            except BaseException as error:  # noqa: BLE001  (raised where the result is read)
                self._error = error
                return
            del item
            # Items offered meanwhile replace each other: the newest is taken after the pause.
            self._rest(max(0.0, started_s + self._pause_s - time.monotonic()))

    def _rest(self, rest_s: float) -> None:
        """Wait between two items; `close` ends it."""
        self._closing.wait(rest_s)
