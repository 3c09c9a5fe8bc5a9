"""The coded pattern: read again from every side, out of every exposure, and never wrongly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engines import Pixels
from realtime.coded_pattern import (
    CUT_OFF,
    MIXED,
    NOT_FOUND,
    NUMBERS,
    PALE,
    PROBLEMS,
    draw_pattern,
    pattern_size,
    read_pattern,
    steps_between,
)
from realtime.sources.filmed import Corners, Lens, film

GAMMA = 2.2
SHARP = Lens(readout_ms=0.001, noise=0.0, blur_px=0.4)
AROUND = 1_000_000_000
VIEWS: list[Corners] = [
    ((0.17, 0.16), (0.80, 0.09), (0.86, 0.86), (0.13, 0.79)),
    ((0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)),
    ((0.30, 0.10), (0.85, 0.28), (0.82, 0.75), (0.28, 0.92)),  # from the side
    ((0.35, 0.30), (0.66, 0.28), (0.78, 0.85), (0.22, 0.88)),  # from below
    ((0.52, 0.04), (0.90, 0.62), (0.55, 0.97), (0.15, 0.40)),  # turned by 45 degrees
    ((0.85, 0.84), (0.15, 0.86), (0.16, 0.15), (0.84, 0.16)),  # on its head
    ((0.36, 0.36), (0.64, 0.37), (0.64, 0.65), (0.36, 0.64)),  # far away
]


def pattern(number: int, unit_px: int = 8, border_px: int = 20) -> Pixels:
    """The pattern on a grey wall."""
    width, height = pattern_size(unit_px)
    canvas = np.full((height + 2 * border_px, width + 2 * border_px, 3), 110, np.uint8)
    draw_pattern(canvas[border_px : border_px + height, border_px : border_px + width], number)
    return canvas


def exposed(shares: dict[int, float], unit_px: int = 8) -> Pixels:
    """An exposure that saw several numbers, each for its share of the time."""
    light = sum(
        share * (pattern(number, unit_px) / 255.0) ** GAMMA for number, share in shares.items()
    )
    return np.asarray(255 * np.asarray(light) ** (1 / GAMMA), np.uint8)


def filmed(number: int, lens: Lens, seed: int = 0) -> Pixels:
    return film([(number, 0, 2 * AROUND)], AROUND, (640, 360), lens, seed)


@pytest.mark.parametrize("unit_px", [3, 8])
def test_every_number_comes_back(unit_px: int) -> None:
    for number in range(0, NUMBERS, 1 if unit_px == 3 else 41):
        reading = read_pattern(pattern(number, unit_px))
        assert reading.numbers == (number, number)
        assert reading.problem == ""
        assert reading.markers == 4
        assert reading.unit_px == pytest.approx(unit_px, rel=0.06)
    assert read_pattern(pattern(NUMBERS + 5)).numbers == (5, 5)
    assert read_pattern(pattern(-1)).numbers == (NUMBERS - 1, NUMBERS - 1)


def test_neighbours_differ_in_one_bit_only() -> None:
    for number in range(NUMBERS):
        apart = np.abs(pattern(number, 2, 0).astype(int) - pattern(number + 1, 2, 0)).max(axis=2)
        # A bit is a pair of cells, in two copies.
        count, _ = cv2.connectedComponents((apart > 0).astype(np.uint8))
        assert count - 1 == 2
        assert apart.any(axis=0).sum() == 4, "one column of cells, 2 units wide"


@pytest.mark.parametrize("corners", VIEWS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"blur_px": 1.6, "noise": 9.0},
        {"gain": 0.35, "tint": (1.0, 0.6, 0.5)},
        {"room": 0.3, "gain": 1.0},
    ],
)
def test_it_is_read_from_every_side(corners: Corners, more: dict[str, float]) -> None:
    lens = Lens(corners=corners, **more)
    for seed, number in enumerate((0, 341, 682, 1023, 77)):
        reading = read_pattern(filmed(number, lens, seed))
        assert reading.numbers == (number, number), reading


def test_a_sharp_picture_is_read_from_very_far() -> None:
    corners = ((0.40, 0.40), (0.60, 0.41), (0.60, 0.61), (0.40, 0.60))
    for seed, number in enumerate((0, 341, 682, 1023, 77)):
        reading = read_pattern(filmed(number, Lens(corners=corners), seed))
        assert reading.numbers == (number, number)
        assert reading.unit_px < 6


@pytest.mark.parametrize("wave_px", [2.3, 3.7, 6.1, 17.0])
def test_moire_does_no_harm(wave_px: float) -> None:
    picture = filmed(600, Lens()).astype(np.float32)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    waves = 1 + 0.25 * np.sin(2 * np.pi * (x + 0.3 * y) / wave_px)
    reading = read_pattern(np.clip(picture * waves[..., None], 0, 255).astype(np.uint8))
    assert reading.numbers == (600, 600)


def test_a_light_from_the_side_does_no_harm() -> None:
    picture = filmed(600, Lens()).astype(np.float32)
    shade = np.linspace(0.3, 1.0, picture.shape[1], dtype=np.float32)[None, :, None]
    glare = np.linspace(70, 0, picture.shape[0], dtype=np.float32)[:, None, None]
    reading = read_pattern(np.clip(picture * shade + glare, 0, 255).astype(np.uint8))
    assert reading.numbers == (600, 600)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.45, 0.5, 0.55, 0.7, 0.95])
def test_an_exposure_of_two_numbers_is_one_of_them(share: float) -> None:
    for number in (*range(0, NUMBERS, 31), 511, 1023):
        after = (number + 1) % NUMBERS
        numbers = read_pattern(exposed({number: 1 - share, after: share})).numbers
        assert numbers is not None
        assert set(numbers) <= {number, after}
        if abs(share - 0.5) > 0.1:
            expected = after if share > 0.5 else number
            assert numbers == (expected, expected), "the one that was there for longer"


def test_an_exposure_of_three_numbers_is_at_most_one_step_off_its_middle() -> None:
    for number in (*range(0, NUMBERS, 31), 510, 511, 1022, 1023):
        shares = {number: 0.3, (number + 1) % NUMBERS: 0.4, (number + 2) % NUMBERS: 0.3}
        numbers = read_pattern(exposed(shares)).numbers
        assert numbers is not None
        assert all(abs(steps_between(number + 1, found)) <= 1 for found in numbers)


@pytest.mark.parametrize("exposure_ms", [1.0, 16.0, 33.0, 60.0])
@pytest.mark.parametrize("readout_ms", [0.5, 15.0, 30.0])
def test_the_middle_of_a_rolling_exposure_is_found(exposure_ms: float, readout_ms: float) -> None:
    period_ns = 16_700_000
    shown = [(k, k * period_ns, (k + 1) * period_ns) for k in range(130)]
    # The middle of the pattern in the middle of the picture, so that both have one time.
    corners = VIEWS[1]
    lens = Lens(corners=corners, exposure_ms=exposure_ms, readout_ms=readout_ms)
    errors_ms = []
    for step in range(30):
        middle_ns = AROUND + step * 3_100_000
        numbers = read_pattern(film(shown, middle_ns, (480, 270), lens, step)).numbers
        assert numbers is not None
        found_ns = (sum(numbers) / 2 + 0.5) * period_ns
        errors_ms.append((found_ns - middle_ns) / 1e6)
    assert np.abs(errors_ms).max() < 16.7 / 2 + 2.5, "half a period, and the reach of a cell"
    assert abs(np.mean(errors_ms)) < 2.5


def test_numbers_far_apart_in_one_exposure_are_refused() -> None:
    reading = read_pattern(exposed({0: 0.5, 300: 0.5}))
    assert reading.numbers is None
    assert reading.problem == MIXED


def test_copies_that_contradict_each_other_are_refused() -> None:
    picture = pattern(100)
    half = picture.shape[0] // 2
    picture[half:] = pattern(105)[half:]
    assert read_pattern(picture).problem == MIXED
    picture[half:] = pattern(102)[half:]
    assert read_pattern(picture).numbers == (100, 102)


def test_a_corner_may_be_hidden_but_not_two() -> None:
    picture = pattern(321)
    picture[20 : 20 + 7 * 8, 20 : 20 + 6 * 8] = 90
    reading = read_pattern(picture)
    assert reading.numbers == (321, 321)
    assert reading.markers == 3
    picture[20 : 20 + 7 * 8, -20 - 6 * 8 : -20] = 90
    assert read_pattern(picture).problem == NOT_FOUND


def test_a_hidden_cell_is_no_number() -> None:
    picture = pattern(321)
    picture[20 + 8 : 20 + 6 * 8, 20 + 7 * 8 : 20 + 17 * 8] = 128
    assert read_pattern(picture).numbers is None


def test_cut_off_pale_and_mirrored() -> None:
    picture = pattern(5)
    cell_px = 8
    # The upper copy is outside, the markers 32 and 33 and a third one are not.
    lens = Lens(corners=((0.03, -0.2), (0.97, 0.02), (0.97, 0.9), (0.03, 0.9)), noise=0.0)
    assert read_pattern(filmed(5, lens)).problem in (CUT_OFF, NOT_FOUND)
    pale = picture.copy()
    code = slice(20, -20), slice(20 + 7 * cell_px, 20 + 17 * cell_px)
    pale[code] = 120 + pale[code] // 20
    assert read_pattern(pale).problem == PALE
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    assert read_pattern(mirrored).numbers is None


def test_the_largest_of_two_patterns_is_read() -> None:
    picture = pattern(700, 10)
    small = pattern(3, 3, 4)
    wall = np.full((picture.shape[0], picture.shape[1] + small.shape[1], 3), 110, np.uint8)
    wall[:, small.shape[1] :] = picture
    wall[: small.shape[0], : small.shape[1]] = small
    assert read_pattern(wall).numbers == (700, 700)


def test_nothing_is_read_where_nothing_is() -> None:
    rng = np.random.default_rng(3)
    for cell in (1, 3, 8, 20):
        coarse = rng.integers(0, 256, (240 // cell, 320 // cell), np.uint8)
        noise = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_NEAREST)
        assert read_pattern(np.asarray(noise, np.uint8)).problem == NOT_FOUND
    assert read_pattern(np.zeros((2, 2, 3), np.uint8)).problem == NOT_FOUND


def test_a_large_picture_is_read_and_said_in_its_own_pixels() -> None:
    reading = read_pattern(pattern(900, 70))
    assert reading.numbers == (900, 900)
    assert reading.unit_px == pytest.approx(70, rel=0.02)


@pytest.mark.parametrize("shape", [(14, 24, 3), (112, 200, 3), (113, 192, 3)])
def test_what_is_no_size_of_a_pattern(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a pattern is 24 by 14 units, found"):
        draw_pattern(np.zeros(shape, np.uint8), 1)


def test_steps_go_round() -> None:
    assert steps_between(1023, 0) == 1
    assert steps_between(0, 1023) == -1
    assert steps_between(5, 5) == 0
    assert set(PROBLEMS) == {NOT_FOUND, CUT_OFF, PALE, MIXED}
