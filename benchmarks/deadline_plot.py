"""The picture of `benchmarks.deadline`: frames a second and working size over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines import Pixels
from realtime.sources.pictures import write_picture

WIDTH, HEIGHT = 1600, 900
LEFT, RIGHT = 190, 40
FPS_PANEL, SIZE_PANEL = (130, 460), (560, 800)
"""(top, bottom) in px."""
INK, PALE, PAPER = (60, 52, 46), (222, 218, 214), (255, 255, 255)
LOAD, KEPT, UNKEPT, LINE = (226, 234, 250), (160, 95, 20), (170, 170, 170), (80, 80, 220)
"""BGR."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
MOST_FPS = 35.0


class Plot:
    """A sheet with one axis of time and two panels."""

    def __init__(self, seconds: float) -> None:
        self.sheet: Pixels = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
        self._seconds = seconds

    def x(self, time_s: float) -> int:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * time_s / self._seconds)

    def words(
        self, text: str, at: tuple[int, int], scale: float = 0.7, *, end: bool = False
    ) -> None:
        """Write ``text`` from, or with ``end`` up to, the point (x, y)."""
        (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
        place = (at[0] - width if end else at[0], at[1] + height // 2)
        cv2.putText(self.sheet, text, place, FONT, scale, INK, 1, cv2.LINE_AA)

    def level(self, y: int, text: str) -> None:
        """Draw a line across the panel, named at its left."""
        cv2.line(self.sheet, (LEFT, y), (WIDTH - RIGHT, y), PALE, 1, cv2.LINE_AA)
        self.words(text, (LEFT - 16, y), 0.6, end=True)

    def curve(self, points: list[tuple[int, int]], colour: tuple[int, int, int], px: int) -> None:
        cv2.polylines(self.sheet, [np.array(points, np.int32)], False, colour, px, cv2.LINE_AA)


def fps_y(fps: float) -> int:
    top, bottom = FPS_PANEL
    return round(bottom - (bottom - top) * min(fps, MOST_FPS) / MOST_FPS)


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Draw what `benchmarks.deadline` found, and write it as a PNG."""
    ends, load = result["ends_s"], result["load"]
    plot = Plot(ends)
    start, end = plot.x(load["appears_s"]), plot.x(load["goes_s"])
    for top, bottom in (FPS_PANEL, SIZE_PANEL):
        cv2.rectangle(plot.sheet, (start, top - 30), (end, bottom), LOAD, cv2.FILLED)
    plot.words(f"load: {load['processes']} busy processes", (start + 14, FPS_PANEL[0] - 14), 0.6)
    width, height = result["size"]
    plot.words(
        f"--fps {result['kept_fps']:g} --keep, {result['filter']}, {width}x{height}",
        (LEFT, 40),
        0.9,
    )
    _draw_fps(plot, result)
    _draw_sizes(plot, result["runs"]["with the keeper"], ends)
    for time_s in range(0, int(ends) + 1, 5):
        plot.words(f"{time_s} s", (plot.x(time_s) - 14, SIZE_PANEL[1] + 34), 0.6)
    write_picture(path, plot.sheet)


def _draw_fps(plot: Plot, result: dict[str, Any]) -> None:
    for fps in (0, 10, 20, 30):
        plot.level(fps_y(fps), f"{fps} fps")
    y = fps_y(27)
    for x in range(LEFT, WIDTH - RIGHT, 16):
        cv2.line(plot.sheet, (x, y), (x + 6, y), LINE, 1, cv2.LINE_AA)
    plot.words("27", (LEFT - 16, y), 0.5, end=True)
    for name, colour, px in (("without", UNKEPT, 2), ("with the keeper", KEPT, 3)):
        values = result["runs"][name]["fps of every 0.25 s"]
        points = [(plot.x(1 + number / 4), fps_y(value)) for number, value in enumerate(values)]
        plot.curve(points, colour, px)
    for place, (words, colour) in enumerate((("with the keeper", KEPT), ("without it", UNKEPT))):
        x, y = WIDTH - RIGHT - 560 + 320 * place, 40
        cv2.line(plot.sheet, (x, y), (x + 40, y), colour, 3, cv2.LINE_AA)
        plot.words(words, (x + 52, y), 0.6)


def _draw_sizes(plot: Plot, run: dict[str, Any], ends: float) -> None:
    sizes = [tuple(size) for size in run["sizes"]]
    widest, (top, bottom) = max(size[0] for size in sizes), SIZE_PANEL

    def y(size: tuple[int, ...]) -> int:
        return round(bottom - (bottom - top) * size[0] / widest)

    plot.words("working size", (LEFT, top - 44), 0.6)
    for size in sizes:
        plot.level(y(size), f"{size[0]}x{size[1]}")
    points = [(plot.x(0), y(sizes[0]))]
    for step in run["steps"]:
        x = plot.x(step["at_s"])
        points += [(x, points[-1][1]), (x, y(tuple(step["after"])))]
    points.append((plot.x(ends), points[-1][1]))
    plot.curve(points, KEPT, 3)
