"""What the tests of masks share: pictures of noise, a frame model with alpha, and one frame through
one effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import Card, Pixels, write_frame_model
from realtime import Frame
from realtime.effects import Context, Effect, open_effect

SIZE = (128, 96)
BLANK = np.zeros((96, 128), np.uint8)


def noise(seed: int, shape: tuple[int, ...] = (96, 128, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def run(item: Effect, source: Pixels, translated: Pixels, pts_ms: float = 0.0) -> Pixels:
    """Run one prepared effect on a frame, whose source is read-only as in the pipeline."""
    source = source.copy()
    source.flags.writeable = False
    frame = Frame(translated.copy(), source, pts_ns=round(pts_ms * 1e6))
    return item.process(frame, CONTEXT).copy()


CONTEXT = Context(size=SIZE)


def prepared(spec: Effect | str) -> Effect:
    item = open_effect(spec)
    item.prepare(SIZE, CONTEXT)
    return item


def write_mask_model(path: Path, *, alpha: bool = True) -> Path:
    """Write a frame model that makes the negative, and to which blue is what shows: half as blue
    is half of it.
    """
    outputs = [helper.make_tensor_value_info("translated", TensorProto.UINT8, (1, "H", "W", 3))]
    nodes = [
        helper.make_node("Cast", ["frame"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["white", "levels"], ["negative"]),
        helper.make_node("Cast", ["negative"], ["translated"], to=TensorProto.UINT8),
    ]
    constants = [numpy_helper.from_array(np.float32(255), "white")]
    if alpha:
        outputs.append(helper.make_tensor_value_info("alpha", TensorProto.UINT8, (1, "H", "W", 1)))
        nodes.append(helper.make_node("Split", ["frame", "parts"], ["alpha", "rest"], axis=3))
        constants.append(numpy_helper.from_array(np.array([1, 2], np.int64), "parts"))
    graph = helper.make_graph(
        nodes,
        "mask",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, (1, "H", "W", 3))],
        outputs,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    write_frame_model(model, Card(path.stem, stride=16), path)
    return path
