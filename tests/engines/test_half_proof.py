"""A graph that rounds as the hardware does shows what half precision breaks."""

import numpy as np
import onnx
import pytest
from graphs import (
    CLOSE_DB,
    COMIC,
    SIZE,
    between,
    checked,
    photographs,
    planes,
    same,
    translate,
    with_statistics,
)
from models import constant, node, picture, value
from onnx import TensorProto as T
from onnx import numpy_helper

from engines.graphs.graph_types import tensor_types
from engines.graphs.half import find_overflow, rounded_twin, to_half
from engines.graphs.half_proof import half_psnr_db
from engines.proof import HIGHEST_PSNR_DB, compare

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the twin")


def all_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The classic mistake: every float of the graph is FP16."""
    model.graph.node[0].attribute[0].i = T.FLOAT16
    for item in model.graph.initializer:
        if item.data_type == T.FLOAT:
            array = numpy_helper.to_array(item).astype(np.float16)
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    return model


def test_instance_norm_in_half_precision_is_black_and_ours_is_not() -> None:
    frames = photographs()
    master = with_statistics(naive=True)
    right = translate(master)
    assert np.ptp(right(frames[0])) > 200
    mistake = all_in_half(with_statistics(naive=True))
    onnx.checker.check_model(mistake, full_check=True)
    broken = compare(right, translate(rounded_twin(mistake)), frames)
    assert broken.broken_share == 1
    reason = find_overflow(mistake, frames[0])
    assert reason is not None
    assert reason.startswith("Mul squares: ")
    assert reason.endswith(" does not fit into FP16, largest is 65504")
    ours = to_half(master).model
    assert compare(right, translate(rounded_twin(ours)), frames).psnr_db > CLOSE_DB
    assert find_overflow(ours, frames[0]) is None


def overflowing() -> onnx.ModelProto:
    """A layer makes numbers of up to 255 * 400, the next scales them back; FP32 bears it."""
    return planes(
        node("Conv", ["planes", "up"], "large"),
        node("Relu", ["large"], "kept"),
        node("Conv", ["kept", "down"], "made"),
        constants=[constant("up", same(400)), constant("down", same(1 / 400))],
    )


def test_an_overflow_is_seen_in_the_twin_and_found() -> None:
    master, frame = overflowing(), picture(SIZE)
    frame[0, 0] = 255
    half = checked(master).model
    twin = rounded_twin(half)
    right = translate(master)
    assert np.abs(right(frame).astype(int) - frame).max() <= 1
    proof = compare(right, translate(twin), [frame])
    assert not proof.passed  # at ORT_ENABLE_ALL: the pairs of casts are still there
    assert find_overflow(half, frame) == (
        "Conv large: 102000 does not fit into FP16, largest is 65504"
    )
    dark = frame // 2
    assert find_overflow(half, dark) is None
    assert compare(right, translate(twin), [dark]).psnr_db > CLOSE_DB


def test_how_close_half_precision_is() -> None:
    frame = picture(SIZE)
    frame[0, 0] = 255
    master = overflowing()
    assert half_psnr_db(master, to_half(master).model, frame) < CLOSE_DB
    assert half_psnr_db(master, to_half(master).model, frame // 2) > CLOSE_DB
    assert half_psnr_db(master, master, frame) == HIGHEST_PSNR_DB


def test_what_is_not_finite_before_it_is_rounded_is_found_too() -> None:
    half = checked(
        between(
            node("Sub", ["x", "all"], "negative"),
            node("Sqrt", ["negative"], "root"),
            node("Tanh", ["root"], "y"),
            constants=[constant("all", 255)],
        )
    ).model
    reason = find_overflow(half, np.zeros((8, 8, 3), np.uint8))
    assert reason == "Tanh y: its result is infinite or not a number before it is rounded to FP16"


def test_the_twin_keeps_every_value_that_half_precision_has() -> None:
    half = to_half(between(node("Relu", ["x"], "y"))).model
    frame = picture(SIZE)
    assert np.array_equal(translate(rounded_twin(half))(frame), frame)


def test_the_twin_keeps_inputs_outputs_and_metadata() -> None:
    half = to_half(onnx.load(str(COMIC))).model
    twin = rounded_twin(half)
    onnx.checker.check_model(twin, full_check=True)
    assert twin.graph.input == half.graph.input
    assert twin.graph.output == half.graph.output
    assert twin.metadata_props == half.metadata_props
    pairs = [x for x in twin.graph.node if x.op_type == "Cast" and x.attribute[0].i == T.FLOAT16]
    halves = [x for x in tensor_types(half).values() if x == T.FLOAT16]
    weights = [x for x in half.graph.initializer if x.data_type == T.FLOAT16]
    assert len(pairs) == len(halves) - len(weights) > 10


def test_a_state_in_half_precision_keeps_its_type() -> None:
    side = (1, 3, "H", "W")
    typed = planes(
        node("Cast", ["planes"], "half_planes", to=T.FLOAT16),
        node("Add", ["half_planes", "state_sum"], "state_sum_out"),
        node("Cast", ["state_sum_out"], "made", to=T.FLOAT),
        inputs=[value("state_sum", side, T.FLOAT16)],
        outputs=[value("state_sum_out", side, T.FLOAT16)],
    )
    twin = rounded_twin(typed)
    onnx.checker.check_model(twin, full_check=True)
    assert twin.graph.input == typed.graph.input
    assert twin.graph.output == typed.graph.output
    frame = picture((16, 8))
    given = {"frame": frame[None], "state_sum": np.full((1, 3, 8, 16), 2047, np.float16)}
    session = onnxruntime.InferenceSession(
        twin.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    left = session.run(["state_sum_out"], given)[0]
    right = given["state_sum"] + frame.transpose(2, 0, 1)[None].astype(np.float16)
    assert left.dtype == np.float16
    assert np.array_equal(left, right)  # above 2048 only every second number exists
    assert find_overflow(typed, frame) is None
