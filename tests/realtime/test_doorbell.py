"""Doorbell: no ring is lost, no handle leaks; by eventfd and by sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from realtime import doorbell
from realtime.doorbell import Doorbell

ENOUGH_S = 60.0


@pytest.fixture(params=["eventfd", "sockets", "sockets and select"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "eventfd" and not doorbell.HAS_EVENTFD:
        pytest.skip("this system has no eventfd")
    monkeypatch.setattr(doorbell, "HAS_EVENTFD", request.param == "eventfd")
    if request.param.endswith("select"):  # as on Windows
        monkeypatch.delattr(doorbell.select, "poll", raising=False)


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    made = Doorbell()
    yield made
    made.close()


def test_a_ring_before_the_sleep_is_not_lost(bell: Doorbell) -> None:
    bell.ring()
    assert bell.wait(ENOUGH_S)
    assert not bell.wait(0)


def test_many_rings_wake_once(bell: Doorbell) -> None:
    for _ in range(20_000):
        bell.ring()  # more than a socket holds
    assert bell.wait(0)
    assert not bell.wait(0)


def test_without_a_ring_it_sleeps_as_long_as_asked(bell: Doorbell) -> None:
    before = time.monotonic()
    assert not bell.wait(0.02)
    assert time.monotonic() - before >= 0.02
    assert not bell.wait(-1)


def test_it_wakes_a_thread_that_sleeps(bell: Doorbell) -> None:
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(bell.wait(ENOUGH_S)), daemon=True)
    thread.start()
    time.sleep(0.02)
    bell.ring()
    thread.join(ENOUGH_S)
    assert woken == [True]


def test_two_bells_in_turn_lose_no_ring() -> None:
    there, back = Doorbell(), Doorbell()
    answered = 0

    def answer() -> None:
        while there.wait(ENOUGH_S) and answered < 2000:
            back.ring()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    for _ in range(2000):
        there.ring()
        assert back.wait(ENOUGH_S)
        answered += 1
    there.ring()
    thread.join(ENOUGH_S)
    assert not thread.is_alive()
    there.close()
    back.close()


def test_close_frees_the_handles() -> None:
    process = psutil.Process()
    Doorbell().close()
    before = process.num_fds()
    bells = [Doorbell() for _ in range(20)]
    assert process.num_fds() > before
    for item in bells:
        item.close()
    assert process.num_fds() == before


def test_a_closed_bell_is_silent(bell: Doorbell) -> None:
    bell.close()
    bell.close()
    bell.ring()
    assert not bell.wait(ENOUGH_S)
