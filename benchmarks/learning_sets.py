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
GROUNDS: Final = np.array([[200, 120, 60], [60, 180, 70], [60, 90, 190]], np.float32)
"""Water, grass and earth."""
GRAIN: Final = 26.0
"""Standard deviation of the grass, of 255."""
CAMERA_NOISE: Final = 6.0
SKY, EARTH = np.array([200.0, 150.0, 110.0]), np.array([70.0, 120.0, 140.0])
THINGS: Final = np.array([[40, 60, 220], [50, 190, 230], [60, 170, 80]], np.float32)
"""Red, yellow and green things stand between sky and earth."""
NIGHT: Final = np.array([[0.55, 0.2, 0.25], [0.1, 0.45, -0.05], [-0.1, 0.2, 0.5]], np.float32)
NIGHT_LIGHT: Final = np.array([30.0, 5.0, 0.0])
PAINTS: Final = np.array(
    [[150, 80, 30], [190, 130, 60], [60, 190, 235], [110, 60, 25], [40, 140, 220], [90, 40, 20]],
    np.float32,
)
PAINTING_PX: Final = 192
PAN_PX: Final = 2
CLIP_PX: Final = 96


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


def day(number: int) -> Picture:
    """Things between a sky and the earth, by day."""
    random = np.random.default_rng(number)
    down = np.linspace(0, 1, SIDE_PX)[:, None, None]
    ground = SKY * (1 - down) + EARTH * down + random.uniform(-15, 15, 3)
    picture = np.array(np.broadcast_to(ground, (SIDE_PX, SIDE_PX, 3)), np.float32, order="C")
    for _ in range(5):
        colour = THINGS[int(random.integers(len(THINGS)))] + random.uniform(-15, 15, 3)
        _draw(picture, random, colour, smallest_px=6, largest_px=18)
    return _levels(np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8)))


def night(picture: Picture) -> Picture:
    """The same at night: darker, other colours, edges with a rim. It can be undone."""
    values = picture.astype(np.float32) @ NIGHT.T
    rim = values - np.asarray(cv2.GaussianBlur(values, (0, 0), 1.5))
    return _levels((values + 1.5 * rim) * 0.8 + NIGHT_LIGHT)


def painting() -> Picture:
    """Short strokes of blue and yellow that follow a swirl."""
    random = np.random.default_rng(7)
    picture = np.empty((PAINTING_PX, PAINTING_PX, 3), np.float32)
    picture[:] = PAINTS[0]
    for _ in range(2500):
        x, y = random.integers(0, PAINTING_PX, 2)
        angle = np.sin(x / 40) + 1.3 * np.cos(y / 37)
        colour = PAINTS[random.integers(len(PAINTS))] + random.uniform(-12, 12, 3)
        along = np.array([np.cos(angle), np.sin(angle)]) * random.uniform(4, 9)
        ends = [(round(x + sign * along[0]), round(y + sign * along[1])) for sign in (-1, 1)]
        cv2.line(picture, ends[0], ends[1], [float(value) for value in colour], 2)
    return _levels(picture)


def noisy_pan(count: int) -> list[Picture]:
    """A camera with noise goes over a still scene, two pixels a frame."""
    random = np.random.default_rng(3)
    scene = shapes(5000, CLIP_PX + PAN_PX * count)
    found = []
    for index in range(count):
        left = PAN_PX * index
        view = scene[left // 2 : left // 2 + CLIP_PX, left : left + CLIP_PX]
        found.append(_levels(view + random.normal(0, CAMERA_NOISE, view.shape)))
    return found


def write_pairs(
    folder: Path, make: Callable[[int], Picture], mapping: Mapping, numbers: Iterable[int]
) -> tuple[Path, Path]:
    """Write input and target pictures of one name into two folders; return both."""
    inputs, targets = folder / "input", folder / "target"
    for number in numbers:
        picture = make(number)
        write_picture(inputs / f"{number:05d}.png", picture)
        write_picture(targets / f"{number:05d}.png", mapping(picture, random_of(number)))
    return inputs, targets


def write_pictures(folder: Path, pictures: Iterable[Picture]) -> Path:
    """Write pictures into a folder; return it."""
    for number, picture in enumerate(pictures):
        write_picture(folder / f"{number:05d}.png", picture)
    return folder


def random_of(number: int) -> np.random.Generator:
    """What is random in the target of picture ``number``."""
    return np.random.default_rng((number, 1))


def write_picture(path: Path, picture: Picture) -> None:
    """Write one picture; its folder is made."""
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
