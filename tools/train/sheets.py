"""Sample sheets: what a training can do by now, as one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from realtime.sources.pictures import write_picture
from tools.train.pairs import Picture

CELL_PX: Final = 480
CAPTION_PX: Final = 32
BACKGROUND: Final = 24
INK: Final = (235, 235, 235)
SHEET: Final = re.compile(r"sheet-[0-9]{6,}\.png")


def sheet_file(out: Path, step: int) -> Path:
    """Where the sheet after ``step`` steps is."""
    return out / f"sheet-{step:06d}.png"


def sheets_of(out: Path) -> list[Path]:
    """Return the sheets in a folder, by what `sheet_file` calls them."""
    return [path for path in sorted(out.glob("sheet-*.png")) if SHEET.fullmatch(path.name)]


def write_sheet(
    path: Path, rows: Sequence[Sequence[Picture]], captions: Sequence[str], title: str
) -> Picture:
    """Draw rows of pictures below a row of captions, write them as PNG, and return the sheet.

    Args:
        path: the file; replaced in one step when it exists.
        rows: uint8 (H, W, 3) BGR, of any sizes; the first of a row decides its height.
        captions: one a column.
        title: beside the first caption: how far the training is.

    Raises:
        SinkError: it cannot be written.
    """
    columns = max(len(row) for row in rows)
    caption = np.full((CAPTION_PX, columns * CELL_PX, 3), BACKGROUND, np.uint8)
    for column, text in enumerate(captions[:columns]):
        words = f"{text}, {title}" if not column else text
        place = (column * CELL_PX + 8, CAPTION_PX - 10)
        cv2.putText(caption, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
    drawn = [caption, *(_row(row, columns) for row in rows)]
    sheet = np.vstack(drawn)
    write_picture(path, sheet)
    return sheet


def _row(pictures: Sequence[Picture], columns: int) -> Picture:
    height, width = pictures[0].shape[:2]
    height_px = max(1, round(CELL_PX * height / width))
    row = np.full((height_px, columns * CELL_PX, 3), BACKGROUND, np.uint8)
    for column, picture in enumerate(pictures):
        fitted = _fitted(picture, height_px)
        top = (height_px - fitted.shape[0]) // 2
        left = column * CELL_PX + (CELL_PX - fitted.shape[1]) // 2
        row[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return row


def _fitted(picture: Picture, height_px: int) -> Picture:
    """The whole picture, as large as fits into a cell."""
    height, width = picture.shape[:2]
    scale = min(CELL_PX / width, height_px / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=method).astype(np.uint8, copy=False)
