"""The coded strip: read after whatever a codec or scaler does to it, never read wrong."""

from __future__ import annotations

import cv2  # isort: skip
import av
import numpy as np
import pytest
from clips import quadrants
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import Pixels
from realtime.web.strip import HEIGHT_PX, draw_strip, read_strip

numbers = st.integers(0, 65535)
WIDTHS = (64, 97, 128, 160, 322, 640)


def with_strip(number: int, width: int, height: int = 48, seed: int = 0) -> Pixels:
    """Return a busy picture (noise over colours) with a strip below it."""
    picture = np.empty((height + HEIGHT_PX, width, 3), np.uint8)
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), np.uint8)
    picture[:height] = np.clip(quadrants(width, height).astype(int) + noise - 30, 0, 255)
    draw_strip(picture[height:], number)
    return picture


def read_below(picture: Pixels, height: int) -> int | None:
    """Read the strip below a picture that was ``height`` high before it was scaled."""
    rows = round(picture.shape[0] * HEIGHT_PX / (height + HEIGHT_PX))
    return read_strip(picture[-rows:])


def bits_of(number: int) -> list[int]:
    """Return the 32 cells as the page computes them (in the words of the plan, not of strip.py)."""
    check = ((number * 2654435761) % 2**32) >> 20
    return [1, 0, *map(int, f"{number:016b}"), *map(int, f"{check:012b}"), 0, 1]


@given(number=numbers, width=st.integers(80, 2000))
def test_cells_are_where_the_page_draws_them(number: int, width: int) -> None:
    strip = np.full((HEIGHT_PX, width, 3), 77, np.uint8)
    draw_strip(strip, number)
    for cell, bit in enumerate(bits_of(number)):
        start, end = cell * width // 32, (cell + 1) * width // 32
        assert (strip[:, start:end] == 255 * bit).all()
    assert read_strip(strip) == number


def test_numbers_go_round() -> None:
    strip = np.zeros((HEIGHT_PX, 64, 3), np.uint8)
    draw_strip(strip, 65536 + 7)
    assert read_strip(strip) == 7


def test_no_number_is_one_or_two_wrong_cells_away_from_another() -> None:
    all_numbers = np.arange(1 << 16, dtype=np.uint64)
    codes = all_numbers << 12 | (all_numbers * 2654435761 % 2**32) >> 20
    valid = np.zeros(1 << 28, bool)
    valid[codes] = True
    flips = [1 << one | (1 << two if two != one else 0) for one in range(28) for two in range(28)]
    assert not any(valid[codes ^ np.uint64(flip)].any() for flip in flips)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("quality", [30, 50, 80, 95])
def test_read_after_jpeg(quality: int, width: int) -> None:
    for number in range(0, 65536, 3571):
        picture = with_strip(number, width, seed=number)
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        assert read_below(cv2.imdecode(data, cv2.IMREAD_COLOR), 48) == number


@pytest.mark.parametrize("width", [160, 322, 640])
@pytest.mark.parametrize("method", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST])
def test_read_after_scaling_and_jpeg(method: int, width: int) -> None:
    """Down to cells of two and a half columns."""
    rng = np.random.default_rng(width)
    for scale in np.linspace(0.5, 1, 26):
        number = int(rng.integers(0, 65536))
        picture = with_strip(number, width, 90, seed=number)
        size = round(width * scale), round(picture.shape[0] * scale)
        small = cv2.resize(picture, size, interpolation=method)
        assert read_below(small, 90) == number
        done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert done
        assert read_below(cv2.imdecode(data, cv2.IMREAD_COLOR), 90) == number


@pytest.mark.parametrize(("codec", "width"), [("libvpx", 128), ("libvpx", 640), ("libx264", 320)])
def test_read_after_a_video_codec(codec: str, width: int) -> None:
    height = width * 9 // 16
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height + HEIGHT_PX, "yuv420p"
    encoder.framerate = 30
    encoder.bit_rate = width * height * 4  # a tenth of a bit for each pixel
    speed = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    encoder.options = speed if codec == "libvpx" else {"preset": "ultrafast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("vp8" if codec == "libvpx" else "h264", "r")
    sent, came = [], []
    for number in range(4000, 4030):
        frame = av.VideoFrame.from_ndarray(with_strip(number, width, height, number), "bgr24")
        frame.pts = number
        sent.append(number)
        packets = encoder.encode(frame)
        came += [out for packet in packets for out in decoder.decode(packet)]
    came += [out for packet in encoder.encode(None) for out in decoder.decode(packet)]
    came += decoder.decode(None)
    assert [read_below(out.to_ndarray(format="bgr24"), height) for out in came] == sent


def random_pictures(count: int) -> list[NDArray[np.uint8]]:
    """Return noise, blurred noise, ramps, bars of any grey and bars of black and white."""
    rng = np.random.default_rng(6)
    found: list[NDArray[np.uint8]] = []
    for kind in range(count):
        width, height = int(rng.integers(32, 200)), int(rng.integers(1, 24))
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        if kind % 5 == 1:
            picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 8)))
            picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        elif kind % 5 == 2:
            ramp = np.linspace(*rng.integers(0, 256, 2), width).astype(np.uint8)
            picture = np.broadcast_to(ramp[None, :, None], picture.shape).copy()
        elif kind % 5 in (3, 4):
            cells = rng.integers(0, 256, 32) if kind % 5 == 3 else rng.integers(0, 2, 32) * 255
            columns = np.arange(width) * 32 // width
            picture[:] = cells.astype(np.uint8)[columns][None, :, None]
        found.append(picture)
    return found


def test_nothing_is_read_from_10000_random_pictures() -> None:
    assert [read_strip(picture) for picture in random_pictures(10_000)] == [None] * 10_000


@given(number=numbers, data=st.data())
def test_a_damaged_strip_is_read_right_or_not_at_all(number: int, data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    strip = np.empty((HEIGHT_PX, width, 3), np.uint8)
    draw_strip(strip, number)
    start = data.draw(st.integers(0, width - 1))
    strip[:, start : start + data.draw(st.integers(1, width // 16))] = data.draw(
        st.integers(0, 255)
    )
    assert read_strip(strip) in {number, None}


@given(number=numbers, width=st.sampled_from(WIDTHS), shift=st.floats(0.6, 1))
def test_a_shifted_strip_is_not_read(number: int, width: int, shift: float) -> None:
    """Cells that lie over two bits say nothing."""
    strip = np.empty((HEIGHT_PX, width, 3), np.uint8)
    draw_strip(strip, number)
    assert read_strip(np.roll(strip, round(width / 32 * shift), axis=1)) is None


@pytest.mark.parametrize(("low", "high"), [(16, 235), (40, 180), (100, 220)])
def test_dim_and_grey_strips(low: int, high: int) -> None:
    strip = np.empty((HEIGHT_PX, 320, 3), np.uint8)
    for number in range(0, 65536, 999):
        draw_strip(strip, number)
        grey = np.where(strip, high, low).astype(np.uint8)
        assert read_strip(grey) == number


def test_a_strip_without_contrast_or_without_cells() -> None:
    strip = np.empty((HEIGHT_PX, 320, 3), np.uint8)
    draw_strip(strip, 1234)
    assert read_strip(np.where(strip, 130, 100).astype(np.uint8)) is None
    assert read_strip(255 - strip) is None, "a negative"
    assert read_strip(strip[:, ::-1]) is None, "mirrored"
    assert read_strip(strip[:0]) is None
    assert read_strip(strip[:, :31]) is None
    assert read_strip(strip[:1]) == 1234
