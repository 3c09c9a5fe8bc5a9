"""Flicker: against the numbers that known motion and known noise must give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_filters import Picture, moved_frames, texture

from engines import SettingsError
from realtime import Frame, open_source
from tools.evaluation.flicker import flicker, ratio, visible, warp

ROOT = Path(__file__).parent.parent.parent
WEBCAM = ROOT.parent / "shared" / "assets" / "video" / "webcam"
ROUNDED = 1 / 12
"""Variance that rounding to whole levels adds."""


def noisy(sigma: float, level: int | None = None) -> Callable[[Picture], Picture]:
    """A filter with its own noise in every frame; of one ``level``, or on the input."""
    random = np.random.default_rng(3)

    def translate(frame: Picture) -> Picture:
        base = frame if level is None else np.full(frame.shape, level)
        values = np.round(base + random.normal(0, sigma, frame.shape))
        assert values.min() >= 0
        assert values.max() <= 255
        return values.astype(np.uint8)

    return translate


@pytest.mark.parametrize("step_px", [0, 1, 5])
def test_a_filter_that_follows_the_motion_does_not_flicker(step_px: int) -> None:
    found = flicker(lambda frame: 255 - frame, moved_frames(4, step_px))
    assert (found.frames, found.pairs, found.cuts) == (4, 3, 0)
    assert found.warping_error < 2e-6
    assert found.input_warping_error < 2e-6
    assert found.visible_share > 0.9
    unmoved = moved_frames(2, step_px)
    still = np.square((unmoved[0] / 255.0) - unmoved[1] / 255.0).mean()
    assert step_px == 0 or still > 1e-3  # without the flow it would be this


@pytest.mark.parametrize("step_px", [0, 3])
def test_noise_of_the_filter_is_found_as_it_is(step_px: int) -> None:
    sigma = 6.0
    found = flicker(noisy(sigma, level=128), moved_frames(5, step_px))
    assert found.warping_error == pytest.approx(2 * (sigma**2 + ROUNDED) / 255**2, rel=0.02)
    assert found.input_warping_error < 2e-6


def test_still_areas_where_nothing_moves() -> None:
    sigma = 6.0
    frames = [texture(64, 96)] * 4
    found = flicker(noisy(sigma, level=128), frames)
    # The mean absolute difference of two normal variables.
    right = 2 * np.sqrt((sigma**2 + ROUNDED) / np.pi)
    assert found.still_difference == pytest.approx(right, rel=0.02)
    assert found.input_still_difference == 0
    assert found.still_share > 0.97
    assert found.ratio is None
    assert found.still_ratio is None


def test_moving_areas_are_not_still() -> None:
    found = flicker(lambda frame: frame, moved_frames(3, 2))
    assert found.still_difference is None
    assert found.still_share == 0


def test_a_filter_is_compared_with_the_camera() -> None:
    camera = noisy(4.0)
    frames = [camera(np.clip(texture(64, 96), 30, 225)) for _ in range(4)]
    found = flicker(lambda frame: (frame.astype(float) / 2).astype(np.uint8), frames)
    assert found.ratio == pytest.approx(0.25, rel=0.05)
    assert found.still_ratio is not None
    assert found.still_ratio == pytest.approx(0.5, rel=0.1)
    assert flicker(lambda frame: frame, frames).ratio == 1


def test_what_a_moving_square_uncovers_is_left_out() -> None:
    """A square of 20 pixels moves 6 to the right over a still background."""
    top, left, side, step = 20, 24, 20, 6
    height, width = 64, 96
    before = np.s_[top : top + side, left : left + side]
    after = np.s_[top : top + side, left + step : left + step + side]
    forward = np.zeros((height, width, 2), np.float32)
    backward = np.zeros((height, width, 2), np.float32)
    forward[before] = (step, 0)
    backward[after] = (-step, 0)

    seen = visible(forward, backward)

    uncovered = np.s_[top : top + side, left : left + step]
    assert not seen[uncovered].any()
    border = np.zeros((height, width), bool)
    border[top - 1 : top + side + 1, left + step - 1 : left + step + side + 1] = True
    border[top + 1 : top + side - 1, left + step + 1 : left + step + side - 1] = False
    right = np.ones((height, width), bool)
    right[uncovered] = False
    assert seen[~border].tolist() == right[~border].tolist()
    assert not seen[top, left + step - 1 : left + step + side].all()  # the motion boundary


def test_the_flow_finds_what_a_square_uncovers() -> None:
    background, square = texture(96, 128), texture(40, 40, seed=1)
    frames = []
    for left in (30, 38):
        frame = background.copy()
        frame[28:68, left : left + 40] = square
        frames.append(frame)
    uncovered = np.zeros((96, 128), bool)
    uncovered[28:68, 30:38] = True

    def bright_where_uncovered(frame: Picture) -> Picture:
        picture = np.full(frame.shape, 128, np.uint8)
        if frame is frames[1]:
            picture[uncovered] = 255
        return picture

    found = flicker(bright_where_uncovered, frames)
    everything = uncovered.mean() * ((255 - 128) / 255) ** 2
    assert found.warping_error < 0.1 * everything
    assert 0.7 < found.visible_share < 0.97


def test_what_comes_from_outside_is_left_out() -> None:
    flow = np.full((32, 40, 2), (-5, 3), np.float32)
    seen = visible(-flow, flow)
    assert not seen[:, :5].any()
    assert not seen[-3:].any()
    assert seen[:-3, 5:].all()


def test_warp_moves_a_picture_by_parts_of_a_pixel() -> None:
    ramp = np.tile(np.arange(40, dtype=np.float32)[None, :, None], (8, 1, 3))
    flow = np.full((8, 40, 2), (-2.25, 0), np.float32)
    assert warp(ramp, flow)[:, 3:] == pytest.approx(ramp[:, 3:] - 2.25, abs=0.05)


def test_a_cut_is_left_out_and_counted() -> None:
    first, second = texture(96, 128), np.full((96, 128, 3), 5, np.uint8)
    cv2.circle(second, (60, 50), 30, (255, 255, 255), -1)
    # Flow from a texture to nothing leads nowhere and back somewhere else.
    found = flicker(lambda frame: frame, [first, first, texture(96, 128, seed=9), second, second])
    assert found.pairs + found.cuts == 4
    assert found.cuts >= 1
    assert found.input_warping_error < 0.05


def test_frames_and_results_may_be_one_array_each() -> None:
    apart = moved_frames(4, 2)
    right = flicker(lambda frame: 255 - frame, apart)

    def one_array() -> Iterator[Picture]:
        frame = np.empty_like(apart[0])
        for picture in apart:
            frame[:] = picture
            yield frame

    result = np.empty_like(apart[0])

    def translate(frame: Picture) -> Picture:
        np.subtract(255, frame, out=result)
        frame[:] = 0  # an unkind filter
        return result

    assert flicker(translate, one_array()) == right


def test_what_has_no_flicker_is_refused() -> None:
    frame = texture(32, 48)
    with pytest.raises(SettingsError, match="two frames or more, found 1"):
        flicker(lambda frame: frame, [frame])
    with pytest.raises(SettingsError, match="found 0"):
        flicker(lambda frame: frame, [])
    with pytest.raises(SettingsError, match="one size"):
        flicker(lambda frame: frame, [frame, texture(48, 48)])
    with pytest.raises(SettingsError, match="16x16 or more, found 48x8"):
        flicker(lambda frame: frame, [texture(8, 48)] * 2)
    with pytest.raises(SettingsError, match="frames are uint8"):
        flicker(lambda frame: frame, [frame / 255.0] * 2)
    with pytest.raises(SettingsError, match=r"must return uint8 \(32, 48, 3\)"):
        flicker(lambda frame: frame[1:], [frame] * 2)


def test_ratio() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) is ratio(None, 2.0) is ratio(3.0, None) is None


def test_it_needs_no_torch() -> None:
    code = "import sys, tools.evaluation.flicker as f; assert f.flicker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "onnx", "openvino", "onnxruntime"} & set(done.stdout.split())


@pytest.mark.skipif(not WEBCAM.is_dir(), reason="the webcam clips of shared/assets are not here")
def test_a_real_camera() -> None:
    def frames() -> Iterator[Picture]:
        source = open_source(min(WEBCAM.glob("*.mkv")))
        width, height = source.open(None, realtime=False).size
        frame = Frame(np.empty((height, width, 3), np.uint8))
        while source.read(frame):
            yield cv2.resize(frame.pixels, (160, 120), interpolation=cv2.INTER_AREA).astype(
                np.uint8
            )
        source.close()

    clip = list(islice(frames(), 6))
    same = flicker(lambda frame: frame, clip)
    assert same.ratio == 1
    assert same.visible_share > 0.8
    assert 0 < same.input_warping_error < 1e-3
    unsteady = flicker(noisy_within(8.0), clip)
    assert unsteady.warping_error - same.warping_error == pytest.approx(
        2 * 8.0**2 / 255**2, rel=0.35
    )


def noisy_within(sigma: float) -> Callable[[Picture], Picture]:
    """Noise on a picture that is kept away from black and white."""
    made = noisy(sigma)
    return lambda frame: made(np.clip(frame, 60, 195))
