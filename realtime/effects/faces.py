"""A mask on faces: found now and then in a thread of its own, followed on every frame."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import EffectError, Pixels, SettingsError, Size
from realtime.effects.background import Latest
from realtime.effects.base import Context
from realtime.effects.mask import Mask, check_ranges, mask_words, narrowed
from realtime.effects.words import Words
from realtime.frame import Frame
from realtime.pacing import NS_PER_MS

Points = NDArray[np.float32]

SHAPES: Final = ("ellipse", "box")
SAME_FACE_OVERLAP: Final = 0.3
"""Boxes that overlap by this (intersection over union) are one face."""
MOST_FACES: Final = 50

GRID: Final = np.stack(
    np.meshgrid(np.linspace(-0.3, 0.3, 5), np.linspace(-0.3, 0.3, 5)), axis=-1
).reshape(-1, 2)
"""The points that are followed, in the middle of a face, where no background is: in parts of the
box's size, from its centre."""
LEAST_POINTS: Final = 8
BACK_PX: Final = 1.0
"""A point must come back to where it was this closely when it is followed backwards."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face on this frame, as `Context.faces` has it; all in pixels of the frame."""

    box: tuple[float, float, float, float]
    """Left, top, width, height: from forehead to chin, without margin; may reach outside."""
    score: float
    """Of the detector, 0 to 1, when it saw the face last."""
    landmarks: Points
    """float32 (5, 2): (x, y) of the person's right eye, left eye, tip of the nose, right and left
    corner of the mouth."""


@dataclass(slots=True)
class Track:
    """A face that is followed, in pixels of the small picture."""

    centre: Points
    size: Points
    landmarks: Points
    score: float
    seen: int = 1
    """How often the detector found it."""
    corrected_ns: int = 0
    """When the detector last put it right, on the source's timeline."""
    missed_ns: int | None = None
    """Since when the detector does not see it."""
    adrift: bool = False
    """Its points were lost since it was put right."""

    def overlap(self, other: Track) -> float:
        """Return the intersection over union of the two boxes."""
        top_left = np.maximum(self.centre - self.size / 2, other.centre - other.size / 2)
        bottom_right = np.minimum(self.centre + self.size / 2, other.centre + other.size / 2)
        shared = float(np.prod(np.maximum(bottom_right - top_left, 0)))
        return shared / max(1e-6, float(np.prod(self.size) + np.prod(other.size)) - shared)

    def face(self, scale: Points) -> Face:
        """Return it in pixels of the frame, ``scale`` (x, y) times larger."""
        size = self.size * scale
        left_top = self.centre * scale - size / 2
        box = (float(left_top[0]), float(left_top[1]), float(size[0]), float(size[1]))
        return Face(box, self.score, self.landmarks * scale)


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is searched for faces, and for which run of frames."""

    small: Pixels
    grey: Pixels
    generation: int


@dataclass(frozen=True, slots=True)
class _Found:
    picture: _Picture
    tracks: list[Track]


class FaceMask(Mask):
    """Shows the translation on faces, and tells later effects where they are.

    Faces are found by YuNet (W. Wu, H. Peng and S. Yu, "YuNet: A tiny millisecond-level face
    detector", 2023) in a small picture: live, in a thread of its own, ``most_hz`` times a second;
    for a recording, on every frame. In between, a grid of points on each face is followed from
    frame to frame by optical flow (Lucas and Kanade, 1981; J.-Y. Bouguet's pyramids, 2000) and
    moves the box by the median, those left out that do not come back when followed backwards (Z.
    Kalal, K. Mikolajczyk and J. Matas, "Forward-backward error", 2010). A detection is older than
    the frame on which it arrives, so it is first carried forward by the same flow. It corrects
    the followed box only by a part, so that the box does not tremble with the detector.

    Args:
        model: an ONNX file of YuNet, 2023 or newer.
        shape: ``ellipse`` or ``box``.
        margin: how far the mask goes beyond the face on each side, in parts of its size.
        score: from which score of the detector on it is a face.
        hold_ms: how long a face stays that the detector does not see any more.
        smooth_ms: time constant of the corrections; 0: all of each at once.
        width_px: width of the small picture; faces must be about 10 pixels wide in it.
        most_hz: how often faces are searched for, at most, where the run is live.
        feather_px: how wide the soft edge is.
        invert: show the translation everywhere but on faces.
    """

    name = "face"
    latency_ms = 1.7

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        shape: str = "ellipse",
        margin: float = 0.25,
        score: float = 0.7,
        hold_ms: float = 500.0,
        smooth_ms: float = 100.0,
        width_px: int = 320,
        most_hz: float = 10.0,
        feather_px: float = 12.0,
        invert: bool = False,
    ) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        if shape not in SHAPES:
            raise SettingsError(f"face: shape is one of {', '.join(SHAPES)}, found {shape!r}")
        check_ranges(
            self.name,
            ("margin", margin, -0.4, 5),
            ("score", score, 0.01, 1),
            ("hold_ms", hold_ms, 0, 60_000),
            ("smooth_ms", smooth_ms, 0, 10_000),
            ("width", width_px, 32, 1920),
            ("hz", most_hz, 0.01, 1000),
        )
        self.model = Path(model)
        self.paths = (self.model,)
        self.shape, self.margin, self.score = shape, margin, score
        self.hold_ms, self.smooth_ms = hold_ms, smooth_ms
        self.width_px, self.most_hz = width_px, most_hz
        self._scale = np.ones(2, np.float32)
        self._mask = np.zeros((0, 0), np.uint8)
        self._detector: _Detector | None = None
        self._worker: Latest[_Picture, _Found] | None = None
        self._tracks: list[Track] = []
        self._last: _Picture | None = None
        self._used: _Found | None = None
        self._generation = 0

    @classmethod
    def from_words(cls, words: str) -> FaceMask:
        """``MODEL.onnx`` with ``ellipse`` or ``box``, ``margin=``, ``score=``, ``hold_ms=``,
        ``smooth_ms=``, ``width=``, ``hz=``, ``feather=PX`` and ``invert``.
        """
        taken = Words(cls.name, words)
        look = mask_words(taken, 12.0)
        shapes = [shape for shape in SHAPES if taken.flag(shape)]
        margin, score = taken.number("margin", 0.25), taken.number("score", 0.7)
        hold_ms, smooth_ms = taken.number("hold_ms", 500.0), taken.number("smooth_ms", 100.0)
        width, most_hz = taken.number("width", 320), taken.number("hz", 10.0)
        model = taken.plain()
        taken.done()
        if model is None:
            raise SettingsError("face needs a detector: face:MODEL.onnx (YuNet, of OpenCV's zoo)")
        if len(shapes) > 1:
            raise SettingsError("face is an ellipse or a box, not both")
        return cls(
            model,
            shape=shapes[0] if shapes else "ellipse",
            margin=margin,
            score=score,
            hold_ms=hold_ms,
            smooth_ms=smooth_ms,
            width_px=int(width) if math.isfinite(width) else 0,
            most_hz=most_hz,
            **look,
        )

    def prepare(self, size: Size, context: Context) -> None:
        """Load the detector and try it.

        Raises:
            SettingsError: there is no such file.
            EffectError: it is no face detector.
        """
        self.close()
        small = narrowed(size, self.width_px)
        self._scale = np.divide(size, small).astype(np.float32)
        self._mask = np.zeros(size[::-1], np.uint8)
        self._detector = _Detector(self.model, small, self.score)
        if context.live:
            self._worker = Latest(self._detector.search, name="face detector", most_hz=self.most_hz)
        self.reset()

    def reset(self) -> None:
        self._tracks, self._last, self._used = [], None, None
        self._generation += 1

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = self._detector = None

    def find(self, frame: Frame, context: Context) -> Pixels:
        assert frame.source is not None
        assert self._detector is not None
        small = cv2.resize(frame.source, self._detector.size)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        picture = _Picture(small, grey, self._generation)  # type: ignore[arg-type]
        if self._last is not None:
            follow(self._tracks, self._last.grey, picture.grey)
        self._last = picture
        if self._worker is None:
            self._correct(self._detector.search(picture).tracks, frame.pts_ns)
        else:
            found = self._worker.newest()
            if found is not None and found is not self._used:
                self._used = found
                if found.picture.generation == self._generation:
                    tracks = [replace(track) for track in found.tracks]  # results are shared
                    follow(tracks, found.picture.grey, picture.grey)
                    self._correct(tracks, frame.pts_ns)
            self._worker.offer(picture)
        context.faces = [track.face(self._scale) for track in self._tracks]
        return self._draw(context.faces)

    def _correct(self, found: list[Track], now_ns: int) -> None:
        """Take over what the detector found: new faces, old ones put right, lost ones."""
        left = list(self._tracks)
        for new in sorted(found, key=lambda track: -track.score):
            new.corrected_ns = now_ns
            old = max(left, key=new.overlap, default=None)
            if old is None or new.overlap(old) < SAME_FACE_OVERLAP:
                self._tracks.append(new)
                continue
            left = [track for track in left if track is not old]
            past_ms = max(0, now_ns - old.corrected_ns) / NS_PER_MS
            part = np.float32(1 - math.exp(-past_ms / self.smooth_ms) if self.smooth_ms else 1)
            if old.adrift:  # nothing else knows where it is
                part = np.float32(1)
            old.centre = old.centre + part * (new.centre - old.centre)
            old.size = old.size + part * (new.size - old.size)
            old.landmarks = old.landmarks + part * (new.landmarks - old.landmarks)
            old.score, old.corrected_ns = new.score, now_ns
            old.seen, old.missed_ns, old.adrift = old.seen + 1, None, False
        for lost in left:
            lost.missed_ns = now_ns if lost.missed_ns is None else lost.missed_ns
        self._tracks = [track for track in self._tracks if self._stays(track, now_ns)]

    def _stays(self, track: Track, now_ns: int) -> bool:
        if track.missed_ns is None:
            return True
        # What was seen only once was most likely no face.
        return track.seen > 1 and 0 <= now_ns - track.missed_ns < self.hold_ms * NS_PER_MS

    def _draw(self, faces: list[Face]) -> Pixels:
        mask = self._mask
        mask.fill(0)
        for face in faces:
            left, top, width, height = face.box
            across, down = width * (0.5 + self.margin), height * (0.5 + self.margin)
            x, y = left + width / 2, top + height / 2
            if self.shape == "box":
                edges = (
                    round(max(0.0, edge)) for edge in (y - down, y + down, x - across, x + across)
                )
                first, last, start, end = edges
                mask[first:last, start:end] = 255
            else:
                # In sixteenths of a pixel. In OpenCV the middles of pixels have whole numbers, and
                # the outline is filled too: half a pixel more all around.
                centre = round((x - 0.5) * 16), round((y - 0.5) * 16)
                axes = tuple(max(0, round((half - 0.5) * 16)) for half in (across, down))
                cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, cv2.FILLED, cv2.LINE_8, 4)
        return mask


class _Detector:
    """YuNet at one size. Thread: one at a time."""

    def __init__(self, model: Path, size: Size, score: float) -> None:
        self.size = size
        if not model.is_file():
            raise SettingsError(f"face: no file {model}; the mask needs a YuNet model (ONNX)")
        try:
            with _quiet():
                self._net = cv2.FaceDetectorYN.create(str(model), "", size, score, 0.3, MOST_FACES)
            self._net.detect(np.zeros((size[1], size[0], 3), np.uint8))  # and warm
        except cv2.error as error:
            why = str(error.err or error).strip().splitlines()[0]
            raise EffectError(
                f"face: {model} is no YuNet face detector that OpenCV can run: {why}"
            ) from error

    def search(self, picture: _Picture) -> _Found:
        """Return the faces in ``picture``."""
        _, found = self._net.detect(picture.small)
        rows = np.zeros((0, 15), np.float32) if found is None else np.asarray(found, np.float32)
        return _Found(
            picture,
            [
                Track(row[:2] + row[2:4] / 2, row[2:4].copy(), row[4:14].reshape(5, 2), row[14])
                for row in rows
                if (row[2:4] > 0).all()
            ],
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's warnings about a model off the screen; its errors are raised."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def follow(tracks: list[Track], before: Pixels, after: Pixels) -> None:
    """Move faces to where their points went from one grey picture, uint8 (H, W), to the next.

    A face whose points are lost stays where it is and is ``adrift``.
    """
    if not tracks or before is after:
        return
    points = np.concatenate([track.centre + GRID * track.size for track in tracks])
    points = points.astype(np.float32)[:, None]
    moved, there = _flow(before, after, points)
    back, here = _flow(after, before, moved)
    came_back = np.linalg.norm(back - points, axis=2)[:, 0] < BACK_PX
    good = came_back & there & here
    for number, track in enumerate(tracks):
        its = slice(number * len(GRID), (number + 1) * len(GRID))
        old, new = points[its, 0][good[its]], moved[its, 0][good[its]]
        if len(old) < LEAST_POINTS:
            track.adrift = True
            continue
        from_here, to_there = np.median(old, axis=0), np.median(new, axis=0)
        reach = np.linalg.norm(old - from_here, axis=1)
        far = reach > 1
        ratios = np.linalg.norm(new - to_there, axis=1)[far] / reach[far]
        scale = np.float32(np.clip(np.median(ratios), 0.8, 1.25)) if far.any() else np.float32(1)
        shift = np.median(new - old, axis=0)
        # Grown about the middle of its points, which is not quite the middle of the box.
        track.landmarks = (track.landmarks - from_here) * scale + from_here + shift
        track.centre = (track.centre - from_here) * scale + from_here + shift
        track.size = track.size * scale


def _flow(before: Pixels, after: Pixels, points: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Return where points, float32 (N, 1, 2), went, and which were found."""
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        points,
        None,  # type: ignore[call-overload]
        winSize=(15, 15),
        maxLevel=3,
    )
    return moved, status[:, 0] > 0
