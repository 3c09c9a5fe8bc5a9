"""A folder of numbered PNGs."""

from __future__ import annotations

import os
from pathlib import Path

from engines import SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo
from realtime.sources.pictures import write_picture


class ImagesSink(Sink):
    """One PNG a frame, named after the frame's index at the source: a gap is a drop."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path: Path = Path(folder)
        self.name = f"{self.path}/"

    def open(self, info: SinkInfo) -> None:
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; mkdir it first")
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot make the folder {self.path}: {error.strerror}") from error

    def write(self, frame: Frame) -> None:
        write_picture(self.path / f"{frame.index:06d}.png", frame.pixels)

    def close(self) -> None:
        """Every picture is complete already."""
