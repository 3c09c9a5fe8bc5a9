"""The U-Net of pix2pix: every level halves the picture, and hands its features to the way back.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017), after
Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015); in the
layout of the authors' PyTorch version, where every level is a block inside the block around it:

* outermost: 0 convolution, 1 block, 2 ReLU, 3 transposed convolution, 4 tanh;
* between: 0 leaky ReLU, 1 convolution, 2 norm, 3 block, 4 ReLU, 5 transposed convolution, 6 norm,
  7 dropout where the level is no wider than the one around it;
* innermost: 0 leaky ReLU, 1 convolution, 2 ReLU, 3 transposed convolution, 4 norm.

All convolutions are 4x4 with stride 2 and zero padding of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import SettingsError
from engines.generators.matching import (
    NotThisFamily,
    Tensors,
    input_picture,
    need,
    need_convolution,
    output_picture,
    unused_statistics,
)

KERNEL: Final = 4
SLOPE: Final = 0.2
DROPOUT: Final = 0.5
MOST_LEVELS: Final = 10
"""The stride is 2^levels: 1024 pixels."""
STATISTICS: Final = ("running", "batch")
OUTERMOST: Final = "model.model."
NO_NORM: Final = "no normalisation"
RUNNING: Final = ("running_mean", "running_var")


class Normalisation(nn.Module):
    """Batch or instance normalisation, computed in float32 whatever the type of the module.

    With ``statistics`` "running" the mean and variance are those of the file; with "batch" each
    picture's own, which is instance normalisation. (N, C, H, W) in and out. In training mode the
    running ones follow those of the batch, which is used (Ioffe and Szegedy, "Batch Normalization",
    2015).
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, channels: int, *, affine: bool, running: bool) -> None:
        super().__init__()
        ones, zeros = torch.ones(channels), torch.zeros(channels)
        self.register_parameter("weight", nn.Parameter(ones) if affine else None)
        self.register_parameter("bias", nn.Parameter(zeros) if affine else None)
        self.register_buffer("running_mean", zeros if running else None)
        self.register_buffer("running_var", ones if running else None)
        self.statistics = "running" if running else "batch"

    def forward(self, x: Tensor) -> Tensor:
        scale, shift, mean, variance = (
            None if value is None else value.float()
            for value in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        if self.statistics == "running":
            assert mean is not None
            assert variance is not None
            found = functional.batch_norm(
                x.float(), mean, variance, scale, shift, training=self.training
            )
        else:
            found = functional.instance_norm(x.float(), weight=scale, bias=shift)
        return found.to(x.dtype)


class SkipBlock(nn.Module):
    """One level and all inside it; ``model`` has the steps at the places of the public layout.

    Takes (N, C, h, w); gives (N, 2 C, h, w): what came in, activated, beside what came back. In the
    original the leaky ReLU works in place, so that it is the activated tensor that skips. (The ReLU
    that comes next in the block around it makes both the same; the arithmetic is kept anyway.)
    """

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        activation, *others = self.model
        skipped: Tensor = activation(x)
        found = skipped
        for step in others:
            found = step(found)
        return torch.cat((skipped, found), 1)


class Outermost(nn.Module):
    """The first convolution, everything inside, and the last transposed one with its tanh."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        return found


class UNet(nn.Module):
    """Float32 (N, C, H, W), -1 to 1, in and out; H and W are multiples of ``stride``.

    ``takes`` and ``gives`` say which colours (by the number of channels: grey, RGB or RGBA).

    The dropout of the original is on in training mode only: its authors keep it on when they test,
    but fresh noise in every frame flickers, and no two runs would give the same picture to compare.
    """

    def __init__(self, levels: list[_Level], style: _Style) -> None:
        super().__init__()
        block: nn.Module | None = None
        for level in reversed(levels[1:]):
            inside = [] if block is None else [style.norm(level.inner), block]
            up = level.up(bias=style.biased)
            steps = [level.down(bias=style.biased), *inside, nn.ReLU(), up, style.norm(level.back)]
            if level.dropout:
                steps.append(nn.Dropout(DROPOUT))
            block = SkipBlock(nn.LeakyReLU(SLOPE), *steps)
        assert block is not None
        first = levels[0]
        self.model = Outermost(
            first.down(bias=style.biased), block, nn.ReLU(), first.up(bias=True), nn.Tanh()
        )
        self.stride: int = 2 ** len(levels)
        self.architecture = f"U-Net, {len(levels)} levels, {first.inner} channels, {style.name}"
        self.takes = input_picture(first.outer, f"{OUTERMOST}0.weight")
        self.gives = output_picture(first.back, f"{OUTERMOST}3.weight")
        self._assumed = style.assumed

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture."""
        found: Tensor = self.model(image)
        return found

    @property
    def statistics(self) -> str:
        """Where mean and variance come from; can be set, before an export too.

        * ``running``: from the file; one answer for a pixel's surroundings, whatever the rest of
          the picture. The default where the file has them.
        * ``batch``: from each picture itself, as the authors of pix2pix do when they test. The
          default, and the only way, where the file has none.

        Raises:
            SettingsError: it is neither, or the file has no running statistics.
        """
        running = any(norm.statistics == "running" for norm in self._norms())
        return "running" if running else "batch"

    @statistics.setter
    def statistics(self, wanted: str) -> None:
        if wanted not in STATISTICS:
            raise SettingsError(f"no statistics {wanted!r}; there are: {', '.join(STATISTICS)}")
        norms = list(self._norms())
        if wanted == "running" and not any(norm.running_mean is not None for norm in norms):
            raise SettingsError("this U-Net has no running statistics; batch is the way it works")
        for norm in norms:
            norm.statistics = wanted

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how it runs, with either statistics."""
        quiet = "dropout is off: fresh noise in every frame would flicker"
        if not any(norm.running_mean is not None for norm in self._norms()):
            return (quiet, *self._assumed)
        own = (
            "batch normalisation uses the statistics of the training unless told otherwise; the"
            " authors test with those of each picture"
        )
        return (quiet, own, *self._assumed)

    def _norms(self) -> Iterator[Normalisation]:
        return (module for module in self.modules() if isinstance(module, Normalisation))


@dataclass(frozen=True, slots=True)
class _Level:
    """Channels of one level: around it, inside it, and what it gives back."""

    outer: int
    inner: int
    back: int
    innermost: bool

    def down(self, *, bias: bool) -> nn.Module:
        return nn.Conv2d(self.outer, self.inner, KERNEL, 2, 1, bias=bias)

    @property
    def dropout(self) -> bool:
        """Whether the original has it: where a level between is as wide as the one around it."""
        return self.inner == self.outer and not self.innermost

    def up(self, *, bias: bool) -> nn.Module:
        channels = self.inner if self.innermost else 2 * self.inner
        return nn.ConvTranspose2d(channels, self.back, KERNEL, 2, 1, bias=bias)


@dataclass(frozen=True, slots=True)
class _Style:
    """What all levels have in common. The last convolution has a bias always."""

    name: str
    biased: bool
    affine: bool = False
    running: bool = False
    assumed: tuple[str, ...] = ()

    def norm(self, channels: int) -> nn.Module:
        if self.name == NO_NORM:
            return nn.Identity()  # keeps the places of the others
        return Normalisation(channels, affine=self.affine, running=self.running)


def build(tensors: Tensors) -> UNet:
    """Return the U-Net that these tensors are the weights of, on the meta device, without them.

    Levels, widths, biases, channels and normalisation are read from names and shapes.

    Raises:
        NotThisFamily: they are those of another network.
    """
    levels = [_level(tensors, OUTERMOST, (0, 3))]
    prefix = f"{OUTERMOST}1.model."
    while not levels[-1].innermost:
        if len(levels) == MOST_LEVELS:
            raise NotThisFamily(f"it has more than {MOST_LEVELS} levels")
        need(tensors, f"{prefix}1.weight")
        innermost = f"{prefix}3.model.1.weight" not in tensors
        places = (1, 3) if innermost else (1, 5)
        levels.append(_level(tensors, prefix, places, levels[-1], innermost=innermost))
        prefix += "" if innermost else "3.model."
    with torch.device("meta"):
        return UNet(levels, _style(tensors, prefix))


def ignorable(tensors: Tensors) -> set[str]:
    """Return the names that say nothing about the picture."""
    return unused_statistics(tensors)


def _level(
    tensors: Tensors,
    prefix: str,
    places: tuple[int, int],
    around: _Level | None = None,
    *,
    innermost: bool = False,
) -> _Level:
    """Read one level; ``around`` is the one that it is in, None for the outermost."""
    down, up = (f"{prefix}{place}.weight" for place in places)
    inner, outer = need_convolution(tensors, down, KERNEL)
    returned, back = need_convolution(tensors, up, KERNEL)
    if around is not None and outer != around.inner:
        raise NotThisFamily(f"{down} takes {outer} channels, but {around.inner} arrive there")
    arriving = inner if innermost else 2 * inner
    if returned != arriving:
        raise NotThisFamily(f"{up} takes {returned} channels, but {arriving} arrive there")
    if around is not None and back != outer:
        raise NotThisFamily(f"{up} gives {back} channels, expected {outer} as {down} takes")
    return _Level(outer, inner, back, innermost)


def _style(tensors: Tensors, innermost: str) -> _Style:
    """Read normalisation and biases at the innermost level, where every U-Net has both.

    The authors' batch normalisation has weights and running statistics, and convolutions without
    biases; their instance normalisation has neither, but biases; without either there is none.
    """
    biased, affine = f"{innermost}1.bias" in tensors, f"{innermost}4.weight" in tensors
    running = affine and any(f"{innermost}4.{name}" in tensors for name in RUNNING)
    if running or (affine and not biased):
        doubt = "biases beside running statistics: batch normalisation is assumed"
        assumed = (doubt,) if biased else ()
        return _Style("batch normalisation", biased, affine, running, assumed)
    if biased:
        return _Style("instance normalisation", biased, affine)
    assumed = ("neither biases nor norm weights: no normalisation is assumed",)
    return _Style(NO_NORM, biased, assumed=assumed)
