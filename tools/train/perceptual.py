"""Style, content and smoothness of pictures, as losses.

Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution"
(2016), after Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks"
(2016). Style and content are relative to what they are compared with, so that the same weights fit
any feature net and any painting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor

EPSILON: Final = 1e-8


class _Gram(torch.autograd.Function):
    """x -> x' x / rows for each of a batch. Its own gradient is one product, not two and a sum."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.save_for_backward(rows)
        return torch.bmm(rows.transpose(1, 2), rows).float() / rows.shape[1]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (rows,) = context.saved_tensors
        both = (gradient + gradient.transpose(1, 2)) / rows.shape[1]
        return torch.bmm(rows, both.to(rows.dtype))


def gram(maps: Tensor) -> Tensor:
    """Return how the channels of maps (N, C, h, w) go together: float32 (N, C, C)."""
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    return cast(Tensor, _Gram.apply(rows))


def style_distance(grams: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean over pictures and layers of |G - A| / |A|. 0: the same style; 1: as far as black.

    Not squared as in the paper: a few bright pictures are ten times as far away as the others, and
    squares of that drown what the others have to say.
    """
    wrong = [
        ((found - wanted).square().sum((1, 2)) + EPSILON).sqrt().mean() / wanted.norm()
        for found, wanted in zip(grams, targets, strict=True)
    ]
    return torch.stack(wrong).mean()


def content_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """|F - P|^2 / |P|^2 of feature maps (N, C, h, w). 0: the same content."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).square().mean() / wanted.square().mean()


def total_variation(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels (Rudin, Osher and Fatemi, 1992, squared)."""
    return pictures.diff(dim=2).square().mean() + pictures.diff(dim=3).square().mean()


def out_of_range(pictures: Tensor) -> Tensor:
    """Mean of how far values leave 0 to 1."""
    return (pictures - pictures.clamp(0, 1)).abs().mean()
