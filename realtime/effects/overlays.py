"""Overlays: a picture or a text over the translation, on the screen or on a marker's plane."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engines import Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect
from realtime.effects.calibration import Calibration
from realtime.effects.colours import TEXT_COLOURS, read_rgb
from realtime.effects.marker_tracker import Tracker
from realtime.effects.markers import marker_id
from realtime.effects.patches import (
    Floats,
    Halves,
    Patch,
    Place,
    corner,
    draw_on,
    draw_text,
    note_cut,
    on_plane,
    read_with_alpha,
    refuse_unknown_letters,
)
from realtime.effects.views import draw_panel
from realtime.effects.words import Words
from realtime.frame import Frame

AT: Final = (10.0, 10.0)
SIZE_PX: Final = 24.0
UNSEARCHED: Final = "picture: no effect before it looks for markers; put --effect markers there"
LARGEST_PX: Final = 8192
"""A patch with longer sides is a slip in a number, and would only eat memory."""


class PictureOverlay(Effect):
    """Draws a picture file with its alpha over the translation.

    Args:
        path: any picture that OpenCV reads; without alpha it is opaque.
        at: (x, y) of its top left corner, in pixels; negative numbers (-0 too) count from the
            right and the bottom, to its right and bottom edge. On a marker in sides of the
            marker, from its top left corner; default: centred.
        width: of the drawn picture in pixels (default: the file's), on a marker in sides of the
            marker (default: 1).
        opacity: 0 to 1, on top of the file's alpha.
        marker: draw it in perspective onto the plane of the marker of this number, while it is in
            ``context.markers``; put a ``markers`` effect before this one, whose calibration, if it
            has one, counts here too.

    What does not fit into the frame is cut off; a note says so.
    """

    name = "picture"

    def __init__(
        self,
        path: str | Path,
        *,
        at: Place | None = None,
        width: float | None = None,
        opacity: float = 1.0,
        marker: int | None = None,
    ) -> None:
        super().__init__()
        if width is not None and width <= 0:
            raise SettingsError(f"picture: the width must be more than 0, found {width:g}")
        if not 0 <= opacity <= 1:
            raise SettingsError(f"picture: the opacity must be 0 to 1, found {opacity:g}")
        self.path, self.at, self.width = Path(path), at, width
        self.paths = (self.path,)
        self.opacity, self.marker = opacity, marker
        self.latency_ms = 0.1 if marker is None else 0.5
        self._picture: Pixels | None = None
        self._smaller: Halves | None = None
        self._patch: Patch | None = None
        self._corner = (0, 0)

    @classmethod
    def from_words(cls, words: str) -> PictureOverlay:
        """``logo.png;at=-10,10;width=120;opacity=0.8`` or ``logo.png;marker=7;width=2``."""
        path, _, rest = words.partition(";")
        found = Words(cls.name, rest)
        if not path.strip():
            raise SettingsError("picture: say which file: picture:logo.png")
        marker, width = found.text("marker"), found.text("width")
        made = cls(
            path.strip(),
            at=_place(found),
            width=found.as_number(width, "width") if width else None,
            opacity=found.number("opacity", 1.0),
            marker=marker_id(cls.name, marker) if marker else None,
        )
        found.done()
        return made

    def prepare(self, size: Size, context: Context) -> None:
        if self._picture is None:
            self._picture = read_with_alpha(self.path, self.opacity)
        if self.marker is not None:
            self._smaller = Halves(self._picture)
            return
        height, width = self._picture.shape[:2]
        scale = 1.0 if self.width is None else self.width / width
        wanted = max(1, round(width * scale)), max(1, round(height * scale))
        if max(wanted) > LARGEST_PX:
            raise SettingsError(
                f"picture: {self.path} would be {wanted[0]}x{wanted[1]} pixels; at most"
                f" {LARGEST_PX} a side"
            )
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        self._patch = Patch.of(cv2.resize(self._picture, wanted, interpolation=how))  # type: ignore[arg-type]
        self._corner = corner(self.at or AT, wanted, size)
        note_cut(self.notes, f"the picture {self.path}", self._corner, wanted, size)

    def process(self, frame: Frame, context: Context) -> Pixels:
        if self.marker is not None:
            marker = context.markers.get(self.marker)
            trackers = [item for item in context.values.values() if isinstance(item, Tracker)]
            if not context.markers and not trackers and UNSEARCHED not in self.notes:
                self.notes.append(UNSEARCHED)
            if marker is not None:
                lenses = (tracker.calibration for tracker in trackers)  # there is one camera
                lens = next((item for item in lenses if item is not None), None)
                self._draw_on(frame.pixels, np.asarray(marker.corners, np.float64), lens)
        elif self._patch is not None:
            self._patch.draw(frame.pixels, *self._corner)
        return frame.pixels

    def close(self) -> None:
        self._picture = self._patch = self._smaller = None

    def _draw_on(self, pixels: Pixels, corners: Floats, calibration: Calibration | None) -> None:
        """Draw it onto the plane of a marker with ``corners`` (4, 2), clockwise from top left."""
        assert self._picture is not None
        assert self._smaller is not None
        height, width = self._picture.shape[:2]
        wide = self.width or 1.0
        tall = wide * height / width
        left, top = self.at or ((1 - wide) / 2, (1 - tall) / 2)
        right, bottom = left + wide, top + tall
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        quad = on_plane(corners, box, calibration)
        if quad is not None:
            draw_on(pixels, self._smaller.fitting(quad), quad)


class TextOverlay(Effect):
    """Draws a text with a dark outline over the translation.

    Args:
        text: one or more lines.
        at: (x, y) of its top left corner in pixels; negative as in `PictureOverlay`.
        size_px: height of a capital letter with the room below it.
        colour: a name of `TEXT_COLOURS`, or ``#rrggbb``.

    Raises:
        SettingsError: the font of this OpenCV has no picture of a letter (it would be a ``?``).
            OpenCV 5 draws Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters, OpenCV 4
            ASCII only.
    """

    name = "text"
    latency_ms = 0.1

    def __init__(
        self, text: str, *, at: Place = AT, size_px: float = SIZE_PX, colour: str = "white"
    ) -> None:
        super().__init__()
        if not text.strip():
            raise SettingsError("text: there is none: text:Hello")
        if not 4 <= size_px <= 500:
            raise SettingsError(f"text: the size must be 4 to 500 pixels, found {size_px:g}")
        self.text, self.at, self.size_px = text, at, size_px
        red, green, blue = read_rgb(colour, TEXT_COLOURS, self.name)
        self.colour = blue, green, red
        refuse_unknown_letters(text)
        self._patch: Patch | None = None
        self._corner = (0, 0)

    @classmethod
    def from_words(cls, words: str) -> TextOverlay:
        """``Hello;at=10,-10;size=32;colour=#ffcc00``; the text ends at the first semicolon."""
        text, _, rest = words.partition(";")
        found = Words(cls.name, rest)
        made = cls(
            text.strip(),
            at=_place(found) or AT,
            size_px=found.number("size", SIZE_PX),
            colour=found.text("colour", "white"),
        )
        found.done()
        return made

    def prepare(self, size: Size, context: Context) -> None:
        picture = draw_text(self.text.splitlines(), self.size_px, self.colour)
        self._patch = Patch.of(picture)
        wanted = picture.shape[1], picture.shape[0]
        self._corner = corner(self.at, wanted, size)
        note_cut(self.notes, f"the text {self.text!r}", self._corner, wanted, size)

    def process(self, frame: Frame, context: Context) -> Pixels:
        assert self._patch is not None
        self._patch.draw(frame.pixels, *self._corner)
        return frame.pixels


class StatusOverlay(Effect):
    """Draws filter, fps and age into the picture, for every sink.

    The age is that of the frame when the first effect got it. What is shown on a screen is older;
    a window's own line and the statistics say how much.
    """

    name = "status"
    latency_ms = 0.1

    def __init__(self, *, at_top: bool = True) -> None:
        super().__init__()
        self.at_top = at_top

    @classmethod
    def from_words(cls, words: str) -> StatusOverlay:
        """``status`` or ``status:bottom``."""
        found = Words(cls.name, words)
        bottom = found.flag("bottom")
        found.done()
        return cls(at_top=not bottom)

    def prepare(self, size: Size, context: Context) -> None:
        # The first text loads the font, 50 ms, which no frame should wait for.
        draw_panel(np.zeros((32, 32, 3), np.uint8), [("0",)])

    def process(self, frame: Frame, context: Context) -> Pixels:
        fps = "  --.- fps" if context.shown_fps is None else f"{context.shown_fps:5.1f} fps"
        text = f"{context.label}  {fps}  age {context.age_ms:3.0f} ms".strip()
        draw_panel(frame.pixels, [(text,)], at_top=self.at_top)
        return frame.pixels


def _place(words: Words) -> Place | None:
    """Take ``at``, two numbers; None where it is not given."""
    at = words.text("at")
    if not at:
        return None
    x, y = words.numbers(at, "at", 2)
    return x, y
