"""The test pattern: its code can be read from the pixels, through codecs and a real pipeline."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import empty_frame, patient, read_all, write_clip
from hypothesis import given
from hypothesis import strategies as st

from engines import SourceError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.frame import Frame
from realtime.pacing import NS_PER_S
from realtime.sources import open_source
from realtime.sources.synthetic import CELL_PX, SyntheticSource, read_code, write_code
from realtime.sources.video import VideoSource

SIZES = st.tuples(st.integers(64, 700), st.integers(112, 400))
NUMBERS = st.integers(0, 2**32 - 1)
TIMES = st.integers(0, 2**56 - 1)


@patient
@given(SIZES, NUMBERS, TIMES, st.integers(0, 255))
def test_round_trip_at_all_sizes(
    size: tuple[int, int], number: int, moment: int, base: int
) -> None:
    pixels = np.full((size[1], size[0], 3), base, np.uint8)
    write_code(pixels, number, moment)
    assert read_code(pixels) == (number, moment)


@patient
@given(st.integers(1, 63), st.integers(1, 120))
def test_pictures_too_small_for_a_code_have_none(width: int, height: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    write_code(pixels, 5, 5)
    rows = -(-112 // max(1, width // CELL_PX))
    fits = rows * CELL_PX <= height and width >= CELL_PX
    assert read_code(pixels) == ((5, 5) if fits else None)


@patient
@given(NUMBERS, TIMES, st.sets(st.integers(0, 111), min_size=1, max_size=3))
def test_the_checksum_catches_damage(number: int, moment: int, cells: set[int]) -> None:
    pixels = np.zeros((112, 512, 3), np.uint8)
    write_code(pixels, number, moment)
    for cell in cells:
        row, column = divmod(cell, 64)
        area = pixels[row * CELL_PX : (row + 1) * CELL_PX, column * CELL_PX :][:, :CELL_PX]
        np.subtract(255, area, out=area)
    assert read_code(pixels) is None


def test_a_picture_without_a_code_has_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 360, 640, 3), np.uint8)
    assert [read_code(picture) for picture in noise] == [None] * 50


def take(count: int, size: tuple[int, int] = (640, 360)) -> list[Frame]:
    source = SyntheticSource(size)
    source.open(None, realtime=False)
    frames = read_all(source, size, count)
    source.close()
    return frames


@pytest.mark.parametrize("size", [(640, 360), (320, 180)])
def test_survives_h264(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = take(40, size)
    path = write_clip(
        tmp_path / "code.mp4",
        [frame.pixels for frame in frames],
        options={"crf": "23", "preset": "veryfast"},
    )
    source = VideoSource(path)
    decoded = read_all(source, source.open(None, realtime=False).size)
    source.close()
    wanted = [(number, frame.captured_ns) for number, frame in enumerate(frames)]
    assert [read_code(frame.pixels) for frame in decoded] == wanted


def test_survives_jpeg() -> None:
    for number, frame in enumerate(take(20)):
        data = cv2.imencode(".jpg", frame.pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert read_code(shown.astype(np.uint8)) == (number, frame.captured_ns)


def test_it_moves_and_has_colours() -> None:
    first, second = (take(2)[place].pixels[24:].astype(int) for place in (0, 1))
    assert 0 < np.abs(first - second).mean() < 20
    colours = {tuple(colour) for colour in first[100, ::40].tolist()}
    assert len(colours) >= 8


def test_in_real_time_the_times_are_those_of_the_rate() -> None:
    source = SyntheticSource((128, 64), fps=100)
    source.open(None, realtime=True)
    before_ns = time.monotonic_ns()
    frames = read_all(source, (128, 64), 20)
    source.close()
    assert frames[0].captured_ns >= before_ns
    assert [frame.pts_ns for frame in frames] == [number * NS_PER_S // 100 for number in range(20)]
    assert source._timeline is not None
    if not source._timeline.resyncs:
        assert len({frame.captured_ns - frame.pts_ns for frame in frames}) == 1
    assert time.monotonic_ns() >= frames[-1].captured_ns


@pytest.mark.parametrize("mode", ["freshest", "every"])
def test_age_and_order_from_pixels_through_a_pipeline(mode: str) -> None:
    """What the code in the picture says is what frame and statistics say."""
    seen: list[tuple[int, int, int, int, int]] = []

    def look(frame: Frame) -> None:
        code = read_code(frame.pixels)
        assert code is not None, "a torn frame"
        seen.append((*code, frame.index, frame.captured_ns, frame.age_ns(time.monotonic_ns())))

    source = SyntheticSource((320, 180), fps=100)
    stats = Pipeline(source, IdentityEngine(None), [look], mode=mode, frames=60).run()
    numbers = [item[0] for item in seen]
    assert numbers == sorted(set(numbers)), "repeated, or out of order"
    for number, drawn_ns, index, captured_ns, age_ns in seen:
        assert number == index
        assert drawn_ns == captured_ns
        assert age_ns >= 0
    if mode == "every":
        assert numbers == list(range(60))
    shown = stats.sinks[0].ages
    assert shown.count == len(seen)


@pytest.mark.parametrize(
    ("spec", "size", "fps"),
    [
        ("test-pattern", (640, 360), 30),
        ("test-pattern:1280x720", (1280, 720), 30),
        ("test-pattern:64X48@12.5", (64, 48), 12.5),
        ("test-pattern:@60", (640, 360), 60),
    ],
)
def test_specs(spec: str, size: tuple[int, int], fps: float) -> None:
    info = open_source(spec).open(None, realtime=True)
    assert (info.size, info.fps) == (size, fps)


@pytest.mark.parametrize(
    "spec",
    ["640", "x", "0x0", "640x360@0", "640x360@-1", "640x360@nan", "640x360@fast", "1x1@1@1"],
)
def test_bad_specs(spec: str) -> None:
    with pytest.raises(SourceError, match="a test pattern is 'test-pattern'") as caught:
        open_source(f"test-pattern:{spec}")
    assert "\n" not in str(caught.value)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(SourceError, match="impossible size"):
        open_source("test-pattern:99999x99999").open(None, realtime=True)


def test_any_size_that_is_asked_is_drawn() -> None:
    source = SyntheticSource()
    assert source.open((33, 7), realtime=False).size == (33, 7)
    for size in ((33, 7), (1, 1), (5, 300), (640, 360)):
        assert source.read(empty_frame(size))
