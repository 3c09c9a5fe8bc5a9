"""Recordings: right colours and times, and what is left when a run ends the hard way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import colour_patches, patch_means

from engines import SettingsError, SinkError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline, SinkInfo, open_sink
from realtime.sinks.video import VideoSink
from realtime.sources.synthetic import read_code, write_code

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
MS = 1_000_000
PROGRAM = """
import resource, signal, sys
import numpy as np
from engines import Pix2liveError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sources.synthetic import SyntheticSource

class Noise(IdentityEngine):  # pictures that fill a disk
    def _submit(self, frame_in, frame_out):
        np.copyto(frame_out, frame_in)
        frame_out[60:160] = np.random.default_rng().integers(90, 150, (100, 320, 3), np.uint8)

how, *sinks = sys.argv[1:]
shown = 0
def watch(frame):
    global shown
    shown += 1
    if shown == 30:
        print("running", flush=True)
    if shown == 40 and how == "exception":
        raise ValueError("a bug in the caller's code")

if how.isdigit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how), int(how)))
frames = 300 if how.isdigit() or how == "full" else None
source = SyntheticSource((320, 180), 60)
mode = "every" if frames else "freshest"
engine = Noise(None) if frames else IdentityEngine(None)
pipeline = Pipeline(source, engine, [*sinks, watch], mode=mode, frames=frames)
signal.signal(signal.SIGTERM, lambda *_: pipeline.stop())
try:
    pipeline.run()
except Pix2liveError as error:
    sys.exit(f"error: {error}")
"""


def record(path: Path, frames: list[Frame], fps: float = 30.0) -> VideoSink:
    """Write ``frames`` through the sink."""
    sink = VideoSink(path)
    height, width = frames[0].pixels.shape[:2]
    sink.open(SinkInfo((width, height), fps))
    try:
        for frame in frames:
            sink.write(frame)
    finally:
        sink.close()
    return sink


def numbered(count: int, size: tuple[int, int] = (320, 180)) -> list[Frame]:
    """Return frames that carry their number."""
    frames = []
    for number in range(count):
        picture = np.full((size[1], size[0], 3), 90, np.uint8)
        write_code(picture, number, number)
        frames.append(Frame(picture, index=number, pts_ns=round(number * 1e9 / 30)))
    return frames


def play(path: Path) -> list[int]:
    """Return the numbers of the frames that a player gets out of a file, whole or cut off."""
    numbers: list[int] = []
    with av.open(str(path)) as film:
        try:
            for frame in film.decode(video=0):
                code = read_code(frame.to_ndarray(format="bgr24"))
                assert code is not None
                numbers.append(code[0])
        except av.error.InvalidDataError:
            pass  # the last packet of a file that was cut off
    assert numbers == sorted(set(numbers)), "order"
    return numbers


def boxes(path: Path) -> list[bytes]:
    """Return the names of the outer boxes of an mp4."""
    data, place, names = path.read_bytes(), 0, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        names.append(data[place + 4 : place + 8])
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        place += length
    return names


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.part*"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (321, 181)])
def test_colours_come_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    picture = colour_patches(*size)
    path = tmp_path / f"clip{suffix}"
    record(path, [Frame(picture, index=n, pts_ns=n * 40 * MS) for n in range(3)])
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.width, codec.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        frames = list(film.decode(stream))
        tags = {(f.colorspace, f.color_primaries, f.color_trc, f.color_range) for f in frames}
    assert tags == {(1, 1, 1, 1)}, "BT.709, limited"
    found = patch_means(frames[-1].to_ndarray(format="bgr24")[: size[1], : size[0]])
    assert np.abs(found - patch_means(picture)).max() < 4


def test_the_tag_is_what_the_numbers_are(tmp_path: Path) -> None:
    """Compared with the definition of BT.709 itself, not with the decoder's way back."""
    blue, green, red = 40.0, 60.0, 200.0
    path = tmp_path / "clip.mp4"
    record(path, [Frame(np.full((64, 64, 3), (blue, green, red), np.uint8))])
    with av.open(str(path)) as film:
        (frame,) = film.decode(video=0)
    y, u, v = (np.frombuffer(plane, np.uint8)[0] for plane in frame.planes)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert abs(float(y) - (16 + luma * 219 / 255)) < 2.5
    assert abs(float(u) - (128 + (blue - luma) / 1.8556 * 224 / 255)) < 2.5
    assert abs(float(v) - (128 + (red - luma) / 1.5748 * 224 / 255)) < 2.5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_come_back(tmp_path: Path, suffix: str) -> None:
    times_ms = [5000, 5033, 5034, 5100, 5350, 5367, 7900, 7933, 8001]
    frames = numbered(len(times_ms))
    for frame, time_ms in zip(frames, times_ms):
        frame.pts_ns = time_ms * MS + 123_456
    record(tmp_path / f"clip{suffix}", frames)
    with av.open(str(tmp_path / f"clip{suffix}")) as film:
        found = [frame.time * 1000 for frame in film.decode(video=0)]
    assert found == pytest.approx([time_ms - 5000 for time_ms in times_ms], abs=1)


def test_times_that_go_backwards_still_play(tmp_path: Path) -> None:
    frames = numbered(20)
    for frame in frames[10:]:
        frame.pts_ns -= frames[10].pts_ns  # a source that started again
    record(tmp_path / "clip.mp4", frames)
    with av.open(str(tmp_path / "clip.mp4")) as film:
        times = [frame.pts for frame in film.decode(video=0)]
    assert len(times) == 20
    assert times == sorted(set(times))


@pytest.mark.parametrize("fps", [29.97, 23.976, 0.5, 240.0])
def test_any_rate(tmp_path: Path, fps: float) -> None:
    frames = numbered(10)
    for frame in frames:
        frame.pts_ns = round(frame.index * 1e9 / fps)
    record(tmp_path / "clip.mp4", frames, fps)
    with av.open(str(tmp_path / "clip.mp4")) as film:
        rate = film.streams.video[0].average_rate
    assert isinstance(rate, Fraction)
    assert float(rate) == pytest.approx(fps, rel=0.02)


def test_the_finished_file_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    record(path, numbered(100))
    names = boxes(path)
    assert b"moof" not in names
    assert names.count(b"moov") == 1
    assert play(path) == list(range(100))
    with av.open(str(path)) as film:  # seeking needs the index
        film.seek(2_000_000)
        frame = next(film.decode(video=0))
        assert 1.0 <= frame.time <= 2.0
        assert film.duration == pytest.approx(100 / 30 * 1e6, rel=0.02)


@pytest.mark.parametrize(
    ("how", "ends"),
    [("SIGINT", {1, -2, 130}), ("SIGTERM", {0}), ("exception", {1})],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_it_plays_however_the_run_ends(
    tmp_path: Path, how: str, ends: set[int], suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    process = start(how, path)
    if how != "exception":
        process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode in ends, err
    if how == "exception":
        assert "a bug in the caller's code" in err
    assert len(play(path)) >= 20
    assert parts(tmp_path) == []
    assert suffix != ".mp4" or b"moof" not in boxes(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_a_killed_run_leaves_plays_and_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"an earlier recording")
    process = start("SIGKILL", path)
    time.sleep(2)  # a fragment is a second long
    process.kill()
    process.communicate(timeout=WAIT_S)
    (part,) = parts(tmp_path)
    cut_off = play(part)
    assert len(cut_off) >= 10
    assert path.read_bytes() == b"an earlier recording"

    sink = record(path, numbered(5))
    assert play(path) == list(range(5))
    assert parts(tmp_path) == [part]
    assert play(part) == cut_off
    assert any(str(part) in note for note in sink.notes)


def test_only_a_complete_recording_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"an earlier recording")
    sink = VideoSink(path)
    sink.open(SinkInfo((320, 180), 30.0))
    sink.close()
    assert path.read_bytes() == b"an earlier recording"
    sink = VideoSink(path)
    sink.open(SinkInfo((320, 180), 30.0))
    for frame in numbered(50):
        sink.write(frame)
    assert path.read_bytes() == b"an earlier recording"
    sink.close()
    assert len(play(path)) == 50


def test_without_overwrite_a_new_name_is_taken_and_an_old_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    first = VideoSink(path, overwrite=False)
    first.open(SinkInfo((320, 180), 30.0))
    for frame in numbered(5):
        first.write(frame)
    first.close()
    first.close()
    with pytest.raises(SinkError, match=r"clip.mp4 exists already"):
        VideoSink(path, overwrite=False).open(SinkInfo((320, 180), 30.0))
    assert play(path) == list(range(5))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_link", [False, True])
def test_without_overwrite_a_file_that_appears_is_kept_and_so_is_the_recording(
    is_link: bool, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    if is_link:
        path.symlink_to(tmp_path / "real.mp4")
    sinks = [VideoSink(path, overwrite=False) for _ in range(2)]
    for count, sink in zip((5, 9), sinks):
        sink.open(SinkInfo((320, 180), 30.0))
        for frame in numbered(count):
            sink.write(frame)
    sinks[0].close()
    with pytest.raises(SinkError, match="has appeared since this recording began") as caught:
        sinks[1].close()
    sinks[1].close()
    assert play(path) == list(range(5))
    (part,) = parts(tmp_path)
    assert str(part) in str(caught.value)
    assert "stopped after" not in str(caught.value), "it is complete"
    assert play(part) == list(range(9))
    assert b"moof" not in boxes(part)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "clip.mp4"
    link.symlink_to(tmp_path / "disk" / "real.mp4")
    record(link, numbered(5))
    assert link.is_symlink()
    assert len(play(tmp_path / "disk" / "real.mp4")) == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_that_may_not_grow(tmp_path: Path, suffix: str) -> None:
    """The limit is for every file, and no picture comes near it: the other sink is complete."""
    pictures = tmp_path / "pictures"
    process = start("800000", tmp_path / f"clip{suffix}", f"{pictures}/")
    check_stopped(process, tmp_path, "File too large")
    names = sorted(pictures.glob("*"))
    assert len(names) >= 10
    assert not [name for name in names if name.suffix != ".png"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        other = tmp_path / "other.mp4"
        process = start("full", disk / "clip.mp4", other)
        check_stopped(process, disk, "the disk is full")
        assert len(play(other)) >= 30
        assert parts(tmp_path) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def check_stopped(process: subprocess.Popen[str], folder: Path, reason: str) -> None:
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    assert reason in line
    (part,) = parts(folder)
    assert str(part) in line
    assert len(play(part)) >= 10
    assert not list(folder.glob("clip.*"))


def start(how: str, *sinks: str | Path) -> subprocess.Popen[str]:
    """Run a real pipeline in a process of its own, until 30 frames were shown."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, *map(str, sinks)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "running" not in line:
        process.kill()
        raise AssertionError(process.communicate()[1])
    return process


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    cases = {
        tmp_path / "missing" / "clip.mp4": "does not exist; mkdir it first",
        tmp_path / "folder.mp4": "is a folder",
        tmp_path / "pipe.mp4": "no ordinary file",
        tmp_path / "circle.mp4": "symbolic links",
    }
    for path, reason in cases.items():
        with pytest.raises(SinkError, match=reason) as caught:
            VideoSink(path).open(SinkInfo((64, 64), 30.0))
        assert "\n" not in str(caught.value)
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == ["circle.mp4", "folder.mp4", "pipe.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SinkError, match="no permission"):
            VideoSink(tmp_path / "clip.mp4").open(SinkInfo((64, 64), 30.0))
    finally:
        tmp_path.chmod(0o700)


def test_two_sinks_to_one_file_and_a_sink_onto_its_source(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    record(path, numbered(3))
    (tmp_path / "here").symlink_to(tmp_path)
    again = tmp_path / "here" / "clip.mp4"
    with pytest.raises(SettingsError, match="two sinks write to"):
        Pipeline("test-pattern", IdentityEngine(None), [path, again])
    with pytest.raises(SettingsError, match="is the source"):
        Pipeline(path, IdentityEngine(None), [again])
    assert play(path) == [0, 1, 2]


def test_two_processes_do_not_share_a_hidden_file(tmp_path: Path) -> None:
    first, second = VideoSink(tmp_path / "clip.mp4"), VideoSink(tmp_path / "clip.mp4")
    for sink in (first, second):
        sink.open(SinkInfo((320, 180), 30.0))
    frames = numbered(20)
    for frame in frames:
        first.write(frame)
        second.write(frame)
    first.close()
    assert len(play(tmp_path / "clip.mp4")) == 20
    second.close()
    assert len(play(tmp_path / "clip.mp4")) == 20
    assert parts(tmp_path) == []


def test_another_size_is_refused_and_what_was_written_stays(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "clip.mp4")
    sink.open(SinkInfo((320, 180), 30.0))
    for frame in numbered(3):
        sink.write(frame)
    with pytest.raises(SinkError, match="was opened for 320x180, found 64x64"):
        sink.write(Frame(np.zeros((64, 64, 3), np.uint8)))
    sink.close()
    assert play(tmp_path / "clip.mp4") == [0, 1, 2]
