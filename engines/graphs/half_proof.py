"""What a strongly typed FP16 graph gives on hardware that rounds, computed on any CPU.

ONNX Runtime's CPU provider computes FP16 graphs in FP32 and does not round between the nodes, so
that an overflow would never be seen. The twin of a graph rounds every result by a pair of casts,
which is what tensor cores do: FP16 operands, an FP32 sum, an FP16 result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import ConversionError
from engines.graphs.graph_types import (
    FLOAT,
    FLOAT16,
    Names,
    attribute,
    describe,
    one_line,
    plain_opset,
    set_attribute,
    tensor_types,
)
from engines.model import STATE_PREFIX
from engines.proof import Translate, compare

if TYPE_CHECKING:
    import onnx

ROUNDS_TO_INFINITY: Final = 65520.0
"""Half a step above the largest number of FP16; what is smaller is rounded down to that."""


def rounded_twin(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes in FP32 and rounds every FP16 result of ``half`` to FP16.

    Inputs, outputs, their types and the card are the same. What became infinite or not a number
    on the way is a black, white or arbitrary pixel of ``translated``, since neither has a uint8:
    compare pictures to see that something is wrong, and ask `find_overflow` where.

    Raises:
        ConversionError: the graph is not plain (control flow, local functions, other people's
            operators), or not valid.
    """
    return _twin(half)[0]


def find_overflow(half: onnx.ModelProto, frame: NDArray[np.uint8]) -> str | None:
    """Return the first node whose FP16 result is not finite, in words; None when all are.

    Args:
        half: a frame model as `engines.graphs.half.to_half` types it.
        frame: uint8 (H, W, 3) BGR, of a size that the model takes. Its states are zero, as before
            the first frame.

    Raises:
        ConversionError: ONNX Runtime is not installed or cannot run the twin, or see
            `rounded_twin`.
    """
    from onnx import helper

    twin, rounded = _twin(half)
    if not rounded:
        return None
    names = Names(twin.graph)
    limit = names.new("rounds_to_infinity")
    twin.graph.initializer.append(helper.make_tensor(limit, FLOAT, [], [ROUNDS_TO_INFINITY]))
    outputs: list[str] = []
    # Two numbers a tensor instead of the tensors themselves: a network's do not fit into memory.
    for exact, _ in rounded:
        size, fits, bad, flag, largest, share = (
            names.new(f"{exact}_{word}")
            for word in ("size", "fits", "bad", "flag", "largest", "overflows")
        )
        twin.graph.node.extend(
            (
                helper.make_node("Abs", [exact], [size]),
                helper.make_node("Less", [size, limit], [fits]),  # false for NaN
                helper.make_node("Not", [fits], [bad]),
                helper.make_node("Cast", [bad], [flag], to=FLOAT),
                helper.make_node("ReduceMax", [flag], [share], keepdims=0),
                helper.make_node("ReduceMax", [size], [largest], keepdims=0),
            )
        )
        outputs += [share, largest]
    twin.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, []) for name in outputs)
    found = _computed(twin, outputs, frame)
    for position, (_, title) in enumerate(rounded):
        overflows, largest_value = (
            float(value) for value in found[2 * position : 2 * position + 2]
        )
        if overflows and np.isfinite(largest_value):
            return f"{title}: {largest_value:.6g} does not fit into FP16, largest is 65504"
        if overflows:
            return f"{title}: its result is infinite or not a number before it is rounded to FP16"
    return None


def half_psnr_db(master: onnx.ModelProto, half: onnx.ModelProto, frame: NDArray[np.uint8]) -> float:
    """Return how close the rounded twin of ``half`` comes to ``master`` on one frame, in dB.

    Args:
        master: an FP32 frame model.
        half: the same as `engines.graphs.half.to_half` types it.
        frame: uint8 (H, W, 3) BGR, of a size that the model takes. States are zero, as before the
            first frame.

    Raises:
        ConversionError: ONNX Runtime is not installed or cannot run a graph, or see
            `rounded_twin`.
    """

    def translator(model: onnx.ModelProto) -> Translate:
        return lambda picture: _computed(model, ["translated"], picture)[0][0]

    return compare(translator(master), translator(rounded_twin(half)), [frame]).psnr_db


def _computed(model: onnx.ModelProto, outputs: list[str], frame: NDArray[np.uint8]) -> list[Any]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConversionError(
            "computing the rounded graph needs ONNX Runtime: pip install 'pix2live[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about its own optimiser
    given = {"frame": frame[None]} | _zero_states(model, frame.shape[:2])
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found: list[Any] = session.run(outputs, given)
    except Exception as error:  # pybind raises a family of types without a common root
        raise ConversionError(f"ONNX Runtime cannot run the graph: {one_line(error)}") from error
    return found


def _zero_states(model: onnx.ModelProto, size: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    from onnx import helper

    shapes: dict[str, list[int | str]] = {
        item.name: [
            dim.dim_param or dim.dim_value if dim.WhichOneof("value") else "?"
            for dim in item.type.tensor_type.shape.dim
        ]
        for item in model.graph.input
    }
    sides: dict[int | str, int] = dict(zip(shapes["frame"][1:3], size))

    def length(side: int | str) -> int:
        part = re.fullmatch(r"(.+?)(?://?(\d+))?", str(side))
        if isinstance(side, str) and part is not None and part[1] in sides:
            return sides[part[1]] // int(part[2] or 1)
        return int(side)

    return {
        item.name: np.zeros(
            [length(side) for side in shapes[item.name]],
            helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type),
        )
        for item in model.graph.input
        if item.name.startswith(STATE_PREFIX)
    }


def _twin(half: onnx.ModelProto) -> tuple[onnx.ModelProto, list[tuple[str, str]]]:
    """Return the twin, and for every rounded result its name before rounding and its node."""
    import onnx
    from onnx import helper

    plain_opset(half)
    types = tensor_types(half)
    twin = onnx.ModelProto()
    twin.CopyFrom(half)
    graph, names = twin.graph, Names(twin.graph)
    for item in graph.initializer:
        if item.data_type == FLOAT16:
            item.CopyFrom(_in_full(item))
    inner: dict[str, str] = {}
    """FP16 inputs and outputs -> the FP32 tensor with the same values."""
    nodes: list[onnx.NodeProto] = []
    rounded: list[tuple[str, str]] = []
    weights = {item.name for item in graph.initializer}
    for item in (*graph.input, *graph.output):
        if item.type.tensor_type.elem_type == FLOAT16 and item.name not in weights:
            inner[item.name] = names.new(f"{item.name}_as_float32")
    nodes.extend(
        helper.make_node("Cast", [item.name], [inner[item.name]], to=FLOAT)
        for item in graph.input
        if item.name in inner
    )
    makers = {name: node for node in half.graph.node for name in node.output}
    for node in graph.node:
        made_by = makers.get(node.input[0], node) if node.op_type == "Cast" else node
        title = describe(made_by)
        _in_full_node(node)
        for position, name in enumerate(node.input):
            node.input[position] = inner.get(name, name)
        nodes.append(node)
        for position, name in enumerate(node.output):
            if types[name] != FLOAT16 or node.op_type == "Constant":
                continue
            exact, half_name = names.new(f"{name}_exact"), names.new(f"{name}_rounded")
            node.output[position] = exact
            after = inner.get(name, name)
            nodes.append(helper.make_node("Cast", [exact], [half_name], to=FLOAT16))
            nodes.append(helper.make_node("Cast", [half_name], [after], to=FLOAT))
            rounded.append((exact, title))
    nodes.extend(
        helper.make_node("Cast", [inner[item.name]], [item.name], to=FLOAT16)
        for item in graph.output
        if item.name in inner
    )
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return twin, rounded


def _in_full(tensor: onnx.TensorProto) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _in_full_node(node: onnx.NodeProto) -> None:
    """Make a node that says FP16 in its attributes say FP32."""
    for name in ("to", "dtype"):
        if attribute(node, name) == FLOAT16:
            set_attribute(node, name, FLOAT)
    value = attribute(node, "value") if node.op_type in ("Constant", "ConstantOfShape") else None
    if value is not None and value.data_type == FLOAT16:
        set_attribute(node, "value", _in_full(value))
