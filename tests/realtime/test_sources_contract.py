"""One suite that every source passes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import coded, empty_frame, quadrants, read_all, write_clip
from test_camera import ClipCamera
from test_streams import ffmpeg_server, free_port, http_camera, jpegs

from engines import SourceError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.frame import Frame
from realtime.sources import Source, SourceInfo, open_source, parse_size
from realtime.sources.images import ImagesSource
from realtime.sources.pictures import write_picture
from realtime.sources.screen import ScreenSource
from realtime.sources.synthetic import SyntheticSource
from realtime.sources.video import VideoSource

SIZE = (320, 192)
PATIENCE_S = 60.0
FRAMES = 12
KINDS = ["synthetic", "video", "images", "screen", "http", "tcp", "camera"]
FINITE = ["video", "images"]
PACED = ["synthetic", "video", "images", "screen", "http"]


@dataclasses.dataclass(frozen=True)
class Made:
    """How to make one kind of source; ``slow`` makes one whose second frame is far away."""

    new: Callable[[], Source]
    slow: Callable[[], Source] | None = None

    def open(self, *, realtime: bool = True) -> tuple[Source, tuple[int, int]]:
        source = self.new()
        return source, source.open(None, realtime=realtime).size


class PatientSource(VideoSource):
    """Waits until the server listens: the small one here starts anew after every client."""

    def open(self, size: tuple[int, int] | None, *, realtime: bool) -> SourceInfo:
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return super().open(size, realtime=realtime)
            except SourceError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.1)


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """A real X server without a screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb: sudo apt-get install xvfb")
    pytest.importorskip("mss")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-noreset", "-nolisten", "tcp"]
    server = subprocess.Popen(
        [*command, "-displayfd", str(write_end)], pass_fds=[write_end], stderr=subprocess.DEVNULL
    )
    os.close(write_end)
    try:
        with open(read_end, encoding="ascii") as answer:
            yield f":{answer.readline().strip()}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


@pytest.fixture
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Made]:
    kind = request.param
    with contextlib.ExitStack() as stack:
        if kind == "synthetic":
            yield Made(lambda: SyntheticSource(SIZE, 100), lambda: SyntheticSource(SIZE, 0.01))
        elif kind == "video":
            path = write_clip(tmp_path / "clip.mp4", coded(*SIZE, FRAMES))
            slow = write_clip(tmp_path / "slow.mkv", coded(*SIZE, 2), pts_ms=[0, 100_000])
            yield Made(lambda: VideoSource(path), lambda: VideoSource(slow))
        elif kind == "images":
            for number, picture in enumerate(coded(*SIZE, FRAMES)):
                write_picture(tmp_path / f"{number}.png", picture)
            yield Made(lambda: ImagesSource(tmp_path), lambda: ImagesSource(tmp_path, 0.01))
        elif kind == "screen":
            monkeypatch.setenv("DISPLAY", request.getfixturevalue("display"))
            yield Made(lambda: ScreenSource(1, 100), lambda: ScreenSource(1, 0.01))
        elif kind == "http":
            address, _ = stack.enter_context(http_camera(pictures=jpegs(50)))
            stalled, _ = stack.enter_context(http_camera(pictures=jpegs(9), stall_after=8))
            monkeypatch.setattr("realtime.sources.video.READ_TIMEOUT_S", 2.0)
            yield Made(lambda: VideoSource(address), lambda: VideoSource(stalled))
        elif kind == "tcp":
            if shutil.which("ffmpeg") is None:
                pytest.skip("no ffmpeg: sudo apt-get install ffmpeg")
            clip = write_clip(tmp_path / "clip.mp4", coded(*SIZE, 50), options={"g": "10"})
            port = free_port()
            stack.enter_context(ffmpeg_server(clip, port, at_its_rate=False))
            yield Made(lambda: PatientSource(f"tcp://127.0.0.1:{port}"))
        elif kind == "camera":
            clip = write_clip(tmp_path / "clip.mp4", coded(*SIZE, 200))
            yield Made(lambda: ClipCamera(clip))


every_kind = pytest.mark.parametrize("made", KINDS, indirect=True)


@every_kind
def test_open_gives_size_and_rate(made: Made) -> None:
    source = made.new()
    assert source.notes == []
    assert source.name
    source.close()  # before `open`: nothing happens
    info = source.open(None, realtime=True)
    try:
        assert info.size == SIZE
        assert info.fps is None or 0 < info.fps <= 1000
        assert info.frames is None or info.frames == FRAMES
        assert info.description
        assert not source.cancelled
        assert source.dropped == 0
    finally:
        source.close()


@every_kind
def test_read_fills_the_whole_picture_at_any_size(made: Made) -> None:
    source, size = made.open(realtime=False)
    try:
        for wanted in (size, (96, 96), (33, 57), (400, 100), (1, 1)):
            pictures = []
            for untouched in (77, 78):
                frame = empty_frame(wanted)
                frame.pixels[:] = untouched
                pixels = frame.pixels
                assert source.read(frame)
                assert frame.pixels is pixels
                pictures.append((pixels == untouched).all(axis=2))
            assert not (pictures[0] & pictures[1]).any()
    finally:
        source.close()


@every_kind
@pytest.mark.parametrize("realtime", [True, False])
def test_times_are_monotone_and_never_in_the_future(made: Made, realtime: bool) -> None:
    source, size = made.open(realtime=realtime)
    captured, pts, dropped = [], [], [0]
    try:
        for _ in range(8):
            frame = empty_frame(size)
            if not source.read(frame):
                break  # a machine so slow that the rest of a recording was late
            assert frame.captured_ns <= time.monotonic_ns()
            captured.append(frame.captured_ns)
            pts.append(frame.pts_ns)
            dropped.append(source.dropped)
    finally:
        source.close()
    assert captured
    assert captured == sorted(captured)
    assert pts == sorted(pts)
    assert len(set(pts)) == len(pts)
    assert pts[0] == 0
    assert dropped == sorted(dropped)


@pytest.mark.parametrize("made", FINITE, indirect=True)
@pytest.mark.parametrize("realtime", [True, False])
def test_the_end_is_said_by_false(made: Made, realtime: bool) -> None:
    source, size = made.open(realtime=realtime)
    frames = read_all(source, size)
    again = source.read(empty_frame(size))
    source.close()
    assert not again
    assert len(frames) + source.dropped == FRAMES


@every_kind
def test_cancel_ends_reading_from_another_thread(made: Made) -> None:
    source, size = made.open()
    results: list[object] = []
    running = threading.Event()

    def read() -> None:
        frame = empty_frame(size)
        try:
            while source.read(frame):
                running.set()
            results.append("ended")
        except BaseException as error:  # noqa: BLE001  (shown by the assertion)
            results.append(error)
        running.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert running.wait(PATIENCE_S)
    source.cancel()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert results == ["ended"]
    assert not source.read(empty_frame(size))
    source.close()


@pytest.mark.parametrize("made", PACED, indirect=True)
def test_cancel_ends_a_read_that_waits(made: Made) -> None:
    assert made.slow is not None
    source = made.slow()
    size = source.open(None, realtime=True).size
    reads: list[bool] = []

    def read() -> None:
        frame = empty_frame(size)
        while not reads or reads[-1]:
            reads.append(source.read(frame))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    started_s = time.monotonic()
    source.cancel()
    thread.join(PATIENCE_S)
    waited_s = time.monotonic() - started_s
    assert not thread.is_alive()
    assert reads[-1] is False
    assert waited_s < 30  # the next frame is 100 s away
    source.close()


@every_kind
def test_closing_twice_and_reopening(made: Made) -> None:
    source = made.new()
    for _ in range(2):
        size = source.open(None, realtime=True).size
        assert source.read(empty_frame(size))
        source.cancel()
        source.close()
        source.close()
    source.open(None, realtime=True)
    size = source.open(None, realtime=True).size  # without closing: starts anew as well
    frame = empty_frame(size)
    assert source.read(frame)
    assert frame.pts_ns == 0
    source.close()


@every_kind
def test_nothing_is_left_behind(made: Made) -> None:
    me = psutil.Process()

    def use() -> None:
        source, size = made.open()
        read_all(source, size, 3)
        source.close()

    use()  # libraries start their thread pools once
    before = me.num_fds(), me.num_threads()
    for _ in range(3):
        use()
    give_up_s = time.monotonic() + PATIENCE_S
    while me.num_fds() > before[0] or me.num_threads() > before[1]:  # a server's end may linger
        assert time.monotonic() < give_up_s, (before, me.num_fds(), me.num_threads())
        time.sleep(0.05)


@every_kind
def test_in_a_pipeline(made: Made) -> None:
    source = made.new()
    seen: list[tuple[int, int]] = []

    def look(frame: Frame) -> None:
        seen.append((frame.index, frame.captured_ns))

    Pipeline(source, IdentityEngine(None), [look], mode="every", frames=6).run()
    assert [index for index, _ in seen] == list(range(6))
    assert seen == sorted(seen, key=lambda item: item[1])


@pytest.mark.parametrize("kind", ["text", "empty", "cut"])
def test_a_failed_open_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.mp4"
    whole = write_clip(tmp_path / "whole.mp4", coded(*SIZE, FRAMES)).read_bytes()
    path.write_bytes({"text": b"text" * 999, "empty": b"", "cut": whole[: len(whole) // 2]}[kind])
    me = psutil.Process()
    before = me.num_fds()
    for _ in range(3):
        with pytest.raises(SourceError):
            VideoSource(path).open(None, realtime=True)
    assert me.num_fds() == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "a source is 0, /dev/video0"),
        ("  ", "a source is 0, /dev/video0"),
        ("clip\0.mp4", "a source is 0, /dev/video0"),
        ("missing.mp4", "no such file: missing.mp4"),
        ("-1", "no such file: -1"),
        ("screen:left", "a screen is 'screen' or 'screen:NUMBER'"),
        ("test-pattern:huge", "a test pattern is"),
        ("nonsense://host/path", "cannot open nonsense://host/path: Protocol not found"),
        ("file:///missing/clip.mp4", "no such file: /missing/clip.mp4"),
    ],
)
def test_bad_specs_are_refused_in_one_line(spec: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(spec).open(None, realtime=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_specs(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a clip.mp4", coded(*SIZE, 2))
    for spec in (clip, str(clip), clip.as_uri()):
        source = open_source(spec)
        assert isinstance(source, VideoSource)
        assert source.path == clip
        assert not source.live
    assert isinstance(open_source(tmp_path), ImagesSource)
    assert isinstance(open_source("screen:2"), ScreenSource)
    ready = SyntheticSource()
    assert open_source(ready) is ready
    assert open_source("RTSP://camera/live").live


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_a_file_below_dev_is_a_file() -> None:
    path = Path(f"/dev/shm/pix2live-test-{os.getpid()}.mp4")
    try:
        write_clip(path, coded(*SIZE, 2))
        assert isinstance(open_source(path), VideoSource)
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["640", "640x", "x360", "0x360", "640x360x3", "-1x5", "6.4x3"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="a size is WIDTHxHEIGHT"):
        parse_size(text)


def test_screen_shows_what_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    xlib = pytest.importorskip("Xlib.display")
    with screen() as display:
        monkeypatch.setenv("DISPLAY", display)
        connection = xlib.Display(display)
        root = connection.screen().root
        wanted = quadrants(*SIZE)
        for y in (0, SIZE[1] // 2):
            for x in (0, SIZE[0] // 2):
                blue, green, red = (int(part) for part in wanted[y, x])
                context = root.create_gc(foreground=red << 16 | green << 8 | blue)
                root.fill_rectangle(context, x, y, SIZE[0] // 2, SIZE[1] // 2)
        connection.sync()
        source = ScreenSource(1, 100)
        info = source.open(None, realtime=True)
        assert info.size == SIZE
        (whole,) = read_all(source, SIZE, 1)
        (small,) = read_all(source, (160, 96), 1)
        source.close()
        connection.close()
    assert np.array_equal(whole.pixels, wanted)
    assert np.array_equal(small.pixels, quadrants(160, 96))


def test_a_screen_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with screen() as display:
        monkeypatch.setenv("DISPLAY", display)
        source = ScreenSource(1, 100)
        size = source.open(None, realtime=True).size
        assert source.read(empty_frame(size))
        assert source.notes == []
    with pytest.raises(SourceError, match=r"the screen went away: .") as caught:
        read_all(source, size, 3)
    assert "\n" not in str(caught.value)
    source.close()


def test_screens_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mss")
    monkeypatch.delenv("DISPLAY", raising=False)
    if sys.platform.startswith("linux"):
        with pytest.raises(SourceError, match="DISPLAY is not set"):
            ScreenSource().open(None, realtime=True)
        monkeypatch.setenv("DISPLAY", ":9876")
        with pytest.raises(SourceError, match="the screen cannot be grabbed") as caught:
            ScreenSource().open(None, realtime=True)
        assert "\n" not in str(caught.value)
    with screen() as display:
        monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(SourceError, match="no monitor 7, only 1 to 1"):
            ScreenSource(7).open(None, realtime=True)
