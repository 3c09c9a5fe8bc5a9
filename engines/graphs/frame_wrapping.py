"""The operators around somebody else's network: a frame goes in, a frame comes out.

The same arithmetic as `engines.export.FrameTranslator`, in (1, H, W, C) throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.graphs.foreign import Port
from engines.graphs.graph_types import FLOAT, Names, rename
from engines.picture_format import LUMA, PictureFormat

if TYPE_CHECKING:
    import onnx

UINT8: Final = 2


def sides_of(port: Port, wanted: PictureFormat) -> tuple[int | str | None, ...]:
    """(channels, height, width) of a picture."""
    assert port.dims is not None
    one, two, three = port.dims[-3:]
    return (one, two, three) if wanted.layout == "nchw" else (three, one, two)


class FrameWrapping:
    """Puts the operators before and behind the network that a graph is, in place."""

    def __init__(self, model: onnx.ModelProto, takes: PictureFormat, gives: PictureFormat) -> None:
        self._graph, self._names = model.graph, Names(model.graph)
        self._takes, self._gives = takes, gives
        self._nodes: list[onnx.NodeProto] = []

    def write(self, taken: Port, given: Port) -> None:
        """Feed the input ``taken`` from the frame, and the frame's outputs from ``given``."""
        from onnx import helper

        _, height, width = sides_of(taken, self._takes)
        picture = self._before(taken)
        self._nodes.extend(self._graph.node)
        outputs = {"translated": 3}
        found = self._levels(given, picture if given.name == taken.name else given.name)
        if self._gives.colour == "rgba":
            outputs["alpha"] = 1
            self._node("Cast", [self._channels(found, [3])], result="alpha", to=UINT8)
        order = {"bgr": None, "grey": [0, 0, 0]}.get(self._gives.colour, [2, 1, 0])
        bgr = self._channels(found, order) if order else found
        self._node("Cast", [bgr], result="translated", to=UINT8)
        del self._graph.node[:], self._graph.input[:], self._graph.output[:]
        self._graph.node.extend(self._nodes)
        self._graph.input.append(
            helper.make_tensor_value_info("frame", UINT8, [1, height, width, 3])
        )
        self._graph.output.extend(
            helper.make_tensor_value_info(name, UINT8, [1, height, width, channels])
            for name, channels in outputs.items()
        )

    def _before(self, taken: Port) -> str:
        """Return the name of the network's picture."""
        takes = self._takes
        # The cast comes first: TensorRT takes no other operator on uint8.
        found = self._node("Cast", ["frame"], to=FLOAT)
        if takes.colour != "bgr":
            found = self._channels(found, [2, 1, 0])
        if takes.colour == "grey":
            weighted = self._node("Mul", [found, self._constant("luma", LUMA)])
            axis = self._constant("channel_axis", [3], np.int64)
            found = self._node("ReduceSum", [weighted, axis], keepdims=1)
        if takes.colour == "rgba":
            pads = self._constant("one_more_channel", [0] * 7 + [1], np.int64)
            found = self._node("Pad", [found, pads, self._constant("opaque", 255.0)])
        if taken.kind == UINT8:
            found = self._node("Round", [found]) if takes.colour == "grey" else found
        else:
            scale = [scale / 255 for scale in takes.scale]
            found = self._node("Mul", [found, self._constant("scale_in", scale)])
            if any(takes.offset):
                found = self._node("Add", [found, self._constant("offset_in", takes.offset)])
        if takes.layout == "nchw":
            found = self._node("Transpose", [found], perm=[0, 3, 1, 2])
        assert taken.dims is not None
        if len(taken.dims) == 3:
            found = self._node("Squeeze", [found, self._constant("batch_axis", [0], np.int64)])
        if taken.kind == FLOAT or (taken.kind == UINT8 and self._casts_only(taken.name)):
            rename(self._graph, taken.name, found)  # TensorRT has uint8 at the ends only
            return found
        return self._node("Cast", [found], result=taken.name, to=taken.kind)

    def _casts_only(self, name: str) -> bool:
        readers = [node for node in self._graph.node if name in node.input]
        return all(node.op_type == "Cast" for node in readers)

    def _levels(self, given: Port, found: str) -> str:
        """The network's picture as float levels 0 to 255, (1, H, W, C)."""
        gives = self._gives
        if given.kind != FLOAT:
            found = self._node("Cast", [found], to=FLOAT)
        assert given.dims is not None
        if len(given.dims) == 3:
            found = self._node("Unsqueeze", [found, self._constant("first_axis", [0], np.int64)])
        if gives.layout == "nchw":
            found = self._node("Transpose", [found], perm=[0, 2, 3, 1])
        if any(gives.offset):
            found = self._node("Sub", [found, self._constant("offset_out", gives.offset)])
        scale = [255 / scale for scale in gives.scale]
        found = self._node("Mul", [found, self._constant("scale_out", scale)])
        limits = [self._constant("black", 0.0), self._constant("white", 255.0)]
        return self._node("Clip", [self._node("Round", [found]), *limits])

    def _channels(self, name: str, order: Sequence[int]) -> str:
        picked = self._constant("channels", list(order), np.int64)
        return self._node("Gather", [name, picked], axis=3)

    def _constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = self._names.new(f"frame_{name}")
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], result: str = "", **attributes: Any) -> str:
        from onnx import helper

        result = result or self._names.new(f"frame_{kind.lower()}")
        title = self._names.new(f"frame_node_{kind.lower()}")
        self._nodes.append(helper.make_node(kind, list(inputs), [result], title, **attributes))
        return result
