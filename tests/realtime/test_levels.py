"""Windows of grey levels: what goes into a frame of 8 bits a channel, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest
from clips import patient
from hypothesis import given
from hypothesis import strategies as st

from engines import SettingsError
from realtime.sources.levels import (
    STEPS,
    GreyPicture,
    Window,
    levels_from_pixels,
    pixels_from_levels,
)

windows = st.tuples(st.integers(-40000, 70000), st.integers(1, 70000)).map(
    lambda ends: Window(ends[0], ends[0] + ends[1])
)


def every_level(window: Window, beyond: int = 50) -> np.ndarray:
    return np.arange(int(window.low) - beyond, int(window.high) + beyond + 1)[None]


def test_the_channels_are_those_of_the_formula() -> None:
    window = Window(-160, 240)
    levels = every_level(window)
    pixels = pixels_from_levels(levels, window).astype(int)
    for level, channels in zip(levels[0], pixels[0]):
        total = min(765, max(0, round(765 * (int(level) + 160) / 400)))
        assert channels.tolist() == [total // 3, (total + 1) // 3, (total + 2) // 3]


@patient
@given(windows)
def test_a_frame_looks_grey_and_grows_with_the_level(window: Window) -> None:
    pixels = pixels_from_levels(every_level(window), window)
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels, axis=2).max() <= 1
    total = pixels.sum(axis=2, dtype=int)[0]
    assert (np.diff(total) >= 0).all()
    assert (total[:51] == 0).all()
    assert (total[-51:] == STEPS).all()


@patient
@given(windows)
def test_what_comes_back_is_within_half_a_step(window: Window) -> None:
    levels = every_level(window, 0)
    back = levels_from_pixels(pixels_from_levels(levels, window), window)
    assert np.abs(back - levels).max() <= window.step / 2 + 1e-6
    if window.high - window.low <= STEPS:
        assert np.array_equal(np.rint(back), levels)


def test_766_levels_survive_where_one_channel_would_keep_256() -> None:
    window = Window(0, 65535)
    levels = np.arange(65536).reshape(256, 256)
    back = levels_from_pixels(pixels_from_levels(levels, window), window)
    assert len(np.unique(back)) == 766
    assert np.abs(back - levels).max() < 43
    assert (back.min(), back.max()) == (0, 65535)


def test_levels_that_are_none_or_endless_make_no_noise() -> None:
    levels = np.array([[np.nan, -np.inf, np.inf, 1e308, 5.0]])
    total = pixels_from_levels(levels, Window(0, 10)).sum(axis=2, dtype=int)
    assert total.tolist() == [[0, 0, 765, 765, 382]]


def test_eight_bits_are_three_equal_channels() -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    wanted = np.repeat(levels[..., None], 3, axis=2)
    assert np.array_equal(pixels_from_levels(levels, Window(0, 255)), wanted)


def test_inverted_is_the_negative() -> None:
    window = Window(-10, 900)
    levels = every_level(window)
    plain = GreyPicture(levels, window, "as asked").pixels()
    inverted = GreyPicture(levels, window, "as asked", inverted=True).pixels()
    assert inverted.flags.c_contiguous
    assert (plain.sum(axis=2, dtype=int) + inverted.sum(axis=2, dtype=int) == STEPS).all()
    assert (np.diff(inverted.astype(int), axis=2) >= 0).all()


def test_the_share_outside_is_counted() -> None:
    picture = GreyPicture(np.arange(10).reshape(2, 5), Window(2, 8), "as asked")
    assert picture.cut_share() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("0:4095", 0, 4095), ("-160:240", -160, 240), ("0.5:1e3", 0.5, 1000), (" 1 : 2 ", 1, 2)],
)
def test_what_is_a_window(text: str, low: float, high: float) -> None:
    assert Window.parse(text) == Window(low, high)


@pytest.mark.parametrize(
    "text",
    ["", ":", "5", "5:", ":5", "5:5", "9:1", "a:b", "0:1:2", "nan:1", "0:inf", "-1e308:1.7e308"],
)
def test_what_is_no_window_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="a window is LOW:HIGH") as caught:
        Window.parse(text)
    assert "\n" not in str(caught.value)


def test_a_window_says_all_its_digits() -> None:
    assert str(Window(-1048576, 1048575)) == "-1048576:1048575"
    assert Window.parse(str(Window(0.125, 3))) == Window(0.125, 3)
