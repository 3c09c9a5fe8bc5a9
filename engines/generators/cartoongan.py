"""CartoonGAN's generator: a photograph as a frame of an animated film.

Chen et al., "CartoonGAN: Generative Adversarial Networks for Photo Cartoonization" (2018), in the
layout of Yijunmaverick's PyTorch port of the authors' weights. Every layer has a name of its own:
convNN_1 and convNN_2 going down and in the residual blocks, deconvNN_1 and deconvNN_2 on the way
up, inNN_M for the normalisation after them.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.generators.matching import (
    MOST_BLOCKS,
    NotThisFamily,
    Tensors,
    need,
    need_convolution,
)
from engines.picture_format import PictureFormat

STRIDE: Final = 4
EPSILON: Final = 1e-9
SIGNED_BGR: Final = PictureFormat("bgr", (2.0,), (-1.0,))
FIRST_BLOCK: Final = 4
"""conv04_1 is the first convolution of the first residual block."""


class InstanceNorm(nn.Module):
    """Instance normalisation with ``scale`` and ``shift``, in float32 whatever the module's type.

    The variance is the biased one. The epsilon is so small that half precision would lose it, and
    give infinity where a channel is flat.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale.float(), self.shift.float()
        found = functional.instance_norm(x.float(), weight=scale, bias=shift, eps=EPSILON)
        return found.to(x.dtype)


class CartoonGenerator(nn.Module):
    """Float32 (N, 3, H, W), BGR, -1 to 1, in and out; H and W are multiples of 4, at least 8.

    A 7x7 convolution, two halvings, residual blocks, two doublings, a 7x7 convolution and tanh. The
    7x7 convolutions and those of the blocks have reflection padding, the others zeros.
    """

    stride: Final = STRIDE
    takes: Final = SIGNED_BGR
    gives: Final = SIGNED_BGR

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        channels = wide = self._add_convolution(tensors, "conv01_1", 3, 7, reflected=True)
        self.add_module("in01_1", InstanceNorm(wide))
        for number in ("02", "03"):
            half = self._add_convolution(tensors, f"conv{number}_1", wide, stride=2)
            wide = self._add_convolution(tensors, f"conv{number}_2", half)
            self.add_module(f"in{number}_1", InstanceNorm(wide))
        self.blocks = _blocks(tensors)
        for block in self.blocks:
            between = wide
            for part in (1, 2):
                name = f"conv{block}_{part}"
                between = self._add_convolution(tensors, name, between, reflected=True)
                self.add_module(f"in{block}_{part}", InstanceNorm(between))
            if between != wide:
                raise NotThisFamily(f"block {block} gives {between} channels, expected {wide}")
        # Norms go on counting after the blocks; the convolutions start again.
        last = FIRST_BLOCK + len(self.blocks)
        self.ups = tuple((f"deconv0{up}", f"in{last + up - 1:02d}_1") for up in (1, 2))
        for name, norm in self.ups:
            half = self._add_convolution(tensors, f"{name}_1", wide, transposed=True)
            wide = self._add_convolution(tensors, f"{name}_2", half)
            self.add_module(norm, InstanceNorm(wide))
        given = self._add_convolution(tensors, "deconv03_1", wide, 7, reflected=True)
        if given != 3:
            raise NotThisFamily(f"it gives {given} channels, expected 3 (BGR)")
        self.architecture = f"CartoonGAN generator, {channels} channels, {len(self.blocks)} blocks"

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture."""
        x = functional.relu(self._through(image, "conv01_1", "in01_1"))
        for number in ("02", "03"):
            names = f"conv{number}_1", f"conv{number}_2", f"in{number}_1"
            x = functional.relu(self._through(x, *names))
        for block in self.blocks:
            changed = functional.relu(self._through(x, f"conv{block}_1", f"in{block}_1"))
            x = self._through(changed, f"conv{block}_2", f"in{block}_2") + x
        for name, norm in self.ups:
            x = functional.relu(self._through(x, f"{name}_1", f"{name}_2", norm))
        return torch.tanh(self._through(x, "deconv03_1"))

    def _through(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def _add_convolution(
        self,
        tensors: Tensors,
        name: str,
        inputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        reflected: bool = False,
        transposed: bool = False,
    ) -> int:
        """Add the convolution of these weights and its bias; return the channels that it gives."""
        given, taken = need_convolution(tensors, f"{name}.weight", kernel)
        if transposed:
            given, taken = taken, given
        if taken != inputs:
            raise NotThisFamily(f"{name}.weight takes {taken} channels, but {inputs} arrive there")
        padding = kernel // 2
        made: nn.Module
        if transposed:
            made = nn.ConvTranspose2d(inputs, given, kernel, 2, padding, 1)
        else:
            made = nn.Conv2d(
                inputs,
                given,
                kernel,
                stride,
                padding,
                padding_mode="reflect" if reflected else "zeros",
            )
        self.add_module(name, made)
        return given


def build(tensors: Tensors) -> CartoonGenerator:
    """Return the generator that these tensors are the weights of, on the meta device, without them.

    Widths and the number of residual blocks are read from names and shapes.

    Raises:
        NotThisFamily: they are those of another network.
    """
    need(tensors, "in01_1.scale")
    with torch.device("meta"):
        return CartoonGenerator(tensors)


def _blocks(tensors: Tensors) -> tuple[str, ...]:
    """Return the numbers of the residual blocks, as the names have them: "04" to "11"."""
    numbers = (f"{number:02d}" for number in range(FIRST_BLOCK, FIRST_BLOCK + MOST_BLOCKS))
    return tuple(takewhile(lambda number: f"conv{number}_1.weight" in tensors, numbers))
