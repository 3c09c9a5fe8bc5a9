"""Video files: upright, in the right colours, at the right times, and honest when broken."""

from __future__ import annotations

import shutil
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import (
    ASSETS,
    BLUE,
    GREEN,
    PATCHES,
    RED,
    WHITE,
    coded,
    colour_patches,
    corners,
    empty_frame,
    first_picture,
    patch_means,
    patient,
    quadrants,
    read_all,
    write_clip,
)
from hypothesis import given
from hypothesis import strategies as st

from engines import SourceError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.frame import Frame
from realtime.pacing import LATE_NS, NS_PER_MS, NS_PER_S, RESYNC_NS
from realtime.sources import open_source
from realtime.sources.base import crop_to_aspect, fit_picture
from realtime.sources.synthetic import read_code
from realtime.sources.video import VideoSource

needs_assets = pytest.mark.skipif(not ASSETS.is_dir(), reason=f"no clips in {ASSETS}")


def near(found: tuple[int, ...], colour: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, colour))


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    source = VideoSource(write_clip(tmp_path / "clip.mp4", coded(320, 192, 30), fps=25))
    info = source.open(None, realtime=False)
    frames = read_all(source, info.size)
    source.close()
    assert info.size == (320, 192)
    assert info.fps == 25
    assert info.frames == 30
    assert [(read_code(frame.pixels) or (-1,))[0] for frame in frames] == list(range(30))
    assert [frame.pts_ns for frame in frames] == [place * 40 * NS_PER_MS for place in range(30)]
    assert source.notes == []


# A quarter turn counter-clockwise brings what was at the right to the top.
TURNED = {
    0: [RED, GREEN, BLUE, WHITE],
    90: [GREEN, WHITE, RED, BLUE],
    180: [WHITE, BLUE, GREEN, RED],
    270: [BLUE, RED, WHITE, GREEN],
}


@pytest.mark.parametrize("degrees", TURNED)
def test_rotation_metadata_turns_the_picture_upright(tmp_path: Path, degrees: int) -> None:
    path = write_clip(tmp_path / "phone.mp4", [quadrants(160, 96)] * 2, rotation=degrees)
    source = VideoSource(path)
    info = source.open(None, realtime=False)
    picture = read_all(source, info.size, 1)[0].pixels
    source.close()
    assert info.size == ((96, 160) if degrees in (90, 270) else (160, 96))
    assert all(near(*pair) for pair in zip(corners(picture), TURNED[degrees]))
    player = shutil.which("ffmpeg")
    if player:  # and as a player shows it
        command = [player, "-v", "error", "-i", path, "-frames:v", "1", "-pix_fmt", "bgr24"]
        shown = subprocess.run(
            [*command, "-f", "rawvideo", "-"],
            capture_output=True,
            check=True,
        ).stdout
        difference = np.frombuffer(shown, np.uint8).reshape(picture.shape).astype(int) - picture
        assert np.abs(difference).mean() < 2


def test_rotated_and_resized_keeps_the_aspect(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", [quadrants(320, 192)] * 2, rotation=90)
    picture = first_picture(VideoSource(path), (120, 120))
    assert all(near(*pair) for pair in zip(corners(picture), TURNED[90]))


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264")])
def test_variable_frame_rate_keeps_every_time(tmp_path: Path, suffix: str, codec: str) -> None:
    times_ms = [0, 17, 50, 300, 333, 1000, 1040, 2500]
    path = write_clip(tmp_path / f"vfr{suffix}", coded(320, 192, 8), codec=codec, pts_ms=times_ms)
    source = VideoSource(path)
    info = source.open(None, realtime=False)
    frames = read_all(source, info.size)
    source.close()
    assert [round(frame.pts_ns / NS_PER_MS) for frame in frames] == times_ms
    assert source.notes == []


def test_times_without_start_at_zero_begin_at_zero(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", coded(320, 192, 3), pts_ms=[5000, 5040, 5100])
    source = VideoSource(path)
    frames = read_all(source, source.open(None, realtime=False).size)
    source.close()
    assert [round(frame.pts_ns / NS_PER_MS) for frame in frames] == [0, 40, 100]


@pytest.mark.parametrize("size", [(641, 359), (640, 359), (641, 360), (321, 181), (17, 3)])
def test_odd_sizes_keep_their_edges_and_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(30, 225, (9, 16, 3), np.uint8)
    picture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    path = write_clip(tmp_path / "odd.mkv", [picture] * 2, codec="ffv1", pix_fmt="yuv444p")
    source = VideoSource(path)
    assert source.open(None, realtime=False).size == size
    source.close()
    difference = np.abs(first_picture(source).astype(int) - picture)
    assert difference.mean() < 2
    assert difference[-1].mean() < 3
    assert difference[:, -1].mean() < 3


def test_subsampled_chroma_is_interpolated_at_odd_sizes(tmp_path: Path) -> None:
    """The scaler's point mode shifts colours by half a pixel there."""
    noise = np.random.default_rng(1).integers(0, 255, (12, 20, 3), np.uint8)
    picture = cv2.resize(noise, (641, 359), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    path = write_clip(tmp_path / "odd.mkv", [picture] * 2, codec="ffv1")
    difference = np.abs(first_picture(VideoSource(path)).astype(int) - picture)
    assert difference.mean() < 1


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "full_range"),
    [
        (".mp4", "libx264", "gray", True),
        (".mp4", "libx264", "gray", False),
        (".mov", "png", "gray", True),
        (".mkv", "ffv1", "gray16le", True),
    ],
)
def test_grey_video(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, full_range: bool
) -> None:
    levels = np.repeat([10, 60, 120, 180, 245], 32).astype(np.uint8)
    picture = np.repeat(levels[None], 64, axis=0)
    path = write_clip(
        tmp_path / f"grey{suffix}",
        [picture] * 2,
        codec=codec,
        pix_fmt="yuv420p" if codec == "libx264" and not full_range else pix_fmt,
        frame_format="gray",
        full_range=full_range,
    )
    shown = first_picture(VideoSource(path)).astype(int)
    assert np.abs(shown[..., 0] - picture).mean() < 3
    assert np.ptp(shown, axis=2).max() <= 3


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mov", "png", "rgba"),
        (".mov", "qtrle", "argb"),
        (".mkv", "ffv1", "yuva420p"),
        (".mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_alpha_is_over_black(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    picture = np.dstack([quadrants(160, 96), np.full((96, 160), 255, np.uint8)])
    picture[:48, :80, 3] = 128
    picture[48:, 80:, 3] = 0
    path = write_clip(
        tmp_path / f"alpha{suffix}",
        [picture] * 2,
        codec=codec,
        pix_fmt=pix_fmt,
        frame_format="bgra",
        tagged=False,
    )
    found = corners(first_picture(VideoSource(path)))
    wanted = [(0, 0, RED[2] // 2), GREEN, BLUE, (0, 0, 0)]
    assert all(near(*pair, tolerance=4) for pair in zip(found, wanted)), found


@pytest.mark.parametrize(
    ("aspect", "rotation", "size"),
    [
        (Fraction(4, 3), 0, (213, 96)),
        (Fraction(3, 4), 0, (120, 96)),
        (Fraction(4, 3), 90, (96, 213)),
    ],
)
def test_pixels_that_are_not_square(
    tmp_path: Path, aspect: Fraction, rotation: int, size: tuple[int, int]
) -> None:
    path = write_clip(
        tmp_path / "wide.mp4", [quadrants(160, 96)] * 2, aspect=aspect, rotation=rotation
    )
    source = VideoSource(path)
    assert source.open(None, realtime=False).size == size
    source.close()
    assert all(near(*pair) for pair in zip(corners(first_picture(source)), TURNED[rotation]))


BT709, BT470BG, SMPTE170M = 1, 5, 6


TAGGED = [
    ((640, 360), SMPTE170M),
    ((640, 360), BT709),
    ((1280, 720), BT709),
    ((1280, 720), BT470BG),
    ((1280, 720), SMPTE170M),
]
UNTAGGED = [((640, 360), SMPTE170M), ((1280, 720), BT709)]  # as players guess


@pytest.mark.parametrize(
    ("size", "space", "tagged", "full_range"),
    [(*case, True, full_range) for case in TAGGED for full_range in (False, True)]
    + [(*case, False, False) for case in UNTAGGED],
)
def test_colours(
    tmp_path: Path, size: tuple[int, int], space: int, tagged: bool, full_range: bool
) -> None:
    path = write_clip(
        tmp_path / "patches.mp4",
        [colour_patches(*size)] * 2,
        space=space,
        tagged=tagged,
        full_range=full_range,
    )
    assert np.abs(patch_means(first_picture(VideoSource(path))) - PATCHES).max() <= 5
    # and when it is scaled on the way
    assert np.abs(patch_means(first_picture(VideoSource(path), (320, 180))) - PATCHES).max() <= 5


def test_hd_motion_jpeg_is_bt601(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "camera.avi",
        [colour_patches(1280, 720)] * 2,
        codec="mjpeg",
        pix_fmt="yuvj420p",
        full_range=True,
        options={"qmin": "1", "qmax": "3"},
    )
    assert np.abs(patch_means(first_picture(VideoSource(path))) - PATCHES).max() <= 5


@pytest.mark.parametrize("size", [(96, 96), (320, 90), (90, 320), (640, 640), (33, 57)])
def test_another_aspect_is_cropped_in_the_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    """A circle stays round, and stays in the middle."""
    picture = np.full((240, 426, 3), 40, np.uint8)
    cv2.circle(picture, (213, 120), 40, (255, 255, 255), -1)
    path = write_clip(tmp_path / "circle.mp4", [picture] * 2)
    shown = first_picture(VideoSource(path), size)
    assert shown.shape[:2] == size[::-1]
    rows, columns = np.nonzero(shown[..., 1] > 128)
    scale = max(size[0] / 426, size[1] / 240)
    assert np.ptp(rows) + 1 == pytest.approx(min(81 * scale, size[1]), abs=2.5)
    assert np.ptp(columns) + 1 == pytest.approx(min(81 * scale, size[0]), abs=2.5)
    assert rows.mean() == pytest.approx((size[1] - 1) / 2, abs=1.5)
    assert columns.mean() == pytest.approx((size[0] - 1) / 2, abs=1.5)


SIDES = st.integers(1, 2000)


@patient
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_crop_is_inside_central_and_of_the_aspect(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    top, left, height, width = crop_to_aspect(size, target)
    assert 0 <= top <= size[1] - height
    assert 0 <= left <= size[0] - width
    assert height == size[1] or width == size[0]
    assert abs(2 * top + height - size[1]) <= 1
    assert abs(2 * left + width - size[0]) <= 1
    # off by a pixel of the side that is cut, or by the one percent that is scaled away
    wanted = target[0] / target[1]
    too_wide = size[0] / size[1] > wanted
    cut, exact = (width, height * wanted) if too_wide else (height, width / wanted)
    assert abs(cut - exact) <= max(1, 0.011 * max(cut, exact))


@patient
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_fit_picture_fills_any_size(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = np.full((size[1], size[0], 3), 200, np.uint8)
    frame = empty_frame(target)
    fit_picture(picture, frame.pixels)
    assert (frame.pixels == 200).all()


def test_truncated_mp4_plays_what_is_there_and_says_so(tmp_path: Path) -> None:
    whole = write_clip(
        tmp_path / "whole.mp4", coded(320, 192, 100), container_options={"movflags": "faststart"}
    )
    half = tmp_path / "half.mp4"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = VideoSource(half)
    frames = read_all(source, source.open(None, realtime=False).size)
    source.close()
    assert 20 < len(frames) < 80
    assert [(read_code(frame.pixels) or (-1,))[0] for frame in frames] == list(range(len(frames)))
    assert len(source.notes) == 1
    assert "truncated" in source.notes[0]
    assert "of 4.0 s" in source.notes[0]


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_other_truncated_files_say_so_too(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    whole = write_clip(tmp_path / f"whole{suffix}", coded(320, 192, 100), codec=codec)
    half = tmp_path / f"half{suffix}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = VideoSource(half)
    frames = read_all(source, source.open(None, realtime=False).size)
    source.close()
    assert 20 < len(frames) < 80
    assert any("truncated" in note for note in source.notes), source.notes


def test_a_trimmed_clip_is_not_called_truncated(tmp_path: Path) -> None:
    """Phones trim by an edit list: the header still counts the frames that are not shown."""
    path = write_clip(tmp_path / "trimmed.mp4", coded(320, 192, 100))
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12
    data[place : place + 4] = (2000).to_bytes(4, "big")  # of 4000 ms
    path.write_bytes(data)
    source = VideoSource(path)
    info = source.open(None, realtime=False)
    frames = read_all(source, info.size)
    source.close()
    assert len(frames) == 50
    assert info.frames == 50
    assert source.notes == []


@pytest.mark.parametrize("length", [300, 4000])
def test_damage_in_the_middle_is_counted_and_passed(tmp_path: Path, length: int) -> None:
    path = write_clip(tmp_path / "damaged.mp4", coded(320, 192, 100), options={"g": "10"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(data)
    source = VideoSource(path)
    frames = read_all(source, source.open(None, realtime=False).size)
    source.close()
    assert 60 <= len(frames) <= 100
    assert (read_code(frames[-1].pixels) or (-1,))[0] == 99
    assert any("damaged" in note for note in source.notes), source.notes


def test_metadata_in_another_encoding_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "old.avi", coded(320, 192, 3), codec="mpeg4")
    data = bytearray(path.read_bytes())
    place = data.index(b"Lavf")
    data[place : place + 4] = "é€ü!".encode("cp1252")
    path.write_bytes(data)
    source = VideoSource(path)
    assert len(read_all(source, source.open(None, realtime=False).size)) == 3
    source.close()


def make_bad(kind: str, folder: Path) -> Path:
    path = folder / "bad.mp4"
    if kind == "without moov":
        whole = write_clip(folder / "whole.mp4", coded(320, 192, 30))
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif kind == "text":
        path.write_text("This is no video. " * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "audio only":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
            sound.sample_rate = 48000
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("without moov", "no video that can be read"),
        ("text", "no video that can be read"),
        ("empty", "no video that can be read"),
        ("folder", "no pictures"),
        ("audio only", "has no video in it"),
        ("missing", "no such file"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, kind: str, words: str) -> None:
    path = make_bad(kind, tmp_path)
    with pytest.raises(SourceError, match=words) as caught:
        open_source(path).open(None, realtime=False)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_or_strange_path_given_directly(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        VideoSource(tmp_path / "missing.mp4").open(None, realtime=False)
    with pytest.raises(SourceError, match="is no file"):
        VideoSource(tmp_path).open(None, realtime=False)


def test_reading_what_is_not_open_is_refused(tmp_path: Path) -> None:
    source = VideoSource(write_clip(tmp_path / "clip.mp4", coded(320, 192, 3)))
    with pytest.raises(SourceError, match="not open"):
        source.read(empty_frame((320, 192)))


def test_realtime_frames_are_due_at_the_rate_of_the_clip(tmp_path: Path) -> None:
    """The moments of capture have the distances of the clip's own times, however fast we are."""
    times_ms = [0, 30, 90, 100, 180, 300]
    source = VideoSource(write_clip(tmp_path / "vfr.mkv", coded(320, 192, 6), pts_ms=times_ms))
    info = source.open(None, realtime=True)
    frames = read_all(source, info.size)
    source.close()
    starts = {frame.captured_ns - frame.pts_ns for frame in frames}
    resynced = any("slower than real time" in note for note in source.notes)
    assert len(starts) == 1 or resynced
    assert len(frames) + source.dropped == 6


def test_a_clip_takes_its_own_time_through_a_pipeline(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", coded(320, 192, 12))
    seen: list[tuple[int, int]] = []

    def look(frame: Frame) -> None:
        seen.append((frame.index, (read_code(frame.pixels) or (-1,))[0]))
        assert frame.age_ns(time.monotonic_ns()) >= 0

    started_s = time.monotonic()
    Pipeline(path, IdentityEngine(None), [look], mode="freshest").run()
    assert time.monotonic() - started_s >= 11 / 25  # and may be later, where others are busy
    assert [index for index, _ in seen] == [number for _, number in seen]
    assert [number for _, number in seen] == sorted({number for _, number in seen})
    seen.clear()
    Pipeline(path, IdentityEngine(None), [look], mode="every").run()
    assert seen == [(number, number) for number in range(12)]


def test_a_fast_reader_gets_captured_times_that_are_not_in_the_future(tmp_path: Path) -> None:
    source = VideoSource(write_clip(tmp_path / "clip.mp4", coded(320, 192, 10)))
    info = source.open(None, realtime=False)
    frames = read_all(source, info.size)
    source.close()
    captured = [frame.captured_ns for frame in frames]
    assert captured == sorted(captured)


def test_frames_that_are_late_are_dropped_and_counted(tmp_path: Path) -> None:
    source = VideoSource(write_clip(tmp_path / "clip.mp4", coded(320, 192, 50), fps=50))
    info = source.open(None, realtime=True)
    read_all(source, info.size, 1)
    assert source._timeline is not None
    assert source._timeline.start_ns is not None
    source._timeline.start_ns -= (RESYNC_NS + LATE_NS) // 2  # as if the reader had been held up
    second = read_all(source, info.size, 1)[0]
    number = (read_code(second.pixels) or (-1,))[0]
    source.close()
    assert number - 1 == source.dropped
    assert source.dropped > 0 or source._timeline.resyncs  # held up more than planned
    assert second.pts_ns == number * 20 * NS_PER_MS


@needs_assets
@pytest.mark.parametrize("name", ["bottle-detection.mp4", "webcam/bird.mkv", "webcam/eat.mkv"])
def test_real_clips(name: str) -> None:
    source = VideoSource(ASSETS / name)
    info = source.open(None, realtime=False)
    assert info.frames is not None
    frames = read_all(source, (160, 120), 200)
    source.close()
    assert abs(len(frames) - min(info.frames, 200)) <= 2
    assert source.notes == []
    times = np.array([frame.pts_ns for frame in frames])
    assert (np.diff(times) > 0).all()
    assert np.median(np.diff(times)) == pytest.approx(NS_PER_S / (info.fps or 0), rel=0.05)
    assert frames[len(frames) // 2].pixels.std() > 10
