"""Which eight bits TensorRT takes: signed ones whose zero point is 0.

Its parser reads unsigned ones as signed ones with the same scale, and says so in a warning only:
all values in the upper half of the range become the middle of it. The INT8 twins that ship come out
15 to 31 dB from f32 when a processor computes them so. Such networks are refused before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.graphs.graph_types import attribute, describe

if TYPE_CHECKING:
    import onnx

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def other_quantisation(model: onnx.ModelProto) -> str | None:
    """Return None when TensorRT takes the quantisation of ``model``, else in words what it is.

    A zero point that is no constant of the graph, and what is inside of branches and loops, is left
    to TensorRT's parser.
    """
    import numpy as np
    from onnx import numpy_helper

    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    stored |= {
        node.output[0]: value
        for node in graph.node
        if node.op_type == "Constant" and (value := attribute(node, "value")) is not None
    }
    made_by = {name: node for node in graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type not in QUANTISERS:
            continue
        if len(node.input) > 2 and node.input[2]:
            zero = stored.get(node.input[2])
            found = None if zero is None else numpy_helper.to_array(zero)
        else:  # ONNX takes 0
            found = np.zeros(1, np.uint8) if _is_unsigned(node, stored, made_by) else None
        if found is not None and found.dtype.kind not in "iu":
            continue
        if found is not None and (found.dtype.kind == "u" or found.any()):
            first = found.ravel()[np.argmax(found.ravel() != 0)]
            return (
                f"{describe(node)} is in {found.dtype} with the zero point {first}, and TensorRT"
                " takes int8 with the zero point 0 only; quantise the network symmetrically and"
                " signed, or convert it as it was before"
            )
    return None


def _is_unsigned(
    node: onnx.NodeProto,
    stored: Mapping[str, onnx.TensorProto],
    made_by: Mapping[str, onnx.NodeProto],
) -> bool:
    """Whether a node without a zero point makes, or reads, unsigned eight bits."""
    from onnx import TensorProto

    if node.op_type == "QuantizeLinear":
        return attribute(node, "output_dtype") in (None, 0, TensorProto.UINT8)
    few = node.input[0]
    if few in stored:
        return bool(stored[few].data_type == TensorProto.UINT8)
    maker = made_by.get(few)
    if maker is None or maker.op_type != "QuantizeLinear" or len(maker.input) > 2:
        return False  # that one says it itself
    return _is_unsigned(maker, stored, made_by)
