"""The stabiliser: calmer where the world stands or moves along, untouched where it is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import patient
from hypothesis import given
from hypothesis import strategies as st

from engines import Pixels, SettingsError, open_engine
from realtime.effects import Context, open_effect
from realtime.effects.flow import Motion
from realtime.effects.stabiliser import STRENGTH, Stabiliser
from realtime.frame import Frame
from tools.evaluation.flicker import flicker

WEBCAM = Path(__file__).resolve().parents[2].parent / "shared" / "assets" / "video" / "webcam"
SIZE = (128, 96)
WEBCAM_SIZE = (256, 192)
Translate = Callable[[Pixels], Pixels]


def prepared(strength: float = STRENGTH, size: tuple[int, int] = SIZE) -> Stabiliser:
    effect = Stabiliser(strength)
    effect.prepare(size, Context(size=size))
    return effect


def run(effect: Stabiliser, captured: Pixels, translated: Pixels, index: int = 0) -> Pixels:
    """Return a copy of what the effect makes of one frame; what was captured must not change."""
    before = captured.copy()
    frame = Frame(translated.copy(), captured, index)
    made = effect.process(frame, Context(size=effect._size)).copy()
    assert np.array_equal(captured, before)
    assert made.shape == translated.shape
    assert made.dtype == np.uint8
    return made


def scene(size: tuple[int, int] = SIZE, seed: int = 1) -> Pixels:
    """Return something with large and small structure."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = np.zeros((height, width, 3), np.float32)
    for sigma, contrast in ((2.0, 60.0), (6.0, 240.0)):
        noise = rng.normal(0, sigma * contrast / 16, picture.shape).astype(np.float32)
        picture += np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma)) * 16 / 3
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def noisy(picture: Pixels, sigma: float, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def film(count: int, step_px: int) -> Iterator[Pixels]:
    """Pan over a scene: ``step_px`` a frame."""
    wide = scene((SIZE[0] + count * step_px, SIZE[1]))
    for number in range(count):
        yield noisy(wide[:, number * step_px :][:, : SIZE[0]], 1.0, number)


def flickering(sigma: float = 12.0) -> Translate:
    """Return a filter that inverts the picture and shimmers."""
    seeds = iter(range(100, 10_000))
    return lambda picture: noisy(np.bitwise_not(picture), sigma, next(seeds))


def stabilised(translate: Translate, effect: Stabiliser) -> Translate:
    return lambda picture: run(effect, picture, translate(picture))


@pytest.mark.parametrize("step_px", [0, 1, 3])
def test_the_warping_error_is_much_lower(step_px: int) -> None:
    plain = flicker(flickering(), film(12, step_px))
    calm = flicker(stabilised(flickering(), prepared()), film(12, step_px))
    assert calm.warping_error < 0.5 * plain.warping_error


def test_more_strength_is_calmer() -> None:
    errors = [
        flicker(stabilised(flickering(), prepared(strength)), film(7, 1)).warping_error
        for strength in (0.0, 0.3, 0.6, 1.0)
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)


def test_a_still_scene_neither_drifts_nor_blurs() -> None:
    effect = prepared()
    captured, translated = scene(), np.bitwise_not(scene(seed=2))
    steps = []
    before = None
    for number in range(60):
        made = run(effect, noisy(captured, 2, number), noisy(translated, 3, 1000 + number))
        if before is not None:
            steps.append(np.abs(made.astype(int) - before).mean())
        before = made
    assert before is not None
    assert np.abs(before.astype(int) - translated).mean() < 2, "against what never flickered"
    assert np.mean(steps[5:]) < 1.4, "plain it is 3.4"
    sharpness = [cv2.Laplacian(picture, cv2.CV_32F).std() for picture in (before, translated)]
    assert sharpness[0] > 0.9 * sharpness[1]


def test_the_same_frame_again_and_again_is_the_same_picture() -> None:
    effect = prepared(1.0)
    captured, translated = scene(), scene(seed=2)
    for _ in range(20):
        assert np.abs(run(effect, captured, translated).astype(int) - translated).max() <= 1


@pytest.mark.parametrize(("strength", "behind"), [(0.3, 1), (STRENGTH, 2), (1.0, 5)])
@pytest.mark.parametrize("level", [63, 70, 200])
def test_a_change_of_the_translation_arrives(strength: float, behind: int, level: int) -> None:
    """As when the light changes: no value may stay behind for good."""
    effect = prepared(strength)
    captured = scene()
    run(effect, captured, np.full_like(captured, 60))
    for _ in range(40):
        made = run(effect, captured, np.full_like(captured, level))
    assert np.abs(made.astype(int) - level).max() <= behind


def test_what_only_the_filter_saw_leaves_no_ghost() -> None:
    """A faint thing that the filter draws in black: the captured pictures hardly differ."""
    effect = prepared()
    for number in range(4):
        captured = np.full((*SIZE[::-1], 3), 128, np.uint8)
        translated = np.full_like(captured, 255)
        place = slice(30, 60), slice(10 + 30 * number, 20 + 30 * number)
        captured[place], translated[place] = 132, 0
        made = run(effect, captured, translated)
        elsewhere = cv2.erode((translated == 255).astype(np.uint8), np.ones((9, 9))) == 1
        assert made[elsewhere].min() > 245


def test_after_a_cut_there_is_nothing_of_the_scene_before() -> None:
    effect = prepared(1.0)
    for number in range(4):
        run(effect, noisy(scene(), 2, number), np.full((*SIZE[::-1], 3), 250, np.uint8))
    new = np.bitwise_not(scene(seed=9))
    translated = np.bitwise_not(scene(seed=3))
    assert np.array_equal(run(effect, new, translated), translated)


def test_a_fast_ball_leaves_no_ghost() -> None:
    """20 pixels a frame over a structured wall: more than low-resolution flow follows."""
    effect = prepared()
    wall = scene(seed=4) // 2
    for number in range(5):
        centre = 12 + 20 * number, 48
        captured = wall.copy()
        cv2.circle(captured, centre, 10, (255, 255, 255), -1)
        translated = (255 - wall // 4).astype(np.uint8)
        cv2.circle(translated, centre, 10, (0, 0, 0), -1)
        made = run(effect, noisy(captured, 1, number), translated)
        apart = np.abs(made.astype(int) - translated).max(axis=2)
        assert apart.mean() < 3
        assert (apart > 60).mean() < 0.01, f"frame {number}"


def test_what_a_later_effect_draws_does_not_come_back() -> None:
    effect = prepared()
    captured, translated = scene(), np.full((*SIZE[::-1], 3), 100, np.uint8)
    effect.process(Frame(translated.copy(), captured), Context())[:] = 255
    assert np.array_equal(run(effect, captured, translated), translated)


def test_another_filter_begins_anew() -> None:
    effect = prepared(1.0)
    captured = scene()
    grey = np.full_like(captured, 90)
    for label, value in (("comic", 90), ("comic", 90), ("starry", 94), ("starry", 94)):
        frame = Frame(np.full_like(grey, value), captured)
        assert (effect.process(frame, Context(label=label)) == value).all()
    frame = Frame(np.full_like(grey, 120), captured)
    assert effect.process(frame, Context(label="starry")).max() < 120, "the same one does not"


def test_reset_forgets() -> None:
    effect = prepared(1.0)
    captured = scene()
    run(effect, captured, np.full_like(captured, 90))
    effect.reset()
    assert (run(effect, captured, np.full_like(captured, 94)) == 94).all()
    assert (run(effect, captured, np.full_like(captured, 94)) == 94).all()


def test_dropped_frames_are_no_trouble() -> None:
    plain, calm = flickering(), prepared()
    kept = [picture for number, picture in enumerate(film(16, 1)) if number % 4 != 1]
    made = flicker(stabilised(plain, calm), kept)
    assert made.warping_error < 0.5 * flicker(flickering(), kept).warping_error


def test_strength_zero_does_nothing() -> None:
    effect = prepared(0)
    for number in range(3):
        translated = noisy(scene(seed=2), 20, number)
        assert np.array_equal(run(effect, scene(), translated), translated)


@patient
@given(width=st.integers(1, 200), height=st.integers(1, 200))
def test_any_size_will_do(width: int, height: int) -> None:
    effect = prepared(1.0, (width, height))
    rng = np.random.default_rng(width)
    captured = rng.integers(0, 256, (height, width, 3), np.uint8)
    translated = rng.integers(0, 256, (height, width, 3), np.uint8)
    for _ in range(3):
        made = run(effect, captured, translated)
    assert np.abs(made.astype(int) - translated).max() <= 1


def test_the_size_may_change() -> None:
    effect = prepared()
    for size in ((128, 96), (64, 48), (640, 360), (128, 96)):
        effect.prepare(size, Context(size=size))
        picture = scene(size)
        for _ in range(2):
            assert run(effect, picture, picture).shape == (size[1], size[0], 3)
    effect.close()
    effect.close()


@pytest.mark.parametrize(("across", "down"), [(3, 0), (-2, 4)])
def test_the_flow_says_where_it_was(across: int, down: int) -> None:
    big = scene((360, 300))
    motion = Motion((320, 240))  # half of it at low resolution
    picture = big[20:260, 20:340]
    assert motion.update(picture) is None
    moved = motion.update(big[20 + down : 260 + down, 20 + across : 340 + across])
    assert moved is not None
    inner = moved.flow[10:-10, 10:-10]
    assert np.abs(np.median(inner, axis=(0, 1)) - (across, down)).max() < 0.3
    assert moved.sure[10:-10, 10:-10].mean() > 0.9


@pytest.mark.parametrize("name", ["starry", "comic", "pencil"])
def test_shipped_filters_on_a_webcam_clip(name: str) -> None:
    path = WEBCAM / "bird.mkv"
    if not path.is_file():
        pytest.skip("no webcam clips here")
    frames = list(clip(path, WEBCAM_SIZE, 8))
    engine = open_engine(name, backend="openvino")
    engine.open(WEBCAM_SIZE, depth=1)
    try:
        made = [engine.infer(frame) for frame in frames]
    finally:
        engine.close()
    again, calm = iter(made), iter(made)
    effect = prepared(size=WEBCAM_SIZE)
    plain = flicker(lambda _: next(again), frames)
    steady = flicker(lambda frame: run(effect, frame, next(calm)), frames)
    assert steady.warping_error < 0.6 * plain.warping_error


def clip(path: Path, size: tuple[int, int], count: int) -> Iterable[Pixels]:
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == count:
                return
            picture = cv2.resize(frame.to_ndarray(format="bgr24"), size)
            yield picture.astype(np.uint8, copy=False)


def test_words() -> None:
    for spec, strength in (("stabilise", STRENGTH), ("stabilise:0.4", 0.4), ("stabilise:1", 1.0)):
        effect = open_effect(spec)
        assert isinstance(effect, Stabiliser)
        assert effect.strength == strength


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("stabilise:strong", "the strength must be a number, found 'strong'"),
        ("stabilise:1.5", "the strength must be 0 to 1, found 1.5"),
        ("stabilise:-0.1", "must be 0 to 1"),
        ("stabilise:nan", "must be 0 to 1, found nan"),
        ("stabilise:0.5;0.6", "does not know '0.6'"),
        ("stabilise:strength=0.5", "does not know 'strength'"),
    ],
)
def test_words_that_mean_nothing(spec: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        open_effect(spec)
