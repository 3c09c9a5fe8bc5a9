"""Random weights in the layouts of public checkpoints, and what the public networks make of them.

Written out from the public layouts and independent of `engines.generators`: plain dictionaries,
and functions that use nothing of PyTorch but torch.nn.functional. U-Net, AnimeGANv2, CartoonGAN.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

Checkpoint = dict[str, Tensor]


def noise(channels: int, height: int, width: int) -> Tensor:
    """Return a picture of random values, -1 to 1."""
    random = torch.Generator().manual_seed(5)
    return torch.rand(1, channels, height, width, generator=random) * 2 - 1


def frame(width: int, height: int) -> np.ndarray:
    """Soft blobs of every colour, with a little grain."""
    random = np.random.default_rng(6)
    blobs = cv2.resize(random.random((6, 8, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 0.03, (height, width, 3))
    return ((blobs + grain).clip(0, 1) * 255).astype(np.uint8)


class NormTypes(TorchDispatchMode):
    """Collects the types that normalisations compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[Any] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "norm" in str(function):
            self.found |= {value.dtype for value in args if isinstance(value, torch.Tensor)}
        return function(*args, **(kwargs or {}))


class Recipe:
    """Collects tensors of one checkpoint, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.tensors: Checkpoint = {}
        self.random = torch.Generator().manual_seed(seed)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def weight(self, name: str, *shape: int, bias: int = 0) -> None:
        # As wide as keeps the values of the next layer near those of this one.
        fan_in = shape[1] * shape[2] * shape[3]
        self.tensors[f"{name}.weight"] = self.noise(*shape) * (1.6 / fan_in) ** 0.5
        if bias:
            self.tensors[f"{name}.bias"] = self.noise(bias) * 0.1

    def affine(self, name: str, channels: int, words: tuple[str, str] = ("weight", "bias")) -> None:
        self.tensors[f"{name}.{words[0]}"] = 1 + self.noise(channels) * 0.2
        self.tensors[f"{name}.{words[1]}"] = self.noise(channels) * 0.2

    def running(self, name: str, channels: int) -> None:
        self.tensors[f"{name}.running_mean"] = self.noise(channels) * 0.2
        self.tensors[f"{name}.running_var"] = 0.5 + self.noise(channels) ** 2
        self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(100)


def unet(
    levels: int, norm: str = "batch", *, width: int = 4, takes: int = 3, gives: int = 3
) -> Checkpoint:
    """A pix2pix U-Net. ``norm``: batch, instance, old instance (running statistics), or none."""
    recipe = Recipe(seed=1)
    bias = "instance" in norm

    def normalised(name: str, channels: int) -> None:
        if norm == "batch":
            recipe.affine(name, channels)
        if norm in ("batch", "old instance"):
            recipe.running(name, channels)

    inside = [width * min(2**level, 8) for level in range(levels)]
    recipe.weight("model.model.0", width, takes, 4, 4, bias=width if bias else 0)
    recipe.weight("model.model.3", 2 * width, gives, 4, 4, bias=gives)
    prefix = "model.model.1.model."
    for outer, inner in pairwise(inside[:-1]):
        recipe.weight(f"{prefix}1", inner, outer, 4, 4, bias=inner if bias else 0)
        normalised(f"{prefix}2", inner)
        recipe.weight(f"{prefix}5", 2 * inner, outer, 4, 4, bias=outer if bias else 0)
        normalised(f"{prefix}6", outer)
        prefix += "3.model."
    outer, inner = inside[-2:]
    recipe.weight(f"{prefix}1", inner, outer, 4, 4, bias=inner if bias else 0)
    recipe.weight(f"{prefix}3", inner, outer, 4, 4, bias=outer if bias else 0)
    normalised(f"{prefix}4", outer)
    return recipe.tensors


def unet_forward(tensors: Checkpoint, picture: Tensor, norm: str, *, own: bool = False) -> Tensor:
    """What the public code computes, with its activations in place; no dropout.

    ``own``: the statistics of the picture itself where the file has running ones.
    """

    def convolved(x: Tensor, name: str) -> Tensor:
        return functional.conv2d(
            x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), stride=2, padding=1
        )

    def widened(x: Tensor, name: str) -> Tensor:
        return functional.conv_transpose2d(
            x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), stride=2, padding=1
        )

    def normalised(x: Tensor, name: str) -> Tensor:
        if norm == "none":
            return x
        if norm == "batch" and not own:
            mean, variance = (tensors[f"{name}.running_{word}"] for word in ("mean", "var"))
            mean, variance = mean.reshape(1, -1, 1, 1), variance.reshape(1, -1, 1, 1)
        else:
            mean = x.mean((2, 3), keepdim=True)
            variance = x.var((2, 3), correction=0, keepdim=True)
        found = (x - mean) / torch.sqrt(variance + 1e-5)
        if f"{name}.weight" not in tensors:
            return found
        scale, shift = (tensors[f"{name}.{word}"] for word in ("weight", "bias"))
        return found * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def block(x: Tensor, prefix: str) -> Tensor:
        functional.leaky_relu_(x, 0.2)
        found = convolved(x, f"{prefix}1")
        up, last = "3", "4"
        if f"{prefix}3.model.1.weight" in tensors:
            found = block(normalised(found, f"{prefix}2"), f"{prefix}3.model.")
            up, last = "5", "6"
        functional.relu_(found)
        return torch.cat([x, normalised(widened(found, prefix + up), prefix + last)], 1)

    found = block(convolved(picture, "model.model.0"), "model.model.1.model.")
    return torch.tanh(widened(functional.relu_(found), "model.model.3"))


def animegan(divisor: int = 1, blocks: int = 4, seed: int = 2) -> Checkpoint:
    """AnimeGANv2; ``divisor`` makes all the public widths smaller."""
    recipe = Recipe(seed)
    w32, w64, w128, w256 = (width // divisor for width in (32, 64, 128, 256))

    def unit(name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        recipe.weight(f"{name}.1", outputs, inputs, kernel, kernel)
        recipe.affine(f"{name}.2", outputs)

    unit("block_a.0", 3, w32, 7)
    unit("block_a.1", w32, w64)
    unit("block_a.2", w64, w64)
    unit("block_b.0", w64, w128)
    unit("block_b.1", w128, w128)
    unit("block_c.0", w128, w128)
    for block in range(1, blocks + 1):
        inputs = w128 if block == 1 else w256
        name = f"block_c.{block}.layers"
        unit(f"{name}.0", inputs, 2 * inputs, 1)
        recipe.weight(f"{name}.1.1", 2 * inputs, 1, 3, 3, bias=2 * inputs)
        recipe.affine(f"{name}.1.2", 2 * inputs)
        recipe.weight(f"{name}.2", w256, 2 * inputs, 1, 1)
        recipe.affine(f"{name}.3", w256)
    unit(f"block_c.{blocks + 1}", w256 if blocks else w128, w128)
    unit("block_d.0", w128, w128)
    unit("block_d.1", w128, w128)
    unit("block_e.0", w128, w64)
    unit("block_e.1", w64, w64)
    unit("block_e.2", w64, w32, 7)
    recipe.weight("out_layer.0", 3, w32, 1, 1)
    return recipe.tensors


def animegan_forward(tensors: Checkpoint, picture: Tensor, *, align_corners: bool = True) -> Tensor:
    def normalised(x: Tensor, name: str) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        variance = x.var((1, 2, 3), correction=0, keepdim=True)
        scale, shift = (tensors[f"{name}.{word}"] for word in ("weight", "bias"))
        found = (x - mean) / torch.sqrt(variance + 1e-5)
        return found * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{name}.1.weight"]
        side = weight.shape[2] // 2
        pads = (0, 1, 0, 1) if stride == 2 else (side, side, side, side)
        groups = x.shape[1] // weight.shape[1]
        padded = functional.pad(x, pads, mode="reflect") if any(pads) else x
        bias = tensors.get(f"{name}.1.bias")
        found = functional.conv2d(padded, weight, bias, stride=stride, groups=groups)
        return functional.leaky_relu(normalised(found, f"{name}.2"), 0.2)

    def larger(x: Tensor, rows: int, columns: int) -> Tensor:
        return functional.interpolate(
            x, (rows, columns), mode="bilinear", align_corners=align_corners
        )

    rows, columns = picture.shape[2:]
    x = unit(unit(unit(picture, "block_a.0"), "block_a.1", 2), "block_a.2")
    half_rows, half_columns = x.shape[2:]
    x = unit(unit(unit(x, "block_b.0", 2), "block_b.1"), "block_c.0")
    block = 1
    while f"block_c.{block}.layers.2.weight" in tensors:
        name = f"block_c.{block}.layers"
        found = unit(unit(x, f"{name}.0"), f"{name}.1")
        found = normalised(functional.conv2d(found, tensors[f"{name}.2.weight"]), f"{name}.3")
        x = x + found if found.shape == x.shape else found
        block += 1
    x = larger(unit(x, f"block_c.{block}"), half_rows, half_columns)
    x = larger(unit(unit(x, "block_d.0"), "block_d.1"), rows, columns)
    x = unit(unit(unit(x, "block_e.0"), "block_e.1"), "block_e.2")
    return torch.tanh(functional.conv2d(x, tensors["out_layer.0.weight"]))


def cartoongan(width: int = 8, blocks: int = 8, seed: int = 3) -> Checkpoint:
    """CartoonGAN; the public width is 64, the public number of blocks 8."""
    recipe = Recipe(seed)

    def layer(name: str, *shape: int, bias: int) -> None:
        recipe.weight(name, *shape, bias=bias)

    def norm(name: str, channels: int) -> None:
        recipe.affine(name, channels, ("scale", "shift"))

    one, two, four = width, 2 * width, 4 * width
    layer("conv01_1", one, 3, 7, 7, bias=one)
    norm("in01_1", one)
    layer("conv02_1", two, one, 3, 3, bias=two)
    layer("conv02_2", two, two, 3, 3, bias=two)
    norm("in02_1", two)
    layer("conv03_1", four, two, 3, 3, bias=four)
    layer("conv03_2", four, four, 3, 3, bias=four)
    norm("in03_1", four)
    for block in range(4, 4 + blocks):
        for part in (1, 2):
            layer(f"conv{block:02d}_{part}", four, four, 3, 3, bias=four)
            norm(f"in{block:02d}_{part}", four)
    layer("deconv01_1", four, two, 3, 3, bias=two)
    layer("deconv01_2", two, two, 3, 3, bias=two)
    norm(f"in{4 + blocks:02d}_1", two)
    layer("deconv02_1", two, one, 3, 3, bias=one)
    layer("deconv02_2", one, one, 3, 3, bias=one)
    norm(f"in{5 + blocks:02d}_1", one)
    layer("deconv03_1", 3, one, 7, 7, bias=3)
    return recipe.tensors


def cartoongan_forward(tensors: Checkpoint, picture: Tensor) -> Tensor:
    def convolved(x: Tensor, name: str, stride: int = 1, reflected: int = 0) -> Tensor:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if reflected:
            x = functional.pad(x, (reflected,) * 4, mode="reflect")
        return functional.conv2d(x, weight, bias, stride=stride, padding=0 if reflected else 1)

    def normalised(x: Tensor, name: str) -> Tensor:
        scale, shift = (tensors[f"{name}.{word}"] for word in ("scale", "shift"))
        values = x.shape[2] * x.shape[3]
        # As the port has it: the unbiased variance, made biased.
        variance = x.var((2, 3), keepdim=True) * ((values - 1) / values)
        found = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(variance + 1e-9)
        return found * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    x = functional.relu(normalised(convolved(picture, "conv01_1", reflected=3), "in01_1"))
    x = convolved(convolved(x, "conv02_1", 2), "conv02_2")
    x = convolved(convolved(functional.relu(normalised(x, "in02_1")), "conv03_1", 2), "conv03_2")
    x = functional.relu(normalised(x, "in03_1"))
    block = 4
    while f"conv{block:02d}_1.weight" in tensors:
        found = x
        for part in (1, 2):
            name = f"{block:02d}_{part}"
            found = normalised(convolved(found, f"conv{name}", reflected=1), f"in{name}")
            found = functional.relu(found) if part == 1 else found
        x = found + x
        block += 1
    for up in (1, 2):
        weight, bias = (tensors[f"deconv0{up}_1.{word}"] for word in ("weight", "bias"))
        x = functional.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        x = normalised(convolved(x, f"deconv0{up}_2"), f"in{block + up - 1:02d}_1")
        x = functional.relu(x)
    return torch.tanh(convolved(x, "deconv03_1", reflected=3))


INNER = "model.model.1.model."
BROKEN: list[tuple[str, str, tuple[int, ...] | None, str]] = [
    ("unet", "model.model.0.weight", None, "it has no model.model.0.weight"),
    ("unet", "model.model.3.weight", None, "it has no model.model.3.weight"),
    ("unet", f"{INNER}1.weight", None, f"it has no {INNER}1.weight"),
    ("unet", "model.model.0.weight", (4, 3, 3, 3), r"is \(4, 3, 3, 3\), expected .*, 4, 4\)"),
    ("unet", "model.model.0.weight", (4, 36, 4, 4), "takes 36 channels: label maps"),
    ("unet", "model.model.3.weight", (8, 2, 4, 4), "has 2 outputs"),
    ("unet", f"{INNER}1.weight", (8, 5, 4, 4), "takes 5 channels, but 4 arrive there"),
    ("unet", f"{INNER}5.weight", (8, 4, 4, 4), "takes 8 channels, but 16 arrive there"),
    ("unet", f"{INNER}5.weight", (16, 3, 4, 4), "gives 3 channels, expected 4"),
    ("animegan", "block_a.0.1.weight", None, "it has no block_a.0.1.weight"),
    ("animegan", "block_a.0.1.weight", (4, 2, 7, 7), "takes 2 channels"),
    ("animegan", "block_c.1.layers.1.1.weight", (32, 2, 3, 3), "takes 2 of 32 groups"),
    ("animegan", "block_d.0.1.weight", (16, 7, 3, 3), "takes 7 .* but 16 channels arrive"),
    ("animegan", "out_layer.0.weight", (5, 4, 1, 1), "has 5 outputs"),
    ("cartoongan", "in01_1.scale", None, "it has no in01_1.scale"),
    ("cartoongan", "conv04_2.weight", None, "it has no conv04_2.weight"),
    ("cartoongan", "conv01_1.weight", (8, 1, 7, 7), "takes 1 channels, but 3 arrive there"),
    ("cartoongan", "conv04_2.weight", (16, 32, 3, 3), "block 04 gives 16 channels, expected 32"),
    ("cartoongan", "deconv03_1.weight", (1, 8, 7, 7), "gives 1 channels, expected 3"),
]
"""Family, tensor, its new shape (None: it is missing), and how the refusal reads (a pattern)."""
