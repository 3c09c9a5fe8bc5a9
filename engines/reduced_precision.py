"""Whether `auto` may take a reduced precision: where it was proven, or is measured now.

What nobody has compared with f32 runs in f32: a person may still ask for the other by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from engines.base import Pixels
from engines.model import Card, Size

HALF: Final = "f16"
"""Under this key a card has how far FP16 is from f32, as `pix2live convert` measured it."""
MEASURED_SIDE_PX: Final = 256
"""Where the device itself cannot measure, a larger picture takes long and tells no more."""


def made_picture(size: Size) -> Pixels:
    """Return a picture of ``size`` (width, height) to measure with: a ramp with grain.

    uint8 (H, W, 3) BGR, the same each time. A flat one would prove nothing.
    """
    width, height = size
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.array([1.0, 0.7, 0.4])
    grain = rng.normal(0, 20, (height, width, 3))
    picture: Pixels = np.clip(ramp + grain, 0, 255).astype(np.uint8)
    return picture


def measured_size(size: Size, fit: Callable[[Size], Size]) -> Size:
    """Return the size (width, height) to measure at on a processor, for frames of ``size``."""
    width, height = size
    return fit((min(width, MEASURED_SIDE_PX), min(height, MEASURED_SIDE_PX)))


def proven_db(card: Card, key: str) -> float | None:
    """Return the PSNR in dB that ``card`` has under ``key``; None when it has none."""
    return card.proofs.get(key, {}).get("psnr_db")


def judged(fast: str, psnr_db: float, enough_db: float, where: str) -> tuple[str, str]:
    """Return the precision to take, ``fast`` or ``f32``, and a note that says why.

    Args:
        fast: the reduced precision.
        psnr_db: how close it is; what is no number is not close.
        enough_db: how close it has to be.
        where: from what, and who says so: ``from f32 (measured now)``.
    """
    if psnr_db >= enough_db:
        return fast, f"{fast}: {psnr_db:.1f} dB {where}"
    return "f32", slower(f"{fast} is only {psnr_db:.1f} dB {where}, {enough_db:.0f} are needed")


def slower(reason: str) -> str:
    """Return the note of a backend that takes f32 although it has a faster precision."""
    return f"f32, the slower way: {reason}"
