"""Small sets of pictures whose right answer is known, made on the fly for `benchmarks.learning`.

Everything follows from a number: the same set on every machine. Pictures are uint8 (H, W, 3), BGR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Mapping = Callable[[Picture, np.random.Generator], Picture]

SIDE_PX: Final = 80
COLOURS: Final = np.array([[0.2, 0.7, 0.1], [0.1, 0.25, 0.65], [0.7, 0.1, 0.2]], np.float32)
"""Rows are the blue, green and red of the known mapping, columns of what it is given."""
EDGE_STRENGTH: Final = 3.0
STRIPE_PX: Final = 8
GRAIN: Final = 26.0
"""Standard deviation of the grass, of 255."""
CAMERA_NOISE: Final = 6.0


def shapes(number: int, side_px: int = SIDE_PX) -> Picture:
    """Soft discs and boxes of many colours on a gradient, with a fine texture."""
    random = np.random.default_rng(number)
    picture = _gradient(random, side_px)
    for _ in range(9):
        colour = random.uniform(20, 235, 3)
        _draw(picture, random, colour, smallest_px=4, largest_px=side_px // 4)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.7).astype(np.float32)
    grain = cv2.GaussianBlur(random.normal(0, 1, picture.shape[:2]), (0, 0), 1.2)
    return _levels(picture + 18 * np.asarray(grain)[..., None])


def painted(picture: Picture, _: np.random.Generator) -> Picture:
    """Other colours, softened, with dark lines along the edges: local, and one answer only."""
    values = picture.astype(np.float32) @ COLOURS.T
    grey = np.asarray(cv2.GaussianBlur(values.mean(2), (0, 0), 0.8))
    edges = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.6)) - grey
    soft = np.asarray(cv2.GaussianBlur(values, (0, 0), 1.0))
    return _levels(soft - EDGE_STRENGTH * np.maximum(edges, 0)[..., None])


def fields(number: int) -> Picture:
    """A map of three kinds of ground, as a camera with a little noise sees it."""
    random = np.random.default_rng(number)
    picture = np.full((SIDE_PX, SIDE_PX, 3), GROUNDS[0], np.float32)
    for kind in random.permutation([0, 1, 2, 1, 2]):
        _draw(picture, random, GROUNDS[kind], smallest_px=16, largest_px=SIDE_PX // 2)
    return _levels(picture + random.normal(0, CAMERA_NOISE, picture.shape))


GROUNDS: Final = np.array([[200, 120, 60], [60, 180, 70], [60, 90, 190]], np.float32)


def is_grass(picture: Picture) -> NDArray[np.bool_]:
    """Where a map of `fields` says grass, (H, W), without its borders."""
    apart = np.linalg.norm(picture[:, :, None].astype(np.float32) - GROUNDS, axis=3)
    grass = (apart.argmin(2) == 1).astype(np.uint8)
    return cv2.erode(grass, np.ones((9, 9), np.uint8)).astype(bool)


def grown(picture: Picture, random: np.random.Generator) -> Picture:
    """The map rendered: grass is a grain that nothing in the map foretells, all else is smooth."""
    smooth = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5)).astype(np.float32)
    grain = np.asarray(cv2.GaussianBlur(random.normal(0, 1, picture.shape[:2]), (0, 0), 0.8))
    grain *= GRAIN / grain.std()
    apart = np.linalg.norm(smooth[:, :, None] - GROUNDS, axis=3)
    grass = np.asarray(cv2.GaussianBlur((apart.argmin(2) == 1).astype(np.float32), (0, 0), 0.7))
    return _levels(smooth + (grain * grass)[..., None])


def balls(number: int) -> Picture:
    """Discs in red, green and blue on grey: exchanging the colours gives just such pictures."""
    random = np.random.default_rng(number)
    picture = np.full((SIDE_PX, SIDE_PX, 3), random.uniform(90, 160), np.float32)
    for channel in random.permutation([0, 1, 2] * 3):
        colour = np.full(3, 50.0)
        colour[channel] = 210.0
        _draw(picture, random, colour, smallest_px=8, largest_px=SIDE_PX // 4)
    return _levels(np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.7)))


def exchanged(picture: Picture, _: np.random.Generator) -> Picture:
    """Blue becomes green, green becomes red, red becomes blue."""
    return np.ascontiguousarray(picture[..., [2, 0, 1]])


def write_pairs(
    folder: Path, make: Callable[[int], Picture], mapping: Mapping, numbers: Iterable[int]
) -> tuple[Path, Path]:
    """Write input and target pictures of one name into two folders; return both."""
    inputs, targets = folder / "input", folder / "target"
    for number in numbers:
        picture = make(number)
        _write(inputs / f"{number:05d}.png", picture)
        _write(targets / f"{number:05d}.png", mapping(picture, random_of(number)))
    return inputs, targets


def write_pictures(folder: Path, pictures: Iterable[Picture]) -> Path:
    """Write pictures into a folder; return it."""
    for number, picture in enumerate(pictures):
        _write(folder / f"{number:05d}.png", picture)
    return folder


def random_of(number: int) -> np.random.Generator:
    """What is random in the target of picture ``number``."""
    return np.random.default_rng((number, 1))


def _write(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


def _gradient(random: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    corners = random.uniform(40, 215, (2, 2, 3)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (side_px, side_px), interpolation=cv2.INTER_LINEAR))


def _draw(
    picture: NDArray[np.float32],
    random: np.random.Generator,
    colour: NDArray[Any],
    *,
    smallest_px: int,
    largest_px: int,
) -> None:
    height, width = picture.shape[:2]
    x, y = int(random.integers(width)), int(random.integers(height))
    radius_px = int(random.integers(smallest_px, largest_px + 1))
    values = [float(value) for value in colour]
    if random.random() < 0.5:
        cv2.circle(picture, (x, y), radius_px, values, -1)
    else:
        box = cv2.boxPoints(((x, y), (2.0 * radius_px, radius_px), float(random.uniform(0, 180))))
        cv2.fillConvexPoly(picture, box.astype(np.int32), values)


def _levels(values: NDArray[Any]) -> Picture:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
