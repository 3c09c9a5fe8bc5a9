"""Which public network is this? Told from the names and shapes of its tensors alone.

Importing this imports no torch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from engines.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor, nn

FIRST_KEYS: Final = 6
LONGEST_KEY: Final = 60
IMAGENET: Final = 1000
"""Classes of the usual classifiers."""
COUNTER: Final = ".num_batches_tracked"
TOO_LARGE: Final = (RuntimeError, ValueError, OverflowError, MemoryError)
"""What PyTorch raises for shapes that no network has."""


@dataclass(frozen=True, slots=True)
class Family:
    """A public generator architecture that weights can belong to."""

    name: str
    title: str
    paper: str
    """Authors and year."""
    told_by: str
    """Which tensors tell it, for a person."""
    names: str
    """Regular expression of its tensors' names, to find the nearest family of a stray file."""
    target: str
    """``module:function``; takes the tensors, returns a module without weights."""


_FAMILIES = (
    Family(
        "fast-neural-style",
        "fast neural style (TransformerNet of pytorch/examples)",
        "Johnson, Alahi and Fei-Fei, 2016",
        "conv1.conv2d.weight (channels, 3, 9, 9), res1..., deconv3.conv2d.weight (3, ..., 9, 9)",
        r"(conv[1-3]|deconv[1-3]|res[0-9]+\.conv[12])\.conv2d\.\w+|(res[0-9]+\.)?in[1-5]\.\w+",
        "engines.generators.fast_neural_style:build",
    ),
    Family(
        "resnet",
        "ResNet generator of CycleGAN, pix2pix and CUT",
        "Zhu, Park, Isola and Efros, 2017; Park, Efros, Zhang and Zhu, 2020 (CUT)",
        "model.1.weight (channels, 3, 7, 7), model.N.conv_block.M.weight, up to 2 downsamplings",
        r"model\.[0-9]+\.((conv_block|block)\.[0-9]+\.)?\w+",
        "engines.generators.resnet:build",
    ),
    Family(
        "pix2pixhd",
        "global generator of pix2pixHD",
        "Wang, Liu, Zhu, Tao, Kautz and Catanzaro, 2018",
        "as resnet, with 3 or more downsamplings",
        r"model\.[0-9]+\.((conv_block|block)\.[0-9]+\.)?\w+",
        "engines.generators.pix2pixhd:build",
    ),
    Family(
        "pix2pixhd-local",
        "local enhancer of pix2pixHD with its global generator",
        "Wang, Liu, Zhu, Tao, Kautz and Catanzaro, 2018",
        "model.N..., model1_1.N..., model1_2.N...",
        r"model([0-9]_[12])?\.[0-9]+\.((conv_block|block)\.[0-9]+\.)?\w+",
        "engines.generators.pix2pixhd:build_local",
    ),
    Family(
        "unet",
        "U-Net of pix2pix",
        "Isola, Zhu, Zhou and Efros, 2017",
        "model.model.0.weight (channels, 3, 4, 4), model.model.1.model.3.model...",
        r"model\.model\.[0-9]+\.(model\.[0-9]+\.)*\w+",
        "engines.generators.unet:build",
    ),
    Family(
        "animegan-v2",
        "AnimeGANv2 (bryandlee's PyTorch version)",
        "Chen, Liu and Chen, 2020",
        "block_a.0.1.weight (32, 3, 7, 7), block_c.1.layers..., out_layer.0.weight (3, 32, 1, 1)",
        r"(block_[a-e]|out_layer)\.[0-9].*",
        "engines.generators.animegan:build",
    ),
    Family(
        "cartoongan",
        "CartoonGAN (Yijunmaverick's PyTorch version)",
        "Chen, Lai and Liu, 2018",
        "conv01_1.weight (64, 3, 7, 7), in01_1.scale, deconv03_1.weight (3, 64, 7, 7)",
        r"(conv|deconv|in)[0-9]{2}_[12]\.\w+",
        "engines.generators.cartoongan:build",
    ),
    Family(
        "quarter",
        "QuarterNet of pix2live",
        "after Shi et al., 2016, and Lim et al., 2017",
        "head.weight (channels, 48, 3, 3), blocks.N.first.weight, tail.weight (48, ...)",
        r"(head|tail|head_norm)\.\w+|blocks\.[0-9]+\.(first|second)(_norm)?\.\w+|dilations",
        "engines.generators.quarter:build",
    ),
)
FAMILIES: Final[dict[str, Family]] = {family.name: family for family in _FAMILIES}
"""Name -> family, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A generator with its weights: in eval mode, without gradients."""

    family: Family
    generator: nn.Module
    notes: tuple[str, ...] = ()
    """What a person should know: what was left out, what could not be told."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a family is not the one, and how near it came."""

    family: Family
    reason: str
    nearness: tuple[int, int, int]
    """Names as the family has them; whether its layout fitted; names and shapes that agree."""


def recognise(tensors: Mapping[str, Tensor], *, family: str | None = None) -> Recognised:
    """Return the generator that these tensors are the weights of.

    Args:
        tensors: name -> float32 tensor on the CPU. The generator takes them as they are, without
            a copy.
        family: try only this one of `FAMILIES`; None tries all.

    Raises:
        ConversionError: no family fits; the line names the nearest and its first difference.
    """
    if family is not None and family not in FAMILIES:
        raise ConversionError(f"no family {family!r}; there are: {', '.join(FAMILIES)}")
    if not tensors:
        raise ConversionError("there are no tensors in these weights")
    refusals = []
    for candidate in FAMILIES.values() if family is None else (FAMILIES[family],):
        found = _attempt(candidate, tensors)
        if isinstance(found, Recognised):
            return found
        refusals.append(found)
    raise ConversionError(_one_line(_explain(tensors, refusals, family)))


def _attempt(family: Family, tensors: Mapping[str, Tensor]) -> Recognised | _Refusal:
    import torch

    from engines.generators.matching import NoPicture, NotThisFamily

    names = sum(re.fullmatch(family.names, name) is not None for name in tensors)
    module_name, _, function = family.target.partition(":")
    module = importlib.import_module(module_name)
    try:
        with torch.device("meta"):  # shapes only: what a file claims costs no memory
            generator: nn.Module = getattr(module, function)(tensors)
    except NoPicture as error:
        return _Refusal(family, str(error), (names, 1, 0))
    except NotThisFamily as error:
        return _Refusal(family, str(error), (names, 0, 0))
    except TOO_LARGE as error:
        return _Refusal(family, f"no network has these shapes ({error})", (names, 0, 0))
    expected = generator.state_dict()
    dropped = _ignorable(module, tensors) - expected.keys()
    given = {name: value for name, value in tensors.items() if name not in dropped}
    for name in expected:
        if name.endswith(COUNTER):  # of no use here, and old files have none
            given[name] = torch.zeros((), dtype=torch.int64)
    difference = _first_difference(expected, given)
    if difference:
        agreeing = sum(
            name in given and given[name].shape == value.shape for name, value in expected.items()
        )
        return _Refusal(family, difference, (names, 1, agreeing))
    try:
        generator.load_state_dict(given, strict=True, assign=True)
    except TOO_LARGE as error:  # tensors that are no plain ones: sparse, quantised
        return _Refusal(family, f"its tensors cannot be used ({error})", (names, 1, 0))
    generator.eval().requires_grad_(requires_grad=False)
    notes = tuple(getattr(generator, "notes", ()))
    statistics = sum(not name.endswith(COUNTER) for name in dropped)
    if statistics:
        notes = (f"dropped {statistics} running statistics of instance normalisation", *notes)
    return Recognised(family, generator, notes)


def _ignorable(module: ModuleType, tensors: Mapping[str, Tensor]) -> set[str]:
    ignorable: Any = getattr(module, "ignorable", None)
    return set() if ignorable is None else set(ignorable(tensors))


def _first_difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return what does not fit, in the network's order; empty when all does."""
    for name, value in expected.items():
        if name not in given:
            return f"it has no {name} {tuple(value.shape)}"
        if given[name].shape != value.shape:
            return f"{name} is {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        if given[name].dtype != value.dtype:
            found, wanted = (str(x.dtype).removeprefix("torch.") for x in (given[name], value))
            return f"{name} is {found}, expected {wanted}"
    for name, value in given.items():
        if name not in expected:
            return f"{_key(name)} {tuple(value.shape)} is no tensor of this network"
    return ""


def _explain(tensors: Mapping[str, Tensor], refusals: list[_Refusal], family: str | None) -> str:
    other = _something_else(tensors)
    keys = f"first keys: {_keys(tensors)}"
    if family is not None:
        refusal = refusals[0]
        also = f" ({other})" if other else ""
        return f"these weights do not fit the family {family}: {refusal.reason}{also}; {keys}"
    if other:
        return f"no generator: {other}; {keys}"
    nearest = max(refusals, key=lambda refusal: refusal.nearness)  # the first of equals
    if not nearest.nearness[0]:
        return (
            f"no known generator; there are: {', '.join(FAMILIES)}; {keys}; a network of your own:"
            " --module FILE.py:CLASS --range LOW..HIGH"
        )
    return (
        f"no known generator; the nearest family is {nearest.family.name}"
        f" ({nearest.family.title}), but {nearest.reason}; {keys}"
    )


def _something_else(tensors: Mapping[str, Tensor]) -> str:
    """Return what people take for a generator when these tensors are that; else nothing."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    convolutions = {
        name: shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 4 and 0 not in shape
    }
    moments = sum(name.endswith((".exp_avg", ".exp_avg_sq", ".momentum_buffer")) for name in shapes)
    if 2 * moments > len(shapes):
        return "the state of an optimiser, not weights"
    if convolutions:
        (first, opening), (last, closing) = (
            min(convolutions.items(), key=_depth),
            max(convolutions.items(), key=_depth),
        )
        plain = re.compile(r"(model|net|(scale[0-9]+_)?layer[0-9]+)\.[0-9]+\.weight")
        sizes = {shape[2:] for shape in convolutions.values()}
        if (
            all(plain.fullmatch(name) for name in convolutions)
            and sizes in ({(4, 4)}, {(1, 1)})
            and closing[0] == 1
        ):
            return (
                f"a discriminator, the judge in the training ({first} {opening}, {last} {closing});"
                " the generator is in another file, often *_net_G.pth"
            )
    heads = {name: shape for name, shape in convolutions.items() if "classifier" in name}
    if heads and any(name.startswith("backbone.") for name in shapes):
        last, closing = max(heads.items(), key=_depth)
        return f"a segmentation network with {closing[0]} classes ({last} {closing})"
    for name, shape in shapes.items():
        head = re.search(r"(^|\.)(fc|head|classifier(\.[0-9]+)?)\.weight$", name)
        pointwise = len(shape) == 4 and shape[2:] == (1, 1)
        if (head and (len(shape) == 2 or pointwise)) or (pointwise and shape[0] == IMAGENET):
            return f"a classifier with {shape[0]} classes ({name} {shape})"
    features = [
        name for name in shapes if re.fullmatch(r"(features\.)?[0-9]+\.(weight|bias)", name)
    ]
    if len(features) == len(shapes) and (64, 3, 3, 3) in convolutions.values():
        return "the features of a VGG classifier, which measure pictures"
    return ""


def _depth(convolution: tuple[str, tuple[int, ...]]) -> list[int]:
    """Where a layer stands, by the numbers in its name."""
    return [int(number) for number in re.findall(r"[0-9]{1,9}", convolution[0])]


def _keys(names: Iterable[str]) -> str:
    shown = [_key(name) for name, _ in zip(names, range(FIRST_KEYS))]
    return ", ".join(shown)


def _key(name: str) -> str:
    return name if len(name) <= LONGEST_KEY else f"{name[: LONGEST_KEY - 3]}..."


def _one_line(text: str) -> str:
    """Names come from a file that anybody may have made."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
