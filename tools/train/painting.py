"""Painting one photograph by optimisation: slow, and the best that a network can be taught.

The pixels themselves are changed until the feature net sees the painting in them (Gatys, Ecker and
Bethge, "Image Style Transfer Using Convolutional Neural Networks", 2016), place by place (see
`tools.train.neighbours`), fine strokes and broad ones. A small network that imitates such pictures
learns a style in minutes; led by the feature net alone it needs a hundred times as many steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from realtime.sources.pictures import read_picture, write_picture
from tools.train.crops import as_tensor
from tools.train.neighbours import Maps, Neighbours, match_distance
from tools.train.pairs import Pair, Picture, make_cache
from tools.train.perceptual import Style, out_of_range, style_distance, total_variation
from tools.train.recipe import as_unit

ITERATIONS: Final = 24
LEARNING_RATE: Final = 0.03
FINE_EVERY: Final = 3
RANGE_WEIGHT: Final = 10.0
PAINTER: Final = f"{ITERATIONS} {LEARNING_RATE} {FINE_EVERY} {RANGE_WEIGHT}"
"""Changes when paintings become others."""


class Painter:
    """One painting, ready to be painted like."""

    def __init__(
        self,
        maps: Callable[[Tensor], Maps],
        styles: Callable[[Maps], list[Style]],
        wanted_styles: Sequence[list[Style]],
        neighbours: Sequence[Neighbours],
        weights: tuple[float, float, float],
    ) -> None:
        """Take what the feature net sees in the painting: first at its size, then at half of it.

        ``weights`` are those of the matched neighbours, the style and the total variation.
        """
        self._maps, self._styles = maps, styles
        self._wanted_styles, self._neighbours, self._weights = wanted_styles, neighbours, weights

    def paint(self, photograph: Picture, device: torch.device) -> Picture:
        """Return the photograph painted; both uint8 (H, W, 3) BGR, sides multiples of 8."""
        given = as_unit(as_tensor(photograph)[None].to(device))
        looks = (lambda picture: picture, lambda picture: functional.avg_pool2d(picture, 2))
        with torch.no_grad():
            matched = [
                neighbours.matched(self._maps(look(given)))
                for look, neighbours in zip(looks, self._neighbours, strict=True)
            ]
        painted = given.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([painted], LEARNING_RATE)
        match_weight, style_weight, tv_weight = self._weights
        for iteration in range(ITERATIONS):
            size = 0 if iteration % FINE_EVERY == 0 else 1
            maps = self._maps(looks[size](painted))
            loss = tv_weight * total_variation(painted) + RANGE_WEIGHT * out_of_range(painted)
            if match_weight:
                loss = loss + match_weight * match_distance(maps, matched[size])
            if style_weight:
                found = self._styles(maps)
                loss = loss + style_weight * style_distance(found, self._wanted_styles[size])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        levels = painted.detach()[0].clamp(0, 1).mul(255).round().byte().cpu()
        return np.ascontiguousarray(levels.permute(1, 2, 0).numpy()[..., ::-1])


def painted_pairs(
    photographs: Sequence[Picture], paint: Callable[[Picture], Picture], cache: Path, stamp: str
) -> Iterator[Pair]:
    """Yield each photograph with what ``paint`` makes of it; what was painted before is read.

    ``stamp`` says everything else that the result depends on.

    Raises:
        SinkError, SourceError: ``cache`` cannot be written, or read again.
    """
    make_cache(cache)
    for photograph in photographs:
        key = hashlib.sha256(stamp.encode() + photograph.tobytes())
        entry = cache / f"painted-{key.hexdigest()[:24]}.png"
        if entry.exists():
            half = len(both := read_picture(entry)) // 2
            yield Pair(np.ascontiguousarray(both[:half]), np.ascontiguousarray(both[half:]))
            continue
        pair = Pair(photograph, paint(photograph))
        write_picture(entry, np.vstack([pair.photo, pair.target]))
        yield pair
