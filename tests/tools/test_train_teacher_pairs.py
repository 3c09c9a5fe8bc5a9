"""Pairs that a teacher makes, and the damage that a cheap camera does."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")

from engines.errors import SettingsError, SourceError
from realtime import Frame, SinkInfo
from realtime.sinks.video import VideoSink
from tools.train.library import Shelf
from tools.train.pair_folders import read_taught
from tools.train.pairs import (
    NOISE_SIDE_PX,
    SHORT_SIDES_PX,
    Degrader,
    Pair,
    Picture,
    frames_of,
    in_other_light,
    load_teacher,
    picture_files,
)
from tools.train.teachers import comic

TEACHER = '''
"""Half as bright, with red and blue exchanged; counts how often it was asked."""
calls = 0
number = 1


def night(image):
    global calls
    calls += 1
    return image[..., ::-1] // 2


def cropped(image):
    return image[1:]


def grey(image):
    return image[..., 0].astype("float32")
'''


def shapes(seed: int, height: int = 96, width: int = 128) -> Picture:
    """Discs of many colours on a gradient."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] * np.ones((height, 1, 3))
    picture = ramp.astype(np.uint8)
    for _ in range(12):
        centre = (int(random.integers(width)), int(random.integers(height)))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.circle(picture, centre, int(random.integers(4, 24)), colour, -1, cv2.LINE_AA)
    return picture


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lessons.py").write_text(TEACHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lessons", raising=False)
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        cv2.imwrite(str(folder / f"photo{seed}.png"), shapes(seed))
    return folder


def made(photos: Path, tmp_path: Path, teacher: str = "night", **changes: Any) -> Shelf[Pair]:
    """Pairs of a teacher of the lessons."""
    usual: dict[str, Any] = {
        "variants": 1,
        "smallest_px": 32,
        "seed": 1,
        "report": lambda what, done: None,
    }
    return read_taught(
        photos, load_teacher(f"lessons:{teacher}"), tmp_path / "cache", **{**usual, **changes}
    )


# ---- the teacher and its cache -----------------------------------------------------------------


def test_the_teacher_is_asked_once_a_picture(photos: Path, tmp_path: Path) -> None:
    first = made(photos, tmp_path, variants=2)
    assert sys.modules["lessons"].calls == 6
    second = made(photos, tmp_path, variants=2)
    assert sys.modules["lessons"].calls == 6
    assert len(first) == len(second) == 6
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.photo, other.photo)
        assert np.array_equal(one.target, other.target)
        assert np.array_equal(one.target, one.photo[..., ::-1] // 2)
        assert other.photo.flags.c_contiguous
        assert other.target.flags.c_contiguous
    assert not list((tmp_path / "cache").glob(".*"))


def test_above_the_budget_pairs_are_read_from_the_cache(photos: Path, tmp_path: Path) -> None:
    whole = made(photos, tmp_path, variants=2)
    found = made(photos, tmp_path, variants=2, memory_bytes=2 * whole[0].nbytes)
    assert whole[0].nbytes == 2 * whole[0].photo.nbytes
    for path in photos.iterdir():
        path.unlink()
    for number in (0, 5, 3, 0, 1, 4, 2):
        assert np.array_equal(found[number].photo, whole[number].photo)
        assert np.array_equal(found[number].target, whole[number].target)
    assert sys.modules["lessons"].calls == 6
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match=r"photo0\.png was fine before, and now: No such file"):
        found[0]


def test_a_damaged_entry_of_the_cache_is_made_again(photos: Path, tmp_path: Path) -> None:
    whole = made(photos, tmp_path)
    (entry,) = (tmp_path / "cache").glob("photo1-*")
    entry.write_bytes(entry.read_bytes()[:1000])
    found = made(photos, tmp_path)
    assert sys.modules["lessons"].calls == 4
    assert np.array_equal(found[1].target, whole[1].target)


def test_photographs_that_cannot_be_read_are_named(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    said: list[tuple[str, float]] = []
    found = made(photos, tmp_path, variants=2, report=lambda *what: said.append(what))
    assert len(found) == 6
    assert said[0][0] == "teacher"
    assert said[-1] == ("teacher", 1.0)
    assert found.note.startswith("2 of 8 pairs skipped: broken.png (is no picture")
    assert "broken.png, variant 2 (" in found.note
    for path in photos.glob("photo*"):
        path.unlink()
    with pytest.raises(SourceError, match=r"2 of 2 pairs of .* cannot be read: broken\.png \("):
        made(photos, tmp_path, variants=2)


@pytest.mark.parametrize("changes", [{"seed": 2}, {"smallest_px": 600}])
def test_other_settings_are_not_read_from_the_cache(
    photos: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    made(photos, tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    found = made(photos, tmp_path, **changes)
    assert sys.modules["lessons"].calls == 6
    sides = [min(pair.photo.shape[:2]) for pair in found]
    smallest = max(changes.get("smallest_px", 0), SHORT_SIDES_PX[0])
    assert min(sides) >= smallest


def test_another_version_of_the_teacher_is_asked_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(photos, tmp_path)
    (tmp_path / "lessons.py").write_text(TEACHER.replace("// 2", "// 3"))
    monkeypatch.delitem(sys.modules, "lessons")
    for pair in made(photos, tmp_path):
        assert np.array_equal(pair.target, pair.photo[..., ::-1] // 3)


def test_the_first_of_each_photograph_is_in_its_own_light(photos: Path, tmp_path: Path) -> None:
    found = [pair.photo for pair in made(photos, tmp_path, variants=3)]
    means = np.array([picture.mean((0, 1)) for picture in found]).reshape(3, 3, 3)
    originals = np.array([shapes(seed).mean((0, 1)) for seed in range(3)])
    assert np.abs(means[0] - originals).max() < 3
    assert np.abs(means[1:] - originals).max(axis=(1, 2)).min() > 8
    assert len({picture.shape for picture in found}) > 1


@pytest.mark.parametrize("teacher", ["cropped", "grey"])
def test_a_teacher_that_returns_something_else_is_refused(
    photos: Path, tmp_path: Path, teacher: str
) -> None:
    with pytest.raises(SettingsError, match="must return uint8"):
        made(photos, tmp_path, teacher)
    assert not list((tmp_path / "cache").glob("*.png"))


@pytest.mark.parametrize("reference", ["nothing", "no.such:function", "lessons:no_function", ":"])
@pytest.mark.usefixtures("photos")
def test_an_unknown_teacher_is_named(reference: str) -> None:
    with pytest.raises(SettingsError, match="expected module:function") as caught:
        load_teacher(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("photos")
def test_a_teacher_is_a_function() -> None:
    with pytest.raises(SettingsError, match="is no function"):
        load_teacher("lessons:number")


def test_comic_draws_black_lines_and_is_calm_under_noise() -> None:
    picture = np.full((96, 128, 3), 90, np.uint8)
    picture[:, 64:] = (60, 140, 220)
    drawn = comic(picture)
    assert drawn[20:76, 58:70].min(axis=(1, 2)).max() < 60
    noise = np.random.default_rng(1).normal(0, 2, picture.shape)
    noisy = comic(np.clip(picture + noise, 0, 255).astype(np.uint8))
    assert np.abs(noisy.astype(int) - drawn).mean() < 4


# ---- light and damage --------------------------------------------------------------------------


def test_other_light_keeps_what_is_brighter_brighter() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    darkest, brightest = [], []
    for seed in range(40):
        lit = in_other_light(ramp, np.random.default_rng(seed))
        assert lit.dtype == np.uint8
        assert lit.shape == ramp.shape
        assert (np.diff(lit.astype(int), axis=1) >= 0).all()
        darkest.append(lit[0, 0].mean())
        brightest.append(lit[0, -1].mean())
    assert min(darkest) < 10  # without haze
    assert max(darkest) > 60
    assert max(brightest) > 240
    assert min(brightest) < 200


def test_damage_keeps_the_picture_recognisable() -> None:
    degrade, photo = Degrader(1), shapes(2)
    random = np.random.default_rng(1)
    damaged = [degrade(photo, random) for _ in range(12)]
    differences = [np.abs(picture.astype(int) - photo).mean() for picture in damaged]
    assert all(picture.shape == photo.shape for picture in damaged)
    assert all(picture.dtype == np.uint8 for picture in damaged)
    assert 0.5 < np.mean(differences) < 12
    assert len({round(float(value), 6) for value in differences}) == 12
    assert np.array_equal(photo, shapes(2))
    assert abs(np.mean(damaged) - photo.mean()) < 3  # the light is left alone


def test_damage_follows_from_the_seed_and_the_random_numbers() -> None:
    photo = shapes(3)
    found = [Degrader(seed)(photo, np.random.default_rng(5)) for seed in (1, 1, 2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], Degrader(1)(photo, np.random.default_rng(6)))


def test_damage_reaches_the_largest_crops() -> None:
    photo = np.full((NOISE_SIDE_PX // 2, NOISE_SIDE_PX // 2, 3), 128, np.uint8)
    assert Degrader(1)(photo, np.random.default_rng(0)).shape == photo.shape


# ---- files -------------------------------------------------------------------------------------


def test_hidden_files_are_not_trained_on(photos: Path) -> None:
    shown = picture_files(photos)
    (photos / "._photo0.png").write_bytes(b"what macOS leaves on a USB stick")
    (photos / ".cache").mkdir()
    cv2.imwrite(str(photos / ".cache" / "thumbnail.png"), shapes(1))
    assert picture_files(photos) == shown
    assert len(frames_of(photos, 9)) == len(shown) == 3


def test_frames_of_a_video_are_spread_and_only_those_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    sink = VideoSink(path)
    sink.open(SinkInfo((64, 48), 30.0))
    for number in range(10):
        grey = np.full((48, 64, 3), 20 * number + 30, np.uint8)
        sink.write(Frame(grey, index=number, pts_ns=number * 33_000_000))
    sink.close()
    retrieved = []

    class Capture:
        def __init__(self, name: str) -> None:
            self.real = real(name)
            self.grab, self.release = self.real.grab, self.real.release

        def retrieve(self) -> tuple[bool, np.ndarray]:
            retrieved.append(1)
            return self.real.retrieve()

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    frames = frames_of(path, 3)
    assert [round((frame.mean() - 30) / 20) for frame in frames] == [0, 4, 8]
    assert len(retrieved) == 3
    assert len(frames_of(tmp_path, 100)) == 10


def test_what_holds_no_pictures_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pictures"):
        picture_files(tmp_path / "empty")
    with pytest.raises(SourceError, match="no pictures and no videos"):
        frames_of(tmp_path / "empty", 3)
    with pytest.raises(SourceError, match="cannot read"):
        frames_of(photos.parent / "lessons.py", 3)
