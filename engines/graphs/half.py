"""From an FP32 frame model to a strongly typed FP16 one.

TensorRT 10 and later and TensorRT-RTX take the type of every layer from the graph, so that the
graph has to say what runs in half precision; `engines.graphs.half_rules` decides, and this module
writes it down.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from engines.errors import ConversionError
from engines.graphs.graph_types import (
    FLOAT,
    FLOAT16,
    NO_TENSOR,
    Names,
    attribute,
    one_line,
    plain_opset,
    set_attribute,
    tensor_types,
    upstream,
)
from engines.graphs.half_proof import find_overflow, rounded_twin
from engines.graphs.half_rules import PRODUCTS, Plan, in_half

if TYPE_CHECKING:
    import onnx

__all__ = ["HalfModel", "find_overflow", "rounded_twin", "to_half"]

TYPED_BY_INPUT: Final = frozenset({"Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike"})
"""Give the type of what they read unless an attribute says otherwise."""


@dataclass(frozen=True)
class HalfModel:
    """A strongly typed frame model, and what is FP32 in it."""

    model: onnx.ModelProto
    islands: tuple[str, ...]
    """Each FP32 node that sits between FP16 ones: ``InstanceNormalization node_12: why``."""
    counts: dict[str, dict[str, int]]
    """Operator -> {"FLOAT16": nodes, "FLOAT": nodes}, without casts and constants."""


def to_half(model: onnx.ModelProto) -> HalfModel:
    """Type an FP32 graph so that it computes in FP16 where that is safe.

    Convolutions and matrix products are FP16; normalisations, statistics and steep functions are
    FP32; everything before the first convolution and after the last is FP32; every other operator
    is FP16 when all that it reads is. Inputs and outputs keep their types, and a weight that FP16
    cannot hold keeps its node in FP32. A graph that has FP16 convolutions already is returned as
    it is.

    Args:
        model: an FP32 frame model (see `engines.model`); it is not changed.

    Raises:
        ConversionError: the graph is not plain (control flow, local functions, other people's
            operators), or not valid.
    """
    import onnx

    opset = plain_opset(model)
    types = tensor_types(model)
    if any(
        node.op_type in PRODUCTS and types[node.output[0]] == FLOAT16 for node in model.graph.node
    ):
        return HalfModel(model, (), _counts(model, types))
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    _simplify(typed, types)
    plan = Plan(typed.graph, types, opset)
    intended = _Writer(plan).write()
    try:
        onnx.checker.check_model(typed)
    except onnx.checker.ValidationError as error:
        raise ConversionError(f"typing it gave no valid graph: {one_line(error)}") from error
    found = tensor_types(typed)
    for name, kind in intended.items():
        if found[name] != kind:
            raise ConversionError(f"typing it went wrong: {name!r} is {found[name]}, not {kind}")
    return HalfModel(typed, tuple(plan.islands), _counts(typed, found))


def _simplify(model: onnx.ModelProto, types: dict[str, int]) -> None:
    """Say everywhere in the same words what exporters say in several."""
    from onnx import numpy_helper

    graph = model.graph
    outputs = {item.name for item in graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            del node.input[1:], node.attribute[:]
            set_attribute(node, "to", types[node.output[0]])
        elif node.op_type in TYPED_BY_INPUT:
            set_attribute(node, "dtype", types[node.output[0]])
        if node.op_type == "Constant" and types[node.output[0]] == FLOAT:
            tensor = attribute(node, "value")
            if tensor is None:
                values = attribute(node, "value_float"), attribute(node, "value_floats")
                numbers = values[1] if values[0] is None else values[0]
                tensor = numpy_helper.from_array(np.asarray(numbers, np.float32))
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        elif node.op_type == "Cast" and types[node.input[0]] == types[node.output[0]]:
            if node.output[0] in outputs:
                node.op_type = "Identity"
                del node.attribute[:]
                kept.append(node)
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    # Old files list their weights as inputs, which have types of their own.
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _counts(model: onnx.ModelProto, types: dict[str, int]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Constant"):
            continue
        kinds = [types[name] for name in node.output]
        kind = next((kind for kind in kinds if kind in (FLOAT, FLOAT16)), None)
        if kind is not None:
            count = counts.setdefault(node.op_type, {"FLOAT16": 0, "FLOAT": 0})
            count["FLOAT16" if kind == FLOAT16 else "FLOAT"] += 1
    return counts


class _Writer:
    """Writes the typed graph in place: one cast for a tensor and a type, where it is first read."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._graph, self._types = plan, plan.graph, plan.types
        self._names = Names(plan.graph)
        self._nodes: list[onnx.NodeProto] = []
        self._made = dict(plan.types)
        """Tensor -> the type that it has in the typed graph."""
        self._as: dict[tuple[str, int], str] = {}
        """(tensor of the FP32 graph, type) -> its name in the typed graph."""
        self._casts: dict[str, onnx.NodeProto] = {}

    def write(self) -> dict[str, int]:
        """Return the types that the tensors of the typed graph are meant to have."""
        self._write_constants()
        outputs = {item.name for item in self._graph.output}
        for node, run in zip(list(self._graph.node), self._plan.runs):
            # Asked first: all of it goes by the names that the node reads in the FP32 graph.
            kinds = [self._wanted(node, position, run) for position in range(len(node.input))]
            found, variable = self._plan.signature(node), self._plan.variable(node)
            for position, kind in enumerate(kinds):
                if kind is not None:
                    node.input[position] = self._read(node.input[position], kind)
            self._nodes.append(node)
            for position, name in enumerate(node.output):
                if self._types[name] != FLOAT:
                    continue
                half = run == FLOAT16 and found.of_output(position) == variable
                self._made[name] = FLOAT16 if half else FLOAT
                if half and name in outputs:
                    node.output[position] = self._give_back(name)
                else:
                    self._as[name, self._made[name]] = name
            if node.op_type == "Cast":
                self._casts[node.output[0]] = node
        del self._graph.node[:]
        self._graph.node.extend(upstream(self._nodes, outputs))
        self._keep_used_constants()
        left = {name for node in self._graph.node for name in (*node.input, *node.output) if name}
        return {name: kind for name, kind in self._made.items() if name in left}

    def _wanted(self, node: onnx.NodeProto, position: int, run: int) -> int | None:
        """The type in which a node reads an input; None for the one that the tensor has."""
        if self._types[node.input[position]] != FLOAT or run == NO_TENSOR:
            return None
        found, variable = self._plan.signature(node), self._plan.variable(node)
        half = run == FLOAT16 and found.of_input(position) == variable
        return FLOAT16 if half else FLOAT

    def _write_constants(self) -> None:
        """A constant becomes FP16 in its place, or gets an FP16 copy when both are read."""
        from onnx import numpy_helper

        wanted: dict[str, set[int]] = defaultdict(set)
        for node, run in zip(self._graph.node, self._plan.runs):
            for position, name in enumerate(node.input):
                if name in self._plan.constants:
                    wanted[name].add(self._wanted(node, position, run) or FLOAT)
        for item in list(self._graph.initializer):
            name = item.name
            self._as[name, FLOAT] = name
            if FLOAT16 not in wanted[name]:
                continue
            kinds = wanted[name]
            here = name if kinds == {FLOAT16} else self._names.new(f"{name}_as_float16")
            copy = numpy_helper.from_array(in_half(self._plan.constants[name]), here)
            if here == name:
                item.CopyFrom(copy)
            else:
                self._graph.initializer.append(copy)
            self._as[name, FLOAT16], self._made[here] = here, FLOAT16

    def _keep_used_constants(self) -> None:
        used = {name for node in self._graph.node for name in node.input}
        used.update(item.name for item in self._graph.output)
        kept = [item for item in self._graph.initializer if item.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _read(self, name: str, kind: int) -> str:
        if (name, kind) not in self._as:
            self._as.setdefault((name, self._made[name]), name)  # an input of the graph
            if (name, kind) not in self._as:
                self._as[name, kind] = self._cast(name, kind)
        return self._as[name, kind]

    def _cast(self, name: str, kind: int) -> str:
        from onnx import helper

        source = self._as[name, self._made[name]]
        before = self._casts.get(name)
        if before is not None and self._made[name] == FLOAT:
            source = before.input[0]  # no cast of a cast
            if self._made[source] == kind:
                return str(source)
        text = "float16" if kind == FLOAT16 else "float32"
        result = self._names.new(f"{name}_as_{text}")
        title = self._names.new(f"cast_{name}_to_{text}")
        self._nodes.append(helper.make_node("Cast", [source], [result], title, to=kind))
        self._made[result] = kind
        return result

    def _give_back(self, name: str) -> str:
        """An FP16 result under another name, with a cast to the FP32 output ``name``."""
        from onnx import helper

        inner = self._names.new(f"{name}_as_float16")
        title = self._names.new(f"cast_{name}_to_float32")
        self._nodes.append(helper.make_node("Cast", [inner], [name], title, to=FLOAT))
        self._made[inner], self._made[name] = FLOAT16, FLOAT
        self._as[name, FLOAT16], self._as[name, FLOAT] = inner, name
        return inner
