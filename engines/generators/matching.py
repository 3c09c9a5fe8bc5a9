"""What the matchers of the families share. A matcher reads a network's shape from its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from engines.picture_format import PictureFormat

Tensors = Mapping[str, Tensor]
"""Name -> tensor, as a checkpoint has them: float32, on the CPU."""

MOST_BLOCKS: Final = 64
"""Repeated blocks of a network; more is a broken or hostile file."""

COLOUR_OF: Final = {1: "grey", 3: "rgb", 4: "rgba"}
"""Channels of a picture -> its colours."""


class NotThisFamily(Exception):  # noqa: N818  (it is an answer, not a failure)
    """These tensors are those of another network; the message is the reason, in one line."""


class NoPicture(NotThisFamily):
    """The layout is this family's, but what goes in or comes out is no picture."""


def need(tensors: Tensors, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor that this family cannot be without.

    Raises:
        NotThisFamily: there is none of that name.
    """
    if name not in tensors:
        raise NotThisFamily(f"it has no {name}")
    return tuple(tensors[name].shape)


def need_convolution(tensors: Tensors, name: str, kernel: int) -> tuple[int, int]:
    """Return the channels of a convolution's weight: the first two sides of its shape.

    Raises:
        NotThisFamily: there is none of that name, or it is no weight of a ``kernel`` x ``kernel``
            convolution with channels.
    """
    shape = need(tensors, name)
    if len(shape) != 4 or shape[2:] != (kernel, kernel) or 0 in shape:
        raise NotThisFamily(f"{name} is {shape}, expected (channels, channels, {kernel}, {kernel})")
    return shape[0], shape[1]


def input_picture(
    channels: int, name: str, scale: float = 2.0, offset: float = -1.0
) -> PictureFormat:
    """Return the format of what a generator takes, by the channels of its first convolution.

    Args:
        channels: how many the weight ``name`` takes.
        name: of that weight, for the message.
        scale: of the picture's range, which is -1 to 1 by default.
        offset: the lower end of the range.

    Raises:
        NoPicture: a picture has 1, 3 or 4 channels; label maps have one for each class.
    """
    if channels not in COLOUR_OF:
        raise NoPicture(
            f"its first convolution ({name}) takes {channels} channels: label maps, edges or"
            " several pictures at once; a picture has 1, 3 or 4"
        )
    return PictureFormat(COLOUR_OF[channels], (scale,), (offset,))


def output_picture(
    channels: int, name: str, scale: float = 2.0, offset: float = -1.0
) -> PictureFormat:
    """Return the format of what a generator gives, by the channels of its last convolution.

    Args:
        channels: how many the weight ``name`` gives.
        name: of that weight, for the message.
        scale: of the picture's range, which is -1 to 1 by default.
        offset: the lower end of the range.

    Raises:
        NoPicture: a picture has 1, 3 or 4 channels; segmentation has one for each class.
    """
    if channels not in COLOUR_OF:
        raise NoPicture(
            f"its last convolution ({name}) has {channels} outputs: classes of a segmentation or"
            " features; a picture has 1, 3 or 4"
        )
    return PictureFormat(COLOUR_OF[channels], (scale,), (offset,))


def unused_statistics(tensors: Tensors) -> set[str]:
    """Return the running statistics of layers without weights, and all counters of batches.

    PyTorch before 0.4 stored them for instance normalisation too, which does not use them.
    """
    names = {name for name in tensors if name.endswith(".num_batches_tracked")}
    for name in tensors:
        layer, _, last = name.rpartition(".")
        if last in ("running_mean", "running_var") and f"{layer}.weight" not in tensors:
            names.add(name)
    return names
