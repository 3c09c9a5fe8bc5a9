"""The mask on people: the guided filter, steadiness, motion, threads, and the shipped network."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import ASSETS
from masking import write_mask_model
from numpy.typing import NDArray

from engines import EffectError, EngineError, Pixels, SettingsError
from engines.backends.identity import IdentityEngine
from engines.masks import PERSON
from realtime import Frame, Pipeline
from realtime.effects import Context, open_effect
from realtime.effects.guided_filter import GuidedFilter
from realtime.effects.person import (
    DECIDED,
    LONGEST_SIDE_PX,
    PersonMask,
    _Motion,
    levels,
    small_size,
    steadied,
)
from realtime.sources.pictures import list_pictures, read_picture

SIZE = (128, 96)
ROOT = Path(__file__).parents[2]
WEBCAM = ASSETS / "webcam"
TEACHER = ASSETS.parent / "segmentation" / "selfie_segmentation.onnx"
HELD_OUT = ("again", "hungry")
"""Of two people whom the network never saw."""
needs_mask = pytest.mark.skipif(not PERSON.is_file(), reason="the mask was not trained yet")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_mask_model(tmp_path / "blue.onnx")


def scene(x: int, size: tuple[int, int] = SIZE) -> Pixels:
    """Return a dark room with a blue figure at ``x``."""
    width, height = size
    picture = np.full((height, width, 3), (0, 30, 40), np.uint8)
    random = np.random.default_rng(2)  # something for the optical flow to hold on to
    picture[..., 1] += cv2.resize(random.integers(0, 60, (12, 16), np.uint8), size)
    picture[height // 3 :, max(0, x - 12) : x + 12] = (255, 40, 60)
    return picture


def prepared(model: Path, live: bool, **options: object) -> tuple[PersonMask, Context]:
    effect = PersonMask(model, **options)  # type: ignore[arg-type]
    context = Context(size=SIZE, live=live)
    effect.prepare(SIZE, context)
    return effect, context


def shown(effect: PersonMask, context: Context, source: Pixels) -> tuple[Pixels, Pixels]:
    """Return what comes out for a white translation, and the mask."""
    made = effect.process(Frame(np.full_like(source, 255), source), context)
    assert context.mask is not None
    return made.copy(), context.mask.copy()


@pytest.mark.parametrize("live", [True, False])
def test_the_translation_shows_on_the_person(model: Path, live: bool) -> None:
    effect, context = prepared(model, live)
    source = scene(64)
    kept = source.copy()
    picture, mask = shown(effect, context, source)
    assert np.array_equal(source, kept), "the captured picture is read-only"
    assert (picture[60:90, 58:70] == 255).all()
    assert np.array_equal(picture[:, :30], source[:, :30])
    assert mask[70, 64] == 255
    assert mask[70, 10] == 0
    effect.close()

    effect, context = prepared(model, live, invert=True)
    picture, _ = shown(effect, context, source)
    assert np.array_equal(picture[60:90, 58:70], source[60:90, 58:70])
    assert (picture[:, :30] == 255).all()
    effect.close()


def test_a_recording_has_a_mask_of_its_own_for_each_frame(model: Path) -> None:
    effect, context = prepared(model, live=False)
    for x in (30, 100, 64):
        _, mask = shown(effect, context, scene(x))
        assert mask[70, x] == 255
        assert abs(np.flatnonzero(mask[70] > 127).mean() - x) < 2, "it follows at once"
    assert not [t for t in threading.enumerate() if "person" in t.name]
    effect.close()


def test_live_a_newer_mask_comes_later_in_a_thread_that_ends(model: Path) -> None:
    effect, context = prepared(model, live=True, most_hz=1000.0)
    assert [t for t in threading.enumerate() if "person" in t.name]
    _, mask = shown(effect, context, scene(30))
    assert mask[70, 30] == 255, "the first frame has its mask at once"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        _, mask = shown(effect, context, scene(100))
        if mask[70, 100] == 255 and mask[70, 30] == 0:
            break
        time.sleep(0.005)
    assert mask[70, 100] == 255
    assert mask[70, 30] == 0
    effect.close()
    effect.close()
    assert not [t for t in threading.enumerate() if "person" in t.name]


def test_a_reset_forgets_what_masks_were_smoothed_with(model: Path) -> None:
    half = np.full((96, 128, 3), (110, 40, 60), np.uint8)
    more = np.full((96, 128, 3), (130, 40, 60), np.uint8)
    masks = []
    for forgets in (False, True):
        effect, context = prepared(model, live=False, smooth=0.9, feather_px=0)
        shown(effect, context, half)
        if forgets:
            effect.reset()
        masks.append(int(shown(effect, context, more)[1][48, 64]))
        effect.close()
    fresh, context = prepared(model, live=False, smooth=0.9, feather_px=0)
    assert masks[1] == shown(fresh, context, more)[1][48, 64]
    assert masks[0] < masks[1] - 5
    fresh.close()


def test_a_reset_is_no_flash(model: Path) -> None:
    effect, context = prepared(model, live=True, most_hz=0.001)
    shown(effect, context, scene(64))
    effect.reset()
    _, mask = shown(effect, context, scene(64))
    assert mask[70, 64] == 255
    effect.close()


def test_another_size_is_prepared_again(model: Path) -> None:
    effect, context = prepared(model, live=True)
    shown(effect, context, scene(30))
    effect.prepare((160, 96), context)
    _, mask = shown(effect, context, scene(80, (160, 96)))
    assert mask.shape == (96, 160)
    assert mask[70, 80] == 255
    effect.close()
    assert not [t for t in threading.enumerate() if "person" in t.name]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_another_backend(model: Path, backend: str) -> None:
    try:
        effect, context = prepared(model, live=False, backend=backend)
    except EngineError as error:
        pytest.skip(str(error))
    _, mask = shown(effect, context, scene(64))
    assert mask[70, 64] == 255
    effect.close()


def test_openvino_is_held_to_one_thread(model: Path) -> None:
    effect, _ = prepared(model, live=False)
    compiled = effect._engine._requests[0].get_compiled_model()  # type: ignore[union-attr]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert effect.notes[0].startswith("person: masks of 192x144 by openvino in ")
    effect.close()


def test_words() -> None:
    found = open_effect("person:feather=4;hz=15;smooth=0;backend=onnxruntime;invert")
    assert isinstance(found, PersonMask)
    assert (found.feather_px, found.most_hz, found.smooth) == (4, 15, 0)
    assert found.backend == "onnxruntime"
    assert found.invert
    plain = open_effect("person")
    assert isinstance(plain, PersonMask)
    assert plain.model == PERSON
    assert not plain.invert
    for words, said in (
        ("hz=0", "hz must be more than 0"),
        ("smooth=1", "smooth must be 0 to 0.95"),
        ("feather=900", "feather must be 0 to 200"),
        ("inverted", "does not know 'inverted'"),
        ("hz=often", "must be a number"),
    ):
        with pytest.raises(SettingsError, match=said):
            open_effect(f"person:{words}")


def test_a_model_without_alpha_is_refused(tmp_path: Path) -> None:
    path = write_mask_model(tmp_path / "plain.onnx", alpha=False)
    effect = PersonMask(path)
    with pytest.raises(EffectError, match=r"plain\.onnx does not say where people are"):
        effect.prepare(SIZE, Context(size=SIZE))
    effect.close()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((640, 360), (256, 144)),
        ((640, 480), (192, 144)),
        ((1920, 1080), (256, 144)),
        ((360, 640), (144, 256)),
        ((64, 48), (192, 144)),
        ((4000, 100), (LONGEST_SIDE_PX, 16)),
    ],
)
def test_the_size_in_which_people_are_looked_for(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert small_size(size) == wanted


def test_the_guided_filter_gives_a_mask_the_pictures_edge() -> None:
    large = np.full((96, 128, 3), 40, np.uint8)
    large[:, 61:] = 200  # an edge between two pixels of the small picture
    small = cv2.resize(large, (64, 48), interpolation=cv2.INTER_AREA)
    ramp = np.clip((np.arange(64) - 25) / 10, 0, 1).astype(np.float32)
    mask = np.tile(ramp, (48, 1))
    plain = cv2.resize(mask, (128, 96), interpolation=cv2.INTER_LINEAR)
    refined = GuidedFilter(4, 1e-3).refine(mask, small, large)
    assert refined.dtype == np.float32
    assert refined.shape == (96, 128)
    assert plain[50, 61] - plain[50, 60] < 0.1
    assert refined[50, 61] - refined[50, 60] > 0.35
    assert np.array_equal(refined[50] > 0.5, large[50, :, 0] > 100), "the mask ends where it does"


def test_the_guided_filter_leaves_flat_masks_alone_and_smooths_flat_pictures() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    small = cv2.resize(noise, (64, 48), interpolation=cv2.INTER_AREA)
    for value in (0.0, 0.5, 1.0):
        mask = np.full((48, 64), value, np.float32)
        assert np.abs(GuidedFilter().refine(mask, small, noise) - value).max() < 1e-4
    flat = np.full((96, 128, 3), 128, np.uint8)
    mask = np.zeros((48, 64), np.float32)
    mask[20:28, 20:28] = 1
    found = GuidedFilter(2).refine(mask, np.full((48, 64, 3), 128, np.uint8), flat)
    assert found.min() >= -1e-4
    assert found.max() <= 1 + 1e-4


@pytest.mark.parametrize(("radius_px", "epsilon"), [(0, 1e-3), (2, 0.0), (2, -1.0)])
def test_no_guided_filter(radius_px: int, epsilon: float) -> None:
    with pytest.raises(SettingsError, match="radius must be 1 or more"):
        GuidedFilter(radius_px, epsilon)


def test_small_changes_are_held_back_and_large_ones_leave_no_trail() -> None:
    before = np.full((4, 4), 0.5, np.float32)
    for change in (0.02, -0.02):
        made = steadied(before, before + np.float32(change), 0.6)
        assert 0 < abs(float(made[0, 0]) - 0.5) < 0.5 * abs(change)
    gone = steadied(np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32), 0.95)
    assert not gone.any(), "whoever left is gone at once"
    shift = np.float32(DECIDED)
    assert np.allclose(steadied(before, before - shift, 0.9), before - shift)
    flickering = [np.full((4, 4), 0.5 + 0.04 * (-1) ** n, np.float32) for n in range(20)]
    kept, calm = flickering[0], []
    for mask in flickering[1:]:
        kept = steadied(kept, mask, 0.6)
        calm.append(float(kept[0, 0]))
    assert np.abs(np.diff(calm[5:])).mean() < 0.5 * 0.08


def test_levels_are_nobody_and_somebody_at_the_ends() -> None:
    mask = np.array([[-0.2, 0.05, 0.5, 0.95, 1.3]], np.float32)
    assert levels(mask).tolist() == [[0, 0, 128, 255, 255]]


def test_an_old_mask_is_carried_to_where_the_person_is_now() -> None:
    motion = _Motion(SIZE)
    random = np.random.default_rng(5)
    cloth = cv2.resize(random.integers(0, 256, (9, 9, 3), np.uint8), (40, 50))

    def at(x: int) -> tuple[Pixels, NDArray[np.float32]]:
        picture, mask = np.full((96, 128, 3), 90, np.uint8), np.zeros((96, 128), np.float32)
        picture[30:80, x : x + 40], mask[30:80, x : x + 40] = cloth, 1
        return picture, mask

    (then, old), (now, wanted) = at(40), at(46)
    carried = motion.carried(old, then, now)
    assert np.abs(carried - wanted).mean() < 0.5 * np.abs(old - wanted).mean()
    assert np.abs(motion.carried(old, then, then) - old).mean() < 0.01


def test_in_a_pipeline(model: Path, tmp_path: Path) -> None:
    effect = PersonMask(model)
    Pipeline(
        "test-pattern:128x96@30",
        IdentityEngine(None),
        [f"{tmp_path}/out/"],
        mode="every",
        frames=4,
        effects=[effect],
    ).run()
    assert len(list((tmp_path / "out").iterdir())) == 4


@needs_mask
@pytest.mark.skipif(not WEBCAM.is_dir(), reason="shared/assets/video/webcam is missing")
@pytest.mark.skipif(not TEACHER.is_file(), reason="shared/assets/segmentation is missing")
@pytest.mark.parametrize("name", HELD_OUT)
def test_the_shipped_mask_on_people_it_never_saw(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the teacher needs onnxruntime")
    from tools.train.teachers.segmenter import Segmenter

    teacher, frames = Segmenter(TEACHER), clip(WEBCAM / f"{name}.mkv", 4)
    effect = PersonMask(feather_px=0)
    size = frames[0].shape[1], frames[0].shape[0]
    context = Context(size=size, live=False)
    effect.prepare(size, context)
    shares = []
    for frame in frames:
        found, wanted = effect.find(Frame(frame, frame), context) > 127, teacher(frame) > 127
        shares.append((found & wanted).sum() / (found | wanted).sum())
    effect.close()
    assert np.mean(shares) >= 0.9


@needs_mask
@pytest.mark.skipif(not WEBCAM.is_dir(), reason="shared/assets/video/webcam is missing")
def test_the_example_leaves_the_room_grey(tmp_path: Path) -> None:
    program = ROOT / "examples" / "person_only.py"
    assert len(program.read_text().splitlines()) < 40
    Pipeline(
        WEBCAM / "again.mkv", IdentityEngine(None), [f"{tmp_path}/clip/"], mode="every", frames=6
    ).run()
    done = subprocess.run(
        [sys.executable, str(program), "clip", "comic", "out/"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    pairs = zip(list_pictures(tmp_path / "clip"), list_pictures(tmp_path / "out"), strict=True)
    for before, after in ((read_picture(one), read_picture(other)) for one, other in pairs):
        spread = after.max(axis=2).astype(int) - after.min(axis=2)
        assert spread[:, 500:].max() == 0, "the blue panel on the wall is grey"
        assert spread[:, 500:].shape == (480, 140)
        assert (before[:, 500:].max(axis=2).astype(int) - before[:, 500:].min(axis=2)).max() > 60
        changed = np.abs(after.astype(int) - before).max(axis=2)
        assert (changed[200:420, 260:360] > 8).mean() > 0.2, "the person is drawn by the filter"


def clip(path: Path, count: int) -> list[Pixels]:
    found: list[Pixels] = []
    Pipeline(
        path,
        IdentityEngine(None),
        [lambda frame: found.append(frame.pixels.copy())],
        mode="every",
        frames=40,
    ).run()
    return found[:: max(1, len(found) // count)]
