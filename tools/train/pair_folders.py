"""Pairs out of folders: of the same names, A|B pictures, or a teacher's; random crops of pairs.

Everything is uint8 (H, W, 3), BGR, until `PairCrops` makes RGB tensors of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from engines.errors import SettingsError, SourceError
from tools.train.checked_pictures import read_checked, reduced
from tools.train.crops import as_tensor, random_square
from tools.train.library import (
    MEMORY_BYTES,
    SHORT_SIDE_PX,
    MismatchError,
    Shelf,
    check_size,
    named_pictures,
    shown_name,
)
from tools.train.pairs import Pair, Picture, Teacher, lessons
from tools.train.recipe import Report

ALIGN_PX: Final = 4
"""Squares begin at multiples of this: texture that is anchored to a network's cells stays so."""
Damage = Callable[[Picture, np.random.Generator], Picture]
"""What happens to the input of a pair only: a picture in, one of the same size out."""


def read_pairs(
    input_folder: Path,
    target_folder: Path,
    *,
    smallest_px: int,
    report: Report,
    memory_bytes: int = MEMORY_BYTES,
) -> Shelf[Pair]:
    """Return the pictures of two folders that have the same name, whatever their suffix.

    Both of a pair are reduced together, to a short side of 400 pixels (or ``smallest_px``, where
    that is more). What cannot be read, is smaller than ``smallest_px``, has no partner or
    one of another size is skipped and named.

    Raises:
        SourceError: a folder cannot be read, has no pictures, or none that can be read.
        SettingsError: no names fit together, or many do not; a name has two candidates; all pairs
            are smaller than ``smallest_px``.
    """
    photos, targets = _by_stem(input_folder), _by_stem(target_folder)
    if input_folder.resolve() == target_folder.resolve():
        raise SettingsError(f"the inputs and the targets are the same folder, {input_folder}")
    if not photos.keys() & targets.keys():
        raise SettingsError(
            f"no picture of {input_folder} has a partner of the same name in {target_folder}:"
            f" found {shown_name(next(iter(photos.values()))[0])} here and"
            f" {shown_name(next(iter(targets.values()))[0])} there"
        )
    alone = [
        f"{shown_name(found[stem][0])} (no {missing})"
        for found, others, missing in ((photos, targets, "target"), (targets, photos, "input"))
        for stem in sorted(found.keys() - others.keys())
    ]
    side_px = max(SHORT_SIDE_PX, smallest_px)
    readers = {
        name: partial(_read_two, path, targets[stem][1], smallest_px, side_px)
        for stem, (name, path) in photos.items()
        if stem in targets
    }
    shelf: Shelf[Pair] = Shelf("pairs", alone, memory_bytes)
    shelf.fill(readers, input_folder, report)
    return shelf


def read_side_by_side(
    folder: Path, *, smallest_px: int, report: Report, memory_bytes: int = MEMORY_BYTES
) -> Shelf[Pair]:
    """Return A|B pictures as pairs: the left half is the input.

    As in the data sets of Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks" (2017). Otherwise as `read_pairs`; a picture of odd width does not fit.

    Raises:
        SourceError: the folder cannot be read, has no pictures, or none that can be read.
        SettingsError: many pictures have an odd width, or all are smaller than ``smallest_px``.
    """
    side_px = max(SHORT_SIDE_PX, smallest_px)
    readers = {
        name: partial(_read_halves, path, smallest_px, side_px)
        for name, path in named_pictures(folder).items()
    }
    shelf: Shelf[Pair] = Shelf("pairs", memory_bytes=memory_bytes)
    shelf.fill(readers, folder, report)
    return shelf


def read_taught(
    folder: Path,
    teacher: Teacher,
    cache: Path,
    *,
    variants: int,
    smallest_px: int,
    seed: int,
    report: Report,
    memory_bytes: int = MEMORY_BYTES,
) -> Shelf[Pair]:
    """Return photographs with what a teacher makes of them, see `tools.train.pairs.lessons`.

    The teacher is called from several threads. Above the budget pairs are read from ``cache``.
    Photographs that cannot be read are skipped and named.

    Raises:
        SettingsError: the teacher fails, or does not return a picture of the same size.
        SourceError: the folder cannot be read, has no pictures, or none that can be read.
        SinkError: ``cache`` cannot be written.
    """
    shelf: Shelf[Pair] = Shelf("pairs", memory_bytes=memory_bytes)
    made = lessons(folder, teacher, cache, variants=variants, smallest_px=smallest_px, seed=seed)
    shelf.fill(made, folder, lambda _, done: report("teacher", done))
    return shelf


def _by_stem(folder: Path) -> dict[str, tuple[str, Path]]:
    """Name below the folder without suffix, in one Unicode form -> (name, path)."""
    found: dict[str, tuple[str, Path]] = {}
    for name, path in named_pictures(folder).items():
        stem = unicodedata.normalize("NFC", str(PurePosixPath(name).with_suffix("")))
        if stem in found:
            raise SettingsError(
                f"{folder} has two pictures of one name, {shown_name(found[stem][0])} and"
                f" {shown_name(name)}; leave one of them"
            )
        found[stem] = (name, path)
    return found


def _read_two(photo: Path, target: Path, smallest_px: int, side_px: int) -> Pair:
    pictures = _read_one(photo, "input"), _read_one(target, "target")
    sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
    if sizes[0] != sizes[1]:
        raise MismatchError(f"input {sizes[0]}, target {sizes[1]}")
    check_size(pictures[0], smallest_px)
    return Pair(reduced(pictures[0], side_px), reduced(pictures[1], side_px))


def _read_one(path: Path, what: str) -> Picture:
    try:
        return read_checked(path)
    except SourceError as error:
        raise SourceError(f"{what} {error}") from error


def _read_halves(path: Path, smallest_px: int, side_px: int) -> Pair:
    both = read_checked(path)
    width = both.shape[1]
    if width % 2:
        raise MismatchError(f"odd width of {width}, no two halves")
    halves = both[:, : width // 2], both[:, width // 2 :]
    check_size(halves[0], smallest_px)
    return Pair(*(np.ascontiguousarray(reduced(half, side_px)) for half in halves))


class PairCrops(Dataset[Tensor]):
    """Squares out of pairs, the same one of both pictures, which follow from (seed, index) alone.

    Item ``i`` is uint8 (6, S, S): the input's RGB, then the target's RGB.

    Args:
        pairs: what to cut from; sides of at least ``side_px``.
        side_px: S, a multiple of 4.
        seed: of everything random here.
        mirror: whether half of the squares are mirrored.
        damage: done to the input last, after the mirroring; the target stays clean.

    Raises:
        SettingsError: there are no pairs, or these numbers do not fit together.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        side_px: int,
        seed: int,
        *,
        mirror: bool = True,
        damage: Damage | None = None,
    ) -> None:
        if not len(pairs):
            raise SettingsError("there are no pairs to take crops from")
        if side_px < 1 or side_px % ALIGN_PX:
            raise SettingsError(
                f"the side of a crop must be a multiple of {ALIGN_PX}, found {side_px}"
            )
        self._pairs, self._side_px, self._seed = pairs, side_px, seed
        self._mirror, self._damage = mirror, damage

    def __len__(self) -> int:
        return 2**31  # endless: the sampler says when it is enough

    def __getitem__(self, index: int) -> Tensor:
        random = np.random.default_rng((self._seed, index))
        pair = self._pairs[int(random.integers(len(self._pairs)))]
        height, width = pair.photo.shape[:2]
        if pair.photo.shape != pair.target.shape:
            raise SettingsError(
                f"a pair must be of one size, found {pair.photo.shape} and {pair.target.shape}"
            )
        if min(height, width) < self._side_px:
            raise SettingsError(
                f"a pair of {width}x{height} is smaller than the crop of {self._side_px};"
                f" use --crop {min(height, width) // ALIGN_PX * ALIGN_PX} or less"
            )
        photo, target = random_square(
            [pair.photo, pair.target],
            self._side_px,
            random,
            align_px=ALIGN_PX,
            mirror=self._mirror,
        )
        if self._damage is not None:
            photo = self._damage(photo.copy(), random)  # it may write, but not into the pair
        return as_tensor(np.dstack([target, photo]))  # turns all six channels round
