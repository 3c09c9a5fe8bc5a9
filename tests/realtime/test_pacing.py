"""When a frame is due: properties that hold for any times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.pacing import (
    NS_PER_MS,
    NS_PER_S,
    RESYNC_NS,
    ArrivalClock,
    Beat,
    Timeline,
    backoff_s,
    too_old,
)

TIMES_NS = st.integers(0, 10**15)
STEPS_NS = st.integers(0, 3 * NS_PER_S)
WALKS = st.lists(st.tuples(STEPS_NS, STEPS_NS), min_size=1, max_size=60)


def test_a_timeline_starts_at_once_and_keeps_the_distances() -> None:
    timeline = Timeline()
    assert timeline.due_ns(7_000, 1_000_000) == 1_000_000
    assert timeline.due_ns(8_000, 1_000_500) == 1_001_000
    assert timeline.due_ns(10_000, 1_001_100) == 1_003_000
    assert timeline.resyncs == 0


def test_a_timeline_that_is_late_starts_anew() -> None:
    timeline = Timeline()
    timeline.due_ns(0, 0)
    assert timeline.due_ns(100, RESYNC_NS + 100) == 100  # late, but not too late
    late = RESYNC_NS + 301
    assert timeline.due_ns(300, late) == late
    assert timeline.resyncs == 1
    assert timeline.due_ns(400, late) == late + 100


@given(TIMES_NS, TIMES_NS, WALKS)
def test_a_timeline_never_goes_back_and_is_never_far_behind(
    pts_ns: int, now_ns: int, walk: list[tuple[int, int]]
) -> None:
    timeline = Timeline()
    last_due = last_pts = None
    for pts_step, now_step in walk:
        pts_ns, now_ns = pts_ns + pts_step, now_ns + now_step
        resyncs = timeline.resyncs
        due = timeline.due_ns(pts_ns, now_ns)
        assert now_ns - due <= RESYNC_NS
        if last_due is not None and last_pts is not None:
            assert due >= last_due
            if timeline.resyncs == resyncs:
                assert due - last_due == pts_ns - last_pts
            else:
                assert due == now_ns
        last_due, last_pts = due, pts_ns


@given(TIMES_NS, TIMES_NS, WALKS)
def test_arrival_is_never_in_the_future_and_never_goes_back(
    pts_ns: int, now_ns: int, walk: list[tuple[int, int]]
) -> None:
    clock = ArrivalClock()
    last = 0
    for pts_step, now_step in walk:
        pts_ns, now_ns = pts_ns + pts_step, now_ns + now_step
        captured = clock.captured_ns(pts_ns, now_ns)
        assert last <= captured <= now_ns
        last = captured


@pytest.mark.parametrize("fps", [1.0, 24.0, 29.97, 30.0, 60.0, 240.0])
def test_a_beat_is_steady(fps: float) -> None:
    beat = Beat(fps)
    now_ns = 5 * NS_PER_S
    times = []
    for _ in range(500):
        now_ns = max(now_ns, beat.next_ns(now_ns))
        times.append(now_ns)
    assert times[0] == 5 * NS_PER_S
    assert {late - early for early, late in pairwise(times)} == {round(NS_PER_S / fps)}


@given(
    st.floats(1, 240),
    TIMES_NS,
    st.lists(st.integers(0, 2 * NS_PER_S), min_size=1, max_size=80),
)
def test_a_beat_leaves_out_what_was_missed_and_never_bursts(
    fps: float, now_ns: int, stalls_ns: list[int]
) -> None:
    """A sink takes ``stalls_ns`` for its frames; it writes at the beat, or at once when late."""
    beat, period = Beat(fps), round(NS_PER_S / fps)
    start = beat.next_ns(now_ns)
    assert start == now_ns
    last_due, shown = start, [start]
    for stall in stalls_ns:
        now_ns += stall
        due = beat.next_ns(now_ns)
        assert due >= last_due + period  # one grid, no beat twice
        assert (due - start) % period == 0
        assert due > now_ns - period  # what is longer ago is left out
        now_ns = max(now_ns, due)
        shown.append(now_ns)
        last_due = due
    for early, late in zip(shown, shown[2:]):
        assert late - early >= period  # two may come close after a stall, three never


def test_a_beat_after_a_stall() -> None:
    beat = Beat(10.0)
    tenth = NS_PER_S // 10
    assert beat.next_ns(0) == 0
    assert beat.next_ns(10) == tenth
    assert beat.next_ns(9 * tenth + 5) == 9 * tenth  # seven were missed
    assert beat.next_ns(9 * tenth + 5) == 10 * tenth


@given(TIMES_NS, TIMES_NS, st.none() | st.floats(0.001, 1e6))
def test_too_old(captured_ns: int, age_ns: int, max_age_ms: float | None) -> None:
    found = too_old(captured_ns, captured_ns + age_ns, max_age_ms)
    assert found == (max_age_ms is not None and age_ns > max_age_ms * NS_PER_MS)
    assert not too_old(captured_ns, captured_ns, max_age_ms)
    if found:
        assert too_old(captured_ns, captured_ns + age_ns + 1, max_age_ms)


@given(st.integers(0, 10**6), st.floats(0.01, 10), st.floats(0.01, 100))
def test_backoff_doubles_up_to_a_limit(attempt: int, first_s: float, limit_s: float) -> None:
    wait_s = backoff_s(attempt, first_s=first_s, limit_s=limit_s)
    after_s = backoff_s(attempt + 1, first_s=first_s, limit_s=limit_s)
    assert 0 < wait_s <= limit_s
    assert wait_s <= after_s <= 2 * wait_s
    assert backoff_s(0, first_s=first_s, limit_s=limit_s) == min(first_s, limit_s)
    assert backoff_s(10**6) == 5.0
