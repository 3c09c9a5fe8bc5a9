"""OnMarker: a picture, a video or the translation itself on a marker's plane, in perspective."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect
from realtime.effects.calibration import Calibration
from realtime.effects.markers import (
    DEFAULT_DICTIONARY,
    HOLD_MS,
    MarkerOptions,
    marker_id,
    marker_words,
)
from realtime.effects.mask import BAND_PIXELS, blend
from realtime.effects.patches import project
from realtime.effects.playing import Playing
from realtime.effects.words import Words
from realtime.frame import Frame
from realtime.sources import Source, open_source
from realtime.sources.base import crop_to_aspect
from realtime.sources.pictures import is_picture, read_picture

Floats = NDArray[np.float64]
TRANSLATED: Final = "translated"
FITS: Final = ("fill", "fit")
OVERS: Final = ("translated", "captured")
LENS_REACH: Final = 0.25
"""Beyond each side of the frame, of its size."""
Picture = str | os.PathLike[str] | Source | Pixels


class OnMarker(Effect):
    """Draws onto the plane of a marker while it is seen, or held.

    Args:
        id: the marker's number.
        picture: ``translated`` (the whole translation as it is so far), a picture file, a video
            (plays at its own pace by the time stamps of the frames, again and again), anything
            else that `open_source` takes, a `Source`, or uint8 (H, W, 3) BGR.
        scale: side of the square that is drawn on, in sides of the marker.
        fit: ``fill`` covers the square and cuts off what is left of the picture; ``fit`` shows
            all of it inside the square. Both keep its aspect ratio.
        over: what is around it: the picture ``translated`` so far, or as it was ``captured``.
        dictionary, size_m, calibration, hold_ms: see `MarkerOptions`.

    Raises:
        SettingsError: something does not fit.
        SourceError: there is no such picture or video.
    """

    name = "marker"
    latency_ms = 3.0

    def __init__(
        self,
        id: int,  # noqa: A002  (a marker's number is its id)
        picture: Picture = TRANSLATED,
        *,
        scale: float = 1.0,
        fit: str = "fill",
        over: str = "translated",
        dictionary: str = DEFAULT_DICTIONARY,
        size_m: float | None = None,
        calibration: Calibration | str | os.PathLike[str] | None = None,
        hold_ms: float = HOLD_MS,
    ) -> None:
        super().__init__()
        if not 0 < scale <= 100:
            raise SettingsError(f"{self.name}: scale is a number up to 100, found {scale:g}")
        if fit not in FITS:
            raise SettingsError(f"{self.name}: fit is one of {', '.join(FITS)}, found {fit!r}")
        if over not in OVERS:
            raise SettingsError(f"{self.name}: over is one of {', '.join(OVERS)}, found {over!r}")
        self.id, self.scale, self.fit, self.over = id, scale, fit, over
        self.options = MarkerOptions(
            self.name,
            (id,),
            dictionary=dictionary,
            size_m=size_m,
            calibration=calibration,
            hold_ms=hold_ms,
        )
        self.paths: tuple[Path, ...] = self.options.paths
        self._still: Pixels | None = None
        self._playing: Playing | None = None
        self._played_notes: list[str] = []
        self._open(picture)
        self._smaller: list[Pixels] = []
        self._canvas: Pixels | None = None

    @classmethod
    def from_words(cls, words: str) -> OnMarker:
        """``7``, or ``7=poster.mp4``, and after semicolons ``scale=1.5``, ``fit=fit``,
        ``over=captured``, and what `MarkerOptions` takes: dictionary, size, calibration, hold.
        """
        first, _, rest = words.partition(";")
        number, _, picture = first.partition("=")
        found = Words(cls.name, rest)
        effect = cls(
            marker_id(cls.name, number),
            picture.strip() or TRANSLATED,
            scale=found.number("scale", 1.0),
            fit=found.text("fit", FITS[0]),
            over=found.text("over", OVERS[0]),
            **marker_words(found),
        )
        found.done()
        return effect

    def _open(self, picture: Picture) -> None:
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise SettingsError(
                    f"{self.name}: a picture is uint8 (H, W, 3), found {picture.dtype}"
                    f" {picture.shape}"
                )
            self._still = picture
        elif isinstance(picture, Source):
            self._play(picture)
        elif picture != TRANSLATED:
            path = Path(picture)
            if is_picture(path) and path.is_file():
                self._still = read_picture(path)
                self.paths += (path,)
            else:
                self._play(open_source(picture))

    def _play(self, source: Source) -> None:
        self._playing = Playing(source)
        self.paths += () if source.path is None else (source.path,)

    def prepare(self, size: Size, context: Context) -> None:
        self.options.prepare(size, context, self.notes)
        if self._playing is not None:
            self._playing.start(wait=not context.live)
            self._tell()
        if self._still is not None:
            self._smaller = [self._still]

    def process(self, frame: Frame, context: Context) -> Pixels:
        # A video goes on while its marker is out of sight.
        moving = None
        if self._playing is not None:
            moving = self._playing.at(frame.pts_ns)
            self._tell()
        markers = self.options.find(frame, context)
        pixels = frame.pixels
        if self.over == "captured" and frame.source is not None:
            if self._canvas is None or self._canvas.shape != pixels.shape:
                self._canvas = np.empty_like(pixels)
            np.copyto(self._canvas, frame.source)
            pixels = self._canvas
        if self.id not in markers:
            return pixels
        picture = moving if moving is not None else self._still
        if picture is None:
            picture = frame.pixels if self._playing is None else None
        if picture is not None:
            self._draw(pixels, picture, np.asarray(markers[self.id].corners, np.float64))
        return pixels

    def _draw(self, pixels: Pixels, picture: Pixels, corners: Floats) -> None:
        height, width = picture.shape[:2]
        sides = np.array([width, height]) / max(width, height) if self.fit == "fit" else 1.0
        quad = on_plane(corners, self.scale * sides, self.options.fitted)
        if quad is None:
            return
        longest = max(np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1))
        picture = self._small(picture, float(longest))
        if self.fit == "fill":
            height, width = picture.shape[:2]
            top, left, height, width = crop_to_aspect((width, height), (1, 1))
            picture = picture[top : top + height, left : left + width]
        draw_on(pixels, picture, quad)

    def _small(self, picture: Pixels, wanted_px: float) -> Pixels:
        """Return the picture at less than twice the size that is needed: no pixel is skipped."""
        if picture is not self._still:
            times = int(max(1.0, min(picture.shape[:2]) / max(wanted_px, 8.0)))
            return _divided(picture, times)
        place = 0
        while min(self._smaller[place].shape[:2]) >= 2 * max(wanted_px, 8.0):
            place += 1
            if place == len(self._smaller):
                self._smaller.append(_divided(self._smaller[-1], 2))
        return self._smaller[place]

    def _tell(self) -> None:
        """Keep the notes of what plays among this effect's own."""
        assert self._playing is not None
        notes = [f"{self.name} {self.id}: {note}" for note in self._playing.notes]
        if notes != self._played_notes:
            own = [note for note in self.notes if note not in self._played_notes]
            self.notes[:], self._played_notes = own + notes, notes

    def reset(self) -> None:
        self.options.reset()

    def cancel(self) -> None:
        """Make a `process` that waits for a video return soon. Any thread."""
        if self._playing is not None:
            self._playing.cancel()

    def close(self) -> None:
        if self._playing is not None:
            self._playing.close()
            self._tell()


def _divided(picture: Pixels, times: int) -> Pixels:
    if times < 2:
        return picture
    size = (max(1, picture.shape[1] // times), max(1, picture.shape[0] // times))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def on_plane(
    corners: Floats, sides: float | Floats, calibration: Calibration | None = None
) -> Floats | None:
    """Return the corners, (4, 2), of a rectangle around the middle of a marker, on its plane.

    Args:
        corners: (4, 2), of the marker.
        sides: width and height (or both), in sides of the marker.
        calibration: makes it right for a lens that bends lines; only the corners are.

    Returns:
        None where that plane is seen from its edge, or the rectangle reaches behind the camera.
    """
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    flat = corners if calibration is None else calibration.undistort(corners)
    quad = project(flat, unit * sides + 0.5)
    if quad is None or calibration is None:
        return quad
    # Far outside of what was calibrated the lens's polynomial means nothing: straight lines there.
    reach = LENS_REACH * np.array(calibration.size)
    if (quad < -reach).any() or (quad > reach + calibration.size).any():
        return project(corners, unit * sides + 0.5)
    return calibration.distort(quad)


def draw_on(pixels: Pixels, picture: Pixels, quad: Floats) -> None:
    """Draw ``picture`` onto a convex quadrilateral, in place, with edges as soft as a lens makes.

    Args:
        pixels: uint8 (H, W, 3), changed only in the quadrilateral's box.
        picture: uint8 (h, w, 3); its outer edges, not the centres of its outer pixels, are what
            meets the quadrilateral. It may be ``pixels`` itself.
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
