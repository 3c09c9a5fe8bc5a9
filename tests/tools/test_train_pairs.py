"""Pairs from folders, and crops that cut the same square out of both."""

from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs torch; install pix2live[torch]")
pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")

import torch

from engines.errors import SettingsError, SourceError
from tools.train.crops import StepSampler, loader, random_square
from tools.train.library import Shelf
from tools.train.pair_folders import (
    PairCrops,
    read_pairs,
    read_side_by_side,
)
from tools.train.pairs import Pair, Picture

Seeds = st.integers(0, 2**32)


def shapes(seed: int, height: int = 64, width: int = 96) -> Picture:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def where(height: int = 64, width: int = 96) -> Picture:
    """A picture whose pixels tell their row, column and (in red) the number 9."""
    rows, columns, nine = np.broadcast_arrays(*np.ogrid[:height, :width], 9)
    return np.dstack([rows, columns, nine]).astype(np.uint8)


def write(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five pairs: the target is the negative."""
    for number in range(5):
        write(tmp_path / "in" / "sub" / f"p.{number}.png", shapes(number))
        write(tmp_path / "out" / "sub" / f"p.{number}.bmp", 255 - shapes(number))
    return tmp_path / "in", tmp_path / "out"


def pairs(folders: tuple[Path, Path], smallest_px: int = 32, **options: int) -> Shelf[Pair]:
    return read_pairs(*folders, smallest_px=smallest_px, report=lambda *_: None, **options)


def halves(folder: Path, smallest_px: int = 32) -> Shelf[Pair]:
    return read_side_by_side(folder, smallest_px=smallest_px, report=lambda *_: None)


# ---- two folders -------------------------------------------------------------------------------


def test_pictures_of_one_name_are_a_pair(folders: tuple[Path, Path]) -> None:
    found = pairs(folders)
    assert found.names == [f"sub/p.{number}" for number in range(5)]
    assert (found.skipped, found.note) == ([], "")
    for number, pair in enumerate(found):
        assert np.array_equal(pair.photo, shapes(number))
        assert np.array_equal(pair.target, 255 - pair.photo)


def test_names_may_differ_in_their_unicode_form(tmp_path: Path) -> None:
    write(tmp_path / "in" / "caf\u00e9.png", shapes(0))
    write(tmp_path / "out" / "cafe\u0301.png", shapes(1))
    assert len(pairs((tmp_path / "in", tmp_path / "out"))) == 1


def test_both_are_reduced_alike_and_read_again_above_the_budget(
    folders: tuple[Path, Path],
) -> None:
    picture = shapes(9, 401, 733)
    write(folders[0] / "large.png", picture)
    write(folders[1] / "large.png", 255 - picture)
    found = pairs(folders, memory_bytes=1)
    pair = found[found.names.index("large")]
    assert pair.photo.shape == pair.target.shape == (400, 731, 3)
    assert np.abs(pair.photo.astype(int) + pair.target - 255).max() <= 1
    assert np.array_equal(found[3].photo, found[3].photo)
    (folders[1] / "large.png").unlink()
    with pytest.raises(SourceError, match=r"large\.png was fine before, and now: target No such"):
        found[found.names.index("large")]


def test_what_is_no_pair_is_named_and_counted(folders: tuple[Path, Path]) -> None:
    photos, targets = folders
    write(photos / "alone.png", shapes(0))
    write(targets / "other.png", shapes(0))
    write(targets / "sub" / "p.0.bmp", shapes(0, 65, 96))
    (targets / "sub" / "p.1.bmp").write_bytes(b"")
    write(photos / "sub" / "p.2.png", shapes(0, 20, 20))
    write(targets / "sub" / "p.2.bmp", shapes(0, 20, 20))
    found = pairs(folders)
    assert found.names == ["sub/p.3", "sub/p.4"]
    assert found.skipped == [
        "alone.png (no target)",
        "other.png (no input)",
        "sub/p.0.png (input 96x64, target 96x65)",
        "sub/p.1.png (target empty)",
        "sub/p.2.png (20x20, smaller than the crop of 32)",
    ]
    assert found.note.startswith("5 of 7 pairs skipped: alone.png (no target), other.png")


def test_folders_that_do_not_fit_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photos, targets = folders
    with pytest.raises(SettingsError, match="the same folder"):
        pairs((photos, photos / ".." / "in"))
    with pytest.raises(SourceError, match="No such file"):
        pairs((photos, tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"all pairs of .* the largest allows --crop 64$"):
        pairs(folders, 80)
    write(tmp_path / "others" / "p.0.png", shapes(0))
    with pytest.raises(SettingsError, match=r"no picture of .*: found sub/p\.0\.png here and p\.0"):
        pairs((photos, tmp_path / "others"))
    for number in range(4):
        write(photos / f"alone{number}.png", shapes(0))
    with pytest.raises(SettingsError, match=r"4 of 9 pairs of .* do not fit: alone0\.png \(no tar"):
        pairs(folders)
    write(targets / "sub" / "p.0.jpg", shapes(0))
    with pytest.raises(SettingsError, match=r"two pictures of one name, sub/p\.0\.bmp and sub/p"):
        pairs(folders)


def test_one_pair_of_two_sizes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", shapes(0))
    write(tmp_path / "out" / "a.png", shapes(0, 128, 192))
    with pytest.raises(SettingsError, match=r"a\.png \(input 96x64, target 192x128\)"):
        pairs((tmp_path / "in", tmp_path / "out"))


# ---- side by side ------------------------------------------------------------------------------


def test_halves_are_a_pair(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.hstack([shapes(0), 255 - shapes(0)]))
    found = halves(tmp_path)[0]
    assert np.array_equal(found.photo, shapes(0))
    assert np.array_equal(found.target, 255 - shapes(0))
    with pytest.raises(SettingsError, match="--crop 64"):
        halves(tmp_path, 80)


def test_odd_widths_are_named(tmp_path: Path) -> None:
    write(tmp_path / "odd.png", shapes(0, 64, 129))
    with pytest.raises(SettingsError, match=r"odd\.png \(odd width of 129, no two halves\)"):
        halves(tmp_path)
    write(tmp_path / "even.png", shapes(0, 64, 128))
    found = halves(tmp_path)
    assert found.note == "1 of 2 pairs skipped: odd.png (odd width of 129, no two halves)"
    for number in range(3):
        write(tmp_path / f"odd{number}.png", shapes(0, 64, 129))
    with pytest.raises(SettingsError, match=r"4 of 5 pairs of .* do not fit"):
        halves(tmp_path)


# ---- crops -------------------------------------------------------------------------------------


@given(st.tuples(st.integers(1, 250), st.integers(1, 250)), st.integers(1, 250), st.integers(1, 16))
@settings(deadline=None)
def test_a_square_is_inside_and_aligned(size: tuple[int, int], side_px: int, align_px: int) -> None:
    side_px = min(side_px, *size)
    random = np.random.default_rng(side_px)
    (found,) = random_square([where(*size)], side_px, random, align_px=align_px, mirror=False)
    top, left, _ = found[0, 0].astype(int)
    assert top % align_px == left % align_px == 0
    assert np.array_equal(found, where(*size)[top : top + side_px, left : left + side_px])
    assert found.shape == (side_px, side_px, 3)


@given(Seeds, st.integers(0, 2**31 - 1), st.booleans())
@settings(deadline=None)
def test_both_are_cut_alike(seed: int, index: int, mirror: bool) -> None:
    picture = where()
    crops = PairCrops([Pair(picture, 255 - picture)], 32, seed, mirror=mirror)
    found = crops[index].numpy().astype(int)
    assert found.shape == (6, 32, 32)
    assert (found[:3] + found[3:] == 255).all()
    assert (found[0] == 9).all()  # red comes first
    columns, rows = found[1], found[2]
    assert rows[0, 0] % 4 == 0
    assert columns.min() % 4 == 0
    assert (np.diff(rows, axis=0) == 1).all()
    steps = set(np.diff(columns, axis=1).ravel().tolist())
    assert steps == {1} or (mirror and steps == {-1})


def test_half_are_mirrored_and_all_places_come() -> None:
    crops = PairCrops([Pair(where(), where())], 32, 1)
    found = [crops[index].numpy().astype(int) for index in range(400)]
    mirrored = sum(crop[1, 0, 1] < crop[1, 0, 0] for crop in found)
    assert 150 < mirrored < 250
    assert {int(crop[1].min()) for crop in found} == set(range(0, 65, 4))
    assert {int(crop[2].min()) for crop in found} == set(range(0, 33, 4))


def test_damage_is_done_to_the_input_alone_and_follows_from_the_number() -> None:
    def damage(crop: Picture, random: np.random.Generator) -> Picture:
        crop[...] = random.integers(0, 256, crop.shape)  # in place, on a crop as wide as its source
        return crop

    picture = where(32, 32)
    crops = PairCrops([Pair(picture, picture)], 32, 1, mirror=False, damage=damage)
    found = crops[3]
    assert torch.equal(found, crops[3])
    assert not torch.equal(found[:3], crops[4][:3])
    assert np.array_equal(found[3:].numpy()[::-1].transpose(1, 2, 0), where(32, 32))
    assert np.array_equal(picture, where(32, 32))


def test_batches_of_pairs_are_the_same_for_any_number_of_workers(
    folders: tuple[Path, Path],
) -> None:
    crops = PairCrops(pairs(folders, memory_bytes=40_000), 32, 5)
    made = [list(islice(loader(crops, StepSampler(3, 0), workers), 5)) for workers in (0, 1, 3)]
    assert made[0][0].shape == (3, 6, 32, 32)
    for other in made[1:]:
        assert all(map(torch.equal, made[0], other))
    resumed = list(islice(loader(crops, StepSampler(3, 2), 1), 3))
    assert all(map(torch.equal, made[0][2:], resumed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": []}, "no pairs"),
        ({"side_px": 30}, "a multiple of 4, found 30"),
        ({"side_px": 0}, "found 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    good = {"pairs": [Pair(where(), where())], "side_px": 32, "seed": 1}
    with pytest.raises(SettingsError, match=message):
        PairCrops(**{**good, **changes})


def test_pairs_that_are_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"96x64 is smaller .* --crop 64 or less"):
        PairCrops([Pair(where(), where())], 128, 1)[0]
    with pytest.raises(SettingsError, match="of one size"):
        PairCrops([Pair(where(), where(60))], 32, 1)[0]


def test_links_into_one_folder_are_the_same_folder(folders: tuple[Path, Path]) -> None:
    link = folders[0].parent / "link"
    link.symlink_to(folders[0])
    with pytest.raises(SettingsError, match="the same folder"):
        pairs((folders[0], link))
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(SourceError, match="Too many levels of symbolic links"):
        pairs((folders[0], link))
