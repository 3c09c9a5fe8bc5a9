"""Translated pictures for browsers: each is encoded once, however many look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from engines import Pixels, SettingsError, SinkError, Size
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo

QUALITIES = range(30, 96)
"""Of JPEG: below it falls apart, above it grows and nobody sees why."""
DEFAULT_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Picture:
    """One translated picture, shared by all who see it."""

    index: int
    """Counts at the source, so that a gap is a drop."""
    tag: int | None
    """The number that the page gave it, where a page's camera is the source."""
    captured_ns: int
    """Monotonic clock."""
    size: Size
    """(width, height)."""
    jpeg: bytes | None
    pixels: Pixels | None
    """uint8 (H, W, 3) BGR, never changed; where somebody wants it."""


class Audience(Protocol):
    """Who may look at pictures."""

    def wants(self, kind: str) -> bool:
        """Return whether anybody looks at ``jpeg`` or ``pixels``. Thread: any."""

    def publish(self, picture: Picture) -> None:
        """Show ``picture`` to all who look; never waits. Thread: any."""


class BrowserSink(Sink):
    """Encodes the freshest picture for an audience, as long as there is one.

    Args:
        audience: who looks.
        quality: of the JPEG, one of `QUALITIES`; may be set at any time.
        tag: the page's number of the picture that was captured at a time.
    """

    name = "browser"
    freshest = True

    def __init__(
        self,
        audience: Audience,
        *,
        quality: int = DEFAULT_QUALITY,
        tag: Callable[[int], int | None] | None = None,
    ) -> None:
        super().__init__()
        self.quality = quality
        self._audience = audience
        self._tag = tag

    @property
    def quality(self) -> int:
        """Of the JPEG."""
        return self._quality

    @quality.setter
    def quality(self, quality: int) -> None:
        if quality not in QUALITIES:
            raise SettingsError(
                f"the JPEG quality is {QUALITIES[0]} to {QUALITIES[-1]}, found {quality}"
            )
        self._quality = quality

    def open(self, info: SinkInfo) -> None:
        """Nothing to start."""

    def write(self, frame: Frame) -> None:
        jpeg = pixels = None
        if self._audience.wants("jpeg"):
            done, encoded = cv2.imencode(
                ".jpg", frame.pixels, [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            )
            if not done:
                raise SinkError(f"cannot encode a picture of {frame.pixels.shape[:2]} as JPEG")
            jpeg = encoded.tobytes()
        if self._audience.wants("pixels"):
            pixels = np.array(frame.pixels)
        if jpeg is None and pixels is None:
            return
        height, width = frame.pixels.shape[:2]
        tag = self._tag(frame.captured_ns) if self._tag is not None else None
        self._audience.publish(
            Picture(frame.index, tag, frame.captured_ns, (width, height), jpeg, pixels)
        )

    def close(self) -> None:
        """Nothing to finish: the audience stays, and hears of the end elsewhere."""
