"""Folders of pictures: any common format, in the order that a person expects."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import BLUE, GREEN, RED, WHITE, corners, empty_frame, first_picture, quadrants, read_all

from engines import SinkError, SourceError
from realtime.pacing import LATE_NS, NS_PER_MS, RESYNC_NS
from realtime.sources import open_source
from realtime.sources.images import ImagesSource
from realtime.sources.pictures import list_pictures, read_picture, write_picture
from realtime.sources.synthetic import read_code, write_code


def write(path: Path, picture: np.ndarray, *settings: int) -> Path:
    done, data = cv2.imencode(path.suffix, picture, list(settings))
    assert done
    path.write_bytes(data.tobytes())
    return path


def numbered(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        picture = quadrants(320, 192)
        write_code(picture, number, 0)
        write(folder / name, picture)


def numbers(source: ImagesSource) -> list[int]:
    frames = read_all(source, source.open(None, realtime=False).size)
    source.close()
    return [(read_code(frame.pixels) or (-1,))[0] for frame in frames]


def test_natural_order_of_all_formats(tmp_path: Path) -> None:
    names = "2.png 10.png Img1.PNG img2.png img02b.bmp img10.jpg img10.webp img11-2.tiff"
    numbered(tmp_path, [*names.split(), "img11-10.png", "img²1.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._img3.png").write_bytes(b"what macOS leaves on a USB stick")
    (tmp_path / "folder.png").mkdir()
    assert numbers(ImagesSource(tmp_path)) == list(range(10))


def test_names_that_differ_in_zeros_have_one_order(tmp_path: Path) -> None:
    for name in ("a01.png", "a1.png", "a001.png"):
        (tmp_path / name).touch()
    assert [item.name for item in list_pictures(tmp_path)] == ["a001.png", "a01.png", "a1.png"]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_alpha_is_over_black(tmp_path: Path, suffix: str) -> None:
    picture = np.dstack([quadrants(64, 32), np.full((32, 64), 255, np.uint8)])
    picture[:16, :32, 3] = 128
    picture[16:, 32:, 3] = 0
    settings = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    found = np.array(corners(read_picture(write(tmp_path / f"a{suffix}", picture, *settings))))
    assert np.abs(found - [(0, 0, RED[2] // 2), GREEN, BLUE, (0, 0, 0)]).max() <= 1


def test_sixteen_bits(tmp_path: Path) -> None:
    wanted = quadrants(64, 32)
    deep = wanted.astype(np.uint16) * 257
    assert np.abs(read_picture(write(tmp_path / "a.png", deep)).astype(int) - wanted).max() <= 1
    deep = np.dstack([deep, np.full((32, 64), 65535, np.uint16)])
    assert np.abs(read_picture(write(tmp_path / "b.png", deep)).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("suffix", "depth"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tiff", np.uint8),
        (".tiff", np.uint16),
        (".pgm", np.uint8),
        (".jpg", np.uint8),
    ],
)
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str, depth: type) -> None:
    grey = np.full((32, 64), 100, depth) * (257 if depth is np.uint16 else 1)
    picture = read_picture(write(tmp_path / f"grey{suffix}", grey.astype(depth)))
    assert picture.shape == (32, 64, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - 100).max() <= 1


def exif_rotated(picture: np.ndarray, orientation: int) -> bytes:
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize(
    ("orientation", "wanted"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_photographs_are_turned_upright(
    tmp_path: Path, orientation: int, wanted: list[tuple[int, int, int]]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(exif_rotated(quadrants(64, 32), orientation))
    source = ImagesSource(tmp_path)
    size = source.open(None, realtime=False).size
    assert size == ((32, 64) if orientation > 4 else (64, 32))
    assert np.abs(np.array(corners(first_picture(source))) - wanted).max() <= 8


def test_the_first_gives_the_size_and_others_are_cropped_to_it(tmp_path: Path) -> None:
    write(tmp_path / "1.png", quadrants(64, 48))
    write(tmp_path / "2.png", quadrants(300, 100))
    write(tmp_path / "3.png", quadrants(31, 97))
    source = ImagesSource(tmp_path)
    info = source.open(None, realtime=False)
    frames = read_all(source, info.size)
    assert info.size == (64, 48)
    assert info.frames == len(frames) == 3
    for frame in frames:
        assert np.abs(np.array(corners(frame.pixels)) - [RED, GREEN, BLUE, WHITE]).max() <= 1
    assert [frame.pts_ns for frame in frames] == [place * 40 * NS_PER_MS for place in range(3)]


def test_broken_pictures_are_left_out_and_said(tmp_path: Path) -> None:
    numbered(tmp_path, ["1.png", "3.png", "5.png"])
    (tmp_path / "0.png").write_bytes(b"no picture")
    (tmp_path / "2.png").touch()
    whole = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(whole[:40])
    source = ImagesSource(tmp_path)
    frames = read_all(source, source.open(None, realtime=False).size)
    assert [(read_code(frame.pixels) or (-1,))[0] for frame in frames] == [0, 1]
    assert frames[0].pts_ns == 0
    assert source.dropped == 3
    assert len(source.notes) == 1  # a folder of a thousand broken ones is one line
    assert "5.png" in source.notes[0]


def test_one_picture_is_a_clip_of_one(tmp_path: Path) -> None:
    path = write(tmp_path / "still.png", quadrants(64, 48))
    source = open_source(path)
    assert isinstance(source, ImagesSource)
    assert len(read_all(source, source.open(None, realtime=False).size)) == 1


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures"):
        ImagesSource(tmp_path).open(None, realtime=False)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(SourceError, match="none of the pictures") as caught:
        ImagesSource(tmp_path).open(None, realtime=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="no such folder"):
        ImagesSource(tmp_path / "missing").open(None, realtime=False)


def test_realtime_is_due_at_the_rate_and_leaves_out_what_is_late(tmp_path: Path) -> None:
    numbered(tmp_path, [f"{number}.png" for number in range(40)])
    source = ImagesSource(tmp_path, fps=50)
    info = source.open(None, realtime=True)
    read_all(source, info.size, 2)
    assert source._timeline is not None
    assert source._timeline.start_ns is not None
    source._timeline.start_ns -= (RESYNC_NS + LATE_NS) // 2  # as if the reader had been held up
    frame = empty_frame(info.size)
    assert source.read(frame)
    number = (read_code(frame.pixels) or (-1,))[0]
    assert number - 2 == source.dropped
    assert source.dropped > 0 or source._timeline.resyncs
    assert frame.pts_ns == number * 20 * NS_PER_MS


def test_pictures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_picture(path, quadrants(64, 48))
    assert np.array_equal(read_picture(path), quadrants(64, 48))
    assert [item.name for item in tmp_path.iterdir()] == ["out.png"]


def test_processes_do_not_share_a_hidden_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = os.replace

    def look(old: Path, new: Path) -> None:
        seen.append(old.name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", look)
    write_picture(tmp_path / "out.png", quadrants(64, 48))
    assert seen == [f".out.png.{os.getpid()}.{threading.get_ident()}.part"]


def test_a_link_to_a_picture_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out.png"
    link.symlink_to(tmp_path / "disk" / "real.png")
    write_picture(link, quadrants(64, 48))
    assert link.is_symlink()
    assert [item.name for item in (tmp_path / "disk").iterdir()] == ["real.png"]
    assert np.array_equal(read_picture(tmp_path / "disk" / "real.png"), quadrants(64, 48))


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("a.png", "missing/out.png", "file/out.png", "folder.png"):
        with pytest.raises(SinkError, match=r"cannot write .*: [A-Z]") as caught:
            write_picture(tmp_path / name, quadrants(64, 48))
        assert "\n" not in str(caught.value)
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == ["a.png", "b.png", "file", "folder.png"]
    assert (tmp_path / "a.png").is_symlink()
