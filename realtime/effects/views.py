"""Views: how the captured and the translated picture are shown together, and the line on top."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size
from realtime.frame import Frame

VIEWS = ("filtered", "split", "side-by-side", "original", "picture-in-picture", "difference")
KEYS = {"f": "original", "s": "split", "i": "picture-in-picture", "d": "difference"}
"""What a window's keys change to and back from."""
INSET_SHARE = 0.3
"""Of the width and height, for the captured picture within the translated one."""
AMPLIFIED = 2
"""How many times brighter a difference is shown than it is."""
LINE_COLOUR = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def check_view(view: str) -> str:
    """Return ``view``.

    Raises:
        SettingsError: there is no such view.
    """
    if view not in VIEWS:
        raise SettingsError(f"no view {view!r}; there are: {', '.join(VIEWS)}")
    return view


def view_size(view: str, size: Size) -> Size:
    """Return (width, height) of what `Presenter.render` makes of frames of ``size``."""
    return (size[0] * 2, size[1]) if view == "side-by-side" else size


class Presenter:
    """Draws one sink's view into a picture of its own; frames are never changed.

    Thread: one thread renders; another may assign ``view``, ``overlay`` and ``split_at`` at any
    time.
    """

    def __init__(
        self, view: str = "filtered", *, overlay: bool = False, split_at: float = 0.5
    ) -> None:
        self.view = self._at_first = check_view(view)
        self.split_at = split_at
        self.overlay = overlay
        self._canvas: Pixels | None = None
        if overlay:  # the first text loads the font, 50 ms, which no frame should wait for
            draw_label(np.zeros((32, 32, 3), np.uint8), "0")

    @property
    def split_at(self) -> float:
        """Where the line of the split view is, as a part of the width: 0 to 1."""
        return self._split_at

    @split_at.setter
    def split_at(self, part: float) -> None:
        if not 0 <= part <= 1:
            raise SettingsError(f"split_at is a part of the width, 0 to 1, found {part}")
        self._split_at = part

    @property
    def needs_source(self) -> bool:
        """Whether `render` wants ``frame.source``."""
        return self.view != "filtered"

    def render(self, frame: Frame, text: str = "") -> Pixels:
        """Return what to show: ``frame.pixels`` itself, or a picture valid until the next call.

        The split view has the captured picture on the left, the translated one on the right; the
        picture in picture is the captured one; the difference is `AMPLIFIED` times that of the
        two, black where the filter changed nothing.
        """
        view = self.view
        source = frame.source
        if source is None or view == "filtered":
            shown = frame.pixels
        elif view == "original":
            shown = source
        elif view == "side-by-side":
            shown = self._canvas_like((frame.pixels.shape[0], frame.pixels.shape[1] * 2))
            width = source.shape[1]
            shown[:, :width], shown[:, width:] = source, frame.pixels
        elif view == "picture-in-picture":
            shown = self._canvas_like(frame.pixels.shape[:2])
            np.copyto(shown, frame.pixels)
            draw_inset(shown, source)
        elif view == "difference":
            shown = self._canvas_like(frame.pixels.shape[:2])
            cv2.absdiff(source, frame.pixels, dst=shown)
            cv2.convertScaleAbs(shown, dst=shown, alpha=AMPLIFIED)
        else:
            shown = self._canvas_like(frame.pixels.shape[:2])
            line = int(shown.shape[1] * self.split_at)
            shown[:, :line] = source[:, :line]
            shown[:, line:] = frame.pixels[:, line:]
            shown[:, max(0, line - 1) : line + 1] = LINE_COLOUR
        if not (self.overlay and text):
            return shown
        if shown is not self._canvas:
            canvas = self._canvas_like(shown.shape[:2])
            np.copyto(canvas, shown)
            shown = canvas
        draw_label(shown, text)
        return shown

    def toggle(self, view: str) -> str:
        """Change to ``view``, or from it back to the first one; returns what to say."""
        back = self._at_first if self._at_first != view else "filtered"
        self.view = back if self.view == view else view
        return f"view: {self.view}"

    def drag(self, part: float) -> None:
        """Put the line of the split view to ``part`` of the width, as near as it can be.

        Other views have no line: nothing happens.
        """
        if self.view == "split":
            self.split_at = min(max(part, 0.0), 1.0)

    def actions(self) -> dict[str, Callable[[], str]]:
        """Return the keys of the views, for `Sink.actions`."""

        def toggler(view: str) -> Callable[[], str]:
            return lambda: self.toggle(view)

        return {key: toggler(view) for key, view in KEYS.items()}

    def _canvas_like(self, shape: tuple[int, ...]) -> Pixels:
        if self._canvas is None or self._canvas.shape[:2] != tuple(shape):
            self._canvas = np.empty((*shape, 3), np.uint8)
        return self._canvas


def draw_inset(pixels: Pixels, picture: Pixels) -> None:
    """Draw ``picture`` small, with a white rim, at the bottom right of ``pixels``, in place."""
    height, width = pixels.shape[:2]
    wide, tall = max(1, round(width * INSET_SHARE)), max(1, round(height * INSET_SHARE))
    gap = min(width, height) // 32
    rim = max(0, min(gap - 1, max(1, height // 240)))
    right, bottom = width - gap, height - gap
    left, top = right - wide, bottom - tall
    pixels[top - rim : bottom + rim, left - rim : right + rim] = LINE_COLOUR
    pixels[top:bottom, left:right] = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)


def draw_label(pixels: Pixels, text: str) -> None:
    """Draw one line of text on a darkened box at the bottom left, in place."""
    draw_panel(pixels, [(text,)], at_top=False)


def draw_panel(pixels: Pixels, rows: Sequence[tuple[str, ...]], *, at_top: bool = True) -> None:
    """Draw rows of cells in white on a darkened box at the left, in place.

    The text is as large as the picture allows, within reason; what does not fit is cut off.
    """
    if not rows:
        return
    height, width = pixels.shape[:2]
    scale = min(max(0.5, height / 900), 2.0)
    columns, line, base = _measure(rows, scale)
    needed = sum(columns) + 2 * line, (len(rows) + 1) * line
    if needed[0] > width or needed[1] > height:
        scale = max(0.3, scale * min(width / needed[0], height / needed[1]))
        columns, line, base = _measure(rows, scale)
    # Rounded up, so that the box does not twitch with every digit.
    box_width = min(width, -(-(sum(columns) + line) // 16) * 16)
    box_height = min(height, (2 * len(rows) + 1) * line // 2 + base)
    top = 0 if at_top else height - box_height
    box = pixels[top : top + box_height, :box_width]
    np.right_shift(box, 2, out=box)
    thickness = max(1, round(scale * 1.2))
    for number, row in enumerate(rows):
        left = line // 2
        for cell, column in zip(row, columns):
            place = left, (number + 1) * line
            cv2.putText(box, cell, place, FONT, scale, LINE_COLOUR, thickness, cv2.LINE_AA)
            left += column


def _measure(rows: Sequence[tuple[str, ...]], scale: float) -> tuple[list[int], int, int]:
    """Return the widths of the columns, the height of a line, and the room below its base."""
    thickness = max(1, round(scale * 1.2))
    (_, tall), base = cv2.getTextSize("Ag", FONT, scale, thickness)
    columns = [0] * max(len(row) for row in rows)
    gap = 0 if len(columns) == 1 else tall
    for row in rows:
        for number, cell in enumerate(row):
            wide = cv2.getTextSize(cell, FONT, scale, thickness)[0][0]
            columns[number] = max(columns[number], wide + gap)
    return columns, round(tall * 1.7), base
