"""What is evaluated on: folders of pictures, held-out pairs, and clips, at a size that fits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from engines import FrameModel, Pixels, SettingsError, Size, SourceError
from realtime import Frame, open_source
from realtime.sources.base import fit_picture
from realtime.sources.pictures import is_picture, list_pictures

VIDEO_SUFFIXES: Final = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
NAMED: Final = 3
"""How many of many a message names."""


def pictures_of(path: Path, option: str) -> list[Path]:
    """Return the pictures of a folder, or the one picture that ``path`` is.

    Raises:
        SourceError: it is not there, or has no pictures; the message names ``option``.
    """
    if path.is_dir():
        found = list_pictures(path)
        if not found:
            raise SourceError(f"no pictures (PNG, JPEG, WebP, ...) in {path} ({option})")
        return found
    if path.is_file() and is_picture(path):
        return [path]
    reason = "is no picture" if path.exists() else "is not there"
    raise SourceError(f"{option} takes a folder of pictures; {path} {reason}")


def match_names(inputs: Sequence[Path], targets: Sequence[Path]) -> list[Path]:
    """Return the target of each input: the one of the same name, whatever the suffix.

    Raises:
        SettingsError: a name is in one of the two only, or twice in one; they are named.
    """
    by_name = []
    for option, files in (("--input", inputs), ("--target", targets)):
        known: dict[str, Path] = {}
        for file in files:
            if file.stem in known:
                raise SettingsError(
                    f"{option} has two pictures of one name: {known[file.stem].name} and"
                    f" {file.name}"
                )
            known[file.stem] = file
        by_name.append(known)
    given, right = by_name
    missing = [
        f"only in {option}: {_some(names)}"
        for option, names in (
            ("--input", [name for name in given if name not in right]),
            ("--target", [name for name in right if name not in given]),
        )
        if names
    ]
    if missing:
        raise SettingsError(
            f"--input and --target must hold pictures of the same names; {'; '.join(missing)}"
        )
    return [right[file.stem] for file in inputs]


def clips_of(path: Path) -> list[Path]:
    """Return the clips that ``path`` means: a video, a folder of pictures, or a folder of videos.

    Raises:
        SourceError: it is neither.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceError(f"no such clip or folder of clips: {path}")
    if list_pictures(path):
        return [path]
    videos = [item for item in sorted(path.iterdir()) if _is_video(item)]
    if not videos:
        raise SourceError(f"no videos ({', '.join(VIDEO_SUFFIXES)}) and no pictures in {path}")
    return videos


def clip_frames(
    path: Path, fit: Callable[[Pixels], Pixels], note: Callable[[str], None]
) -> Iterator[Pixels]:
    """Yield every frame of a clip, fitted, one by one; ``note`` hears what is wrong with it.

    Raises:
        SourceError: it cannot be read.
    """
    source = open_source(path)
    try:
        width, height = source.open(None, realtime=False).size
        frame = Frame(np.empty((height, width, 3), np.uint8))
        while source.read(frame):
            yield fit(frame.pixels)
        for text in source.notes:
            note(text)
    finally:
        source.close()


def common_size(size: Size, models: Sequence[FrameModel]) -> Size:
    """Return the size that all filters take for pictures of ``size``.

    Raises:
        SettingsError: the pictures are too small, or no size fits all filters.
    """
    fixed = next((model.fixed_size for model in models if model.fixed_size is not None), None)
    stride = math.lcm(*(model.card.stride for model in models))
    width, height = fixed or (size[0] // stride * stride, size[1] // stride * stride)
    if not min(width, height):
        raise SettingsError(
            f"pictures must be at least {stride} pixels wide and high for this filter, found"
            f" {size[0]}x{size[1]}"
        )
    for model in models:
        if model.fit((width, height)) != (width, height):
            raise SettingsError(
                f"the filters take no common size: {model.name} does not take {width}x{height}"
            )
    return width, height


def fitted(picture: Pixels, models: Sequence[FrameModel]) -> Pixels:
    """Return the picture as all filters take it: without the last rows and columns that do not
    fill a stride; scaled where a filter takes one size only.

    Raises:
        SettingsError: see `common_size`.
    """
    width, height = common_size((picture.shape[1], picture.shape[0]), models)
    if all(model.fixed_size is None for model in models):
        return np.ascontiguousarray(picture[:height, :width])
    target: Pixels = np.empty((height, width, 3), np.uint8)
    fit_picture(picture, target)
    return target


def _is_video(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not hidden


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(itertools.islice(names, NAMED)) + (f" and {more} more" if more > 0 else "")
