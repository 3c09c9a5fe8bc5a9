"""OnMarker: a picture, a video or the translation itself on a marker's plane, in perspective."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

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
from realtime.effects.patches import Floats, Halves, divided, draw_on, on_plane, shrinks
from realtime.effects.playing import Playing
from realtime.effects.words import Words
from realtime.frame import Frame
from realtime.sources import Source, open_source
from realtime.sources.base import crop_to_aspect
from realtime.sources.pictures import is_picture, read_picture

TRANSLATED: Final = "translated"
FITS: Final = ("fill", "fit")
OVERS: Final = ("translated", "captured")
SQUARE: Final = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
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
        self._smaller: Halves | None = None
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
            self._smaller = Halves(self._shown(self._still))

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
        quad = on_plane(corners, SQUARE * self.scale * sides + 0.5, self.options.fitted)
        if quad is None:
            return
        if picture is self._still and self._smaller is not None:
            draw_on(pixels, self._smaller.fitting(quad), quad)
        else:
            picture = self._shown(picture)
            draw_on(pixels, divided(picture, int(shrinks(picture, quad))), quad)

    def _shown(self, picture: Pixels) -> Pixels:
        """Return the part of the picture that is drawn: for ``fill`` the square in its middle."""
        if self.fit == "fit":
            return picture
        height, width = picture.shape[:2]
        top, left, height, width = crop_to_aspect((width, height), (1, 1))
        return picture[top : top + height, left : left + width]

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
        self.options.close()
        if self._playing is not None:
            self._playing.close()
            self._tell()
