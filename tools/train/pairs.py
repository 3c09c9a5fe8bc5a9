"""Training pairs: photographs with what a teacher makes of them, and the damage a webcam does.

All pictures are uint8, (H, W, 3), BGR, 0 to 255.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import SettingsError, SinkError, SourceError
from realtime.sources.pictures import PICTURE_SUFFIXES, is_picture, read_picture, write_picture
from tools.train.checked_pictures import read_checked, reduced

Picture = NDArray[np.uint8]
Teacher = Callable[[Picture], Picture]

SHORT_SIDES_PX: Final = (360, 540)
NOISE_SIDE_PX: Final = 1024
LARGEST_CROP_PX: Final = NOISE_SIDE_PX // 2
MOST_NOISE: Final = 9.0  # of 255: more than a dim room gives, so that flat tones stay flat


@dataclass(frozen=True, slots=True)
class Pair:
    """A photograph and the teacher's version, of the same size."""

    photo: Picture
    target: Picture

    @property
    def nbytes(self) -> int:
        return self.photo.nbytes + self.target.nbytes


def load_teacher(reference: str) -> Teacher:
    """Return the function that ``module:function`` names. The module is executed.

    Modules of the folder where one is are found, too.

    Raises:
        SettingsError: there is no such module or function, or the module fails.
    """
    module_name, _, function_name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        teacher = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # a person's own module: anything
        raise SettingsError(
            f"no teacher {reference!r}: {type(error).__name__}: {error}; expected module:function,"
            " for instance tools.train.teachers:comic"
        ) from error
    if not callable(teacher):
        raise SettingsError(f"the teacher {reference!r} is no function")
    found: Teacher = teacher
    return found


def picture_files(folder: Path) -> list[Path]:
    """All pictures below ``folder``, sorted; hidden ones are no pictures.

    Raises:
        SourceError: there are none.
    """
    files = [path for path in _shown_files(folder) if is_picture(path)]
    if not files:
        raise SourceError(f"no pictures {PICTURE_SUFFIXES} below {folder}")
    return files


def frames_of(path: Path, count: int) -> list[Picture]:
    """About ``count`` pictures of a folder or a video, evenly spread; a folder may hold videos.

    Large ones are reduced to the size of frames.

    Raises:
        SourceError: nothing there can be read.
    """
    if path.is_dir():
        files = _shown_files(path)
        if not files:
            raise SourceError(f"no pictures and no videos below {path}")
        pictures = [file for file in files if is_picture(file)]
        if pictures:
            return [_checked(file) for file in pictures[:: _step(len(pictures), count)]]
        clips = files[:: _step(len(files), count)]
        return [frame for clip in clips for frame in frames_of(clip, -(-count // len(clips)))]
    if is_picture(path):
        return [_checked(path)]
    frames = _video_frames(path, count)
    if not frames:
        raise SourceError(f"cannot read {path} as a video or a picture")
    return frames


def _checked(path: Path) -> Picture:
    try:
        return reduced(read_checked(path), SHORT_SIDES_PX[1])
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


def lessons(
    folder: Path, teacher: Teacher, cache: Path, *, variants: int, smallest_px: int, seed: int
) -> dict[str, Callable[[], Pair]]:
    """Return what makes each pair: the name of its photograph below ``folder`` -> function.

    The function raises SourceError where the photograph cannot be read, SettingsError where the
    teacher fails or does not return a picture of the same size, SinkError where ``cache`` cannot be
    written. What was computed before is read from ``cache``.

    Each photograph is used ``variants`` times: once as it is, then in other light, each time at
    another size. The teacher sees that light too: it decides what a dim room looks like.

    Raises:
        SourceError: there are no photographs.
        SinkError: ``cache`` cannot be made.
    """
    files = picture_files(folder)
    make_cache(cache)
    stamp = _stamp(teacher)

    def make(file: Path, entry: Path, variant: int, number: int) -> Pair:
        if entry.exists():
            with contextlib.suppress(SourceError):  # what is damaged is made again
                both = read_picture(entry)
                half = both.shape[0] // 2
                return Pair(np.ascontiguousarray(both[:half]), np.ascontiguousarray(both[half:]))
        random = np.random.default_rng((seed, number))
        whole = read_checked(file)
        photo = _resized(whole, int(random.integers(*SHORT_SIDES_PX)), smallest_px)
        if variant:
            photo = in_other_light(photo, random)
        pair = Pair(photo, _taught(teacher, photo))
        write_picture(entry, np.vstack([pair.photo, pair.target]))
        return pair

    found: dict[str, Callable[[], Pair]] = {}
    for number in range(variants * len(files)):
        variant, place = divmod(number, len(files))
        file = files[place]
        parts = (file.name, file.stat().st_size, number, seed, smallest_px, stamp)
        key = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
        entry = cache / f"{file.stem[:24]}-{variant}-{key[:16]}.png"
        name = file.relative_to(folder).as_posix() + (f", variant {variant + 1}" if variant else "")
        found[name] = partial(make, file, entry, variant, number)
    return found


def make_cache(folder: Path) -> None:
    """Make the folder for what takes long to compute.

    Raises:
        SinkError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the folder {folder}: {error.strerror}") from error


def in_other_light(photo: Picture, random: np.random.Generator) -> Picture:
    """Another exposure, contrast, haze and white balance, as rooms and cameras differ."""
    values = photo.astype(np.float32) / 255
    values = values ** random.uniform(0.65, 1.4) * random.uniform(0.92, 1.08, 3)
    contrast = random.uniform(0.55, 1.0)
    haze = random.uniform(0, 1 - contrast)
    return (np.clip(haze + contrast * values, 0, 1) * 255 + 0.5).astype(np.uint8)


class Degrader:
    """Makes a clean crop look as if a cheap camera had taken it: blur, noise, JPEG blocks.

    The target stays clean, so the network learns to see through the damage. The light is left
    alone: a target that does not follow it would teach the network to be vague about where a
    tone begins.
    """

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        size = (NOISE_SIDE_PX, NOISE_SIDE_PX)
        grain = random.standard_normal((*size, 1), dtype=np.float32)
        colour = cv2.GaussianBlur(random.standard_normal((*size, 3), dtype=np.float32), (0, 0), 1.5)
        # Made once: drawing fresh noise for each crop would take longer than a training step.
        self._noise = grain + 1.5 * colour

    def __call__(self, crop: Picture, random: np.random.Generator) -> Picture:
        """Return the crop (S, S, 3) as such a camera would give it."""
        if random.random() < 0.5:
            crop = cv2.GaussianBlur(crop, (0, 0), random.uniform(0.3, 1.0)).astype(np.uint8)
        height, width = crop.shape[:2]
        top, left = random.integers(0, NOISE_SIDE_PX - max(height, width), 2)
        noise = self._noise[top : top + height, left : left + width] * random.uniform(0, MOST_NOISE)
        noisy = np.clip(crop + noise, 0, 255).astype(np.uint8)
        if random.random() < 0.6:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(45, 96))]
            encoded = cv2.imencode(".jpg", noisy, quality)[1]
            noisy = cv2.imdecode(encoded, cv2.IMREAD_COLOR).astype(np.uint8)  # type: ignore[union-attr]
        return noisy


def _taught(teacher: Teacher, photo: Picture) -> Picture:
    try:
        target: object = teacher(photo)
    except Exception as error:  # a person's own function: anything
        raise SettingsError(f"the teacher failed: {type(error).__name__}: {error}") from error
    if not isinstance(target, np.ndarray):
        raise SettingsError(f"the teacher must return a picture, found {type(target).__name__}")
    if target.shape != photo.shape or target.dtype != np.uint8:
        raise SettingsError(
            f"the teacher must return uint8 {photo.shape} for such a picture,"
            f" found {target.dtype} {target.shape}"
        )
    return target


def _shown_files(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted, but for hidden ones and those in hidden folders."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]


def _video_frames(path: Path, count: int) -> list[Picture]:
    """Decode twice, to count and to keep: all frames of a video would not fit into memory."""
    capture = cv2.VideoCapture(str(path))
    total = 0
    while capture.grab():
        total += 1
    capture.release()
    frames: list[Picture] = []
    capture = cv2.VideoCapture(str(path))
    for number in range(total):
        if not capture.grab():
            break
        if number % _step(total, count) == 0:
            done, picture = capture.retrieve()
            if done:
                frames.append(reduced(picture.astype(np.uint8, copy=False), SHORT_SIDES_PX[1]))
    capture.release()
    return frames


def _step(total: int, count: int) -> int:
    """Every so many leave about ``count`` of ``total``."""
    return max(1, -(-total // count))


def _resized(picture: Picture, short_side_px: int, smallest_px: int) -> Picture:
    scale = max(short_side_px, smallest_px) / min(picture.shape[:2])
    size = [max(smallest_px, round(side * scale)) for side in picture.shape[1::-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=method).astype(np.uint8, copy=False)


def _stamp(teacher: Teacher) -> str:
    """Changes when the teacher's module changes, so that no stale target is read."""
    module = inspect.getmodule(teacher)
    try:
        return f"{teacher.__name__} {inspect.getsource(module) if module else ''}"
    except OSError:
        return teacher.__name__
