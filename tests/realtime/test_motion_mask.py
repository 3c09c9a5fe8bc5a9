"""The motion mask, in a still room with a camera's noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from masking import BLANK, CONTEXT, noise, prepared, run

from engines import Pixels
from realtime.effects import Effect


def scene(number: int, square: tuple[int, int, int] | None, seed: int = 5) -> Pixels:
    """A still room with a camera's noise; something of 30x30 in the middle."""
    room = cv2.GaussianBlur(noise(seed), (9, 9), 0).astype(float)
    if square is not None:
        room[30:60, 50:80] = square
    return (room + np.random.default_rng(number).normal(0, 3, room.shape)).clip(0, 255).astype("u1")


def moving(item: Effect, number: int, square: tuple[int, int, int] | None, fps: int = 20) -> Pixels:
    run(item, scene(number, square), noise(2), number * 1000 / fps)
    assert CONTEXT.mask is not None
    return CONTEXT.mask.copy()


RED = (30, 30, 230)


def test_motion_is_what_was_not_there_before_for_as_long_as_it_holds() -> None:
    item = prepared("motion:hold_ms=300;feather=0;learn_s=60")
    for number in range(20):
        assert not moving(item, number, None).any(), "the first picture is background, noise is too"
    expected = BLANK.copy()
    expected[30:60, 50:80] = 255
    for number in range(20, 30):
        shown = moving(item, number, RED)
        assert np.mean(shown != expected) < 0.01
        assert shown[32:58, 52:78].all()
    still = [moving(item, number, None)[35:55, 55:75].all() for number in range(30, 40)]
    assert still == [True] * 6 + [False] * 4, "300 ms are six frames of 50 ms"
    inverted = prepared("motion:feather=0;invert")
    for number in range(20):
        assert (moving(inverted, number, None) == 255).all()
    assert not moving(inverted, 20, RED)[32:58, 52:78].any()


@pytest.mark.parametrize("fps", [10, 20])
def test_what_stands_still_becomes_background_in_the_stated_time(fps: int) -> None:
    item = prepared("motion:hold_ms=0;feather=0;learn_s=3")
    for number in range(2 * fps):
        moving(item, number, None, fps)
    seen = [
        moving(item, number, RED, fps)[35:55, 55:75].mean() > 127
        for number in range(2 * fps, 7 * fps)
    ]
    assert seen == sorted(seen, reverse=True), "once"
    assert 0.8 * 3 < sum(seen) / fps < 1.3 * 3


def test_motion_can_keep_its_first_background_for_ever_and_forgets_at_reset() -> None:
    item = prepared("motion:hold_ms=0;feather=0;learn_s=inf")
    for number in range(30):
        moving(item, number, None)
    for number in range(30, 200):
        assert moving(item, number, RED)[32:58, 52:78].all()
    item.reset()
    for number in range(200, 210):
        assert not moving(item, number, RED).any()


def test_a_pause_of_days_teaches_no_more_than_half_a_second() -> None:
    item = prepared("motion:feather=0;learn_s=20")
    for number in range(30):
        moving(item, number, None)
    for number in (10**9, 10**9 + 1, 10**9 + 2):
        assert moving(item, number, RED)[32:58, 52:78].all()


def test_a_shadow_is_no_motion_and_time_may_jump() -> None:
    item = prepared("motion:feather=0")
    for number in range(20):
        moving(item, number, None)
    dark = scene(20, None)
    dark[30:60, 50:80] = (dark[30:60, 50:80] * 0.7).astype(np.uint8)
    run(item, dark, noise(2), 1000)
    assert CONTEXT.mask is not None
    assert CONTEXT.mask.mean() < 0.02 * 255
    for pts_ms in (1e9, 5.0, 0.0):  # a pause of days, a recording that starts again
        run(item, scene(21, None), noise(2), pts_ms)
        assert not CONTEXT.mask.any()
