"""The effects of a run, as the engine's thread drives them."""

from __future__ import annotations

import time

import numpy as np

from engines import Pixels
from realtime.effects.base import Context
from realtime.effects.chain import Chain
from realtime.frame import Frame
from realtime.stats import Stats


class Effects:
    """A chain with its context: takes translated frames, gives finished ones.

    Thread: `apply` in the engine's, the rest in the pipeline's.
    """

    def __init__(self, chain: Chain, context: Context, stats: Stats) -> None:
        """Load everything, for frames of ``context.size``.

        Raises:
            Pix2liveError: an effect cannot be prepared; all are closed again.
        """
        self.chain = chain
        self.context = context
        self._stats = stats
        self._frame = Frame(np.empty((0, 0, 3), np.uint8))
        chain.prepare(context.size, context)

    def apply(self, result: Frame, source: Frame, alpha: Pixels | None = None) -> Frame | None:
        """Return the finished frame, valid until the next call; None when it is too old now.

        ``result.pixels`` may be changed, ``source.pixels`` is not; nor is ``alpha``, the
        engine's of this frame.

        Raises:
            EffectError: an effect failed, and the run is to stop then.
        """
        frame, context = self._frame, self.context
        captured = source.pixels.view()
        captured.flags.writeable = False  # it may be shown beside the result
        frame.pixels, frame.source = result.pixels, captured
        frame.stamp(source)
        context.age_ms = frame.age_ns(time.monotonic_ns()) / 1e6
        context.alpha = alpha
        recent = self._stats.engine_out.recent()
        context.shown_fps = recent[0] if recent else None
        return frame if self.chain.apply(frame, context) else None

    def close(self) -> None:
        """Free everything."""
        self.chain.close()
