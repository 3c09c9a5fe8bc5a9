"""The virtual camera, through pyvirtualcam's own `register_backend`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pyvirtualcam
from clips import PATCHES, colour_patches, patch_means
from pyvirtualcam.camera import BACKENDS
from pyvirtualcam.util import decode_fourcc

from engines import Pixels, SinkError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline, SinkInfo
from realtime.sinks.virtual_camera import INSTALL_HINTS, VirtualCameraSink
from realtime.sources.synthetic import SyntheticSource, read_code

NAME = "pix2live-test"


class Device:
    """A camera device; what the last program did to it is kept in the class."""

    opened: list[Device] = []  # noqa: RUF012
    fails_at: int | None = None
    refuses: str | None = None

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: Any) -> None:
        if self.refuses is not None:
            raise RuntimeError(self.refuses)
        self.size, self.fps, self.asked = (width, height), fps, device
        self.format = pyvirtualcam.PixelFormat(decode_fourcc(fourcc))
        self.sent: list[tuple[int, Pixels]] = []
        self.closed = 0
        self.opened.append(self)

    def send(self, frame: Pixels) -> None:
        assert frame.ndim == 1
        assert frame.flags.c_contiguous
        if self.fails_at is not None and len(self.sent) >= self.fails_at:
            raise RuntimeError("No such device")
        width, height = self.size
        self.sent.append((time.monotonic_ns(), frame.reshape(height, width, 3).copy()))

    def close(self) -> None:
        self.closed += 1

    def device(self) -> str:
        return str(self.asked or "/dev/video42")

    def native_fourcc(self) -> None:
        return None


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pyvirtualcam.register_backend(NAME, Device)
    monkeypatch.setattr(Device, "opened", [])
    monkeypatch.setattr(Device, "fails_at", None)
    monkeypatch.setattr(Device, "refuses", None)
    yield
    BACKENDS.pop(NAME)


def opened(size: tuple[int, int], device: str | None = None) -> VirtualCameraSink:
    sink = VirtualCameraSink(device, backend=NAME)
    sink.open(SinkInfo(size, 29.97))
    return sink


def test_colours_format_and_one_named_device() -> None:
    sink = opened((640, 360), "/dev/video9")
    sink.write(Frame(colour_patches(640, 360)))
    sink.close()
    sink.close()
    (device,) = Device.opened
    assert device.asked == "/dev/video9", "the named one"
    assert device.format is pyvirtualcam.PixelFormat.BGR
    assert (device.size, device.fps, device.closed) == ((640, 360), 29.97, 1)
    ((_, picture),) = device.sent
    assert np.array_equal(patch_means(picture), PATCHES)
    assert sink.name == "virtual-camera:/dev/video9"
    assert sink.notes == ["virtual camera: /dev/video9, 640x360"]


def test_without_a_name_the_first_free_one_is_taken_and_said() -> None:
    sink = opened((640, 360))
    sink.close()
    (device,) = Device.opened
    assert device.asked is None
    assert sink.notes == ["virtual camera: /dev/video42, 640x360"]


def test_odd_sizes_are_sent_with_even_sides() -> None:
    sink = opened((641, 359))
    picture = colour_patches(641, 359)
    sink.write(Frame(picture))
    sink.close()
    ((_, sent),) = Device.opened[0].sent
    assert sent.shape == (360, 642, 3)
    assert np.array_equal(sent[:359, :641], picture)
    assert np.array_equal(sent[359], sent[358])


def test_another_size_is_refused() -> None:
    sink = opened((640, 360))
    with pytest.raises(SinkError, match="was opened for 640x360, found 64x64"):
        sink.write(Frame(np.zeros((64, 64, 3), np.uint8)))
    sink.close()


class Stalling(SyntheticSource):
    """Promises 40 frames a second, and stalls for half a second after 20."""

    def read(self, frame: Frame) -> bool:
        if self._number == 20:
            threading.Event().wait(0.5)
        return super().read(frame)


def test_the_beat_is_steady_and_repeats_are_counted() -> None:
    sink = VirtualCameraSink(backend=NAME)
    pipeline = Pipeline(Stalling((320, 180), 40), IdentityEngine(None), [sink], frames=40)
    stats = pipeline.run()
    (device,) = Device.opened
    numbers = []
    for _, picture in device.sent:
        code = read_code(picture)
        assert code is not None
        numbers.append(code[0])
    (counted,) = stats.sinks
    assert numbers == sorted(numbers), "never back"
    assert len(device.sent) == counted.ages.count
    assert counted.repeated == len(numbers) - len(set(numbers))
    assert counted.repeated >= 5, "the stall"
    assert len(set(numbers)) + counted.overwritten == stats.engine_out.count
    # No bursts: never more than the beat allows, however busy the machine is.
    seconds = (device.sent[-1][0] - device.sent[0][0]) / 1e9
    assert len(device.sent) <= seconds * 40 + 3
    assert device.closed == 1


def test_a_device_that_goes_away_ends_the_run_and_spares_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "fails_at", 5)
    sink = VirtualCameraSink("/dev/video9", backend=NAME)
    film = tmp_path / "film.mp4"
    pipeline = Pipeline(SyntheticSource((320, 180), 40), IdentityEngine(None), [sink, film])
    with pytest.raises(SinkError, match="virtual-camera:/dev/video9 went away: No such device"):
        pipeline.run()
    (device,) = Device.opened
    assert (len(device.sent), device.closed) == (5, 1)
    if film.exists():  # a very busy machine may have recorded nothing yet
        with av.open(str(film)) as container:
            assert len(list(container.decode(video=0))) >= 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("platform", "says"), [*INSTALL_HINTS.items(), ("sunos5", "documentation")]
)
@pytest.mark.parametrize("device", [None, "/dev/video9"])
def test_no_device_says_what_was_asked_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch, platform: str, says: str, device: str | None
) -> None:
    monkeypatch.setattr(Device, "refuses", "nothing here\nat all")
    monkeypatch.setattr(sys, "platform", platform)
    sink = VirtualCameraSink(device, backend=NAME)
    with pytest.raises(SinkError) as caught:
        sink.open(SinkInfo((640, 360), 30.0))
    message = str(caught.value)
    assert says in message
    assert (device or "a virtual camera") in message
    assert "nothing here; at all" in message
    assert "\n" not in message
    sink.close()


def test_a_reason_that_is_a_sentence_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "refuses", "None found.\nSee the documentation.\n")
    with pytest.raises(SinkError, match=r"None found\.; See the documentation\. To get one: "):
        VirtualCameraSink(backend=NAME).open(SinkInfo((640, 360), 30.0))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about v4l2loopback")
def test_the_real_backend_without_its_device() -> None:
    sink = VirtualCameraSink("/dev/no-such-camera", backend="v4l2loopback")
    with pytest.raises(SinkError, match=r"/dev/no-such-camera.*modprobe v4l2loopback"):
        sink.open(SinkInfo((640, 360), 30.0))


def test_the_pipeline_closes_the_rest_when_there_is_no_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "refuses", "none")
    sink = VirtualCameraSink(backend=NAME)
    pipeline = Pipeline("test-pattern", IdentityEngine(None), [tmp_path / "film.mp4", sink])
    with pytest.raises(SinkError, match="cannot open a virtual camera"):
        pipeline.run()
    assert list(tmp_path.iterdir()) == []
