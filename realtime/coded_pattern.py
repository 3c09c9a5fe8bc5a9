"""A pattern with a number in it that a camera reads off a screen: drawn, found and decoded.

Four ArUco markers (Garrido-Jurado et al. 2014) in the corners locate the plane, so that it may be
filmed from any side. Between them the number stands twice, one copy above the other, as a reflected
binary code (F. Gray 1953, US patent 2632058): neighbours differ in one cell, so an exposure that
saw two of them reads as one or the other. Each bit is a pair of cells, one the inverse of the
other, and only their difference counts: brightness, colour and gamma do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, Size

Quad = NDArray[np.float32]

BITS: Final = 10
NUMBERS: Final = 1 << BITS
"""Numbers go round: they are modulo this."""
WIDE, HIGH = 24, 14
"""The pattern's sides, in units; see `pattern_size`."""

_MARKERS: Final = {30: (1, 1), 31: (18, 1), 32: (18, 8), 33: (1, 8)}
"""ArUco 4x4_50 id -> its top left corner in units, clockwise."""
_MARKER: Final = 5
_COLUMNS, _ROWS = 5, 4
_CELL: Final = (2.0, 1.375)
_COPIES: Final = ((7.0, 1.0), (7.0, 7.5))
"""Top left corners of the two copies of the code, in units."""
_CELLS: Final = len(_COPIES) * _ROWS * _COLUMNS
_BLACK, _WHITE = 12, 235
"""Not the extremes: a screen that outshines its room is blown out in the picture."""

_LARGEST_PX: Final = 1280
"""Pictures wider than this are shrunk before markers are looked for: that takes long."""
_LEAST_MARKERS: Final = 3
_LEAST_CONTRAST: Final = 20.0
_CLEAR: Final = 0.3
"""A pair with less than this part of the usual difference changed while it was exposed."""
_MOST_UNCLEAR: Final = 2
_MOST_APART: Final = 2
"""Steps between the two copies: a rolling shutter and the screen's own line by line."""
_MOST_OFF: Final = 0.4
_MOST_OFF_PX: Final = 2.5
"""A corner of a marker further from where the others say that it is, in units and pixels."""

NOT_FOUND: Final = "not found"
CUT_OFF: Final = "cut off"
PALE: Final = "pale"
MIXED: Final = "mixed"
PROBLEMS: Final = {
    NOT_FOUND: "too few of the four corner squares are seen: move the camera nearer, hold it"
    " still, or keep reflections off the screen",
    CUT_OFF: "a part of the pattern is outside of the camera's picture: move it away or turn it",
    PALE: "black and white are too much alike: darken the room, turn reflections away, or make the"
    " screen brighter",
    MIXED: "several codes run into each other: give the camera more light, so that it exposes for"
    " less time, or change the pattern less often (--rate)",
}
"""Why a picture could not be read -> what a person can do about it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read off one picture."""

    numbers: tuple[int, int] | None = None
    """Of the upper and the lower copy, 0 to `NUMBERS` - 1; at most two steps apart, because a
    camera and a screen go from line to line. None: see ``problem``."""
    problem: str = ""
    """One of `PROBLEMS`, or empty."""
    markers: int = 0
    """How many of the four were seen."""
    unit_px: float = 0.0
    """How large a unit is in the picture; 0 where the pattern was not found."""
    contrast: float = 0.0
    """Of white and black cells, of 255."""


def pattern_size(unit_px: int) -> Size:
    """Return (width, height) of the pattern in pixels."""
    return WIDE * unit_px, HIGH * unit_px


def draw_pattern(pixels: Pixels, number: int) -> None:
    """Draw ``number`` (modulo 1024) over all of ``pixels``.

    Args:
        pixels: uint8, (14 * unit, 24 * unit, 3) for a whole unit of 2 pixels or more; grey, so in
            any order of colours.
        number: any integer.

    Raises:
        ValueError: the size is none of a pattern.
    """
    height, width = pixels.shape[:2]
    unit_px = width // WIDE
    if unit_px < 2 or (width, height) != pattern_size(unit_px):
        raise ValueError(f"a pattern is {WIDE} by {HIGH} units, found {width}x{height} pixels")
    levels = np.full((256, 1), _BLACK, np.uint8)
    levels[: _CELLS + 1, 0] = np.where([*_cells(number), True], _WHITE, _BLACK)
    np.copyto(pixels, np.asarray(cv2.LUT(_drawing(unit_px), levels)))


def read_pattern(picture: Pixels) -> Reading:
    """Return what a camera's picture of the pattern says.

    Args:
        picture: uint8, (H, W, 3) BGR or (H, W) grey, not mirrored. Where the pattern is in it more
            than once, the largest one is read.
    """
    coloured = picture.ndim == 3
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if coloured else picture, np.uint8)
    found = _find_markers(grey)
    seen = len(found)
    if seen < _LEAST_MARKERS:
        return Reading(problem=NOT_FOUND, markers=seen)
    unit_px = float(np.median([abs(_area(quad)) for quad in found.values()]) ** 0.5 / _MARKER)
    homography = _fit(found, unit_px)
    if homography is None:
        return Reading(problem=NOT_FOUND, markers=seen, unit_px=unit_px)
    places = _project(homography, _sample_places()).astype(np.float32)
    height, width = grey.shape[:2]
    if places.min() < 0 or (places.max(axis=0) > (width - 1, height - 1)).any():
        return Reading(problem=CUT_OFF, markers=seen, unit_px=unit_px)
    columns, rows = places[None, :, 0], places[None, :, 1]
    sampled = np.asarray(cv2.remap(grey, columns, rows, cv2.INTER_LINEAR), np.float64)
    levels = sampled.reshape(len(_COPIES), _ROWS * _COLUMNS, -1).mean(axis=2)
    return _decode(levels, seen, unit_px)


def steps_between(first: int, second: int) -> int:
    """Return how many steps of the code ``second`` is after ``first``: -512 to 511."""
    return (second - first + NUMBERS // 2) % NUMBERS - NUMBERS // 2


def _decode(levels: NDArray[np.float64], seen: int, unit_px: float) -> Reading:
    """Decode the mean levels of the cells, (2, 20)."""
    pairs = levels.reshape(len(_COPIES), _ROWS // 2, 2, _COLUMNS)
    apart = (pairs[:, :, 0] - pairs[:, :, 1]).reshape(len(_COPIES), BITS)
    contrasts = np.median(np.abs(apart), axis=1)
    contrast = float(contrasts.min())
    if np.abs(apart).max(axis=1).min() < _LEAST_CONTRAST:
        return Reading(problem=PALE, markers=seen, unit_px=unit_px, contrast=contrast)
    least = np.maximum(_CLEAR * contrasts, _LEAST_CONTRAST / 2)
    unclear = (np.abs(apart) < least[:, None]).sum(axis=1).max()
    upper, lower = (_number(bits) for bits in apart > 0)
    if unclear > _MOST_UNCLEAR or abs(steps_between(upper, lower)) > _MOST_APART:
        return Reading(problem=MIXED, markers=seen, unit_px=unit_px, contrast=contrast)
    return Reading((upper, lower), "", seen, unit_px, contrast)


def _find_markers(grey: NDArray[np.uint8]) -> dict[int, Quad]:
    """Return id -> corners, (4, 2), clockwise from the marker's own top left."""
    shrink = max(1, -(-grey.shape[1] // _LARGEST_PX))
    if shrink > 1:
        size = grey.shape[1] // shrink, grey.shape[0] // shrink
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = _largest(_detector(3, 23, 7), grey)
    if len(found) < _LEAST_MARKERS:  # fine stripes of moire hide the edges
        blurred = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5), np.uint8)
        found = _largest(_detector(53, 103, 10), blurred)
    return {number: (quad + 0.5) * shrink - 0.5 for number, quad in found.items()}


def _fit(found: dict[int, Quad], unit_px: float) -> Any:
    """Return the homography from units to the picture; None where no three markers agree."""
    subsets = [tuple(found)]
    if len(found) > _LEAST_MARKERS:
        subsets += combinations(found, _LEAST_MARKERS)
    for numbers in subsets:
        plane = np.concatenate([_marker_corners(number) for number in numbers])
        corners = np.concatenate([found[number] for number in numbers])
        homography = cv2.findHomography(plane, corners, 0)[0]
        if homography is not None:
            off_px = np.linalg.norm(_project(homography, plane) - corners, axis=1).max()
            if off_px <= max(_MOST_OFF_PX, _MOST_OFF * unit_px):
                return homography
    return None


def _largest(detector: cv2.aruco.ArucoDetector, grey: NDArray[np.uint8]) -> dict[int, Quad]:
    corners, ids, _ = detector.detectMarkers(grey)
    numbers: Any = [] if ids is None else ids.ravel()
    found: dict[int, Quad] = {}
    for quad, number in zip(corners, map(int, numbers)):
        points = np.asarray(quad, np.float32).reshape(4, 2)
        known = found.get(number)
        if number in _MARKERS and (known is None or abs(_area(points)) > abs(_area(known))):
            found[number] = points
    return found


@lru_cache(maxsize=2)
def _detector(least_px: int, most_px: int, constant: int) -> cv2.aruco.ArucoDetector:
    """Return a detector whose threshold is the mean of windows of these sides, less a constant."""
    parameters = cv2.aruco.DetectorParameters()
    parameters.adaptiveThreshWinSizeMin = least_px
    parameters.adaptiveThreshWinSizeMax = most_px
    parameters.adaptiveThreshWinSizeStep = (most_px - least_px) // 2
    parameters.adaptiveThreshConstant = constant
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    # Only the middle of each blurred module of a far marker says what it is.
    parameters.perspectiveRemovePixelPerCell = 8
    parameters.perspectiveRemoveIgnoredMarginPerCell = 0.3
    return cv2.aruco.ArucoDetector(_dictionary(), parameters)


def _dictionary() -> cv2.aruco.Dictionary:
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def _area(quad: Quad) -> float:
    x, y = quad[:, 0], quad[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _project(homography: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (N, 2) of the plane in the picture."""
    found = cv2.perspectiveTransform(points[:, None], homography)
    return np.asarray(found, np.float64).reshape(-1, 2)


def _marker_corners(number: int) -> NDArray[np.float64]:
    left, top = _MARKERS[number]
    right, bottom = left + _MARKER, top + _MARKER
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _cell_corners() -> list[tuple[float, float]]:
    """Return the top left corners of all cells, copy by copy, row by row, in units."""
    return [
        (left + column * _CELL[0], top + row * _CELL[1])
        for left, top in _COPIES
        for row in range(_ROWS)
        for column in range(_COLUMNS)
    ]


@lru_cache(maxsize=1)
def _sample_places() -> NDArray[np.float64]:
    """Return where cells are looked at, (40 * 49, 2), in units: in their middle halves."""
    inner = np.linspace(0.25, 0.75, 7)
    x, y = np.meshgrid(inner * _CELL[0], inner * _CELL[1])
    within = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([within + corner for corner in _cell_corners()])


def _cells(number: int) -> NDArray[np.bool_]:
    """Return all cells of the pattern, (40,): True is white."""
    number %= NUMBERS
    gray = number ^ number >> 1
    bits = np.array([gray >> place & 1 for place in range(BITS)], bool)
    rows = bits.reshape(_ROWS // 2, 1, _COLUMNS)
    copy = np.concatenate([rows, ~rows], axis=1).ravel()
    return np.tile(copy, len(_COPIES))


def _number(bits: NDArray[np.bool_]) -> int:
    gray = sum(1 << place for place, bit in enumerate(bits.tolist()) if bit)
    number = 0
    while gray:
        number ^= gray
        gray >>= 1
    return number


@lru_cache(maxsize=4)
def _drawing(unit_px: int) -> Pixels:
    """Return (H, W, 3): each pixel's cell, or `_CELLS` where it is white, or more: black."""
    width, height = pattern_size(unit_px)
    drawing = np.full((height, width), _CELLS, np.uint8)
    side = _MARKER * unit_px
    for number, (left, top) in _MARKERS.items():
        x, y = left * unit_px, top * unit_px
        drawn = np.asarray(cv2.aruco.generateImageMarker(_dictionary(), number, side))
        drawing[y : y + side, x : x + side] = np.where(drawn > 0, _CELLS, _CELLS + 1)
    for cell, (x_units, y_units) in enumerate(_cell_corners()):
        columns = slice(round(x_units * unit_px), round((x_units + _CELL[0]) * unit_px))
        rows = slice(round(y_units * unit_px), round((y_units + _CELL[1]) * unit_px))
        drawing[rows, columns] = cell
    return np.repeat(drawing[..., None], 3, axis=2)
