"""A folder of pictures (or one picture) as a clip."""

from __future__ import annotations

import time
from pathlib import Path

from engines import Pixels, Size, SourceError
from realtime.frame import Frame
from realtime.pacing import LATE_NS, NS_PER_S, Timeline
from realtime.sources.base import Source, SourceInfo, check_size, fit_picture
from realtime.sources.levels import STEPS, GreyPicture, Window
from realtime.sources.pictures import is_picture, list_pictures, load_picture


class ImagesSource(Source):
    """Pictures in natural order; the first gives the size. A broken one is left out and said.

    ``window`` (levels that become black and white) is for folders of grey pictures only; see
    `read_picture`. The notes say which window was used and how much lay outside.
    """

    name = "images"

    def __init__(self, path: str | Path, fps: float = 25.0, window: Window | None = None) -> None:
        super().__init__()
        self._path = self.path = Path(path)
        self._fps = fps
        self.window = window
        """May be set until `open`."""
        self.names: list[str] = []
        """Once open, the files' names without suffix; a frame's index is its place here. With
        suffixes where two differ in nothing else; empty for a picture that stays."""
        self._used: Window | None = None
        self._cut_px = self._grey_px = 0
        self._pictures: list[Path] = []
        self._next = 0
        self._began = 1
        self._first: Pixels | None = None
        self._still: Pixels | None = None
        self._size: Size | None = None
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
        self._used = None
        self._cut_px = self._grey_px = 0
        self._size = None
        self._timeline = Timeline() if realtime else None
        self._first = self._read_next()
        if self._first is None:
            reason = f": {self.notes[0]}" if self.notes else ""
            raise SourceError(f"none of the pictures in {self._path} can be read{reason}")
        self._began = self._next
        # A picture in a display stays there, as in any viewer, until somebody stops it.
        self._still = self._first if realtime and self._path.is_file() else None
        self.names[:] = self._file_names() if self._still is None else []
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

    def _file_names(self) -> list[str]:
        stems = [path.stem for path in self._pictures]
        if len({stem.casefold() for stem in stems}) == len(stems):
            return stems
        return [path.name for path in self._pictures]

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
                return self._prepared(load_picture(path, self.window), path)
            except SourceError as error:
                self.dropped += 1
                self._note("broken", f"left out: {error}")
        if self._cut_px:
            share = self._cut_px / self._grey_px
            self._note("cut", f"{share:.2%} of the pixels lay outside the window and were cut off")
        return None

    def _prepared(self, picture: Pixels | GreyPicture, path: Path) -> Pixels:
        if isinstance(picture, GreyPicture):
            self._say_window(picture)
            picture = picture.pixels()
        height, width = picture.shape[:2]
        if self._size is None:
            self._size = width, height
        elif self._size != (width, height):
            size = f"{self._size[0]}x{self._size[1]}"
            if "size" not in self._noted:
                self._note(
                    "size", f"other sizes were cropped and scaled to {size}: {path.name}, ..."
                )
        return picture

    def _say_window(self, picture: GreyPicture) -> None:
        self._grey_px += picture.levels.size
        self._cut_px += round(picture.cut_share() * picture.levels.size)
        if self._used is None:
            self._used = picture.window
            self._note(
                "window",
                f"grey levels: window {picture.window} ({picture.origin}"
                f"{', inverted' if picture.inverted else ''}), {STEPS + 1} levels, one every"
                f" {picture.window.step:.3g}",
            )
        elif self._used != picture.window:
            self._note(
                "windows",
                f"the pictures have windows of their own, not all {self._used}; give one for all",
            )
