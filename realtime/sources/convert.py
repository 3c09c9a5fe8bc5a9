"""Decoded video frames to BGR: upright, square pixels, the right colours, the asked size."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from engines import Pixels, Size
from realtime.sources.base import crop_to_aspect
from realtime.sources.pictures import flatten_alpha

COLOUR_SPACE_UNKNOWN = 2
"""AVCOL_SPC_UNSPECIFIED; `Colorspace.DEFAULT` is another number, that of tagged BT.470BG."""
HD_HEIGHT_PX = 720


def shown_size(picture: VideoFrame, aspect: Fraction | None) -> Size:
    """Return (width, height) as a player shows it; ``aspect`` is that of one stored pixel."""
    width, height = _square_pixels(picture, aspect)
    return (height, width) if _quarter_turns(picture) % 2 else (width, height)


class PictureConverter:
    """Converts the frames of one stream; keeps the scaler between frames."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, picture: VideoFrame, aspect: Fraction | None, target: Pixels) -> None:
        """Crop, scale, turn and convert into ``target``, with one copy.

        Raises:
            av.error.FFmpegError: a pixel format that cannot be converted.
        """
        height, width = target.shape[:2]
        turns = _quarter_turns(picture)
        if turns % 2:
            width, height = height, width
        shown = _square_pixels(picture, aspect)
        top, left, crop_height, crop_width = crop_to_aspect(shown, (width, height))
        full_width = max(width, round(shown[0] * width / crop_width))
        if full_width not in (width, picture.width):
            full_width += full_width % 2  # the scaler takes three times as long for odd widths
        full_height = max(height, round(shown[1] * height / crop_height))
        has_alpha = any(part.is_alpha for part in picture.format.components)
        pixels = self._to_bgr(picture, (full_width, full_height), has_alpha=has_alpha)
        first_row = min(round(top * full_height / shown[1]), full_height - height)
        first_column = min(round(left * full_width / shown[0]), full_width - width)
        pixels = pixels[first_row : first_row + height, first_column : first_column + width]
        if has_alpha:
            pixels = flatten_alpha(pixels)
        np.copyto(target, np.rot90(pixels, turns) if turns else pixels)

    def _to_bgr(self, picture: VideoFrame, size: Size, *, has_alpha: bool) -> Any:
        width, height = size
        space = None
        if picture.colorspace == COLOUR_SPACE_UNKNOWN and picture.height >= HD_HEIGHT_PX:
            space = Colorspace.ITU709  # as players do; the scaler would take BT.601
        shrinks = width < picture.width or height < picture.height
        converted = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format="bgra" if has_alpha else "bgr24",
            src_colorspace=space,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
            threads=1,
        )
        plane = converted.planes[0]
        channels = 4 if has_alpha else 3
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height]
        return rows[:, : width * channels].reshape(height, width, channels)


def _square_pixels(picture: VideoFrame, aspect: Fraction | None) -> Size:
    """Return (width, height) of the picture before it is turned, with square pixels."""
    width = picture.width
    if aspect and 0.1 < aspect < 10:
        width = max(1, round(width * float(aspect)))
    return width, picture.height


def _quarter_turns(picture: VideoFrame) -> int:
    """Return how often to turn counter-clockwise by 90 degrees (display matrix)."""
    return round(picture.rotation / 90) % 4
