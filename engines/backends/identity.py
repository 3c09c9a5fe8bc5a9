"""identity: copies the frame. For tests, and to measure what everything but the filter costs."""

from __future__ import annotations

import numpy as np

from engines.base import Engine, Pixels
from engines.model import Size


class IdentityEngine(Engine):
    """Copies; the model and the precision do not matter."""

    name = "identity"

    @classmethod
    def why_not(cls) -> str | None:
        return None

    def fit(self, size: Size) -> Size:
        return size

    def _open(self, size: Size) -> None:
        self.device, self.precision = "CPU", "uint8"
        if self.asked_precision != "auto":
            self.notes.append(f"not {self.asked_precision}: identity copies bytes")

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        np.copyto(frame_out, frame_in)

    def _collect(self, frame_out: Pixels) -> None:
        """Submit has copied already."""

    def _close(self) -> None:
        """Nothing is held."""
