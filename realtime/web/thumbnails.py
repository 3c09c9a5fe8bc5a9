"""Thumbnails of the gallery: each filter on a small scene that is drawn here."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import FrameModel, Pixels, open_engine

SIZE: Final = (192, 108)
"""(width, height) of a thumbnail, in px."""
WORKING_SIZE: Final = (576, 324)
"""(width, height) that the filter works at: the strokes of a style are as wide in any picture, and
at the size of the thumbnail they would cover the scene."""
QUALITY: Final = 88
_UNITS: Final = (384, 216)
"""(width, height) of the scene in the units that it is described in."""
_DRAWN_AT: Final = 3
"""Canvas px a unit: twice the finished scene, which smooths every edge when it is shrunk."""
_LOG = logging.getLogger("pix2live.web")

Colour = tuple[int, int, int]
"""Blue, green, red."""
Point = tuple[float, float]
"""x, y in units of the scene."""
Outline = Sequence[Point]


class Thumbnails:
    """JPEGs of 192 x 108 px, made at the first request and kept for all.

    Thread: the event loop's; each filter works in a thread of its own, one at a time. The loop's
    executor encodes and decodes video, and must not wait for a gallery.
    A filter that cannot be run gets a placeholder with its name, and one line in the log.
    """

    def __init__(self, filters: Mapping[str, FrameModel]) -> None:
        self._filters = filters
        self._tasks: dict[str, asyncio.Task[bytes]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def jpeg(self, name: str) -> bytes:
        """Return the thumbnail of the filter ``name``.

        Raises:
            KeyError: there is no such filter.
        """
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._make(name, self._filters[name]))
        return await asyncio.shield(self._tasks[name])  # who asked may leave, the others wait

    async def _make(self, name: str, model: FrameModel) -> bytes:
        async with self._one_at_a_time:
            # A new one each time: there is nothing to close when the server stops.
            worker = ThreadPoolExecutor(1, "pix2live thumbnail")
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(worker, make_thumbnail, name, model)
            finally:
                worker.shutdown(wait=False)


def make_thumbnail(name: str, model: FrameModel) -> bytes:
    """Return a JPEG of 192 x 108 px: the scene, translated by ``model``.

    An engine is opened for one picture and closed again. Whatever fails becomes a placeholder
    with ``name``, and one line in the log.
    """
    try:
        engine = open_engine(model)
        size = engine.fit(WORKING_SIZE)
        engine.open(size)
        try:
            translated = engine.infer(_resized(draw_scene(), size))
        finally:
            engine.close()
    except Exception as error:  # noqa: BLE001  (a gallery with a hole is better than none)
        _LOG.warning("no thumbnail of %s: %s", name, error)
        return encode_thumbnail(draw_placeholder(name))
    return encode_thumbnail(translated)


def encode_thumbnail(pixels: Pixels) -> bytes:
    """Shrink ``pixels`` (uint8, (H, W, 3) BGR) to 192 x 108 px and return the JPEG."""
    small = _resized(pixels, SIZE)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def draw_placeholder(name: str) -> Pixels:
    """Return uint8 (324, 576, 3) BGR: ``name`` on grey, as large as fits."""
    width, height = WORKING_SIZE
    picture = np.full((height, width, 3), (72, 66, 62), np.uint8)
    cv2.rectangle(picture, (12, 12), (width - 13, height - 13), (118, 110, 104), 5, cv2.LINE_AA)
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in name)[:40] or "?"
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 3
    (length, _), _ = cv2.getTextSize(text, font, 1.0, thickness)
    scale = min(2.4, (width - 72) / max(length, 1))
    (length, tall), _ = cv2.getTextSize(text, font, scale, thickness)
    place = ((width - length) // 2, (height + tall) // 2)
    cv2.putText(picture, text, place, font, scale, (232, 228, 224), thickness, cv2.LINE_AA)
    return picture


@functools.cache
def draw_scene() -> Pixels:
    """Return a sailing boat on a lake in the evening, the same each time.

    uint8, (324, 576, 3), BGR, read-only. It has what filters differ in: a soft gradient, hard
    edges, small texture, dark and bright, warm and cold, and a face.
    """
    scene = _Scene().draw()
    scene.flags.writeable = False  # shared by all filters
    return scene


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    if pixels.shape[1::-1] == size:
        return pixels
    shrinks = size[0] < pixels.shape[1]
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized, np.uint8)


class _Scene:
    """Draws from the back to the front, what is later covers what is earlier."""

    def __init__(self) -> None:
        self.width, self.height = _UNITS
        self.horizon = 122
        self.random = np.random.default_rng(1888)
        shape = (self.height * _DRAWN_AT, self.width * _DRAWN_AT, 3)
        self.canvas = np.zeros(shape, np.float32)

    def draw(self) -> Pixels:
        self._sky()
        self._clouds()
        self._hills()
        self._water()
        self._boat()
        self._shore()
        self._house()
        self._trees()
        self._person()
        grain = self.random.normal(0, 2.0, self.canvas.shape[:2])
        self.canvas += grain[..., None].astype(np.float32)
        drawn = np.clip(self.canvas, 0, 255).astype(np.uint8)
        return _resized(drawn, WORKING_SIZE)

    def polygon(self, points: Outline, colour: Colour, opacity: float = 1.0) -> None:
        scaled = np.rint(np.array(points, np.float64) * _DRAWN_AT).astype(np.int32)
        if opacity == 1:
            cv2.fillPoly(self.canvas, [scaled], colour)
            return
        weights = np.zeros(self.canvas.shape[:2], np.float32)
        cv2.fillPoly(weights, [scaled], opacity)
        self.blend(weights, colour)

    def ellipse(self, centre: Point, axes: Point, colour: Colour) -> None:
        x, y, across, down = (round(value * _DRAWN_AT) for value in (*centre, *axes))
        cv2.ellipse(self.canvas, (x, y), (across, down), 0, 0, 360, colour, -1)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        x0, y0, x1, y1 = (round(value * _DRAWN_AT) for value in (*start, *end))
        cv2.line(self.canvas, (x0, y0), (x1, y1), colour, max(1, round(width * _DRAWN_AT)))

    def noise(self, cell_px: tuple[float, float]) -> NDArray[np.float32]:
        """Return soft noise over the canvas, about -1 to 1; ``cell_px`` is as large as a patch."""
        rows, columns = self.canvas.shape[:2]
        cells = (
            max(2, round(rows / _DRAWN_AT / cell_px[1])),
            max(2, round(columns / _DRAWN_AT / cell_px[0])),
        )
        coarse = self.random.uniform(-1, 1, cells).astype(np.float32)
        fine = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
        return np.asarray(fine, np.float32)

    def blend(self, weights: NDArray[np.floating[Any]], colour: Colour) -> None:
        """Lay ``colour`` over the canvas, as much as ``weights`` (0 to 1) says."""
        part = np.clip(weights, 0, 1)[..., None]
        self.canvas += (part * (np.array(colour) - self.canvas)).astype(np.float32)

    def _grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows, columns = self.canvas.shape[:2]
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / _DRAWN_AT
        return x, y

    def _sky(self) -> None:
        stops = [(0, (176, 104, 52)), (55, (206, 158, 112)), (95, (150, 190, 240))]
        stops += [(self.horizon, (120, 190, 255))]
        heights = [stop[0] for stop in stops]
        _, y = self._grid()
        for channel in range(3):
            levels = [stop[1][channel] for stop in stops]
            self.canvas[..., channel] = np.interp(y, heights, levels)
        x, y = self._grid()
        distance = np.hypot(x - 268, y - 74)
        self.blend(0.75 * np.exp(-distance / 38), (120, 214, 255))
        self.blend((21 - distance) * 2, (170, 240, 255))

    def _clouds(self) -> None:
        x, y = self._grid()
        wisps = 0.6 * self.noise((44, 9)) + 0.4 * self.noise((15, 4))
        for middle, height, across, down in ((92, 30, 92, 15), (300, 24, 76, 11), (196, 56, 70, 8)):
            round_it = 1 - np.hypot((x - middle) / across, (y - height) / down)
            body = np.clip(round_it * 1.6 + wisps * 0.55, 0, 1)
            shade = np.clip((y - height) / down * 0.5 + 0.35, 0, 1)
            self.blend(body * 0.9, (236, 240, 252))
            self.blend(body * shade * 0.55, (166, 150, 214))

    def _hills(self) -> None:
        columns = np.linspace(0, self.width, 97)
        for base, high, waves, shift, colour in (
            (100, 30, 1.35, 0.4, (168, 124, 120)),
            (112, 20, 2.3, 2.2, (120, 104, 76)),
            (119, 12, 3.4, 4.4, (72, 104, 60)),
        ):
            turns = columns / self.width * 2 * np.pi
            tops = base - high * (0.55 + 0.45 * np.sin(turns * waves + shift))
            tops -= high * 0.2 * np.sin(turns * waves * 2.7 + shift * 3)
            ridge = [(float(a), float(b)) for a, b in zip(columns, tops, strict=True)]
            self.polygon([*ridge, (self.width, self.horizon), (0, self.horizon)], colour)

    def _water(self) -> None:
        first = self.horizon * _DRAWN_AT
        rows = self.canvas.shape[0] - first
        mirrored = self.canvas[first - 1 :: -1][:rows]
        x, y = self._grid()
        depth = (y[first:] - self.horizon) / (self.height - self.horizon)
        ripples = self.noise((30, 2.2))[first:]
        across = x[first:] * _DRAWN_AT + ripples * (3 + 26 * depth)
        down = (y[first:] - self.horizon) * _DRAWN_AT + ripples * 5
        reflected = cv2.remap(
            np.ascontiguousarray(mirrored),
            across.astype(np.float32),
            np.abs(down).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        deep = np.array((128, 84, 30), np.float32)
        part = (0.22 + 0.48 * depth)[..., None]
        self.canvas[first:] = reflected * (1 - part) + deep * part
        glitter = np.zeros(self.canvas.shape[:2], np.float32)
        way = np.exp(-(((x[first:] - 268) / (12 + 34 * depth)) ** 2))
        glitter[first:] = way * np.clip(ripples * 3 - 0.3, 0, 1)
        self.blend(glitter, (176, 236, 255))

    def _boat(self) -> None:
        for x, y, size in ((170.0, 141.0, 1.0), (206.0, 127.0, 0.34)):

            def at(*points: Point, boat: Point = (x, y), k: float = size) -> Outline:
                return [(boat[0] + across * k, boat[1] - up * k) for across, up in points]

            self.polygon(at((-19, -4), (27, -4), (23, -12), (-14, -12)), (62, 56, 66), 0.7)
            self.polygon(at((2, -11), (2, -52), (30, -11)), (214, 228, 240), 0.45)
            self.polygon(at((-2, -11), (-2, -46), (-19, -11)), (80, 90, 190), 0.4)
            self.polygon(at((2, 10), (2, 66), (33, 12)), (236, 244, 250))
            self.polygon(at((2, 10), (2, 66), (12, 12)), (206, 216, 228))
            self.polygon(at((-2, 11), (-2, 58), (-21, 13)), (58, 70, 214))
            foot, top = at((0, 4), (0, 69))
            self.line(foot, top, (40, 52, 78), 1.8 * size)
            self.polygon(at((-27, 8), (36, 8), (27, -5), (-19, -5)), (50, 62, 108))
            self.polygon(at((-27, 8), (36, 8), (35, 5), (-26, 5)), (220, 232, 244))

    def _shore(self) -> None:
        columns = np.linspace(0, self.width, 65)
        left, right = np.exp(-((columns / 138) ** 4)), np.exp(-(((columns - 384) / 92) ** 2))
        tops = 204 - 46 * left - 27 * right
        edge = [(float(a), float(b)) for a, b in zip(columns, tops, strict=True)]
        before = self.canvas.copy()
        self.polygon([*edge, (self.width, self.height), (0, self.height)], (60, 134, 96))
        land = (self.canvas != before).any(axis=2)
        texture = 30 * self.noise((3, 2)) + 18 * self.noise((26, 9))
        self.canvas[land] += texture[land][:, None] * np.array((0.5, 1.0, 0.8), np.float32)
        for _ in range(90):
            x = float(self.random.uniform(0, self.width))
            top = float(np.interp(x, columns, tops))
            y = float(self.random.uniform(top + 3, self.height))
            colours = ((60, 90, 235), (80, 210, 250), (245, 240, 250), (200, 110, 190))
            colour = colours[int(self.random.integers(len(colours)))]
            if y < self.height - 1:
                self.ellipse((x, y), (1.3, 1.2), colour)

    def _house(self) -> None:
        self.polygon([(36, 128), (86, 128), (86, 174), (36, 170)], (196, 222, 240))
        self.polygon([(86, 128), (104, 124), (104, 170), (86, 174)], (150, 172, 196))
        self.polygon([(30, 131), (44, 102), (93, 102), (88, 131)], (52, 64, 186))
        self.polygon([(88, 131), (93, 102), (105, 125)], (136, 158, 184))
        self.line((93, 102), (108, 126), (40, 46, 120), 2.2)
        for row in range(3):
            y = 109 + row * 7
            self.line((41 - row * 3.4, y), (92 - row * 1.2, y), (38, 46, 140), 1)
        self.polygon([(72, 90), (80, 90), (80, 106), (72, 106)], (84, 96, 140))
        frame, light = (84, 66, 52), (130, 220, 255)
        for x in (42, 69):
            self.polygon([(x, 137), (x + 11, 137), (x + 11, 151), (x, 151)], frame)
            self.polygon([(x + 1, 138), (x + 10, 138), (x + 10, 150), (x + 1, 150)], light)
            self.line((x + 5.5, 138), (x + 5.5, 150), frame, 1)
            self.line((x + 1, 144), (x + 10, 144), frame, 1)
        self.polygon([(56, 146), (65, 146), (65, 172), (56, 171)], (70, 88, 44))

    def _trees(self) -> None:
        for x, y, high, width in ((14, 176, 94, 16), (121, 176, 58, 10)):
            self.line((x, y), (x, y - high * 0.5), (44, 62, 88), width * 0.3)
            for _ in range(150):
                up = float(self.random.uniform(0.22, 1.0))
                spread = width * (1.15 - up) * 1.3
                across = float(self.random.uniform(-1, 1))
                light = 0.55 + 0.45 * across + float(self.random.uniform(-0.2, 0.2))
                colour = (int(38 + 30 * light), int(84 + 76 * light), int(40 + 66 * light))
                self.ellipse((x + across * spread, y - up * high), (3.2, 2.4), colour)

    def _person(self) -> None:
        """Draw someone who looks over the lake: a face in half profile, hat, scarf and coat."""
        self.polygon(
            [(292, 216), (300, 178), (318, 166), (346, 165), (366, 176), (377, 216)], (112, 64, 44)
        )
        self.polygon([(331, 168), (338, 168), (342, 216), (328, 216)], (84, 46, 30))
        self.ellipse((333, 166), (17, 8), (60, 80, 222))
        self.polygon([(322, 168), (334, 170), (330, 196), (320, 194)], (48, 64, 190))
        self.ellipse((335, 136), (23, 27), (36, 54, 84))
        self.ellipse((340, 143), (10, 19), (130, 164, 216))
        self.ellipse((331, 144), (18, 20), (154, 190, 236))
        self.polygon([(324, 140), (319, 151), (327, 151)], (126, 162, 216))
        for x in (318, 336):
            self.ellipse((x, 140), (4.2, 3.0), (244, 246, 250))
            self.ellipse((x - 0.8, 140), (2.2, 2.6), (66, 44, 30))
            self.line((x - 4, 134), (x, 133), (34, 48, 72), 1.8)
            self.line((x, 133), (x + 4, 134), (34, 48, 72), 1.8)
            self.ellipse((x - 2 if x < 330 else x + 6, 150), (4, 3), (138, 158, 240))
        self.polygon([(319, 154), (326, 156), (335, 154), (330, 160), (323, 160)], (70, 70, 180))
        self.polygon([(321, 155), (326, 156.5), (333, 155), (326, 158)], (240, 244, 250))
        straw, band = (70, 168, 226), (60, 60, 60)
        crown = [(308, 126), (312, 110), (328, 103), (346, 106), (358, 122), (359, 130)]
        self.polygon(crown, straw)
        brim = [(296, 126), (312, 121), (358, 123), (372, 132), (350, 131), (312, 129)]
        self.polygon(brim, (52, 136, 196))
        self.polygon([(309, 124), (311, 117), (356, 118), (358, 125)], band)
