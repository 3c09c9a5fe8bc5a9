"""The pencil: graphite lines, hatched shadows, warm paper."""

from typing import Final

import cv2
import numpy as np

from tools.train.teachers.edges import Picture, Plane, contours

PAPER_BGR: Final = (229, 241, 247)
GRAPHITE_BGR: Final = (52, 46, 44)
SMOOTHING_PASSES: Final = 2
FINE_LINES: Final = (0.9, 0.005, 36.0, 0.85)
BOLD_LINES: Final = (1.9, 0.014, 20.0, 0.90)
"""(sigma in pixels, tolerance, pressure, darkness): the sharp point and the side of the pencil.
Softer than ink: a faint contour becomes a light stroke, not none and not a black one."""
LINE_REACH_PX: Final = 6
WHITE_POINT: Final = 0.72  # of the lightness: walls of an ordinary room are left to the paper
BLACK_POINT: Final = 0.10
DARKNESS_CURVE: Final = 1.25  # above 1: dim rooms and dark skin keep their middle tones
STROKE_SIGMA_PX: Final = 5.0
STROKE_WIDTH_PX: Final = 0.6
STROKE_ANGLE_DEGREES: Final = 45.0
HATCH_PERIOD_PX: Final = 4
"""The networks have no coordinates but their 4 x 4 pixel cells: only a pattern that repeats
with the cell can be learned, and only from crops that start at a multiple of it."""
LAYERS: Final = ((0.27, 0.36, 0.0), (0.55, 0.42, 0.0), (0.80, 0.40, 0.5))
"""(how dark it must be there, how dark the layer is, its share of crossing strokes)."""
LAYER_SHARPNESS: Final = 6.0


def pencil(image: Picture) -> Picture:
    """A graphite drawing: dark contours, shadows hatched on the diagonal, white paper.

    ``image`` and the result: uint8, (H, W, 3), BGR, 0 to 255. Made for pictures whose short
    side has 300 to 600 pixels; widths of lines and strokes are in pixels.

    The contours are coherent differences of Gaussians (Kang, Lee and Chui, "Coherent line
    drawing", 2007; "XDoG", Winnemöller, Kyprianidis and Olsen, 2012). The shading is detail
    smeared along the stroke, as by line integral convolution (Cabral and Leedom, 1993; Mao,
    Nagasaka and Imamiya, "Automatic generation of pencil drawing", 2001), under layers of
    hatching that begin one after the other as it gets darker (after Praun, Hoppe, Webb and
    Finkelstein, "Real-time hatching", 2001).
    """
    lightness = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_BGR2Lab)[..., 0]
    lightness = lightness / np.float32(100)
    smooth = lightness
    for _ in range(SMOOTHING_PASSES):
        smooth = cv2.bilateralFilter(smooth, 7, 0.06, 4.0).astype(np.float32, copy=False)
    contour_light = _contours(cv2.addWeighted(lightness, 0.4, smooth, 0.6, 0.0))
    light = (contour_light * _hatching(_darkness(lightness, smooth)))[..., None]
    paper, graphite = np.array(PAPER_BGR, np.float32), np.array(GRAPHITE_BGR, np.float32)
    drawing: Picture = (graphite + (paper - graphite) * light + 0.5).astype(np.uint8)
    return drawing


def _contours(lightness: Plane) -> Plane:
    """How much paper the contours leave: 1 all of it, 0 none."""
    light: Plane = np.ones_like(lightness)
    for sigma_px, tolerance, pressure, darkness in (FINE_LINES, BOLD_LINES):
        darker = -contours(lightness, sigma_px, LINE_REACH_PX) - tolerance
        light *= 1 - darkness * np.tanh(pressure * np.maximum(darker, 0))
    return light


def _darkness(lightness: Plane, smooth: Plane) -> Plane:
    """How dark to shade, 0 to 1: what is there, and its detail drawn out into strokes."""
    stroke = _stroke()
    drawn = cv2.filter2D(smooth, cv2.CV_32F, stroke, borderType=cv2.BORDER_REPLICATE)
    detail = cv2.GaussianBlur(lightness, (0, 0), 0.8) - cv2.GaussianBlur(lightness, (0, 0), 2.5)
    streaks = cv2.filter2D(detail, cv2.CV_32F, stroke, borderType=cv2.BORDER_REPLICATE)
    relief = smooth - cv2.GaussianBlur(smooth, (0, 0), 6.0)
    # Hollows are shaded more than ridges are lit: those would glow around everything dark.
    modelling = 0.15 * relief + 0.2 * np.minimum(relief, 0)
    tone = 0.6 * smooth + 0.4 * drawn + 3.5 * streaks + modelling
    shade = np.clip((WHITE_POINT - tone) / (WHITE_POINT - BLACK_POINT), 0, 1)
    darkness: Plane = shade.astype(np.float32) ** np.float32(DARKNESS_CURVE)
    return darkness


def _hatching(darkness: Plane) -> Plane:
    """How much paper the shading leaves, 1 to 0: smudged graphite under layers of strokes."""
    rows, columns = np.indices(darkness.shape)
    turn = 2 * np.pi / HATCH_PERIOD_PX
    up = 0.5 + 0.5 * np.cos(turn * (rows + columns))
    down = 0.5 + 0.5 * np.cos(turn * (rows - columns))
    light: Plane = np.ones_like(darkness)
    light -= 0.72 * darkness**2.2
    for threshold, depth, crossing in LAYERS:
        amount = 0.5 + 0.5 * np.tanh(LAYER_SHARPNESS * (darkness - threshold))
        light *= 1 - depth * amount * (up + crossing * down)
    return light


def _stroke() -> Plane:
    """Weights of a short diagonal line, which sum to 1. (N, N)."""
    reach = round(2.2 * STROKE_SIGMA_PX)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    angle = np.deg2rad(STROKE_ANGLE_DEGREES)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    across = columns * np.sin(angle) + rows * np.cos(angle)
    weights = np.exp(-0.5 * ((along / STROKE_SIGMA_PX) ** 2 + (across / STROKE_WIDTH_PX) ** 2))
    return np.asarray(weights / weights.sum(), np.float32)
