"""TensorRT reads unsigned eight bits as signed ones: such networks are refused, others built."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from simulated_cuda import SimulatedCuda
from simulated_engine import new

from engines import EngineError, load_filter
from engines.errors import ConversionError
from engines.nvidia import tensorrt_api
from engines.nvidia.tensorrt_builder import build_plan
from engines.nvidia.tensorrt_quantisation import other_quantisation
from engines.twins import INT8, int8_twin

RTX = "tensorrt-rtx"
SIZE = (64, 48)
FIXED: dict[str, Any] = {"smallest": SIZE, "best": SIZE, "largest": SIZE}
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def quantised(
    zero: int, dtype: Any, *, weights: Any = np.int8, by_node: bool = False
) -> onnx.ModelProto:
    """A convolution whose picture and kernels are in eight bits, with the picture's zero point."""
    node, constant = models.node, models.constant
    same = np.zeros((3, 3, 1, 1))
    same[range(3), range(3)] = 100
    constants = [
        constant("scale", 2.0), constant("kernels", same, weights),
        constant("kernels_scale", np.full(3, 0.01)),
        constant("kernels_zero", np.zeros(3), weights),
        constant("black", 0), constant("white", 255),
    ]  # fmt: skip
    nodes = [
        node("Cast", ["frame"], "levels", to=T.FLOAT),
        node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
        node("QuantizeLinear", ["planes", "scale", "zero"], "few"),
        node("DequantizeLinear", ["few", "scale", "zero"], "again"),
        node("DequantizeLinear", ["kernels", "kernels_scale", "kernels_zero"], "weights", axis=0),
        node("Conv", ["again", "weights"], "made"),
        node("Clip", ["made", "black", "white"], "limited"),
        node("Transpose", ["limited"], "pixels", perm=[0, 2, 3, 1]),
        node("Cast", ["pixels"], "translated", to=T.UINT8),
    ]
    if by_node:
        nodes.insert(0, node("Constant", [], "zero", value=constant("", zero, dtype)))
    else:
        constants.append(constant("zero", zero, dtype))
    return models.graph(nodes, constants)


def without_zero_point() -> onnx.ModelProto:
    model = quantised(0, np.uint8)
    for node in model.graph.node:
        if "zero" in node.input:
            del node.input[2]
    return model


def unsigned_weights_without_zero_point() -> onnx.ModelProto:
    model = quantised(0, np.int8, weights=np.uint8)
    (node,) = (node for node in model.graph.node if node.output[0] == "weights")
    del node.input[2]
    return model


OTHERS = {
    "unsigned": (lambda: quantised(0, np.uint8), "QuantizeLinear few is in uint8 .* point 0,"),
    "a zero point": (lambda: quantised(-58, np.int8), "in int8 with the zero point -58,"),
    "in a node": (lambda: quantised(128, np.uint8, by_node=True), "in uint8 .* point 128,"),
    "nothing said": (without_zero_point, "QuantizeLinear few is in uint8 with the zero point 0,"),
    "unsigned weights": (
        lambda: quantised(0, np.int8, weights=np.uint8), "DequantizeLinear weights is in uint8",
    ),
    "unsigned weights, nothing said": (
        unsigned_weights_without_zero_point, "DequantizeLinear weights is in uint8 .* point 0,",
    ),
    "a shipped twin": (lambda: int8_twin(load_filter("comic")).graph(), "is in uint8"),
}  # fmt: skip


@needs_rtx
@pytest.mark.parametrize("case", OTHERS)
def test_other_eight_bits_are_refused(case: str) -> None:
    make, words = OTHERS[case]
    with pytest.raises(ConversionError, match=f"{RTX} cannot read this model: .*{words}") as found:
        build_plan(RTX, make(), **FIXED)
    assert "TensorRT takes int8 with the zero point 0 only; quantise" in str(found.value)


@needs_rtx
def test_symmetric_eight_bits_are_built() -> None:
    layers = build_plan(RTX, quantised(0, np.int8), **FIXED).layers
    assert layers["quantize"] == {"i8": 1}
    assert layers["dequantize"] == {"f32": 2}


@needs_rtx
def test_why_they_are_refused() -> None:
    """TensorRT itself would take unsigned ones, and for signed ones: a warning is all it says."""
    trt, messages = tensorrt_api.load(RTX), tensorrt_api.messages(RTX)
    network = trt.Builder(messages.logger).create_network(0)
    parser = trt.OnnxParser(network, messages.logger)
    assert parser.parse(quantised(0, np.uint8).SerializeToString())
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    (few,) = (layer.get_output(0) for layer in layers if layer.type.name == "QUANTIZE")
    assert few.dtype.name == "INT8", "unsigned ones can be taken"


def test_what_is_not_quantised_and_what_is_left_to_tensorrt() -> None:
    assert other_quantisation(models.blurring()) is None
    assert other_quantisation(quantised(0, np.int8, by_node=True)) is None
    computed = quantised(0, np.uint8)
    computed.graph.node.insert(0, models.node("Identity", ["nothing"], "zero"))
    (zero,) = (item for item in computed.graph.initializer if item.name == "zero")
    zero.name = "nothing"
    assert other_quantisation(computed) is None


@pytest.mark.parametrize("rtx", [False, True])
def test_int8_is_refused_with_the_reason(rtx: bool) -> None:
    model = load_filter("comic")
    name = RTX if rtx else "tensorrt"
    with pytest.raises(EngineError) as refusal:
        new(model, SimulatedCuda(), rtx=rtx, precision=INT8).open(SIZE)
    assert str(refusal.value) == (
        f"{name} runs f16 and f32, not int8: INT8 twins are made for processors"
    )


@pytest.mark.parametrize("precision", ["auto", "f16", "f32"])
def test_a_twin_given_as_a_filter_is_refused(precision: str, tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.int8.onnx", quantised_from="0" * 64)
    cuda = SimulatedCuda()
    with pytest.raises(EngineError, match=r"tensorrt cannot run m\.int8\.onnx: .*; give it the"):
        new(model, cuda, precision=precision).open(SIZE)
    assert cuda.held == []
