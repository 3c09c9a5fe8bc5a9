"""Makes the clips that the tests of sources read: small, exact, and broken on purpose."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from hypothesis import settings
from numpy.typing import NDArray

from engines import Pixels
from realtime.frame import Frame
from realtime.sources import Source
from realtime.sources.synthetic import write_code

patient = settings(deadline=None)
"""For property tests: a busy machine is no failure."""
ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets" / "video"
RED, GREEN, BLUE, WHITE = (0, 0, 230), (0, 200, 0), (220, 0, 0), (240, 240, 240)
PATCHES = (
    (20, 20, 20),
    (235, 235, 235),
    (40, 60, 200),
    (60, 170, 60),
    (190, 80, 50),
    (30, 160, 220),
)
"""Colours (BGR) that BT.601 and BT.709 show differently, and that no range clips."""


def quadrants(width: int, height: int) -> Pixels:
    """Red, green / blue, white: whatever is turned, mirrored or shifted shows."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def corners(picture: Pixels) -> list[tuple[int, ...]]:
    """Return the colours of top left, top right, bottom left, bottom right."""
    height, width = picture.shape[:2]
    places = [(y, x) for y in (height // 8, height * 7 // 8) for x in (width // 8, width * 7 // 8)]
    return [tuple(int(part) for part in picture[place]) for place in places]


def colour_patches(width: int, height: int) -> Pixels:
    """Return upright stripes of `PATCHES`."""
    columns = np.arange(width) * len(PATCHES) // width
    row = np.array(PATCHES, np.uint8)[columns]
    return np.ascontiguousarray(np.repeat(row[None], height, axis=0))


def patch_means(picture: Pixels) -> NDArray[np.float64]:
    """Return the mean colour in the middle of each of `PATCHES`."""
    height, width = picture.shape[:2]
    step = width / len(PATCHES)
    middle = slice(height // 4, height * 3 // 4)
    return np.array(
        [
            picture[middle, round((place + 0.3) * step) : round((place + 0.7) * step)]
            .reshape(-1, 3)
            .mean(axis=0)
            for place in range(len(PATCHES))
        ]
    )


def coded(width: int, height: int, count: int, first: int = 0) -> list[Pixels]:
    """Return pictures that carry their number, as the test pattern does."""
    pictures = []
    for number in range(first, first + count):
        picture = quadrants(width, height)
        write_code(picture, number, number)
        pictures.append(picture)
    return pictures


def write_clip(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    frame_format: str = "bgr24",
    pts_ms: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    space: int | None = None,
    full_range: bool = False,
    tagged: bool = True,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode ``pictures``; ``space`` is an AVColorSpace (1: BT.709, 5: BT.470BG, 6: SMPTE 170M)."""
    settings = {"preset": "ultrafast", "crf": "12"} if codec == "libx264" else {}
    base = Fraction(1, 1000) if pts_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=frame_format)
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=settings | (options or {}))
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
                stream.codec_context.time_base = base
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if space is not None and tagged:
                    stream.codec_context.colorspace = space
                if tagged:
                    stream.codec_context.color_range = 2 if full_range else 1
            if frame.format.name != pix_fmt:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace=space,
                    dst_color_range=2 if full_range else 1,
                    interpolation="BILINEAR",
                )
            frame.pts = number if pts_ms is None else pts_ms[number]
            frame.time_base = base
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode(None))
    if rotation:
        turn(path, rotation)
    return path


def turn(path: Path, degrees: int) -> None:
    """Set the display matrix of an mp4 as phones do: turned by ``degrees`` counter-clockwise."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd")
    assert data[box + 4] == 0, "a version 0 header is expected"
    one = 1 << 16
    cos, sin = {90: (0, -one), 180: (-one, 0), 270: (0, one)}[degrees]
    matrix = struct.pack(">9i", cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30)
    data[box + 44 : box + 80] = matrix
    path.write_bytes(data)


def empty_frame(size: tuple[int, int]) -> Frame:
    """Return a frame to be filled, in a colour that no test draws."""
    return Frame(np.full((size[1], size[0], 3), 77, np.uint8))


def read_all(source: Source, size: tuple[int, int], limit: int = 1000) -> list[Frame]:
    """Read until the end (or ``limit`` frames) into frames of their own."""
    frames: list[Frame] = []
    while len(frames) < limit:
        frame = empty_frame(size)
        if not source.read(frame):
            break
        frames.append(frame)
    return frames


def first_picture(source: Source, size: tuple[int, int] | None = None) -> Pixels:
    """Open, read one picture at ``size`` (default: its own), close."""
    try:
        info = source.open(size, realtime=False)
        frames = read_all(source, size or info.size, 1)
        assert frames, f"no frame: {source.notes}"
        return frames[0].pixels
    finally:
        source.close()
