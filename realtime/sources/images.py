"""A folder of pictures (or one picture) as a clip."""

from __future__ import annotations

import time
from pathlib import Path

from engines import Pixels, Size, SourceError
from realtime.frame import Frame
from realtime.pacing import LATE_NS, NS_PER_S, Timeline
from realtime.sources.base import Source, SourceInfo, check_size, fit_picture
from realtime.sources.pictures import is_picture, list_pictures, read_picture


class ImagesSource(Source):
    """Pictures in natural order; the first gives the size. A broken one is left out and said."""

    name = "images"

    def __init__(self, path: str | Path, fps: float = 25.0) -> None:
        super().__init__()
        self._path = self.path = Path(path)
        self._fps = fps
        self._pictures: list[Path] = []
        self._next = 0
        self._began = 1
        self._first: Pixels | None = None
        self._still: Pixels | None = None
        self._timeline: Timeline | None = None

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        if self._path.is_dir():
            self._pictures = list_pictures(self._path)
        elif is_picture(self._path) and self._path.is_file():
            self._pictures = [self._path]
        else:
            raise SourceError(f"no such folder or picture: {self._path}")
        if not self._pictures:
            raise SourceError(f"no pictures (PNG, JPEG, WebP, ...) in {self._path}")
        self._next = 0
        self._timeline = Timeline() if realtime else None
        self._first = self._read_next()
        if self._first is None:
            reason = f": {self.notes[0]}" if self.notes else ""
            raise SourceError(f"none of the pictures in {self._path} can be read{reason}")
        self._began = self._next
        # A picture in a display stays there, as in any viewer, until somebody stops it.
        self._still = self._first if realtime and self._path.is_file() else None
        height, width = self._first.shape[:2]
        check_size((width, height), str(self._path))
        count = len(self._pictures)
        frames = None if self._still is not None else count
        return SourceInfo((width, height), self._fps, frames, f"{count} pictures")

    def read(self, frame: Frame) -> bool:
        picture = self._next_picture()
        if picture is None or self._cancelled:
            return False
        fit_picture(picture, frame.pixels)
        frame.pts_ns = self._pts_ns(self._next)
        frame.captured_ns = time.monotonic_ns()
        if self._timeline is None:
            return True
        frame.captured_ns = self._timeline.due_ns(frame.pts_ns, frame.captured_ns)
        return self._sleep_until(frame.captured_ns)

    def close(self) -> None:
        self._pictures = []
        self._first = self._still = None

    def _next_picture(self) -> Pixels | None:
        if self._first is not None:
            picture, self._first = self._first, None
            return picture
        if self._still is not None:
            self._next += 1
            return self._still
        self._leave_out_late()
        return self._read_next()

    def _pts_ns(self, place: int) -> int:
        return round((place - self._began) * NS_PER_S / self._fps)

    def _leave_out_late(self) -> None:
        """Go on with a picture that is not late yet; the last is always read."""
        if self._timeline is None:
            return
        while self._next + 1 < len(self._pictures):
            now_ns = time.monotonic_ns()
            if now_ns - self._timeline.due_ns(self._pts_ns(self._next + 1), now_ns) <= LATE_NS:
                return
            self._next += 1
            self.dropped += 1

    def _read_next(self) -> Pixels | None:
        while self._next < len(self._pictures):
            path = self._pictures[self._next]
            self._next += 1
            try:
                return read_picture(path)
            except SourceError as error:
                self.dropped += 1
                self._note("broken", f"left out: {error}")
        return None
