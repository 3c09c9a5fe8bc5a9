"""Tracker: finds square markers, follows them from frame to frame, and steadies them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context
from realtime.effects.calibration import Calibration
from realtime.effects.one_euro import OneEuro
from realtime.frame import Frame

Floats = NDArray[np.float64]
SEARCH_LONG_SIDE_PX: Final = 960
"""Larger pictures are searched at this size, then looked at closely where something is."""
SEARCH_EVERY: Final = 5
"""Frames, for markers that nobody has asked for by number."""
MOST_REGIONS: Final = 6
"""With more markers in view, searching everything is as fast."""
REGION_MARGIN: Final = 0.35
"""Around a marker's last position, of its side; and where it moves, as far again."""
MOST_NAMED: Final = 8
"""Markers, in a note."""
JUMP: Final = 0.6
"""Sides between two sightings after which a marker was put elsewhere, and smoothing starts anew."""
# Tuned on rendered video (benchmarks/markers.py). Steady motion is behind by 1 / (2 pi beta) =
# 0.2 pixels at most; a hand's changes of speed are the rest, hence the high derivative cutoff.
MIN_CUTOFF_HZ: Final = 1.0
BETA: Final = 0.8
DERIVATIVE_CUTOFF_HZ: Final = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Marker:
    """One marker, where it was seen last."""

    id: int
    corners: NDArray[np.float32]
    """(4, 2): x, y in pixels of the frame, smoothed; clockwise from the marker's own top left."""
    seen_ms_ago: float = 0.0
    """0 when this frame shows it; else it is held."""
    rotation: Floats | None = None
    """(3,): rotation vector (Rodrigues) from the marker to the camera. The marker's x goes to its
    right, y up, z out of the paper; the camera's x to the right, y down, z forward. None without
    calibration or size."""
    translation: Floats | None = None
    """(3,): the marker's centre in metres, in the camera's axes."""


@dataclass(slots=True)
class _Track:
    """One marker over time."""

    raw: Floats
    """(4, 2), as found in the newest frame that showed it."""
    corners: Floats
    seen_ns: int
    velocity: Floats = field(default_factory=lambda: np.zeros(2))
    """Of its centre, pixels a second."""
    smooth: OneEuro = field(
        default_factory=lambda: OneEuro(MIN_CUTOFF_HZ, BETA, DERIVATIVE_CUTOFF_HZ)
    )
    rotation: Floats | None = None
    translation: Floats | None = None


class Tracker:
    """Finds and follows markers; searched once a frame for all who joined.

    Thread: the engine's, but for `join`, before the run.
    """

    def __init__(self, dictionary: cv2.aruco.Dictionary, size: Size) -> None:
        self.size = size
        self.searches = 0
        """How often a whole frame was searched."""
        self.frames = 0
        self.seen: Counter[int] = Counter()
        """In how many frames each marker was found, also those that nobody has asked for."""
        self.speakers: dict[frozenset[int] | None, object] = {}
        """Of those who wait for the same markers, the one who says that they are missing."""
        self._whole = cv2.aruco.ArucoDetector(dictionary, _parameters(least_perimeter=0.05))
        self._region = cv2.aruco.ArucoDetector(dictionary, _parameters(least_perimeter=0.4))
        self._wanted: set[int] | None = set()
        self._calibration: Calibration | None = None
        self._sizes_m: dict[int | None, float] = {}
        self._hold_ms = 0.0
        self._given: set[int] = set()
        """What is in the context; a `reset` does not know the context."""
        self.reset()

    def join(
        self,
        ids: frozenset[int] | None,
        *,
        hold_ms: float,
        size_m: float | None,
        calibration: Calibration | None,
    ) -> None:
        """Take over what one more effect wants; ``ids`` None stands for all markers.

        Raises:
            SettingsError: it comes with another calibration, or size, than an earlier effect.
        """
        if self._wanted is not None:
            self._wanted = None if ids is None else self._wanted | ids
        self._hold_ms = max(self._hold_ms, hold_ms)
        if calibration is not None:
            if self._calibration not in (None, calibration):
                raise SettingsError("two marker effects have different calibrations; give them one")
            self._calibration = calibration
        if size_m is not None:
            for number in (None,) if ids is None else ids:
                if self._sizes_m.setdefault(number, size_m) != size_m:
                    raise SettingsError("two marker effects have different sizes for one marker")

    @property
    def calibration(self) -> Calibration | None:
        """Return the camera's, for the size of the frames, where an effect has brought one."""
        return self._calibration

    def reset(self) -> None:
        """Forget where markers were; the next `update` takes them out of the context."""
        self._tracks: dict[int, _Track] = {}
        self._markers: dict[int, Marker] = {}
        self._done: tuple[int, int] | None = None
        self._last_ns: int | None = None

    def withdraw(self, context: Context) -> None:
        """Take this tracker's markers out of the context."""
        for number in self._given:
            context.markers.pop(number, None)
        self._given.clear()

    def update(self, frame: Frame, context: Context) -> dict[int, Marker]:
        """Return the markers of ``frame``, those held too; they are in the context as well."""
        this = (frame.index, frame.pts_ns)
        if frame.index >= 0 and this == self._done:
            return self._markers
        self.withdraw(context)
        now_ns = frame.pts_ns
        if self._last_ns is not None and now_ns < self._last_ns:
            self.reset()
        picture = frame.pixels if frame.source is None else frame.source
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
        for number, corners in self._find(grey, now_ns).items():
            self._see(number, corners, now_ns)
        self._tracks = {
            number: track
            for number, track in self._tracks.items()
            if now_ns - track.seen_ns <= self._hold_ms * 1e6
        }
        self._markers = {
            number: Marker(
                number,
                track.corners.astype(np.float32),
                (now_ns - track.seen_ns) / 1e6,
                track.rotation,
                track.translation,
            )
            for number, track in sorted(self._tracks.items())
        }
        context.markers.update(self._markers)
        self._given.update(self._markers)
        self._done, self._last_ns = this, now_ns
        self.frames += 1
        return self._markers

    def _find(self, grey: Pixels, now_ns: int) -> dict[int, Floats]:
        """Look where markers were; everywhere when one is missing or may be new."""
        found: dict[int, Floats] = {}
        everywhere: dict[int, list[Floats]] = {}
        if 0 < len(self._tracks) <= MOST_REGIONS:
            for number, track in self._tracks.items():
                shift = track.velocity * ((now_ns - track.seen_ns) / 1e9)
                seen = self._in_region(grey, track.raw, shift)
                if number in seen:
                    found[number] = self._chosen(number, seen[number])
        wanted = self._wanted
        if wanted is None:
            enough = self._tracks.keys() == found.keys() and self.frames % SEARCH_EVERY > 0
            enough = enough and bool(found)
        else:
            enough = wanted <= found.keys()
        if not enough:
            everywhere = self._everywhere(grey)
            for number, candidates in everywhere.items():
                if number not in found and (wanted is None or number in wanted):
                    found[number] = self._chosen(number, candidates)
        self.seen.update(found.keys() | everywhere.keys())
        return found

    def missing(self, ids: frozenset[int] | None) -> str:
        """Return which of the markers ``ids`` were in no frame, for a person; empty where each was.

        With None: whether there was any marker at all.
        """
        never = sorted(number for number in ids or () if number not in self.seen)
        if not self.frames or (self.seen and not never):
            return ""
        frames = f"{self.frames} frame{'s' * (self.frames > 1)}"
        if not never:
            return f"no marker was in any of {frames}"
        names = ", ".join(map(str, never))
        who = f"markers {names} were" if len(never) > 1 else f"marker {names} was"
        others = [str(number) for number, _ in self.seen.most_common(MOST_NAMED)]
        more = f" and {len(self.seen) - MOST_NAMED} more" if len(self.seen) > MOST_NAMED else ""
        return f"{who} in none of {frames}; seen: {', '.join(others) or 'none'}{more}"

    def _everywhere(self, grey: Pixels) -> dict[int, list[Floats]]:
        self.searches += 1
        scale = SEARCH_LONG_SIDE_PX / max(grey.shape)
        if scale >= 1:
            return _detect(self._whole, grey)
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found: dict[int, list[Floats]] = {}
        for number, candidates in _detect(self._whole, np.asarray(small, np.uint8)).items():
            for corners in candidates:
                close = self._in_region(grey, (corners + 0.5) / scale - 0.5, np.zeros(2))
                found.setdefault(number, []).extend(close.get(number, ()))
        return {number: candidates for number, candidates in found.items() if candidates}

    def _in_region(self, grey: Pixels, corners: Floats, shift: Floats) -> dict[int, list[Floats]]:
        """Search around ``corners`` and where they would be after ``shift``."""
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin = REGION_MARGIN * (high - low).max() + 8
        low = low + np.minimum(shift, 0) - margin
        high = high + np.maximum(shift, 0) + margin
        height, width = grey.shape
        left, top = (int(place) for place in np.clip(low, 0, (width, height)))
        right, bottom = (int(place) + 1 for place in np.clip(high, 0, (width - 1, height - 1)))
        if right - left < 16 or bottom - top < 16:
            return {}
        found = _detect(self._region, np.ascontiguousarray(grey[top:bottom, left:right]))
        corner = np.array((left, top), np.float64)
        return {number: [item + corner for item in items] for number, items in found.items()}

    def _chosen(self, number: int, candidates: list[Floats]) -> Floats:
        """Return the one nearest to where this marker was; the largest where it is new."""
        track = self._tracks.get(number)
        if track is None:
            return max(candidates, key=_area)
        return min(candidates, key=lambda item: float(np.abs(item - track.raw).sum()))

    def _see(self, number: int, corners: Floats, now_ns: int) -> None:
        track = self._tracks.get(number)
        if track is not None:
            moved = corners.mean(axis=0) - track.raw.mean(axis=0)
            if np.linalg.norm(moved) > JUMP * np.sqrt(_area(corners)):
                track = None
        if track is None:
            track = self._tracks[number] = _Track(corners, corners, now_ns)
        elif now_ns > track.seen_ns:
            track.velocity = moved * (1e9 / (now_ns - track.seen_ns))
        track.raw, track.seen_ns = corners, now_ns
        track.corners = track.smooth(corners, now_ns / 1e9)
        size_m = self._sizes_m.get(number, self._sizes_m.get(None))
        if self._calibration is not None and size_m is not None:
            track.rotation, track.translation = find_pose(
                track.corners, size_m, self._calibration, track.rotation
            )


def _parameters(least_perimeter: float) -> cv2.aruco.DetectorParameters:
    parameters = cv2.aruco.DetectorParameters()
    # OpenCV's windows are 3, 13 and 23 pixels; 3 costs most and finds noise.
    parameters.adaptiveThreshWinSizeMin = 13
    parameters.adaptiveThreshWinSizeMax = 23
    parameters.adaptiveThreshWinSizeStep = 10
    parameters.minMarkerPerimeterRate = least_perimeter
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    parameters.cornerRefinementWinSize = 7  # at most; else half a cell of the marker
    parameters.relativeCornerRefinmentWinSize = 0.5
    return parameters


def _detect(detector: cv2.aruco.ArucoDetector, grey: Pixels) -> dict[int, list[Floats]]:
    # Noise makes thousands of candidates; blurred, a third of the time and the same accuracy.
    corners, ids, _ = detector.detectMarkers(cv2.GaussianBlur(grey, (3, 3), 0))
    found: dict[int, list[Floats]] = {}
    for item, number in zip(corners, () if ids is None else np.asarray(ids).ravel()):
        found.setdefault(int(number), []).append(np.asarray(item, np.float64).reshape(4, 2))
    return found


def _area(corners: Floats) -> float:
    return abs(float(cv2.contourArea(corners.astype(np.float32))))


def find_pose(
    corners: Floats, size_m: float, calibration: Calibration, before: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return rotation (3,) and translation (3,), metres, of a marker; see `Marker`.

    IPPE for squares (Collins and Bartoli 2014) has two solutions, mirrored about the line of
    sight; where they explain the corners about equally well, the one nearer to the rotation
    ``before`` is taken, so that the pose does not flip.
    """
    half = size_m / 2
    square = np.array([[-half, half, 0], [half, half, 0], [half, -half, 0], [-half, -half, 0]])
    _, rotations, translations, errors = cv2.solvePnPGeneric(
        square,
        np.asarray(corners, np.float64),
        calibration.camera_matrix,
        calibration.distortion,
        flags=cv2.SOLVEPNP_IPPE_SQUARE,
    )
    turns = [np.asarray(item, np.float64).reshape(3) for item in rotations]
    best = 0
    if before is not None and len(turns) > 1:
        found = np.asarray(errors, np.float64).ravel()
        if found[1] < 2 * found[0] + 0.1:
            best = int(_angle(turns[1], before) < _angle(turns[0], before))
    return turns[best], np.asarray(translations[best], np.float64).reshape(3)


def _angle(one: Floats, other: Floats) -> float:
    """Return the angle, in radians, between two rotations."""
    between = cv2.Rodrigues(one)[0].T @ cv2.Rodrigues(other)[0]
    return float(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))
