"""One suite for every sink: what the contract of `Sink` promises."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import pyvirtualcam
from pyvirtualcam.camera import BACKENDS

from engines import Pixels, SinkError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline, SinkInfo, open_sink
from realtime.sinks import CallableSink, NullSink, Sink
from realtime.sinks.images import ImagesSink
from realtime.sinks.video import VideoSink
from realtime.sinks.virtual_camera import VirtualCameraSink
from realtime.sinks.window import WindowSink
from realtime.sources.synthetic import SyntheticSource, read_code, write_code

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = os.environ.get("PIX2LIVE_TEST_WINDOWS") == "1"
"""Set for the process that `test_the_window_keeps_the_contract` starts."""
KINDS = ["null", "callable", "mp4", "mkv", "images", "camera"]
each_kind = pytest.mark.parametrize("kind", ["window"] if WINDOWS else KINDS)
each_size = pytest.mark.parametrize("size", [(640, 360), (641, 359), (64, 64), (1279, 720)])


class Backend:
    """A virtual camera for pyvirtualcam that keeps what it was sent."""

    got: list[Pixels] = []  # noqa: RUF012

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: Any) -> None:
        self._shape = height, width, 3

    def send(self, frame: Pixels) -> None:
        self.got.append(frame.reshape(self._shape).copy())

    def close(self) -> None: ...

    def device(self) -> str:
        return "test"

    def native_fourcc(self) -> None:
        return None


@dataclass
class Made:
    """A sink with a way to see what arrived."""

    sink: Sink
    folder: Path
    kept: list[Pixels] = field(default_factory=list)

    def arrived(self) -> list[Pixels] | None:
        """Return the pictures that arrived; None where a sink keeps none."""
        if isinstance(self.sink, CallableSink):
            return self.kept
        if isinstance(self.sink, VirtualCameraSink):
            return Backend.got
        if isinstance(self.sink, VideoSink):
            import av  # not before OpenCV, where there are windows

            with av.open(str(self.sink.path)) as film:
                return [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]
        if isinstance(self.sink, ImagesSink):
            paths = sorted(self.sink.path.iterdir())
            return [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]
        return None


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    pyvirtualcam.register_backend("pix2live-contract", Backend)
    yield
    BACKENDS.pop("pix2live-contract")


def make(kind: str, folder: Path) -> Made:
    if kind == "callable":
        kept: list[Pixels] = []
        return Made(CallableSink(lambda frame: kept.append(frame.pixels.copy())), folder, kept)
    if kind == "camera":
        Backend.got.clear()
        return Made(VirtualCameraSink(backend="pix2live-contract"), folder)
    if kind == "window":
        return Made(WindowSink(folder=folder), folder)
    spec = {"null": "null", "images": f"{folder / 'pictures'}/"}.get(
        kind, str(folder / f"a.{kind}")
    )
    return Made(open_sink(spec), folder)


def picture(number: int, size: tuple[int, int]) -> Pixels:
    """Return soft noise with a number in it."""
    noise = np.random.default_rng(number).integers(0, 255, (9, 16, 3), np.uint8)
    pixels = np.asarray(cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    write_code(pixels, number, number)
    return pixels


@each_kind
@each_size
def test_frames_arrive_and_are_not_changed(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    made = make(kind, tmp_path)
    sink = made.sink
    sink.open(SinkInfo(size, 30.0))
    memory = np.empty((size[1], size[0], 3), np.uint8)  # the pipeline uses its slots again
    frame = Frame(memory)
    for number in range(8):
        expected = picture(number, size)
        np.copyto(memory, expected)
        frame.index, frame.pts_ns = number, number * 33_000_000
        sink.write(frame)
        assert np.array_equal(memory, expected), "a sink must not change a frame"
        assert (frame.index, frame.pts_ns) == (number, number * 33_000_000)
        assert sink.idle()
        memory[:] = 255
    sink.close()
    sink.close()
    arrived = made.arrived()
    if arrived is None:
        return
    assert len(arrived) == 8
    for number, pixels in enumerate(arrived):
        expected = picture(number, size)
        part = pixels[: size[1], : size[0]]
        if isinstance(sink, VideoSink):
            code = read_code(part)
            assert code is None if min(size) < 128 else code == (number, number)
            assert np.abs(part[60:].astype(int) - expected[60:]).mean() < 6
        else:
            assert np.array_equal(part, expected)


@each_kind
def test_nothing_is_left_without_a_frame(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path)
    made.sink.close()
    made.sink.open(SinkInfo((65, 64), 30.0))
    made.sink.idle()
    made.sink.close()
    made.sink.close()
    assert list(tmp_path.rglob("*")) == []


@each_kind
def test_threads_and_handles_return(kind: str, tmp_path: Path) -> None:
    process = psutil.Process()

    def once() -> None:
        made = make(kind, Path(tempfile.mkdtemp(dir=tmp_path)))
        made.sink.open(SinkInfo((320, 180), 30.0))
        for number in range(4):
            made.sink.write(Frame(picture(number, (320, 180)), index=number, pts_ns=number << 25))
            made.sink.idle()
        made.sink.close()

    once()  # libraries start threads and open files of their own at first
    once()
    before = process.num_fds(), process.num_threads()
    for _ in range(3):
        once()
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s and process.num_threads() > before[1]:
        time.sleep(0.05)  # a thread that ended takes a moment to vanish
    assert process.num_fds() <= before[0]
    assert process.num_threads() <= before[1]
    assert not [name for name in tmp_path.rglob("*") if "part" in name.name]


@pytest.mark.skipif(WINDOWS, reason="not about windows")
@pytest.mark.parametrize("kind", ["mp4", "images", "camera"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about v4l2loopback")
def test_a_failed_open_leaves_nothing(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path / "missing")
    if kind == "camera":
        made.sink = VirtualCameraSink("/dev/no-such-camera", backend="v4l2loopback")
    with pytest.raises(SinkError) as caught:
        made.sink.open(SinkInfo((64, 64), 30.0))
    assert "\n" not in str(caught.value)
    made.sink.close()
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.skipif(not WINDOWS, reason="windows only: run by the test below")
def test_the_window_shows_and_its_screenshot_is_its_own(tmp_path: Path) -> None:
    sink = WindowSink(folder=tmp_path)
    sink.open(SinkInfo((320, 180), 30.0))
    memory = picture(5, (320, 180))
    sink.write(Frame(memory))
    memory[:] = 0
    sink._press(ord("p"))
    sink.close()
    (path,) = tmp_path.iterdir()
    assert np.array_equal(np.asarray(cv2.imread(str(path))), picture(5, (320, 180)))


@pytest.mark.skipif(WINDOWS, reason="this is the process that it starts")
def test_the_window_keeps_the_contract(tmp_path: Path) -> None:
    """In a process of its own: OpenCV's Qt knows one display, from start to end."""
    from xvfb import virtual_screen

    with virtual_screen() as screen:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
            cwd=ROOT,
            env=screen.env | {"PIX2LIVE_TEST_WINDOWS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout, done.stdout


@pytest.mark.skipif(WINDOWS, reason="not about windows")
class TestImages:
    def test_gaps_in_the_names_are_drops(self, tmp_path: Path) -> None:
        sink = open_sink(f"{tmp_path}/")
        sink.open(SinkInfo((64, 64), 30.0))
        for index in (0, 1, 5):
            sink.write(Frame(picture(index, (64, 64)), index=index))
        sink.close()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["000000.png", "000001.png", "000005.png"]

    @pytest.mark.parametrize("name", ["000000.png", "1234567.png", "000005.PNG"])
    def test_a_folder_with_numbered_pictures_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"of an earlier run")
        sink = open_sink(tmp_path)
        with pytest.raises(SinkError, match="numbered pictures already; give an empty or new"):
            sink.open(SinkInfo((64, 64), 30.0))
        sink.close()
        assert (tmp_path / name).read_bytes() == b"of an earlier run"
        assert len(list(tmp_path.iterdir())) == 1

    def test_other_files_may_be_there(self, tmp_path: Path) -> None:
        for name in ("12345.png", "000000.jpg", "000000.png.txt", "a000000.png"):
            (tmp_path / name).touch()
        sink = open_sink(tmp_path)
        sink.open(SinkInfo((64, 64), 30.0))
        sink.close()
        assert len(list(tmp_path.iterdir())) == 4

    @pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError("gone")])
    def test_a_folder_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
    ) -> None:
        def refuse(path: Path) -> None:
            raise error

        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(SinkError, match=r"cannot use the folder .*: (Permission denied|gone)"):
            open_sink(tmp_path).open(SinkInfo((64, 64), 30.0))

    def test_a_folder_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def access(path: Path, mode: int) -> bool:
            return not mode & os.W_OK  # root may write everywhere

        monkeypatch.setattr(os, "access", access)
        with pytest.raises(SinkError, match="no permission to write into"):
            open_sink(tmp_path).open(SinkInfo((64, 64), 30.0))

    def test_a_file_where_a_folder_is_meant(self, tmp_path: Path) -> None:
        (tmp_path / "clip").write_bytes(b"")
        with pytest.raises(SinkError, match="is a file; pictures need a folder"):
            open_sink(f"{tmp_path / 'clip'}/").open(SinkInfo((64, 64), 30.0))

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SinkError, match="does not exist; mkdir it first"):
            open_sink(f"{tmp_path}/no/such/").open(SinkInfo((64, 64), 30.0))


@pytest.mark.skipif(WINDOWS, reason="not about windows")
@pytest.mark.parametrize(
    "spec",
    ["", "clip.avi", "clip", ".mp4", "http://localhost/clip.mp4", "windows", 0, None, b"a.mp4"],
)
def test_what_is_no_sink_is_refused_in_one_line(spec: Any) -> None:
    with pytest.raises(SinkError, match="a sink is window, virtual-camera") as caught:
        open_sink(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(WINDOWS, reason="not about windows")
def test_what_is_a_sink(tmp_path: Path) -> None:
    null = NullSink()
    assert open_sink(null) is null
    found: dict[Any, type[Sink]] = {
        "null": NullSink,
        "window": WindowSink,
        "virtual-camera": VirtualCameraSink,
        "virtual-camera:/dev/video9": VirtualCameraSink,
        "virtual-camera:OBS Virtual Camera": VirtualCameraSink,
        "clip.MP4": VideoSink,
        tmp_path / "clip.mkv": VideoSink,
        f"{tmp_path}/new/": ImagesSink,
        tmp_path: ImagesSink,
        print: CallableSink,
    }
    for spec, kind in found.items():
        assert type(open_sink(spec)) is kind


@pytest.mark.skipif(WINDOWS, reason="not about windows")
def test_a_slow_sink_does_not_change_what_the_others_get(tmp_path: Path) -> None:
    def keep(numbers: list[int], pause_s: float) -> Callable[[Frame], None]:
        def look(frame: Frame) -> None:
            code = read_code(frame.pixels)
            assert code is not None
            assert code[0] == frame.index
            numbers.append(code[0])
            threading.Event().wait(pause_s)

        return look

    import av

    fast: list[int] = []
    slow: list[int] = []
    film = tmp_path / "film.mp4"
    pipeline = Pipeline(
        SyntheticSource((320, 180), 25),
        IdentityEngine(None),
        [keep(fast, 0), keep(slow, 0.5), film],
        mode="freshest",
        frames=50,
    )
    stats = pipeline.run()
    with av.open(str(film)) as container:
        codes = [read_code(f.to_ndarray(format="bgr24")) for f in container.decode(video=0)]
    filmed = [code[0] for code in codes if code is not None]
    made = stats.engine_out.count
    assert made == 50
    for numbers, sink in zip((fast, slow, filmed), stats.sinks):
        assert numbers == sorted(set(numbers)), "in order, none twice"
        assert len(numbers) == sink.ages.count
        assert len(numbers) + sink.overwritten == made, "each frame came or is counted"
    assert len(slow) < made // 3
    assert len(fast) > 2 * len(slow)
    assert len(filmed) > 2 * len(slow)
