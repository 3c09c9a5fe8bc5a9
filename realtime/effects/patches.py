"""Patches: pictures and texts, made ready to be drawn over frames, or on a marker's plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import EffectError, Pixels, SettingsError, Size
from realtime.effects.calibration import Calibration
from realtime.effects.mask import BAND_PIXELS, blend
from realtime.effects.views import FONT

Floats = NDArray[np.float64]
Place = tuple[float, float]
LENS_REACH: Final = 0.25
"""Beyond each side of the frame, of its size."""
LEAST_PX: Final = 8.0
"""What is drawn smaller is taken from a picture as for this size."""


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


class Halves:
    """A picture and copies of half the size, made when first wanted, so that no pixel is skipped
    where it is drawn small.
    """

    def __init__(self, picture: Pixels) -> None:
        self._made = [picture]

    def fitting(self, quad: Floats) -> Pixels:
        """Return the copy that is less than twice as large as it is drawn, or the smallest one."""
        times, place = shrinks(self._made[0], quad), 0
        while times >= 2 and min(self._made[place].shape[:2]) >= 2:
            times, place = times / 2, place + 1
            if place == len(self._made):
                self._made.append(divided(self._made[-1], 2))
        return self._made[place]


def shrinks(picture: Pixels, quad: Floats) -> float:
    """Return how many times larger a picture is than it is drawn, where it shrinks least."""
    lengths = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    height, width = picture.shape[:2]
    across, down = max(lengths[0], lengths[2]), max(lengths[1], lengths[3])
    return float(min(width / max(across, LEAST_PX), height / max(down, LEAST_PX)))


def divided(picture: Pixels, times: int) -> Pixels:
    """Return a picture with each side divided by ``times``, the mean of the area."""
    if times < 2:
        return picture
    size = (max(1, picture.shape[1] // times), max(1, picture.shape[0] // times))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def on_plane(
    corners: Floats, plane: Floats, calibration: Calibration | None = None
) -> Floats | None:
    """Return where points on the plane of a marker are in the picture.

    Args:
        corners: (4, 2), of the marker, in pixels; clockwise from its own top left.
        plane: (N, 2), in sides of the marker, from its top left to the right and down.
        calibration: makes it right for a lens that bends lines; only the points are.

    Returns:
        (N, 2) in pixels; None where that plane is seen from its edge, or a point would lie behind
        the camera.
    """
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        return None
    flat = corners if calibration is None else calibration.undistort(corners)
    found = _project(flat, plane)
    if found is None or calibration is None:
        return found
    # Far outside of what was calibrated the lens's polynomial means nothing: straight lines there.
    reach = LENS_REACH * np.array(calibration.size)
    if (found < -reach).any() or (found > reach + calibration.size).any():
        return _project(corners, plane)
    return calibration.distort(found)


def _project(corners: Floats, plane: Floats) -> Floats | None:
    if not np.isfinite(corners).all() or abs(cv2.contourArea(corners.astype(np.float32))) < 1:
        return None
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    turn = cv2.getPerspectiveTransform(square, corners.astype(np.float32))
    points = np.column_stack((plane, np.ones(len(plane)))) @ turn.T
    if (points[:, 2] <= 1e-6).any():
        return None
    found: Floats = points[:, :2] / points[:, 2:]
    return found


def draw_on(pixels: Pixels, picture: Pixels, quad: Floats) -> None:
    """Draw ``picture`` onto a convex quadrilateral, in place, with edges as soft as a lens makes.

    Args:
        pixels: uint8 (H, W, 3), changed only in the quadrilateral's box.
        picture: uint8 (h, w, 3) BGR, or (h, w, 4) BGRA, multiplied by alpha; its outer edges, not
            the centres of its outer pixels, are what meets the quadrilateral. It may be
            ``pixels`` itself.
        quad: (4, 2), x and y where the picture's top left, top right, bottom right and bottom
            left go; pixel centres are whole numbers.
    """
    frame_height, frame_width = pixels.shape[:2]
    low = np.clip(np.floor(quad.min(axis=0)) - 1, 0, (frame_width, frame_height)).astype(int)
    high = np.clip(np.ceil(quad.max(axis=0)) + 2, 0, (frame_width, frame_height)).astype(int)
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    if left >= right or top >= bottom:
        return
    height, width = picture.shape[:2]
    edges = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    step = max(1, BAND_PIXELS // (right - left))
    made = []
    for start in range(top, bottom, step):  # all before any is drawn: it may be the same picture
        size = (right - left, min(step, bottom - start))
        placed = quad - (left, start)
        matrix = cv2.getPerspectiveTransform(edges, placed.astype(np.float32))
        warped = cv2.warpPerspective(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        made.append((start, np.asarray(warped, np.uint8), coverage(placed, size)))
    for start, part, mask in made:
        if picture.shape[2] == 4:
            covered = cv2.multiply(part, cv2.merge([mask] * 4), scale=1 / 255)
            Patch.of(np.asarray(covered, np.uint8)).draw(pixels, left, start)
        else:
            box = pixels[start : start + len(part), left:right]
            blend(part, box, mask, box)


def coverage(quad: Floats, size: Size) -> Pixels:
    """Return how much of each pixel a convex quadrilateral covers, uint8 (height, width).

    By the distance of the pixel's centre from the nearest edge: exact along edges, within a few
    percent at corners.
    """
    columns = np.arange(size[0], dtype=np.float32)
    rows = np.arange(size[1], dtype=np.float32)[:, None]
    nearest: Any = None
    turn = np.sign(cv2.contourArea(quad.astype(np.float32), oriented=True))
    for (x, y), end in zip(quad, np.roll(quad, -1, axis=0)):
        across, down = end - (x, y)
        length = float(np.hypot(across, down)) * turn
        if not length:
            continue
        # Positive inside; one row and one column, added up to a plane.
        row = (np.float32(across / length) * (rows - np.float32(y))).astype(np.float32)
        column = (np.float32(down / length) * (columns - np.float32(x))).astype(np.float32)
        distance = row - column
        nearest = distance if nearest is None else np.minimum(nearest, distance, out=nearest)
    if nearest is None:
        return np.zeros((size[1], size[0]), np.uint8)
    return np.asarray(cv2.convertScaleAbs(np.clip(nearest + 0.5, 0, 1), alpha=255), np.uint8)
