"""Frame models with known answers, pictures, and the command, for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import Pix2liveError
from engines.model import Card, FrameModel, write_frame_model
from tools.evaluate import evaluate

Picture = NDArray[np.uint8]


def linear_filter(
    path: Path, factor: float, summand: float, *, stride: int = 1, sides: Any = ("H", "W")
) -> FrameModel:
    """Write a filter that makes ``factor * level + summand`` of each level, limited to 0 to 255."""
    shape = [1, *sides, 3]
    constants = {"factor": factor, "summand": summand, "black": 0.0, "white": 255.0}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["levels", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "summand"], ["shifted"]),
            helper.make_node("Clip", ["shifted", "black", "white"], ["limited"]),
            helper.make_node("Cast", ["limited"], ["translated"], to=TensorProto.UINT8),
        ],
        "linear",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("translated", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_frame_model(model, Card(name=path.stem, stride=stride), path)
    return FrameModel.read(path)


def counting_filter(path: Path) -> FrameModel:
    """Write a filter with a memory: each frame comes out one level brighter than the one before."""
    sides: list[Any] = ["H", "W"]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["state_count", "one"], ["state_count_out"]),
            helper.make_node("Add", ["levels", "state_count"], ["shifted"]),
            helper.make_node("Clip", ["shifted", "black", "white"], ["limited"]),
            helper.make_node("Cast", ["limited"], ["translated"], to=TensorProto.UINT8),
        ],
        "counting",
        [
            helper.make_tensor_value_info("state_count", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *sides, 3]),
        ],
        [
            helper.make_tensor_value_info("state_count_out", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("translated", TensorProto.UINT8, [1, *sides, 3]),
        ],
        [
            numpy_helper.from_array(np.float32([1]), "one"),
            numpy_helper.from_array(np.float32(0), "black"),
            numpy_helper.from_array(np.float32(255), "white"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_frame_model(model, Card(name=path.stem), path)
    return FrameModel.read(path)


def texture(height: int, width: int, seed: int = 0) -> Picture:
    """Soft noise of high contrast: optical flow finds every point of it."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + 45 * soft / soft.std(), 0, 255).astype(np.uint8)


def moved_frames(count: int, step_px: int, height: int = 96, width: int = 128) -> list[Picture]:
    """A camera that pans over a texture: what is seen moves left by ``step_px`` a frame."""
    world = texture(height, width + count * step_px)
    starts = [number * step_px for number in range(count)]
    return [np.ascontiguousarray(world[:, start : start + width]) for start in starts]


def save(folder: Path, pictures: dict[str, Picture]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def refusal(*words: object) -> str:
    done = run(*words)
    assert isinstance(done.exception, Pix2liveError), done.output + repr(done.exception)
    said = str(done.exception)
    assert "\n" not in said
    return said
