"""QuarterNet: an image-to-image network that works at a quarter of the resolution.

All convolutions run on a grid of 4 x 4 pixel cells, a sixteenth of the positions of the frame;
the sub-pixel convolution of Shi et al., "Real-Time Single Image and Video Super-Resolution Using
an Efficient Sub-Pixel Convolutional Neural Network" (2016), brings the pixels back. The residual
blocks have no normalisation, after Lim et al., "Enhanced Deep Residual Networks for Single Image
Super-Resolution" (2017): nothing depends on the rest of the picture, so nothing flickers with it,
and reduced precision is safe.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import ModelError
from engines.generators.matching import (
    MOST_BLOCKS,
    NotThisFamily,
    Tensors,
    need_convolution,
)

STRIDE: Final = 4
CELL_VALUES: Final = 3 * STRIDE**2


class ResidualBlock(nn.Module):
    """x + second(ReLU(first(x))), two 3x3 convolutions. (N, C, h, w) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(functional.relu(self.first(x)))
        return x + changed


class QuarterNet(nn.Module):
    """Float32 (N, 3, H, W), RGB, 0 to 1, in and out; H and W are multiples of 4.

    ``channels`` is the width, ``blocks`` the depth; ``4 * (2 * blocks + 2)`` pixels is how far the
    network sees in every direction. It starts as the identity: what it learns is the change.
    """

    stride: Final = STRIDE

    def __init__(self, channels: int = 48, blocks: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.head = nn.Conv2d(CELL_VALUES, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, CELL_VALUES, 3, padding=1)
        # Small, not zero: with a zero tail the layers before it receive no gradient at first.
        nn.init.normal_(self.tail.weight, std=1e-3)

    @property
    def architecture(self) -> str:
        """As a card says it: "QuarterNet, 48 channels, 3 blocks"."""
        return f"QuarterNet, {self.channels} channels, {len(self.blocks)} blocks"

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture, clamped to 0..1."""
        return self.unclamped(image).clamp(0, 1)

    def unclamped(self, image: Tensor) -> Tensor:
        """The same before the clamp, for training: a clamped value has no gradient."""
        cells = functional.pixel_unshuffle(image, STRIDE)
        change = self.tail(self.blocks(functional.relu(self.head(cells))))
        return functional.pixel_shuffle(cells + change, STRIDE)

    @classmethod
    def from_frame_model(cls, path: str | Path) -> QuarterNet:
        """Rebuild the network, in eval mode, from the weights in an exported frame model.

        Raises:
            ModelError: the file cannot be read, or its weights are not those of a QuarterNet.
        """
        import onnx
        from onnx import numpy_helper

        try:
            graph = onnx.load(str(path)).graph
        except Exception as error:  # onnx, protobuf and the file system each raise their own
            raise ModelError(f"cannot read {path} as ONNX: {error}") from error
        found = {item.name: item for item in graph.initializer}
        prefix = next(
            (n.removesuffix("head.weight") for n in found if n.endswith("head.weight")), ""
        )
        weights = {
            name.removeprefix(prefix): torch.from_numpy(np.array(numpy_helper.to_array(item)))
            for name, item in found.items()
            if name.startswith(prefix) and name.endswith((".weight", ".bias"))
        }
        if "head.weight" not in weights:
            raise ModelError(f"{path} has no weights of a QuarterNet, only {sorted(found)[:8]}")
        blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
        network = cls(channels=len(weights["head.weight"]), blocks=len(blocks))
        # Exporters drop a bias that is zero.
        for name, value in network.state_dict().items():
            if name.endswith(".bias"):
                weights.setdefault(name, torch.zeros_like(value))
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(f"{path} has the weights of something else: {error}") from error
        return network.eval()


def build(tensors: Tensors) -> QuarterNet:
    """Return the network of these tensors, without their values.

    Raises:
        NotThisFamily: they are those of another network.
    """
    channels, given = need_convolution(tensors, "head.weight", 3)
    made, _ = need_convolution(tensors, "tail.weight", 3)
    if given != CELL_VALUES or made != CELL_VALUES:
        raise NotThisFamily(
            f"head.weight takes {given} values and tail.weight gives {made}, expected {CELL_VALUES}"
        )
    inside = re.compile(r"blocks\.([0-9]{1,4})\.")
    blocks = max((int(m[1]) + 1 for name in tensors if (m := inside.match(name))), default=0)
    if blocks > MOST_BLOCKS:
        raise NotThisFamily(f"it has {blocks} blocks, at most {MOST_BLOCKS}")
    return QuarterNet(channels, blocks)
