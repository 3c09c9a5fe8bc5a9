"""The generators of pix2pixHD: the global one, and the local enhancer around it.

Wang, Liu, Zhu, Tao, Kautz and Catanzaro, "High-Resolution Image Synthesis and Semantic Manipulation
with Conditional GANs" (2018). The global generator is a ResNet generator with three or more
downsamplings. An enhancer works at twice its resolution and adds its features to its own.
"""

from __future__ import annotations

import re
from typing import Final

from torch import Tensor, nn

from engines.generators.matching import (
    NotThisFamily,
    Tensors,
    input_picture,
    output_picture,
    unused_statistics,
)
from engines.generators.resnet import ResnetGenerator, SequentialReader, Style, read_generator
from engines.picture_format import PictureFormat

FEWEST_DOWNSAMPLINGS: Final = 3
MOST_DOWNSAMPLINGS: Final = 8
MOST_ENHANCERS: Final = 4


class LocalEnhancer(nn.Module):
    """Float32 (N, C, H, W), -1 to 1, in and out; H and W are multiples of ``stride``.

    ``enhancers`` are pairs of layers, the coarsest first: what comes before the features of the
    next coarser part are added, and what comes after.
    """

    def __init__(
        self,
        coarsest: list[nn.Module],
        enhancers: list[tuple[list[nn.Module], list[nn.Module]]],
        *,
        stride: int,
        architecture: str,
        takes: PictureFormat,
        gives: PictureFormat,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(*coarsest)
        for number, (before, after) in enumerate(enhancers, 1):
            self.add_module(f"model{number}_1", nn.Sequential(*before))
            self.add_module(f"model{number}_2", nn.Sequential(*after))
        # Padding is not counted: the border keeps its brightness.
        self.pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.enhancer_count = len(enhancers)
        self.stride, self.architecture, self.notes = stride, architecture, notes
        self.takes, self.gives = takes, gives

    def forward(self, picture: Tensor) -> Tensor:
        pyramid = [picture]
        for _ in range(self.enhancer_count):
            pyramid.append(self.pool(pyramid[-1]))
        features: Tensor = self.model(pyramid.pop())
        for number in range(1, self.enhancer_count + 1):
            own = self.get_submodule(f"model{number}_1")(pyramid.pop())
            features = self.get_submodule(f"model{number}_2")(own + features)
        return features


def build(tensors: Tensors) -> ResnetGenerator:
    """Return the global generator of these tensors, without their values.

    Raises:
        NotThisFamily: they are those of another network.
    """
    return read_generator(
        tensors, FEWEST_DOWNSAMPLINGS, MOST_DOWNSAMPLINGS, "pix2pixHD global generator"
    )


def build_local(tensors: Tensors) -> LocalEnhancer:
    """Return the local enhancer of these tensors, with the global part, without their values.

    Raises:
        NotThisFamily: they are those of another network.
    """
    enhancer = re.compile(r"model([0-9])_[12]\.")
    count = max((int(m[1]) for name in tensors if (m := enhancer.match(name))), default=0)
    if not 1 <= count <= MOST_ENHANCERS:
        raise NotThisFamily(f"it has {count} enhancers (model1_1, model1_2), expected 1 or more")
    style = Style.of(tensors)
    coarsest = SequentialReader(tensors, "model", style)
    given, first = coarsest.stem()
    downsamplings = coarsest.down_to_the_blocks()
    if downsamplings > MOST_DOWNSAMPLINGS:
        raise NotThisFamily(f"it has {downsamplings} downsamplings, at most {MOST_DOWNSAMPLINGS}")
    blocks = [coarsest.blocks()]
    for _ in range(downsamplings):
        coarsest.up()
    notes = list(coarsest.notes)
    pairs = []
    channels = made = 0
    last = ""
    for number in range(1, count + 1):
        before = SequentialReader(tensors, f"model{number}_1", style)
        before.stem()
        channels = before.width
        before.down()
        after = SequentialReader(tensors, f"model{number}_2", style, before.width)
        blocks.append(after.blocks())
        after.up()
        if number == count:
            made, last = after.last()
        pairs.append((before.layers, after.layers))
        notes += after.notes
    depth = " + ".join(map(str, blocks))
    return LocalEnhancer(
        coarsest.layers,
        pairs,
        stride=2 ** (downsamplings + count),
        architecture=f"pix2pixHD local enhancer, {channels} channels, {depth} blocks",
        takes=input_picture(given, first),
        gives=output_picture(made, last),
        notes=(*style.notes, *dict.fromkeys(notes)),
    )


def ignorable(tensors: Tensors) -> set[str]:
    """Return the names that say nothing about the picture."""
    return unused_statistics(tensors)
