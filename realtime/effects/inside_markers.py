"""InsideMarkers: the filter only inside the quadrilateral between four markers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context
from realtime.effects.calibration import Calibration
from realtime.effects.marker_tracker import Marker
from realtime.effects.markers import (
    DEFAULT_DICTIONARY,
    HOLD_MS,
    MarkerOptions,
    marker_id,
    marker_words,
)
from realtime.effects.mask import Mask, mask_words
from realtime.effects.words import Words
from realtime.frame import Frame

Floats = NDArray[np.float64]
PLACES: Final = ("inner", "centre", "outer")
SHIFT_BITS: Final = 4
"""Corners are drawn at sixteenths of a pixel."""


class InsideMarkers(Mask):
    """Shows the translation between four markers; nowhere while one of them is missing.

    Args:
        ids: four different markers, in any order: what lies between them is taken around their
            middle. Other markers in the picture do not matter.
        place: ``inner`` corners of the markers (those nearest to the middle), their ``centre``,
            or ``outer`` corners, so that the markers are inside.
        feather_px: how wide the soft edge is.
        invert: the translation everywhere but there.
        dictionary, size_m, calibration, hold_ms: see `MarkerOptions`.

    Raises:
        SettingsError: it is not four different markers, or anything else does not fit.
    """

    name = "inside-markers"
    latency_ms = 3.0

    def __init__(
        self,
        ids: Sequence[int],
        *,
        place: str = "inner",
        feather_px: float = 3.0,
        invert: bool = False,
        dictionary: str = DEFAULT_DICTIONARY,
        size_m: float | None = None,
        calibration: Calibration | str | os.PathLike[str] | None = None,
        hold_ms: float = HOLD_MS,
    ) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        if len(ids) != 4 or len(set(ids)) != 4:
            found = ", ".join(map(str, ids))
            raise SettingsError(
                f"{self.name} takes four different markers, for instance 1,2,3,4; found"
                f" {len(ids)}: {found}"
            )
        if place not in PLACES:
            raise SettingsError(f"{self.name}: at is one of {', '.join(PLACES)}, found {place!r}")
        self.ids, self.place = tuple(ids), place
        self.options = MarkerOptions(
            self.name,
            ids,
            dictionary=dictionary,
            size_m=size_m,
            calibration=calibration,
            hold_ms=hold_ms,
        )
        self.paths = self.options.paths
        self._mask: Pixels | None = None

    @classmethod
    def from_words(cls, words: str) -> InsideMarkers:
        """``1,2,3,4;at=outer;feather=12;invert;dictionary=...;size=...;calibration=...;hold=500``;
        all but the markers are optional.
        """
        found = Words(cls.name, words)
        masked = mask_words(found, feather_px=3.0)
        place = found.text("at", "inner")
        options = marker_words(found)
        ids = [marker_id(cls.name, word) for word in (found.plain() or "").split(",") if word]
        found.done()
        return cls(ids, place=place, **masked, **options)

    def prepare(self, size: Size, context: Context) -> None:
        self.options.prepare(size, context, self.notes)

    def find(self, frame: Frame, context: Context) -> Pixels:
        height, width = frame.pixels.shape[:2]
        if self._mask is None or self._mask.shape != (height, width):
            self._mask = np.empty((height, width), np.uint8)
        self._mask[:] = 0
        markers = self.options.find(frame, context)
        if len(markers) == 4:
            quad = between([markers[number] for number in self.ids], self.place)
            # Hidden or far outside, a corner may be anywhere; the drawing has 32 bits.
            reach = 8 * max(height, width)
            points = np.rint(np.clip(quad, -reach, reach) * (1 << SHIFT_BITS)).astype(np.int32)
            cv2.fillConvexPoly(self._mask, points, (255,), cv2.LINE_AA, SHIFT_BITS)
        return self._mask

    def reset(self) -> None:
        self.options.reset()

    def close(self) -> None:
        self.options.close()


def between(markers: Sequence[Marker], place: str) -> Floats:
    """Return the quadrilateral, (4, 2), of one point of each of four markers, around its middle."""
    centres = np.array([marker.corners.mean(axis=0, dtype=np.float64) for marker in markers])
    middle = centres.mean(axis=0)
    order = np.argsort(np.arctan2(*(centres - middle).T[::-1]))
    if place == "centre":
        return centres[order]
    points = []
    for marker in (markers[number] for number in order):
        distances = np.linalg.norm(marker.corners - middle, axis=1)
        chosen = distances.argmin() if place == "inner" else distances.argmax()
        points.append(marker.corners[chosen].astype(np.float64))
    return np.array(points)
