"""The deadline keeper: the controller in simulated time, and a run that is told to be slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import EngineError, Pixels, SettingsError, Size
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.keeper import CALM_S, Controller, Keeper

SIZES = ((640, 360), (528, 296), (428, 240), (320, 180), (236, 132))
FPS = 30.0
LARGEST_S = 0.020
"""What a frame takes at the largest size on the simulated machine without a load."""
Load = Callable[[float], float]
"""Time in s -> how many times as long everything takes."""


@dataclass
class Simulated:
    """A live run in simulated time: a frame every period, an engine that takes the newest."""

    load: Load
    noise: float = 0.0
    fixed_s: float = 0.002
    exponent: float = 1.0
    """Of the pixels; above 1 a larger size costs more than its pixels promise."""
    seed: int = 0
    steps: list[tuple[float, int, int]] = field(default_factory=list)
    """(time, from, to)"""
    ends: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> Simulated:
        controller = Controller(SIZES, FPS)
        rng = np.random.default_rng(self.seed)
        now = 0.0
        while now < seconds:
            due = (int(now * FPS) + 1) / FPS  # the next frame, unless one waits already
            started = now if self.ends and now - self.ends[-1] < 1e-9 and self.late else due
            pixels = SIZES[controller.level][0] * SIZES[controller.level][1] / (640 * 360)
            factor = self.load(started) * float(np.exp(self.noise * rng.standard_normal()))
            engine_s = LARGEST_S * pixels**self.exponent * factor
            spent_s = engine_s + self.fixed_s * factor
            now = started + spent_s
            self.late = spent_s > 1 / FPS
            self.ends.append(now)
            before = controller.level
            level = controller.add(now, spent_s, engine_s)
            assert (level is None) == (controller.level == before)
            if level is not None:
                assert level == controller.level
                self.steps.append((now, before, level))
        self.level = controller.level
        return self

    late: bool = False
    level: int = 0

    def fps(self, start: float, end: float) -> float:
        return sum(start <= item < end for item in self.ends) / (end - start)

    def ups(self) -> list[float]:
        return [time_s for time_s, before, after in self.steps if after < before]


def between(start: float, end: float, factor: float) -> Load:
    return lambda now: factor if start <= now < end else 1.0


loads = st.floats(0.3, 8)


@given(
    parts=st.lists(st.tuples(st.floats(0.1, 4), loads), min_size=1, max_size=12),
    noise=st.floats(0, 0.6),
    seed=st.integers(0, 1000),
)
def test_never_more_than_two_steps_a_second(
    parts: list[tuple[float, float]], noise: float, seed: int
) -> None:
    ends = np.cumsum([length for length, _ in parts])

    def load(now: float) -> float:
        return parts[min(int(np.searchsorted(ends, now)), len(parts) - 1)][1]

    found = Simulated(load, noise, seed=seed).run(20)
    times = [time_s for time_s, _, _ in found.steps]
    assert all(later - sooner >= 0.5 for sooner, later in pairwise(times))
    assert all(after == before - 1 for _, before, after in found.steps if after < before)


@settings(max_examples=40)
@given(
    factor=loads,
    noise=st.floats(0, 0.15),
    fixed_s=st.floats(0, 0.01),
    exponent=st.floats(0.6, 4),
    seed=st.integers(0, 1000),
)
def test_no_oscillation_under_a_constant_load(
    factor: float, noise: float, fixed_s: float, exponent: float, seed: int
) -> None:
    """Even where a size costs more than its pixels promise, tries become rarer and rarer."""
    found = Simulated(lambda _: factor, noise, fixed_s, exponent, seed).run(300)
    late = [item for item in found.ups() if item > 30]
    # Two waits double, that of calm and that of a lighter load; without them it would be sixty.
    assert len(late) <= 2 * (np.log2(300 / 30) + 2)


def test_each_try_that_fails_doubles_the_wait() -> None:
    """The largest size promises to fit, and never does."""
    found = Simulated(lambda _: 1.26, fixed_s=0.006, exponent=2.5).run(300)
    waits = np.diff(found.ups())
    assert 5 <= len(waits) <= 8
    assert (waits[1:] > 1.5 * waits[:-1]).all()


def test_a_load_that_comes_and_goes_forever_is_not_followed_forever() -> None:
    found = Simulated(lambda now: 0.5 if now % 8 < 4 else 2.5).run(800)
    assert len([item for item in found.ups() if item > 400]) <= 4
    assert found.fps(400, 800) >= 27


@given(
    factor=st.floats(1.7, 5),
    appears=st.floats(2, 8),
    noise=st.floats(0, 0.1),
    seed=st.integers(0, 1000),
)
def test_a_load_comes_and_goes(factor: float, appears: float, noise: float, seed: int) -> None:
    goes = appears + 15
    found = Simulated(between(appears, goes, factor), noise, seed=seed).run(goes + 30)
    assert all(appears <= time_s for time_s, _, _ in found.steps), "without a load no step"
    assert found.fps(appears + 3, goes) >= 27
    assert any(appears <= time_s <= appears + 1 for time_s, _, _ in found.steps)
    assert found.level == 0, "the size returns"
    assert found.fps(goes + 2, goes + 30) >= 27


def test_a_heavy_load_is_answered_by_large_steps() -> None:
    """Not one size after the other: four would take two seconds."""
    found = Simulated(between(5, 60, 4.0)).run(10)
    assert found.level == 3
    assert len(found.steps) <= 2
    assert found.steps[0][0] <= 5.4
    assert found.steps[-1][0] <= 6.0


def test_one_slow_frame_is_nothing() -> None:
    found = Simulated(between(5.0, 5.03, 30.0)).run(10)
    assert max(np.diff(found.ends)) > 0.5
    assert found.steps == []


def test_a_lighter_load_is_noticed_in_spite_of_the_tries_that_failed() -> None:
    """Larger sizes cost more than promised: tries fail, until the load goes."""

    def costly(now: float) -> float:
        return 1.26 if now < 120 else 0.5

    found = Simulated(costly, fixed_s=0.006, exponent=2.5).run(140)
    failed = [time_s for time_s in found.ups() if time_s < 120]
    assert failed
    assert found.level == 0
    assert min(time_s for time_s in found.ups() if time_s > 120) < 120 + 3 * CALM_S


def test_it_says_when_no_size_is_small_enough() -> None:
    controller = Controller(SIZES, FPS)
    for number in range(100):
        controller.add(number * 0.2, 0.2, 0.001)
    assert controller.level == len(SIZES) - 1
    assert controller.too_slow


def test_one_size_is_never_left() -> None:
    controller = Controller(SIZES[:1], FPS)
    assert all(controller.add(number * 0.2, 0.2, 0.2) is None for number in range(50))


class Weighed(IdentityEngine):
    """Takes its time by the pixels, as a network does."""

    s_a_pixel = 0.0

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        time.sleep(type(self).s_a_pixel * frame_in.shape[0] * frame_in.shape[1])
        super()._submit(frame_in, frame_out)


def test_a_run_steps_down_and_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping engines: 60 ms a frame at the largest size, then none."""
    monkeypatch.setattr(Weighed, "s_a_pixel", 0.060 / (128 * 96))
    shown: set[Size] = set()
    labels: set[str] = set()
    pipeline = Pipeline(
        "test-pattern:128x96@50",
        Weighed(None),
        [lambda frame: shown.add(frame.pixels.shape[1::-1])],
        keep_fps=20,
        keep_sizes=[(128, 96), (64, 48)],
    )
    stats = pipeline.stats
    with pipeline:
        pipeline.start()
        outlets = pipeline._stages.outlets
        _until(lambda: stats.working_size == (64, 48))
        _until(lambda: any(outlet.label == "identity 64x48" for outlet in outlets))
        monkeypatch.setattr(Weighed, "s_a_pixel", 0.0)
        _until(lambda: stats.working_size == (128, 96))
        labels |= {outlet.label for outlet in outlets}
        notes = pipeline.all_notes()
    assert shown == {(128, 96)}, "frames keep their size"
    assert labels <= {"identity 64x48", "identity 128x96"}
    first, *_ = stats.size_steps
    assert (first.before, first.after) == ((128, 96), (64, 48))
    assert first.frame_ms > 50
    assert any("working at 64x48, not 128x96" in note for note in notes)
    found = stats.to_dict()
    assert found["size_steps"][0]["after"] == [64, 48]
    assert found["size_steps_taken"] == len(stats.size_steps) >= 2


def test_a_switch_keeps_the_working_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weighed, "s_a_pixel", 0.060 / (128 * 96))
    pipeline = Pipeline(
        "test-pattern:128x96@50",
        Weighed(None),
        ["null"],
        keep_fps=20,
        keep_sizes=[(128, 96), (64, 48)],
    )
    with pipeline:
        pipeline.start()
        _until(lambda: pipeline.stats.working_size == (64, 48))
        pipeline.switch("comic", wait=True)
        sizes = getattr(pipeline.engine, "sizes", ())
        assert sizes == ((128, 96), (64, 48))
        steps = [item for item in pipeline.stats.size_steps if item.after == (128, 96)]
        assert steps or pipeline.stats.working_size == (64, 48)
    assert pipeline.stats.switches == 1


def test_a_slower_source_is_kept_at_its_own_rate() -> None:
    pipeline = Pipeline("test-pattern:64x48@25", IdentityEngine(None), ["null"], keep_fps=30)
    with pipeline:
        pipeline.start()
        assert any("25 fps" in note for note in pipeline.all_notes())


def test_what_cannot_be_kept_is_refused() -> None:
    pattern = "test-pattern:64x48@50"
    with pytest.raises(SettingsError, match="frame rate"):
        Keeper(0)
    every = Pipeline(pattern, IdentityEngine(None), ["null"], mode="every", keep_fps=30)
    with pytest.raises(SettingsError, match=r"live runs only.*into null.*--mode freshest"):
        every.run()
    large = Pipeline(pattern, IdentityEngine(None), ["null"], keep_fps=30, keep_sizes=[(640, 360)])
    with pytest.raises(EngineError, match="no working size"):
        large.run()
    opened = IdentityEngine(None)
    opened.open((64, 48))
    with pytest.raises(EngineError, match="not open yet"):
        Pipeline(pattern, opened, ["null"], keep_fps=30).run()


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
