"""Ages: percentiles of any number of frames, in constant memory."""

from __future__ import annotations

import json
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.stats import RECENT, Ages, SinkStats, Stats

AGES_NS = st.lists(st.integers(1_000, 10**12), min_size=1, max_size=300)


def _of(ages_ns: list[int]) -> Ages:
    ages = Ages()
    for number, age_ns in enumerate(ages_ns):
        ages.add(age_ns, number)
    return ages


@given(AGES_NS, st.sampled_from([0, 1, 25, 50, 75, 90, 95, 99, 100]))
def test_a_percentile_is_that_of_numpy(ages_ns: list[int], percent: int) -> None:
    exact_ms = float(np.percentile(ages_ns, percent, method="inverted_cdf")) / 1e6
    found_ms = _of(ages_ns).percentile_ms(percent)
    assert found_ms == pytest.approx(exact_ms, rel=0.012)
    assert found_ms <= max(ages_ns) / 1e6


@pytest.mark.parametrize("percent", [50, 95, 99, 99.9])
def test_percentiles_of_a_long_run(percent: float) -> None:
    ages_ns = np.random.default_rng(0).lognormal(17, 0.8, 50_000).astype(int).tolist()
    exact_ms = float(np.percentile(ages_ns, percent)) / 1e6
    assert _of(ages_ns).percentile_ms(percent) == pytest.approx(exact_ms, rel=0.012)


@given(AGES_NS, st.lists(st.sampled_from([0, 0.5, 1, 50, 95, 99, 99.9, 100]), max_size=5))
def test_several_percentiles_are_those_of_one_by_one(
    ages_ns: list[int], percents: list[float]
) -> None:
    ages = _of(ages_ns)
    wanted = [_slowly(ages, percent) for percent in percents]
    assert ages.percentiles_ms(*percents) == pytest.approx(wanted, rel=1e-9)
    assert Ages().percentiles_ms(*percents) == [None] * len(percents)


def _slowly(ages: Ages, percent: float) -> float:
    """Count through the bins."""
    wanted, seen = percent * ages.count / 100, 0
    for place, count in enumerate(ages._counts):
        seen += count
        if count and seen >= wanted:
            return min(2 ** ((place + 0.5) / 64) / 1000, ages.max_ns / 1e6)
    raise AssertionError


@given(AGES_NS)
def test_percentiles_rise_and_the_summary_is_json(ages_ns: list[int]) -> None:
    summary = _of(ages_ns).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["frames"] == len(ages_ns)
    assert summary["max_ms"] == round(max(ages_ns) / 1e6, 3)
    p50, p95, p99 = (summary[f"p{percent}_ms"] for percent in (50, 95, 99))
    assert p50 is not None
    assert p95 is not None
    assert p99 is not None
    assert p50 <= p95 <= p99 <= max(ages_ns) / 1e6 + 0.001


def test_without_frames_there_are_no_numbers() -> None:
    ages = Ages()
    assert ages.percentile_ms(50) is None
    assert ages.recent() is None
    assert ages.summary() == dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms")) | {"frames": 0}


@pytest.mark.parametrize("age_ns", [-5_000_000, 0, 1, 999, 2**63])
def test_ages_out_of_range_are_counted(age_ns: int) -> None:
    ages = _of([age_ns])
    assert ages.count == 1
    found = ages.percentile_ms(50)
    assert found is not None
    assert 0 <= found <= max(age_ns, 0) / 1e6


def test_recent_looks_back_on_the_last_frames() -> None:
    ages = Ages()
    ages.add(1_000_000, 0)
    assert ages.recent() is None  # one frame has no rate
    ages.add(1_000_000, 0)
    assert ages.recent() is None  # nor have two in no time
    for number in range(RECENT):  # the two are forgotten
        ages.add(20_000_000 + number % 3, 10**9 + number * 10_000_000)
    assert ages.recent() == (pytest.approx(100.0), pytest.approx(20.0, abs=0.001))


def test_memory_is_constant() -> None:
    ages = Ages()
    draw = np.random.default_rng(1)
    first, more = (draw.integers(1, 10**10, count).tolist() for count in (1_000, 50_000))
    tracemalloc.start()
    for age_ns in first:
        ages.add(age_ns, age_ns)
    before, _ = tracemalloc.get_traced_memory()
    for age_ns in more:
        ages.add(age_ns, age_ns)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1_000


def test_one_writes_while_another_reads() -> None:
    ages = Ages()
    done = threading.Event()
    errors: list[Exception] = []

    def read() -> None:
        try:
            while not done.is_set():
                ages.summary()
                ages.recent()
        except Exception as error:  # noqa: BLE001  (the test's thread shows it)
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(20_000):
        ages.add(number * 1_000, number)
    done.set()
    thread.join()
    assert not errors
    assert ages.summary()["frames"] == 20_000


def test_a_run_as_json_names_every_place_of_a_drop() -> None:
    stats = Stats(started_ns=10**9, ended_ns=3 * 10**9, source_dropped=1, engine_overwritten=2)
    stats.engine_too_old = 3
    stats.last_out_ns = 3 * 10**9
    stats.sinks.append(SinkStats("null", overwritten=4, too_old=5, repeated=6))
    for number in range(50):
        stats.engine_out.add(20_000_000, number)
    found = json.loads(json.dumps(stats.to_dict()))
    assert found["seconds"] == 2.0
    assert found["frames"] == 50
    assert found["fps"] == 25.0
    assert found["age"]["engine_out"]["p50_ms"] == pytest.approx(20, rel=0.012)
    assert found["sinks"][0]["repeated"] == 6
    assert found["dropped"] == {
        "source": 1,
        "engine queue": 2,
        "engine too old": 3,
        "null queue": 4,
        "null too old": 5,
    }
    assert Stats().fps() == 0.0


def test_the_longest_gap_is_between_new_frames() -> None:
    sink = SinkStats("window")
    for now_ms, again in ((10, False), (40, False), (60, True), (110, False), (120, False)):
        sink.shown(5_000_000, now_ms * 1_000_000, again=again)
    assert sink.longest_gap_ms == 70
    assert sink.ages.count == 5
