"""A folder of numbered PNGs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engines import SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.pictures import write_picture

NUMBERED = re.compile(r"[0-9]{6,}\.png", re.IGNORECASE)


class ImagesSink(Sink):
    """One PNG a frame, named after the frame's index at the source: a gap is a drop.

    A folder with numbered pictures is refused: the new ones would replace some and mix with
    the rest. Other files do not matter.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path: Path = Path(folder)
        self.name = f"{self.path}/"
        self._made = False

    def open(self, info: SinkInfo) -> None:
        try:
            problem = self._problem()
        except OSError as error:
            reason = error.strerror or error
            raise SinkError(f"cannot use the folder {self.path}: {reason}") from error
        if problem is not None:
            raise SinkError(problem)

    def write(self, frame: Frame) -> None:
        write_picture(self.path / f"{frame.index:06d}.png", frame.pixels)

    def close(self) -> None:
        """Every picture is complete already; a folder that was made for none goes again."""
        if self._made and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
        self._made = False

    def _problem(self) -> str | None:
        """Make the folder where there is none; return why pictures cannot go there."""
        if not self.path.parent.is_dir():
            return f"the folder {self.path.parent} does not exist; mkdir it first"
        if not self.path.is_dir():
            if self.path.exists():
                return f"{self.path} is a file; pictures need a folder"
            self.path.mkdir()
            self._made = True
        if any(NUMBERED.fullmatch(item.name) for item in self.path.iterdir()):
            return f"{self.name} has numbered pictures already; give an empty or new folder"
        if not os.access(self.path, os.W_OK | os.X_OK):
            return f"no permission to write into {self.name}"
        return None
