"""Starting from a filter that exists: a new style is learned in a fraction of the time."""

from __future__ import annotations

from torch import nn

from engines import load_filter
from engines.errors import ModelError, SettingsError
from engines.generators.quarter import QuarterNet
from tools.train.generators import build_generator


def begin_with(spec: str, start: str = "") -> nn.Module:
    """Return the network of `build_generator`, with the weights of the filter ``start``.

    Args:
        spec: which network, for instance ``quarter:64x4``.
        start: name of a shipped filter, or a frame model of the same network; none when empty.

    Raises:
        SettingsError: there is no such filter, or it has another network.
    """
    network = build_generator(spec)
    if not start:
        return network
    try:
        found = QuarterNet.from_frame_model(load_filter(start).path)
    except ModelError as error:
        raise SettingsError(f"--start {start}: {error}") from error
    expected = getattr(network, "architecture", spec)
    if found.architecture != expected:
        raise SettingsError(
            f"--start {start} has another network ({found.architecture}) than --generator {spec}"
            f" ({expected})"
        )
    network.load_state_dict(found.state_dict())
    return network
