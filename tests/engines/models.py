"""Small frame models for the tests, each with what numpy makes of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from engines.model import Card, FrameModel, write_frame_model

Sides = tuple[int | str, int | str]
"""(height, width) as the graph says it."""
SYMBOLIC: Sides = ("H", "W")
FRAME, RESULT = "frame", "translated"


def picture(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Return noise of ``size`` (width, height): every value, everywhere different."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def value(name: str, shape: Sequence[int | str | None], kind: int = T.UINT8) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def constant(name: str, array: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    sides: Sides = SYMBOLIC,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """Return a model with ``frame`` and ``translated``; other inputs and outputs come first."""
    made = helper.make_graph(
        list(nodes),
        "filter",
        [*inputs, value(FRAME, (1, *sides, 3))],
        [*outputs, value(RESULT, (1, *sides, 3))],
        list(constants),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def written(model: onnx.ModelProto, path: Path, **card: Any) -> FrameModel:
    write_frame_model(model, Card(**{"name": path.stem, **card}), path)
    return FrameModel.read(path)


def inverting(sides: Sides = SYMBOLIC) -> onnx.ModelProto:
    """255 - frame, which is exact in any arithmetic with eight bits."""
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Sub", ["white", "levels"], "inverted"),
            node("Cast", ["inverted"], RESULT, to=T.UINT8),
        ],
        [constant("white", 255)],
        sides=sides,
    )


def inverted(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return 255 - frame


def _convolution(kernels: Any, bias: Any) -> onnx.ModelProto:
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
            *(
                node(
                    "Conv",
                    ["planes" if layer == 0 else f"conv{layer - 1}", f"w{layer}", f"b{layer}"],
                    f"conv{layer}",
                    pads=[1, 1, 1, 1],
                )
                for layer in range(len(kernels))
            ),
            node("Round", [f"conv{len(kernels) - 1}"], "rounded"),
            node("Clip", ["rounded", "black", "white"], "clipped"),
            node("Transpose", ["clipped"], "pixels", perm=[0, 2, 3, 1]),
            node("Cast", ["pixels"], RESULT, to=T.UINT8),
        ],
        [
            *(constant(f"w{layer}", item) for layer, item in enumerate(kernels)),
            *(constant(f"b{layer}", item) for layer, item in enumerate(bias)),
            constant("black", 0),
            constant("white", 255),
        ],
    )


def _kernels() -> NDArray[np.float32]:
    kernels = np.random.default_rng(7).random((3, 3, 3, 3), dtype=np.float32)
    return kernels / kernels.sum(axis=(1, 2, 3), keepdims=True)


def blurring() -> onnx.ModelProto:
    """A convolution of 3 x 3 pixels and the three colours."""
    return _convolution([_kernels()], [np.zeros(3)])


def blurred(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    padded = np.pad(frame.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    result = np.zeros(frame.shape)
    for row in range(3):
        for column in range(3):
            part = padded[row : row + height, column : column + width]
            result += part @ _kernels()[:, :, row, column].T
    return np.clip(np.round(result), 0, 255).astype(np.uint8)


def fragile() -> onnx.ModelProto:
    """Adds a large number and takes it away again: float32 bears it, half the bits do not."""
    same = np.zeros((3, 3, 3, 3))
    for colour in range(3):
        same[colour, colour, 1, 1] = 1
    return _convolution([same, same], [np.full(3, 2.0**16), np.full(3, -(2.0**16))])


def with_alpha(sides: Sides = SYMBOLIC) -> onnx.ModelProto:
    """The inverting filter; alpha is the blue of the frame."""
    model = inverting(sides)
    model.graph.node.append(node("Slice", [FRAME, "start", "end", "axis"], "alpha"))
    model.graph.initializer.extend(
        constant(name, [number], np.int64)
        for name, number in (("start", 0), ("end", 1), ("axis", 3))
    )
    model.graph.output.insert(0, value("alpha", (1, *sides, 1)))
    return model


def running_mean(sides: Sides = SYMBOLIC) -> onnx.ModelProto:
    """The mean of all frames since the reset, by two states: a picture and an integer."""
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Add", ["state_count", "one"], "state_count_out"),
            node("Cast", ["state_count_out"], "count", to=T.FLOAT),
            node("Sub", ["levels", "state_mean"], "difference"),
            node("Div", ["difference", "count"], "change"),
            node("Add", ["state_mean", "change"], "state_mean_out"),
            node("Round", ["state_mean_out"], "rounded"),
            node("Cast", ["rounded"], RESULT, to=T.UINT8),
        ],
        [constant("one", [1], np.int32)],
        sides=sides,
        inputs=[value("state_mean", (1, *sides, 3), T.FLOAT), value("state_count", (1,), T.INT32)],
        outputs=[
            value("state_mean_out", (1, *sides, 3), T.FLOAT),
            value("state_count_out", (1,), T.INT32),
        ],
    )


def counting_in_cells() -> onnx.ModelProto:
    """Every frame is one brighter than the one before; the state is a quarter of the size."""
    cells = (1, 3, "H/4", "W//4")
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
            node("AveragePool", ["planes"], "means", kernel_shape=[4, 4], strides=[4, 4]),
            node("Mul", ["means", "zero"], "nothing"),
            node("Add", ["state_cells", "nothing"], "same"),
            node("Add", ["same", "one"], "state_cells_out"),
            node("ReduceMax", ["state_cells"], "most", keepdims=0),
            node("Add", ["levels", "most"], "brighter"),
            node("Clip", ["brighter", "zero", "white"], "clipped"),
            node("Cast", ["clipped"], RESULT, to=T.UINT8),
        ],
        [constant("zero", 0), constant("one", 1), constant("white", 255)],
        inputs=[value("state_cells", cells, T.FLOAT)],
        outputs=[value("state_cells_out", cells, T.FLOAT)],
    )
