"""What the matchers of the families share. A matcher reads a network's shape from its tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Tensors = Mapping[str, Tensor]
"""Name -> tensor, as a checkpoint has them: float32, on the CPU."""


class NotThisFamily(Exception):  # noqa: N818  (it is an answer, not a failure)
    """These tensors are those of another network; the message is the reason, in one line."""


def need(tensors: Tensors, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor that this family cannot be without.

    Raises:
        NotThisFamily: there is none of that name.
    """
    if name not in tensors:
        raise NotThisFamily(f"it has no {name}")
    return tuple(tensors[name].shape)
