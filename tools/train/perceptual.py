"""Likeness, style, content and smoothness of pictures, as losses.

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

Style = tuple[Tensor, Tensor]
"""Mean and covariance of the channels of one layer."""
EPSILON: Final = 1e-8
GRADIENT_WEIGHT: Final = 1.0


class _Gram(torch.autograd.Function):
    """x -> x' x / rows for each of a batch. Its own gradient is one product, not two and a sum."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.save_for_backward(rows)
        # Before the product: the sum over all rows does not fit into FP16.
        scaled = rows * rows.shape[1] ** -0.5
        return torch.bmm(scaled.transpose(1, 2), scaled).float()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (rows,) = context.saved_tensors
        both = (gradient + gradient.transpose(1, 2)) / rows.shape[1]
        return torch.bmm(rows, both.to(rows.dtype))


def style_of(maps: Tensor) -> Style:
    """Return mean (N, C) and covariance (N, C, C) of the channels of maps (N, C, h, w), float32.

    Together they say as much as the Gram matrix of Gatys et al.; apart, colour and light (the
    mean) do not drown the strokes (the covariance).
    """
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    mean = rows.float().mean(1, keepdim=True)
    covariance = cast(Tensor, _Gram.apply(rows - mean.to(rows.dtype)))
    return mean[:, 0], covariance


def style_distance(found: Sequence[Style], wanted: Sequence[Style]) -> Tensor:
    """Mean over pictures and layers of |m - m'| / |m'| and |C - C'| / |C'|; 0: the same style.

    Not squared as in the papers: a few pictures are ten times as far away as the others, and
    squares of that drown what the others have to say.
    """
    wrong = []
    for layer, right in zip(found, wanted, strict=True):
        for statistic, target in zip(layer, right, strict=True):
            square = (statistic - target).square().flatten(1).sum(1)
            wrong.append((square + EPSILON).sqrt().mean() / target.norm())
    return torch.stack(wrong).mean()


def content_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """|F - P|^2 / |P|^2 of feature maps (N, C, h, w). 0: the same content."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).square().mean() / wanted.square().mean()


def total_variation(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels (Rudin, Osher and Fatemi, 1992, squared)."""
    return pictures.diff(dim=2).square().mean() + pictures.diff(dim=3).square().mean()


def picture_loss(found: Tensor, target: Tensor) -> Tensor:
    """L1 of the values and of their differences to the neighbours: flat areas and crisp lines."""
    wrong = found - target
    return (
        wrong.abs().mean()
        + GRADIENT_WEIGHT * wrong.diff(dim=2).abs().mean()
        + GRADIENT_WEIGHT * wrong.diff(dim=3).abs().mean()
    )


def out_of_range(pictures: Tensor) -> Tensor:
    """Mean of how far values leave 0 to 1."""
    return (pictures - pictures.clamp(0, 1)).abs().mean()
