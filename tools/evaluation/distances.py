"""Distances between what a feature net sees in pictures. uint8 (H, W, 3), BGR, 0 to 255.

A feature net is any torch module that takes float32 (N, 3, H, W), RGB, 0 to 1, and returns a list
of maps (N, C, h, w), the deepest last (`tools.train.features`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines import Pixels, SettingsError
from realtime.sources.base import fit_picture

if TYPE_CHECKING:
    from torch import Tensor, nn

TILE_PX: Final = 512
"""Larger pictures are seen in parts: the first maps of a VGG take 256 bytes a pixel."""
POOLED_SIDE_PX: Final = 256
FEWEST_PICTURES: Final = 10
LARGEST_BLOCK: Final = 1000
BLOCKS: Final = 100


def perceptual_distances(
    net: nn.Module, right: Pixels, candidates: Sequence[Pixels]
) -> list[float]:
    """Return how far each candidate is from ``right``, as the feature net sees them: 0 is equal.

    In the spirit of LPIPS (Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness
    of Deep Features as a Perceptual Metric", 2018), but it is not LPIPS: no learned weights, and
    another net. Each position's features are scaled to length 1; the squared difference is
    summed over the channels, then averaged over positions and over layers. At most 2 for features
    that are not negative. Pictures larger than 512 pixels are seen in parts.

    Raises:
        SettingsError: the pictures differ in size.
    """
    for candidate in candidates:
        if candidate.shape != right.shape:
            raise SettingsError(
                f"two pictures of one size are compared, found {candidate.shape[1::-1]} and"
                f" {right.shape[1::-1]}"
            )
    height, width = right.shape[:2]
    totals = np.zeros(len(candidates))
    for rows, columns in itertools.product(_parts(height), _parts(width)):
        part = [picture[rows, columns] for picture in (right, *candidates)]
        totals += _part_distances(net, part) * part[0].shape[0] * part[0].shape[1]
    return [float(total) / (height * width) for total in totals]


def pooled_features(net: nn.Module, pictures: Sequence[Pixels]) -> NDArray[np.float64]:
    """Return (N, C): the mean over positions of the deepest map, for each picture.

    Pictures are cropped to a square in the middle and scaled to 256 x 256 first, so that sets of
    other sizes can be compared.
    """
    squares = [np.empty((POOLED_SIDE_PX, POOLED_SIDE_PX, 3), np.uint8) for _ in pictures]
    for picture, square in zip(pictures, squares, strict=True):
        fit_picture(picture, square)
    pooled: NDArray[np.float64] = _maps(net, squares)[-1].double().mean((2, 3)).cpu().numpy()
    return pooled


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """Mean and standard deviation over random blocks of both sets."""

    mean: float
    deviation: float
    blocks: int
    block_size: int


def kernel_distance(
    found: NDArray[np.float64], right: NDArray[np.float64], *, blocks: int = BLOCKS, seed: int = 0
) -> KernelDistance:
    """Return the distance between two sets of features, (N, C) and (M, C).

    The estimator of the KID (Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs",
    2018): the unbiased squared maximum mean discrepancy, on random blocks of both sets, half as
    large as the smaller set but no more than 1000. Unbiased means that it is 0 on average for two
    samples of one distribution, so that single values may be negative.

    Raises:
        SettingsError: a set has fewer than 10 pictures.
    """
    fewest = min(len(found), len(right))
    if fewest < FEWEST_PICTURES:
        raise SettingsError(
            f"the kernel distance needs {FEWEST_PICTURES} pictures or more on both sides, found"
            f" {len(found)} and {len(right)}"
        )
    size = min(LARGEST_BLOCK, fewest // 2)
    random = np.random.default_rng(seed)
    values = [
        squared_mmd(
            found[random.choice(len(found), size, replace=False)],
            right[random.choice(len(right), size, replace=False)],
        )
        for _ in range(blocks)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), blocks, size)


def squared_mmd(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the unbiased squared MMD of (N, C) and (M, C), kernel (x.y / C + 1)^3.

    Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A Kernel Two-Sample Test" (2012), eq. 3.
    """
    return _mean_of_pairs(one) + _mean_of_pairs(other) - 2 * float(_kernel(one, other).mean())


def _mean_of_pairs(values: NDArray[np.float64]) -> float:
    """The mean kernel of two different ones."""
    kernel = _kernel(values, values)
    count = len(values)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel: NDArray[np.float64] = (one @ other.T / one.shape[1] + 1) ** 3
    return kernel


def _part_distances(net: nn.Module, part: Sequence[Pixels]) -> NDArray[np.float64]:
    """From the first picture to each of the others."""
    found = []
    for values in _maps(net, part):
        unit = values / (values.norm(dim=1, keepdim=True) + 1e-10)
        squared = (unit[1:] - unit[:1]).square().sum(1)
        found.append(squared.double().mean((1, 2)).cpu().numpy())
    mean: NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def _maps(net: nn.Module, pictures: Sequence[Pixels]) -> list[Tensor]:
    import torch

    parameter = next(net.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    bgr = torch.from_numpy(np.stack(pictures)).to(device)
    with torch.inference_mode():
        maps: list[Any] = net(bgr.flip(-1).permute(0, 3, 1, 2).float() / 255)
    return maps


def _parts(side_px: int) -> list[slice]:
    """Even parts, none larger than a tile."""
    edges = np.linspace(0, side_px, -(-side_px // TILE_PX) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(edges)]
