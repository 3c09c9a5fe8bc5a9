"""The ResNet generator of CycleGAN, pix2pix and CUT, and what pix2pixHD shares with it.

Zhu, Park, Isola and Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks" (2017), after Johnson, Alahi and Fei-Fei (2016); the anti-aliased sampling of Zhang (2019)
as Park, Efros, Zhang and Zhu use it in CUT (2020).

The public networks are one ``nn.Sequential``: the number in a tensor's name is a place in it, and
places without tensors (padding, ReLU, normalisation without weights) follow from the gaps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.generators.matching import (
    MOST_BLOCKS,
    NotThisFamily,
    Tensors,
    input_picture,
    need,
    need_convolution,
    output_picture,
    unused_statistics,
)
from engines.picture_format import PictureFormat

OUTER_KERNEL: Final = 7
INNER_KERNEL: Final = 3
MOST_DOWNSAMPLINGS: Final = 2
"""More is the global generator of pix2pixHD."""


class ResnetBlock(nn.Module):
    """x + changed(x); ``name`` is what the checkpoint calls the layers: conv_block or block."""

    def __init__(self, name: str, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers_name = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.get_submodule(self.layers_name)(x)
        return x + changed


class BlurDown(nn.Module):
    """Half the size: blur with ``filt`` (C, 1, k, k), then every second value."""

    filt: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        before, after = (size - 1) // 2, size // 2
        self.padding = (before, after, before, after)
        self.register_buffer("filt", torch.empty(channels, 1, size, size))

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, self.padding, mode="reflect")
        return functional.conv2d(padded, self.filt, stride=2, groups=self.channels)


class BlurUp(nn.Module):
    """Twice the size: zeros between the values, then blur with ``filt`` (C, 1, k, k)."""

    filt: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        # CUT cuts a row and a column off the result; one more of padding does the same.
        self.padding, self.odd = 2 + (size - 1) // 2, size % 2
        self.register_buffer("filt", torch.empty(channels, 1, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv_transpose2d(
            functional.pad(x, (1, 1, 1, 1), mode="replicate"),
            self.filt,
            stride=2,
            padding=self.padding,
            output_padding=self.odd,
            groups=self.channels,
        )


class ResnetGenerator(nn.Module):
    """Float32 (N, C, H, W), -1 to 1, in and out; H and W are multiples of ``stride``."""

    def __init__(
        self,
        layers: list[nn.Module],
        *,
        stride: int,
        architecture: str,
        takes: PictureFormat,
        gives: PictureFormat,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.stride, self.architecture, self.notes = stride, architecture, notes
        self.takes, self.gives = takes, gives

    def forward(self, picture: Tensor) -> Tensor:
        result: Tensor = self.model(picture)
        return result


@dataclass(frozen=True, slots=True)
class Style:
    """What all layers of a network have in common: one stray tensor does not change it."""

    norm: str
    """``batch``, ``instance`` or ``affine instance``."""
    biased: bool
    """Whether convolutions followed by a normalisation have a bias."""

    @classmethod
    def of(cls, tensors: Tensors) -> Style:
        weights = {name: tensors[name].ndim for name in tensors if name.endswith(".weight")}
        convolutions = [name for name, sides in weights.items() if sides == 4]
        biases = [name for name in convolutions if f"{name.removesuffix('weight')}bias" in tensors]
        tracked = any(name.endswith(".running_mean") for name in tensors)
        norm = "instance"
        if 1 in weights.values():
            norm = "batch" if tracked else "affine instance"
        # The last convolution has one always.
        return cls(norm, 2 * len(biases) > len(convolutions))

    def layer(self, channels: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.InstanceNorm2d(channels, affine=self.norm == "affine instance")

    @property
    def notes(self) -> tuple[str, ...]:
        if self.norm == "batch" and self.biased:
            return ("norm weights beside running statistics: batch normalisation is assumed",)
        if self.norm == "instance" and not self.biased:
            return ("neither biases nor norm weights: instance normalisation is assumed",)
        return ()


class SequentialReader:
    """Walks along the ``nn.Sequential`` named ``prefix`` and rebuilds it from its tensors.

    Every method appends to ``layers``; ``width`` is the number of channels that arrive there.
    All raise NotThisFamily for a tensor that is missing or cannot be what stands at its place.
    """

    def __init__(self, tensors: Tensors, prefix: str, style: Style, width: int = 0) -> None:
        self.tensors, self.prefix, self.style, self.width = tensors, prefix, style, width
        self.layers: list[nn.Module] = []
        self.notes: list[str] = []
        inside = re.compile(
            rf"{prefix}\.([0-9]{{1,4}})\.(conv_block|block)\.([0-9]{{1,2}})\.weight"
        )
        self.inner: dict[int, list[int]] = {}
        self.block_name = "conv_block"
        for name, tensor in tensors.items():
            if (place := inside.fullmatch(name)) is not None and tensor.ndim == 4:
                self.inner.setdefault(int(place[1]), []).append(int(place[3]))
                self.block_name = place[2]

    def name(self, ahead: int = 0, part: str = "weight") -> str:
        """Return the name of a tensor of the layer that comes next, or ``ahead`` after it."""
        return f"{self.prefix}.{len(self.layers) + ahead}.{part}"

    def has_convolution(self, ahead: int) -> bool:
        tensor = self.tensors.get(self.name(ahead))
        return tensor is not None and tensor.ndim == 4

    def stem(self) -> tuple[int, str]:
        """7 x 7 convolution; return the channels that it takes and its name."""
        padding = self._pad_unless_convolution(OUTER_KERNEL // 2)
        name = self.name()
        made, given = need_convolution(self.tensors, name, OUTER_KERNEL)
        self._normalised(
            nn.Conv2d(given, made, OUTER_KERNEL, padding=padding, bias=self.style.biased), made
        )
        return given, name

    def down(self) -> None:
        """3 x 3 convolution to half the size, by its stride or by a blur after it."""
        made, _ = need_convolution(self.tensors, self.name(), INNER_KERNEL)
        blur = self._blur_size(made, ahead=3)
        self._normalised(
            nn.Conv2d(
                self.width,
                made,
                INNER_KERNEL,
                stride=1 if blur else 2,
                padding=1,
                bias=self.style.biased,
            ),
            made,
        )
        if blur:
            self.layers.append(BlurDown(made, blur))

    def down_to_the_blocks(self) -> int:
        """All downsamplings before the first residual block; return how many."""
        first = min(self.inner, default=None)
        if first is None:
            raise NotThisFamily(f"it has no residual blocks ({self.prefix}.N.conv_block.M.weight)")
        count = 0
        while len(self.layers) < first:
            self.down()
            count += 1
        return count

    def blocks(self) -> int:
        """All residual blocks; return how many."""
        layout = next((places for places in self.inner.values() if len(places) == 2), None)
        if layout is None:
            raise NotThisFamily("it has no residual block with two 3 x 3 convolutions")
        start, end = len(self.layers), max(self.inner)
        if not 0 <= end - start < MOST_BLOCKS:
            raise NotThisFamily(
                f"its residual blocks end at {self.prefix}.{end}, expected {self.prefix}.{start} to"
                f" {self.prefix}.{start + MOST_BLOCKS - 1}"
            )
        if self.block_name == "block" and min(layout) == 1:
            self.notes.append("padding in the blocks cannot be told: reflection is assumed")
        for _ in range(start, end + 1):
            self.layers.append(self._block(*sorted(layout)))
        return end - start + 1

    def up(self) -> None:
        """3 x 3 convolution to twice the size: transposed, after a blur, or after enlarging."""
        blur = self._blur_size(self.width, ahead=0)
        if blur:
            self.layers.append(BlurUp(self.width, blur))
        elif not self.has_convolution(0) and (self.has_convolution(1) or self.has_convolution(2)):
            self.layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            note = "the way of enlarging cannot be told: nearest neighbour is assumed"
            self.notes += [] if note in self.notes else [note]
        else:
            _, made = need_convolution(self.tensors, self.name(), INNER_KERNEL)
            transposed = nn.ConvTranspose2d(
                self.width, made, INNER_KERNEL, 2, 1, output_padding=1, bias=self.style.biased
            )
            return self._normalised(transposed, made)
        padding = self._pad_unless_convolution(1)
        made, _ = need_convolution(self.tensors, self.name(), INNER_KERNEL)
        convolution = nn.Conv2d(
            self.width, made, INNER_KERNEL, padding=padding, bias=self.style.biased
        )
        return self._normalised(convolution, made)

    def last(self) -> tuple[int, str]:
        """7 x 7 convolution and tanh; return the channels that it gives and its name."""
        padding = self._pad_unless_convolution(OUTER_KERNEL // 2)
        name = self.name()
        made, _ = need_convolution(self.tensors, name, OUTER_KERNEL)
        self.layers += [nn.Conv2d(self.width, made, OUTER_KERNEL, padding=padding), nn.Tanh()]
        return made, name

    def _pad_unless_convolution(self, border: int) -> int:
        """Reflection padding as a layer, or, where none fits, zeros: the border that it adds."""
        if self.has_convolution(0):
            return border
        self.layers.append(nn.ReflectionPad2d(border))
        return 0

    def _normalised(self, convolution: nn.Module, made: int) -> None:
        self.layers += [convolution, self.style.layer(made), nn.ReLU(inplace=True)]
        self.width = made

    def _blur_size(self, channels: int, ahead: int) -> int:
        """Size of the blur filter there; 0 when there is none."""
        name = self.name(ahead, "filt")
        if name not in self.tensors:
            return 0
        shape = need(self.tensors, name)
        if len(shape) != 4 or shape[2] != shape[3] or not 2 <= shape[3] <= 7:
            raise NotThisFamily(f"{name} is {shape}, expected ({channels}, 1, 3, 3) or (..., 4, 4)")
        return shape[3]

    def _block(self, first: int, second: int) -> ResnetBlock:
        """Pad, convolution, norm, ReLU, dropout or not, and the first three again."""
        padded = first == 1
        dropout = second - first - (4 if padded else 3)
        if first not in (0, 1) or dropout not in (0, 1):
            raise NotThisFamily(f"the convolutions of its blocks are at {first} and {second}")
        width, biased = self.width, self.style.biased
        layers: list[nn.Module] = []
        for place in (first, second):
            need(self.tensors, self.name(part=f"{self.block_name}.{place}.weight"))
            if padded:
                layers.append(nn.ReflectionPad2d(1))
            layers += [
                nn.Conv2d(width, width, INNER_KERNEL, padding=0 if padded else 1, bias=biased),
                self.style.layer(width),
            ]
            if place == first:
                layers += [nn.ReLU(inplace=True), *[nn.Dropout(0.5)] * dropout]
        return ResnetBlock(self.block_name, layers)


def read_generator(tensors: Tensors, fewest: int, most: int, title: str) -> ResnetGenerator:
    """Return the generator of these tensors when it has ``fewest`` to ``most`` downsamplings.

    Raises:
        NotThisFamily: it has more or fewer, or these are the tensors of another network.
    """
    style = Style.of(tensors)
    reader = SequentialReader(tensors, "model", style)
    given, first = reader.stem()
    channels = reader.width
    downsamplings = reader.down_to_the_blocks()
    if not fewest <= downsamplings <= most:
        raise NotThisFamily(f"it has {downsamplings} downsamplings, expected {fewest} to {most}")
    blocks = reader.blocks()
    for _ in range(downsamplings):
        reader.up()
    made, last = reader.last()
    blurred = any(isinstance(layer, (BlurDown, BlurUp)) for layer in reader.layers)
    sampling = ", anti-aliased" if blurred else ""
    return ResnetGenerator(
        reader.layers,
        stride=2**downsamplings,
        architecture=f"{title}, {channels} channels, {blocks} blocks{sampling}",
        takes=input_picture(given, first),
        gives=output_picture(made, last),
        notes=(*style.notes, *reader.notes),
    )


def build(tensors: Tensors) -> ResnetGenerator:
    """Return the network of these tensors, without their values.

    Raises:
        NotThisFamily: they are those of another network.
    """
    return read_generator(tensors, 1, MOST_DOWNSAMPLINGS, "ResNet generator")


def ignorable(tensors: Tensors) -> set[str]:
    """Return the names that say nothing about the picture."""
    return unused_statistics(tensors)
