"""Picture metrics: how far a picture is from the right one. uint8 (H, W, 3), BGR, 0 to 255."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError
from engines.proof import HIGHEST_PSNR_DB

SSIM_WINDOW_PX: Final = 11
SSIM_SIGMA_PX: Final = 1.5
SSIM_C1: Final = (0.01 * 255) ** 2
SSIM_C2: Final = (0.03 * 255) ** 2
LUMA_OF_BGR: Final = (0.114, 0.587, 0.299)
"""BT.601, not rounded."""


def l1(found: Pixels, right: Pixels) -> float:
    """Return the mean absolute difference over all pixels and colours, of 255.

    Raises:
        SettingsError: the pictures differ in size.
    """
    return float(np.abs(_difference(found, right)).mean())


def psnr_db(found: Pixels, right: Pixels) -> float:
    """Return the peak signal-to-noise ratio, 10 log10(255^2 / mean squared difference).

    The mean is over all pixels and colours. Equal pictures have no finite ratio: 99 stands for it.

    Raises:
        SettingsError: the pictures differ in size.
    """
    squared = float(np.square(_difference(found, right)).mean())
    if squared == 0:
        return HIGHEST_PSNR_DB
    return min(HIGHEST_PSNR_DB, float(10 * np.log10(255**2 / squared)))


def ssim(found: Pixels, right: Pixels) -> float:
    """Return the mean structural similarity of the luma: 1 for equal pictures, at most 1.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity" (2004): Gaussian window of 11 x 11 pixels, sigma 1.5, K1 = 0.01,
    K2 = 0.03, only where the whole window lies in the picture.

    Raises:
        SettingsError: the pictures differ in size, or are smaller than the window.
    """
    _check(found, right)
    height, width = right.shape[:2]
    if min(height, width) < SSIM_WINDOW_PX:
        raise SettingsError(
            f"SSIM needs pictures of {SSIM_WINDOW_PX}x{SSIM_WINDOW_PX} or more,"
            f" found {width}x{height}"
        )
    one, other = _luma(found), _luma(right)
    mean_one, mean_other = _windowed(one), _windowed(other)
    variance_one = _windowed(one * one) - mean_one**2
    variance_other = _windowed(other * other) - mean_other**2
    covariance = _windowed(one * other) - mean_one * mean_other
    likeness = (2 * mean_one * mean_other + SSIM_C1) * (2 * covariance + SSIM_C2)
    scale = (mean_one**2 + mean_other**2 + SSIM_C1) * (variance_one + variance_other + SSIM_C2)
    return float(np.mean(likeness / scale))


def _luma(picture: Pixels) -> NDArray[np.float64]:
    grey: NDArray[np.float64] = picture.astype(np.float64) @ np.array(LUMA_OF_BGR)
    return grey


def _windowed(values: NDArray[np.float64]) -> NDArray[Any]:
    """Weighted means of the windows that lie in the picture."""
    window = (SSIM_WINDOW_PX, SSIM_WINDOW_PX)
    half = SSIM_WINDOW_PX // 2
    return cv2.GaussianBlur(values, window, SSIM_SIGMA_PX)[half:-half, half:-half]


def _difference(found: Pixels, right: Pixels) -> NDArray[np.float64]:
    _check(found, right)
    return found.astype(np.float64) - right


def _check(found: Pixels, right: Pixels) -> None:
    if found.shape != right.shape:
        sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (found, right)]
        raise SettingsError(f"two pictures of one size are compared, found {' and '.join(sizes)}")
