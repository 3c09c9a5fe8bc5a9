"""A frame model's graph for frames of one size, with the shape of every tensor.

ONNX's own shape inference stops where a graph computes a shape in a way that it does not follow (a
division, for instance). So both take turns here: what is known by now is inferred, and small
constants that are only about shapes are computed, until nothing is new.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.graphs.graph_types import describe, one_line
from engines.model import PART_OF_A_SIDE

if TYPE_CHECKING:
    import onnx

    from engines.model import Size

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

Shape = tuple[int, ...]


class UnknownError(ValueError):
    """A number does not follow from the graph; the message says which."""


class Shapes(dict[str, Shape]):
    """Tensor -> shape; others are refused."""

    def __missing__(self, name: str) -> Shape:
        raise UnknownError(f"the shape of {name!r} does not follow from the size of the frame")


def for_one_size(model: onnx.ModelProto, size: Size) -> tuple[onnx.GraphProto, Shapes]:
    """Return the graph for one size, what is only about shapes computed, and its shapes.

    Raises:
        UnknownError: the graph takes no such size, or it does not fit together.
    """
    import onnx
    from onnx import inliner, numpy_helper

    fixed = onnx.ModelProto()
    try:
        fixed.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    except Exception as error:  # C++ exceptions without a common root
        raise UnknownError(f"its functions cannot be inlined: {one_line(error)}") from error
    foreign = [node for node in fixed.graph.node if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise UnknownError(f"{describe(foreign[0])} is an operator of {foreign[0].domain!r}")
    _fix_inputs(fixed.graph, size)
    small = [item for item in fixed.graph.initializer if _is_small(item.dims)]
    values = {item.name: numpy_helper.to_array(item) for item in small}
    for _ in range(MOST_TURNS):
        shapes = _inferred(fixed)
        if not _compute(fixed, shapes, values):
            return fixed.graph, shapes
    raise UnknownError(f"its shapes are not known after {MOST_TURNS} turns")


def _fix_inputs(graph: onnx.GraphProto, size: Size) -> None:
    """Put numbers where inputs have symbols."""
    weights = {item.name for item in graph.initializer}
    inputs = {item.name: _dims(item) for item in graph.input if item.name not in weights}
    if "frame" not in inputs or len(inputs["frame"]) != 4:
        raise UnknownError("it is no frame model: it has no input 'frame' of four sides")
    names = {}
    for dim, length in zip(inputs["frame"][1:3], reversed(size), strict=True):
        if dim.HasField("dim_value") and dim.dim_value != length:
            raise UnknownError(f"it takes frames of another size than {size[0]}x{size[1]}")
        if dim.dim_param:
            names[dim.dim_param] = length
        dim.dim_value = length
    for name, dims in inputs.items():
        for dim in dims:
            if not dim.HasField("dim_value"):
                part = PART_OF_A_SIDE.fullmatch(dim.dim_param)
                if part is None or part[1] not in names:
                    raise UnknownError(f"the side {dim.dim_param!r} of {name!r} is not known")
                dim.dim_value = names[part[1]] // int(part[2] or 1)
    del graph.value_info[:]
    for item in graph.output:  # symbols would be in the way of what is inferred
        item.type.tensor_type.ClearField("shape")


def _inferred(model: onnx.ModelProto) -> Shapes:
    from onnx import shape_inference

    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # C++ exceptions without a common root
        raise UnknownError(f"its shapes do not fit together: {one_line(error)}") from error
    found = Shapes({item.name: tuple(item.dims) for item in graph.initializer})
    for item in (*graph.input, *graph.value_info, *graph.output):
        dims = _dims(item)
        if item.type.tensor_type.HasField("shape") and all(x.HasField("dim_value") for x in dims):
            found[item.name] = tuple(dim.dim_value for dim in dims)
    return found


def _compute(model: onnx.ModelProto, shapes: Shapes, values: dict[str, NDArray[Any]]) -> bool:
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
    model: onnx.ModelProto, node: onnx.NodeProto, shapes: Shapes, values: dict[str, NDArray[Any]]
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
        raise UnknownError(f"{describe(node)} cannot be computed: {one_line(error)}") from error
    arrays = {name: np.asarray(x) for name, x in zip(node.output, found)}
    return arrays if all(_is_small(x.shape) for x in arrays.values()) else None


def _is_small(shape: Any) -> bool:
    return int(math.prod(shape)) <= MOST_ELEMENTS


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim
