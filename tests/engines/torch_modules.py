"""Generators as PyTorch has them, for tests; PyTorch is imported when one is made."""

from __future__ import annotations

from typing import Any

import pytest


def inverting_module(stride: int = 4) -> Any:
    """The inverting filter as PyTorch would have it: RGB, 0 to 1, NCHW."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its threads spin, which is slow where others work too

    class Inverting(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, image: Any) -> Any:
            if not image.is_floating_point() or image.shape[:2] != (1, 3):
                raise ValueError(f"found {image.dtype} {tuple(image.shape)}")
            return 1 - image

    generator = Inverting()
    generator.stride = stride
    return generator
