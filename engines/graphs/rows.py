"""QuarterNets over the rows of a frame: the same network without the moving about of pixels.

As exported, such a network turns the frame into channels first, reverses the colours, scales them,
and gathers cells of 4 x 4 pixels; at the end it does so backwards. That is a seventh of the time
on a processor. Yet four pixels of a row lie beside each other in the frame as they are, as 12
values: a frame (1, H, W, 3) *is* (1, H, W/4, 12). So

* the first convolution reads that, with a kernel of 12 rows in steps of 4; the order of the colours
  and the range are in its weights;
* the last one gives its values in the order of the frame, times 255, and they are added to it.

Whether a graph is such a network is not guessed from names: its beginning and its end are computed
on a small picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.graphs.graph_types import FLOAT, Names, attribute, read_by, upstream

if TYPE_CHECKING:
    import onnx

CELL_PX: Final = 4
CELL_VALUES: Final = 3 * CELL_PX**2
ROW_VALUES: Final = 3 * CELL_PX
UINT8: Final = 2
TRIAL: Final = (3 * CELL_PX, 2 * CELL_PX)
"""(width, height) of the picture on which a graph has to show what it does."""
TOLERANCE: Final = 1e-5
"""Of values around 1."""

Weights = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A graph, cut before its first and behind its last convolution."""

    first: onnx.NodeProto
    last: onnx.NodeProto
    before: list[onnx.NodeProto]
    between: list[onnx.NodeProto]
    """Without the two convolutions."""
    behind: list[onnx.NodeProto]


def in_rows(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the frame model of the same network that works on rows; None where it is another.

    The pictures are the same but for the rounding of FP32: a value in some ten thousand is another
    by 1. Metadata, and so the card, is left out: this is for engines, not for files that people
    keep. ``model`` is not changed.
    """
    from onnx import helper

    parts = _parts(model)
    if parts is None or not (_gathers_cells(model, parts) and _gives_pictures(model, parts)):
        return None
    graph = _Rows(model, parts).graph()
    opset = [helper.make_opsetid(item.domain, item.version) for item in model.opset_import]
    return helper.make_model(graph, opset_imports=opset, ir_version=model.ir_version)


def _parts(model: onnx.ModelProto) -> _Parts | None:
    graph = model.graph
    values = {item.name: item for item in graph.initializer}
    if [item.name for item in graph.output] != ["translated"]:
        return None
    if [item.name for item in graph.input if item.name not in values] != ["frame"]:
        return None
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    if len(convolutions) < 2:
        return None
    first, last = convolutions[0], convolutions[-1]
    shapes = [
        list(values[node.input[1]].dims) if node.input[1] in values else []
        for node in (first, last)
    ]
    channels = shapes[0][:1]
    if shapes != [[*channels, CELL_VALUES, 3, 3], [CELL_VALUES, *shapes[1][1:2], 3, 3]]:
        return None
    if not (_is_plain(first, values) and _is_plain(last, values)):
        return None
    before = upstream(graph.node, [first.input[0]])
    behind = _downstream(graph.node, last.output[0])
    cut = {id(node) for node in (first, last, *before, *behind)}
    between = [node for node in graph.node if id(node) not in cut]
    early = {name for node in before for name in node.output} | {"frame"}
    late = {name for node in (first, *between) for name in node.output}
    if early & _read([*between, last]) or _read(behind) & (early - {first.input[0]} | late):
        return None  # something else looks at the frame, or at what is in the middle
    return _Parts(first, last, before, between, behind)


def _is_plain(node: onnx.NodeProto, values: dict[str, Any]) -> bool:
    """Whether a convolution is 3x3 with zeros around, one step at a time, of known weights."""
    if list(attribute(node, "pads") or []) != [1] * 4 or (attribute(node, "group") or 1) != 1:
        return False
    if any(list(attribute(node, name) or [1, 1]) != [1, 1] for name in ("strides", "dilations")):
        return False
    if (attribute(node, "auto_pad") or b"NOTSET") != b"NOTSET":
        return False
    return all(name in values for name in node.input[1:] if name)


def _downstream(nodes: Iterable[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Return what depends on a tensor."""
    reached, found = {name}, []
    for node in nodes:  # they are sorted: what makes something stands before what reads it
        if reached & read_by(node):
            reached |= set(node.output)
            found.append(node)
    return found


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in read_by(node)}


def _gathers_cells(model: onnx.ModelProto, parts: _Parts) -> bool:
    """Whether the beginning makes cells of RGB, 0 to 1, of the frame."""
    frame = _trial_frame()
    found = _computed(model, parts.before, {"frame": frame}, parts.first.input[0])
    return found is not None and _same(found, _cells(frame))


def _gives_pictures(model: onnx.ModelProto, parts: _Parts) -> bool:
    """Whether the end adds what the network made to the cells, and makes a frame of that."""
    cells = _cells(_trial_frame())
    change = np.random.default_rng(1).normal(0, 0.5, cells.shape).astype(np.float32)
    given = {parts.first.input[0]: cells, parts.last.output[0]: change}
    found = _computed(model, parts.behind, given, "translated")
    if found is None or found.dtype != np.uint8:
        return False
    whole = np.clip(np.round(255 * np.clip(cells + change, 0, 1)), 0, 255)
    planes = whole.reshape(3, CELL_PX, CELL_PX, *whole.shape[2:])
    picture = planes[::-1].transpose(3, 1, 4, 2, 0).reshape(1, TRIAL[1], TRIAL[0], 3)
    return _same(found, picture, 1.0)


def _trial_frame() -> NDArray[np.uint8]:
    shape = (1, TRIAL[1], TRIAL[0], 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _cells(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (1, 48, h, w): the pixel_unshuffle of the frame as RGB, 0 to 1."""
    _, height, width, _ = frame.shape
    rgb = frame[0, ..., ::-1].astype(np.float32) / np.float32(255)
    parted = rgb.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3)
    shape = (1, CELL_VALUES, height // CELL_PX, width // CELL_PX)
    return parted.transpose(4, 1, 3, 0, 2).reshape(shape)


def _same(found: NDArray[Any], expected: NDArray[Any], tolerance: float = TOLERANCE) -> bool:
    if found.shape != expected.shape:
        return False
    return bool(np.abs(found.astype(np.float64) - expected).max() <= tolerance)


def _computed(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], given: dict[str, Any], wanted: str
) -> NDArray[Any] | None:
    """Return what ``nodes`` make of ``given``; None where they need or are something else."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    nodes = list(nodes)
    needed = _read(nodes)
    constants = [item for item in model.graph.initializer if item.name in needed]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in given.items()
        if name in needed
    ]
    outputs = [helper.make_tensor_value_info(wanted, 0, None)]
    graph = helper.make_graph(nodes, "part", inputs, outputs, constants)
    part = helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        fed = {name: value for name, value in given.items() if name in needed}
        found: Any = ReferenceEvaluator(part).run([wanted], fed)
    except Exception:  # noqa: BLE001  (whatever it stumbles over: it is another graph)
        return None
    return np.asarray(found[0])


class _Rows:
    """Writes the graph."""

    def __init__(self, model: onnx.ModelProto, parts: _Parts) -> None:
        self._model, self._parts = model, parts
        self._names = Names(model.graph)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def graph(self) -> onnx.GraphProto:
        from onnx import helper

        first, last = self._parts.first, self._parts.last
        rows_shape, cells_shape, frame_shape = self._shapes()
        taken = self._node("Reshape", ["frame", rows_shape])  # (1, H, w, 12)
        frame = self._node("Cast", [taken], to=FLOAT)
        picture = self._node("Transpose", [frame], perm=[0, 3, 1, 2])
        self._convolution(
            [picture, *self._first_weights()],
            first.output[0],
            kernel_shape=[3 * CELL_PX, 3],
            strides=[CELL_PX, 1],
            pads=[CELL_PX, 1, CELL_PX, 1],
        )
        self._nodes.extend(self._parts.between)
        change = self._convolution(
            [last.input[0], *self._last_weights()],
            self._names.new("rows_change"),
            kernel_shape=[3, 3],
            pads=[1] * 4,
        )
        # Cells to rows, 12 values at a time.
        change = self._node("Transpose", [change], perm=[0, 2, 3, 1])
        change = self._node("Reshape", [change, cells_shape])
        change = self._node("Transpose", [change], perm=[0, 1, 3, 2, 4])
        change = self._node("Reshape", [change, rows_shape])
        found = self._node("Round", [self._node("Add", [frame, change])])
        limits = [self._constant("black", 0.0), self._constant("white", 255.0)]
        found = self._node("Cast", [self._node("Clip", [found, *limits])], to=UINT8)
        self._node("Reshape", [found, frame_shape], result="translated")
        kept = _read(self._nodes)
        weights = [item for item in self._model.graph.initializer if item.name in kept]
        inputs = [item for item in self._model.graph.input if item.name == "frame"]
        return helper.make_graph(
            self._nodes, "rows", inputs, self._model.graph.output, [*weights, *self._constants]
        )

    def _shapes(self) -> tuple[str, str, str]:
        """Return the names of (1, H, w, 12), (1, h, w, 4, 12) and (1, H, W, 3)."""
        frame = self._node("Shape", ["frame"])
        one, two, three = (self._constant("place", [n], np.int64) for n in (1, 2, 3))
        high = self._node("Slice", [frame, one, two])
        wide = self._node("Slice", [frame, two, three])
        side = self._constant("side", [CELL_PX], np.int64)
        cells_high, cells_wide = (self._node("Div", [x, side]) for x in (high, wide))
        values = self._constant("values", [ROW_VALUES], np.int64)
        shapes = (
            [one, high, cells_wide, values],
            [one, cells_high, cells_wide, side, values],
            [one, high, wide, three],
        )
        rows, cells, whole = (self._node("Concat", list(shape), axis=0) for shape in shapes)
        return rows, cells, whole

    def _first_weights(self) -> list[str]:
        """(O, 48, 3, 3) for cells of RGB, 0 to 1 -> (O, 12, 12, 3) for rows of BGR, 0 to 255."""
        weights, bias = self._weights_of(self._parts.first)
        cells = weights.reshape(-1, 3, CELL_PX, CELL_PX, 3, 3)[:, ::-1]  # colour, dy, dx, ky, kx
        rows = cells.transpose(0, 3, 1, 4, 2, 5).reshape(-1, ROW_VALUES, 3 * CELL_PX, 3) / 255
        return [self._constant("first", rows), self._constant("first_bias", bias)]

    def _last_weights(self) -> list[str]:
        """The same for what the last one gives: values of 48 in the order of the frame."""
        weights, bias = self._weights_of(self._parts.last)
        return [
            self._constant("last", _as_the_frame(weights) * 255),
            self._constant("last_bias", _as_the_frame(bias) * 255),
        ]

    def _weights_of(self, node: onnx.NodeProto) -> tuple[Weights, Weights]:
        from onnx import numpy_helper

        values = {item.name: item for item in self._model.graph.initializer}
        weights, *bias = (
            numpy_helper.to_array(values[name]).astype(np.float64)
            for name in node.input[1:]
            if name
        )
        return weights, bias[0] if bias else np.zeros(len(weights))

    def _convolution(self, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        return self._node("Conv", inputs, result, **attributes)

    def _constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = self._names.new(f"rows_{name}")
        array = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], result: str = "", **attributes: Any) -> str:
        from onnx import helper

        result = result or self._names.new(f"rows_{kind.lower()}")
        title = self._names.new(f"rows_node_{kind.lower()}")
        self._nodes.append(helper.make_node(kind, list(inputs), [result], title, **attributes))
        return result


def _as_the_frame(values: Weights) -> Weights:
    """(48, ...) in the order colour, row, column of a cell, RGB -> row, column, colour, BGR."""
    parted = values.reshape(3, CELL_PX, CELL_PX, *values.shape[1:])[::-1]
    return np.moveaxis(parted, 0, 2).reshape(values.shape)
