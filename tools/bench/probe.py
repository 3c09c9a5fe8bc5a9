"""The network that finds the ceiling of arithmetic: nearly nothing but matrix products.

1x1 convolutions with a ReLU between each two of them, so that nobody can merge them. There is no
shortcut that multiplies less, as there is for 3x3 (Winograd).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines import Pixels

if TYPE_CHECKING:
    import onnx
    import torch

LAYERS: Final = 16
"""Of as many channels in as out; the first and the last have three on one side, and are counted."""
OFFSET, CONTRAST = 128.0, 40.0
"""What comes out of the network, in levels."""
LARGEST: Final = 6.0
"""Of the values behind a ReLU, which are those of half a normal distribution of about 1."""

Weights = NDArray[np.float32]
"""(M, C) of a 1x1 convolution."""


def probe_weights(channels: int) -> list[Weights]:
    """Return matrices that keep values near 1 from layer to layer (He et al., "Delving Deep into
    Rectifiers", 2015): no infinities, no denormal numbers, which are slow.
    """
    rng = np.random.default_rng(0)
    sides = [3, *[channels] * (LAYERS + 1), 3]
    gains = [1.0, *[math.sqrt(2 / channels)] * (LAYERS + 1)]
    return [
        (rng.standard_normal((made, given)) * gain).astype(np.float32)
        for (given, made), gain in zip(itertools.pairwise(sides), gains, strict=True)
    ]


def expected_levels(frame: Pixels, weights: Sequence[Weights]) -> NDArray[np.float32]:
    """Return what the probe makes of a frame, (H, W, 3), in levels."""
    values = frame.astype(np.float32) / 127.5 - 1
    for place, matrix in enumerate(weights):
        values = values @ matrix.T
        if place < len(weights) - 1:
            values = np.maximum(values, 0)
    levels: NDArray[np.float32] = np.clip(values * CONTRAST + OFFSET, 0, 255)
    return levels


def probe_graph(weights: Sequence[Weights], *, int8: bool) -> onnx.ModelProto:
    """Return the probe as a frame model without a card, for frames of any size."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(kind: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [result], result, **attributes))
        return result

    def in_int8(name: str, scale: float, zero: int) -> str:
        how = [
            constant(f"{name}_scale", scale),
            constant(f"{name}_zero", zero, np.uint8),
        ]
        few = node("QuantizeLinear", [name, *how], f"{name}_int8")
        return node("DequantizeLinear", [few, *how], f"{name}_again")

    sides: list[Any] = [1, "H", "W", 3]
    levels = node("Cast", ["frame"], "levels", to=TensorProto.FLOAT)  # TensorRT wants it first
    scaled = node("Mul", [levels, constant("half", 1 / 127.5)], "scaled")
    shifted = node("Sub", [scaled, constant("one", 1.0)], "shifted")
    value = node("Transpose", [shifted], "values", perm=[0, 3, 1, 2])
    for place, matrix in enumerate(weights):
        if int8:
            quantum = (2 / 255, 128) if place == 0 else (LARGEST / 255, 0)
            value = in_int8(value, *quantum)
            largest = np.abs(matrix).max(1)
            whole = np.round(matrix / largest[:, None] * 127)
            parts = [
                constant(f"weights{place}", whole[..., None, None], np.int8),
                constant(f"weights{place}_scale", largest / 127),
            ]
            kernel = node("DequantizeLinear", parts, f"weights{place}_again", axis=0)
        else:
            kernel = constant(f"weights{place}", matrix[..., None, None])
        value = node("Conv", [value, kernel], f"made{place}")
        if place < len(weights) - 1:
            value = node("Relu", [value], f"relu{place}")
    value = node("Mul", [value, constant("contrast", CONTRAST)], "strong")
    value = node("Add", [value, constant("offset", OFFSET)], "grey")
    value = node("Clip", [value, constant("black", 0.0), constant("white", 255.0)], "limited")
    value = node("Transpose", [node("Round", [value], "rounded")], "picture", perm=[0, 2, 3, 1])
    node("Cast", [value], "translated", to=TensorProto.UINT8)
    taken, given = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, sides)
        for name in ("frame", "translated")
    )
    graph = helper.make_graph(nodes, "probe", [taken], [given], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def probe_module(weights: Sequence[Weights]) -> torch.nn.Module:
    """Return the same network for PyTorch, with what `engines.export.FrameTranslator` reads."""
    import torch

    from engines.picture_format import PictureFormat

    layers: list[torch.nn.Module] = []
    for matrix in weights:
        layer = torch.nn.Conv2d(matrix.shape[1], matrix.shape[0], 1, bias=False)
        layer.weight.data = torch.from_numpy(matrix[..., None, None].copy())
        layers += [layer, torch.nn.ReLU()]
    module: Any = torch.nn.Sequential(*layers[:-1])
    module.takes = PictureFormat("bgr", (2.0,), (-1.0,))
    module.gives = PictureFormat("bgr", (255 / CONTRAST,), (-OFFSET / CONTRAST,))
    found: torch.nn.Module = module
    return found
