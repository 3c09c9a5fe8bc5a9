"""Mailbox and Ring: any calls against a model of each, and two real threads."""

from __future__ import annotations

import ast
import inspect
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from realtime import doorbell, frame, queues, stages
from realtime.frame import Frame
from realtime.queues import FrameQueue, Mailbox, Ring, make_queue

# --- any sequence of calls, against a model ---------------------------------------------------


def _frames(count: int, size: int = 2) -> list[Frame]:
    return [Frame(np.zeros((size, size, 3), np.uint8)) for _ in range(count)]


def _fill(slot: Frame, index: int) -> None:
    half = len(slot.pixels) // 2
    slot.pixels[:half] = index & 0xFF
    slot.index = index
    slot.pixels[half:] = index & 0xFF


def _is_whole(slot: Frame, index: int) -> bool:
    return slot.index == index and bool((slot.pixels == index & 0xFF).all())


class _AnyCalls(RuleBasedStateMachine):
    queue: FrameQueue

    def __init__(self) -> None:
        super().__init__()
        self.published = 0
        self.taken: list[int] = []
        self.closed = False

    @rule()
    def close(self) -> None:
        self.queue.close()
        self.closed = True

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.published == self.published
        assert self.queue.taken == len(self.taken)

    def teardown(self) -> None:
        self.queue.close()
        self.queue.dispose()


class MailboxCalls(_AnyCalls):
    def __init__(self) -> None:
        super().__init__()
        self.queue = Mailbox(_frames(4))
        self.reserved = False
        self.held: tuple[Frame, int] | None = None

    @rule()
    def reserve(self) -> None:
        slot = self.queue.reserve()
        assert (slot is None) == self.closed
        if slot is not None:
            self.reserved = True
            assert self.held is None or slot is not self.held[0]
            _fill(slot, self.published + 1)

    @rule()
    def publish(self) -> None:
        if not self.reserved:
            with pytest.raises(RuntimeError, match="reserve"):
                self.queue.publish()
            return
        self.queue.publish()
        self.reserved = False
        self.published += 1

    @rule()
    def take(self) -> None:
        slot = self.queue.take()
        last = self.taken[-1] if self.taken else 0
        assert (slot is None) == (last == self.published)
        if slot is not None:
            assert _is_whole(slot, self.published)  # the freshest
            self.taken.append(self.published)
            self.held = slot, self.published

    @invariant()
    def what_is_held_stays(self) -> None:
        assert self.held is None or _is_whole(*self.held)

    @invariant()
    def drops_are_exact(self) -> None:
        last = self.taken[-1] if self.taken else 0
        assert self.queue.dropped == (self.published if self.closed else last) - len(self.taken)
        assert self.queue.finished == (self.closed and last == self.published)


class RingCalls(_AnyCalls):
    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.queue: Ring = Ring(_frames(1))
        self.reserved: list[Frame] = []
        self.held: list[tuple[Frame, int]] = []

    @initialize(size=strategies.integers(1, 4))
    def choose_size(self, size: int) -> None:
        self.queue.dispose()
        self.size, self.queue = size, Ring(_frames(size))

    @rule()
    def reserve(self) -> None:
        in_use = len(self.reserved) + self.published - len(self.taken) + len(self.held)
        slot = self.queue.reserve()
        assert (slot is None) == (self.closed or in_use == self.size)
        if slot is not None:
            assert all(slot is not other for other, _ in self.held)
            self.reserved.append(slot)
            _fill(slot, self.published + len(self.reserved))

    @rule()
    def publish(self) -> None:
        if not self.reserved:
            with pytest.raises(RuntimeError, match="reserve"):
                self.queue.publish()
            return
        self.queue.publish()
        self.reserved.pop(0)
        self.published += 1

    @rule()
    def take(self) -> None:
        slot = self.queue.take()
        assert (slot is None) == (len(self.taken) == self.published)
        if slot is not None:
            number = len(self.taken) + 1
            assert _is_whole(slot, number)  # the next, none left out
            self.taken.append(number)
            self.held.append((slot, number))

    @rule()
    def release(self) -> None:
        if not self.held:
            with pytest.raises(RuntimeError, match="take"):
                self.queue.release()
            return
        self.queue.release()
        self.held.pop(0)

    @invariant()
    def what_is_held_stays(self) -> None:
        assert all(_is_whole(slot, number) for slot, number in self.held)

    @invariant()
    def drops_are_exact(self) -> None:
        left = self.published - len(self.taken)
        assert self.queue.dropped == (left if self.closed else 0)
        assert self.queue.finished == (self.closed and left == 0)


MailboxCalls.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
RingCalls.TestCase.settings = MailboxCalls.TestCase.settings
TestMailboxCalls = MailboxCalls.TestCase
TestRingCalls = RingCalls.TestCase

# --- two real threads -------------------------------------------------------------------------


@pytest.fixture
def _nervous() -> Iterator[None]:
    """Makes Python change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["freshest", "every"])
def queue(request: pytest.FixtureRequest) -> Iterator[FrameQueue]:
    made = make_queue(request.param, 1, lambda: _frames(1, size=24)[0])
    yield made
    made.close()
    made.dispose()


def _run(*bodies: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001  (raised below, in the test's thread)
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "asleep for ever"
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("_nervous")
@pytest.mark.parametrize("sleepy", [False, True])
def test_two_threads(queue: FrameQueue, sleepy: bool) -> None:
    count = 4_000 if sleepy else 20_000
    indices: list[int] = []

    def produce() -> None:
        chance = random.Random(1)
        for index in range(1, count + 1):
            slot = queue.reserve(30)
            assert slot is not None
            _fill(slot, index)
            queue.publish()
            if sleepy and chance.random() < 0.2:
                time.sleep(0.00005)  # the consumer falls asleep
        queue.close()

    def consume() -> None:
        while not queue.finished:
            slot = queue.take(30)
            if slot is None:
                continue
            index = slot.index
            assert _is_whole(slot, index), "torn"
            assert not indices or index > indices[-1]
            indices.append(index)
            assert _is_whole(slot, index), "written while it was held"
            queue.release()

    _run(produce, consume)
    assert indices[-1] == count
    assert queue.taken == len(indices)
    assert queue.dropped == count - len(indices)
    if isinstance(queue, Ring):
        assert indices == list(range(1, count + 1))


@pytest.mark.usefixtures("_nervous")
@pytest.mark.parametrize("_again", range(5))
def test_close_wakes_a_sleeping_consumer(queue: FrameQueue, _again: int) -> None:
    def sleep() -> None:
        assert queue.take(600) is None

    _run(sleep, queue.close)


@pytest.mark.usefixtures("_nervous")
@pytest.mark.parametrize("_again", range(5))
def test_close_wakes_a_producer_that_waits_for_space(_again: int) -> None:
    ring = Ring(_frames(1))
    assert ring.reserve() is not None
    ring.publish()

    def wait() -> None:
        assert ring.reserve(600) is None

    _run(wait, ring.close)
    assert ring.take() is not None  # what was published is not lost
    assert ring.finished
    ring.dispose()


def _one() -> Frame:
    return _frames(1)[0]


def test_a_frame_published_while_closing_is_taken() -> None:
    """`close` comes between the look into the queue and the look at `closed`."""
    ring = Ring(_frames(2))
    poll = ring._poll

    def late_poll() -> Frame | None:
        found = poll()
        if not ring.closed:
            assert ring.reserve() is not None
            ring.publish()
            ring.close()
        return found

    ring._poll = late_poll  # type: ignore[method-assign]
    assert ring.take(30) is not None
    assert ring.finished
    ring.dispose()


def test_an_empty_queue_gives_none_after_the_time_asked(queue: FrameQueue) -> None:
    before = time.monotonic()
    assert queue.take() is None
    assert queue.take(0.02) is None
    assert time.monotonic() - before >= 0.02


def test_a_full_ring_gives_none_after_the_time_asked() -> None:
    ring = Ring(_frames(1))
    assert ring.reserve() is not None
    before = time.monotonic()
    assert ring.reserve() is None
    assert ring.reserve(0.02) is None
    assert time.monotonic() - before >= 0.02
    ring.close()
    ring.dispose()
    ring.dispose()


def test_wrong_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="4 slots, found 3"):
        Mailbox(_frames(3))
    with pytest.raises(ValueError, match="at least one"):
        Ring([])


@pytest.mark.parametrize(("mode", "slots"), [("freshest", 4), ("every", 5)])
def test_slots_are_allocated_once(mode: str, slots: int) -> None:
    made: list[Frame] = []

    def new_frame() -> Frame:
        made.append(_one())
        return made[-1]

    queue = make_queue(mode, 3, new_frame)
    assert len(made) == slots
    known = {id(item) for item in made}

    def hops(count: int) -> None:
        for _ in range(count):
            slot = queue.reserve()
            queue.publish()
            assert queue.take() is slot
            assert id(slot) in known
            queue.release()

    hops(500)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    hops(5000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2_000
    queue.close()
    queue.dispose()


@pytest.mark.parametrize(
    ("producer_ns", "consumer_ns"), [(33, 10), (33, 33), (33, 40), (10, 333), (1, 100), (100, 1)]
)
def test_age_in_a_mailbox_is_bounded(producer_ns: int, consumer_ns: int) -> None:
    """However slow the consumer is, what it finishes is no older than two periods."""
    queue = Mailbox(_frames(4))
    now_ns, ages = 0, []
    due = {"publish": 0, "take": 0}
    while len(ages) < 300 and now_ns < 100_000:
        event = min(due, key=lambda name: due[name])
        now_ns = due[event]
        if event == "publish":
            slot = queue.reserve()
            assert slot is not None
            slot.captured_ns = now_ns
            queue.publish()
            due["publish"] += producer_ns
        else:
            taken = queue.take()
            if taken is not None:
                ages.append(taken.age_ns(now_ns) + consumer_ns)  # when it has been worked on
            due["take"] += consumer_ns
    assert len(ages) > 10
    assert max(ages) <= producer_ns + consumer_ns
    queue.close()
    queue.dispose()


@pytest.mark.parametrize("module", [queues, doorbell, frame, stages])
def test_no_lock_on_the_way_of_a_frame(module: ModuleType) -> None:
    locks = {"Lock", "RLock", "Condition", "Event", "Semaphore", "Barrier", "Queue", "SimpleQueue"}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(item.name for item in node.names)]
        elif isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        assert not {"queue", "multiprocessing", *locks} & set(names), names
