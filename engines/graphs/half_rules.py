"""Which operators of a generator may run in FP16, and which must not.

Convolutions and matrix products may: their operands and results are FP16 while the hardware sums
in FP32. What sums over a picture, or is steep, must not: InstanceNorm in FP16 overflows into black
pictures, since the square of 256 is already too much. Mixed precision in this sense is Micikevicius
et al., "Mixed Precision Training" (2018).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.graphs.graph_types import (
    FLOAT,
    FLOAT16,
    LARGEST_HALF,
    NO_TENSOR,
    Signature,
    describe,
    signature,
)

if TYPE_CHECKING:
    import onnx

PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Run in FP16: nearly all of the arithmetic of a generator."""

NORMALISATIONS: Final = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"LogSoftmax", "LpNormalization", "LRN", "MeanVarianceNormalization", "RMSNormalization"}
    | {"Softmax"}
)
"""FP32 inside; between FP16 layers their result, whose range is known, is FP16 again."""

STATISTICS: Final = frozenset(
    {"CumSum", "GlobalAveragePool", "GlobalLpPool", "LpPool", "ReduceL1", "ReduceL2", "ReduceMean"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)
STEEP: Final = frozenset(
    {"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan", "Tanh"}
    | {
        "Div",
        "Erf",
        "Exp",
        "Gelu",
        "Log",
        "Mish",
        "Mod",
        "Pow",
        "Reciprocal",
        "Sigmoid",
        "Softplus",
    }
    | {"Sqrt", "Swish"}
)
COORDINATES: Final = frozenset({"AffineGrid", "GridSample", "RoiAlign"})
ARITHMETIC: Final = frozenset({"Abs", "Add", "Mul", "Neg", "Sub", "Sum"})
"""Cheap ones whose result can be much larger than what goes in."""

SIZES: Final = frozenset({"Shape", "Size"})
READS_ANY: Final = SIZES | {"Cast"}
"""Take any type, and give a type that does not depend on it."""


class Plan:
    """Decides for every node in which type it runs."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int], opset: int) -> None:
        from onnx import numpy_helper

        self.graph, self.types, self.opset = graph, types, opset
        self.constants: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item)
            for item in graph.initializer
            if item.data_type == FLOAT
        }
        self.runs: list[int] = []
        """FLOAT or FLOAT16 for each node; NO_TENSOR for those that read what there is."""
        self.islands: list[str] = []
        self._half: set[str] = set()
        """Tensors that count as FP16 for those that read them."""
        self._after_half: set[str] = set()
        self._pictures = {item.name for item in graph.input}
        """Tensors that depend on the frame by more than its size."""
        self._feeding = self._before_products()
        self._summed = self._only_summed()
        for node in graph.node:
            self.runs.append(self._decide(node))

    def signature(self, node: onnx.NodeProto) -> Signature:
        return signature(node.op_type, self.opset)

    def variable(self, node: onnx.NodeProto) -> str:
        """The type variable that FP16 would be put in for: the result's, else the first input's."""
        found = self.signature(node)
        for position, name in enumerate(node.output):
            if self.types[name] == FLOAT and found.of_output(position) in found.inputs:
                return found.of_output(position)
        for position, name in enumerate(node.input):
            if self.types[name] == FLOAT:
                return found.of_input(position)
        return ""

    def tied(self, node: onnx.NodeProto) -> list[str]:
        """The FP32 inputs that would become FP16 with the node."""
        found, variable = self.signature(node), self.variable(node)
        return [
            name
            for position, name in enumerate(node.input)
            if self.types[name] == FLOAT and found.of_input(position) == variable
        ]

    def _before_products(self) -> set[str]:
        """Tensors from which a product can be reached, by values and not by sizes."""
        feeding: set[str] = set()
        for node in reversed(self.graph.node):
            on_the_way = node.op_type in PRODUCTS or not feeding.isdisjoint(node.output)
            if on_the_way and node.op_type not in SIZES:
                feeding.update(name for name in node.input if name)
        return feeding

    def _only_summed(self) -> set[str]:
        """Results of arithmetic that only statistics and steep functions read."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                readers[name].append(node)
        summed: set[str] = set()
        for node in reversed(self.graph.node):
            read_by = readers[node.output[0]]
            if (
                node.op_type in ARITHMETIC
                and read_by
                and all(
                    reader.op_type in STATISTICS | STEEP or reader.output[0] in summed
                    for reader in read_by
                )
            ):
                summed.add(node.output[0])
        return summed

    def _decide(self, node: onnx.NodeProto) -> int:
        data = [name for name in self.tied(node) if name in self._pictures]
        all_half = bool(data) and self._half.issuperset(data)
        after_half = not self._after_half.isdisjoint(node.input)
        leads_on = not self._feeding.isdisjoint(node.output)
        if node.op_type not in SIZES and not self._pictures.isdisjoint(node.input):
            self._pictures.update(node.output)
        if after_half and node.op_type not in SIZES:
            self._after_half.update(node.output)
        if node.op_type in READS_ANY:
            return NO_TENSOR
        why = _why_full(node)
        candidate = data if node.op_type in PRODUCTS else all_half and leads_on
        if candidate and not why:
            why = self._why_not_half(node)
            if not why and node.output[0] not in self._summed:
                self._set_half(node)
                return FLOAT16
        if why and (candidate or (after_half and leads_on)):
            self.islands.append(f"{describe(node)}: {why}")
        if node.op_type in NORMALISATIONS and all_half and leads_on:
            self._set_half(node)
        return FLOAT

    def _set_half(self, node: onnx.NodeProto) -> None:
        found, variable = self.signature(node), self.variable(node)
        self._half.update(
            name
            for position, name in enumerate(node.output)
            if self.types[name] == FLOAT and found.of_output(position) == variable
        )
        self._after_half.update(node.output)

    def _why_not_half(self, node: onnx.NodeProto) -> str:
        """Why a node that could run in FP16 must not after all; empty when it may."""
        if node.op_type == "Mul" and len(set(node.input)) == 1:
            return "the squares of values above 256 do not fit into FP16"
        found = {self.types[name] for name in (*node.input, *node.output) if name}
        if NO_TENSOR in found or self.variable(node) not in self.signature(node).can_be_half:
            return "ONNX has it in FP32 only"
        for name in self.tied(node):
            # A limit of 1e38 means none. A bias that vanishes is less than a step of the result.
            vanishing = node.op_type not in PRODUCTS or name == node.input[1]
            if name in self.constants and node.op_type != "Clip":
                why = _why_no_half(self.constants[name], vanishing=vanishing)
                if why:
                    return f"its constant {name!r} {why}"
        return ""


def _why_full(node: onnx.NodeProto) -> str:
    """Why an operator runs in FP32 whatever it reads; empty when it depends."""
    kind = node.op_type
    if kind in NORMALISATIONS:
        return "its statistics need FP32"
    if kind in STATISTICS:
        return "a sum over many values needs FP32"
    if kind in STEEP:
        return "too steep, or too wide in range, for FP16"
    return "its coordinates need FP32" if kind in COORDINATES else ""


def _why_no_half(values: NDArray[Any], *, vanishing: bool) -> str:
    """Why FP16 cannot hold constants; empty when it can, or when they may vanish."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0.0))
    if largest > LARGEST_HALF:
        return f"reaches {largest:.6g}, and FP16 ends at {LARGEST_HALF:g}"
    if vanishing and largest > 0 and not np.float16(largest):
        return f"would be 0 in FP16: its largest value is {largest:.2g}"
    return ""


def in_half(values: NDArray[Any]) -> NDArray[Any]:
    """Round constants to FP16; finite ones stay finite."""
    limited = np.clip(values, -LARGEST_HALF, LARGEST_HALF)
    return np.where(np.isinf(values), values, limited).astype(np.float16)
