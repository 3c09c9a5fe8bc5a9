"""Small networks between a frame and its translation, and what typed graphs have to hold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import FRAME, RESULT, constant, graph, node, value
from onnx import TensorProto as T
from onnx import helper

from engines.graphs.graph_types import tensor_types
from engines.graphs.half import HalfModel, to_half

ROOT = Path(__file__).parents[2]
COMIC = ROOT / "engines" / "filters" / "comic.onnx"
ASSETS = ROOT.parent / "shared" / "assets"
KODAK = ASSETS / "photos" / "kodak"
SIZE = (128, 96)
CLOSE_DB = 45.0
FREE = (1, 3, "height", "width")


def photographs(size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Three real frames of ``size`` (width, height); skips the test where there are none."""
    cv2 = pytest.importorskip("cv2")
    found = sorted(KODAK.glob("*.png"))[:3]
    if not found:
        pytest.skip(f"no photographs in {KODAK}")
    return [cv2.resize(cv2.imread(str(x)), size, interpolation=cv2.INTER_AREA) for x in found]


def translate(model: onnx.ModelProto, output: str = RESULT) -> Callable[..., np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the graphs")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda frame: session.run([output], {FRAME: frame[None]})[0][0]


def checked(model: onnx.ModelProto) -> HalfModel:
    """Type a model and hold what every typed model promises."""
    before = model.SerializeToString()
    half = to_half(model)
    assert model.SerializeToString() == before
    typed = half.model
    onnx.checker.check_model(typed, full_check=True)
    types = tensor_types(typed)
    nodes = typed.graph.node
    named = [item.name for item in nodes if item.name]
    assert len(named) == len(set(named))
    made = {name: item for item in nodes for name in item.output}
    casts = [(item.input[0], item.attribute[0].i) for item in nodes if item.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    for source, kind in casts:
        assert types[source] != kind
        assert source not in made or made[source].op_type != "Cast"
    read = {name for item in nodes for name in item.input}
    results = {item.name for item in typed.graph.output}
    assert all((read | results).intersection(item.output) for item in nodes)
    assert {item.name for item in typed.graph.initializer} <= read
    readers = [{x.op_type for x in y.graph.node if FRAME in x.input} for y in (model, typed)]
    assert readers[1] <= readers[0]
    for kind in ("input", "output"):
        now = {item.name: item.type for item in getattr(typed.graph, kind)}
        weights = {item.name for item in model.graph.initializer}
        assert now == {
            item.name: item.type for item in getattr(model.graph, kind) if item.name not in weights
        }
    assert typed.metadata_props == model.metadata_props
    return half


def kinds(half: HalfModel, op_type: str) -> list[str]:
    """The type of each result of an operator, in the graph's order."""
    types = tensor_types(half.model)
    return [
        T.DataType.Name(types[item.output[0]])
        for item in half.model.graph.node
        if item.op_type == op_type
    ]


def planes(*nodes: onnx.NodeProto, constants: Sequence[Any] = (), **more: Any) -> onnx.ModelProto:
    """A frame model whose ``nodes`` lead from "planes" (1, 3, H, W), 0 to 255, to "made"."""
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
            *nodes,
            node("Round", ["made"], "rounded"),
            node("Clip", ["rounded", "black", "white"], "clipped"),
            node("Transpose", ["clipped"], "pixels", perm=[0, 2, 3, 1]),
            node("Cast", ["pixels"], RESULT, to=T.UINT8),
        ],
        [*constants, constant("black", 0), constant("white", 255)],
        **more,
    )


def same(scale: float = 1.0) -> np.ndarray:
    """Kernels of a convolution that multiplies every colour."""
    return np.eye(3, dtype=np.float32)[:, :, None, None] * np.float32(scale)


def between(*nodes: onnx.NodeProto, constants: Sequence[Any] = ()) -> onnx.ModelProto:
    """``nodes`` lead from "x" to "y", with a convolution before and one after them."""
    return planes(
        node("Conv", ["planes", "first"], "x"),
        *nodes,
        node("Conv", ["y", "last"], "made"),
        constants=[*constants, constant("first", same()), constant("last", same())],
    )


def by_hand(*, naive: bool) -> list[onnx.NodeProto]:
    """InstanceNorm as old exporters write it, or with the variance as E[x^2] - E[x]^2."""
    spread = (
        [
            node("Mul", ["x", "x"], "squares"),
            node("ReduceMean", ["squares", "axes"], "power"),
            node("Mul", ["mean", "mean"], "mean2"),
            node("Sub", ["power", "mean2"], "variance"),
        ]
        if naive
        else [
            node("Mul", ["centred", "centred"], "squares"),
            node("ReduceMean", ["squares", "axes"], "variance"),
        ]
    )
    return [
        node("ReduceMean", ["x", "axes"], "mean"),
        node("Sub", ["x", "mean"], "centred"),
        *spread,
        node("Add", ["variance", "eps"], "positive"),
        node("Sqrt", ["positive"], "deviation"),
        node("Div", ["centred", "deviation"], "normal"),
        node("Relu", ["normal"], "y"),
    ]


def with_statistics(*, naive: bool) -> onnx.ModelProto:
    """Values around 300, normalised, and a picture made of what comes out."""
    return planes(
        node("Conv", ["planes", "first", "around"], "x"),
        *by_hand(naive=naive),
        node("Conv", ["y", "last"], "made"),
        constants=[
            constant("first", same(0.5)),
            constant("around", np.full(3, 240)),
            constant("last", same(90)),
            constant("axes", [2, 3], np.int64),
            constant("eps", 1e-5),
        ],
    )


def foreign_network(
    *nodes: onnx.NodeProto,
    constants: Sequence[onnx.TensorProto] = (),
    given: Sequence[Any] = FREE,
    made: Sequence[Any] | None = FREE,
    kind: int = T.FLOAT,
    opset: int = 18,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """Somebody else's network, "image" to "result"; without nodes it makes pictures darker."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    darker = [node("Mul", ["image", "factor"], "result")]
    made_graph = helper.make_graph(
        list(nodes) or darker,
        "network",
        [value("image", given, kind), *inputs],
        [helper.make_tensor_value_info("result", kind, made), *outputs],
        list(constants) if nodes else [constant("factor", 0.37, dtype)],
    )
    return helper.make_model(
        made_graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
