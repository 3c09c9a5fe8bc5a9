"""The judges of adversarial training: is every patch of a picture real?

PatchGAN of Isola, Zhu, Zhou and Efros, "Image-to-Image Translation with Conditional Adversarial
Networks" (2017); the same at several sizes of Wang, Liu, Zhu, Tao, Kautz and Catanzaro,
"High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs" (2018). A
condition is put beside the picture by the caller: ``torch.cat((condition, picture), 1)``.

Both give a list with one entry for every size; an entry is the list of the feature maps of each
layer, (N, C, h, w), of which the last one is the logits (N, 1, h, w), positive for real.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

Judgement = list[list[Tensor]]
"""For every size, the finest first: the maps of each layer; the last one is the logits."""

HALVINGS: Final = 3
"""Convolutions that halve the size; two more do not, and a logit sees 70 x 70 pixels."""
KERNEL: Final = 4
SLOPE: Final = 0.2
FIRST_DEVIATION: Final = 0.02
"""Standard deviation of the weights at the start, as both papers have it."""
FEWEST_CELLS: Final = 3
"""Side of the map after the halvings: two more convolutions each take one off it."""


class PatchGAN(nn.Module):
    """Float32 (N, ``channels_in``, H, W) in; H and W are ``smallest_px`` or more.

    Instance norm (Ulyanov, Vedaldi and Lempitsky, 2016, without weights) follows all but the first
    and the last convolution.

    Args:
        channels_in: of the picture, and of the condition beside it.
        width: channels after the first convolution.

    Raises:
        ValueError: a number is less than 1.
    """

    smallest_px: Final = FEWEST_CELLS * 2**HALVINGS

    def __init__(self, channels_in: int, width: int = 64) -> None:
        super().__init__()
        if min(channels_in, width) < 1:
            raise ValueError(
                f"channels_in and width must be 1 or more, found {channels_in} and {width}"
            )
        widths = [channels_in, *(width * 2**i for i in range(HALVINGS + 1)), 1]
        self.layers = nn.ModuleList(
            _layer(
                given,
                made,
                stride=2 if place < HALVINGS else 1,
                normed=0 < place <= HALVINGS,
                last=place > HALVINGS,
            )
            for place, (given, made) in enumerate(pairwise(widths))
        )

    def forward(self, pictures: Tensor) -> Judgement:
        """Return one list: the maps of each layer, the logits last.

        Raises:
            ValueError: the pictures are smaller than ``smallest_px``.
        """
        _check_size(pictures, self.smallest_px)
        return [self._maps(pictures)]

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        maps = []
        values = pictures
        for layer in self.layers:
            values = layer(values)
            maps.append(values)
        return maps


class MultiScale(nn.Module):
    """A PatchGAN for the picture, one for its half, one for its quarter, ... ``scales`` of them.

    All arguments but ``scales`` are those of `PatchGAN`, and so is what goes in. ``smallest_px`` is
    of the whole picture.

    Raises:
        ValueError: as `PatchGAN`.
    """

    def __init__(self, channels_in: int, scales: int = 2, width: int = 64) -> None:
        super().__init__()
        if scales < 1:
            raise ValueError(f"scales must be 1 or more, found {scales}")
        self.judges = nn.ModuleList(PatchGAN(channels_in, width) for _ in range(scales))
        # Halving rounds up.
        self.smallest_px = 2 ** (scales - 1) * (PatchGAN.smallest_px - 1) + 1

    def forward(self, pictures: Tensor) -> Judgement:
        """Return a list for every size, the finest first.

        Raises:
            ValueError: the pictures are smaller than ``smallest_px``.
        """
        _check_size(pictures, self.smallest_px)
        found: Judgement = []
        seen = pictures
        for number, judge in enumerate(self.judges):
            if number:
                # Padding is not counted: the border keeps its brightness.
                seen = functional.avg_pool2d(seen, 3, 2, 1, count_include_pad=False)
            found += judge(seen)
        return found


def _layer(given: int, made: int, *, stride: int, normed: bool, last: bool) -> nn.Module:
    convolution = nn.Conv2d(given, made, KERNEL, stride, 1)
    nn.init.normal_(convolution.weight, std=FIRST_DEVIATION)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    steps: list[nn.Module] = [convolution]
    if normed:
        steps.append(nn.InstanceNorm2d(made))
    if not last:
        # Not in place: the maps of the layers are kept for the backward pass anyway.
        steps.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*steps)


def _check_size(pictures: Tensor, smallest_px: int) -> None:
    height, width = pictures.shape[-2:]
    if min(height, width) < smallest_px:
        raise ValueError(
            f"the discriminator needs pictures of {smallest_px} pixels or more,"
            f" found {width}x{height}"
        )
