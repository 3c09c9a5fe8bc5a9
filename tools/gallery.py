"""The gallery sheet: filters side by side on the same frames, each run by an engine as it is live.

A column a filter, a row a frame, the input first; more columns than a screen shows go on below.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engines import FrameModel, Pix2liveError, Pixels, Size, SourceError, open_engine
from realtime import open_source
from realtime.sources.base import fit_picture
from tools.conversion.frames import ProofFrames, proof_frames
from tools.demo import CLIP_CREDIT, find_clip

WORK_SIZE: Final = (640, 360)
"""What filters are made for: strokes and lines are as fine as they are live."""
LEAST_ASPECT, MOST_ASPECT = 0.8, 2.0
"""Width to height of a cell; more extreme pictures are cropped."""
CLIP_FRAMES, FOLDER_FRAMES = 3, 4

MOST_COLUMNS: Final = 5
CELL_PX: Final = 384
"""Width of a picture on the sheet: five columns are as wide as a screen."""
GAP_PX: Final = 6
CAPTION_PX: Final = 58
BACKGROUND: Final = 24
INK: Final = (240, 240, 240)
FADED: Final = (165, 165, 165)
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
NAME_SCALE, TITLE_SCALE = 0.75, 0.5
PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("“”„", '"'),
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "æ": "ae",
        "Æ": "AE",
        "œ": "oe",
        "ł": "l",
        "Ł": "L",
    }
)
"""Letters that OpenCV's fonts lack and that do not come apart into one they have."""

Tick = Callable[[str, int, int], None]
"""Called with the name of a filter, its number from 0, and how many there are."""


@dataclass(frozen=True, slots=True)
class Column:
    """What one filter made of the frames: uint8 (H, W, 3) BGR, of any sizes."""

    name: str
    title: str
    pictures: Sequence[Pixels]


def gallery_frames(path: Path | None) -> ProofFrames:
    """Return the frames of a sheet, all of one size, about 640x360 pixels.

    Args:
        path: a picture, a folder of pictures (four of them, evenly spread) or a clip (three
            frames); None takes the film clip of ``pix2live demo``, and made frames where it is not
            installed.

    Raises:
        SourceError: it is not there, holds no pictures, or cannot be read.
    """
    if path is None:
        clip = find_clip()
        if clip is None:
            return proof_frames(None, WORK_SIZE, CLIP_FRAMES)
        found = proof_frames(clip, WORK_SIZE, CLIP_FRAMES)
        return ProofFrames(found.frames, CLIP_CREDIT, found.real)
    if not (path.is_file() or path.is_dir()):
        raise SourceError(f"--input takes a picture, a folder of pictures or a clip, found {path}")
    source = open_source(path)
    try:
        size = source.open(None, realtime=False).size
    finally:
        source.close()
    return proof_frames(path, _work_size(size), FOLDER_FRAMES if path.is_dir() else CLIP_FRAMES)


def make_columns(
    models: Sequence[FrameModel], frames: ProofFrames, tick: Tick = lambda *_: None
) -> tuple[list[Column], list[str]]:
    """Translate every frame by every filter; return the columns and what the engines had to say.

    Each frame is the first of its clip for filters that have a memory.

    Raises:
        EngineError: a filter cannot be run here; the message names it.
    """
    columns = [Column("input", frames.description, frames.frames)]
    said: dict[str, list[str]] = {}
    for number, model in enumerate(models):
        tick(model.name, number, len(models))
        try:
            pictures, notes = _translated(model, frames.frames)
        except Pix2liveError as error:
            raise type(error)(f"{model.name}: {error}") from error
        columns.append(Column(model.name, model.card.title, pictures))
        for note in notes:
            said.setdefault(note, []).append(model.name)
    everybody = [model.name for model in models]
    notes = [
        note if names == everybody else f"{', '.join(names)}: {note}"
        for note, names in said.items()
    ]
    return columns, notes


def draw_sheet(columns: Sequence[Column]) -> Pixels:
    """Return the sheet, uint8 (H, W, 3) BGR: rows of pictures with a caption above each column.

    At most five columns stand beside each other; the rest goes into further blocks below, as evenly
    as it can be.
    """
    blocks = -(-len(columns) // MOST_COLUMNS)
    beside = -(-len(columns) // blocks)
    parts = [columns[start : start + beside] for start in range(0, len(columns), beside)]
    width = GAP_PX + beside * (CELL_PX + GAP_PX)
    # The first frame decides how high the cells are: all rows of both blocks line up.
    height, of_width = columns[0].pictures[0].shape[:2]
    cell = (CELL_PX, round(CELL_PX * height / of_width))
    return np.vstack([_block(part, cell, width) for part in parts])


def _work_size(size: Size) -> Size:
    """Return (width, height) with the aspect ratio of ``size`` and the area of live video."""
    aspect = min(max(size[0] / size[1], LEAST_ASPECT), MOST_ASPECT)
    height = (WORK_SIZE[0] * WORK_SIZE[1] / aspect) ** 0.5
    return round(height * aspect / 4) * 4, round(height / 4) * 4


def _translated(model: FrameModel, frames: Sequence[Pixels]) -> tuple[list[Pixels], list[str]]:
    engine = open_engine(model)
    try:
        engine.open(engine.fit((frames[0].shape[1], frames[0].shape[0])))
        pictures = []
        for frame in frames:
            given, made = engine.slots(2)
            fit_picture(frame, given)
            engine.reset()
            pictures.append(engine.infer(given, made))
        return pictures, list(engine.notes)
    finally:
        engine.close()


def _block(columns: Sequence[Column], cell: Size, width: int) -> Pixels:
    rows = len(columns[0].pictures)
    height = CAPTION_PX + rows * (cell[1] + GAP_PX)
    block: Pixels = np.full((height, width, 3), BACKGROUND, np.uint8)
    for place, column in enumerate(columns):
        left = GAP_PX + place * (CELL_PX + GAP_PX)
        _caption(block[:CAPTION_PX, left : left + CELL_PX], column)
        for row, picture in enumerate(column.pictures):
            top = CAPTION_PX + row * (cell[1] + GAP_PX)
            _place(block[top : top + cell[1], left : left + CELL_PX], picture)
    return block


def _caption(area: Pixels, column: Column) -> None:
    name, title = _plain(column.name), _plain(column.title)
    _write(area, name, NAME_SCALE, INK, 26)
    if title.casefold() != name.casefold():
        _write(area, title, TITLE_SCALE, FADED, 48)


def _write(area: Pixels, text: str, scale: float, colour: tuple[int, ...], base_px: int) -> None:
    """Write one line, cut off where it does not fit."""
    shown, left = text, 4

    def is_too_wide() -> bool:
        return bool(cv2.getTextSize(shown, FONT, scale, 1)[0][0] > area.shape[1] - 2 * left)

    while len(shown) > 4 and is_too_wide():
        shown = shown[:-4].rstrip() + "..."
    cv2.putText(area, shown, (left, base_px), FONT, scale, colour, 1, cv2.LINE_AA)


def _plain(text: str) -> str:
    """Return ``text`` in ASCII: OpenCV's fonts show other letters as question marks."""
    apart = unicodedata.normalize("NFKD", text.translate(PLAIN))
    return apart.encode("ascii", "ignore").decode()


def _place(area: Pixels, picture: Pixels) -> None:
    """Draw the whole picture into the middle of ``area``, as large as it fits."""
    height, width = picture.shape[:2]
    scale = min(area.shape[1] / width, area.shape[0] / height)
    # A filter for one size has cells of its own shape; a pixel less for the stride is none.
    size = [
        side if abs(side - length * scale) < 0.02 * side else round(length * scale)
        for side, length in ((area.shape[1], width), (area.shape[0], height))
    ]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = cv2.resize(picture, size, interpolation=method)
    top, left = (area.shape[0] - size[1]) // 2, (area.shape[1] - size[0]) // 2
    area[top : top + size[1], left : left + size[0]] = fitted
