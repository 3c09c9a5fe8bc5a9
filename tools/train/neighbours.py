"""Which part of a painting should stand where: matching of neural neighbours.

Each place of the photograph takes the features of that place of the painting which is most like it
(Li and Wand, "Combining Markov Random Fields and Convolutional Neural Networks for Image
Synthesis", 2016; Kolkin et al., "Neural Neighbor Style Transfer", 2022: centred features, cosine
similarity). What a place becomes follows from the place alone. So a small network learns it in
minutes where matching the statistics of whole pictures (Gatys et al., 2016) takes it days, and in
a video nothing changes because something else in the picture did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

MATCHED_BY: Final = "relu3_1"
LAYERS: Final = {"relu3_1": (1, 1.0), "relu2_2": (2, 1.0), "relu1_2": (4, 0.5)}
"""Layer -> (how many of its values lie side by side at one place of relu3_1, weight)."""
MOST_PLACES: Final = 4096
Maps = Mapping[str, Tensor]


class Neighbours:
    """The places of one painting at one size."""

    def __init__(self, painting: Maps, content_mean: Tensor, seed: int = 0) -> None:
        """Take the feature maps (1, C, h, w) of a painting by layer.

        ``content_mean`` (C,) is the mean of photographs' features at relu3_1.
        """
        rows = {name: _places(painting[name], side)[0] for name, (side, _) in LAYERS.items()}
        count = len(rows[MATCHED_BY])
        random = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(count, generator=random)[:MOST_PLACES].to(content_mean.device)
        self._rows = {name: found[chosen] for name, found in rows.items()}
        keys = self._rows[MATCHED_BY].float()
        self._keys = _directions(keys - keys.mean(0))
        self._content_mean = content_mean

    @torch.no_grad()
    def matched(self, photograph: Maps) -> dict[str, Tensor]:
        """Return what the maps (N, C, h, w) of the same photograph, painted, should be.

        By layer, (N, places, values).
        """
        asked = _places(photograph[MATCHED_BY], 1).float() - self._content_mean
        alike = _directions(asked) @ self._keys.T
        best = alike.argmax(-1)
        return {name: rows[best] for name, rows in self._rows.items()}


def match_distance(painted: Maps, wanted: Mapping[str, Tensor]) -> Tensor:
    """Weighted mean over the layers of |F - T|^2 / |T|^2; 0: every place is as it was matched."""
    wrong, weights = [], 0.0
    for name, (side, weight) in LAYERS.items():
        found, target = _places(painted[name], side).float(), wanted[name].float()
        wrong.append(weight * (found - target).square().mean() / target.square().mean())
        weights += weight
    return torch.stack(wrong).sum() / weights


def _places(maps: Tensor, side: int) -> Tensor:
    """(N, C, h, w) as (N, places, values): squares of ``side`` values are one place."""
    cells = functional.pixel_unshuffle(maps, side) if side > 1 else maps
    return cells.permute(0, 2, 3, 1).flatten(1, 2)


def _directions(rows: Tensor) -> Tensor:
    # bfloat16 finds the same neighbour, or one as like, in half of the time.
    return functional.normalize(rows, dim=-1).bfloat16()
