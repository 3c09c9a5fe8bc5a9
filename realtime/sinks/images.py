"""A folder of numbered PNGs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines import Pixels, SettingsError, SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.levels import Window, levels_from_pixels
from realtime.sources.pictures import write_picture

LARGEST_LEVEL = 65535
COLOUR_SPREAD = 32
"""Channels that differ by more are no rounding of a network."""
NUMBERED = re.compile(r"[0-9]{6,}\.png", re.IGNORECASE)


class ImagesSink(Sink):
    """One PNG a frame, named after the frame's index at the source: a gap is a drop.

    A folder with numbered pictures is refused: the new ones would replace some and mix with
    the rest. Other files do not matter.

    With ``window`` the PNGs are grey with 16 bits: the sum of the channels, 766 levels, spread
    from ``window.low`` to ``window.high`` (see `levels_from_pixels`) and rounded to whole numbers.
    """

    def __init__(self, folder: str | os.PathLike[str], window: Window | None = None) -> None:
        super().__init__()
        self.path: Path = Path(folder)
        self.name = f"{self.path}/"
        self.window = window
        """May be set until `open`."""
        self.names: Sequence[str] = ()
        """Names without ``.png`` by the frame's index, instead of numbers; read in `open`, so that
        it may be a list that the source fills when it opens (`ImagesSource.names`)."""
        self._made = self._colour = False

    def open(self, info: SinkInfo) -> None:
        self.notes.clear()
        self._colour = False
        window = self.window
        if window is not None:
            if not 0 <= window.low < window.high <= LARGEST_LEVEL:
                raise SettingsError(
                    f"a 16-bit PNG holds levels from 0 to {LARGEST_LEVEL}, found the window"
                    f" {window}; shift or narrow it, for instance 0:4095 for -1024:3071"
                )
            self.notes.append(f"{self.name}: 16-bit grey, window {window}, 766 levels at most")
        try:
            problem = self._problem()
        except OSError as error:
            reason = error.strerror or error
            raise SinkError(f"cannot use the folder {self.path}: {reason}") from error
        if problem is not None:
            raise SinkError(problem)

    def write(self, frame: Frame) -> None:
        named = 0 <= frame.index < len(self.names)
        name = self.names[frame.index] if named else f"{frame.index:06d}"
        path = self.path / f"{name}.png"
        if self.window is None:
            write_picture(path, frame.pixels)
            return
        self._say_colour(frame.pixels)
        levels = np.rint(levels_from_pixels(frame.pixels, self.window))
        write_picture(path, levels.astype(np.uint16))

    def close(self) -> None:
        """Every picture is complete already; a folder that was made for none goes again."""
        if self._made and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
        self._made = False

    def _say_colour(self, pixels: Pixels) -> None:
        """Note once that a colour picture loses its colours here; a sample of it is enough."""
        if self._colour or np.ptp(pixels[::4, ::4], axis=2).max(initial=0) <= COLOUR_SPREAD:
            return
        self._colour = True
        self.notes.append(f"{self.name}: the filter answers in colour; the mean is written")

    def _problem(self) -> str | None:
        """Make the folder where there is none; return why pictures cannot go there."""
        if not self.path.parent.is_dir():
            return f"the folder {self.path.parent} does not exist; mkdir it first"
        if not self.path.is_dir():
            if self.path.exists():
                return f"{self.path} is a file; pictures need a folder"
            self.path.mkdir()
            self._made = True
        found = [item.name for item in self.path.iterdir()]
        if any(NUMBERED.fullmatch(name) for name in found):
            return f"{self.name} has numbered pictures already; give an empty or new folder"
        wanted = {f"{name}.png".casefold() for name in self.names}
        taken = next((name for name in sorted(found) if name.casefold() in wanted), None)
        if taken is not None:
            return f"{self.name} has {taken} already; give an empty or new folder"
        if not os.access(self.path, os.W_OK | os.X_OK):
            return f"no permission to write into {self.name}"
        return None
