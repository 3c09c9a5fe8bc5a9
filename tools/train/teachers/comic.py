"""The comic: ink and flat colour."""

from typing import Final

import cv2
import numpy as np

from tools.train.teachers.edges import Picture, Plane, contours

SMOOTHING_PASSES: Final = 4
LIGHTNESS_LEVELS: Final = 5
BLACK_POINT: Final = 0.06
WHITE_POINT: Final = 0.86  # of the lightness: walls of an ordinary room become paper white
STEP_SHARPNESS: Final = 12.0
FINE_LINES: Final = (1.2, 0.0085, 220.0)
BOLD_LINES: Final = (2.4, 0.03, 150.0)
"""(sigma in pixels, tolerance, sharpness): lines of a face far away, and of one close by. The
tolerance is a share of the local lightness; below it nothing is a line."""


def comic(image: Picture) -> Picture:
    """Ink and flat colour: smoothing, lightness in steps, vivid colour, black lines.

    ``image`` and the result: uint8, (H, W, 3), BGR, 0 to 255. Made for pictures whose short
    side has 300 to 600 pixels; line widths are in pixels.

    After Winnemöller, Olsen and Gooch, "Real-time video abstraction" (2006): iterated
    bilateral smoothing and soft lightness steps; the lines are a difference of Gaussians
    ("XDoG", Winnemöller, Kyprianidis and Olsen, 2012), smoothed along the edges (Kang, Lee
    and Chui, "Coherent line drawing", 2007).
    """
    lab = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_BGR2Lab)
    passes = [lab]
    for _ in range(SMOOTHING_PASSES):
        passes.append(cv2.bilateralFilter(passes[-1], 9, 6.0, 5.0))
    smooth = passes[-1]
    # Lines come from the lightly smoothed picture: each pass turns soft shading into steps, and
    # lines around those would draw rings on foreheads.
    detailed = cv2.addWeighted(lab[..., 0] / 100, 0.3, passes[1][..., 0] / 100, 0.7, 0.0)
    tone = _steps(_contrast(np.clip(smooth[..., 0] / 100, 0, 1)))
    paper = np.dstack([4 + 96 * tone, _colours(smooth[..., 1:], tone)]).astype(np.float32)
    bgr = np.clip(cv2.cvtColor(paper, cv2.COLOR_Lab2BGR), 0, 1) * _ink(detailed)[..., None]
    return (bgr * 255 + 0.5).astype(np.uint8)


def _contrast(lightness: Plane) -> Plane:
    """Lightness stretched to black and white, then an S curve. 0 to 1 in and out."""
    stretched = np.clip((lightness - BLACK_POINT) / (WHITE_POINT - BLACK_POINT), 0, 1) ** 0.88
    centred = 2 * stretched - 1
    curved: Plane = 0.5 + 0.5 * (1.45 * centred - 0.45 * centred**3)
    return curved.astype(np.float32)


def _steps(lightness: Plane) -> Plane:
    """A staircase with soft risers; black and white are its first and last step."""
    scaled = lightness * (LIGHTNESS_LEVELS - 1)
    below = np.floor(scaled)
    riser = np.tanh(STEP_SHARPNESS * (scaled - below - 0.5)) / np.tanh(STEP_SHARPNESS / 2)
    tone: Plane = np.clip((below + 0.5 + 0.5 * riser) / (LIGHTNESS_LEVELS - 1), 0, 1)
    return tone.astype(np.float32)


def _colours(ab: Plane, tone: Plane) -> Plane:
    """Colours made vivid; greys cleaned, and their shadows tinted blue as printers do.

    ``ab``: (H, W, 2), the colour axes of Lab. ``tone``: (H, W), 0 to 1.
    """
    chroma = np.sqrt((ab**2).sum(axis=-1, keepdims=True)) + 1e-6
    coloured = chroma**2 / (chroma**2 + 5.0**2)
    vivid = 92 * np.tanh(2.3 * chroma * coloured / 92)
    shade = 4 * (1 - tone) * tone
    tint = 18 * np.dstack([0.25 * shade, 0.25 * tone - 1.6 * shade])
    colours: Plane = ab / chroma * vivid + (1 - coloured) * tint
    return colours.astype(np.float32)


def _ink(lightness: Plane) -> Plane:
    """How much light the ink lets through: 0 black, 1 none. ``lightness``: (H, W), 0 to 1."""
    line = np.maximum(_lines(lightness, *FINE_LINES), _lines(lightness, *BOLD_LINES))
    surround = cv2.GaussianBlur(lightness, (0, 0), 2.0)
    black = 0.5 - 0.5 * np.tanh(16 * (surround - 0.10))  # the blacks are filled with ink
    light: Plane = (1 - 0.96 * line) * (1 - 0.9 * black)
    return light.astype(np.float32)


def _lines(lightness: Plane, sigma_px: float, tolerance: float, sharpness: float) -> Plane:
    """Where it is darker than around: 1 a line, 0 none."""
    difference = contours(lightness, sigma_px)
    lines: Plane = 0.5 + 0.5 * np.tanh(sharpness * (-difference - tolerance))
    return lines
