"""Checkpoints with random weights in the layouts of public networks, and what they compute.

Names and shapes are written out as the public sources have them, and the forward functions use
``torch.nn.functional`` alone: nothing here knows the modules under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Resnet:
    """The choices of a ResNet generator; the defaults are those of CycleGAN."""

    ngf: int = 4
    blocks: int = 3
    downs: int = 2
    inputs: int = 3
    outputs: int = 3
    norm: str = "instance"
    """``instance``, ``affine`` or ``batch``."""
    tracked: bool = False
    """Running statistics of instance normalisation, as old files have them."""
    biased: bool | None = None
    """Biases before the norms; None as junyanz has them: not with batch normalisation."""
    dropout: bool = False
    zero_padding: bool = False
    blur_down: bool = False
    blur_up: bool = False
    blur_sizes: tuple[int, int] = (3, 4)
    enlarge: str = ""
    """``padded`` or ``zeros``: nearest neighbour, then a convolution, in place of transposed."""
    old_ends: bool = False
    """The 7 x 7 convolutions pad with zeros, without a layer of their own (early 2017)."""
    block_name: str = "conv_block"

    @property
    def has_bias(self) -> bool:
        return self.norm != "batch" if self.biased is None else self.biased


def _norm_shapes(name: str, channels: int, net: Resnet) -> Shapes:
    shapes: Shapes = {}
    if net.norm != "instance":
        shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    if net.norm == "batch" or net.tracked:
        shapes |= {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes


def _conv_shapes(name: str, shape: tuple[int, ...], bias: int | None) -> Shapes:
    shapes: Shapes = {f"{name}.weight": shape}
    if bias is not None:
        shapes[f"{name}.bias"] = (bias,)
    return shapes


def _block_places(net: Resnet) -> tuple[int, int]:
    first, second = (0, 3) if net.zero_padding else (1, 5)
    return first, second + net.dropout


def _block_shapes(name: str, width: int, net: Resnet) -> Shapes:
    shapes: Shapes = {}
    for place in _block_places(net):
        inner = f"{name}.{net.block_name}"
        bias = width if net.has_bias else None
        shapes |= _conv_shapes(f"{inner}.{place}", (width, width, 3, 3), bias)
        shapes |= _norm_shapes(f"{inner}.{place + 1}", width, net)
    return shapes


def resnet_shapes(net: Resnet, prefix: str = "model", *, last: bool = True) -> Shapes:
    """Names and shapes, in the order of the file."""
    at, width = (0, net.ngf) if net.old_ends else (1, net.ngf)
    shapes: Shapes = {}

    def convolution(shape: tuple[int, ...], made: int) -> None:
        nonlocal at, width
        shapes.update(_conv_shapes(f"{prefix}.{at}", shape, made if net.has_bias else None))
        shapes.update(_norm_shapes(f"{prefix}.{at + 1}", made, net))
        at, width = at + 3, made

    def blur(size: int) -> None:
        nonlocal at
        shapes[f"{prefix}.{at}.filt"] = (width, 1, size, size)
        at += 1

    convolution((net.ngf, net.inputs, 7, 7), net.ngf)
    for _ in range(net.downs):
        convolution((2 * width, width, 3, 3), 2 * width)
        if net.blur_down:
            blur(net.blur_sizes[0])
    for _ in range(net.blocks):
        shapes.update(_block_shapes(f"{prefix}.{at}", width, net))
        at += 1
    for _ in range(net.downs):
        half = width // 2
        if net.blur_up:
            blur(net.blur_sizes[1])
            convolution((half, width, 3, 3), half)
        elif net.enlarge:
            at += 2 if net.enlarge == "padded" else 1
            convolution((half, width, 3, 3), half)
        else:
            convolution((width, half, 3, 3), half)
    if last:
        at += 0 if net.old_ends else 1
        shapes.update(_conv_shapes(f"{prefix}.{at}", (net.outputs, net.ngf, 7, 7), net.outputs))
    return shapes


def enhancer_shapes(net: Resnet, enhancers: int = 1, local_blocks: int = 2) -> Shapes:
    """Local enhancer of pix2pixHD; ``net.ngf`` is that of the finest enhancer."""
    coarsest = Resnet(**{**net.__dict__, "ngf": net.ngf * 2**enhancers})
    shapes = resnet_shapes(coarsest, last=False)
    for number in range(1, enhancers + 1):
        ngf = net.ngf * 2 ** (enhancers - number)
        before, after = f"model{number}_1", f"model{number}_2"
        shapes |= _conv_shapes(f"{before}.1", (ngf, net.inputs, 7, 7), ngf)
        shapes |= _norm_shapes(f"{before}.2", ngf, net)
        shapes |= _conv_shapes(f"{before}.4", (2 * ngf, ngf, 3, 3), 2 * ngf)
        shapes |= _norm_shapes(f"{before}.5", 2 * ngf, net)
        for block in range(local_blocks):
            shapes |= _block_shapes(f"{after}.{block}", 2 * ngf, net)
        shapes |= _conv_shapes(f"{after}.{local_blocks}", (2 * ngf, ngf, 3, 3), ngf)
        shapes |= _norm_shapes(f"{after}.{local_blocks + 1}", ngf, net)
        if number == enhancers:
            place = f"{after}.{local_blocks + 4}"
            shapes |= _conv_shapes(place, (net.outputs, ngf, 7, 7), net.outputs)
    return shapes


def style_shapes(widths: tuple[int, int, int, int, int], blocks: int = 5) -> Shapes:
    """TransformerNet of pytorch/examples; widths after conv1 to 3, deconv1 and deconv2."""
    one, two, inner, four, five = widths
    plan = [
        ("conv1", 3, one, 9, "in1"),
        ("conv2", one, two, 3, "in2"),
        ("conv3", two, inner, 3, "in3"),
    ]
    plan += [
        (f"res{block}.conv{part}", inner, inner, 3, f"res{block}.in{part}")
        for block in range(1, blocks + 1)
        for part in (1, 2)
    ]
    plan += [("deconv1", inner, four, 3, "in4"), ("deconv2", four, five, 3, "in5")]
    plan += [("deconv3", five, 3, 9, "")]
    shapes: Shapes = {}
    for name, given, made, kernel, norm in plan:
        shapes |= _conv_shapes(f"{name}.conv2d", (made, given, kernel, kernel), made)
        if norm:
            shapes |= {f"{norm}.weight": (made,), f"{norm}.bias": (made,)}
    return shapes


def discriminator_shapes(inputs: int = 6, ndf: int = 64, prefix: str = "model") -> Shapes:
    """PatchGAN with 70 x 70 patches and batch normalisation."""
    plan = [(0, inputs, ndf), (2, ndf, 2 * ndf), (5, 2 * ndf, 4 * ndf), (8, 4 * ndf, 8 * ndf)]
    shapes: Shapes = {}
    for place, given, made in [*plan, (11, 8 * ndf, 1)]:
        bias = made if place in (0, 11) else None
        shapes |= _conv_shapes(f"{prefix}.{place}", (made, given, 4, 4), bias)
        if bias is None:
            net = Resnet(norm="batch")
            shapes |= _norm_shapes(f"{prefix}.{place + 1}", made, net)
    return shapes


def random_tensors(shapes: Shapes, seed: int = 3) -> Tensors:
    """Weights that keep the contrast from layer to layer, so that no difference hides."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(100)
        elif name.endswith("filt"):
            row = {2: [1, 1], 3: [1, 2, 1], 4: [1, 3, 3, 1]}[shape[3]]
            line = torch.tensor(row, dtype=torch.float32)
            kernel = torch.outer(line, line) / line.sum() ** 2
            # CUT multiplies by the stride's square where it enlarges.
            tensors[name] = (kernel * (4 if shape[3] == 4 else 1)).repeat(shape[0], 1, 1, 1)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + noise.abs()
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            tensors[name] = noise * (2 / fan_in) ** 0.5
        else:
            centre = 1.0 if name.endswith("weight") else 0.0
            tensors[name] = centre + 0.2 * noise
    return tensors


def _norm(x: Tensor, t: Tensors, name: str, net: Resnet) -> Tensor:
    weight, bias = t.get(f"{name}.weight"), t.get(f"{name}.bias")
    if net.norm == "batch":
        mean, variance = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        return functional.batch_norm(x, mean, variance, weight, bias)
    return functional.instance_norm(x, weight=weight, bias=bias)


def _conv(x: Tensor, t: Tensors, name: str, **how: Any) -> Tensor:
    return functional.conv2d(x, t[f"{name}.weight"], t.get(f"{name}.bias"), **how)


def _reflect(x: Tensor, border: int) -> Tensor:
    return functional.pad(x, (border,) * 4, mode="reflect")


def _block(x: Tensor, t: Tensors, name: str, net: Resnet) -> Tensor:
    y = x
    first, second = _block_places(net)
    for place in (first, second):
        inner = f"{name}.{net.block_name}.{place}"
        y = _conv(y, t, inner, padding=1) if net.zero_padding else _conv(_reflect(y, 1), t, inner)
        y = _norm(y, t, f"{name}.{net.block_name}.{place + 1}", net)
        y = functional.relu(y) if place == first else y
    return x + y


def _blur_down(x: Tensor, filt: Tensor) -> Tensor:
    size = filt.shape[-1]
    low, high = (size - 1) // 2, -(-(size - 1) // 2)
    padded = functional.pad(x, (low, high, low, high), mode="reflect")
    return functional.conv2d(padded, filt, stride=2, groups=x.shape[1])


def _blur_up(x: Tensor, filt: Tensor) -> Tensor:
    """As CUT has it: more than wanted, then a row and a column are cut off."""
    size = filt.shape[-1]
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    padding = 1 + (size - 1) // 2
    y = functional.conv_transpose2d(padded, filt, stride=2, padding=padding, groups=x.shape[1])
    y = y[:, :, 1:, 1:]
    return y if size % 2 else y[:, :, :-1, :-1]


def _up(x: Tensor, t: Tensors, name: str) -> Tensor:
    weight, bias = t[f"{name}.weight"], t.get(f"{name}.bias")
    return functional.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)


def resnet_forward(
    x: Tensor, t: Tensors, net: Resnet, prefix: str = "model", *, last: bool = True
) -> Tensor:
    """What the ResNet generator makes of (N, C, H, W), -1 to 1."""
    at = 0 if net.old_ends else 1

    def normalised(y: Tensor) -> Tensor:
        nonlocal at
        found = functional.relu(_norm(y, t, f"{prefix}.{at + 1}", net))
        at += 3
        return found

    stem = f"{prefix}.{at}"
    x = normalised(_conv(x, t, stem, padding=3) if net.old_ends else _conv(_reflect(x, 3), t, stem))
    for _ in range(net.downs):
        step = 1 if net.blur_down else 2
        x = normalised(_conv(x, t, f"{prefix}.{at}", stride=step, padding=1))
        if net.blur_down:
            x = _blur_down(x, t[f"{prefix}.{at}.filt"])
            at += 1
    for _ in range(net.blocks):
        x = _block(x, t, f"{prefix}.{at}", net)
        at += 1
    for _ in range(net.downs):
        if net.blur_up:
            x = _blur_up(x, t[f"{prefix}.{at}.filt"])
            at += 1
            x = normalised(_conv(x, t, f"{prefix}.{at}", padding=1))
        elif net.enlarge:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            at += 2 if net.enlarge == "padded" else 1
            padded = _reflect(x, 1) if net.enlarge == "padded" else functional.pad(x, (1,) * 4)
            x = normalised(_conv(padded, t, f"{prefix}.{at}"))
        else:
            x = normalised(_up(x, t, f"{prefix}.{at}"))
    if not last:
        return x
    if net.old_ends:
        return torch.tanh(_conv(x, t, f"{prefix}.{at}", padding=3))
    return torch.tanh(_conv(_reflect(x, 3), t, f"{prefix}.{at + 1}"))


def enhancer_forward(
    x: Tensor, t: Tensors, net: Resnet, enhancers: int = 1, local_blocks: int = 2
) -> Tensor:
    """What the local enhancer makes of (N, C, H, W), -1 to 1."""
    sizes = [x]
    for _ in range(enhancers):
        larger = sizes[-1]
        padded = functional.pad(larger, (1, 1, 1, 1))
        counted = functional.pad(torch.ones_like(larger), (1, 1, 1, 1))
        # The mean of those of nine that lie in the picture.
        sums, counts = (functional.avg_pool2d(y, 3, 2) for y in (padded, counted))
        sizes.append(sums / counts)
    y = resnet_forward(sizes[-1], t, net, last=False)
    for number in range(1, enhancers + 1):
        before, after = f"model{number}_1", f"model{number}_2"
        z = _conv(_reflect(sizes[enhancers - number], 3), t, f"{before}.1")
        z = functional.relu(_norm(z, t, f"{before}.2", net))
        z = _conv(z, t, f"{before}.4", stride=2, padding=1)
        y = functional.relu(_norm(z, t, f"{before}.5", net)) + y
        for block in range(local_blocks):
            y = _block(y, t, f"{after}.{block}", net)
        y = _norm(_up(y, t, f"{after}.{local_blocks}"), t, f"{after}.{local_blocks + 1}", net)
        y = functional.relu(y)
    return torch.tanh(_conv(_reflect(y, 3), t, f"{after}.{local_blocks + 4}"))


def style_forward(x: Tensor, t: Tensors, blocks: int = 5) -> Tensor:
    """What TransformerNet makes of (N, 3, H, W), 0 to 255."""
    affine = Resnet(norm="affine")

    def layer(y: Tensor, name: str, norm: str, step: int = 1) -> Tensor:
        border = t[f"{name}.conv2d.weight"].shape[-1] // 2
        return _norm(_conv(_reflect(y, border), t, f"{name}.conv2d", stride=step), t, norm, affine)

    for number, step in ((1, 1), (2, 2), (3, 2)):
        x = functional.relu(layer(x, f"conv{number}", f"in{number}", step))
    for number in range(1, blocks + 1):
        y = functional.relu(layer(x, f"res{number}.conv1", f"res{number}.in1"))
        x = x + layer(y, f"res{number}.conv2", f"res{number}.in2")
    for number in (1, 2):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = functional.relu(layer(x, f"deconv{number}", f"in{number + 3}"))
    return _conv(_reflect(x, 4), t, "deconv3.conv2d")
