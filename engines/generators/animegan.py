"""AnimeGANv2's generator: a photograph as a drawing.

Chen et al., "AnimeGAN: A Novel Lightweight GAN for Photo Animation" (2020), in its second version
and in the layout of bryandlee's PyTorch port: reflection padding, group normalisation with one
group, leaky ReLU, inverted residuals (after Sandler et al., "MobileNetV2: Inverted Residuals and
Linear Bottlenecks", 2018) at a quarter of the resolution, and bilinear up-sampling.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.generators.matching import (
    MOST_BLOCKS,
    NotThisFamily,
    Tensors,
    input_picture,
    need_convolution,
    output_picture,
)

SLOPE: Final = 0.2
STRIDE: Final = 4
AFTER: Final = (0, 1, 0, 1)
"""Padding left, right, above, below, before the convolutions with stride 2."""


class GroupNorm(nn.GroupNorm):
    """One group: mean and variance of the whole picture; float32 whatever the module's type."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.weight.float(), self.bias.float()
        return functional.group_norm(x.float(), 1, scale, shift, self.eps).to(x.dtype)


class InvertedResidual(nn.Module):
    """Widen, 3x3 for each channel, narrow; added to what came in where the widths agree."""

    def __init__(self, layers: nn.Sequential, *, added: bool) -> None:
        super().__init__()
        self.layers = layers
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.added else found


class AnimeGenerator(nn.Module):
    """Float32 (N, C, H, W), -1 to 1, in and out; H and W are multiples of 4, at least 8.

    The public weights are for RGB; ``takes`` and ``gives`` say what these are for.

    ``align_corners`` is how the picture is up-sampled, and can be set: True is what the port does
    when it is not told; those who trained or ran their weights otherwise know it.
    """

    stride: Final = STRIDE

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.align_corners = True
        first, last = "block_a.0.1.weight", "out_layer.0.weight"
        channels, given = need_convolution(tensors, first, 7)
        self.takes = input_picture(given, first)
        reader = _Reader(tensors, given)
        self.block_a = nn.Sequential(
            reader.unit("block_a.0", 7),
            reader.unit("block_a.1", stride=2),
            reader.unit("block_a.2"),
        )
        self.block_b = nn.Sequential(
            reader.unit("block_b.0", stride=2),
            reader.unit("block_b.1"),
        )
        middle: list[nn.Module] = [reader.unit("block_c.0")]
        while f"block_c.{len(middle)}.layers.0.1.weight" in tensors:
            if len(middle) > MOST_BLOCKS:
                raise NotThisFamily(f"it has more than {MOST_BLOCKS} blocks")
            middle.append(reader.inverted_residual(f"block_c.{len(middle)}"))
        blocks = len(middle) - 1
        self.block_c = nn.Sequential(*middle, reader.unit(f"block_c.{len(middle)}"))
        self.block_d = nn.Sequential(reader.unit("block_d.0"), reader.unit("block_d.1"))
        self.block_e = nn.Sequential(
            reader.unit("block_e.0"),
            reader.unit("block_e.1"),
            reader.unit("block_e.2", 7),
        )
        self.out_layer = nn.Sequential(reader.convolution("out_layer.0", 1), nn.Tanh())
        self.gives = output_picture(reader.width, last)
        self.architecture = f"AnimeGANv2 generator, {channels} channels, {blocks} blocks"

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture."""
        quarter = self.block_c(self.block_b(self.block_a(image)))
        half = self.block_d(self._doubled(quarter))
        found: Tensor = self.out_layer(self.block_e(self._doubled(half)))
        return found

    def _doubled(self, x: Tensor) -> Tensor:
        # The port asks for the sizes before the halving: the doubles, as H and W divide by 4. A
        # factor exports as a constant, and TensorRT wants one.
        return functional.interpolate(
            x, scale_factor=2.0, mode="bilinear", align_corners=self.align_corners
        )


class _Reader:
    """Makes one layer after the other; ``width`` is the channels that the last one gives."""

    def __init__(self, tensors: Tensors, width: int) -> None:
        self.tensors = tensors
        self.width = width

    def convolution(
        self, name: str, kernel: int, stride: int = 1, *, depthwise: bool = False
    ) -> nn.Conv2d:
        made, given = need_convolution(self.tensors, f"{name}.weight", kernel)
        groups = self.width if depthwise else 1
        if given * groups != self.width or (depthwise and made != self.width):
            raise NotThisFamily(
                f"{name}.weight takes {given} of {groups} groups of channels and gives {made}, but"
                f" {self.width} channels arrive there"
            )
        before, self.width = self.width, made
        # As in the port, only the convolutions of single channels have a bias.
        return nn.Conv2d(before, made, kernel, stride, groups=groups, bias=depthwise)

    def unit(
        self, name: str, kernel: int = 3, *, stride: int = 1, depthwise: bool = False
    ) -> nn.Sequential:
        """Padding, convolution, normalisation, leaky ReLU: at 0 to 3, as the port has them."""
        side = kernel // 2
        around = nn.ReflectionPad2d(AFTER if stride == 2 else side) if side else nn.Identity()
        convolution = self.convolution(f"{name}.1", kernel, stride, depthwise=depthwise)
        return nn.Sequential(around, convolution, GroupNorm(self.width), nn.LeakyReLU(SLOPE))

    def inverted_residual(self, name: str) -> InvertedResidual:
        before = self.width
        wide = self.unit(f"{name}.layers.0", 1)
        each = self.unit(f"{name}.layers.1", depthwise=True)
        narrow = self.convolution(f"{name}.layers.2", 1)
        layers = nn.Sequential(wide, each, narrow, GroupNorm(self.width))
        return InvertedResidual(layers, added=before == self.width)


def build(tensors: Tensors) -> AnimeGenerator:
    """Return the generator that these tensors are the weights of, on the meta device, without them.

    Widths and the number of inverted residuals are read from names and shapes.

    Raises:
        NotThisFamily: they are those of another network.
    """
    with torch.device("meta"):
        return AnimeGenerator(tensors)
