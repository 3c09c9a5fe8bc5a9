"""Known motion: the same content moved, so that a translation can be held to move with it.

The temporal loss of Huang et al., "Real-Time Neural Style Transfer for Videos" (2017), with
motion that is drawn instead of estimated: no video and no optical flow is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_SHIFT_PX: Final = 8.0
LARGEST_TURN: Final = 0.04  # radians
LARGEST_ZOOM: Final = 0.04
MOST_NOISE: Final = 0.03  # standard deviation; 1 is white


def unsteadiness(
    network: Callable[[Tensor], Tensor],
    pictures: Tensor,
    translated: Tensor,
    random: torch.Generator,
) -> Tensor:
    """Return how far translations of moved, noisy pictures are from the moved translations.

    Float32 (), 0 or more: the mean square, in which what came in from outside counts as 0. It has
    gradients to ``network`` and to ``translated``.

    Args:
        network: takes and gives float32 (N, 3, H, W), RGB, 0 to 1.
        pictures: such pictures.
        translated: what the network made of them.
        random: of the motion and of the noise.
    """
    grid = random_motion(pictures, random)
    again = network(noisy(moved(pictures, grid), random))
    return ((again - moved(translated, grid)).square() * inside(grid)).mean()


def random_motion(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Return a sampling grid (N, H, W, 2) for `moved`: a small shift, turn and zoom for each."""
    count, _, height, width = pictures.shape
    drawn = torch.rand(count, 4, generator=random) * 2 - 1
    turn, zoom = drawn[:, 0] * LARGEST_TURN, 1 + drawn[:, 1] * LARGEST_ZOOM
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    shift_x = drawn[:, 2] * LARGEST_SHIFT_PX * 2 / width
    shift_y = drawn[:, 3] * LARGEST_SHIFT_PX * 2 / height
    rows = [torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)]
    affine = torch.stack(rows, 1).to(pictures.device)
    return functional.affine_grid(affine, [count, 3, height, width], align_corners=False)


def moved(pictures: Tensor, grid: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) moved; what comes in from outside repeats the edge."""
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def inside(grid: Tensor, margin_px: int = 8) -> Tensor:
    """Return (N, 1, H, W), 1 where the moved picture shows what was there before, 0 elsewhere."""
    height, width = grid.shape[1:3]
    limits = torch.tensor([1 - 2 * margin_px / width, 1 - 2 * margin_px / height])
    return (grid.abs() < limits.to(grid.device)).all(-1)[:, None].float()


def noisy(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Return pictures with a camera's noise: another strength for each, coarse and fine."""
    count, channels, height, width = pictures.shape
    strength = torch.rand(count, 1, 1, 1, generator=random) * MOST_NOISE
    fine = torch.randn(count, 1, height, width, generator=random)
    coarse = torch.randn(count, channels, height // 2, width // 2, generator=random)
    colour = functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return pictures + (strength * (0.7 * fine + 0.7 * colour)).to(pictures.device)
