"""Folders as they are: every kind of file in them, and crops that follow from their numbers."""

import os
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs torch; install pix2live[torch]")
pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")

import torch
from torch import Tensor
from torch.utils.data import Dataset

from engines.errors import SettingsError, SourceError
from tools.train.checked_pictures import look_at_header, read_checked
from tools.train.crops import Crops, StepSampler, as_tensor, loader, random_square
from tools.train.library import Library
from tools.train.pairs import Picture

ROOT = Path(__file__).parents[2]


def shapes(seed: int, height: int = 64, width: int = 96) -> Picture:
    """Blobs of many colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def encoded(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, colour_type: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])


def cmyk_jpeg(colours: list[tuple[int, int, int, int]]) -> bytes:
    """One flat block of 8x8 a colour, as Adobe stores CMYK: 255 is no ink."""
    frame = struct.pack(">BHHB", 8, 8, 8 * len(colours), 4)
    bits = ""
    before = [0, 0, 0, 0]
    for colour in colours:
        for place, value in enumerate(colour):
            level = 8 * (value - 128)
            change, before[place] = level - before[place], level
            length = abs(change).bit_length()
            bits += f"{length:04b}"
            if length:
                bits += f"{change if change > 0 else change + 2**length - 1:0{length}b}"
            bits += "0"  # no more coefficients in this block
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    parts = [
        b"\xff\xd8",
        segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)),
        segment(0xDB, b"\0" + bytes([1] * 64)),
        segment(0xC0, frame + b"".join(bytes([part, 0x11, 0]) for part in (1, 2, 3, 4))),
        segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))),
        segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),
        segment(0xDA, b"\4" + b"".join(bytes([part, 0]) for part in (1, 2, 3, 4)) + b"\0\x3f\0"),
        data.replace(b"\xff", b"\xff\0"),
        b"\xff\xd9",
    ]
    return b"".join(parts)


def turned_jpeg(picture: Picture, orientation: int) -> bytes:
    """A JPEG whose EXIF says how to turn it."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    plain = encoded(".jpg", picture)
    return plain[:2] + segment(0xE1, exif) + plain[2:]


def read(folder: Path, smallest_px: int = 32, **options: int) -> Library:
    return Library.read(folder, smallest_px=smallest_px, report=lambda what, done: None, **options)


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        (folder / f"photo{seed}.png").write_bytes(encoded(".png", shapes(seed)))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", 6)


# ---- what a folder gives -----------------------------------------------------------------------


def test_pictures_below_a_folder_are_read_and_reduced(tmp_path: Path) -> None:
    (tmp_path / "été" / "山").mkdir(parents=True)
    (tmp_path / ".thumbs").mkdir()
    large, small = shapes(0, 600, 900), shapes(1)
    (tmp_path / "été" / "山" / "Ünïcode 山.PNG").write_bytes(encoded(".png", small))
    (tmp_path / "large.v2.png").write_bytes(encoded(".png", large))
    (tmp_path / ".thumbs" / "hidden.png").write_bytes(encoded(".png", small))
    (tmp_path / "notes.txt").write_text("no picture")
    said: list[tuple[str, float]] = []

    library = Library.read(tmp_path, smallest_px=32, report=lambda *told: said.append(told))

    assert library.names == ["large.v2", "été/山/Ünïcode 山"]
    assert library[0].shape == (400, 600, 3)
    assert np.array_equal(library[-1], small)
    assert [len(part) for part in (library, library[:1], library[5:])] == [2, 1, 0]
    assert (library.skipped, library.note) == ([], "")
    assert said == [("reading", 0.5), ("reading", 1.0)]
    assert read(tmp_path, 500, memory_bytes=0)[0].shape == (500, 750, 3)
    with pytest.raises(IndexError):
        library[2]


def test_broken_files_are_named_skipped_and_counted(photos: Path) -> None:
    whole = encoded(".jpg", shapes(0, 200, 300))
    progressive = encoded(".jpg", shapes(0, 200, 300), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    preview = whole[:2] + segment(0xE1, b"Exif\0\0" + encoded(".jpg", shapes(2))) + whole[2:]
    (photos / "a-whole.jpg").write_bytes(whole + b"what a camera adds \xff\xd8 after the end")
    (photos / "a-progressive.jpg").write_bytes(progressive)
    (photos / "a-preview.jpg").write_bytes(preview)
    (photos / "b1.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "b2.jpg").write_bytes(progressive[: len(progressive) * 3 // 4])
    (photos / "b3.jpg").write_bytes(preview[: len(preview) - 300])
    (photos / "b4.jpg").write_bytes(whole[:12])
    (photos / "b5.jpg").write_bytes(b"")
    (photos / "b6.jpg").write_text("<html>404</html>")
    (photos / "b7.webp").write_bytes(encoded(".webp", shapes(0))[:-300])
    (photos / "x.jpg").mkdir()
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "gone.jpg").symlink_to(photos / "nothing.jpg")
    (photos / "round").symlink_to(photos)
    os.mkfifo(photos / "pipe.jpg")
    with open(os.fsencode(photos) + b"/b8-\xff\n.png", "wb") as file:
        file.write(b"no picture")

    library = read(photos)

    assert len(library) == 9
    assert library.names[:3] == ["a-preview", "a-progressive", "a-whole"]
    unreadable = "is no picture that can be read"
    assert library.skipped == [
        "b1.jpg (truncated)",
        "b2.jpg (truncated)",
        "b3.jpg (truncated)",
        "b4.jpg (truncated)",
        "b5.jpg (empty)",
        f"b6.jpg ({unreadable})",
        f"b7.webp ({unreadable})",
        f"b8-??.png ({unreadable})",
    ]
    assert library.note == (
        f"8 of 17 pictures skipped: {', '.join(library.skipped[:5])} and 3 more"
    )


def test_small_pictures_are_skipped(photos: Path) -> None:
    (photos / "small.png").write_bytes(encoded(".png", shapes(0, 31, 200)))
    library = read(photos)
    assert library.skipped == ["small.png (200x31, smaller than the crop of 32)"]
    assert len(library) == 6
    with pytest.raises(SettingsError, match=r"all pictures of .* the largest allows --crop 64$"):
        read(photos, 72)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the folder .*missing: No such file"):
        read(tmp_path / "missing")
    with pytest.raises(SourceError, match="no pictures"):
        read(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"1 of 1 pictures of .* cannot be read: a\.jpg \(is no"):
        read(tmp_path)
    with pytest.raises(SourceError, match="Not a directory"):
        read(tmp_path / "a.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_told(photos: Path) -> None:
    (photos / "photo0.png").chmod(0)
    assert read(photos).skipped == ["photo0.png (Permission denied)"]
    photos.chmod(0)
    try:
        with pytest.raises(SourceError, match="Permission denied"):
            read(photos)
    finally:
        photos.chmod(0o700)


# ---- formats -----------------------------------------------------------------------------------


def test_cmyk_has_the_right_colours(tmp_path: Path) -> None:
    inks = [(255, 255, 255, 255), (0, 255, 255, 255), (255, 0, 255, 255), (255, 255, 0, 255)]
    inks += [(255, 255, 255, 128), (0, 0, 0, 0), (200, 100, 50, 255), (255, 255, 255, 0)]
    (tmp_path / "print.jpg").write_bytes(cmyk_jpeg(inks))
    found = read(tmp_path, 8)[0][4, 4::8, ::-1].astype(int)
    right = np.array([[c * k // 255, m * k // 255, y * k // 255] for c, m, y, k in inks])
    assert np.abs(found - right).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_and_transparent_pictures_become_8_bit(tmp_path: Path, suffix: str) -> None:
    colours = shapes(0)
    alpha = np.full((64, 96, 1), 255, np.uint8)
    deep = colours.astype(np.uint16) * 257
    files = {"colour": deep, "clear": np.dstack([colours, alpha]), "grey": deep[..., 0]}
    for name, picture in files.items():
        (tmp_path / f"{name}{suffix}").write_bytes(encoded(suffix, picture))
    library = read(tmp_path)
    assert library.names == ["clear", "colour", "grey"]
    assert all(picture.dtype == np.uint8 for picture in library)
    assert np.array_equal(library[0], colours)
    assert np.abs(library[1].astype(int) - colours).max() <= 1
    assert np.abs(library[2].astype(int) - colours[..., :1]).max() <= 1


def test_palettes_and_turned_pictures(tmp_path: Path) -> None:
    rows = zlib.compress(b"\0" + bytes([0, 1] * 16) + (b"\0" + bytes([2, 3] * 16)) * 31)
    colours = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    palette = png(32, 32, 3, chunk(b"PLTE", colours), chunk(b"IDAT", rows))
    (tmp_path / "palette.png").write_bytes(palette)
    (tmp_path / "turned.jpg").write_bytes(turned_jpeg(shapes(0), 6))
    library = read(tmp_path)
    assert library[0][0, :2].tolist() == [[0, 0, 255], [0, 255, 0]]
    assert library[0][1, :2].tolist() == [[255, 0, 0], [7, 8, 9]]
    upright = cv2.rotate(shapes(0), cv2.ROTATE_90_CLOCKWISE)
    assert library[1].shape == upright.shape
    assert np.abs(library[1].astype(int) - upright).mean() < 5


@pytest.mark.skipif(not hasattr(cv2, "Animation"), reason="this OpenCV writes no animations")
def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [np.full((48, 64, 4), (0, 0, level, 255), np.uint8) for level in (200, 90)]
    animation.durations = [40, 40]
    assert cv2.imwriteanimation(str(tmp_path / "moving.webp"), animation)
    (tmp_path / "moving.gif").write_bytes(b"GIF89a is no picture suffix here")
    library = read(tmp_path)
    assert library.names == ["moving"]
    assert abs(int(library[0][20, 20, 2]) - 200) < 9


@given(
    st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm", ".pgm"]),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 101),
)
@settings(max_examples=60, deadline=None)
def test_the_header_tells_the_size(
    suffix: str, width: int, height: int, channels: int, quality: int
) -> None:
    if suffix in (".ppm", ".pgm", ".jpg"):
        channels = 1 if suffix == ".pgm" else 3
    picture = np.zeros((height, width, channels), np.uint8)
    if channels == 4:
        picture[::2, ::2, 3] = 99
    options = [cv2.IMWRITE_WEBP_QUALITY, quality] if suffix == ".webp" else []
    assert look_at_header(encoded(suffix, picture, *options)) == ((width, height), True)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 1)
    row = zlib.compress(bytes(20001))
    (tmp_path / "photos" / "bomb.png").write_bytes(png(20000, 20000, 0, chunk(b"IDAT", row)))
    with open(tmp_path / "photos" / "huge.tif", "wb") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no room
    library = read(tmp_path / "photos")
    assert library.skipped == [
        "bomb.png (too large, 20000x20000)",
        "huge.tif (too large, 1024 MiB)",
    ]


@given(
    st.binary(max_size=80), st.sampled_from([b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF"])
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_looked_at_without_an_exception(data: bytes, magic: bytes) -> None:
    size, _ = look_at_header(magic + data)
    assert size is None or len(size) == 2


def test_the_photographs_here_are_whole() -> None:
    folder = ROOT.parent / "shared" / "assets" / "photos"
    files = sorted(folder.rglob("*.jpg"))
    if not files:
        pytest.skip("no shared photographs here")
    for path in files:
        assert look_at_header(path.read_bytes())[1], path
    picture = read_checked(files[0])
    assert look_at_header(files[0].read_bytes())[0] in (picture.shape[1::-1], picture.shape[:2])


# ---- memory ------------------------------------------------------------------------------------


def test_above_the_budget_pictures_are_read_again(photos: Path) -> None:
    whole = read(photos)
    one_bytes = whole[0].nbytes
    library = read(photos, memory_bytes=2 * one_bytes)
    for number in (0, 1, 5, 0, 5, 3):
        assert np.array_equal(library[number], whole[number])
    for path in photos.iterdir():
        path.unlink()
    for number in (5, 3):  # the last that were asked for
        assert np.array_equal(library[number], whole[number])
    with pytest.raises(SourceError, match=r"photo0\.png was fine before, and now: No such file"):
        library[0]
    assert len(list(whole)) == 6


def test_threads_may_share_a_library(photos: Path) -> None:
    whole = list(read(photos))
    library = read(photos, memory_bytes=whole[0].nbytes)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: library[number % 6], range(120)))
    assert all(np.array_equal(a, whole[number % 6]) for number, a in enumerate(found))


# ---- crops -------------------------------------------------------------------------------------


def batches(
    pictures: list[Picture], workers: int, first_step: int = 0, **devices: int
) -> list[Tensor]:
    sampler = StepSampler(4, first_step, **devices)
    made = loader(Crops(pictures, 32, 7), sampler, workers)
    return list(islice(made, 6))


def test_batches_are_the_same_for_any_number_of_workers() -> None:
    pictures = [shapes(seed) for seed in range(3)]
    alone = batches(pictures, 0)
    assert alone[0].shape == (4, 3, 32, 32)
    assert alone[0].dtype == torch.uint8
    assert not torch.equal(alone[0], alone[1])
    for workers in (1, 2, 3):
        assert all(map(torch.equal, alone, batches(pictures, workers)))


def test_a_resumed_run_sees_what_it_would_have_seen() -> None:
    pictures = [shapes(seed) for seed in range(3)]
    assert all(map(torch.equal, batches(pictures, 2)[4:], batches(pictures, 1, first_step=4)))


def test_two_devices_see_the_batches_of_one() -> None:
    both = [list(islice(StepSampler(2, 3, rank, 2), 4)) for rank in (0, 1)]
    alone = list(islice(StepSampler(4, 3), 4))
    assert [first + second for first, second in zip(*both)] == alone


class Broken(Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        if index == 5:
            raise SourceError("photo5.png was fine before, and now: No such file")
        return torch.zeros(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_out_as_they_are_and_threads_end(workers: int) -> None:
    with pytest.raises(SourceError, match=r"^photo5\.png was fine before, and now: No such file$"):
        list(loader(Broken(), StepSampler(2, 0), workers))
    made = loader(Crops([shapes(0)], 32, 1), StepSampler(2, 0), workers)
    next(made)
    del made
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]
    with pytest.raises(SettingsError, match="--workers"):
        loader(Broken(), StepSampler(2, 0), -1)


HANGS = """
import sys
from itertools import islice
from pathlib import Path

import cv2
import torch

cv2.setNumThreads(2)
torch.set_num_threads(2)
from tools.train.crops import Crops, StepSampler, loader
from tools.train.library import Library

library = Library.read(Path(sys.argv[1]), smallest_px=64, report=lambda what, done: None)
cv2.GaussianBlur(cv2.resize(library[0], (2000, 2000)), (0, 0), 3)
torch.nn.functional.conv2d(torch.rand(2, 8, 128, 128), torch.rand(8, 8, 3, 3))
made = loader(Crops(library, 64, 1), StepSampler(4, 0), 2)
print(len([torch.rand(300, 300) @ torch.rand(300, 300) for _ in islice(made, 12)]))
"""


def test_it_does_not_hang_after_threads_have_run(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.jpg").write_bytes(encoded(".jpg", shapes(seed, 900, 1200)))
    command = [sys.executable, "-c", HANGS, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "12"), done.stderr


@given(st.integers(8, 90), st.integers(8, 90), st.sampled_from([8, 16, 32]), st.integers(0, 99))
@settings(deadline=None)
def test_a_square_is_inside_its_picture(height: int, width: int, side_px: int, seed: int) -> None:
    ramp = np.dstack(np.broadcast_arrays(*np.ogrid[10 : height + 10, 10 : width + 10], 7))
    picture, random = ramp.astype(np.uint8), np.random.default_rng(seed)
    square, other = random_square([picture, 255 - picture], side_px, random, zoom=True)
    assert np.abs(square.astype(int) + other - 255).max() <= 1  # the same one of both
    assert square.shape == (side_px, side_px, 3)
    assert square[..., 0].min() >= 10
    assert square[..., 0].max() < height + 10
    assert square[..., 1].max() < width + 10
    assert (square[..., 2] == 7).all()


def test_a_tensor_is_rgb() -> None:
    picture = np.full((2, 4, 3), (1, 2, 3), np.uint8)
    assert as_tensor(picture)[:, 0, 0].tolist() == [3, 2, 1]
    assert as_tensor(picture).shape == (3, 2, 4)
