"""QuarterNet: an image-to-image network that works at a quarter of the resolution.

All convolutions run on a grid of 4 x 4 pixel cells, a sixteenth of the positions of the frame;
the sub-pixel convolution of Shi et al., "Real-Time Single Image and Video Super-Resolution Using
an Efficient Sub-Pixel Convolutional Neural Network" (2016), brings the pixels back. The residual
blocks have no normalisation, after Lim et al., "Enhanced Deep Residual Networks for Single Image
Super-Resolution" (2017): nothing depends on the rest of the picture, so nothing flickers with it,
and reduced precision is safe. Styles, which must bring any picture to the contrast of a painting,
need it (Ulyanov, Vedaldi and Lempitsky, "Improved Texture Networks", 2017): an option.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

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

if TYPE_CHECKING:
    import onnx

STRIDE: Final = 4
MOST_DILATION: Final = 64
CELL_VALUES: Final = 3 * STRIDE**2
NORM_WEIGHT: Final = "head_norm.weight"


class ResidualBlock(nn.Module):
    """x + second(ReLU(first(x))), two 3x3 convolutions. (N, C, h, w) in and out.

    ``dilation`` spreads the first one: it sees further for the same work (Yu and Koltun,
    "Multi-Scale Context Aggregation by Dilated Convolutions", 2016).
    """

    def __init__(self, channels: int, dilation: int = 1, normalised: bool = False) -> None:
        super().__init__()
        edge = _padding(normalised)
        self.first = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, padding_mode=edge
        )
        self.first_norm = _norm(channels, normalised)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=edge)
        self.second_norm = _norm(channels, normalised)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(functional.relu(self.first_norm(self.first(x))))
        changed = self.second_norm(changed)
        return x + changed


class InstanceNorm(nn.InstanceNorm2d):
    """Affine; the same numbers, in half of the time where it is trained on a CPU.

    PyTorch's own one copies everything that has the channels last in memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            found: Tensor = super().forward(x)
            return found
        rows = x.float().permute(0, 2, 3, 1).flatten(1, 2)
        centred = rows - rows.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps) * self.weight
        made: Tensor = (centred * scale + self.bias).unflatten(1, x.shape[2:])
        return made.permute(0, 3, 1, 2)


def _norm(channels: int, normalised: bool) -> nn.Module:
    return InstanceNorm(channels, affine=True) if normalised else nn.Identity()


def _padding(normalised: bool) -> Literal["replicate", "zeros"]:
    # A strong style paints frames around the picture where it sees zeros beside it.
    return "replicate" if normalised else "zeros"


class QuarterNet(nn.Module):
    """Float32 (N, 3, H, W), RGB, 0 to 1, in and out; H and W are multiples of 4.

    ``channels`` is the width, ``blocks`` the depth, ``dilations`` one number a block (all 1 when
    left out). ``4 * (2 + blocks + sum of the dilations)`` pixels is how far the network sees in
    every direction. ``normalised`` puts an instance normalisation after every convolution but the
    last. It starts as the identity: what it learns is the change. In training mode the result is
    not clamped: a clamped value has no gradient.

    Raises:
        ValueError: there is not one dilation a block, or one is not 1 to 64.
    """

    stride: Final = STRIDE
    smallest_px: int
    """Of a side: a normalisation needs more than one value."""
    dilations: Tensor | None
    """int64 (blocks,), with the weights, which do not tell it; None where all are 1."""

    def __init__(
        self,
        channels: int = 48,
        blocks: int = 3,
        dilations: Sequence[int] | None = None,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        spread = [1] * blocks if dilations is None else list(dilations)
        if len(spread) != blocks or not all(1 <= value <= MOST_DILATION for value in spread):
            raise ValueError(
                f"expected {blocks} dilations, one a block, 1 to {MOST_DILATION}; found {spread}"
            )
        self.channels, self._spread = channels, tuple(spread)
        self.smallest_px = 2 * STRIDE if normalised else STRIDE
        edge = _padding(normalised)
        self.head = nn.Conv2d(CELL_VALUES, channels, 3, padding=1, padding_mode=edge)
        self.head_norm = _norm(channels, normalised)
        self.blocks = nn.Sequential(
            *(ResidualBlock(channels, dilation, normalised) for dilation in spread)
        )
        self.tail = nn.Conv2d(channels, CELL_VALUES, 3, padding=1, padding_mode=edge)
        # Small, not zero: with a zero tail the layers before it receive no gradient at first.
        nn.init.normal_(self.tail.weight, std=1e-3)
        self.register_buffer("dilations", torch.tensor(spread) if _spreads(spread) else None)

    @property
    def architecture(self) -> str:
        """As a card says it: "QuarterNet, 48 channels, 3 blocks, dilations 1 2 1"."""
        spread = self._spread
        dilated = f", dilations {' '.join(map(str, spread))}" if _spreads(spread) else ""
        normalised = not isinstance(self.head_norm, nn.Identity)
        return (
            f"QuarterNet, {self.channels} channels, {len(self.blocks)} blocks{dilated}"
            f"{', instance normalisation' if normalised else ''}"
        )

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture, clamped to 0..1 but in training mode."""
        cells = functional.pixel_unshuffle(image, STRIDE)
        change = self.tail(self.blocks(functional.relu(self.head_norm(self.head(cells)))))
        picture = functional.pixel_shuffle(cells + change, STRIDE)
        return picture if self.training else picture.clamp(0, 1)

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
        weights |= dilations_of(graph, prefix)
        spread = weights.get("dilations")
        try:
            network = cls(
                len(weights["head.weight"]),
                len(blocks),
                None if spread is None else spread.tolist(),
                NORM_WEIGHT in weights,
            )
            # Exporters drop a bias that is zero.
            for name, value in network.state_dict().items():
                if name.endswith(".bias"):
                    weights.setdefault(name, torch.zeros_like(value))
            network.load_state_dict(weights)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path} has the weights of something else: {error}") from error
        return network.eval()


def dilations_of(graph: onnx.GraphProto, prefix: str) -> dict[str, Tensor]:
    """Return ``dilations`` as a state dict has them, from an exported QuarterNet's convolutions.

    Empty where all are 1, and where there are no blocks of a QuarterNet. ``prefix`` is what stands
    before the names of the weights.
    """
    place = re.compile(rf"{re.escape(prefix)}blocks\.([0-9]{{1,4}})\.first\.weight")
    found: dict[int, int] = {}
    for node in graph.node:
        weight = place.fullmatch(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "Conv" and weight is not None:
            given = [
                value for item in node.attribute if item.name == "dilations" for value in item.ints
            ]
            found[int(weight[1])] = max(given, default=1)
    spread = [found.get(number, 1) for number in range(max(found, default=-1) + 1)]
    return {"dilations": torch.tensor(spread)} if _spreads(spread) else {}


def _spreads(dilations: Sequence[int]) -> bool:
    return any(dilation != 1 for dilation in dilations)


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
    spread = tensors.get("dilations")
    if spread is None:
        return QuarterNet(channels, blocks, normalised=NORM_WEIGHT in tensors)
    if spread.shape != (blocks,) or spread.dtype != torch.int64:
        raise NotThisFamily(f"dilations must be {blocks} whole numbers (int64), one a block")
    try:
        return QuarterNet(channels, blocks, spread.tolist(), NORM_WEIGHT in tensors)
    except ValueError as error:
        raise NotThisFamily(str(error)) from error
