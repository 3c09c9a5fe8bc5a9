"""From numbers to a public layout: the names and shapes of a new network's tensors.

The families build a network from its tensors; these are the tensors of a network that has not
learned anything yet. All are on the meta device: they have a shape and no values. Widths other than
the published ones keep the published proportions.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

COLOURS: Final = 3
UNET_WIDEST: Final = 8
"""Channels of the inner levels, in those of the first one."""

Layout = dict[str, Tensor]


class _Plan:
    """Collects tensors, in the order of the file."""

    def __init__(self) -> None:
        self.tensors: Layout = {}

    def add(self, name: str, *shape: int) -> None:
        self.tensors[name] = torch.empty(shape, device="meta")

    def convolution(
        self, name: str, given: int, made: int, kernel: int, *, bias: bool = True
    ) -> None:
        self.add(f"{name}.weight", made, given, kernel, kernel)
        if bias:
            self.add(f"{name}.bias", made)

    def transposed(
        self, name: str, given: int, made: int, kernel: int, *, bias: bool = True
    ) -> None:
        self.add(f"{name}.weight", given, made, kernel, kernel)
        if bias:
            self.add(f"{name}.bias", made)

    def pair(self, name: str, channels: int, words: tuple[str, str] = ("weight", "bias")) -> None:
        for word in words:
            self.add(f"{name}.{word}", channels)


def resnet(blocks: int = 9, channels: int = 64, downsamplings: int = 2) -> Layout:
    """The ResNet generator of CycleGAN; with 3 or more downsamplings pix2pixHD's global one.

    Zhu et al. (2017) and Wang et al. (2018): instance normalisation without weights.
    """
    plan = _Plan()
    width = channels
    plan.convolution("model.1", COLOURS, width, 7)
    place = 4
    for _ in range(downsamplings):
        plan.convolution(f"model.{place}", width, 2 * width, 3)
        width, place = 2 * width, place + 3
    for block in range(place, place + blocks):
        for inner in (1, 5):
            plan.convolution(f"model.{block}.conv_block.{inner}", width, width, 3)
    place += blocks
    for _ in range(downsamplings):
        plan.transposed(f"model.{place}", width, width // 2, 3)
        width, place = width // 2, place + 3
    plan.convolution(f"model.{place + 1}", width, COLOURS, 7)
    return plan.tensors


def unet(levels: int = 8, channels: int = 64, *, batch: bool = True) -> Layout:
    """The U-Net of pix2pix, Isola et al. (2017); 2 levels or more.

    With ``batch`` normalisation, as published, else with the instance normalisation that its
    authors offer.
    """
    plan = _Plan()
    widths = [channels * min(2**level, UNET_WIDEST) for level in range(levels)]

    def norm(name: str, made: int) -> None:
        if batch:
            plan.pair(name, made)
            plan.pair(name, made, ("running_mean", "running_var"))

    plan.convolution("model.model.0", COLOURS, channels, 4, bias=not batch)
    prefix = "model.model.1.model."
    for level in range(1, levels):
        outer, inner = widths[level - 1], widths[level]
        innermost = level == levels - 1
        up = 3 if innermost else 5
        plan.convolution(f"{prefix}1", outer, inner, 4, bias=not batch)
        if not innermost:
            norm(f"{prefix}2", inner)
        plan.transposed(
            f"{prefix}{up}", inner if innermost else 2 * inner, outer, 4, bias=not batch
        )
        norm(f"{prefix}{up + 1}", outer)
        prefix += "3.model."
    plan.transposed("model.model.3", 2 * channels, COLOURS, 4)
    return plan.tensors


def fast_neural_style(channels: int = 32, blocks: int = 5) -> Layout:
    """``TransformerNet`` of PyTorch's examples, after Johnson et al. (2016)."""
    plan = _Plan()
    inner = 4 * channels

    def layer(name: str, norm: str, given: int, made: int, kernel: int = 3) -> None:
        plan.convolution(f"{name}.conv2d", given, made, kernel)
        if norm:
            plan.pair(norm, made)

    layer("conv1", "in1", COLOURS, channels, 9)
    layer("conv2", "in2", channels, 2 * channels)
    layer("conv3", "in3", 2 * channels, inner)
    for block in range(1, blocks + 1):
        for part in (1, 2):
            layer(f"res{block}.conv{part}", f"res{block}.in{part}", inner, inner)
    layer("deconv1", "in4", inner, 2 * channels)
    layer("deconv2", "in5", 2 * channels, channels)
    layer("deconv3", "", channels, COLOURS, 9)
    return plan.tensors


def animegan(channels: int = 32, blocks: int = 4) -> Layout:
    """AnimeGANv2, Chen et al. (2020), in bryandlee's layout; ``blocks`` inverted residuals."""
    plan = _Plan()
    half, quarter, wide = 2 * channels, 4 * channels, 8 * channels

    def unit(name: str, given: int, made: int, kernel: int = 3, *, bias: bool = False) -> None:
        plan.convolution(f"{name}.1", given, made, kernel, bias=bias)
        plan.pair(f"{name}.2", made)

    unit("block_a.0", COLOURS, channels, 7)
    unit("block_a.1", channels, half)
    unit("block_a.2", half, half)
    unit("block_b.0", half, quarter)
    unit("block_b.1", quarter, quarter)
    unit("block_c.0", quarter, quarter)
    given = quarter
    for block in range(1, blocks + 1):
        name = f"block_c.{block}.layers"
        unit(f"{name}.0", given, 2 * given, 1)
        unit(f"{name}.1", 1, 2 * given, bias=True)  # one channel each
        plan.convolution(f"{name}.2", 2 * given, wide, 1, bias=False)
        plan.pair(f"{name}.3", wide)
        given = wide
    unit(f"block_c.{blocks + 1}", given, quarter)
    unit("block_d.0", quarter, quarter)
    unit("block_d.1", quarter, quarter)
    unit("block_e.0", quarter, half)
    unit("block_e.1", half, half)
    unit("block_e.2", half, channels, 7)
    plan.convolution("out_layer.0", channels, COLOURS, 1, bias=False)
    return plan.tensors


def cartoongan(channels: int = 64, blocks: int = 8) -> Layout:
    """CartoonGAN, Chen et al. (2018), in Yijunmaverick's layout."""
    plan = _Plan()
    half, quarter = 2 * channels, 4 * channels

    def norm(name: str, made: int) -> None:
        plan.pair(name, made, ("scale", "shift"))

    plan.convolution("conv01_1", COLOURS, channels, 7)
    norm("in01_1", channels)
    for number, given, made in (("02", channels, half), ("03", half, quarter)):
        plan.convolution(f"conv{number}_1", given, made, 3)
        plan.convolution(f"conv{number}_2", made, made, 3)
        norm(f"in{number}_1", made)
    for block in range(4, 4 + blocks):
        for part in (1, 2):
            plan.convolution(f"conv{block:02d}_{part}", quarter, quarter, 3)
            norm(f"in{block:02d}_{part}", quarter)
    for up, given, made in ((1, quarter, half), (2, half, channels)):
        plan.transposed(f"deconv0{up}_1", given, made, 3)
        plan.convolution(f"deconv0{up}_2", made, made, 3)
        norm(f"in{3 + blocks + up:02d}_1", made)
    plan.convolution("deconv03_1", channels, COLOURS, 7)
    return plan.tensors
