"""The frames on which a conversion has to prove itself: a person's own, or made ones.

Made frames follow the dead leaves model of natural images (Matheron 1968; Lee, Mumford and Huang,
"Occlusion Models for Natural Images", 2001): discs of every size that hide each other, which have
the edges, flat areas and spectrum of photographs, here with shading and the noise of a camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size, SourceError
from realtime import Frame, open_source
from realtime.sources.base import fit_picture
from realtime.sources.pictures import is_picture, list_pictures, read_picture

Item = TypeVar("Item")

LEAVES: Final = 1200
SMALLEST_LEAF: Final = 0.01
LARGEST_LEAF: Final = 0.5
"""Radii as a share of the shorter side."""
NOISE_LEVELS: Final = 2.5
"""Standard deviation of a webcam's noise, of 255."""
LONGEST_CLIP: Final = 600
"""Frames of a clip that are looked at: the first 20 to 25 seconds."""


@dataclass(frozen=True, slots=True)
class ProofFrames:
    """uint8 (H, W, 3) BGR frames of one size, and where they are from."""

    frames: tuple[Pixels, ...]
    description: str
    real: bool


def proof_frames(path: Path | None, size: Size, count: int) -> ProofFrames:
    """Return up to ``count`` frames of ``size`` (width, height), evenly over the clip or folder.

    Args:
        path: a clip, a picture or a folder of pictures; None makes frames.
        size: other aspect ratios are cropped at the edges.
        count: how many; a shorter clip gives fewer.

    Raises:
        SourceError: it cannot be read, or holds nothing.
        SettingsError: it is a camera or a stream, whose frames nobody could look at again.
    """
    if path is None:
        frames = tuple(dead_leaves(size, seed) for seed in range(count))
        return ProofFrames(frames, f"{count} made frames (dead leaves model)", real=False)
    if not path.exists():
        raise SourceError(f"no such clip or folder for --frames: {path}")
    if path.is_dir() or is_picture(path):
        pictures = list_pictures(path) if path.is_dir() else [path]
        chosen = [_fitted(read_picture(item), size) for item in _spread(pictures, count)]
    elif path.is_file():
        chosen = _clip(path, size, count)
    else:
        raise SettingsError(f"--frames takes a clip or a folder of pictures, not {path}")
    if not chosen:
        raise SourceError(f"no frames in {path}")
    return ProofFrames(tuple(chosen), f"{len(chosen)} frames of {path.name}", real=True)


def dead_leaves(size: Size, seed: int = 0) -> Pixels:
    """Return a made frame of ``size`` (width, height); the same for the same seed."""
    width, height = size
    rng = np.random.default_rng(seed)
    side = min(size)
    # Areas of natural objects fall with the third power of the radius: inverse of its integral.
    low, high = (max(1.0, side * share) ** -2 for share in (SMALLEST_LEAF, LARGEST_LEAF))
    radii = (high + rng.random(LEAVES) * (low - high)) ** -0.5
    picture = np.full((height, width, 3), rng.integers(40, 216, 3), np.uint8)
    for radius in radii:
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (max(1, round(radius)), max(1, round(radius * rng.uniform(0.4, 1.0))))
        base = rng.integers(20, 236)
        colour = np.clip(base + rng.normal(0, 45, 3), 0, 255)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(picture, centre, axes, angle, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = rng.uniform(-0.35, 0.35, 2)
    light = 1 + slope[0] * (across / width - 0.5) + slope[1] * (down / height - 0.5)
    lit = picture * light[..., None] + rng.normal(0, NOISE_LEVELS, picture.shape)
    made: Pixels = np.clip(lit, 0, 255).astype(np.uint8)
    return made


def _fitted(picture: Pixels, size: Size) -> Pixels:
    width, height = size
    target: Pixels = np.empty((height, width, 3), np.uint8)
    fit_picture(picture, target)
    return target


def _spread(items: list[Item], count: int) -> list[Item]:
    if len(items) <= count:
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)]


def _clip(path: Path, size: Size, count: int) -> list[Pixels]:
    """Read the clip once; what is kept thins out as it gets longer, whatever its length."""
    source = open_source(path)
    kept: list[Pixels] = []
    step = 1
    try:
        width, height = source.open(None, realtime=False).size
        frame = Frame(np.empty((height, width, 3), np.uint8))
        for number in range(LONGEST_CLIP):
            if not source.read(frame):
                break
            if number % step:
                continue
            kept.append(_fitted(frame.pixels, size))
            if len(kept) > 2 * count:
                kept, step = kept[::2], 2 * step
    finally:
        source.close()
    return _spread(kept, count)
