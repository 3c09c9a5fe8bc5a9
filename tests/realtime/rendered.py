"""Renders video of markers on a sheet of paper whose pose is known in every frame.

A pinhole camera, perspective, motion blur over the exposure, a lens that is not quite sharp, and
noise. What is true of a frame is true in the middle of its exposure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, Size
from realtime import Frame
from realtime.effects.calibration import Board, Calibration

Floats = NDArray[np.float64]
SIZE = (640, 480)
FPS = 30.0
TEXELS_PER_M = 4000
"""How fine the sheet is drawn."""
FINER = 3
"""Rendered with so many pixels for each pixel and side, then averaged."""


def camera_matrix(size: Size = SIZE) -> Floats:
    """Return the camera that everything is rendered with."""
    focal_px = 0.97 * size[0]
    return np.array([[focal_px, 0, (size[0] - 1) / 2], [0, focal_px, (size[1] - 1) / 2], [0, 0, 1]])


@dataclass(frozen=True)
class Pose:
    """Where the sheet is: metres before the camera, and a rotation vector."""

    translation: tuple[float, float, float] = (0.0, 0.0, 0.6)
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def project(self, points_m: Floats, size: Size = SIZE) -> Floats:
        """Return the pixels, (N, 2), of points (N, 2) of the sheet."""
        points = np.column_stack([points_m, np.zeros(len(points_m))])
        found, _ = cv2.projectPoints(
            points, np.array(self.rotation), np.array(self.translation), camera_matrix(size), None
        )
        return found.reshape(-1, 2)


def still(_time_s: float) -> Pose:
    """A sheet that lies tilted, and does not move."""
    return Pose((0.01, -0.015, 0.55), (0.45, -0.35, 0.2))


def by_hand(time_s: float) -> Pose:
    """A sheet that somebody holds: up to 250 pixels a second and tilted by up to 45 degrees."""
    t = time_s
    translation = (
        0.055 * np.sin(2.6 * t) + 0.012 * np.sin(7.1 * t),
        0.035 * np.sin(3.3 * t + 1.0) + 0.008 * np.sin(8.3 * t),
        0.55 + 0.08 * np.sin(1.3 * t),
    )
    rotation = (
        0.55 * np.sin(1.1 * t + 0.4),
        0.55 * np.sin(1.7 * t),
        0.4 * np.sin(0.9 * t + 2.0),
    )
    return Pose(translation, rotation)


@dataclass(frozen=True)
class Printed:
    """A marker on the sheet: its id, centre and side in metres."""

    id: int
    centre: tuple[float, float] = (0.0, 0.0)
    side_m: float = 0.08

    def corners_m(self, scale: float = 1.0) -> Floats:
        """Return the corners, (4, 2), clockwise from its own top left."""
        half = self.side_m * scale / 2
        square = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
        return square + np.array(self.centre)


FOUR = tuple(
    Printed(number, centre, 0.035)
    for number, centre in zip(
        (1, 2, 3, 4), ((-0.09, -0.06), (0.09, -0.06), (0.09, 0.06), (-0.09, 0.06))
    )
)
"""At the corners of a rectangle, clockwise from the top left."""


@dataclass
class Scene:
    """A sheet with markers in front of something with texture."""

    markers: Sequence[Printed] = (Printed(7),)
    motion: Callable[[float], Pose] = by_hand
    size: Size = SIZE
    dictionary: int = cv2.aruco.DICT_4X4_50
    noise: float = 4.0
    """Standard deviation of each pixel, of 255."""
    exposure_s: float = 1 / 60
    steps: int = 7
    """Moments of the exposure that are averaged."""
    margin_m: float = 0.02
    hidden: Callable[[int], bool] = field(default=lambda _: False)
    """Whether something is before the sheet in a frame."""

    def __post_init__(self) -> None:
        corners = np.concatenate([marker.corners_m() for marker in self.markers])
        self._low = corners.min(axis=0) - self.margin_m
        texels = np.ceil((corners.max(axis=0) + self.margin_m - self._low) * TEXELS_PER_M)
        self._sheet = np.full((int(texels[1]), int(texels[0])), 225, np.float32)
        dictionary = cv2.aruco.getPredefinedDictionary(self.dictionary)
        for marker in self.markers:
            side = round(marker.side_m * TEXELS_PER_M)
            left, top = np.round((marker.corners_m()[0] - self._low) * TEXELS_PER_M).astype(int)
            drawn = cv2.aruco.generateImageMarker(dictionary, marker.id, side)
            self._sheet[top : top + side, left : left + side] = np.where(drawn > 0, 225, 25)
        rng = np.random.default_rng(5)
        coarse = rng.integers(30, 220, (12, 16, 3), np.uint8)
        self._behind = cv2.resize(coarse, self.size, interpolation=cv2.INTER_CUBIC)

    def pose(self, index: int) -> Pose:
        """Return the pose in the middle of the exposure of frame ``index``."""
        return self.motion(index / FPS)

    def truth(self, index: int, number: int, scale: float = 1.0) -> Floats:
        """Return the true corners, (4, 2), of a marker in a frame."""
        marker = next(item for item in self.markers if item.id == number)
        return self.pose(index).project(marker.corners_m(scale), self.size)

    def frame(self, index: int) -> Pixels:
        """Render frame ``index``: uint8 (H, W, 3) BGR."""
        rng = np.random.default_rng(1000 + index)
        picture = self._behind.astype(np.float32)
        if not self.hidden(index):
            moments = (np.arange(self.steps) + 0.5) / self.steps - 0.5
            poses = [self.motion(index / FPS + moment * self.exposure_s) for moment in moments]
            self._put(picture, poses)
        picture = cv2.GaussianBlur(picture, (0, 0), 0.7)
        picture += rng.normal(0, self.noise, picture.shape).astype(np.float32)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def _put(self, picture: NDArray[np.float32], poses: Sequence[Pose]) -> None:
        """Blend the sheet into ``picture``, averaged over its poses."""
        height, width = self._sheet.shape
        outline = self._low + np.array([[0, 0], [width, 0], [width, height], [0, height]]) / (
            TEXELS_PER_M
        )
        quads = [pose.project(outline, self.size) for pose in poses]
        ends = np.concatenate(quads)
        left, top = np.clip(np.floor(ends.min(axis=0)).astype(int) - 2, 0, None)
        right, bottom = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + 3, self.size)
        if right <= left or bottom <= top:
            return
        box = (int(right - left), int(bottom - top))
        shade = np.zeros((box[1], box[0]), np.float32)
        cover = np.zeros_like(shade)
        texels = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
        fine_box = (box[0] * FINER, box[1] * FINER)
        for quad in quads:
            fine = ((quad - (left, top)) + 0.5) * FINER - 0.5
            matrix = cv2.getPerspectiveTransform(texels, fine.astype(np.float32))
            for drawn, total in ((self._sheet, shade), (np.ones_like(self._sheet), cover)):
                warped = cv2.warpPerspective(drawn, matrix, fine_box)
                np.add(total, cv2.resize(warped, box, interpolation=cv2.INTER_AREA), out=total)
        shade, cover = shade / len(quads), cover / len(quads)
        part = picture[top:bottom, left:right]
        part *= 1 - cover[..., None]
        part += shade[..., None]


def edge_errors(cover: NDArray[np.uint8], quad: Floats, samples: int = 24) -> Floats:
    """Return how far, in pixels, the drawn edges are from the edges of ``quad``.

    Args:
        cover: uint8 (H, W), 255 where something was drawn on black.
        quad: (4, 2), where its corners truly are.
        samples: places looked at on each edge, its ends left out.
    """
    values = cover.astype(np.float32)
    centre = quad.mean(axis=0)
    steps = np.arange(-6, 6.001, 0.05)
    errors = []
    height, width = cover.shape
    for start, end in zip(quad, np.roll(quad, -1, axis=0)):
        along = (end - start) / np.linalg.norm(end - start)
        normal = np.array([along[1], -along[0]])
        if normal @ (centre - start) > 0:
            normal = -normal  # outwards
        for share in np.linspace(0.12, 0.88, samples):
            line = (start + share * (end - start) + steps[:, None] * normal).astype(np.float32)
            if line.min() < 0 or (line.max(axis=0) > (width - 1, height - 1)).any():
                continue  # the edge is not in the picture
            profile = cv2.remap(values, line[None, :, 0], line[None, :, 1], cv2.INTER_LINEAR)[0]
            inside = profile >= 127.5
            errors.append(steps[inside][-1] if inside.any() else -6.0)
    return np.abs(np.array(errors))


def as_frame(picture: Pixels, index: int, *, pixels: Pixels | None = None) -> Frame:
    """Return a frame whose captured picture this is; the translated one is black by default."""
    translated = np.zeros_like(picture) if pixels is None else pixels
    return Frame(translated, picture, index=index, pts_ns=round(index * 1e9 / FPS))


BENT = Calibration(
    camera_matrix=np.array([[440.0, 0, 243.0], [0, 436.0, 176.0], [0, 0, 1]]),
    distortion=np.array([-0.22, 0.06, 0.001, -0.0015, 0.0]),
    size=(480, 360),
)
"""A camera with a lens that bends lines."""


class BoardViews:
    """Pictures of the calibration board as a camera with lens distortion takes them.

    Or of ``board``, uint8 (h, w), 40 pixels to the unit.
    """

    def __init__(self, camera: Calibration = BENT, board: NDArray[np.uint8] | None = None) -> None:
        self.camera = camera
        self._board = Board().draw(40) if board is None else board
        width, height = camera.size
        fine = (np.arange(0, 2 * width) + 0.5) / 2 - 0.5, (np.arange(0, 2 * height) + 0.5) / 2 - 0.5
        places = np.stack(np.meshgrid(*fine), axis=-1).reshape(-1, 2)
        flat = camera.undistort(places)
        rays = np.column_stack([flat, np.ones(len(flat))]) @ np.linalg.inv(camera.camera_matrix).T
        self._rays = rays

    def view(self, rotation: Sequence[float], translation: Sequence[float]) -> Pixels:
        """Return uint8 (H, W, 3); the board is 9 units wide, its middle at ``translation``."""
        turn, _ = cv2.Rodrigues(np.array(rotation, np.float64))
        plane = np.column_stack([turn[:, 0], turn[:, 1], translation])
        on_board = self._rays @ np.linalg.inv(plane).T
        on_board = on_board[:, :2] / on_board[:, 2:]
        width, height = self.camera.size
        texels = on_board * 40 + np.array(self._board.shape[::-1]) / 2 - 0.5
        maps = texels.reshape(2 * height, 2 * width, 2).astype(np.float32)
        fine = cv2.remap(self._board, maps, None, cv2.INTER_LINEAR, borderValue=(120,))
        grey = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)

    def around(self, count: int = 14) -> list[Pixels]:
        """Return views from many sides, near and far."""
        rng = np.random.default_rng(11)
        found = []
        for number in range(count):
            rotation = rng.uniform(-0.6, 0.6, 3) * (1, 1, 0.4)
            place = (*rng.uniform(-1, 1, 2) * (2.0, 1.2), 9.0 + 4 * (number % 3))
            found.append(self.view(rotation, place))
        return found
