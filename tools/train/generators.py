"""The network that learns, by name: ``quarter:48x6``, ``resnet:9x64``, ``unet:8x64``, ...

All but the small live one are public architectures. Their weights have the public names, so that
`engines.generators.families.recognise` knows them, and start as their authors have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from engines.errors import SettingsError
from engines.generators import (
    animegan,
    cartoongan,
    fast_neural_style,
    layouts,
    pix2pixhd,
    resnet,
    unet,
)
from engines.generators.matching import MOST_BLOCKS
from engines.generators.quarter import QuarterNet
from engines.picture_format import PictureFormat

WIDEST_DILATION: Final = 4
GLOBAL_DOWNSAMPLINGS: Final = 4
"""Of pix2pixHD's global generator, as published."""
GAN_DEVIATION: Final = 0.02
"""Standard deviation of the weights at the start, in CycleGAN, pix2pix and their successors."""

Initialise = Callable[[nn.Module], None]
"""Gives the parameters and buffers of one module, without those inside it, their first values."""


class UnitRGB(nn.Module):
    """Float32 (N, 3, H, W), RGB, 0 to 1, in and out, around a generator of another range or order.

    ``generator`` is the network inside, whose weights have the public names; ``stride`` and
    ``architecture`` are its own. H and W are multiples of ``stride``, and ``smallest_px`` or more.
    In training mode the result is not clamped: a clamped value has no gradient.

    Raises:
        ValueError: the network inside takes or gives something else than RGB or BGR with one range
            for all channels.
    """

    def __init__(self, generator: nn.Module, smallest_px: int) -> None:
        super().__init__()
        self.generator = generator
        self.stride = int(generator.stride)  # type: ignore[arg-type]
        self.architecture = str(generator.architecture)
        self.smallest_px = smallest_px
        self._takes, self._gives = (
            _one_range(picture) for picture in (generator.takes, generator.gives)
        )

    def forward(self, image: Tensor) -> Tensor:
        """The translated picture, clamped to 0..1 but in training mode."""
        flipped, scale, offset = self._takes
        given = (image.flip(1) if flipped else image) * scale + offset
        found: Tensor = self.generator(given)
        flipped, scale, offset = self._gives
        # The type of the picture: what comes out may be bfloat16, whose steps are 1/256 wide.
        picture = (found.to(image.dtype) - offset) / scale
        if flipped:
            picture = picture.flip(1)
        return picture if self.training else picture.clamp(0, 1)


def public(network: nn.Module) -> nn.Module:
    """Return the network whose weights have public names: what `UnitRGB` is around, else itself.

    It says in ``takes`` and ``gives`` what its pictures look like, so that
    `engines.export.export_frame_model` takes it as it is.
    """
    return network.generator if isinstance(network, UnitRGB) else network


def build_generator(spec: str) -> nn.Module:
    """Return a new network of this name, float32 (N, 3, H, W), RGB, 0 to 1, in and out.

    ``quarter:CHANNELSxBLOCKS`` is the small live one; ``quarter:48x6:wide`` sees further, by
    convolutions that are spread more towards the middle block; ``quarter-instance:48x6`` is that
    with instance normalisation, for styles. ``stride``, ``smallest_px`` and
    ``architecture`` of the result say what its pictures must be and what a card calls it.

    The first weights are random: ``torch.manual_seed`` repeats them. A U-Net also has dropout while
    it trains, and one with batch normalisation has buffers that learn.

    Raises:
        SettingsError: there is no such network.
    """
    found = re.fullmatch(r"([\w-]+)(?::(\d{1,3})x(\d{1,3})(?::(\w+))?)?", spec, re.ASCII)
    kind = None if found is None else KINDS.get(found[1])
    if found is None or kind is None or found[4] not in (None, kind.option):
        raise SettingsError(f"no generator {spec!r}; there are: {_all_kinds()}")
    first, second = (int(found[2]), int(found[3])) if found[2] else kind.published
    if not first or not second:
        raise SettingsError(f"the generator {spec!r} must have a width and a depth of 1 or more")
    for what, number in zip(kind.numbers.split("x"), (first, second)):
        least, most = LIMITS[what]
        if not least <= number <= most:
            raise SettingsError(
                f"the generator {spec!r} must have {least} to {most} {what.lower()}, found {number}"
            )
    return kind.build(first, second, bool(found[4]))


def check_crop(network: nn.Module, crop_px: int) -> None:
    """Raise SettingsError for squares that ``network``, of `build_generator`, cannot translate."""
    stride = int(getattr(network, "stride", 1))
    smallest_px = int(getattr(network, "smallest_px", stride))
    if crop_px % stride or crop_px < smallest_px:
        raise SettingsError(
            f"--crop must be a multiple of {stride}, {smallest_px} or more, for"
            f" {getattr(network, 'architecture', 'this network')}; found {crop_px}"
        )


def _one_range(picture: object) -> tuple[bool, float, float]:
    """Whether the colours are in the order of BGR, the scale, the offset."""
    assert isinstance(picture, PictureFormat)
    flipped = {"rgb": False, "bgr": True}.get(picture.colour)
    if flipped is None or (len(picture.scale), len(picture.offset)) != (1, 1):
        raise ValueError(f"expected RGB or BGR with one range, found {picture}")
    return flipped, picture.scale[0], picture.offset[0]


def _quarter(channels: int, blocks: int, wide: bool) -> nn.Module:
    if not wide:
        return QuarterNet(channels, blocks)
    return QuarterNet(channels, blocks, _wide(blocks))


def _quarter_instance(channels: int, blocks: int, _: bool) -> nn.Module:
    return QuarterNet(channels, blocks, _wide(blocks), normalised=True)


def _wide(blocks: int) -> list[int]:
    return [min(2**i, 2 ** (blocks - 1 - i), WIDEST_DILATION) for i in range(blocks)]


def _resnet(blocks: int, channels: int, _: bool) -> nn.Module:
    return _in_unit_rgb(resnet.build(layouts.resnet(blocks, channels)), _as_gans)


def _pix2pixhd(blocks: int, channels: int, _: bool) -> nn.Module:
    layout = layouts.resnet(blocks, channels, GLOBAL_DOWNSAMPLINGS)
    return _in_unit_rgb(pix2pixhd.build(layout), _as_gans)


def _unet(levels: int, channels: int, instance: bool) -> nn.Module:
    network = unet.build(layouts.unet(levels, channels, batch=not instance))
    # The smallest picture is one value wide at the bottom, where nothing is normalised.
    return _in_unit_rgb(network, _as_gans, smallest_cells=1)


def _fast_neural_style(channels: int, blocks: int, _: bool) -> nn.Module:
    layout = layouts.fast_neural_style(channels, blocks)
    return _in_unit_rgb(fast_neural_style.build(layout), _as_pytorch)


def _animegan(channels: int, blocks: int, _: bool) -> nn.Module:
    return _in_unit_rgb(animegan.build(layouts.animegan(channels, blocks)), _as_he)


def _cartoongan(channels: int, blocks: int, _: bool) -> nn.Module:
    return _in_unit_rgb(cartoongan.build(layouts.cartoongan(channels, blocks)), _as_gans)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A network that can be asked for."""

    numbers: str
    """What the two numbers mean, as people read it; names of `LIMITS`."""
    published: tuple[int, int]
    """The numbers when none are given."""
    build: Callable[[int, int, bool], nn.Module]
    """Of the two numbers, and whether the option was given."""
    option: str = ""
    example: str = ""


LIMITS: Final = {"CHANNELS": (1, 999), "BLOCKS": (1, MOST_BLOCKS), "LEVELS": (2, unet.MOST_LEVELS)}
KINDS: Final = {
    "quarter": _Kind("CHANNELSxBLOCKS", (64, 4), _quarter, "wide", "48x6"),
    "quarter-instance": _Kind("CHANNELSxBLOCKS", (48, 6), _quarter_instance),
    "resnet": _Kind("BLOCKSxCHANNELS", (9, 64), _resnet),
    "unet": _Kind("LEVELSxCHANNELS", (8, 64), _unet, "instance"),
    "pix2pixhd": _Kind("BLOCKSxCHANNELS", (9, 64), _pix2pixhd),
    "fast-neural-style": _Kind("CHANNELSxBLOCKS", (32, 5), _fast_neural_style),
    "animegan": _Kind("CHANNELSxBLOCKS", (32, 4), _animegan),
    "cartoongan": _Kind("CHANNELSxBLOCKS", (64, 8), _cartoongan),
}


def _all_kinds() -> str:
    """Every kind with an example: "quarter:48x6[:wide] (CHANNELSxBLOCKS), ..."."""
    found = []
    for name, kind in KINDS.items():
        option = f"[:{kind.option}]" if kind.option else ""
        example = kind.example or "x".join(map(str, kind.published))
        found.append(f"{name}:{example}{option} ({kind.numbers})")
    return ", ".join(found)


def _in_unit_rgb(generator: nn.Module, initialise: Initialise, smallest_cells: int = 2) -> UnitRGB:
    """Give a network that has shapes only its first values, and pictures of 0 to 1.

    Reflection padding and instance normalisation want ``smallest_cells`` cells of the stride.
    """
    generator.to_empty(device="cpu")
    with torch.no_grad():
        generator.apply(initialise)
    return UnitRGB(generator, smallest_cells * int(generator.stride))  # type: ignore[arg-type]


def _as_gans(module: nn.Module) -> None:
    """Normal with 0.02, around 1 for the weights of a normalisation; biases 0."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, std=GAN_DEVIATION)
        _zero_bias(module)
    else:
        _normalisation(module, GAN_DEVIATION)


def _as_he(module: nn.Module) -> None:
    """Normal, after the values that go in: He et al., "Delving Deep into Rectifiers" (2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        _zero_bias(module)
    else:
        _normalisation(module)


def _as_pytorch(module: nn.Module) -> None:
    """PyTorch's own, which the authors did not change."""
    if isinstance(module, nn.Conv2d):
        module.reset_parameters()
    else:
        _normalisation(module)


def _zero_bias(convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def _normalisation(module: nn.Module, deviation: float = 0.0) -> None:
    """Weights around 1, biases and means 0, variances 1, by what they are called."""
    own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    for name, value in own.items():
        if name in ("weight", "scale"):
            nn.init.normal_(value, 1.0, deviation)
        elif name in ("bias", "shift", "running_mean"):
            nn.init.zeros_(value)
        elif name == "running_var":
            nn.init.ones_(value)
        else:
            raise AssertionError(f"{name} of {type(module).__name__} has no first value")
