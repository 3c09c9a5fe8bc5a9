"""QuarterNets over rows: the same pictures, and every other graph left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import FrameModel, filter_names, load_filter, open_engine
from engines.graphs.rows import in_rows
from engines.model import Card, write_frame_model

SIZE = (64, 48)
MOVING = {"DepthToSpace", "SpaceToDepth"}


def rows_of(model: onnx.ModelProto) -> onnx.ModelProto:
    found = in_rows(model)
    assert found is not None
    onnx.checker.check_model(found, full_check=True)
    return found


def compared(one: FrameModel, other: FrameModel, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the differences of two models' pictures, in f32."""
    pytest.importorskip("onnxruntime", reason="compares in ONNX Runtime, which gets files as is")
    frame = models.picture(size)
    pictures = []
    for model in (one, other):
        with open_engine(model, size, backend="onnxruntime") as engine:
            pictures.append(engine.infer(frame).astype(int))
    return np.abs(pictures[0] - pictures[1])


@pytest.mark.parametrize("name", filter_names())
@pytest.mark.parametrize("size", [SIZE, (100, 60)])
def test_a_shipped_filter_makes_the_same_pictures(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    master = load_filter(name)
    graph = rows_of(master.graph())
    assert not MOVING & {node.op_type for node in graph.graph.node}
    path = tmp_path / "rows.onnx"
    write_frame_model(graph, Card(name="rows", stride=4), path)
    differences = compared(master, FrameModel.read(path), size)
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 0.001


def test_the_given_graph_is_not_changed() -> None:
    graph = load_filter("comic").graph()
    before = graph.SerializeToString(deterministic=True)
    in_rows(graph)
    assert graph.SerializeToString(deterministic=True) == before


def test_openvino_runs_it(tmp_path: Path) -> None:
    """The end of the filter in OpenVINO adds to the frame itself: a network of zeros is exact."""
    graph = load_filter("comic").graph()
    for item in graph.graph.initializer:
        if item.name.endswith(("tail.weight", "tail.bias")):
            item.CopyFrom(numpy_helper.from_array(np.zeros(item.dims, np.float32), item.name))
    model = models.written(graph, tmp_path / "nothing.onnx", stride=4)
    frame = models.picture(SIZE)
    with open_engine(model, SIZE, backend="openvino") as engine:
        np.testing.assert_array_equal(engine.infer(frame), frame)
        # As exported, the frame would have gone through the reduced precision.
        assert engine.precision in ("bf16", "f16", "f32")


def a_range(graph: onnx.GraphProto) -> None:
    """Another range: -1 to 1 would need an offset, 0 to 255 another factor."""
    scale = next(node for node in graph.node if node.op_type == "Mul").input[1]
    for item in graph.initializer:
        if item.name == scale:
            item.CopyFrom(numpy_helper.from_array(np.float32(1 / 127.5), item.name))


def an_order(graph: onnx.GraphProto) -> None:
    """BGR to the network instead of RGB: its first reversal reads the wrong way."""
    flip = next(node for node in graph.node if node.op_type == "Slice")
    before = flip.input[0]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == flip.output[0]:
                node.input[place] = before
    graph.node.remove(flip)


def an_end(graph: onnx.GraphProto) -> None:
    """The network's picture alone, which is not added to the frame."""
    last = [node for node in graph.node if node.op_type == "Conv"][-1]
    add = next(node for node in graph.node if last.output[0] in node.input)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == add.output[0]:
                node.input[place] = last.output[0]
    graph.node.remove(add)


def a_border(graph: onnx.GraphProto) -> None:
    """A first convolution with other padding."""
    first = next(node for node in graph.node if node.op_type == "Conv")
    next(item for item in first.attribute if item.name == "pads").ints[:] = [2, 2, 0, 0]


def a_look(graph: onnx.GraphProto) -> None:
    """Something in the middle that looks at the cells once more."""
    first = next(node for node in graph.node if node.op_type == "Conv")
    relu = next(node for node in graph.node if node.op_type == "Relu")
    looked = onnx.helper.make_node("ReduceMean", [first.input[0]], ["looked"], keepdims=1)
    added = onnx.helper.make_node("Add", [relu.output[0], "looked"], ["lit"])
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == relu.output[0]:
                node.input[place] = "lit"
    place = list(graph.node).index(relu) + 1
    graph.node.insert(place, added)
    graph.node.insert(place, looked)


@pytest.mark.parametrize("change", [a_range, an_order, an_end, a_border, a_look])
def test_a_network_that_is_slightly_another_is_left_alone(
    change: Callable[[onnx.GraphProto], None],
) -> None:
    graph = load_filter("comic").graph()
    assert in_rows(graph) is not None
    change(graph.graph)
    onnx.checker.check_model(graph)
    assert in_rows(graph) is None


@pytest.mark.parametrize(
    "make", [models.inverting, models.blurring, models.fragile, models.with_alpha]
)
def test_other_networks_are_left_alone(make: Callable[[], onnx.ModelProto]) -> None:
    assert in_rows(make()) is None


def test_a_convolution_without_bias(tmp_path: Path) -> None:
    """Exporters drop biases that are zero."""
    graph = load_filter("pencil").graph()
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    for node in (convolutions[0], convolutions[-1]):
        del node.input[2]
    master = models.written(graph, tmp_path / "master.onnx", stride=4)
    rows = models.written(rows_of(graph), tmp_path / "rows.onnx", stride=4)
    assert compared(master, rows).max() <= 1
