"""A folder of numbered PNGs."""

from __future__ import annotations

import os
from pathlib import Path

from engines import SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.pictures import list_pictures, write_picture


class ImagesSink(Sink):
    """One PNG a frame, named after the frame's index at the source: a gap is a drop."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path: Path = Path(folder)
        self.name = f"{self.path}/"
        self._made = False

    def open(self, info: SinkInfo) -> None:
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; mkdir it first")
        if self.path.exists() and not self.path.is_dir():
            raise SinkError(f"{self.path} is a file; pictures need a folder")
        try:
            if not self.path.is_dir():
                self.path.mkdir()
                self._made = True
            found = len(list_pictures(self.path))
        except OSError as error:
            raise SinkError(f"cannot make the folder {self.path}: {error.strerror}") from error
        if found:
            self.notes.append(f"{self.name} has {found} pictures already; new ones join them")

    def write(self, frame: Frame) -> None:
        write_picture(self.path / f"{frame.index:06d}.png", frame.pixels)

    def close(self) -> None:
        """Every picture is complete already; a folder that was made for none goes again."""
        if self._made and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
        self._made = False
