"""Video files and streams through PyAV: mp4, mkv, RTSP, HTTP/MJPEG, MPEG-TS over TCP..."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.video.frame import VideoFrame

from engines import Size, SourceError
from realtime.frame import Frame
from realtime.pacing import LATE_NS, NS_PER_MS, NS_PER_S, ArrivalClock, Timeline, backoff_s
from realtime.sources.base import Source, SourceInfo, check_size
from realtime.sources.convert import PictureConverter, shown_size

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
LIVE_OPTIONS = {"fflags": "nobuffer", "analyzeduration": "1000000"}
SENDER_CLOCK_FORMATS = ("rtsp", "mpegts", "flv", "matroska", "sdp")
"""Streams in these have the sender's time stamps; elsewhere they are guessed from the rate."""
FALLBACK_FPS = 25.0


class VideoSource(Source):
    """A recording or a stream. Streams reconnect for ever, with growing pauses.

    ``captured_ns`` is when a recorded frame was due, or when a streamed one was decoded, less the
    time that it waited on the way, where the sender's time stamps tell it.
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
        self._converter = PictureConverter()
        self._forget()

    def _forget(self) -> None:
        self._timeline: Timeline | None = None
        self._clock: ArrivalClock | None = None
        self._aspect: Fraction | None = None
        self._origin_s: float | None = None
        self._last_pts_ns = -1
        self._started_ns: int | None = None
        self._decoded = 0
        self._damaged = 0
        self._read_to_s = 0.0
        self._fps = FALLBACK_FPS

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        self._forget()
        self.reconnects = 0
        if not self._scheme and not os.path.isfile(self._target):
            reason = "is no file" if os.path.exists(self._target) else "is not there"
            raise SourceError(f"the video {self._target} {reason}")
        self._connect()
        assert self._first is not None
        stream = self._container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        self._fps = float(rate) if rate and 0 < rate <= 1000 else FALLBACK_FPS
        self._timeline = Timeline() if realtime and not self.live else None
        shown = shown_size(self._first, self._aspect)
        try:
            check_size(shown, self._target)
        except SourceError:
            self.close()
            raise
        return SourceInfo(
            size=shown,
            fps=self._fps,
            frames=self._expected_frames(),
            description=f"{stream.codec_context.name} {shown[0]}x{shown[1]}, {self._fps:.4g} fps",
        )

    def read(self, frame: Frame) -> bool:
        while not self._cancelled:
            picture = self._next_picture()
            if self._cancelled:
                return False
            if picture is None:
                if self.live and self._reconnect():
                    continue
                self._explain_end()
                return False
            if not self._stamp(picture, frame):
                self.dropped += 1
                continue
            try:
                self._converter.convert(picture, self._aspect, frame.pixels)
            except av.error.FFmpegError as error:
                reason = f"cannot convert {picture.format.name} pixels: {error}"
                raise SourceError(f"{self._target}: {reason}") from error
            return self._timeline is None or self._sleep_until(frame.captured_ns)
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
        started_s = time.monotonic()
        try:
            container = av.open(
                self._target,
                options=options,
                metadata_errors="replace",
                timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
            )
            self._container = container
            if not container.streams.video:
                raise SourceError(f"{self._target} has no video in it")
            if self._scheme and container.duration is None:
                self.live = True  # an HTTP camera: nothing tells how long it will last
            # Frame threads hold frames back: for a stream that would be age.
            container.streams.video[0].thread_type = "SLICE" if self.live else "AUTO"
            self._aspect = container.streams.video[0].sample_aspect_ratio
            timed = any(name in container.format.name for name in SENDER_CLOCK_FORMATS)
            self._clock = ArrivalClock() if self.live and timed else None
            self._frames = self._decode()
            self._first = next(self._frames, None)
        except (av.error.FFmpegError, ValueError) as error:
            self.close()
            timed_out = time.monotonic() - started_s >= OPEN_TIMEOUT_S
            raise SourceError(self._explain(error, timed_out=timed_out)) from error
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
                self._damaged += 1
                return
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                self._read_to_s = max(self._read_to_s, float(end * packet.time_base))
            try:
                pictures = cast("list[VideoFrame]", packet.decode())
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            self._damaged += sum(picture.is_corrupt for picture in pictures)
            yield from pictures

    def _next_picture(self) -> VideoFrame | None:
        if self._first is not None:
            picture, self._first = self._first, None
            return picture
        if self._frames is None:
            raise SourceError(f"{self._target} is not open")
        try:
            return next(self._frames, None)
        except av.error.FFmpegError:
            return None  # a stream went away; `read` decides what to do

    def _reconnect(self) -> bool:
        attempt = 0
        self._note("lost", f"lost {self._target}, trying to reconnect")
        while self._sleep_until(time.monotonic_ns() + round(backoff_s(attempt) * NS_PER_S)):
            attempt += 1
            try:
                self._connect()
            except SourceError:
                continue
            self.reconnects += 1
            times = "once" if self.reconnects == 1 else f"{self.reconnects} times"
            self._note("lost", f"lost {self._target} {times}, and reconnected")
            return True
        return False

    def _stamp(self, picture: VideoFrame, frame: Frame) -> bool:
        """Set the times; False when the frame is too late to be worth converting."""
        self._decoded += 1
        now_ns = time.monotonic_ns()
        if self.live:
            frame.captured_ns = now_ns
            if self._clock is not None and picture.time is not None:
                sent_ns = round(picture.time * NS_PER_S)
                frame.captured_ns = self._clock.captured_ns(sent_ns, now_ns)
            if self._started_ns is None:
                self._started_ns = frame.captured_ns
            frame.pts_ns = frame.captured_ns - self._started_ns
            return True
        frame.pts_ns = self._pts_ns(picture)
        if self._timeline is None:
            frame.captured_ns = now_ns
            return True
        resyncs = self._timeline.resyncs
        frame.captured_ns = self._timeline.due_ns(frame.pts_ns, now_ns)
        if self._timeline.resyncs > resyncs:
            self._note("slow", "decoding is slower than real time: the recording plays slowed down")
        return now_ns - frame.captured_ns <= LATE_NS

    def _pts_ns(self, picture: VideoFrame) -> int:
        """Return the time since the first frame; made up from the rate where there is none."""
        step_ns = round(NS_PER_S / self._fps)
        if picture.time is None:
            pts_ns = self._last_pts_ns + step_ns if self._last_pts_ns >= 0 else 0
        else:
            if self._origin_s is None:
                self._origin_s = picture.time
            pts_ns = round((picture.time - self._origin_s) * NS_PER_S)
        if pts_ns <= self._last_pts_ns:  # broken files repeat or reverse time stamps
            pts_ns = self._last_pts_ns + NS_PER_MS
        self._last_pts_ns = pts_ns
        return pts_ns

    def _expected_s(self) -> float | None:
        """Return how long the video itself is, by the file's own word (an edit list counts)."""
        stream = self._container.streams.video[0]
        if stream.duration:
            start = stream.start_time or 0
            return float((start + stream.duration) * stream.time_base)
        hours, minutes, seconds = (stream.metadata.get("DURATION", "") + "::").split(":")[:3]
        try:  # Matroska
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return None

    def _expected_frames(self) -> int | None:
        if self.live:
            return None
        stream = self._container.streams.video[0]
        expected_s = self._expected_s()
        if expected_s is None and self._container.duration:
            expected_s = float(self._container.duration) / float(av.time_base)
        by_time = round(expected_s * self._fps) if expected_s else 0
        counts = [count for count in (int(stream.frames), by_time) if count > 0]
        return min(counts, default=None)

    def _explain_end(self) -> None:
        """Say it when a recording ended before its own header says."""
        if self.live or self._cancelled or self._container is None:
            return
        expected_s = self._expected_s() or 0.0
        missing_s = expected_s - self._read_to_s
        if missing_s > max(0.1, 3 / self._fps):
            self._note(
                "end",
                f"{self._target} is truncated: it ended after {self._decoded} frames, at"
                f" {self._read_to_s:.1f} of {expected_s:.1f} s",
            )
        elif self._damaged:
            self._note("end", f"{self._target} is damaged in {self._damaged} places")

    def _explain(self, error: Exception, *, timed_out: bool) -> str:
        if isinstance(error, av.error.InvalidDataError) and not timed_out:
            return f"{self._target} is no video that can be read (another format, or truncated)"
        if timed_out or isinstance(error, (av.error.TimeoutError, av.error.ExitError)):
            return f"{self._target} did not answer within {OPEN_TIMEOUT_S:.0f} s"
        reason = getattr(error, "strerror", None) or str(error)
        return f"cannot open {self._target}: {reason}"
