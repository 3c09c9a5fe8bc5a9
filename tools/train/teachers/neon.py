"""The neon sign: glowing tubes along every edge, in the dark."""

from typing import Final

import cv2
import numpy as np

from tools.train.teachers.edges import Picture, Plane, contours

SMOOTHING_PASSES: Final = 2
FINE_TUBES: Final = (1.0, 0.005, 34.0, 0.8)
BOLD_TUBES: Final = (2.2, 0.018, 18.0, 1.0)
"""(sigma in pixels, tolerance, sharpness, brightness): contours of a face, and of what is near."""
TUBE_REACH_PX: Final = 6
GLOWS: Final = ((2.5, 0.75), (7.0, 0.85))
"""(sigma in pixels, strength): the haze about a tube, and its light on the wall."""
ALONG_BGR: Final = (1.00, 0.22, 0.62)  # violet, where an edge runs level
ACROSS_BGR: Final = (1.00, 0.78, 0.05)  # cyan, where it stands upright
WARM_BGR: Final = (0.42, 0.20, 1.00)  # pink: skin, wood, lamps
NIGHT_BGR: Final = (0.42, 0.13, 0.20)  # what no tube lights: indigo
DUSK_BGR: Final = (0.40, 0.16, 0.62)  # the same where it is warm: faces are plum
NIGHT_LIGHT: Final = 0.5
WARM_CHROMA: Final = 9.0  # of Lab: below it, a colour is that of a wall


def neon(image: Picture) -> Picture:
    """Glowing contours in cyan, violet and pink over an indigo night.

    ``image`` and the result: uint8, (H, W, 3), BGR, 0 to 255. Made for pictures whose short
    side has 300 to 600 pixels; widths of tubes and glow are in pixels.

    The tubes are coherent differences of Gaussians (Kang, Lee and Chui, "Coherent line drawing",
    2007; "XDoG", Winnemöller, Kyprianidis and Olsen, 2012). Their colour tells the direction of
    the edge, by the structure tensor, and whether the picture is warm there. Light adds up and
    saturates as on film.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_BGR2Lab)
    for _ in range(SMOOTHING_PASSES):
        lab = cv2.bilateralFilter(lab, 7, 6.0, 3.0).astype(np.float32, copy=False)
    light = lab[..., 0] / np.float32(100)
    tubes = _tubes(light)[..., None]
    warm = _warmth(lab)
    colour = warm * np.array(WARM_BGR, np.float32) + (1 - warm) * _direction(light)
    glow: Plane = tubes * colour
    for sigma_px, strength in GLOWS:
        # The blur makes a thin line faint; what it loses is given back.
        faint = cv2.GaussianBlur(tubes * colour, (0, 0), sigma_px)
        glow = glow + strength * sigma_px / 2 * faint
    night = warm * np.array(DUSK_BGR, np.float32) + (1 - warm) * np.array(NIGHT_BGR, np.float32)
    shade = NIGHT_LIGHT * light[..., None] ** np.float32(1.3) * night
    core = 0.75 * np.clip(tubes - 0.35, 0, 1)  # the gas itself is nearly white
    sign = 1 - np.exp(-1.5 * (shade + glow + core))
    made: Picture = (np.clip(sign, 0, 1) * 255 + 0.5).astype(np.uint8)
    return made


def _tubes(light: Plane) -> Plane:
    """How bright the gas is: 0 none, 1 a tube. ``light``: (H, W), 0 to 1."""
    tubes = np.zeros_like(light)
    for sigma_px, tolerance, sharpness, brightness in (FINE_TUBES, BOLD_TUBES):
        darker = -contours(light, sigma_px, TUBE_REACH_PX) - tolerance
        tubes = np.maximum(tubes, brightness * np.tanh(sharpness * np.maximum(darker, 0)))
    return np.asarray(tubes, np.float32)


def _direction(light: Plane) -> Plane:
    """The colour of a tube by the direction of the edge: (H, W, 3) BGR, 0 to 1."""
    dx = cv2.Scharr(light, cv2.CV_32F, 1, 0) / 16
    dy = cv2.Scharr(light, cv2.CV_32F, 0, 1) / 16
    xx, yy = (cv2.GaussianBlur(plane, (0, 0), 3.0) for plane in (dx * dx, dy * dy))
    upright = (xx / (xx + yy + 1e-6))[..., None]
    cold = upright * np.array(ACROSS_BGR) + (1 - upright) * np.array(ALONG_BGR)
    return np.asarray(cold, np.float32)


def _warmth(lab: Plane) -> Plane:
    """Where the picture is red to yellow: (H, W, 1), 0 to 1. ``lab``: (H, W, 3)."""
    red, yellow = (cv2.GaussianBlur(lab[..., axis], (0, 0), 3.0) for axis in (1, 2))
    warm = 0.5 + 0.5 * np.tanh((0.8 * red + 0.6 * yellow - WARM_CHROMA) / 4.0)
    return np.asarray(warm[..., None], np.float32)
