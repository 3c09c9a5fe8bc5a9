"""What the teachers share: types, smoothing along edges, lines as a difference of Gaussians.

Planes are float32, (H, W), 0 to 1 where they are a lightness.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Plane = NDArray[Any]  # float32 throughout; numpy's own types are too coarse to say so


def contours(lightness: Plane, sigma_px: float, reach_px: int = 4) -> Plane:
    """How much lighter than around, as a share of the light there; dark lines are negative.

    ``lightness`` and the result: float32, (H, W). A difference of Gaussians averaged along the
    edges for ``reach_px`` to both sides ("XDoG", Winnemöller, Kyprianidis and Olsen, 2012;
    Kang, Lee and Chui, "Coherent line drawing", 2007).
    """
    near = cv2.GaussianBlur(lightness, (0, 0), sigma_px)
    far = cv2.GaussianBlur(lightness, (0, 0), 1.6 * sigma_px)
    # Divided by the local lightness: a line in the shade counts as much as one in the light.
    return along_edges((near - far) / (0.2 + far), lightness, reach_px)


def along_edges(values: Plane, lightness: Plane, reach_px: int = 4) -> Plane:
    """``values`` averaged along the edges of ``lightness``, so that lines are unbroken.

    All three float32, (H, W). The direction of an edge is that of the structure tensor
    (Kyprianidis and Kang, "Image and video abstraction by coherence-enhancing filtering", 2011).
    """
    dx = cv2.Scharr(lightness, cv2.CV_32F, 1, 0) / 16
    dy = cv2.Scharr(lightness, cv2.CV_32F, 0, 1) / 16
    xx, xy, yy = (cv2.GaussianBlur(p, (0, 0), 2.0) for p in (dx * dx, dx * dy, dy * dy))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    tangent_x, tangent_y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    rows, columns = np.indices(lightness.shape, dtype=np.float32)
    total, weights = values.copy(), 1.0
    for sign in (1, -1):
        x, y, step_x, step_y = columns, rows, sign * tangent_x, sign * tangent_y
        for distance in range(1, reach_px + 1):
            x, y = x + step_x, y + step_y
            next_x, next_y = _sample(tangent_x, x, y), _sample(tangent_y, x, y)
            # A tangent has no sign: keep walking the way we came.
            onward = np.where(next_x * step_x + next_y * step_y < 0, -1, 1).astype(np.float32)
            step_x, step_y = next_x * onward, next_y * onward
            weight = float(np.exp(-0.5 * (distance / 2.5) ** 2))
            total, weights = total + weight * _sample(values, x, y), weights + weight
    return (total / weights).astype(np.float32)


def _sample(plane: Plane, x: Plane, y: Plane) -> Plane:
    sampled = cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.astype(np.float32, copy=False)
