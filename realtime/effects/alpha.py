"""A mask by the filter itself: where its own alpha says that it shows."""

from __future__ import annotations

from engines import EffectError, Pixels
from realtime.effects.base import Context
from realtime.effects.mask import Mask, mask_words
from realtime.effects.words import Words
from realtime.frame import Frame


class AlphaMask(Mask):
    """Shows the translation where the running filter's alpha says so; with ``invert``, elsewhere.

    For frame models with the output ``alpha`` (`engines.FrameModel.has_alpha`): the mask is the
    one of this very frame, as soft as the filter made it.

    Args:
        feather_px: how wide the soft edge is, besides.
        invert: show the translation where the filter says that it is not.
    """

    name = "alpha"
    latency_ms = 0.3

    def __init__(self, *, feather_px: float = 0.0, invert: bool = False) -> None:
        super().__init__(feather_px=feather_px, invert=invert)

    @classmethod
    def from_words(cls, words: str) -> AlphaMask:
        """``feather=PX`` and ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken, 0.0)
        taken.done()
        return cls(**look)

    def find(self, frame: Frame, context: Context) -> Pixels:
        """Return the frame's alpha.

        Raises:
            EffectError: the filter that made this frame has none.
        """
        if context.alpha is None:
            raise EffectError(
                f"alpha: the filter {context.label} does not say where it shows: it needs a model"
                " with the output 'alpha'"
            )
        return context.alpha[..., 0]
