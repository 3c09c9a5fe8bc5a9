"""The watercolour: pale transparent washes with darkened rims, on white paper."""

from typing import Final

import cv2
import numpy as np

from tools.train.teachers.edges import Picture, Plane, along_edges, contours

PAPER_BGR: Final = (240, 248, 251)
SMOOTHING_RADII_PX: Final = (7, 7, 4)
SECTORS: Final = 8
SECTOR_WIDTH: Final = 0.6  # standard deviation, in sectors: they overlap, so nothing jumps
SELECTIVITY: Final = 4.5  # the evenest sector wins softly; higher is harder
CAMERA_NOISE: Final = 0.012  # of the range: sectors less uneven than that count the same
WHITE: Final = 0.74  # walls of an ordinary room are left to the paper
BLACK: Final = 0.03
GREY_ABSORBED_BGR: Final = (0.60, 0.90, 1.10)  # shadows are painted in a bluish grey
LINE_ABSORBED_BGR: Final = (0.75, 0.60, 0.50)  # the underdrawing is sepia
GLAZES: Final = ((0.2, 0.16), (0.55, 0.20), (1.1, 0.26), (1.9, 0.30))
"""(absorbance where it begins, its own): thin coats of paint, one over the other."""
GLAZE_SHARPNESS: Final = 3.0
DEEPEST: Final = 1.6  # absorbance; watercolour has no black


def watercolour(image: Picture) -> Picture:
    """Pale washes over a faint drawing: white lights, coloured shadows, rims where paint dried.

    ``image`` and the result: uint8, (H, W, 3), BGR, 0 to 255. Made for pictures whose short
    side has 300 to 600 pixels; washes and rims are in pixels.

    The picture is simplified by the generalised Kuwahara filter (Papari, Petkov and Campisi,
    "Artistic edge and corner enhancing smoothing", 2007). Paint is reckoned in absorbance, so
    coats multiply as transparent ones do; its density varies as in Bousseau, Kaplan, Thollot
    and Sillion, "Interactive watercolor rendering with temporal coherence and abstraction"
    (2006): darkened rims, pooled paint, grain. Their paper texture is left out, for it is not
    in the picture and so cannot be learned from it.
    """
    clean = cv2.bilateralFilter(image.astype(np.float32) / np.float32(255), 5, 0.08, 2.0)
    wash: Plane = clean
    for radius_px in SMOOTHING_RADII_PX:
        wash = _simplified(wash, radius_px)
    detail, light = (cv2.cvtColor(plane, cv2.COLOR_BGR2GRAY) for plane in (clean, wash))
    density = 1 + _rims(_absorbed(light / WHITE)) + _pooling(light) + _grain(detail)
    paint = _paint(_absorbed(wash)) * np.clip(density, 0, 3)[..., None]
    paint += _drawing(detail)[..., None] * np.array(LINE_ABSORBED_BGR, np.float32)
    deepest = paint.max(axis=-1, keepdims=True) + np.float32(1e-6)
    paint *= DEEPEST * np.tanh(0.85 * deepest / DEEPEST) / deepest
    paper = np.array(PAPER_BGR, np.float32)
    painting: Picture = (np.exp(-paint) * paper + 0.5).astype(np.uint8)
    return painting


def _simplified(values: Plane, radius_px: int) -> Plane:
    """Each pixel becomes the mean of the evenest sectors around it. (H, W, 3) in and out."""
    total = np.zeros_like(values)
    weights = np.zeros((*values.shape[:2], 1), np.float32)
    squares = values * values
    for sector in _sectors(radius_px):
        mean, square = (
            cv2.filter2D(plane, cv2.CV_32F, sector, borderType=cv2.BORDER_REPLICATE)
            for plane in (values, squares)
        )
        variance = np.maximum(square - mean * mean, 0).sum(axis=-1, keepdims=True)
        weight = (variance + CAMERA_NOISE**2) ** (-SELECTIVITY / 2)
        total += weight * mean
        weights += weight
    return np.asarray(total / weights, np.float32)


def _sectors(radius_px: int) -> list[Plane]:
    """Weights of the sectors of a disc, (N, N) each, which sum to 1."""
    rows, columns = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    disc = np.exp(-2 * (rows**2 + columns**2) / radius_px**2)
    width = 2 * np.pi / SECTORS
    sectors = []
    for number in range(SECTORS):
        turned = np.arctan2(rows, columns) - number * width
        aside = np.abs((turned + np.pi) % (2 * np.pi) - np.pi) / width
        share = np.exp(-0.5 * (aside / SECTOR_WIDTH) ** 2)
        share[radius_px, radius_px] = 0.6  # the centre has no direction and is in all of them
        sectors.append((disc * share / (disc * share).sum()).astype(np.float32))
    return sectors


def _absorbed(values: Plane) -> Plane:
    """The absorbance: how much paint makes white paper look like that. 0 is none."""
    absorbed: Plane = -np.log(np.clip(values, BLACK, None))
    return absorbed


def _paint(absorbed: Plane) -> Plane:
    """Bluish grey and pure colour that make up a picture. (H, W, 3) in and out, absorbance."""
    least = absorbed.min(axis=-1, keepdims=True)
    colour = absorbed - least
    # Half of the colour runs a little way out of its outlines.
    colour = 0.5 * colour + 0.5 * cv2.GaussianBlur(colour, (0, 0), 4.0)
    strongest = colour.max(axis=-1, keepdims=True) + np.float32(1e-6)
    coloured = strongest**2 / (strongest**2 + 0.11**2)  # the tint of a white wall is cleaned away
    colour *= coloured * 1.5 * np.tanh(1.5 * strongest / 1.5) / strongest
    grey = _glazed(np.maximum(least + np.log(WHITE), 0)) * (1 - 0.35 * np.tanh(strongest))
    return np.asarray(colour + grey * np.array(GREY_ABSORBED_BGR), np.float32)


def _glaze(darkness: Plane, beginning: float) -> Plane:
    """Where one coat of paint lies, 0 to 1. Softer in the dark, where noise absorbs more."""
    away = (darkness - beginning) / (0.3 + beginning)
    coat: Plane = 0.5 + 0.5 * np.tanh(GLAZE_SHARPNESS * away)
    return coat


def _glazed(grey: Plane) -> Plane:
    """Tones in soft steps, as coats of paint make them. Absorbance in and out, 0 stays 0."""
    none = np.zeros(1, np.float32)
    density: Plane = 0.12 * grey
    for beginning, depth in GLAZES:
        density = density + depth * (_glaze(grey, beginning) - _glaze(none, beginning))
    return density


def _rims(darkness: Plane) -> Plane:
    """More paint inside the edge of each coat, and none just outside it."""
    rims: Plane = np.zeros_like(darkness)
    for beginning, _ in GLAZES:
        coat = _glaze(darkness, beginning)
        rims = rims + np.tanh(2 * (coat - cv2.GaussianBlur(coat, (0, 0), 3.0)))
    rims = along_edges(rims, darkness, 5)
    return np.where(rims > 0, 0.8, 1.0).astype(np.float32) * rims


def _pooling(light: Plane) -> Plane:
    """Paint gathers towards the edges of a wash and thins out in its middle."""
    broad = cv2.GaussianBlur(light, (0, 0), 2.0) - cv2.GaussianBlur(light, (0, 0), 5.0)
    pooled: Plane = -0.85 * np.tanh(3 * broad / (0.3 + light))
    return pooled


def _grain(detail: Plane) -> Plane:
    """Pigment settles in what texture the picture has."""
    fine = cv2.GaussianBlur(detail, (0, 0), 0.8) - cv2.GaussianBlur(detail, (0, 0), 3.0)
    settled: Plane = -0.4 * np.tanh(6 * fine / (0.2 + detail))
    return settled


def _drawing(detail: Plane) -> Plane:
    """The thin lines that were there before the paint: 1 a line, 0 none."""
    darker = -contours(detail, 0.8, 5) - 0.006
    drawing: Plane = np.tanh(32 * np.maximum(darker, 0))
    return drawing
