"""Patches: pictures and texts with alpha, made ready to be drawn over frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import EffectError, Pixels, SettingsError, Size
from realtime.effects.views import FONT

Place = tuple[float, float]
LEAST_PX: Final = 512
"""Long side of the largest copy that is drawn in perspective."""


@dataclass(frozen=True, slots=True)
class Patch:
    """What is drawn, ready to be drawn: one multiplication and one addition in its box."""

    colour: Pixels
    """uint8 (h, w, 3) BGR, multiplied by alpha."""
    through: Pixels
    """uint8 (h, w, 3): 255 where what is below shows."""

    @classmethod
    def of(cls, picture: Pixels) -> Patch:
        """Make one of uint8 (h, w, 4) BGRA, multiplied by alpha."""
        alpha = cv2.bitwise_not(picture[..., 3])
        return cls(np.ascontiguousarray(picture[..., :3]), cv2.merge([alpha] * 3))  # type: ignore[arg-type]

    def draw(self, pixels: Pixels, left: int, top: int) -> None:
        """Draw it into ``pixels``, in place; what lies outside is cut off."""
        height, width = self.colour.shape[:2]
        right, bottom = min(left + width, pixels.shape[1]), min(top + height, pixels.shape[0])
        x, y = max(left, 0), max(top, 0)
        if x >= right or y >= bottom:
            return
        part = slice(y - top, bottom - top), slice(x - left, right - left)
        box = pixels[y:bottom, x:right]
        below = cv2.multiply(box, self.through[part], scale=1 / 255)
        cv2.add(below, self.colour[part], dst=box)


def read_with_alpha(path: Path, opacity: float = 1.0) -> Pixels:
    """Return a picture file as uint8 (h, w, 4) BGRA, multiplied by alpha and opacity.

    Raises:
        EffectError: it cannot be read.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise EffectError(f"cannot read the picture {path}: {error.strerror}") from error
    try:
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        raw = None
    if raw is None or raw.dtype not in (np.uint8, np.uint16):
        raise EffectError(f"{path} is no picture that can be read")
    eight_bit = (raw if raw.dtype == np.uint8 else raw // 257).astype(np.uint8)
    if eight_bit.ndim == 2:
        eight_bit = cv2.cvtColor(eight_bit, cv2.COLOR_GRAY2BGRA)  # type: ignore[assignment]
    elif eight_bit.shape[2] == 3:
        eight_bit = cv2.cvtColor(eight_bit, cv2.COLOR_BGR2BGRA)  # type: ignore[assignment]
    # Before any scaling: the colours of what cannot be seen must not bleed into the edges.
    alpha = eight_bit[..., 3:].astype(np.float32) * np.float32(opacity / 255)
    colour = np.rint(eight_bit[..., :3] * alpha)
    return np.dstack((colour, np.rint(alpha * 255))).astype(np.uint8)


def refuse_unknown_letters(text: str) -> None:
    """Check that OpenCV's font has every letter.

    Raises:
        SettingsError: it would draw question marks.
    """
    unknown = [_one_letter("?" * count) for count in (1, 2, 3, 4)]  # OpenCV 4: one a byte
    for letter in dict.fromkeys(text):
        if letter in "?\n ":
            continue
        drawn = _one_letter(letter)
        if any(np.array_equal(drawn, found) for found in unknown):
            raise SettingsError(
                f"text: the font of OpenCV {cv2.__version__} has no {letter!r}; leave it out, or"
                " draw the text into a picture with alpha and use picture:FILE.png"
            )


def draw_text(lines: Sequence[str], size_px: float, colour: tuple[int, int, int]) -> Pixels:
    """Return text with a black outline, uint8 (h, w, 4) BGRA, multiplied by alpha."""
    (_, tall), base = cv2.getTextSize("Ag", FONT, 1.0, 1)
    scale = size_px / (tall + base)
    weight = max(1, round(size_px / 16))
    sizes = [cv2.getTextSize(line, FONT, scale, weight) for line in lines]
    rim = weight + 1
    step = round(size_px * 1.25)
    width = max(size[0][0] for size in sizes) + 2 * rim + weight
    ink = np.zeros((step * len(lines) + 2 * rim, width), np.uint8)
    for number, line in enumerate(lines):
        place = rim, rim + round(step * number + size_px * tall / (tall + base))
        cv2.putText(ink, line, place, FONT, scale, (255,), weight, cv2.LINE_AA)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim - 1, 2 * rim - 1))
    outline = cv2.dilate(ink, disk)
    inked = ink[..., None] * (np.array(colour, np.float32) / 255)
    return np.dstack((np.rint(inked), outline)).astype(np.uint8)


def _one_letter(letter: str) -> NDArray[np.uint8]:
    picture = np.zeros((48, 128), np.uint8)
    cv2.putText(picture, letter, (4, 36), FONT, 1.0, (255,), 1, cv2.LINE_AA)
    return picture


def corner(at: Place, wanted: Size, size: Size) -> tuple[int, int]:
    """Return left and top of a box of ``wanted`` in a frame of ``size``."""
    places = (
        whole + round(place) - part if math.copysign(1, place) < 0 else round(place)
        for place, part, whole in zip(at, wanted, size)
    )
    left, top = places
    return left, top


def note_cut(
    notes: list[str], what: str, corner: tuple[int, int], wanted: Size, size: Size
) -> None:
    """Keep a note where a box of ``wanted`` at ``corner`` does not fit into ``size``."""
    inside = all(
        place >= 0 and place + part <= whole for place, part, whole in zip(corner, wanted, size)
    )
    if not inside:
        text = f"{what} ({wanted[0]}x{wanted[1]} pixels) does not fit into {size[0]}x{size[1]}"
        notes[:] = [note for note in notes if not note.startswith(what)] + [f"{text}: cut off"]


def halves(picture: Pixels) -> Iterator[Pixels]:
    """Yield the picture, and copies of half the size, down to a few pixels.

    A small one is enlarged first: half a pixel of its soft edge must be little in the frame.
    """
    times = -(-LEAST_PX // max(picture.shape[:2]))
    if times > 1:
        picture = cv2.resize(picture, None, fx=times, fy=times)  # type: ignore[assignment]
    while True:
        yield picture
        height, width = picture.shape[:2]
        if min(height, width) < 4:
            return
        half = (width // 2, height // 2)
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]


def project(corners: NDArray[np.float64], plane: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Move points from marker sides to pixels; None where the plane is seen from its edge, or a
    point would lie behind the camera.
    """
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        return None
    if abs(cv2.contourArea(corners.astype(np.float32))) < 1:
        return None
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    turn = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
    points = np.column_stack((plane, np.ones(len(plane)))) @ turn.T
    if (points[:, 2] <= 1e-6).any():
        return None
    found: NDArray[np.float64] = points[:, :2] / points[:, 2:]
    return found
