"""A filter in its engine, for pictures of every size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines import FrameModel, Pixels, open_engine
from tools.evaluation.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self


class Translator:
    """An engine that is opened for whatever size comes."""

    def __init__(self, model: FrameModel, settings: Settings) -> None:
        self.engine = open_engine(model, backend=settings.backend, precision=settings.precision)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def __call__(self, picture: Pixels) -> Pixels:
        """Return the translation of a picture (H, W, 3) of a size that the model takes."""
        size = (picture.shape[1], picture.shape[0])
        if self.engine.size != size:
            self.engine.close()
            self.engine.open(size)
        return self.engine.infer(picture)

    def reset(self) -> None:
        """Forget earlier pictures."""
        if self.engine.size is not None:
            self.engine.reset()
