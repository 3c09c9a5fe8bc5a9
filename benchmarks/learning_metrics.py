"""What `benchmarks.learning` measures, without the code that it measures.

Pictures are uint8 (H, W, 3), BGR.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.learning_sets import Picture

if TYPE_CHECKING:
    from torch import Tensor

STYLE_LAYERS: Final = ("relu1_2", "relu2_2", "relu3_1")
SIZES: Final = (1, 2)
COLOURED: Final = 80
"""How much the strongest and the weakest channel of a coloured pixel differ, of 255."""


def psnr(found: Iterable[Picture], wanted: Sequence[Picture]) -> float:
    """Mean PSNR of pictures and what they should be, in dB."""
    return float(np.mean([cv2.PSNR(*both) for both in zip(found, wanted, strict=True)]))


def energy(pictures: Iterable[Picture], masks: Sequence[NDArray[np.bool_]]) -> float:
    """Mean squared difference of neighbours, of all pixels of the masks."""
    total, count = 0.0, 0
    for picture, mask in zip(pictures, masks, strict=True):
        grey = picture.mean(2)
        for axis, inside in ((0, mask[1:]), (1, mask[:, 1:])):
            total += float(np.square(np.diff(grey, axis=axis))[inside].sum())
            count += int(inside.sum())
    return total / count


def right_colours(found: Iterable[Picture], wanted: Sequence[Picture]) -> float:
    """Share of the pixels that are blue, green or red in the target and here too."""
    right = []
    for made, target in zip(found, wanted, strict=True):
        coloured = np.ptp(target.astype(int), axis=2) > COLOURED
        right.append((made.argmax(2) == target.argmax(2))[coloured])
    return float(np.concatenate(right).mean())


class StyleDistance:
    """Mean of |G - A|^2 / |A|^2 over pictures and layers, of Gram matrices (Gatys et al., 2016).

    At two sizes, as the recipe holds the style: pictures beside the painting at ``side_px``, and
    halves of them beside its half.
    """

    def __init__(self, features: Path, painting: Picture, side_px: int) -> None:
        from tools.train.features import load_features

        self._net = load_features(features)
        self._wanted = [self._grams(_sized(painting, side_px // part)) for part in SIZES]

    def __call__(self, pictures: Iterable[Picture]) -> float:
        """Return how far the pictures are from the painting; 0: the same style."""
        apart = []
        for picture in pictures:
            for part, wanted in zip(SIZES, self._wanted, strict=True):
                found = self._grams(_sized(picture, len(picture) // part))
                apart += [
                    float((gram - target).square().sum() / target.square().sum())
                    for gram, target in zip(found, wanted, strict=True)
                ]
        return float(np.mean(apart))

    def _grams(self, picture: Picture) -> list[Tensor]:
        import torch

        rgb = torch.from_numpy(picture[..., ::-1].astype(np.float32) / 255)
        with torch.inference_mode():
            maps = dict(zip(self._net.layers, self._net(rgb.permute(2, 0, 1)[None])))
        rows = [maps[layer][0].flatten(1) for layer in STYLE_LAYERS]
        return [values @ values.T / values.shape[1] for values in rows]


def _sized(picture: Picture, side_px: int) -> Picture:
    """A square picture at another size."""
    sized = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return sized.astype(np.uint8, copy=False)
