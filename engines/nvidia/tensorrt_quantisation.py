"""Which eight bits TensorRT takes: signed ones whose zero point is 0.

Its parser reads unsigned ones as signed ones with the same scale, and says so in a warning only:
all values in the upper half of the range become the middle of it. The INT8 twins that ship come out
15 to 31 dB from f32 when a processor computes them so. Such networks are refused before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.graphs.graph_types import attribute, describe

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def other_quantisation(model: onnx.ModelProto) -> str | None:
    """Return None when TensorRT takes the quantisation of ``model``, else in words what it is.

    A zero point that is no constant of the graph is left to TensorRT's parser.
    """
    import numpy as np
    from onnx import TensorProto

    constants = _constants(model.graph)
    for node in model.graph.node:
        if node.op_type not in QUANTISERS:
            continue
        if len(node.input) > 2 and node.input[2]:
            zero = constants.get(node.input[2])
            found = zero if zero is not None and zero.dtype.kind in "iu" else None
        elif node.op_type == "QuantizeLinear" and attribute(node, "output_dtype") in (
            None, 0, TensorProto.UINT8,
        ):  # fmt: skip
            found = np.zeros(1, np.uint8)  # what ONNX takes where nothing is said
        else:
            found = None
        if found is not None and (found.dtype.kind == "u" or found.any()):
            first = found.ravel()[np.argmax(found.ravel() != 0)]
            return (
                f"{describe(node)} is in {found.dtype} with the zero point {first}, and TensorRT"
                " takes int8 with the zero point 0 only; quantise the network symmetrically and"
                " signed, or convert it as it was before"
            )
    return None


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is not None:
            found[node.output[0]] = numpy_helper.to_array(value)
    return found
