"""A recording: H.264 in mp4, mkv or mov through PyAV, with the frames' own times."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engines import SinkError, Size
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo, even_picture, even_size
from realtime.sources.pictures import link_target

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v")
TIME_BASE = Fraction(1, 90000)
SHORTEST_TICKS = 90
"""1 ms, the tick of mkv."""
BT709 = 1
"""Also the primaries and the transfer curve: what players take sRGB pictures for."""


class VideoSink(Sink):
    """Records to a hidden ``.part`` file beside the target, and renames it when it is complete.

    While it records, the file consists of fragments of a second, so that even a killed process
    leaves one that plays; `close` turns it into a plain mp4 in place. (Its index is at the end: to
    have it in front the whole file would be written twice.)

    A target that exists already is replaced, as by `open` of Python, but only by a complete
    recording, and not at all when no frame came. Without ``overwrite`` it is refused in `open`;
    one that appears while the recording runs is kept, and so is the recording, as the ``.part``.
    """

    name = "video"

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        super().__init__()
        self.path: Path = Path(path)
        self.overwrite = overwrite
        self.name = self.path.name
        self._target = self.path
        self._part: Path | None = None
        self._container: Any = None
        self._stream: Any = None
        self._reformatter = VideoReformatter()
        self._size: Size = (0, 0)
        self._start_pts_ns: int | None = None
        self._last_pts = 0
        self._broken = False
        self.frames = 0

    def open(self, info: SinkInfo) -> None:
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; mkdir it first")
        if self.path.is_dir():
            raise SinkError(
                f"{self.path} is a folder; a folder of pictures is written {self.path}/"
            )
        if self.path.exists() and not self.path.is_file():
            raise SinkError(f"{self.path} is no ordinary file; a recording needs one")
        if not self.overwrite and self.path.exists():
            raise SinkError(f"{self.path} exists already; this recording may replace nothing")
        if even_size(info.size) != info.size:
            self.notes.append(
                f"{self.path}: H.264 needs even sides, the last row or column is doubled"
            )
        self._size = info.size
        try:
            self._part = self._new_part()
            self._container = av.open(str(self._part), "w", options=self._options())
            self._stream = self._new_stream(info)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._discard()
            raise SinkError(f"cannot write {self.path}: {_reason(error)}") from error

    def write(self, frame: Frame) -> None:
        pixels = even_picture(frame.pixels, self._size, str(self.path))
        try:
            picture = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(pixels, format="bgr24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            picture.pts, picture.time_base = self._pts(frame), TIME_BASE
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            self._broken = True
            raise SinkError(self._stopped(error)) from error
        self.frames += 1

    def close(self) -> None:
        if self._container is None:
            return
        if not self.frames:
            self._discard()
            return
        container, self._container = self._container, None
        assert self._part is not None
        try:
            try:
                for packet in self._stream.encode(None):
                    container.mux(packet)
            finally:
                container.close()
            if not self._broken:
                self._publish(self._part)
        except SinkError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            if not self._broken:  # else `write` has told already
                raise SinkError(self._stopped(error)) from error

    def _publish(self, part: Path) -> None:
        """Give the complete recording its name.

        Raises:
            SinkError: another file has it, which is not to be replaced.
        """
        if self.overwrite:
            os.replace(part, self._target)
            return
        # First the name, empty, in one step: exFAT has no hard links, which would be one step too.
        try:
            os.close(os.open(self._target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError as error:
            raise SinkError(
                f"{self.path} has appeared since this recording began, and is kept; the recording"
                f" is complete in {part}, rename it"
            ) from error
        try:
            os.replace(part, self._target)
        except OSError:
            self._target.unlink()
            raise

    def _new_part(self) -> Path:
        """Create the hidden file; one that a killed process left is kept, and named."""
        target = self._target = link_target(self.path)
        number = 1
        while True:
            count = "" if number == 1 else number
            part = target.with_name(f".{target.stem}.part{count}{target.suffix}")
            try:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                self.notes.append(
                    f"{part} is a recording that still runs, or was cut off: then play it"
                    " or delete it"
                )
                number += 1
            else:
                return part

    def _options(self) -> dict[str, str]:
        if self.path.suffix.lower() == ".mkv":
            return {"cluster_time_limit": "1000", "flush_packets": "1"}
        flags = "+hybrid_fragmented+frag_keyframe"
        return {"movflags": flags, "frag_duration": "1000000", "flush_packets": "1"}

    def _new_stream(self, info: SinkInfo) -> Any:
        fps = min(max(info.fps, 0.1), 1000.0)
        # The rate is a hint for players; the frames carry the real times.
        stream: Any = self._container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001)
        )
        stream.width, stream.height = even_size(info.size)
        stream.pix_fmt = "yuv420p"
        stream.time_base = TIME_BASE
        stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        codec = stream.codec_context
        codec.time_base = TIME_BASE
        codec.gop_size = max(1, round(fps * 2))
        codec.thread_count = 2
        codec.color_range = ColorRange.MPEG
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        return stream

    def _pts(self, frame: Frame) -> int:
        if self._start_pts_ns is None:
            self._start_pts_ns = frame.pts_ns
            return 0
        ticks = (frame.pts_ns - self._start_pts_ns) * TIME_BASE.denominator
        self._last_pts = max(round(ticks / 1e9), self._last_pts + SHORTEST_TICKS)
        return self._last_pts

    def _stopped(self, error: Exception) -> str:
        return (
            f"the recording {self.path} stopped after {self.frames} frames: {_reason(error)};"
            f" what was written so far is in {self._part}"
        )

    def _discard(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (av.error.FFmpegError, OSError, ValueError):
            pass  # nothing in it is wanted
        if self._part is not None:
            self._part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full"
    if number == errno.EACCES:
        return "no permission to write there"
    return getattr(error, "strerror", None) or str(error)
