"""The worker thread behind slow effects: only the newest, never waiting, always ending."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from engines import SettingsError
from realtime.effects.background import Latest


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Gate:
    """Work that goes on only when it is told to; notes what it was given, and when."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, item: int) -> int:
        self.given.append(item)
        self.began.release()
        assert self.go.acquire(timeout=60)
        return item * 10


def until(worker: Latest[int, int], wanted: int) -> None:
    deadline_s = time.monotonic() + 60
    while worker.newest() != wanted:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_only_the_newest_is_worked_on_and_nobody_waits() -> None:
    gate = Gate()
    worker = Latest(gate, name="test")
    assert worker.newest() is None
    worker.offer(1)
    assert gate.began.acquire(timeout=60)
    for item in range(2, 1000):  # returns although the work has not
        worker.offer(item)
        assert worker.newest() is None
    gate.go.release()
    assert gate.began.acquire(timeout=60)
    until(worker, 10)
    gate.go.release()
    until(worker, 9990)
    assert gate.given == [1, 999], "what was replaced is not worked on"
    worker.close()


def test_a_result_stays_the_same_object_until_there_is_a_newer_one() -> None:
    worker = Latest(lambda item: [item], name="test")
    worker.offer(1)
    while worker.newest() is None:
        time.sleep(0.001)
    assert worker.newest() is worker.newest()
    worker.close()
    assert worker.newest() == [1]


def test_every_offer_is_noticed() -> None:
    worker = Latest(lambda item: item, name="test")
    for item in range(1, 2000):
        worker.offer(item)
        if item % 7 == 0:
            until(worker, item)
    until(worker, 1999)
    worker.close()


def test_the_rate_is_kept() -> None:
    given: list[int] = []
    started_s, item = time.monotonic(), 0
    worker = Latest(given.append, name="test", most_hz=20)
    while len(given) < 4:  # a slow machine takes longer, which is no matter
        assert time.monotonic() < started_s + 60
        worker.offer(item := item + 1)
        time.sleep(0.001)
    worker.close()
    assert len(given) <= 1 + 20 * (time.monotonic() - started_s) * 1.01
    assert given == sorted(set(given))


def test_the_newest_is_taken_after_the_pause() -> None:
    rests: list[float] = []
    resting, rested = threading.Semaphore(0), threading.Semaphore(0)

    class Told(Latest[int, int]):
        """Rests until it is told to go on."""

        def _rest(self, rest_s: float) -> None:
            rests.append(rest_s)
            resting.release()
            assert rested.acquire(timeout=60)

    given: list[int] = []
    worker = Told(lambda item: given.append(item) or item, name="test", most_hz=0.01)
    worker.offer(1)
    assert resting.acquire(timeout=60)
    for item in range(2, 100):
        worker.offer(item)
    assert given == [1], "nothing is worked on in the pause"
    rested.release()
    assert resting.acquire(timeout=60)
    rested.release()
    worker.close()
    assert given == [1, 99], "the one that had waited all the time was replaced"
    assert 0 < rests[0] <= 100


def test_an_error_is_raised_where_the_result_is_read_and_ends_the_work() -> None:
    calls: list[int] = []

    def work(item: int) -> int:
        calls.append(item)
        raise ZeroDivisionError("in the work")

    worker = Latest(work, name="test")
    worker.offer(1)
    with pytest.raises(ZeroDivisionError, match="in the work"):
        until(worker, 0)
    worker.offer(2)
    with pytest.raises(ZeroDivisionError):
        worker.newest()
    worker.close()
    assert calls == [1]


def test_close_ends_the_thread_at_once_in_a_long_pause_and_works_twice() -> None:
    worker = Latest(lambda item: item, name="test", most_hz=0.001)
    worker.offer(1)
    until(worker, 1)
    worker.offer(2)
    worker.close()  # the test would time out
    worker.close()
    worker.offer(3)
    assert worker.newest() == 1


def test_close_waits_for_the_item_that_is_worked_on() -> None:
    gate = Gate()
    worker = Latest(gate, name="test")
    worker.offer(1)
    assert gate.began.acquire(timeout=60)
    gate.go.release()
    worker.close()
    assert worker.newest() == 10


def test_nothing_is_kept_that_was_replaced_or_worked_on() -> None:
    class Item:
        pass

    gate = Gate()
    worker = Latest(lambda item: gate(0), name="test")
    items = [Item() for _ in range(5)]
    alive = [weakref.ref(item) for item in items]
    for item in items:
        worker.offer(item)
    del item
    items.clear()
    assert gate.began.acquire(timeout=60)
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 2, "one worked on, one that waits"
    gate.go.release(2)
    deadline_s = time.monotonic() + 60
    while any(ref() for ref in alive):  # while the worker waits for another one
        assert time.monotonic() < deadline_s
        gc.collect()
    worker.close()


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_none_starts_no_thread(rate: float) -> None:
    with pytest.raises(SettingsError, match="rate"):
        Latest(abs, name="test", most_hz=rate)
