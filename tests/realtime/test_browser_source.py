"""Pictures that a page sends, against JPEGs made to keep a decoder busy."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import pytest

from engines import Pixels, Size
from realtime.frame import Frame
from realtime.sources import browser
from realtime.sources.browser import BrowserSource, jpeg_header

SIZE = (96, 64)
SEQUENTIAL, PROGRESSIVE = 0xC0, 0xC2


def jpeg(size: Size = SIZE, *options: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def scan_of(data: bytes) -> bytes:
    """Return the last scan, without the end of the picture."""
    return data[data.rindex(b"\xff\xda") : data.rindex(b"\xff\xd9")]


def with_scans(data: bytes, count: int) -> bytes:
    """Repeat the last scan until there are so many."""
    more = scan_of(data) * (count - data.count(b"\xff\xda"))
    return data[: data.rindex(b"\xff\xd9")] + more + b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


class Page:
    """A source, and what it was given; counts what comes to the decoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = 0
        self.source = BrowserSource(SIZE, strip=False)
        self.source.open(None, realtime=True)
        self.frame = Frame(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
        real: Any = cv2.imdecode

        def count(data: Any, flags: int) -> Pixels | None:
            self.decoded += 1
            found: Pixels | None = real(data, flags)
            return found

        monkeypatch.setattr(cv2, "imdecode", count)

    def shows(self, data: bytes) -> bool:
        """Return whether the decoder gets a picture; a good one behind it always is shown."""
        before = self.decoded
        left_out = self.source.unreadable
        shown = self.source._decode(data) is not None
        assert shown == (self.source.unreadable == left_out)
        got = self.decoded > before
        self.source.offer(jpeg(), time.monotonic_ns())
        assert self.source.read(self.frame)
        return got


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


def test_pictures_of_pages_are_taken(page: Page) -> None:
    assert page.shows(jpeg())
    assert page.shows(jpeg(SIZE, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2))
    plain = jpeg()
    assert page.shows(plain[:2] + segment(0xE1, b"Exif" + plain[:300]) + b"\xff\xff" + plain[2:])
    assert not page.source.notes


def test_a_progressive_picture_is_not_decoded(page: Page) -> None:
    bomb = with_scans(jpeg(SIZE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 500)
    assert jpeg_header(bomb) == (PROGRESSIVE, SIZE)
    assert not page.shows(bomb)
    assert not page.shows(jpeg(SIZE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    (note,) = page.source.notes
    assert note == (
        "2 pictures of the page left out: expected a sequential JPEG of 96x64, found a"
        " progressive or lossless one (SOF2), which may take minutes"
    )


def test_a_picture_of_many_scans_is_not_decoded(page: Page) -> None:
    plain = jpeg()
    assert plain.count(b"\xff\xda") == 1
    assert page.shows(with_scans(plain, browser.MOST_SCANS))
    for count in (browser.MOST_SCANS + 1, 1000):
        assert not page.shows(with_scans(plain, count))
        assert f"found one of {count} scans (10 at most)" in page.source.notes[0]


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD7, 0xD8])
def test_a_progressive_picture_cannot_hide(page: Page, marker: int) -> None:
    """Markers that have no length for the decoder: what they seem to skip, it reads."""
    hidden = jpeg(SIZE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[2:]
    shown = jpeg()[2:]
    length = (len(hidden) + 2).to_bytes(2, "big")
    trick = b"\xff\xd8" + bytes((0xFF, marker)) + length + hidden + shown
    assert jpeg_header(trick) is None
    assert not page.shows(trick)


def test_what_is_no_picture_of_this_size_is_said(page: Page) -> None:
    assert not page.shows(jpeg((64, 96)))
    assert page.source.notes[0].endswith(
        "expected a sequential JPEG of 96x64, found a JPEG of 64x96"
    )
    for data in (b"", b"\xff", b"\xff\xd8", jpeg()[:80], b"GIF89a" + bytes(20)):
        assert not page.shows(data)
        assert page.source.notes[0].endswith("found no JPEG")


def test_every_beginning_of_a_picture_has_a_header_or_none() -> None:
    plain = jpeg()
    found = [jpeg_header(plain[:end]) for end in range(1000)]
    assert set(found) == {None, (SEQUENTIAL, SIZE)}
    assert jpeg_header(plain[:2] + b"\xff\xe0\x00\x00" + plain[2:]) is None, "a length below 2"


def test_the_size_is_looked_for_in_the_beginning_only() -> None:
    plain = jpeg()
    padding = b"\xff" * 60_000
    assert jpeg_header(plain[:2] + padding + plain[2:]) == (SEQUENTIAL, SIZE)
    assert jpeg_header(plain[:2] + padding + padding + plain[2:]) is None
    started_s = time.process_time()
    for _ in range(20):
        assert jpeg_header(b"\xff\xd8" + b"\xff" * 4_000_000) is None
    assert time.process_time() - started_s < 20.0, "it was 1.9 s for each"
