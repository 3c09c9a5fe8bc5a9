"""Which number type every tensor of an ONNX graph has, and which of them an operator ties together.

Only for plain graphs: the operators of ONNX itself, without control flow and local functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from engines.errors import ConversionError

if TYPE_CHECKING:
    import onnx

FLOAT: Final = 1  # onnx.TensorProto's numbers, so that this module does not have to import onnx
FLOAT16: Final = 10
NO_TENSOR: Final = 0
"""The type of what is no tensor (a sequence, an optional) and of inputs that are left out."""

WITHOUT_HALF: Final = "--precision f32 converts it without FP16"
"""What helps whoever has a graph that cannot be typed."""

LARGEST_HALF: Final = 65504.0
"""The largest number of FLOAT16."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The type variables of an operator: inputs and outputs that share one have one type."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    can_be_half: frozenset[str]
    """Variables that may stand for FLOAT16."""

    def of_input(self, position: int) -> str:
        return self.inputs[min(position, len(self.inputs) - 1)]  # the last one may be repeated

    def of_output(self, position: int) -> str:
        return self.outputs[min(position, len(self.outputs) - 1)]


@lru_cache(maxsize=512)
def signature(op_type: str, opset: int) -> Signature:
    """What ONNX says about an operator's types.

    Raises:
        ConversionError: ONNX has no such operator in this opset.
    """
    from onnx import defs

    try:
        schema = defs.get_schema(op_type, opset, "")
    except defs.SchemaError as error:
        raise ConversionError(f"ONNX has no operator {op_type} in opset {opset}") from error
    return Signature(
        inputs=tuple(item.type_str for item in schema.inputs),
        outputs=tuple(item.type_str for item in schema.outputs),
        can_be_half=frozenset(
            item.type_param_str
            for item in schema.type_constraints
            if "tensor(float16)" in item.allowed_type_strs
        ),
    )


def plain_opset(model: onnx.ModelProto) -> int:
    """Return the opset of a plain graph.

    Raises:
        ConversionError: control flow, local functions, operators that are not ONNX's own, or
            weights that lie in another file.
    """
    from onnx import AttributeProto, TensorProto

    if model.functions:
        raise ConversionError(
            f"the graph has local functions ({model.functions[0].name}): inline them first;"
            f" {WITHOUT_HALF}"
        )
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ConversionError(
                f"{describe(node)} is an operator of {node.domain!r}: only ONNX's own can be typed;"
                f" {WITHOUT_HALF}"
            )
        if any(
            item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for item in node.attribute
        ):
            raise ConversionError(
                f"{describe(node)} is control flow: export the network without branches and loops;"
                f" {WITHOUT_HALF}"
            )
    for item in model.graph.initializer:
        if item.data_location == TensorProto.EXTERNAL:
            raise ConversionError(f"the weight {item.name!r} lies in another file: load it first")
    opsets: list[int] = [
        item.version for item in model.opset_import if item.domain in ("", "ai.onnx")
    ]
    if not opsets:
        raise ConversionError("the graph does not say which opset of ONNX it is written in")
    return opsets[0]


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor, as ONNX's own type inference finds it.

    Raises:
        ConversionError: the graph is not valid, or the type of a tensor does not follow from it.
    """
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except Exception as error:  # a family of C++ exceptions without a common root
        raise ConversionError(
            f"the graph's types do not fit together: {one_line(error)}"
        ) from error
    types = {item.name: item.data_type for item in graph.initializer}
    types |= {item.values.name: item.values.data_type for item in graph.sparse_initializer}
    for value in (*graph.value_info, *graph.output, *graph.input):
        is_tensor = value.type.WhichOneof("value") == "tensor_type"
        types[value.name] = value.type.tensor_type.elem_type if is_tensor else NO_TENSOR
    types[""] = NO_TENSOR
    for node in graph.node:
        for name in node.output:
            if name not in types:
                raise ConversionError(f"the type of {name!r}, made by {describe(node)}, is unknown")
    return types


def describe(node: onnx.NodeProto) -> str:
    """The operator and the node's name, or that of its result when it has none."""
    name = node.name or next((item for item in node.output if item), "")
    return f"{node.op_type} {name}".rstrip()


def one_line(error: Exception) -> str:
    """The first line of a library's message, without what it says about its own source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute; None when the node does not have it."""
    from onnx import helper

    found = [item for item in node.attribute if item.name == name]
    return helper.get_attribute_value(found[0]) if found else None


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give an attribute a value, whether the node has it or not."""
    from onnx import helper

    others = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, helper.make_attribute(name, value)])


class Names:
    """Names that a graph does not have yet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
        for node in graph.node:
            self._taken.update((node.name, *node.input, *node.output))

    def new(self, wish: str) -> str:
        """Return ``wish``, with a number behind it when it is taken."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


def read_by(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors that a node reads, also those that its branches read."""
    names = {name for name in node.input if name}
    for item in node.attribute:
        for graph in (*item.graphs, *([item.g] if item.HasField("g") else [])):
            for inner in graph.node:
                names |= read_by(inner)
            names.update(value.name for value in graph.output)
    return names


def upstream(nodes: Iterable[onnx.NodeProto], wanted: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the ``wanted`` tensors depend on, in their order."""
    needed, kept = set(wanted), []
    for node in reversed(list(nodes)):
        if needed.intersection(name for name in node.output if name):
            kept.append(node)
            needed |= read_by(node)
    return kept[::-1]


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name everywhere, also where branches read it."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
        for item in node.attribute:
            for inner in (*item.graphs, *([item.g] if item.HasField("g") else [])):
                rename(inner, old, new)
