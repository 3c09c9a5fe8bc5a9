"""Cameras: the mode that is asked for, and what goes wrong. Real devices: tests/acceptance."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from clips import coded, empty_frame, read_all, write_clip

from engines import SourceError
from realtime.sources import camera as camera_module
from realtime.sources import open_source, v4l2
from realtime.sources.camera import MAX_DAMAGED_IN_A_ROW, CameraSource
from realtime.sources.synthetic import read_code
from realtime.sources.v4l2 import Device, Mode, choose_mode

SIZE = (320, 192)

# What common webcams list: raw pixels lose their rate where the bus is full.
C920 = (
    Mode(640, 360, 30, "YUYV"),
    Mode(640, 480, 30, "YUYV"),
    Mode(1280, 720, 10, "YUYV"),
    Mode(1920, 1080, 5, "YUYV"),
    Mode(640, 360, 30, "MJPG"),
    Mode(640, 480, 30, "MJPG"),
    Mode(1280, 720, 30, "MJPG"),
    Mode(1920, 1080, 30, "MJPG"),
    Mode(1280, 720, 30, "H264"),
)
OLD = (Mode(320, 240, 30, "YUYV"), Mode(640, 480, 30, "YUYV"), Mode(1280, 720, 9, "YUYV"))
FAST = (
    Mode(640, 480, 60, "MJPG"),
    Mode(640, 480, 30, "YUYV"),
    Mode(640, 360, 30, "NV12"),
    Mode(640, 360, 30, "YUYV"),
)
SILENT = (Mode(640, 480, 0, "YUYV"), Mode(640, 480, 0, "MJPG"))


@pytest.mark.parametrize(
    ("modes", "size", "fps", "wanted"),
    [
        (C920, (640, 360), 30, Mode(640, 360, 30, "YUYV")),  # enough: no decoding
        (C920, (1280, 720), 30, Mode(1280, 720, 30, "MJPG")),  # raw is capped at 10
        (C920, (1280, 720), 10, Mode(1280, 720, 10, "YUYV")),
        (C920, (1920, 1080), 30, Mode(1920, 1080, 30, "MJPG")),
        (C920, (1280, 700), 29.97, Mode(1280, 720, 30, "MJPG")),
        (C920, (4000, 3000), 30, Mode(1920, 1080, 30, "MJPG")),  # the most it has
        (C920, (100, 100), 30, Mode(640, 360, 30, "YUYV")),
        (OLD, (640, 360), 30, Mode(640, 480, 30, "YUYV")),  # cropped, rather than scaled up
        (OLD, (1280, 720), 30, Mode(1280, 720, 9, "YUYV")),  # nothing better: a note says 9
        (FAST, (640, 480), 60, Mode(640, 480, 60, "MJPG")),
        (FAST, (640, 480), 30, Mode(640, 480, 30, "YUYV")),
        (FAST, (640, 360), 30, Mode(640, 360, 30, "YUYV")),
        (SILENT, (640, 480), 30, Mode(640, 480, 0, "YUYV")),
        ((Mode(640, 480, 30, "H264"),), (640, 480), 30, None),  # OpenCV cannot decode it
        ((), (640, 480), 30, None),
    ],
)
def test_choose_mode(
    modes: tuple[Mode, ...], size: tuple[int, int], fps: float, wanted: Mode | None
) -> None:
    assert choose_mode(modes, size, fps) == wanted
    assert choose_mode(tuple(reversed(modes)), size, fps) == wanted


def test_a_missing_camera_lists_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def two() -> list[Device]:
        return [
            Device(f"/dev/video{number}", "Webcam", "uvcvideo", captures=True, outputs=False)
            for number in (0, 2)
        ]

    monkeypatch.setattr(v4l2, "list_cameras", two)
    with pytest.raises(SourceError, match=r"no camera /dev/video97 .*/dev/video0, /dev/video2"):
        CameraSource(97).open(None, realtime=True)
    monkeypatch.setattr(v4l2, "list_cameras", list)
    for spec in (97, "97", "/dev/video97"):
        with pytest.raises(SourceError, match=r"no camera /dev/video97 \(cameras here: none\)"):
            open_source(spec).open(None, realtime=True)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_that_is_no_camera(path: str) -> None:
    source = open_source(path)
    assert isinstance(source, CameraSource)
    with pytest.raises(SourceError, match=f"the camera {path}: it does not answer") as caught:
        source.open(None, realtime=True)
    assert "\n" not in str(caught.value)
    device = v4l2.query(path)
    assert not device.captures
    assert device.modes == ()


def test_a_device_that_is_only_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def loopback(path: str) -> Device:
        return Device(path, "OBS", "v4l2 loopback", captures=False, outputs=True)

    monkeypatch.setattr(v4l2, "query", loopback)
    with pytest.raises(SourceError, match=r"/dev/null \(OBS\) is no camera"):
        CameraSource("/dev/null").open(None, realtime=True)


def test_devices_are_listed_in_numeric_order() -> None:
    numbers = [int(device.path.removeprefix("/dev/video")) for device in v4l2.list_devices()]
    assert numbers == sorted(numbers)
    assert all(device.captures for device in v4l2.list_cameras())


class ClipCamera(CameraSource):
    """A camera whose driver is a real OpenCV capture of a clip; its end is the unplugging."""

    def __init__(self, clip: Path, mode: Mode | None = None) -> None:
        super().__init__(str(clip))
        self._mode = mode

    def _check_and_choose(self, size: tuple[int, int]) -> Mode | None:
        return self._mode

    def _open_capture(self) -> Any:
        return cv2.VideoCapture(self._target, cv2.CAP_FFMPEG)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", coded(*SIZE, 12))


def test_a_camera_that_vanishes(clip: Path) -> None:
    source = ClipCamera(clip)
    info = source.open(SIZE, realtime=True)
    assert info.size == SIZE
    frames = read_all(source, SIZE, 11)
    with pytest.raises(SourceError, match="went away"):
        source.read(empty_frame(SIZE))
    source.close()
    numbers = [(read_code(frame.pixels) or (-1,))[0] for frame in frames]
    assert numbers == list(range(1, 12))  # the first proved, at `open`, that pictures come


def test_a_cancelled_camera_that_fails_has_ended(clip: Path) -> None:
    source = ClipCamera(clip)
    source.open(SIZE, realtime=True)
    read_all(source, SIZE, 3)
    source.cancel()
    assert not source.read(empty_frame(SIZE))
    source.close()


def test_what_the_driver_gave_is_in_the_notes(clip: Path) -> None:
    source = ClipCamera(clip, Mode(1280, 720, 30, "MJPG"))
    info = source.open((1280, 720), realtime=True)
    source.close()
    assert info.size == SIZE  # a file does not change its size: a driver that does not obey
    assert source.notes == [
        f"asked the camera for 1280x720 30 fps, it gave {SIZE[0]}x{SIZE[1]} h264 25 fps"
    ]


def test_a_size_that_is_obeyed_needs_no_note(clip: Path) -> None:
    source = ClipCamera(clip)
    source._fps = 25
    source.open(SIZE, realtime=True)
    source.close()
    assert source.notes == []


def test_a_camera_that_opens_and_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match="cannot be opened"):
        ClipCamera(tmp_path / "empty.mp4").open(None, realtime=True)


class Flaky:
    """A capture whose every picture but the n-th is damaged, as over a bad USB cable."""

    def __init__(self, good: int) -> None:
        self._good = good
        self._count = 0
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, *_: float) -> bool:
        return False

    def get(self, key: int) -> float:
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: SIZE[0], cv2.CAP_PROP_FRAME_HEIGHT: SIZE[1]}
        return float(sizes.get(key, 0))

    def grab(self) -> bool:
        self._count += 1
        return True

    def retrieve(self, _: Any) -> tuple[bool, Any]:
        if self._count % self._good:
            return False, None
        return True, np.full((SIZE[1], SIZE[0]), 90, np.uint8)

    def release(self) -> None:
        self.released = True


def flaky_camera(monkeypatch: pytest.MonkeyPatch, good: int) -> CameraSource:
    source = ClipCamera(Path("bad-cable"))
    monkeypatch.setattr(source, "_open_capture", lambda: Flaky(good))
    source.open(SIZE, realtime=True)
    return source


def test_a_damaged_picture_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    source = flaky_camera(monkeypatch, 4)
    frames = read_all(source, SIZE, 5)
    source.close()
    assert source.dropped == 2 + 4 * 3  # `open` took the first
    assert all((frame.pixels == 90).all() for frame in frames)  # grey, in three channels


def test_nothing_but_damage_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source = flaky_camera(monkeypatch, 10**9)
    with pytest.raises(SourceError, match="nothing that can be decoded"):
        source.read(empty_frame(SIZE))
    source.close()
    assert source.dropped == MAX_DAMAGED_IN_A_ROW


@pytest.mark.parametrize(
    ("stamp_s", "used"), [(99.97, True), (100.0, True), (100.2, False), (42.0, False), (0.0, False)]
)
def test_the_drivers_time_stamp_is_used_where_it_is_plausible(
    monkeypatch: pytest.MonkeyPatch, stamp_s: float, used: bool
) -> None:
    class Stamped(Flaky):
        def get(self, key: int) -> float:
            return stamp_s * 1000 if key == cv2.CAP_PROP_POS_MSEC else super().get(key)

    source = ClipCamera(Path("stamped"))
    monkeypatch.setattr(source, "_open_capture", lambda: Stamped(1))
    source.open(SIZE, realtime=True)
    clock = SimpleNamespace(monotonic_ns=lambda: 100 * 10**9)
    monkeypatch.setattr(camera_module, "time", clock)
    monkeypatch.setattr(camera_module, "_linux", lambda: True)
    frame = empty_frame(SIZE)
    assert source.read(frame)
    source.close()
    assert frame.captured_ns == (round(stamp_s * 10**9) if used else 100 * 10**9)


def test_reading_what_is_not_open_is_refused() -> None:
    with pytest.raises(SourceError, match="not open"):
        CameraSource(0).read(empty_frame(SIZE))
