"""What the tests of masks share: pictures of noise, and one frame through one effect."""

from __future__ import annotations

import numpy as np

from engines import Pixels
from realtime import Frame
from realtime.effects import Context, Effect, open_effect

SIZE = (128, 96)
BLANK = np.zeros((96, 128), np.uint8)


def noise(seed: int, shape: tuple[int, ...] = (96, 128, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def run(item: Effect, source: Pixels, translated: Pixels, pts_ms: float = 0.0) -> Pixels:
    """Run one prepared effect on a frame, whose source is read-only as in the pipeline."""
    source = source.copy()
    source.flags.writeable = False
    frame = Frame(translated.copy(), source, pts_ns=round(pts_ms * 1e6))
    return item.process(frame, CONTEXT).copy()


CONTEXT = Context(size=SIZE)


def prepared(spec: Effect | str) -> Effect:
    item = open_effect(spec)
    item.prepare(SIZE, CONTEXT)
    return item
