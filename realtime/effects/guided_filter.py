"""The fast guided filter: a small mask becomes a large one, with the edges of the picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError

Plane = NDArray[np.float32]


class GuidedFilter:
    """Refines masks by the picture that they belong to.

    K. He, J. Sun and X. Tang, "Guided Image Filtering" (2013), in the fast variant of K. He and
    J. Sun, "Fast Guided Filter" (2015): in every window the mask is taken for a linear function of
    the picture's brightness, its two coefficients are found in a small picture, averaged over the
    windows, enlarged, and applied to the large one. Where the picture has an edge the mask gets
    one; where it is flat the mask is smoothed over the window.
    """

    def __init__(self, radius_px: int = 2, epsilon: float = 1e-4) -> None:
        """Set the window and what counts as an edge.

        Args:
            radius_px: of the window, in pixels of the small picture.
            epsilon: variance of the brightness (0 to 1) from which on something is an edge.

        Raises:
            SettingsError: one is not more than 0.
        """
        if radius_px < 1 or not epsilon > 0:
            raise SettingsError(
                "the guided filter's radius must be 1 or more and its epsilon more than 0, found"
                f" {radius_px} and {epsilon:g}"
            )
        self._window = (2 * radius_px + 1,) * 2
        self._epsilon = epsilon

    def refine(self, mask: Plane, small: Pixels, large: Pixels) -> Plane:
        """Return the mask at the size of ``large``: float32 (H, W), about 0 to 1, not limited.

        Args:
            mask: float32 (h, w), 0 to 1.
            small: uint8 (h, w, 3) BGR, ``large`` reduced.
            large: uint8 (H, W, 3) BGR.
        """
        slope, offset = self.coefficients(mask, _brightness(small))
        size = large.shape[1], large.shape[0]
        guide = _brightness(large)
        # Twice as fast as numpy, which would allocate a plane for each step.
        cv2.multiply(cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR), guide, dst=guide)
        cv2.add(cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR), guide, dst=guide)
        return guide

    def coefficients(self, mask: Plane, guide: Plane) -> tuple[Plane, Plane]:
        """Return slope and offset of the mask as a function of the guide; all float32 (h, w)."""
        mean, mean_mask = self._mean(guide), self._mean(mask)
        variance = self._mean(guide * guide) - mean * mean
        covariance = self._mean(guide * mask) - mean * mean_mask
        slope = (covariance / (variance + np.float32(self._epsilon))).astype(np.float32, copy=False)
        return self._mean(slope), self._mean(mean_mask - slope * mean)

    def _mean(self, plane: Plane) -> Plane:
        made = cv2.boxFilter(plane, -1, self._window, borderType=cv2.BORDER_REFLECT)
        return made.astype(np.float32, copy=False)


def _brightness(picture: Pixels) -> Plane:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    made: Plane = grey.astype(np.float32)
    made *= np.float32(1 / 255)
    return made
