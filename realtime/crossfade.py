"""Fading from one filter into the next: for a while both translate every frame."""

from __future__ import annotations

import cv2

from engines import Engine, Pixels, SettingsError
from realtime.frame import Frame

LONGEST_MS = 10_000.0


def check_crossfade(milliseconds: float) -> float:
    """Return ``milliseconds``.

    Raises:
        SettingsError: less than 0, or more than anybody waits for.
    """
    if not 0 <= milliseconds <= LONGEST_MS:  # a whole number may be too long for a float
        found = str(milliseconds)[:20]
        raise SettingsError(f"a cross-fade takes 0 to {LONGEST_MS:.0f} ms, found {found}")
    return milliseconds


class Crossfade:
    """The old engine of a switch, while it fades out. Thread: the engine stage's."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        """The one that fades out; None when nothing fades."""
        self._began_ns: int | None = None
        self._length_ns = 0
        self._picture: Pixels | None = None

    def start(self, engine: Engine, length_ms: float) -> None:
        """Begin to fade out of ``engine``, which must have nothing under way.

        What still fades out of an earlier one is gone at once: wait while `busy`. Of a fade that
        no frame has seen yet, that earlier one is what fades out now.
        """
        if self.engine is not None and self._began_ns is None:
            engine = self.engine
        self.engine, self._picture, self._began_ns = None, None, None
        if length_ms > 0:
            self._length_ns = int(length_ms * 1e6)
            self._picture = engine.slots(1)[0]
            self.engine = engine

    def busy(self, now_ns: int) -> bool:
        """Return whether both are on the screen at ``now_ns``, on the clock of `mix`."""
        return self._began_ns is not None and now_ns - self._began_ns < self._length_ns

    def mix(self, captured: Frame, result: Frame, now_ns: int) -> None:
        """Mix the old filter's translation into ``result.pixels``, as much as is left of it.

        ``now_ns`` is on the clock that the fade lasts by: the frames' own, for recordings.
        """
        assert self.engine is not None
        assert self._picture is not None
        if self._began_ns is None:
            self._began_ns = now_ns
        left = 1 - (now_ns - self._began_ns) / self._length_ns
        if left <= 0:
            self.engine, self._picture, self._began_ns = None, None, None
            return
        self.engine.submit(captured.pixels, self._picture)
        self.engine.collect()
        new = result.pixels
        cv2.addWeighted(self._picture, left, new, 1 - left, 0.0, dst=new)
