"""How much work a frame model is: multiply-adds and bytes, operator by operator.

What a roofline needs (Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance
Model for Multicore Architectures", 2009). The graph is counted as it was exported, not as a backend
rewrites it. Where a number does not follow from the graph, there is none, with the reason.

ONNX's own shape inference stops where a graph computes a shape in a way that it does not follow (a
division, for instance). So both take turns here: what is known by now is inferred, and small
constants that are only about shapes are computed, until nothing is new.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.graphs.graph_types import attribute, describe, one_line, read_by

if TYPE_CHECKING:
    import onnx

    from engines.model import Size

ELEMENT_BYTES: Final[Mapping[str, int]] = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}
"""Of the number types that operators compute in."""
INT8: Final = "int8"
NORMALISATIONS: Final = (
    "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization",
    "MeanVarianceNormalization",
)  # fmt: skip
"""They need statistics of all of their input before they can write anything: it is read again."""
REFUSED: Final = (
    "ConvInteger", "QLinearConv", "QLinearMatMul", "MatMulInteger", "DeformConv", "Einsum", "LSTM",
    "GRU", "RNN", "Attention", "DFT", "STFT",
)  # fmt: skip
"""They multiply too, and nobody has written down here how often."""
MOVES: Final = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators between a DequantizeLinear and who reads it, which change no value."""
COMPUTED: Final = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal",
    "Expand", "Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg",
    "Not", "Or", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze", "Where",
))  # fmt: skip
"""What shapes are made with."""
MOST_ELEMENTS: Final = 4096
"""Of a constant that is computed: shapes are small."""
MOST_TURNS: Final = 100

_Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator that multiplies, or that takes statistics."""

    name: str
    kind: str
    """ONNX's name: ``Conv``."""
    operations: int
    """Multiplications and additions: 2 for each multiply-add. 0 for statistics."""
    read: int
    """Elements of its input; of both of a MatMul of two inputs."""
    weights: int
    """Elements, bias included."""
    written: int
    """Elements."""
    int8: bool = False
    """Whether input and weights come from DequantizeLinear: eight bits, as backends fuse it."""

    def number_type(self, precision: str) -> str:
        """Return what it computes in where the rest of the network computes in ``precision``."""
        return INT8 if self.int8 else precision

    def bytes(self, precision: str) -> int:
        """Return what it has to move at least, each element once.

        Raises:
            KeyError: ``precision`` is none of `ELEMENT_BYTES`.
        """
        elements = self.read + self.weights + self.written
        return elements * ELEMENT_BYTES[self.number_type(precision)]


@dataclass(frozen=True, slots=True)
class Work:
    """What one frame costs."""

    operators: tuple[Operator, ...]
    """In the order of the graph. What is elementwise is free: backends fuse it."""
    frame_bytes: int
    """Of the pictures that come in and go out, and of states, each read or written once."""

    @property
    def operations(self) -> int:
        return sum(item.operations for item in self.operators)

    def bytes(self, precision: str) -> int:
        """Return what operators and frame have to move (see `Operator.bytes`)."""
        return self.frame_bytes + sum(item.bytes(precision) for item in self.operators)

    def number_types(self, precision: str) -> tuple[str, ...]:
        """Return the number types that multiply-adds are done in, each once."""
        types = (item.number_type(precision) for item in self.operators if item.operations)
        return tuple(dict.fromkeys(types))


def count_work(model: onnx.ModelProto, size: Size) -> tuple[Work | None, str]:
    """Return the work of a frame model for a frame of ``size`` (width, height), or why not.

    Conv, ConvTranspose, MatMul and Gemm are counted, and one reading of the input of each
    normalisation that takes statistics; what is elementwise is not. A transposed convolution counts
    every multiply-add, those of a border that is cut off too. ``model`` is not changed.

    Returns:
        The work and an empty text, or None and the reason: a shape that does not follow from the
        frame's, control flow around a convolution, an operator that multiplies in a way that is
        not known here.
    """
    try:
        for node in model.graph.node:
            _refuse(node)
        graph, shapes = _fixed(model, size)
        changing = _changing(graph)
        made_by = {name: node for node in graph.node for name in node.output}
        operators = []
        for node in graph.node:
            _refuse(node)  # again: functions have been inlined
            if node.op_type in COUNTERS:
                counted = COUNTERS[node.op_type](node, shapes, changing)
                int8 = counted[0] > 0 and all(_is_int8(name, made_by) for name in node.input[:2])
                name = node.name or node.output[0]
                operators.append(Operator(name, node.op_type, *counted, int8=int8))
        return Work(tuple(operators), _frame_bytes(graph, shapes)), ""
    except _UnknownError as error:
        return None, str(error)


class _UnknownError(ValueError):
    """A number does not follow from the graph; the message says which."""


class _Shapes(dict[str, _Shape]):
    """Tensor -> shape; others are refused."""

    def __missing__(self, name: str) -> _Shape:
        raise _UnknownError(f"the shape of {name!r} does not follow from the size of the frame")


_Counted = tuple[int, int, int, int]
"""Operations, elements read, weights, elements written."""


def _convolution(node: onnx.NodeProto, shapes: _Shapes, _: set[str]) -> _Counted:
    given, weights, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if weights[1] * (attribute(node, "group") or 1) != given[1]:
        raise _UnknownError(f"{describe(node)}: {given} and {weights} do not fit together")
    # Weights are (M, C / groups, *kernel): each value that comes out is a sum of so many products.
    products = math.prod(made) * math.prod(weights[1:])
    return 2 * products, math.prod(given), _weights(node, shapes), math.prod(made)


def _transposed(node: onnx.NodeProto, shapes: _Shapes, _: set[str]) -> _Counted:
    given, weights, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
    # Weights are (C, M / groups, *kernel): each value that goes in is multiplied so many times.
    products = math.prod(given) * math.prod(weights[1:])
    return 2 * products, math.prod(given), _weights(node, shapes), math.prod(made)


def _product(node: onnx.NodeProto, shapes: _Shapes, changing: set[str]) -> _Counted:
    one, made = shapes[node.input[0]], shapes[node.output[0]]
    inner = one[0] if node.op_type == "Gemm" and attribute(node, "transA") else one[-1]
    read = weights = 0
    for name in filter(None, node.input):  # Gemm's third is its bias
        if name in changing:
            read += math.prod(shapes[name])
        else:
            weights += math.prod(shapes[name])
    return 2 * math.prod(made) * inner, read, weights, math.prod(made)


def _statistics(node: onnx.NodeProto, shapes: _Shapes, _: set[str]) -> _Counted:
    return 0, math.prod(shapes[node.input[0]]), 0, 0


COUNTERS: Final[Mapping[str, Callable[[Any, _Shapes, set[str]], _Counted]]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "Gemm": _product,
    **dict.fromkeys(NORMALISATIONS, _statistics),
}


def _weights(node: onnx.NodeProto, shapes: _Shapes) -> int:
    return sum(math.prod(shapes[name]) for name in node.input[1:] if name)


def _is_int8(name: str, made_by: Mapping[str, onnx.NodeProto]) -> bool:
    node = made_by.get(name)
    while node is not None and node.op_type in MOVES:
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _changing(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that are another one for another frame; the rest are weights."""
    weights = {item.name for item in graph.initializer}
    found = {item.name for item in graph.input} - weights
    for node in graph.node:
        if found & read_by(node):
            found.update(node.output)
    return found


def _refuse(node: onnx.NodeProto, inside: str = "") -> None:
    """Refuse what cannot be counted.

    Raises:
        _UnknownError: which node, and why.
    """
    if node.op_type in REFUSED:
        raise _UnknownError(f"{describe(node)} multiplies in a way that is not counted")
    if inside and node.op_type in COUNTERS:
        raise _UnknownError(f"{describe(node)} is inside {inside}: it may run any number of times")
    for item in node.attribute:
        for graph in (*item.graphs, *([item.g] if item.HasField("g") else [])):
            for inner in graph.node:
                _refuse(inner, describe(node))


def _frame_bytes(graph: onnx.GraphProto, shapes: _Shapes) -> int:
    from onnx import helper

    weights = {item.name for item in graph.initializer}
    pictures = [item for item in (*graph.input, *graph.output) if item.name not in weights]
    return sum(
        math.prod(shapes[item.name])
        * helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type).itemsize
        for item in pictures
    )


def _fixed(model: onnx.ModelProto, size: Size) -> tuple[onnx.GraphProto, _Shapes]:
    """Return the graph for one size, what is only about shapes computed, and its shapes.

    Raises:
        _UnknownError: the graph takes no such size, or it does not fit together.
    """
    import onnx
    from onnx import inliner, numpy_helper

    fixed = onnx.ModelProto()
    try:
        fixed.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    except Exception as error:  # C++ exceptions without a common root
        raise _UnknownError(f"its functions cannot be inlined: {one_line(error)}") from error
    foreign = [node for node in fixed.graph.node if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise _UnknownError(f"{describe(foreign[0])} is an operator of {foreign[0].domain!r}")
    _fix_inputs(fixed.graph, size)
    small = [item for item in fixed.graph.initializer if _is_small(item.dims)]
    values = {item.name: numpy_helper.to_array(item) for item in small}
    for _ in range(MOST_TURNS):
        shapes = _inferred(fixed)
        if not _compute(fixed, shapes, values):
            return fixed.graph, shapes
    raise _UnknownError(f"its shapes are not known after {MOST_TURNS} turns")


def _fix_inputs(graph: onnx.GraphProto, size: Size) -> None:
    """Put numbers where inputs have symbols."""
    weights = {item.name for item in graph.initializer}
    inputs = {item.name: _dims(item) for item in graph.input if item.name not in weights}
    if "frame" not in inputs or len(inputs["frame"]) != 4:
        raise _UnknownError("it is no frame model: it has no input 'frame' of four sides")
    names = {}
    for dim, length in zip(inputs["frame"][1:3], reversed(size), strict=True):
        if dim.HasField("dim_value") and dim.dim_value != length:
            raise _UnknownError(f"it takes frames of another size than {size[0]}x{size[1]}")
        if dim.dim_param:
            names[dim.dim_param] = length
        dim.dim_value = length
    for name, dims in inputs.items():
        for dim in dims:
            if not dim.HasField("dim_value"):
                part = re.fullmatch(r"(.+?)(?://?([1-9]\d*))?", dim.dim_param)  # H/4
                if part is None or part[1] not in names:
                    raise _UnknownError(f"the side {dim.dim_param!r} of {name!r} is not known")
                dim.dim_value = names[part[1]] // int(part[2] or 1)
    del graph.value_info[:]
    for item in graph.output:  # symbols would be in the way of what is inferred
        item.type.tensor_type.ClearField("shape")


def _inferred(model: onnx.ModelProto) -> _Shapes:
    from onnx import shape_inference

    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # C++ exceptions without a common root
        raise _UnknownError(f"its shapes do not fit together: {one_line(error)}") from error
    found = _Shapes({item.name: tuple(item.dims) for item in graph.initializer})
    for item in (*graph.input, *graph.value_info, *graph.output):
        dims = _dims(item)
        if item.type.tensor_type.HasField("shape") and all(x.HasField("dim_value") for x in dims):
            found[item.name] = tuple(dim.dim_value for dim in dims)
    return found


def _compute(model: onnx.ModelProto, shapes: _Shapes, values: dict[str, NDArray[Any]]) -> bool:
    """Replace nodes that are about shapes by what they give; return whether there were any."""
    from onnx import numpy_helper

    graph = model.graph
    results = {item.name for item in graph.output}
    kept = []
    for node in graph.node:
        found = None if results & set(node.output) else _result(model, node, shapes, values)
        if found is None:
            kept.append(type(node).FromString(node.SerializeToString()))
            continue
        values |= found
        graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in found.items())
    if len(kept) == len(graph.node):
        return False
    del graph.node[:]
    graph.node.extend(kept)
    return True


def _result(
    model: onnx.ModelProto, node: onnx.NodeProto, shapes: _Shapes, values: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]] | None:
    """Return name -> value of what a node gives; None where that is not known, or not small."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Shape" and node.input[0] in shapes:
        ends = {item.name: item.i for item in node.attribute}
        part = shapes[node.input[0]][ends.get("start") : ends.get("end")]
        return {node.output[0]: np.asarray(part, np.int64)}
    if node.op_type not in COMPUTED or any(name and name not in values for name in node.input):
        return None
    inputs = {name: values[name] for name in node.input if name}
    large = node.op_type in ("ConstantOfShape", "Expand") and not _is_small(
        inputs[node.input[-1]].tolist()
    )
    if large:
        return None
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in inputs.items()
    ]
    made = [helper.make_tensor_value_info(name, 0, None) for name in node.output]
    graph = helper.make_graph([node], "shape", given, made)
    try:
        alone = helper.make_model(graph, opset_imports=list(model.opset_import))
        found: Any = ReferenceEvaluator(alone).run(None, inputs)
    except Exception as error:  # whatever numpy and the evaluator stumble over
        raise _UnknownError(f"{describe(node)} cannot be computed: {one_line(error)}") from error
    arrays = {name: np.asarray(x) for name, x in zip(node.output, found)}
    return arrays if all(_is_small(x.shape) for x in arrays.values()) else None


def _is_small(shape: Any) -> bool:
    return int(math.prod(shape)) <= MOST_ELEMENTS


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim
