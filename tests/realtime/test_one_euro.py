"""One Euro: steady at rest, hardly late in motion, the same for every rate and direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import SettingsError
from realtime.effects.one_euro import OneEuro

RATE_HZ = 30.0


def run(smooth: OneEuro, values: np.ndarray, rate_hz: float = RATE_HZ) -> np.ndarray:
    return np.array([smooth(value, number / rate_hz) for number, value in enumerate(values)])


def test_noise_at_rest_is_less() -> None:
    noise = np.random.default_rng(1).normal(0, 0.03, (300, 4, 2))
    found = run(OneEuro(1.0, 0.8, 8.0), 100 + noise)[30:]
    assert found.std(axis=0).mean() < 0.5 * 0.03
    steadier = run(OneEuro(0.5, 0.0), 100 + noise)[30:]
    assert steadier.std(axis=0).mean() < 0.35 * 0.03


@pytest.mark.parametrize("speed", [50.0, 300.0, 2000.0])
def test_steady_motion_is_behind_by_no_more_than_the_bound(speed: float) -> None:
    beta = 0.5
    values = np.arange(90)[:, None] / RATE_HZ * speed * np.ones((1, 2)) / math.sqrt(2)
    behind = np.linalg.norm(run(OneEuro(1.0, beta, 5.0), values)[-1] - values[-1])
    assert 0 < behind <= 1 / (2 * math.pi * beta)


def test_without_beta_it_is_exponential_smoothing() -> None:
    values = np.zeros((20, 1))
    values[1:] = 1
    share = 1 / (1 + RATE_HZ / (2 * math.pi * 2.0))
    expected = 1 - (1 - share) ** np.arange(20)
    assert run(OneEuro(2.0), values)[:, 0] == pytest.approx(expected)


@given(turn=st.floats(0, 2 * math.pi), seed=st.integers(0, 100))
def test_no_direction_is_preferred(turn: float, seed: int) -> None:
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    values = np.random.default_rng(seed).normal(0, 5, (20, 3, 2)).cumsum(axis=0)
    straight = run(OneEuro(1.0, 0.3), values) @ rotation.T
    assert np.allclose(run(OneEuro(1.0, 0.3), values @ rotation.T), straight, atol=1e-6)


def test_one_point_does_not_move_another() -> None:
    values = np.zeros((30, 2, 2))
    values[:, 1] = np.random.default_rng(2).normal(0, 50, (30, 2))
    assert not run(OneEuro(1.0, 1.0), values)[:, 0].any()


def test_the_first_value_is_taken_as_it_is_and_copied() -> None:
    smooth = OneEuro()
    value = np.array([[3.0, 4.0]])
    found = smooth(value, 10.0)
    assert np.array_equal(found, value)
    found[:] = 0
    value[:] = 0
    assert smooth(np.array([[3.0, 4.0]]), 10.1) == pytest.approx(np.array([[3.0, 4.0]]))
    smooth.reset()
    assert np.array_equal(smooth(np.array([[9.0, 9.0]]), 0.0), [[9.0, 9.0]])


def test_time_that_stands_still_or_goes_back_changes_nothing() -> None:
    smooth = OneEuro()
    smooth(np.array([1.0]), 1.0)
    before = smooth(np.array([2.0]), 1.1)
    for time_s in (1.1, 0.5):
        assert np.array_equal(smooth(np.array([50.0]), time_s), before)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, -0.1, 1), (1, 1, 0), (math.nan, 1, 1)])
def test_numbers_that_make_no_filter(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match="cutoffs above 0 Hz and a beta of 0 or more, found"):
        OneEuro(*numbers)
