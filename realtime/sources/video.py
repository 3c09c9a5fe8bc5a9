"""Video files and streams through PyAV: mp4, mkv, RTSP, HTTP/MJPEG, MPEG-TS over TCP..."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from engines import Pixels, Size, SourceError
from realtime.frame import Frame
from realtime.pacing import NS_PER_MS, NS_PER_S, Timeline, backoff_s
from realtime.sources.base import Source, SourceInfo, check_size, crop_to_aspect
from realtime.sources.pictures import flatten_alpha

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
LIVE_OPTIONS = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000"}
FALLBACK_FPS = 25.0
LATE_NS = 100 * NS_PER_MS
"""A frame of a recording that is this late is not converted: the next one is nearer to now."""


class VideoSource(Source):
    """A recording or a stream. Streams reconnect for ever, with growing pauses.

    ``captured_ns`` is when a recorded frame was due, or when a streamed one had been decoded.
    """

    name = "video"

    def __init__(self, target: str | os.PathLike[str]) -> None:
        super().__init__()
        self._target = os.fspath(target)
        scheme, separator, _ = self._target.partition("://")
        self._scheme = scheme.lower() if separator else ""
        self.live = self._scheme in LIVE_SCHEMES
        self.path = None if self._scheme else Path(self._target)
        self.reconnects = 0
        self._container: Any = None
        self._frames: Iterator[VideoFrame] | None = None
        self._first: VideoFrame | None = None
        self._reformatter = VideoReformatter()
        self._timeline: Timeline | None = None
        self._realtime = False
        self._origin_s: float | None = None
        self._last_pts_ns = -1
        self._started_ns: int | None = None
        self._decoded = 0
        self._corrupt = 0
        self._fps = FALLBACK_FPS

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._cancelled = False
        self._realtime = realtime
        if not self._scheme and not os.path.isfile(self._target):
            raise SourceError(f"no such file: {self._target}")
        self._connect()
        container, first = self._container, self._first
        assert first is not None
        if not self.live and self._scheme and container.duration is None:
            self.live = True  # an HTTP camera: nothing tells how long it will last
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        self._fps = float(rate) if rate and 0 < rate <= 1000 else FALLBACK_FPS
        self._timeline = Timeline() if realtime and not self.live else None
        shown = self._shown_size(first)
        check_size(shown, self._target)
        return SourceInfo(
            size=shown,
            fps=self._fps,
            frames=None if self.live else self._expected_frames(stream, container),
            description=f"{stream.codec_context.name} {shown[0]}x{shown[1]}, {self._fps:.4g} fps",
        )

    def read(self, frame: Frame) -> bool:
        while not self._cancelled:
            picture = self._next_picture()
            if picture is None:
                if self.live and self._reconnect():
                    continue
                self._explain_end()
                return False
            if self._stamp(picture, frame):
                self._convert(picture, frame.pixels)
                if not self.live and self._timeline is not None:
                    return self._sleep_until(frame.captured_ns)
                return True
        return False

    def close(self) -> None:
        self._frames = self._first = None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _connect(self) -> None:
        self.close()
        options = dict(LIVE_OPTIONS) if self.live else {}
        if self._scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"
        try:
            self._container = av.open(
                self._target, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S)
            )
            if not self._container.streams.video:
                raise SourceError(f"{self._target} has no video in it")
            # Frame threads hold frames back: for a stream that would be age.
            self._container.streams.video[0].thread_type = "SLICE" if self.live else "AUTO"
            self._frames = self._decode()
            self._first = next(self._frames, None)
        except (av.error.FFmpegError, ValueError) as error:
            self.close()
            raise SourceError(self._explain(error)) from error
        except SourceError:
            self.close()
            raise
        if self._first is None:
            self.close()
            raise SourceError(f"{self._target} has no frame that can be decoded")

    def _decode(self) -> Iterator[VideoFrame]:
        """Yield pictures; a packet that cannot be decoded is counted and left out."""
        stream = self._container.streams.video[0]
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError:
                if self.live:
                    raise
                self._corrupt += 1
                return
            try:
                pictures = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._corrupt += 1
                continue
            yield from cast("list[VideoFrame]", pictures)

    def _next_picture(self) -> VideoFrame | None:
        if self._first is not None:
            picture, self._first = self._first, None
            return picture
        assert self._frames is not None
        try:
            return next(self._frames, None)
        except av.error.FFmpegError:
            return None  # a stream went away; `read` decides what to do

    def _reconnect(self) -> bool:
        attempt = 0
        self.close()
        while not self._cancelled:
            self._note(f"lost {self._target}, trying to reconnect")
            if not self._sleep_until(time.monotonic_ns() + round(backoff_s(attempt) * NS_PER_S)):
                return False
            attempt += 1
            try:
                self._connect()
            except SourceError:
                continue
            self.reconnects += 1
            self._note(f"{self._target} was lost and came back {self.reconnects} times")
            return True
        return False

    def _stamp(self, picture: VideoFrame, frame: Frame) -> bool:
        """Set the times; False when the frame is too late to be worth converting."""
        self._decoded += 1
        now_ns = time.monotonic_ns()
        if self.live:
            if self._started_ns is None:
                self._started_ns = now_ns
            frame.captured_ns, frame.pts_ns = now_ns, now_ns - self._started_ns
            return True
        frame.pts_ns = self._pts_ns(picture)
        if self._timeline is None:
            frame.captured_ns = now_ns
            return True
        resyncs = self._timeline.resyncs
        frame.captured_ns = self._timeline.due_ns(frame.pts_ns, now_ns)
        if self._timeline.resyncs > resyncs:
            self._note("decoding is slower than real time: the recording plays slowed down")
        if now_ns - frame.captured_ns > LATE_NS:
            self.dropped += 1
            return False
        return True

    def _pts_ns(self, picture: VideoFrame) -> int:
        """Return the time since the first frame; made up from the rate where there is none."""
        step_ns = round(NS_PER_S / self._fps)
        if picture.pts is None or picture.time_base is None:
            pts_ns = self._last_pts_ns + step_ns if self._last_pts_ns >= 0 else 0
        else:
            seconds = float(picture.pts * Fraction(picture.time_base))
            if self._origin_s is None:
                self._origin_s = seconds
            pts_ns = round((seconds - self._origin_s) * NS_PER_S)
        if pts_ns <= self._last_pts_ns:  # broken files repeat or reverse time stamps
            pts_ns = self._last_pts_ns + NS_PER_MS
        self._last_pts_ns = pts_ns
        return pts_ns

    def _convert(self, picture: VideoFrame, target: Pixels) -> None:
        """Scale, rotate and convert into ``target`` with one copy."""
        height, width = target.shape[:2]
        quarter_turns = _quarter_turns(picture)
        if quarter_turns % 2:
            width, height = height, width
        shown = self._square_pixels(picture)
        top, left, crop_height, crop_width = crop_to_aspect(shown, (width, height))
        full_width = max(width, round(shown[0] * width / crop_width))
        full_height = max(height, round(shown[1] * height / crop_height))
        has_alpha = any(part.is_alpha for part in picture.format.components)
        space = None
        if picture.colorspace in (Colorspace.DEFAULT, 2) and picture.height >= 720:
            space = Colorspace.ITU709  # untagged HD is BT.709; swscale would take BT.601
        same = (picture.width, picture.height) == (full_width, full_height)
        converted = self._reformatter.reformat(
            picture,
            width=full_width,
            height=full_height,
            format="bgra" if has_alpha else "bgr24",
            src_colorspace=space,
            interpolation=Interpolation.POINT if same else Interpolation.AREA,
            threads=1,
        )
        plane = converted.planes[0]
        channels = 4 if has_alpha else 3
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:full_height]
        pixels = rows[:, : full_width * channels].reshape(full_height, full_width, channels)
        first_row = round(top * full_height / shown[1])
        first_column = round(left * full_width / shown[0])
        pixels = pixels[first_row : first_row + height, first_column : first_column + width]
        if has_alpha:
            pixels = flatten_alpha(pixels)
        np.copyto(target, np.rot90(pixels, quarter_turns) if quarter_turns else pixels)

    def _square_pixels(self, picture: VideoFrame) -> Size:
        """Return (width, height) of the unrotated picture with square pixels."""
        aspect = self._container.streams.video[0].sample_aspect_ratio
        width = picture.width
        if aspect and 0.1 < aspect < 10:
            width = max(1, round(width * float(aspect)))
        return width, picture.height

    def _shown_size(self, picture: VideoFrame) -> Size:
        width, height = self._square_pixels(picture)
        return (height, width) if _quarter_turns(picture) % 2 else (width, height)

    @staticmethod
    def _expected_frames(stream: Any, container: Any) -> int | None:
        if stream.frames:
            return int(stream.frames)
        if container.duration and stream.average_rate:
            seconds = float(container.duration) / float(av.time_base)
            return round(seconds * float(stream.average_rate))
        return None

    def _explain_end(self) -> None:
        """Say it when a recording ended before its own header says."""
        if self.live or self._cancelled or self._container is None:
            return
        expected = self._container.streams.video[0].frames
        if expected and self._decoded < expected - 2:
            self._note(
                f"{self._target} is truncated: it ended after {self._decoded} of {expected} frames"
            )
        elif self._corrupt:
            self._note(f"{self._target}: {self._corrupt} damaged places were left out")

    def _note(self, text: str) -> None:
        """Keep the newest of a kind only: a stream may come and go for days."""
        self.notes[:] = [note for note in self.notes if self._target not in note]
        self.notes.append(text)

    def _explain(self, error: Exception) -> str:
        if isinstance(error, av.error.InvalidDataError):
            return f"{self._target} is no video that can be read (another format, or truncated)"
        if isinstance(error, (av.error.TimeoutError, av.error.ExitError)):
            return f"{self._target} did not answer within {OPEN_TIMEOUT_S:.0f} s"
        reason = getattr(error, "strerror", None) or str(error)
        return f"cannot open {self._target}: {reason}"


def _quarter_turns(picture: VideoFrame) -> int:
    """Return how often to turn counter-clockwise by 90 degrees (display matrix)."""
    return round(picture.rotation / 90) % 4
