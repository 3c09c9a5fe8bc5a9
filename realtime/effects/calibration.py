"""Calibration: what a camera does to straight lines; measured with a printed ChArUco board."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import EffectError, Pixels, SettingsError, SinkError, Size
from engines.artefact import replace_file

Floats = NDArray[np.float64]
FORMAT: Final = "pix2live camera calibration"
SAME_ASPECT: Final = 0.01
"""Sizes whose aspect ratios differ by less are the same picture, scaled."""
BOARD_SQUARES: Final = (8, 5)
"""Across and down: as large as a sheet of A4, or letter paper, takes."""
BOARD_SQUARE_MM: Final = 31.0
BOARD_MARKER_SHARE: Final = 0.75
"""Side of a board's marker, of its square's."""
LEAST_CORNERS: Final = 8
"""Of a board, that make a view; fewer tie down too little."""
LEAST_VIEWS: Final = 8
MOST_SPREAD: Final = 0.03
"""Standard deviation of the focal length, of it, above which the views have not measured it."""
LEAST_TILT_DEGREES: Final = 15.0
"""Between the two views that differ most."""
ADVICE: Final = "show the board near and far, tilted to all sides, and all over the picture"


@dataclass(frozen=True, eq=False)
class Calibration:
    """A camera: pinhole with lens distortion, in OpenCV's terms (Zhang 2000; Brown 1966).

    Raises:
        SettingsError: when made of numbers that are no camera.
    """

    camera_matrix: Floats
    """(3, 3): focal lengths and principal point, in pixels; pixel centres are whole numbers."""
    distortion: Floats
    """(N,): k1, k2, p1, p2, k3, ...; 4, 5, 8, 12 or 14 of them."""
    size: Size
    """(width, height) of the pictures that it was measured on."""
    error_px: float = 0.0
    """Root mean square distance of measured and computed corners of the board."""

    def __post_init__(self) -> None:
        matrix, distortion = np.asarray(self.camera_matrix), np.asarray(self.distortion)
        if matrix.shape != (3, 3) or distortion.shape not in {(n,) for n in (4, 5, 8, 12, 14)}:
            raise SettingsError(
                "a calibration has a 3x3 camera matrix and 4, 5, 8, 12 or 14 distortion"
                f" coefficients, found {matrix.shape} and {distortion.shape}"
            )
        if not np.isfinite(matrix).all() or not np.isfinite(distortion).all():
            raise SettingsError("a calibration's numbers must be finite")
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or abs(matrix[2] - (0, 0, 1)).max() > 0:
            raise SettingsError("a camera matrix is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        if min(self.size) <= 0:
            raise SettingsError(f"a calibration's size is {self.size[0]}x{self.size[1]}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calibration) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "format": FORMAT,
            "size": list(self.size),
            "camera_matrix": np.asarray(self.camera_matrix).tolist(),
            "distortion": np.asarray(self.distortion).tolist(),
            "error_px": self.error_px,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file that `save` wrote.

        Raises:
            SettingsError: there is none, or it is no calibration.
        """
        advice = "pix2live calibrate SOURCE --out FILE.json makes one"
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"cannot read the calibration {path}: {reason}; {advice}") from None
        except ValueError:
            raise SettingsError(f"{path} is no calibration: no JSON; {advice}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise SettingsError(f"{path} is no calibration of pix2live; {advice}")
        try:
            width, height = (int(side) for side in data["size"])
            return cls(
                np.array(data["camera_matrix"], np.float64),
                np.array(data["distortion"], np.float64),
                (width, height),
                float(data["error_px"]),
            )
        except KeyError as error:
            raise SettingsError(
                f"the calibration {path} has no {error.args[0]}; {advice}"
            ) from None
        except (TypeError, ValueError) as error:  # SettingsError is a ValueError
            raise SettingsError(f"the calibration {path} is broken: {error}; {advice}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, atomically.

        Raises:
            SinkError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        try:
            replace_file(Path(path), [text.encode()])
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror or error}") from error

    def at_size(self, size: Size) -> Calibration:
        """Return the calibration of the same camera for pictures of another size.

        Raises:
            SettingsError: the aspect ratio is another: part of the picture is cut off or added.
        """
        if size == self.size:
            return self
        across, down = size[0] / self.size[0], size[1] / self.size[1]
        if abs(across / down - 1) > SAME_ASPECT:
            raise SettingsError(
                f"the calibration is for {self.size[0]}x{self.size[1]}, the frames are"
                f" {size[0]}x{size[1]}: another aspect ratio; calibrate at the size that is used"
            )
        matrix = np.array(self.camera_matrix)
        matrix[0] *= across
        matrix[1] *= down
        # The pixel's centre is the whole number: its edges are what scales.
        matrix[0, 2] += (across - 1) / 2
        matrix[1, 2] += (down - 1) / 2
        return Calibration(matrix, self.distortion, size, self.error_px * across)

    def undistort(self, points: NDArray[Any]) -> Floats:
        """Return where points (N, 2), pixels, would be without the lens's distortion, in pixels."""
        shaped = np.asarray(points, np.float64).reshape(-1, 1, 2)
        found = cv2.undistortPoints(
            shaped, self.camera_matrix, self.distortion, P=self.camera_matrix
        )
        return np.asarray(found, np.float64).reshape(-1, 2)

    def distort(self, points: NDArray[Any]) -> Floats:
        """Return where the lens puts points (N, 2), in pixels; what `undistort` undoes."""
        shaped = np.column_stack([np.asarray(points, np.float64), np.ones(len(points))])
        rays = shaped @ np.linalg.inv(self.camera_matrix).T
        zero = np.zeros(3)
        found, _ = cv2.projectPoints(rays, zero, zero, self.camera_matrix, self.distortion)
        return np.asarray(found, np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class BoardView:
    """The corners of the board that one picture shows."""

    corners: NDArray[np.float32]
    """(N, 2), pixels."""
    ids: NDArray[np.int32]
    """(N,): which inner corners of the board they are."""


class Board:
    """A ChArUco board: a chessboard with ArUco markers in its white squares.

    Its corners are found to a fraction of a pixel, and part of it is enough (Garrido-Jurado et
    al. 2014). What a square measures does not matter for the camera; that it is flat does.
    """

    def __init__(self, squares: Size = BOARD_SQUARES) -> None:
        self.squares = squares
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100)
        self._board = cv2.aruco.CharucoBoard(squares, 1.0, BOARD_MARKER_SHARE, dictionary)
        self._detector = cv2.aruco.CharucoDetector(self._board)

    def draw(self, square_px: int) -> Pixels:
        """Return the board, uint8 (H, W), with a margin of half a square."""
        size = ((self.squares[0] + 1) * square_px, (self.squares[1] + 1) * square_px)
        return np.asarray(self._board.generateImage(size, marginSize=square_px // 2), np.uint8)

    def find(self, pixels: Pixels) -> BoardView | None:
        """Return what a picture, uint8 (H, W, 3) BGR, shows of the board; None for too little."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        corners, ids, _, _ = self._detector.detectBoard(grey)
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        view = BoardView(
            np.asarray(corners, np.float32).reshape(-1, 2), np.asarray(ids, np.int32).reshape(-1)
        )
        columns = self.squares[0] - 1
        # Corners of one row or column alone say nothing about perspective.
        spread = min(len(set(view.ids // columns)), len(set(view.ids % columns)))
        return view if spread >= 2 else None

    def calibrate(self, views: Sequence[BoardView], size: Size) -> Calibration:
        """Return the camera that saw the board like that (Zhang 2000).

        Raises:
            EffectError: too few views, or they do not tell: all from the same side.
        """
        if len(views) < LEAST_VIEWS:
            raise EffectError(
                f"a calibration needs {LEAST_VIEWS} different views of the board, found"
                f" {len(views)}; {ADVICE}"
            )
        kept = list(views)
        found, spread_px, errors_px = self._solve(kept, size)
        # A view that was blurred, or a board that was bent: far from what the others say.
        sharp = errors_px <= max(1.0, 3 * float(np.median(errors_px)))
        if LEAST_VIEWS <= sharp.sum() < len(kept):
            kept = [view for view, good in zip(kept, sharp) if good]
            found, spread_px, _ = self._solve(kept, size)
        focal_px = found.camera_matrix[0, 0]
        if not spread_px < MOST_SPREAD * focal_px:  # not a number, too
            raise EffectError(
                f"these views leave the focal length open: {focal_px:.0f} px, give or take"
                f" {spread_px:.0f}; {ADVICE}"
            )
        return found

    def _solve(self, views: Sequence[BoardView], size: Size) -> tuple[Calibration, float, Floats]:
        """Return the camera, how sure its focal length is, and each view's error, in pixels."""
        places = np.asarray(self._board.getChessboardCorners(), np.float32)
        try:
            # k3 stays 0: it takes more than a board in the hand to tell it from k1 and k2.
            error_px, matrix, distortion, turns, _, spreads, _, errors_px = (
                cv2.calibrateCameraExtended(
                    [places[view.ids] for view in views],
                    [view.corners for view in views],
                    size,
                    np.eye(3),
                    np.zeros(5),
                    flags=cv2.CALIB_FIX_K3,
                )
            )
            found = Calibration(
                np.asarray(matrix, np.float64),
                np.asarray(distortion, np.float64).reshape(-1)[:5],
                size,
                float(error_px),
            )
        except (cv2.error, SettingsError) as error:
            raise EffectError(f"these views of the board give no calibration; {ADVICE}") from error
        facing = np.array([cv2.Rodrigues(turn)[0][:, 2] for turn in turns])
        if (facing @ facing.T).min() > math.cos(math.radians(LEAST_TILT_DEGREES)):
            raise EffectError(
                "all views of the board are from the same side, which leaves the focal length"
                f" open; {ADVICE}"
            )
        spread_px = float(np.asarray(spreads).flat[0])
        return found, spread_px, np.asarray(errors_px, np.float64).reshape(-1)


def is_new(view: BoardView, others: Sequence[BoardView], size: Size) -> bool:
    """Return whether a view differs from the others: the board moved or turned.

    Measured on the corners that both show: 3 % of the diagonal on the average.
    """
    least_px = 0.03 * math.hypot(*size)
    for other in others:
        shared, here, there = np.intersect1d(view.ids, other.ids, return_indices=True)
        if not len(shared):
            continue
        moved = np.linalg.norm(view.corners[here] - other.corners[there], axis=1).mean()
        if moved < least_px:
            return False
    return True
