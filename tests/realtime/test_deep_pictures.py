"""16-bit pictures of one channel: in through the folder source, out through the folder sink."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import quadrants, read_all
from numpy.typing import NDArray

from engines import Pixels, SettingsError, SinkError, SourceError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline, SinkInfo
from realtime.sinks.images import ImagesSink
from realtime.sources.images import ImagesSource
from realtime.sources.levels import Window, pixels_from_levels
from realtime.sources.pictures import read_picture, write_picture

CT = Window(0, 4095)


def ramp(low: int = 0, high: int = 65535, depth: type = np.uint16) -> NDArray[np.uint16]:
    return np.linspace(low, high, 96 * 128).reshape(96, 128).round().astype(depth)


def write(path: Path, picture: NDArray[np.generic]) -> Path:
    done, data = cv2.imencode(path.suffix, picture)
    assert done
    path.write_bytes(data.tobytes())
    return path


def read_raw(path: Path) -> NDArray[np.generic]:
    found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def opened(source: ImagesSource) -> list[Pixels]:
    frames = read_all(source, source.open(None, realtime=False).size)
    return [frame.pixels for frame in frames]


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_a_window_chooses_the_levels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", ramp(0, 8000))
    assert np.array_equal(read_picture(path, CT), pixels_from_levels(ramp(0, 8000), CT))


def test_without_a_window_the_full_range_keeps_766_levels(tmp_path: Path) -> None:
    pixels = read_picture(write(tmp_path / "a.png", ramp()))
    assert np.array_equal(pixels, pixels_from_levels(ramp(), Window(0, 65535)))
    assert len(np.unique(pixels.sum(axis=2, dtype=int))) == 766


def test_signed_levels(tmp_path: Path) -> None:
    levels = ramp(-1000, 3000, np.int16)
    path = write(tmp_path / "a.tiff", levels)
    window = Window(-160, 240)
    assert np.array_equal(read_picture(path, window), pixels_from_levels(levels, window))
    assert np.array_equal(read_picture(path), pixels_from_levels(levels, Window(-32768, 32767)))


def test_floats_want_a_window(tmp_path: Path) -> None:
    levels = ramp(0, 1000).astype(np.float32) / 1000
    path = write(tmp_path / "a.tiff", levels)
    assert np.array_equal(
        read_picture(path, Window(0, 1)), pixels_from_levels(levels, Window(0, 1))
    )
    with pytest.raises(SourceError, match="levels of type float32; give a window LOW:HIGH"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_eight_bit_grey_takes_a_window_of_its_own_levels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", ramp(0, 255, np.uint8))
    levels = read_raw(path)
    window = Window(50, 100)
    assert np.array_equal(read_picture(path, window), pixels_from_levels(levels, window))
    assert np.array_equal(read_picture(path), np.repeat(levels[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "alpha.png"])
def test_a_window_on_colours_is_refused(tmp_path: Path, name: str) -> None:
    picture: NDArray[np.generic] = quadrants(64, 48)
    if name == "deep.png":
        picture = quadrants(64, 48).astype(np.uint16) * 257
    if name == "alpha.png":
        picture = np.dstack([quadrants(64, 48), np.full((48, 64), 255, np.uint8)])
    path = write(tmp_path / name, picture)
    with pytest.raises(SourceError, match=r"has [34] channels; a window is for") as caught:
        read_picture(path, CT)
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match=r"none of the pictures .* channels"):
        ImagesSource(tmp_path, window=CT).open(None, realtime=False)


def test_the_source_says_window_and_what_was_cut(tmp_path: Path) -> None:
    write(tmp_path / "1.png", ramp(0, 4095))
    write(tmp_path / "2.png", np.full((96, 128), 5000, np.uint16))
    source = ImagesSource(tmp_path, window=CT)
    opened(source)
    assert source.notes == [
        "grey levels: window 0:4095 (as asked), 766 levels, one every 5.35",
        "50.00% of the pixels lay outside the window and were cut off",
    ]
    source.window = None
    opened(source)
    assert source.notes == [
        "grey levels: window 0:65535 (its full range), 766 levels, one every 85.7"
    ]


def test_windows_that_differ_are_said_once(tmp_path: Path) -> None:
    write(tmp_path / "1.png", ramp())
    for number in (2, 3):
        write(tmp_path / f"{number}.tiff", ramp(-1000, 1000, np.int16))
    source = ImagesSource(tmp_path)
    opened(source)
    assert "window 0:65535 (its full range)" in source.notes[0]
    assert "windows of their own, not all 0:65535; give one for all" in source.notes[1]
    assert len(source.notes) == 2


def test_another_size_is_scaled_and_said_once(tmp_path: Path) -> None:
    write(tmp_path / "1.png", ramp())
    for number in (2, 3):
        write(tmp_path / f"{number}.png", cv2.resize(ramp(), (80, 60)))
    source = ImagesSource(tmp_path)
    pictures = opened(source)
    assert [picture.shape for picture in pictures] == [(96, 128, 3)] * 3
    assert source.notes[1:] == ["other sizes were cropped and scaled to 128x96: 2.png, ..."]


def test_ordinary_pictures_have_nothing_to_say(tmp_path: Path) -> None:
    write(tmp_path / "1.png", quadrants(64, 48))
    write(tmp_path / "2.png", cv2.cvtColor(quadrants(64, 48), cv2.COLOR_BGR2GRAY))
    source = ImagesSource(tmp_path)
    assert len(opened(source)) == 2
    assert source.notes == []


def test_through_a_pipeline_and_back_within_half_a_step(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pictures = [ramp(0, 4095), ramp(4095, 0), ramp(1000, 1700)]
    for number, picture in enumerate(pictures):
        write(folder / f"slice{number}.png", picture)
    sink = ImagesSink(tmp_path / "out", CT)
    Pipeline(ImagesSource(folder, window=CT), IdentityEngine(None), [sink], mode="every").run()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    for name, picture in zip(names, pictures):
        back = read_raw(tmp_path / "out" / name)
        assert back.dtype == np.uint16
        assert back.shape == picture.shape
        assert np.abs(back.astype(int) - picture).max() <= 3  # half a step of 5.35, rounded
    assert sink.notes == [f"{sink.name}: 16-bit grey, window 0:4095, 766 levels at most"]


def test_names_are_those_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("slice10.png", "slice9.png"):
        write(folder / name, ramp())
    (folder / "slice1.png").write_bytes(b"no picture")
    source, sink = ImagesSource(folder), ImagesSink(tmp_path / "out", CT)
    sink.names = source.names
    Pipeline(source, IdentityEngine(None), [sink], mode="every").run()
    assert source.names == ["slice1", "slice9", "slice10"]
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["slice10.png", "slice9.png"]
    with pytest.raises(SinkError, match=r"has slice10\.png already; give an empty or new folder"):
        sink.open(SinkInfo((128, 96), 25.0))


def test_names_that_differ_in_the_suffix_only_keep_it(tmp_path: Path) -> None:
    for name in ("a.png", "A.tiff", "b.png"):
        write(tmp_path / name, ramp())
    source = ImagesSource(tmp_path)
    opened(source)
    assert sorted(source.names) == ["A.tiff", "a.png", "b.png"]


def test_a_picture_that_stays_has_numbers(tmp_path: Path) -> None:
    source = ImagesSource(write(tmp_path / "a.png", ramp()))
    source.open(None, realtime=True)
    assert source.names == []
    source.close()


def test_a_narrow_window_loses_nothing(tmp_path: Path) -> None:
    window = Window(1000, 1765)
    path = write(tmp_path / "a.png", ramp(1000, 1765))
    sink = ImagesSink(tmp_path / "out", window)
    sink.open(SinkInfo((128, 96), 25.0))
    sink.write(Frame(read_picture(path, window), index=0))
    sink.close()
    assert np.array_equal(read_raw(tmp_path / "out" / "000000.png"), ramp(1000, 1765))


def test_colours_are_averaged_and_said_once(tmp_path: Path) -> None:
    sink = ImagesSink(tmp_path / "out", Window(0, 1000))
    sink.open(SinkInfo((64, 48), 25.0))
    for index in range(2):
        sink.write(Frame(quadrants(64, 48), index=index))
    sink.close()
    found = read_raw(tmp_path / "out" / "000001.png")
    assert found.dtype == np.uint16
    total = quadrants(64, 48).sum(axis=2, dtype=int)
    assert np.array_equal(found, np.rint(1000 * total / 765))
    assert sum("answers in colour" in note for note in sink.notes) == 1


@pytest.mark.parametrize("window", [Window(-1024, 3071), Window(0, 65536)])
def test_levels_that_a_png_cannot_hold_are_refused(tmp_path: Path, window: Window) -> None:
    sink = ImagesSink(tmp_path / "out", window)
    with pytest.raises(SettingsError, match="a 16-bit PNG holds levels from 0 to 65535") as caught:
        sink.open(SinkInfo((64, 48), 25.0))
    assert "\n" not in str(caught.value)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_sixteen_bits_are_written_whole(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", ramp())
    assert np.array_equal(read_raw(tmp_path / "a.png"), ramp())
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


def test_a_truncated_picture_is_left_out(tmp_path: Path) -> None:
    whole = write(tmp_path / "1.png", ramp()).read_bytes()
    (tmp_path / "2.png").write_bytes(whole[:60])
    source = ImagesSource(tmp_path, window=CT)
    assert len(opened(source)) == 1
    assert source.dropped == 1
    assert any("2.png is no picture that can be read" in note for note in source.notes)
