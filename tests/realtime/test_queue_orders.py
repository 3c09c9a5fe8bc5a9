"""Mailbox and Ring in every order in which two threads can touch their control words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from interleavings import Bell, Slot, Steps, as_steps, explore

from realtime.queues import FrameQueue, Mailbox, Ring

COMMON = ["reserve", "publish", "_poll", "_wake", "take", "_sleep", "close"]
MAILBOX = as_steps(
    Mailbox,
    COMMON,
    ["_reading", "_latest", "_newest_in_pair", "_numbers", "published", "_asleep", "closed"],
)
RING = as_steps(
    Ring,
    [*COMMON, "release", "_full", "_wait_for_space"],
    ["published", "released", "_asleep", "_waits_for_space", "closed"],
)
LONG_S = 1.0  # the clock of these tests stands still: a sleeper is woken, or sleeps for ever


def _in_steps(new: Callable[[list[Any]], FrameQueue], count: int) -> Any:
    queue: Any = new([Slot(place) for place in range(count)])
    queue.dispose()
    queue._bell = Bell()
    if isinstance(queue, Ring):
        queue._space = Bell()
    return queue


def _produce(steps: Any, queue: Any, count: int, *, close: bool = True) -> Steps:
    for number in range(1, count + 1):
        slot = yield from steps.reserve(queue, LONG_S)
        if slot is None:
            assert queue.closed
            return
        yield from slot.fill(number)
        yield from steps.publish(queue)
    if close:
        yield from steps.close(queue)


@pytest.mark.parametrize("timeout_s", [0.0, LONG_S])
def test_mailbox_in_every_order(timeout_s: float) -> None:
    count = 3

    def consume(queue: Any) -> Steps:
        held, last, polls = None, 0, 0
        while polls < count or timeout_s:
            polls += 1
            newest = queue.published
            slot = yield from MAILBOX.take(queue, timeout_s)
            if slot is None:
                assert newest <= last, "a frame that was published before the take was not taken"
                assert held is None or held.number == last, "written while it was held"
                if timeout_s:
                    assert last == count, "the last frame was lost"
                    assert queue.finished
                    assert queue.taken + queue.dropped == count
                    return
                continue
            assert slot.number > last, "order went back, a duplicate, or a torn frame"
            assert slot.number >= newest, "older than what was there when the take began"
            held, last = slot, slot.number
            yield
            assert held.number == last, "written while it was read"

    def start() -> tuple[list[Steps], Any]:
        queue = _in_steps(Mailbox, 4)
        return [_produce(MAILBOX, queue, count), consume(queue)], queue

    assert explore(start) > 1000


def _consume_ring(queue: Any, stop_after: int | None = None) -> Steps:
    last = 0
    while last != stop_after:
        slot = yield from RING.take(queue, LONG_S)
        if slot is None:
            break
        last += 1
        assert slot.number == last, "lost, out of order, or torn"
        yield
        assert slot.number == last, "written while it was read"
        yield from RING.release(queue)
    if stop_after is None:
        assert queue.finished
        assert last == queue.published == queue.taken
        assert queue.dropped == 0
    else:
        yield from RING.close(queue)


@pytest.mark.parametrize(("slots", "count"), [(1, 4), (2, 5)])
def test_ring_in_every_order(slots: int, count: int) -> None:
    def start() -> tuple[list[Steps], Any]:
        queue = _in_steps(Ring, slots)
        return [_produce(RING, queue, count), _consume_ring(queue)], queue

    assert explore(start) > 500


def test_ring_whose_consumer_leaves_frees_the_producer() -> None:
    def start() -> tuple[list[Steps], Any]:
        queue = _in_steps(Ring, 1)
        return [_produce(RING, queue, 4), _consume_ring(queue, stop_after=1)], queue

    assert explore(start) > 200


@pytest.mark.parametrize(("steps", "new", "slots"), [(MAILBOX, Mailbox, 4), (RING, Ring, 1)])
def test_close_from_a_third_thread_wakes_both(steps: Any, new: Any, slots: int) -> None:
    def consume(queue: Any) -> Steps:
        while (yield from steps.take(queue, LONG_S)) is not None:
            if steps is RING:
                yield from RING.release(queue)
        assert queue.closed

    def start() -> tuple[list[Steps], Any]:
        queue = _in_steps(new, slots)
        produce = _produce(steps, queue, 2, close=False)
        return [produce, consume(queue), steps.close(queue)], queue

    assert explore(start) > 100


@pytest.mark.parametrize(("new", "slots"), [(Mailbox, 4), (Ring, 1)])
def test_a_sleeper_needs_no_close_to_wake(new: Any, slots: int) -> None:
    def start() -> tuple[list[Steps], Any]:
        steps, queue = (MAILBOX if new is Mailbox else RING), _in_steps(new, slots)
        return [_produce(steps, queue, 3, close=False), _take_until(steps, queue, 3)], queue

    assert explore(start) > 500


def _take_until(steps: Any, queue: Any, last: int) -> Steps:
    number = 0
    while number < last:
        slot = yield from steps.take(queue, LONG_S)
        number = slot.number
        yield
        assert slot.number == number, "written while it was read"
        if steps is RING:
            yield from steps.release(queue)


@pytest.mark.parametrize(
    ("cls", "word"),
    [(Mailbox, "_reading"), (Mailbox, "_asleep"), (Ring, "_asleep"), (Ring, "_waits_for_space")],
)
def test_the_search_finds_what_is_broken(cls: Any, word: str) -> None:
    """A consumer that does not say what it reads, or a side that does not say that it sleeps."""

    class Broken(cls):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value if name != word else 0)

    def start() -> tuple[list[Steps], Any]:
        steps, queue = (MAILBOX if cls is Mailbox else RING), _in_steps(Broken, cls is Ring or 4)
        return [_produce(steps, queue, 4, close=False), _take_until(steps, queue, 4)], queue

    with pytest.raises(AssertionError, match=r"written while it was read|asleep for ever"):
        explore(start)
