"""What a frame model costs: counted by hand, by PyTorch's hooks, and by PyTorch's own counter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from models import FRAME, RESULT, constant, counting_in_cells, graph, inverting, node, running_mean
from onnx import TensorProto as T
from onnx import helper

from engines import filter_names, load_filter
from engines.graphs import int8
from engines.graphs.rows import in_rows
from engines.graphs.work import Operator, Work, count_work
from engines.twins import int8_twin

SIZE = (64, 48)
PIXELS = 64 * 48


def network(
    *nodes: onnx.NodeProto, constants: Any = (), first: str = "planes", last: str = "made"
) -> onnx.ModelProto:
    """``nodes`` make ``last`` of ``first``, the frame as (1, 3, H, W); what is made is ignored."""
    return graph(
        [
            node("Cast", [FRAME], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], first, perm=[0, 3, 1, 2]),
            *nodes,
            node("ReduceMean", [last], "mean", keepdims=0),
            node("Add", ["levels", "mean"], "sum"),
            node("Cast", ["sum"], RESULT, to=T.UINT8),
        ],
        constants,
    )


def counted(model: onnx.ModelProto, size: tuple[int, int] = SIZE) -> Work:
    before = model.SerializeToString()
    work, reason = count_work(model, size)
    assert work is not None, reason
    assert reason == ""
    assert model.SerializeToString() == before
    return work


def only(model: onnx.ModelProto, size: tuple[int, int] = SIZE) -> Operator:
    (found,) = counted(model, size).operators
    return found


def weights(*shape: int, name: str = "w") -> onnx.TensorProto:
    return constant(name, np.zeros(shape))


def test_a_convolution_by_hand() -> None:
    conv = node("Conv", ["planes", "w", "b"], "made", pads=[1] * 4)
    found = only(network(conv, constants=[weights(8, 3, 3, 3), weights(8, name="b")]))
    assert found.kind == "Conv"
    assert found.operations == 2 * PIXELS * 8 * 3 * 9
    assert (found.read, found.weights, found.written) == (3 * PIXELS, 8 * 27 + 8, 8 * PIXELS)
    assert not found.int8
    assert found.bytes("f32") == 4 * (11 * PIXELS + 224)
    assert found.bytes("bf16") == 2 * (11 * PIXELS + 224)


def test_strides_dilations_and_groups_by_hand() -> None:
    conv = node("Conv", ["planes", "w"], "made", strides=[2, 4], pads=[1] * 4)
    found = only(network(conv, constants=[weights(5, 3, 3, 3)]))
    assert found.written == 5 * 24 * 16
    assert found.operations == 2 * 5 * 24 * 16 * 27
    conv = node("Conv", ["planes", "w"], "made", dilations=[2, 3])
    found = only(network(conv, constants=[weights(5, 3, 3, 3)]))
    assert found.written == 5 * (48 - 4) * (64 - 6)
    assert found.operations == 2 * found.written * 27
    conv = node("Conv", ["planes", "w"], "made", group=3, pads=[1] * 4)
    found = only(network(conv, constants=[weights(6, 1, 3, 3)]))
    assert found.operations == 2 * PIXELS * 6 * 9


def test_a_transposed_convolution_by_hand() -> None:
    up = node("ConvTranspose", ["planes", "w"], "made", strides=[2, 2], pads=[1] * 4)
    found = only(network(up, constants=[weights(3, 7, 4, 4)]))
    assert found.written == 7 * 4 * PIXELS
    assert found.operations == 2 * 3 * PIXELS * 7 * 16


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_the_same_as_pytorch_counts(
    transposed: bool, groups: int, stride: int, dilation: int
) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    options = {"stride": stride, "dilation": dilation, "groups": groups, "bias": False}
    layer = kind(8, 12, 3, padding=1, **options)
    first = torch.nn.Conv2d(3, 8, 1, bias=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made = layer(first(torch.zeros(1, 3, 48, 64)))
    shape = tuple(layer.weight.shape)
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [1] * 4}
    operator = "ConvTranspose" if transposed else "Conv"
    work = counted(
        network(
            node("Conv", ["planes", "first"], "eight"),
            node(operator, ["eight", "w"], "made", group=groups, **attributes),
            constants=[weights(8, 3, 1, 1, name="first"), weights(*shape)],
        )
    )
    assert work.operations == counter.get_total_flops()
    assert work.operators[1].written == made.numel()


def test_products_of_matrices() -> None:
    nodes = [
        node("Reshape", ["planes", "rows"], "flat"),  # (1, 3, 3072)
        node("MatMul", ["flat", "w"], "few"),  # (1, 3, 10)
        node("Transpose", ["few"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["turned", "few"], "square"),  # (1, 10, 10)
        node("Reshape", ["square", "matrix"], "flat_square"),
        node("Gemm", ["flat_square", "g", "c"], "made", transA=1),
    ]
    constants = [
        constant("rows", [1, 3, -1], np.int64),
        constant("matrix", [10, 10], np.int64),
        weights(PIXELS, 10),
        weights(10, 7, name="g"),
        weights(7, name="c"),
    ]
    one, two, gemm = counted(network(*nodes, constants=constants)).operators
    assert (one.operations, one.read, one.weights, one.written) == (
        2 * 3 * 10 * PIXELS, 3 * PIXELS, 10 * PIXELS, 30,
    )  # fmt: skip
    assert (two.operations, two.read, two.weights, two.written) == (2 * 100 * 3, 60, 0, 100)
    assert (gemm.operations, gemm.read, gemm.weights, gemm.written) == (2 * 70 * 10, 100, 77, 70)


def test_statistics_are_one_reading_and_what_is_elementwise_is_free() -> None:
    nodes = [
        node("InstanceNormalization", ["planes", "s", "b"], "normal"),
        node("Relu", ["normal"], "made"),
    ]
    work = counted(network(*nodes, constants=[weights(3, name="s"), weights(3, name="b")]))
    (found,) = work.operators
    assert (found.operations, found.read, found.weights, found.written) == (0, 3 * PIXELS, 0, 0)
    assert work.frame_bytes == 2 * 3 * PIXELS
    assert work.bytes("f32") == 4 * 3 * PIXELS + work.frame_bytes
    assert work.number_types("f32") == ()
    assert counted(inverting()) == Work((), 6 * PIXELS)


def test_states_are_moved_too() -> None:
    assert counted(running_mean()).frame_bytes == 6 * PIXELS + 2 * 4 * 3 * PIXELS + 2 * 4
    assert counted(counting_in_cells()).frame_bytes == 6 * PIXELS + 2 * 4 * 3 * PIXELS // 16


def quantised(name: str, kind: Any = np.uint8) -> tuple[list[onnx.NodeProto], list[Any]]:
    parts = [f"{name}_scale", f"{name}_zero"]
    nodes = [
        node("QuantizeLinear", [name, *parts], f"{name}_few"),
        node("DequantizeLinear", [f"{name}_few", *parts], f"{name}_again"),
    ]
    return nodes, [constant(parts[0], 0.1), constant(parts[1], 0, kind)]


def test_int8_is_what_is_dequantised_on_both_sides() -> None:
    nodes, constants = quantised("planes")
    again = node("DequantizeLinear", ["w8", "w_scale"], "w_again")
    constants += [constant("w8", np.zeros((8, 3, 3, 3)), np.int8), constant("w_scale", 0.1)]
    conv = node("Conv", ["planes_again", "w_again"], "made")
    found = only(network(*nodes, again, conv, constants=constants))
    assert found.int8
    assert found.operations == 2 * 8 * 27 * 46 * 62
    taken, written = 3 * PIXELS + 8 * 27, 8 * 46 * 62
    assert found.bytes("f32") == taken + 4 * written
    assert found.bytes("bf16") == taken + 2 * written
    assert Work((found,), 0).number_types("bf16") == ("int8",)
    half = node("Conv", ["planes", "w_again"], "made")
    found = only(network(again, half, constants=constants))
    assert not found.int8, "its weights are small, its arithmetic is not"


@pytest.mark.parametrize(
    ("after", "in_int8"),
    [
        ([], True),
        ([node("Relu", ["made"], "y")], True),
        ([node("Mul", ["made", "two"], "x"), node("Clip", ["x"], "y")], True),
        ([node("InstanceNormalization", ["made", "s", "b"], "y")], False),
        ([node("Add", ["made", "made"], "y")], True),
        (
            [
                node("Conv", ["planes", "w"], "other", pads=[1] * 4),
                node("Add", ["made", "other"], "y"),
            ],
            False,
        ),
    ],
    ids=["at once", "activation", "by a constant", "statistics", "with itself", "sum of two"],
)
def test_what_is_quantised_at_once_is_written_in_eight_bits(
    after: list[onnx.NodeProto], in_int8: bool
) -> None:
    conv = node("Conv", ["planes", "w"], "made", pads=[1] * 4)
    last = "y" if after else "made"
    nodes, constants = quantised(last)
    constants += [weights(8, 3, 3, 3), constant("two", 2.0)]
    constants += [constant("s", np.ones(8)), constant("b", np.zeros(8))]
    model = network(conv, *after, *nodes, constants=constants, last=f"{last}_again")
    found = counted(model).operators[0]
    assert found.writes_int8 == in_int8
    assert found.bytes("f32") == 4 * (3 * PIXELS + 216) + 8 * PIXELS * (1 if in_int8 else 4)


@pytest.mark.skipif(int8.why_not() is not None, reason=str(int8.why_not()))
def test_the_int8_twin_of_a_filter_does_the_same_in_int8() -> None:
    master = load_filter("comic").graph()
    frames = [np.full((48, 64, 3), 50 * value, np.uint8) for value in range(4)]
    twin = counted(int8.to_int8(master, frames))
    assert twin.number_types("f32") == ("int8", "f32")
    assert twin.operations == counted(master).operations


def test_of_a_shipped_twin_all_convolutions_but_the_last_are_in_int8() -> None:
    operators = counted(int8_twin(load_filter("comic")).graph()).operators
    assert [item.int8 for item in operators] == [True] * 7 + [False]
    assert any(item.writes_int8 for item in operators)
    assert not operators[-1].writes_int8


@pytest.mark.parametrize("name", filter_names())
def test_shipped_filters_against_hooks_in_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    from engines.generators.rebuilding import rebuild

    model = load_filter(name)
    generator = rebuild(model).eval()
    seen: list[tuple[int, int, int]] = []

    def hook(layer: Any, given: Any, made: Any) -> None:
        products = made.numel() * math.prod(layer.weight.shape[1:])
        moved = given[0].numel() + layer.weight.numel() + made.numel()
        seen.append((2 * products, moved + (0 if layer.bias is None else layer.bias.numel()), 0))

    for layer in generator.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        generator(torch.zeros(1, 3, 48, 64))
    work = counted(model.graph())
    convolutions = [item for item in work.operators if item.operations]
    assert len(convolutions) == len(seen) >= 8
    assert work.operations == sum(operations for operations, _, _ in seen)
    if not [node for node in model.graph().graph.node if node.op_type == "Pad"]:
        assert sum(item.bytes("f32") for item in convolutions) == 4 * sum(x[1] for x in seen)
    rows = in_rows(model.graph())
    if rows is not None:
        assert counted(rows).operations == work.operations
    assert counted(model.graph(), (128, 96)).operations == 4 * work.operations


def branches(*, inside: bool) -> onnx.ModelProto:
    """An If on what is in the frame: around a convolution, or with another shape in each branch."""
    conv = node("Conv", ["planes", "w"], "then_made", pads=[1] * 4)
    plain = node("Identity", ["planes"], "else_made")
    larger = node("Concat", ["planes", "planes"], "then_made", axis=2)
    free = [
        helper.make_tensor_value_info(name, T.FLOAT, None) for name in ("then_made", "else_made")
    ]
    then = helper.make_graph([conv if inside else larger], "then", [], [free[0]])
    other = helper.make_graph([plain], "else", [], [free[1]])
    return network(
        node("ReduceMax", ["levels"], "most", keepdims=0),
        node("Greater", ["most", "limit"], "bright"),
        node("If", ["bright"], "chosen", then_branch=then, else_branch=other),
        node("Conv", ["chosen", "w"], "made", pads=[1] * 4),
        constants=[constant("limit", 9.0), weights(3, 3, 3, 3)],
    )


def as_function() -> onnx.ModelProto:
    """The convolution in a local function."""
    model = network(node("Twice", ["planes", "w"], "made", domain="own"),
                    constants=[weights(3, 3, 3, 3)])  # fmt: skip
    inner = [
        node("Conv", ["x", "w"], "once", pads=[1] * 4),
        node("Conv", ["once", "w"], "y", pads=[1] * 4),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Twice", ["x", "w"], ["y"], inner, opsets))
    model.opset_import.append(opsets[1])
    return model


def test_functions_are_looked_into() -> None:
    assert counted(as_function()).operations == 2 * 2 * PIXELS * 81


def depends_on_values() -> onnx.ModelProto:
    return network(
        node("NonZero", ["planes"], "places"),
        node("Cast", ["places"], "numbers", to=T.FLOAT),
        node("MatMul", ["w", "numbers"], "made"),
        constants=[weights(5, 4)],
    )


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        (branches(inside=True), SIZE, "Conv then_made is inside If chosen"),
        (branches(inside=False), SIZE, "the shape of 'chosen' does not follow from the size"),
        (depends_on_values(), SIZE, "the shape of 'made' does not follow"),
        (inverting((48, 64)), (128, 96), "takes frames of another size than 128x96"),
        (network(node("LSTM", ["planes", "w", "r"], "made", hidden_size=2)), SIZE, "LSTM made mul"),
        (network(node("Own", ["planes"], "made", domain="com.me")), SIZE, "operator of 'com.me'"),
        (network(node("Conv", ["planes", "w"], "made"), constants=[weights(8, 5, 3, 3)]), SIZE,
         "do not fit together"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_has_a_reason_and_no_number(
    model: onnx.ModelProto, size: tuple[int, int], said: str
) -> None:
    work, reason = count_work(model, size)
    assert work is None
    assert said in reason, reason
    assert "\n" not in reason
