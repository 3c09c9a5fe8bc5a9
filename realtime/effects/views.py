"""Views: how the captured and the translated picture are shown together, and the line on top."""

from __future__ import annotations

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size
from realtime.frame import Frame

VIEWS = ("filtered", "split", "side-by-side", "original")
LINE_COLOUR = (255, 255, 255)


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

    Thread: one thread renders; another may assign ``view`` and ``overlay`` at any time.
    """

    def __init__(self, view: str = "filtered", *, overlay: bool = False) -> None:
        self.view = check_view(view)
        self.overlay = overlay
        self._canvas: Pixels | None = None

    @property
    def needs_source(self) -> bool:
        """Whether `render` wants ``frame.source``."""
        return self.view != "filtered"

    def render(self, frame: Frame, text: str = "") -> Pixels:
        """Return what to show: ``frame.pixels`` itself, or a picture valid until the next call.

        The split view has the captured picture on the left, the translated one on the right.
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
        else:
            shown = self._canvas_like(frame.pixels.shape[:2])
            middle = shown.shape[1] // 2
            shown[:, :middle] = source[:, :middle]
            shown[:, middle:] = frame.pixels[:, middle:]
            shown[:, middle - 1 : middle + 1] = LINE_COLOUR
        if not (self.overlay and text):
            return shown
        if shown is not self._canvas:
            canvas = self._canvas_like(shown.shape[:2])
            np.copyto(canvas, shown)
            shown = canvas
        draw_label(shown, text)
        return shown

    def _canvas_like(self, shape: tuple[int, ...]) -> Pixels:
        if self._canvas is None or self._canvas.shape[:2] != tuple(shape):
            self._canvas = np.empty((*shape, 3), np.uint8)
        return self._canvas


def draw_label(pixels: Pixels, text: str) -> None:
    """Draw one line of text on a darkened box at the bottom left, in place."""
    height, width = pixels.shape[:2]
    scale = max(0.4, min(height / 720, width / 1000) * 0.9)
    thickness = max(1, round(scale * 1.6))
    font = cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), base = cv2.getTextSize(text, font, scale, thickness)
    pad = max(3, text_height // 2)
    top = max(0, height - text_height - base - 2 * pad)
    box = pixels[top:, : min(width, text_width + 2 * pad)]
    np.right_shift(box, 2, out=box)
    place = pad, height - base - pad
    cv2.putText(pixels, text, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
