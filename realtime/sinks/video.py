"""A recording: H.264 in mp4, mkv or mov through PyAV, with the frames' own times."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from engines import Pixels, SinkError
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v")
TIME_BASE = Fraction(1, 90000)


class VideoSink(Sink):
    """Records to a hidden ``.part`` file beside the target, and renames it when it is complete.

    While it records, the file is fragmented, so that even a killed process leaves one that plays;
    a target that exists already is replaced only by a complete recording.
    """

    name = "video"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path: Path = Path(path)
        self.name = self.path.name
        self._part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self._container: Any = None
        self._stream: Any = None
        self._first_pts_ns: int | None = None
        self._last_pts = -1
        self.frames = 0

    def open(self, info: SinkInfo) -> None:
        if not self.path.parent.is_dir():
            raise SinkError(f"the folder {self.path.parent} does not exist; mkdir it first")
        if self.path.is_dir():
            raise SinkError(
                f"{self.path} is a folder; a folder of pictures is written {self.path}/"
            )
        width, height = (side + side % 2 for side in info.size)
        if (width, height) != info.size:
            self.notes.append(
                f"{self.path}: H.264 needs even sides, the last row or column is doubled"
            )
        mp4 = self.path.suffix.lower() in (".mp4", ".m4v", ".mov")
        options = {"movflags": "+hybrid_fragmented+frag_keyframe"} if mp4 else {}
        try:
            self._container = av.open(str(self._part), "w", options=options)
            # PyAV wants a whole rate here; the frames carry the real times.
            stream: Any = self._container.add_stream("libx264", rate=max(1, round(info.fps)))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = TIME_BASE
            stream.codec_context.gop_size = max(1, round(info.fps * 2))
            stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"}
            stream.codec_context.thread_count = 2
            stream.codec_context.color_range = 1  # limited
            stream.codec_context.colorspace = 5  # what swscale makes of BGR: BT.601
            self._stream = stream
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._discard()
            raise SinkError(f"cannot write {self.path}: {_reason(error)}") from error

    def write(self, frame: Frame) -> None:
        try:
            picture = av.VideoFrame.from_ndarray(_even(frame.pixels), format="bgr24")
            picture = picture.reformat(format="yuv420p", threads=1)
            picture.pts, picture.time_base = self._pts(frame), TIME_BASE
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(self._stopped(error)) from error
        self.frames += 1

    def close(self) -> None:
        if self._container is None:
            return
        container, self._container = self._container, None
        if not self.frames:
            container.close()
            self._part.unlink(missing_ok=True)
            return
        try:
            try:
                for packet in self._stream.encode(None):
                    container.mux(packet)
            finally:
                container.close()
            os.replace(self._part, self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(self._stopped(error)) from error

    def _pts(self, frame: Frame) -> int:
        if self._first_pts_ns is None:
            self._first_pts_ns = frame.pts_ns
        pts = round((frame.pts_ns - self._first_pts_ns) * TIME_BASE.denominator / 1e9)
        self._last_pts = max(pts, self._last_pts + 1)
        return self._last_pts

    def _stopped(self, error: Exception) -> str:
        return (
            f"the recording {self.path} stopped after {self.frames} frames: {_reason(error)};"
            f" what was written so far is in {self._part}"
        )

    def _discard(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        self._part.unlink(missing_ok=True)


def _even(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    if not (height % 2 or width % 2):
        return pixels
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full"
    if number == errno.EACCES:
        return "no permission to write there"
    return getattr(error, "strerror", None) or str(error)
