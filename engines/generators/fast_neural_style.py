"""Fast neural style: the feed-forward network of Johnson, Alahi and Fei-Fei (2016).

"Perceptual Losses for Real-Time Style Transfer and Super-Resolution", in the form of PyTorch's
examples (``TransformerNet``): instance normalisation after Ulyanov, Vedaldi and Lempitsky (2016),
and nearest-neighbour up-sampling followed by a convolution.
"""

from __future__ import annotations

import re
from typing import Final

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
from engines.picture_format import PictureFormat

STRIDE: Final = 4
OUTER_KERNEL: Final = 9
INNER_KERNEL: Final = 3
BYTE_RANGE: Final = (255.0, 0.0)


class PaddedConvolution(nn.Module):
    """Reflection padding of half the kernel, then a convolution. Enlarges by ``enlarge`` first."""

    def __init__(
        self, given: int, made: int, kernel: int, stride: int = 1, enlarge: int = 1
    ) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(given, made, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.enlarge > 1:
            x = functional.interpolate(x, scale_factor=float(self.enlarge), mode="nearest")
        result: Tensor = self.conv2d(self.reflection_pad(x))
        return result


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))); no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = PaddedConvolution(channels, channels, INNER_KERNEL)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = PaddedConvolution(channels, channels, INNER_KERNEL)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.in2(self.conv2(functional.relu(self.in1(self.conv1(x)))))
        return x + changed


class TransformerNet(nn.Module):
    """Float32 (N, 3, H, W), RGB, 0 to 255, in and out (not clamped); H and W multiples of 4.

    ``widths`` are the channels after conv1, conv2, conv3, deconv1 and deconv2.
    """

    stride: Final = STRIDE

    def __init__(
        self,
        widths: tuple[int, int, int, int, int],
        blocks: int,
        takes: PictureFormat,
        gives: PictureFormat,
    ) -> None:
        super().__init__()
        first, second, inner, fourth, fifth = widths
        self.widths, self.block_count = widths, blocks
        self.takes, self.gives = takes, gives
        self.conv1 = PaddedConvolution(takes.channels, first, OUTER_KERNEL)
        self.in1 = nn.InstanceNorm2d(first, affine=True)
        self.conv2 = PaddedConvolution(first, second, INNER_KERNEL, stride=2)
        self.in2 = nn.InstanceNorm2d(second, affine=True)
        self.conv3 = PaddedConvolution(second, inner, INNER_KERNEL, stride=2)
        self.in3 = nn.InstanceNorm2d(inner, affine=True)
        for index in range(1, blocks + 1):
            self.add_module(f"res{index}", ResidualBlock(inner))
        self.deconv1 = PaddedConvolution(inner, fourth, INNER_KERNEL, enlarge=2)
        self.in4 = nn.InstanceNorm2d(fourth, affine=True)
        self.deconv2 = PaddedConvolution(fourth, fifth, INNER_KERNEL, enlarge=2)
        self.in5 = nn.InstanceNorm2d(fifth, affine=True)
        self.deconv3 = PaddedConvolution(fifth, gives.channels, OUTER_KERNEL)

    @property
    def architecture(self) -> str:
        """As a card says it: "Fast neural style, 16 channels, 5 blocks"."""
        return f"Fast neural style, {self.widths[0]} channels, {self.block_count} blocks"

    def forward(self, picture: Tensor) -> Tensor:
        x = functional.relu(self.in1(self.conv1(picture)))
        x = functional.relu(self.in2(self.conv2(x)))
        x = functional.relu(self.in3(self.conv3(x)))
        for index in range(1, self.block_count + 1):
            x = self.get_submodule(f"res{index}")(x)
        x = functional.relu(self.in4(self.deconv1(x)))
        x = functional.relu(self.in5(self.deconv2(x)))
        result: Tensor = self.deconv3(x)
        return result


def build(tensors: Tensors) -> TransformerNet:
    """Return the network of these tensors, without their values.

    Raises:
        NotThisFamily: they are those of another network.
    """
    layers = {"conv1": OUTER_KERNEL, "conv2": 3, "conv3": 3, "deconv1": 3, "deconv2": 3}
    made, given = zip(
        *(need_convolution(tensors, f"{layer}.conv2d.weight", k) for layer, k in layers.items())
    )
    last = "deconv3.conv2d.weight"
    outputs, _ = need_convolution(tensors, last, OUTER_KERNEL)
    found = {int(m[1]) for name in tensors if (m := re.match(r"res([1-9][0-9]{0,3})\.", name))}
    # Numbered 1 to n; a gap shows as a missing tensor when the names are compared.
    blocks = max(found, default=0)
    if not 0 < blocks <= MOST_BLOCKS:
        raise NotThisFamily(f"it has {blocks} residual blocks (res1, res2...), expected 1 or more")
    return TransformerNet(
        made,
        blocks,
        takes=input_picture(given[0], "conv1.conv2d.weight", *BYTE_RANGE),
        gives=output_picture(outputs, last, *BYTE_RANGE),
    )


def ignorable(tensors: Tensors) -> set[str]:
    """Return the names that say nothing about the picture.

    PyTorch before 0.4 stored running statistics, which instance normalisation does not use.
    """
    unused = (".running_mean", ".running_var", ".num_batches_tracked")
    return {name for name in tensors if name.endswith(unused)}
