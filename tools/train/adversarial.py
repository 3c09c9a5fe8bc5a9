"""Adversarial losses: what a discriminator's judgement is worth."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tools.train.discriminators import Judgement

ADAM_BETAS: Final = (0.5, 0.999)
"""Radford et al., "Unsupervised Representation Learning with DCGANs" (2016): less momentum."""


def gan_loss(found: Judgement, real: bool) -> Tensor:
    """Return how far a judgement is from "all real" or "all fake": float32 (), 0 or more.

    Least squares (Mao et al., "Least Squares Generative Adversarial Networks", 2017): the mean over
    the patches of each size, and over the sizes. The discriminator minimises this with what is
    true; the generator minimises it for its own pictures with ``real=True``.

    Args:
        found: what a discriminator gives.
        real: what it should have said.
    """
    goal = 1.0 if real else 0.0
    return torch.stack([(maps[-1].float() - goal).square().mean() for maps in found]).mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """Return how far the features of two judgements are apart: float32 (), 0 or more.

    L1 (Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
    GANs", 2018): the mean over each map, summed over the layers but the logits, and the mean over
    the sizes. No gradient goes to ``real``. The authors' weight beside `gan_loss` is 10.

    Raises:
        ValueError: the judgements are of discriminators with other layers or sizes.
    """
    distances = []
    for made, wanted in zip(fake, real, strict=True):
        layers = [
            functional.l1_loss(mine.float(), theirs.detach().float())
            for mine, theirs in zip(made[:-1], wanted[:-1], strict=True)
        ]
        distances.append(torch.stack(layers).sum())
    return torch.stack(distances).mean()
