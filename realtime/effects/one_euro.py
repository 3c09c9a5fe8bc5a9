"""One Euro filter: steady at rest, hardly late in motion (Casiez, Roussel and Vogel, 2012)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engines import SettingsError

Floats = NDArray[np.float64]


class OneEuro:
    """A low-pass filter whose cutoff rises with the speed of what it filters.

    "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems"
    (Casiez, Roussel and Vogel, CHI 2012), for points: the speed that counts is a point's, not a
    coordinate's, so that smoothing does not depend on the direction. At a steady speed a point is
    behind by at most ``1 / (2 pi beta)`` units.

    Args:
        min_cutoff_hz: cutoff at rest; less is steadier.
        beta: how much the cutoff rises with the speed, Hz for one unit a second; more is less late.
        derivative_cutoff_hz: of the filter that the speed itself goes through.

    Raises:
        SettingsError: a cutoff is not positive, or beta negative.
    """

    def __init__(
        self, min_cutoff_hz: float = 1.0, beta: float = 0.0, derivative_cutoff_hz: float = 1.0
    ) -> None:
        # "not >" refuses NaN too.
        if not min_cutoff_hz > 0 or not derivative_cutoff_hz > 0 or not beta >= 0:
            raise SettingsError(
                "a One Euro filter takes cutoffs above 0 Hz and a beta of 0 or more, found"
                f" {min_cutoff_hz:g}, {derivative_cutoff_hz:g} and {beta:g}"
            )
        self.min_cutoff_hz = min_cutoff_hz
        self.beta = beta
        self.derivative_cutoff_hz = derivative_cutoff_hz
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next value is taken as it is."""
        self._value: Floats | None = None
        self._speed: Floats | None = None
        self._time_s = 0.0

    def __call__(self, value: Floats, time_s: float) -> Floats:
        """Return the filtered value.

        Args:
            value: float (..., D), points of D coordinates; the same shape each time.
            time_s: when it was measured. A time that does not go forward changes nothing and
                returns the last result.
        """
        if self._value is None or self._speed is None:
            self._value, self._time_s = np.array(value, np.float64), time_s
            self._speed = np.zeros_like(self._value)
            return self._value.copy()
        step_s = time_s - self._time_s
        if step_s > 0:
            # The paper's own code: the speed against the last filtered value.
            speed = (value - self._value) / step_s
            self._speed += _share(self.derivative_cutoff_hz, step_s) * (speed - self._speed)
            pace = np.linalg.norm(self._speed, axis=-1, keepdims=True)
            share = _share(self.min_cutoff_hz + self.beta * pace, step_s)
            self._value += share * (value - self._value)
            self._time_s = time_s
        return self._value.copy()


def _share(cutoff_hz: float | Floats, step_s: float) -> float | Floats:
    """Return the weight of a new value in exponential smoothing with this cutoff."""
    lag_s = 1 / (2 * math.pi * cutoff_hz)
    return 1 / (1 + lag_s / step_s)
