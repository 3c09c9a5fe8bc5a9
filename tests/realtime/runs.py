"""Runs of a pipeline in another thread, for tests that do something meanwhile; tiny filters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import Card, FrameModel, write_frame_model
from realtime import Pipeline


def linear(path: Path, gain: float, offset: float, *, stride: int = 1) -> FrameModel:
    """Write a frame model that multiplies and adds: -1 and 255 make a negative."""
    sides = (1, "H", "W", 3)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["levels", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], ["moved"]),
            helper.make_node("Cast", ["moved"], ["translated"], to=TensorProto.UINT8),
        ],
        "linear",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, sides)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, sides)],
        [
            numpy_helper.from_array(np.asarray(value, np.float32), name)
            for name, value in (("gain", gain), ("offset", offset))
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=9)
    write_frame_model(model, Card(name=path.stem, stride=stride), path)
    return FrameModel.read(path)


@contextmanager
def running(pipeline: Pipeline) -> Iterator[Pipeline]:
    """Run in another thread, as a program with a thread for it would; its error is raised."""
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            pipeline.wait()
        except BaseException as error:  # noqa: BLE001  (raised below)
            errors.append(error)

    pipeline.start()
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield pipeline
    finally:
        pipeline.stop()
        thread.join()
    if errors:
        raise errors[0]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
