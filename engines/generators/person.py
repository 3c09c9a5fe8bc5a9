"""PersonNet: a small network that says where the people in a frame are.

An encoder and a decoder with connections at every resolution, after Ronneberger, Fischer and Brox,
"U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015). It begins and ends at half
of the resolution (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network", 2016), and weighs its coarsest channels by what the whole
picture holds (Hu, Shen and Sun, "Squeeze-and-Excitation Networks", 2018): an arm at the edge is
recognised by the head in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.picture_format import UNIT_RGB, PictureFormat

CELL_PX: Final = 2
STRIDE: Final = 16
"""Two pixels a cell, and three times half of that."""
CHANNELS: Final = (16, 32, 48, 64)
BLOCKS: Final = 3


def _layer(given: int, made: int, step: int = 1) -> nn.Sequential:
    """A 3x3 convolution, normalised over the batch (folded into it on export), and ReLU."""
    return nn.Sequential(
        nn.Conv2d(given, made, 3, step, 1, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(),
    )


class Block(nn.Module):
    """ReLU(x + second(first(x))) at one resolution. (N, C, h, w) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _layer(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


class PersonNet(nn.Module):
    """Where people are. Float32 (N, 3, H, W), RGB, 0 to 1, in; H and W are multiples of 16.

    In training mode (N, 1, H, W): the logits, which losses are stable on. In eval mode
    (N, 4, H, W), 0 to 1: the mask as a grey picture, and once more as alpha, so that a frame model
    of it (`engines.export`) shows what it found and has the output ``alpha``.

    ``channels`` is the width at a half, a quarter, an eighth and a sixteenth of the resolution,
    ``blocks`` the depth at the last.

    Raises:
        ValueError: there are not four widths of 1 or more.
    """

    stride: Final = STRIDE
    smallest_px: Final = STRIDE
    takes: Final = UNIT_RGB
    gives: Final = PictureFormat("rgba")

    def __init__(self, channels: Sequence[int] = CHANNELS, blocks: int = BLOCKS) -> None:
        super().__init__()
        if len(channels) != len(CHANNELS) or min(channels) < 1:
            raise ValueError(f"expected four widths of 1 or more, found {tuple(channels)}")
        half, quarter, eighth, sixteenth = channels
        self.channels, self.depth = tuple(channels), blocks
        self.stem = _layer(3 * CELL_PX**2, half)
        self.down = nn.ModuleList(
            [
                nn.Sequential(_layer(half, quarter, 2), _layer(quarter, quarter)),
                nn.Sequential(_layer(quarter, eighth, 2), _layer(eighth, eighth)),
                nn.Sequential(
                    _layer(eighth, sixteenth, 2), *(Block(sixteenth) for _ in range(blocks))
                ),
            ]
        )
        self.scene = nn.Linear(sixteenth, sixteenth)
        self.narrow = nn.ModuleList(
            [
                nn.Conv2d(below, above, 1)
                for below, above in ((sixteenth, eighth), (eighth, quarter), (quarter, half))
            ]
        )
        self.merge = nn.ModuleList([_layer(width, width) for width in (eighth, quarter, half)])
        self.tail = nn.Conv2d(half, CELL_PX**2, 3, padding=1)

    @property
    def architecture(self) -> str:
        """As a card says it: "PersonNet, channels 16 32 48 64, 3 blocks"."""
        return f"PersonNet, channels {' '.join(map(str, self.channels))}, {self.depth} blocks"

    def forward(self, image: Tensor) -> Tensor:
        """Logits in training mode, else the mask as a picture with alpha."""
        x = self.stem(functional.pixel_unshuffle(image, CELL_PX))
        kept = []
        for layer in self.down:
            kept.append(x)
            x = layer(x)
        weight = torch.sigmoid(self.scene(x.mean((2, 3))))
        x = x * weight[:, :, None, None]
        for narrow, merge, above in zip(self.narrow, self.merge, reversed(kept), strict=True):
            x = merge(above + functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest"))
        logits = functional.pixel_shuffle(self.tail(x), CELL_PX)
        return logits if self.training else torch.sigmoid(logits).expand(-1, 4, -1, -1)
