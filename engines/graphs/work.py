"""How much work a frame model is: multiply-adds and bytes, operator by operator.

What a roofline needs (Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance
Model for Multicore Architectures", 2009). The graph is counted as it was exported, not as a backend
rewrites it. Where a number does not follow from the graph, there is none, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engines.graphs.graph_types import attribute, describe, read_by
from engines.graphs.sized_shapes import Shapes, UnknownError, for_one_size
from engines.twins import INT8

if TYPE_CHECKING:
    import onnx

    from engines.model import Size

ELEMENT_BYTES: Final[Mapping[str, int]] = {"f32": 4, "bf16": 2, "f16": 2, "int8": 1}
"""Of the number types that operators compute in."""
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
FUSED: Final = (
    *MOVES, "Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish",
    "Tanh", "Mul", "Add", "Sub", "Div",
)  # fmt: skip
"""Operators of one picture that backends compute before they write what a convolution made."""


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
    writes_int8: bool = False
    """Whether nobody reads its output but QuantizeLinear, after elementwise operators at most."""

    def number_type(self, precision: str) -> str:
        """Return what it computes in where the rest of the network computes in ``precision``."""
        return INT8 if self.int8 else precision

    def bytes(self, precision: str) -> int:
        """Return what it has to move at least, each element once.

        Raises:
            KeyError: ``precision`` is none of `ELEMENT_BYTES`.
        """
        taken = (self.read + self.weights) * ELEMENT_BYTES[self.number_type(precision)]
        return taken + self.written * ELEMENT_BYTES[INT8 if self.writes_int8 else precision]


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
        graph, shapes = for_one_size(model, size)
        changing = _changing(graph)
        made_by = {name: node for node in graph.node for name in node.output}
        readers = _readers(graph)
        operators = []
        for node in graph.node:
            _refuse(node)  # again: functions have been inlined
            if node.op_type in COUNTERS:
                counted = COUNTERS[node.op_type](node, shapes, changing)
                int8 = counted[0] > 0 and all(_is_int8(name, made_by) for name in node.input[:2])
                name = node.name or node.output[0]
                writes_int8 = _is_quantised(node.output[0], readers, changing)
                operators.append(Operator(name, node.op_type, *counted, int8, writes_int8))
        return Work(tuple(operators), _frame_bytes(graph, shapes)), ""
    except UnknownError as error:
        return None, str(error)


_Counted = tuple[int, int, int, int]
"""Operations, elements read, weights, elements written."""


def _convolution(node: onnx.NodeProto, shapes: Shapes, _: set[str]) -> _Counted:
    given, weights, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if weights[1] * (attribute(node, "group") or 1) != given[1]:
        raise UnknownError(f"{describe(node)}: {given} and {weights} do not fit together")
    # Weights are (M, C / groups, *kernel): each value that comes out is a sum of so many products.
    products = math.prod(made) * math.prod(weights[1:])
    return 2 * products, math.prod(given), _weights(node, shapes), math.prod(made)


def _transposed(node: onnx.NodeProto, shapes: Shapes, _: set[str]) -> _Counted:
    given, weights, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
    # Weights are (C, M / groups, *kernel): each value that goes in is multiplied so many times.
    products = math.prod(given) * math.prod(weights[1:])
    return 2 * products, math.prod(given), _weights(node, shapes), math.prod(made)


def _product(node: onnx.NodeProto, shapes: Shapes, changing: set[str]) -> _Counted:
    one, made = shapes[node.input[0]], shapes[node.output[0]]
    inner = one[0] if node.op_type == "Gemm" and attribute(node, "transA") else one[-1]
    read = weights = 0
    for name in filter(None, node.input):  # Gemm's third is its bias
        if name in changing:
            read += math.prod(shapes[name])
        else:
            weights += math.prod(shapes[name])
    return 2 * math.prod(made) * inner, read, weights, math.prod(made)


def _statistics(node: onnx.NodeProto, shapes: Shapes, _: set[str]) -> _Counted:
    return 0, math.prod(shapes[node.input[0]]), 0, 0


COUNTERS: Final[Mapping[str, Callable[[Any, Shapes, set[str]], _Counted]]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "Gemm": _product,
    **dict.fromkeys(NORMALISATIONS, _statistics),
}


def _weights(node: onnx.NodeProto, shapes: Shapes) -> int:
    return sum(math.prod(shapes[name]) for name in node.input[1:] if name)


def _is_int8(name: str, made_by: Mapping[str, onnx.NodeProto]) -> bool:
    node = made_by.get(name)
    while node is not None and node.op_type in MOVES:
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto | None]]:
    """Return who reads each tensor; None stands for the world outside of the graph."""
    found: dict[str, list[onnx.NodeProto | None]] = {item.name: [None] for item in graph.output}
    for node in graph.node:
        for name in read_by(node):
            found.setdefault(name, []).append(node)
    return found


def _is_quantised(
    name: str, readers: Mapping[str, list[onnx.NodeProto | None]], changing: set[str]
) -> bool:
    for node in readers.get(name, [None]):
        if node is None:
            return False
        if node.op_type == "QuantizeLinear":
            continue
        alone = len(changing.intersection(node.input)) == 1
        if not (alone and node.op_type in FUSED):
            return False
        if not _is_quantised(node.output[0], readers, changing):
            return False
    return True


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
        UnknownError: which node, and why.
    """
    if node.op_type in REFUSED:
        raise UnknownError(f"{describe(node)} multiplies in a way that is not counted")
    if inside and node.op_type in COUNTERS:
        raise UnknownError(f"{describe(node)} is inside {inside}: it may run any number of times")
    for item in node.attribute:
        for graph in (*item.graphs, *([item.g] if item.HasField("g") else [])):
            for inner in graph.node:
                _refuse(inner, describe(node))


def _frame_bytes(graph: onnx.GraphProto, shapes: Shapes) -> int:
    from onnx import helper

    weights = {item.name for item in graph.initializer}
    pictures = [item for item in (*graph.input, *graph.output) if item.name not in weights]
    return sum(
        math.prod(shapes[item.name])
        * helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type).itemsize
        for item in pictures
    )
