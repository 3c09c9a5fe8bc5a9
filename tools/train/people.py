"""People cut out of frames by a teacher, and the lessons made of them.

A lesson is a picture with a known mask: a frame as it was, people on another background, in other
clothes, or a background without anybody. In other light, another size, blurred, noisy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from engines.errors import SourceError
from tools.train.checked_pictures import reduced
from tools.train.crops import as_tensor
from tools.train.pairs import Degrader, Picture, frames_of

Segment = Callable[[Picture], NDArray[np.uint8]]
"""uint8 (H, W, 3) BGR in, uint8 (H, W) out."""

SHORT_SIDE_PX: Final = 240
FRAMES_A_CLIP: Final = 48
SEEN_SHARE: Final = 0.004
"""A frame in which the teacher sees less person than this teaches nothing about people."""
SHAPES: Final = (16 / 9, 4 / 3)
"""Width to height of the lessons; a batch has one of them."""
ALIGN_PX: Final = 16
HEAD_SHARE: Final = 0.3
"""Of a person's height, at the top, that is not clothes."""
NOBODY, AS_IT_WAS = 0.08, 0.37
"""Shares of the lessons; in the rest people are pasted."""
FURNITURE: Final = 0.4
"""Share of the backgrounds in which stands a part of another one."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A frame with its people."""

    frame: Picture
    mask: NDArray[np.uint8]
    """(H, W), by the teacher."""
    clothes: NDArray[np.uint8]
    """(H, W), where the people are probably neither head nor skin."""


def read_people(
    folder: Path, segment: Segment, report: Callable[[float], None]
) -> list[list[Cutout]]:
    """Return the `Cutout` of every clip and picture of a folder, a list for each file.

    Raises:
        SourceError: nothing there can be read, or there is nobody in it.
    """
    files = _files(folder)
    found = []
    for number, file in enumerate(files):
        report(number / len(files))
        frames = [reduced(frame, SHORT_SIDE_PX) for frame in frames_of(file, FRAMES_A_CLIP)]
        cutouts = [cutout(frame, segment(frame)) for frame in frames]
        kept = [item for item in cutouts if (item.mask > 127).mean() > SEEN_SHARE]
        if kept:
            found.append(kept)
    if not found:
        raise SourceError(f"the teacher sees nobody in the clips and pictures of {folder}")
    return found


def read_backgrounds(
    folder: Path, skipped: list[str], report: Callable[[float], None]
) -> list[list[Picture]]:
    """Return the pictures of a folder without people, a list for each folder below it.

    ``skipped`` takes the names of those that cannot be read. The folder is believed: teachers see
    people in coats and cups.

    Raises:
        SourceError: there are none.
    """
    files = _files(folder)
    found: dict[Path, list[Picture]] = {}
    for number, file in enumerate(files):
        report(number / len(files))
        try:
            picture = reduced(frames_of(file, 1)[0], SHORT_SIDE_PX)
        except SourceError as error:
            skipped.append(str(error))
        else:
            found.setdefault(file.parent, []).append(picture)
    if not found:
        raise SourceError(f"none of the pictures of {folder} can be read")
    return list(found.values())


def cutout(frame: Picture, mask: NDArray[np.uint8]) -> Cutout:
    """Return a frame with its mask, and where clothes are: below the head, and not like skin."""
    rows = np.flatnonzero((mask > 127).any(1))
    below = np.zeros(mask.shape, np.float32)
    if rows.size:
        neck = rows[0] + HEAD_SHARE * (rows[-1] - rows[0])
        below[:] = np.clip((np.arange(len(mask)) - neck) / 8, 0, 1)[:, None]
    colours = cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb)
    skin = cv2.inRange(colours, (50, 137, 90), (255, 180, 132))
    skin = cv2.GaussianBlur(cv2.dilate(skin, np.ones((3, 3), np.uint8)), (0, 0), 1.2)
    clothes = (mask * below * (1 - skin.astype(np.float32) / 255)).astype(np.uint8)
    return Cutout(frame, mask, clothes)


class Lessons(Dataset[Tensor]):
    """Item ``i`` is uint8 (4, H, W): a picture in RGB and its mask; ``height_px`` is H.

    It follows from the seed and ``i`` alone. W is that of one of `SHAPES`, the same for ``batch``
    items one after the other.
    """

    def __init__(
        self,
        people: Sequence[Sequence[Cutout]],
        backgrounds: Sequence[Sequence[Picture]],
        height_px: int,
        batch: int,
        seed: int,
    ) -> None:
        self._people, self._backgrounds = people, backgrounds
        self._height_px, self._batch, self._seed = height_px, batch, seed
        self._damage = Degrader(seed)
        self._people_shares, self._background_shares = _shares(people), _shares(backgrounds)

    def __len__(self) -> int:
        return 2**31  # endless: the sampler says when it is enough

    def __getitem__(self, index: int) -> Tensor:
        random = np.random.default_rng((self._seed, index))
        shape = SHAPES[index // self._batch % len(SHAPES)]
        size = lesson_size(self._height_px, shape)
        draw = random.random()
        if draw < NOBODY:
            picture, mask = self._background(size, random), np.zeros(size[::-1], np.uint8)
        elif draw < NOBODY + AS_IT_WAS:
            picture, mask = self._as_it_was(size, random)
        else:
            picture, mask = self._pasted(size, random)
        picture = self._damage(in_other_light(picture, random), random)
        both = np.concatenate([as_tensor(picture).numpy(), mask[None]])
        return torch.from_numpy(both)

    def _someone(self, random: np.random.Generator) -> Cutout:
        clip = self._people[int(random.choice(len(self._people), p=self._people_shares))]
        found = clip[int(random.integers(len(clip)))]
        if random.random() < 0.5:
            found = self._dressed(found, random)
        if random.random() < 0.3:
            found = _tanned(found, random)
        return _bent(found, random) if random.random() < 0.4 else found

    def _dressed(self, item: Cutout, random: np.random.Generator) -> Cutout:
        """The same person in other clothes: a background as cloth, with the light of the old."""
        height, width = item.mask.shape
        cloth = self._background((width, height), random).astype(np.float32)
        if random.random() < 0.5:
            cloth = cloth.mean((0, 1), keepdims=True) * random.uniform(0.5, 1.4, 3)
        grey = cv2.cvtColor(item.frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
        inside = item.clothes > 127
        light = grey / max(20.0, float(grey[inside].mean())) if inside.any() else grey / 128
        fold = random.uniform(0.3, 1.0)
        new = np.clip(cloth * (1 - fold + fold * light[..., None]), 0, 255)
        share = item.clothes[..., None].astype(np.float32) / 255
        frame = (item.frame * (1 - share) + new * share).astype(np.uint8)
        return Cutout(frame, item.mask, item.clothes)

    def _background(self, size: tuple[int, int], random: np.random.Generator) -> Picture:
        """A part of a background, (width, height) large, perhaps with one of another in it."""
        room = self._part(size, random)
        if random.random() < FURNITURE:
            where = _somewhere(size, random)
            room[where] = self._part(size, random)[where]
        return room

    def _part(self, size: tuple[int, int], random: np.random.Generator) -> Picture:
        """A part of one of the backgrounds, perhaps mirrored."""
        group = self._backgrounds[
            int(random.choice(len(self._backgrounds), p=self._background_shares))
        ]
        picture = group[int(random.integers(len(group)))]
        height, width = picture.shape[:2]
        cover = min(width / size[0], height / size[1]) * random.uniform(0.4, 1.0)
        wide, tall = max(2, int(size[0] * cover)), max(2, int(size[1] * cover))
        left = int(random.integers(0, width - wide + 1))
        top = int(random.integers(0, height - tall + 1))
        part = picture[top : top + tall, left : left + wide]
        if random.random() < 0.5:
            part = part[:, ::-1]
        made = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_LINEAR)
        return made.astype(np.uint8)  # a copy: it is drawn into

    def _as_it_was(
        self, size: tuple[int, int], random: np.random.Generator
    ) -> tuple[Picture, NDArray[np.uint8]]:
        """In the room where they were, perhaps with a piece of furniture behind them."""
        item = self._someone(random)
        move = placed(item.mask.shape, size, random, smallest=0.95, largest=1.7)
        picture = _warped(item.frame, move, size, cv2.BORDER_REPLICATE)
        mask = _warped(item.mask, move, size, cv2.BORDER_REPLICATE)
        if random.random() < FURNITURE:
            where = _somewhere(size, random)
            share = _share(mask[where])
            behind = self._part(size, random)[where]
            picture[where] = picture[where] * share + behind * (1 - share)
        return picture, mask

    def _pasted(
        self, size: tuple[int, int], random: np.random.Generator
    ) -> tuple[Picture, NDArray[np.uint8]]:
        picture = self._background(size, random)
        whole = np.zeros(size[::-1], np.uint8)
        for _ in range(1 if random.random() < 0.8 else 2):
            item = self._someone(random)
            move = placed(item.mask.shape, size, random, smallest=0.6, largest=1.8)
            frame = item.frame if random.random() < 0.5 else in_other_light(item.frame, random)
            frame = _warped(frame, move, size, cv2.BORDER_REPLICATE)
            mask = _warped(item.mask, move, size, cv2.BORDER_CONSTANT)
            share = _share(mask)
            picture = (picture * (1 - share) + frame * share).astype(np.uint8)
            whole = np.maximum(whole, mask)
        return picture, whole


def in_other_light(picture: Picture, random: np.random.Generator) -> Picture:
    """Another exposure, contrast, haze and white balance, as rooms and cameras differ.

    As `tools.train.pairs.in_other_light`, by a table of all levels: thousands of times as often.
    """
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    values = levels ** random.uniform(0.65, 1.5) * random.uniform(0.88, 1.12, 3)
    contrast = random.uniform(0.55, 1.0)
    haze = random.uniform(0, 1 - contrast)
    table = (np.clip(haze + contrast * values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return cv2.LUT(picture, table[None]).astype(np.uint8, copy=False)


def _tanned(item: Cutout, random: np.random.Generator) -> Cutout:
    """The same person with darker (or a little paler) skin and hair."""
    share = cv2.subtract(item.mask, item.clothes)[..., None].astype(np.float32) / 255
    levels = np.arange(256, dtype=np.float32) / 255
    curve = levels ** random.uniform(0.8, 2.2) * 255
    frame = item.frame * (1 - share) + curve[item.frame] * share
    return Cutout(frame.astype(np.uint8), item.mask, item.clothes)


def _bent(item: Cutout, random: np.random.Generator) -> Cutout:
    """The same person in another shape: everything is moved smoothly by up to a tenth."""
    height, width = item.mask.shape
    moves = random.normal(0, 0.03 * width, (4, 5, 2)).astype(np.float32)
    moved = cv2.resize(moves, (width, height), interpolation=cv2.INTER_CUBIC)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    where = moved + np.dstack([columns, rows]).astype(np.float32)
    where[..., 1] = np.where(rows > height - 2, rows, where[..., 1])  # bodies reach the lower edge
    bent = (
        cv2.remap(picture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        for picture in (item.frame, item.mask, item.clothes)
    )
    return Cutout(*bent)


def _somewhere(size: tuple[int, int], random: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box in a picture (width, height), partly outside perhaps."""
    wide, tall = (int(side * random.uniform(0.1, 0.7)) + 1 for side in size)
    left = int(random.integers(-wide // 2, size[0] - wide // 2))
    top = int(random.integers(-tall // 2, size[1] - tall // 2))
    return slice(max(0, top), top + tall), slice(max(0, left), left + wide)


def _share(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much of people is seen, (H, W, 1), 0 to 1, when they are put before something else.

    Tighter than the mask: the old background shines through a soft edge.
    """
    share: NDArray[np.float32] = np.clip((mask[..., None].astype(np.float32) / 255 - 0.4) * 2, 0, 1)
    return share


def _shares(groups: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    """How often each is drawn: a clip more often than a picture, but not as it has frames."""
    counts = np.array([len(group) for group in groups], np.float64) ** 0.25
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def lesson_size(height_px: int, shape: float) -> tuple[int, int]:
    """Return (width, height) of lessons: the width a multiple of 16, near ``shape``."""
    return max(1, round(height_px * shape / ALIGN_PX)) * ALIGN_PX, height_px


def placed(
    given: tuple[int, ...],
    size: tuple[int, int],
    random: np.random.Generator,
    *,
    smallest: float,
    largest: float,
) -> NDArray[np.float64]:
    """Return a random affine map (2, 3) from a frame (H, W) into a picture (width, height).

    The frame's height becomes ``smallest`` to ``largest`` times that of the picture, and its lower
    edge is at or below the picture's, so that no body ends in the air. Turned up to 8 degrees
    (around the lower edge's middle), half of them mirrored.
    """
    height, width = given[:2]
    times = float(np.exp(random.uniform(np.log(smallest), np.log(largest))))
    scale = size[1] / height * times
    turn = np.deg2rad(random.uniform(-8, 8)) * (random.random() < 0.5)
    mirror = -1 if random.random() < 0.5 else 1
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    lowered = random.uniform(0.02, 0.02 + 0.35 * times) if random.random() < 0.7 else 0.02
    target = random.uniform(0.15, 0.85) * size[0], size[1] * (1 + lowered)
    if smallest > 0.9:  # with its own background: as little as possible of what is beside it
        room = max(0.0, (width * scale - size[0]) / 2)
        target = size[0] / 2 + random.uniform(-room, room), target[1]
    turned = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    shift = np.array(target) - turned @ (width / 2, height)
    return np.column_stack([turned, shift])


def _warped(
    picture: NDArray[np.uint8], move: NDArray[np.float64], size: tuple[int, int], border: int
) -> NDArray[np.uint8]:
    made = cv2.warpAffine(picture, move, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return made.astype(np.uint8, copy=False)


def _files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [x for x in files if not any(p.startswith(".") for p in x.relative_to(folder).parts)]
    if not found:
        raise SourceError(f"no pictures and no videos below {folder}")
    return found
