"""Streams from real servers that are killed, frozen and come back."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
from clips import (
    PATCHES,
    coded,
    colour_patches,
    empty_frame,
    patch_means,
    patient,
    write_clip,
)
from hypothesis import given
from hypothesis import strategies as st

from engines import SourceError
from realtime.pacing import (
    DRIFT_PER_S_NS,
    NS_PER_MS,
    NS_PER_S,
    PLAUSIBLE_WAIT_NS,
    ArrivalClock,
)
from realtime.sources import SourceInfo, video
from realtime.sources.synthetic import read_code
from realtime.sources.video import READ_TIMEOUT_S, VideoSource

SIZE = (320, 192)
PATIENCE_S = 60.0
SYSTEM_PYTHON = "/usr/bin/python3"
RTSP_PACKAGES = (
    "python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base"
    " gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
)
RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if not Gst.ElementFactory.find("x264enc"):
    sys.exit("no x264enc")
if sys.argv[1] != "check":
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=192,"
        "framerate=25/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! "
        "rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()
"""


@functools.cache
def why_no_rtsp() -> str:
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON}"
    command = [SYSTEM_PYTHON, "-c", RTSP_SERVER, "check"]
    if subprocess.run(command, capture_output=True, timeout=60).returncode == 0:
        return ""
    return f"no RTSP server: sudo apt-get install {RTSP_PACKAGES}"


@pytest.fixture
def needs_rtsp() -> None:
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "OPEN_TIMEOUT_S", 2.0)
    monkeypatch.setattr(video, "READ_TIMEOUT_S", 1.0)


needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg: sudo apt-get install ffmpeg"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        kill(running)
        assert running.stdout is not None
        running.stdout.close()


def kill(running: subprocess.Popen[str]) -> None:
    """SIGKILL, also for what the process started."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextlib.contextmanager
def rtsp_server(port: int) -> Iterator[subprocess.Popen[str]]:
    with process(SYSTEM_PYTHON, "-c", RTSP_SERVER, str(port)) as running:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == "ready"
        yield running


def ffmpeg_server(
    clip: Path, port: int, *, at_its_rate: bool = True
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """One that serves again after each client, as a real one does."""
    command = ["ffmpeg", "-v", "error", *(["-re"] if at_its_rate else []), "-stream_loop", "-1"]
    command += ["-i", os.fspath(clip), "-c", "copy", "-f", "mpegts"]
    command += [f"tcp://127.0.0.1:{port}?listen=1"]
    return process("sh", "-c", f"while :; do {shlex.join(command)} < /dev/null; sleep 0.1; done")


def open_patiently(source: VideoSource) -> SourceInfo:
    """A server needs a moment until it listens."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return source.open(None, realtime=True)
        except SourceError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)


class Reader:
    """Reads a source in a thread, as the pipeline does, and keeps what the frames said."""

    def __init__(self, source: VideoSource) -> None:
        self.source = source
        self.frames = 0
        self.captured: list[int] = []
        self.numbers: list[int] = []
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        frame = empty_frame(SIZE)
        try:
            while self.source.read(frame):
                code = read_code(frame.pixels)
                self.numbers.append(code[0] if code else -1)
                self.captured.append(frame.captured_ns)
                assert frame.captured_ns <= time.monotonic_ns()
                self.frames += 1
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            self.failure = error

    def wait_for(self, done: Callable[[], bool], what: str) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not done():
            assert self.failure is None, self.failure
            assert self.thread.is_alive(), f"ended instead of {what}: {self.source.notes}"
            assert time.monotonic() < give_up_s, f"no {what}: {self.source.notes}"
            time.sleep(0.02)

    def wait_for_frames(self, count: int) -> None:
        wanted = self.frames + count
        self.wait_for(lambda: self.frames >= wanted, f"{count} more frames")

    def stop(self) -> None:
        self.source.cancel()
        self.thread.join(READ_TIMEOUT_S + PATIENCE_S)
        assert not self.thread.is_alive()
        self.source.close()
        assert self.failure is None, self.failure
        assert self.captured == sorted(self.captured)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(
        tmp_path / "clip.mp4", coded(*SIZE, 50), options={"g": "10", "tune": "zerolatency"}
    )


def test_rtsp_that_is_killed_and_comes_back(needs_rtsp: None) -> None:
    port = free_port()
    source = VideoSource(f"rtsp://127.0.0.1:{port}/live")
    assert source.live
    with rtsp_server(port) as server:
        open_patiently(source)
        reader = Reader(source)
        try:
            reader.wait_for_frames(10)
            kill(server)
            reader.wait_for(
                lambda: any("trying to reconnect" in note for note in source.notes), "note"
            )
            with rtsp_server(port):
                reader.wait_for(lambda: source.reconnects >= 1, "reconnect")
                reader.wait_for_frames(10)
                assert any("reconnected" in note for note in source.notes)
                assert len(source.notes) == 1
        finally:
            reader.stop()


def test_rtsp_that_freezes_and_goes_on(needs_rtsp: None, short_timeouts: None) -> None:
    port = free_port()
    source = VideoSource(f"rtsp://127.0.0.1:{port}/live")
    with rtsp_server(port) as server:
        open_patiently(source)
        reader = Reader(source)
        try:
            reader.wait_for_frames(10)
            server.send_signal(signal.SIGSTOP)
            reader.wait_for(
                lambda: any("trying to reconnect" in note for note in source.notes), "note"
            )
            server.send_signal(signal.SIGCONT)
            reader.wait_for(lambda: source.reconnects >= 1, "reconnect")
            reader.wait_for_frames(10)
        finally:
            reader.stop()


def test_cancel_ends_a_read_that_waits_for_a_frozen_server(
    needs_rtsp: None, short_timeouts: None
) -> None:
    port = free_port()
    source = VideoSource(f"rtsp://127.0.0.1:{port}/live")
    with rtsp_server(port) as server:
        open_patiently(source)
        reader = Reader(source)
        reader.wait_for_frames(5)
        server.send_signal(signal.SIGSTOP)
        reader.stop()


@needs_ffmpeg
def test_mpegts_over_tcp_that_is_killed_and_comes_back(clip: Path) -> None:
    port = free_port()
    source = VideoSource(f"tcp://127.0.0.1:{port}")
    assert source.live
    with ffmpeg_server(clip, port) as server:
        open_patiently(source)
        reader = Reader(source)
        try:
            reader.wait_for_frames(10)
            kill(server)
            reader.wait_for(
                lambda: any("trying to reconnect" in note for note in source.notes), "note"
            )
            with ffmpeg_server(clip, port):
                reader.wait_for(lambda: source.reconnects >= 1, "reconnect")
                reader.wait_for_frames(10)
                assert source.notes[0].endswith("and reconnected")
        finally:
            reader.stop()
    assert reader.numbers.count(-1) == 0
    steps = [(b - a) % 50 for a, b in zip(reader.numbers, reader.numbers[1:])]
    assert sum(step != 1 for step in steps) <= source.reconnects  # else in order


@needs_ffmpeg
def test_cancel_ends_the_wait_for_a_server_that_is_gone(clip: Path) -> None:
    port = free_port()
    source = VideoSource(f"tcp://127.0.0.1:{port}")
    with ffmpeg_server(clip, port) as server:
        open_patiently(source)
        reader = Reader(source)
        reader.wait_for_frames(5)
        kill(server)
        reader.wait_for(lambda: bool(source.notes), "note")
        reader.stop()


@needs_ffmpeg
def test_what_waited_in_the_socket_is_older(clip: Path) -> None:
    """Nobody reads for a second (an engine is compiled): the age of what lay there says so."""
    port = free_port()
    source = VideoSource(f"tcp://127.0.0.1:{port}")
    with ffmpeg_server(clip, port):
        open_patiently(source)
        frame = empty_frame(SIZE)
        for _ in range(10):
            assert source.read(frame)
        time.sleep(1.2)
        assert source.read(frame)
        assert frame.age_ns(time.monotonic_ns()) > 0.9 * NS_PER_S
        for _ in range(200):  # and caught up with the present soon
            assert source.read(frame)
            if frame.age_ns(time.monotonic_ns()) < 0.5 * NS_PER_S:
                break
        else:
            pytest.fail("the age never came down again")
        source.close()


class MotionJpeg(http.server.BaseHTTPRequestHandler):
    """What cheap network cameras do."""

    pictures: tuple[bytes, ...] = ()
    connections = 0
    frames_a_connection = 10**9
    stall_after = 10**9
    period_s = 0.03
    server_closed: threading.Event

    def do_GET(self) -> None:
        if self.path != "/video":
            self.send_error(404)
            return
        type(self).connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(self.frames_a_connection):
                data = self.pictures[number % len(self.pictures)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                while number >= self.stall_after and not self.server_closed.is_set():
                    time.sleep(0.05)
                time.sleep(self.period_s)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def http_camera(**settings: object) -> Iterator[tuple[str, type[MotionJpeg]]]:
    closed = threading.Event()
    handler = type("Camera", (MotionJpeg,), {"server_closed": closed, **settings})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/video", handler
        finally:
            closed.set()
            server.shutdown()
            thread.join()


def jpegs(count: int) -> tuple[bytes, ...]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 80]
    return tuple(cv2.imencode(".jpg", item, quality)[1].tobytes() for item in coded(*SIZE, count))


def test_http_motion_jpeg() -> None:
    with http_camera(pictures=jpegs(50)) as (address, _):
        source = VideoSource(address)
        info = source.open(None, realtime=True)
        assert info.size == SIZE
        assert info.frames is None
        assert source.live
        reader = Reader(source)
        reader.wait_for_frames(30)
        reader.stop()
        assert reader.numbers.count(-1) == 0
        steps = {(b - a) % 50 for a, b in zip(reader.numbers, reader.numbers[1:])}
        assert steps == {1}  # no frame is held back, lost or repeated
        assert source.notes == []


def test_http_motion_jpeg_that_ends_and_comes_back() -> None:
    with http_camera(pictures=jpegs(50), frames_a_connection=20) as (address, camera):
        source = VideoSource(address)
        source.open(None, realtime=True)
        reader = Reader(source)
        reader.wait_for(lambda: source.reconnects >= 2, "second reconnect")
        reader.wait_for_frames(5)
        reader.stop()
        assert camera.connections >= 3
        assert any(note.endswith("times, and reconnected") for note in source.notes), source.notes


def test_hd_motion_jpeg_has_the_right_colours() -> None:
    """JPEG is BT.601 at any size; a rule of thumb for untagged HD would take BT.709."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    picture = cv2.imencode(".jpg", colour_patches(1280, 720), quality)[1].tobytes()
    with http_camera(pictures=(picture,)) as (address, _):
        source = VideoSource(address)
        frame = empty_frame(source.open(None, realtime=True).size)
        assert source.read(frame)
        source.close()
    assert abs(patch_means(frame.pixels) - PATCHES).max() <= 5


def test_a_recording_over_http_is_a_recording(clip: Path) -> None:
    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

    handler = functools.partial(Files, directory=os.fspath(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            source = VideoSource(f"http://127.0.0.1:{server.server_port}/clip.mp4")
            info = source.open(None, realtime=False)
            assert not source.live
            assert info.frames == 50
            frame = empty_frame(SIZE)
            count = 0
            while source.read(frame):
                count += 1
            source.close()
        finally:
            server.shutdown()
            thread.join()
    assert count == 50
    assert source.notes == []


def test_servers_that_are_not_there_or_refuse() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for scheme in ("rtsp", "http", "tcp"):
        with pytest.raises(SourceError) as caught:
            VideoSource(f"{scheme}://{nobody}/video").open(None, realtime=True)
        assert nobody in str(caught.value)
        assert "\n" not in str(caught.value)
    with http_camera(pictures=jpegs(1)) as (address, _):
        wrong = address.replace("/video", "/elsewhere")
        with pytest.raises(SourceError, match="404"):
            VideoSource(wrong).open(None, realtime=True)


def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "OPEN_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def refused(scheme: str) -> str:
            with pytest.raises(SourceError) as caught:
                VideoSource(f"{scheme}://127.0.0.1:{port}").open(None, realtime=True)
            return str(caught.value)

        with ThreadPoolExecutor() as pool:  # each of them waits a second
            for said in pool.map(refused, ("tcp", "rtsp", "http")):
                assert "did not answer within 1 s" in said


@patient
@given(
    st.lists(st.integers(0, 3 * NS_PER_S), min_size=2, max_size=60),
    st.integers(-(10**14), 10**14),
)
def test_arrival_clock_counts_waiting_as_age(delays: list[int], offset_ns: int) -> None:
    """Of a steady sender: every frame is as old as it was held up longer than the quickest."""
    clock = ArrivalClock()
    quickest_ns = 10**18
    arrived_ns = 0
    for place, delay_ns in enumerate(delays):
        sent_ns = 10**15 + place * 33 * NS_PER_MS
        arrived_ns = max(arrived_ns, sent_ns + delay_ns)  # streams do not overtake
        captured_ns = clock.captured_ns(sent_ns + offset_ns, arrived_ns)
        quickest_ns = min(quickest_ns, arrived_ns - sent_ns)
        waited_ns = arrived_ns - sent_ns - quickest_ns
        drift_ns = place * 33 * NS_PER_MS * DRIFT_PER_S_NS // NS_PER_S
        assert waited_ns - drift_ns - 1 <= arrived_ns - captured_ns <= waited_ns


def test_arrival_clock_survives_a_sender_that_begins_anew() -> None:
    clock = ArrivalClock()
    now_ns = 10**12
    assert clock.captured_ns(5 * NS_PER_S, now_ns) == now_ns
    assert clock.captured_ns(0, now_ns + NS_PER_S) == now_ns + NS_PER_S  # back to 0
    later_ns = now_ns + 2 * PLAUSIBLE_WAIT_NS
    assert clock.captured_ns(NS_PER_MS, later_ns) == later_ns  # a stream that stood still
    ahead_ns = later_ns + NS_PER_S
    assert clock.captured_ns(3600 * NS_PER_S, ahead_ns) == ahead_ns  # a jump ahead


def test_arrival_clock_follows_a_sender_whose_clock_is_slow() -> None:
    """100 ppm for an hour must not look like 360 ms of age."""
    clock = ArrivalClock()
    for second in range(3600):
        sent_ns = second * NS_PER_S
        arrived_ns = 10**12 + sent_ns + sent_ns // 10_000
        assert arrived_ns - clock.captured_ns(sent_ns, arrived_ns) < NS_PER_MS
