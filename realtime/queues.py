"""The two queues between stages: Mailbox (the freshest frame wins) and Ring (every frame).

Both have one producer and one consumer, hold slots that were allocated once, and take no lock:
every control word is written by one side only, and reading or writing one attribute is atomic in
Python. A consumer with nothing to do sleeps on a doorbell, which the producer rings only when the
consumer says that it sleeps. Who sleeps raises its flag and then looks once more; who wakes changes
the queue and then looks at the flag: whichever comes second sees the other, so no wake-up is lost.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from realtime.doorbell import Doorbell
from realtime.frame import Frame

LOST_WAKE_UP_S = 0.1
"""A sleeper looks again this often, should a processor ever reorder flag and doorbell."""


class FrameQueue(ABC):
    """Producer: `reserve`, fill the slot, `publish`. Consumer: `take`, read, `release`.

    Thread: producer methods from one thread, consumer methods from one thread, `close` from any.
    Ownership: a reserved slot is the producer's until `publish`, a taken one the consumer's until
    `release` (a Mailbox: until the next `take` that returns a frame).
    """

    def __init__(self) -> None:
        self.published = 0
        """Frames published; written by the producer."""
        self.taken = 0
        """Frames taken; written by the consumer."""
        self.closed = False
        self._bell = Doorbell()
        self._asleep = False

    @property
    @abstractmethod
    def dropped(self) -> int:
        """Frames that were published and passed over; once closed, those left in the queue too.

        Exact for the consumer; any other thread may see the number of a moment ago.
        """

    @abstractmethod
    def reserve(self, timeout_s: float = 0.0) -> Frame | None:
        """Return a slot to fill; None when there is none in time, or the queue is closed."""

    @abstractmethod
    def publish(self) -> None:
        """Hand the oldest reserved slot to the consumer."""

    def take(self, timeout_s: float = 0.0) -> Frame | None:
        """Return the next frame; None when there is none in time, or none will come any more."""
        frame = self._poll()
        if frame is None and timeout_s > 0:
            frame = self._sleep(timeout_s)
        return frame

    @abstractmethod
    def release(self) -> None:
        """Give back the oldest taken slot."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Closed, and everything was taken."""

    def close(self) -> None:
        """No more frames: wakes both sides. What was published before can still be taken."""
        self.closed = True
        self._bell.ring()

    def dispose(self) -> None:
        """Free the handles, after both sides have left (a late ring would hit a stranger's)."""
        self._bell.close()

    @abstractmethod
    def _poll(self) -> Frame | None:
        """Return the next frame if there is one."""

    def _sleep(self, timeout_s: float) -> Frame | None:
        deadline_s = time.monotonic() + timeout_s
        try:
            while True:
                self._asleep = True  # before looking: a publish after the look will ring
                closed = self.closed  # before looking too: the last publish may come in between
                frame = self._poll()
                remaining_s = deadline_s - time.monotonic()
                if frame is not None or closed or remaining_s <= 0:
                    return frame
                self._bell.wait(min(remaining_s, LOST_WAKE_UP_S))
        finally:
            self._asleep = False

    def _wake(self) -> None:
        if self._asleep:
            self._bell.ring()


class Mailbox(FrameQueue):
    """The freshest frame wins; the producer never waits.

    Simpson's four-slot algorithm (H. R. Simpson, "Four-slot fully asynchronous communication
    mechanism", 1990): two pairs of two slots. The producer writes to the pair that the consumer
    is not reading, and there to the slot that was not written last, so neither side ever waits
    and the consumer never sees a slot that is being written.
    """

    SLOTS = 4

    def __init__(self, slots: Sequence[Frame]) -> None:
        if len(slots) != self.SLOTS:
            raise ValueError(f"a Mailbox takes {self.SLOTS} slots, found {len(slots)}")
        super().__init__()
        self._data = (tuple(slots[:2]), tuple(slots[2:]))
        self._numbers = [[0, 0], [0, 0]]  # which publication lies in a slot
        self._newest_in_pair = [0, 0]  # producer writes
        self._latest = 0  # producer writes
        self._reading = 0  # consumer writes
        self._seen = 0  # consumer writes: the publication that it took last
        self._missed = 0  # consumer writes
        self._target: tuple[int, int] | None = None

    @property
    def dropped(self) -> int:
        return self._missed + (max(0, self.published - self._seen) if self.closed else 0)

    def reserve(self, timeout_s: float = 0.0) -> Frame | None:
        if self.closed:
            return None
        if self._target is None:
            pair = 1 - self._reading
            self._target = pair, 1 - self._newest_in_pair[pair]
        pair, place = self._target
        return self._data[pair][place]

    def publish(self) -> None:
        if self._target is None:
            raise RuntimeError("reserve a slot before publishing")
        pair, place = self._target
        self._target = None
        number = self.published + 1
        self._numbers[pair][place] = number
        self._newest_in_pair[pair] = place
        self._latest = pair
        self.published = number
        self._wake()

    def _poll(self) -> Frame | None:
        if self._seen >= self.published:  # above it while a publication is half done
            return None
        pair = self._latest
        self._reading = pair
        place = self._newest_in_pair[pair]
        number = self._numbers[pair][place]  # newer than what was seen: `published` comes last
        self._missed += number - self._seen - 1
        self._seen = number
        self.taken += 1
        return self._data[pair][place]

    def release(self) -> None:
        """Nothing to do: the slot stays the consumer's until the next frame is taken."""

    @property
    def finished(self) -> bool:
        return self.closed and self._seen == self.published


class Ring(FrameQueue):
    """Every frame, in order; a full ring makes the producer wait.

    Lamport's bounded ring (L. Lamport, "Specifying concurrent program modules", 1983): `published`
    is written by the producer only, `released` by the consumer only.
    """

    def __init__(self, slots: Sequence[Frame]) -> None:
        if not slots:
            raise ValueError("a Ring takes at least one slot")
        super().__init__()
        self._slots = tuple(slots)
        self.released = 0
        """Slots given back; written by the consumer."""
        self._reserved = 0
        self._space = Doorbell()
        self._waits_for_space = False

    @property
    def dropped(self) -> int:
        return self.published - self.taken if self.closed else 0

    def reserve(self, timeout_s: float = 0.0) -> Frame | None:
        if self._full() and timeout_s > 0:
            self._wait_for_space(timeout_s)
        if self.closed or self._full():
            return None
        slot = self._slots[self._reserved % len(self._slots)]
        self._reserved += 1
        return slot

    def publish(self) -> None:
        if self._reserved == self.published:
            raise RuntimeError("reserve a slot before publishing")
        self.published += 1
        self._wake()

    def _poll(self) -> Frame | None:
        if self.taken == self.published:
            return None
        slot = self._slots[self.taken % len(self._slots)]
        self.taken += 1
        return slot

    def release(self) -> None:
        if self.released == self.taken:
            raise RuntimeError("take a frame before releasing")
        self.released += 1
        if self._waits_for_space:
            self._space.ring()

    @property
    def finished(self) -> bool:
        return self.closed and self.taken == self.published

    def close(self) -> None:
        super().close()
        self._space.ring()

    def dispose(self) -> None:
        super().dispose()
        self._space.close()

    def _full(self) -> bool:
        return self._reserved - self.released >= len(self._slots)

    def _wait_for_space(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        try:
            while True:
                self._waits_for_space = True
                remaining_s = deadline_s - time.monotonic()
                if self.closed or not self._full() or remaining_s <= 0:
                    return
                self._space.wait(min(remaining_s, LOST_WAKE_UP_S))
        finally:
            self._waits_for_space = False


def make_queue(mode: str, depth: int, new_frame: Callable[[], Frame]) -> FrameQueue:
    """Return the queue for ``mode`` (``freshest`` or ``every``) with slots from ``new_frame``.

    ``depth`` frames can be with the consumer while another two are filled.
    """
    if mode == "freshest":
        return Mailbox([new_frame() for _ in range(Mailbox.SLOTS)])
    return Ring([new_frame() for _ in range(depth + 2)])
