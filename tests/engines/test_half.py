"""FP32 frame models become strongly typed FP16 ones."""

from collections.abc import Callable

import numpy as np
import pytest
from graphs import COMIC, between, checked, kinds, planes, same, translate, with_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from models import FRAME, constant, fragile, node, picture, running_mean, value
from models import with_alpha as alpha_model

onnx = pytest.importorskip("onnx")

from onnx import TensorProto as T  # noqa: E402
from onnx import helper  # noqa: E402

from engines.errors import ConversionError  # noqa: E402
from engines.graphs.half import find_overflow, rounded_twin, to_half  # noqa: E402


def test_a_typed_graph_passes_through_unchanged() -> None:
    half = to_half(onnx.load(str(COMIC)))
    again = to_half(half.model)
    assert again.model is half.model
    assert again.counts == half.counts


def test_before_the_first_and_after_the_last_convolution_it_is_fp32() -> None:
    half = checked(
        planes(
            node("Mul", ["planes", "scale"], "given"),
            node("Conv", ["given", "w"], "a"),
            node("Relu", ["a"], "b"),
            node("Conv", ["b", "w"], "c"),
            node("Relu", ["c"], "d"),
            node("Mul", ["d", "scale"], "made"),
            constants=[constant("w", same()), constant("scale", 1)],
        )
    )
    assert kinds(half, "Mul") == ["FLOAT", "FLOAT"]
    assert kinds(half, "Relu") == ["FLOAT16", "FLOAT"]
    assert kinds(half, "Conv") == ["FLOAT16", "FLOAT16"]
    # Read by two FP16 and two FP32 nodes: one copy of each, of what is needed.
    stored = {item.name: item.data_type for item in half.model.graph.initializer}
    assert stored["w"] == T.FLOAT16
    assert stored["scale"] == T.FLOAT
    assert len(stored) == 4


def test_comparisons_and_quantisation_in_the_middle() -> None:
    """Nodes whose result is no float: what they read is renamed, and found again."""
    checked(
        between(
            node("Tanh", ["x"], "steep"),
            node("Greater", ["x", "steep"], "larger"),
            node("Where", ["larger", "x", "steep"], "y"),
        )
    )
    model = between(
        node("Relu", ["x"], "a"),
        node("QuantizeLinear", ["a", "step", "zero"], "few"),
        node("DequantizeLinear", ["few", "step", "zero"], "b"),
        node("Add", ["a", "b"], "y"),
        constants=[constant("step", 2), constant("zero", 0, np.int8)],
    )
    half = checked(model)
    assert kinds(half, "Relu") == ["FLOAT16"]
    assert kinds(half, "DequantizeLinear") == ["FLOAT"]


def test_a_constant_of_both_types_is_stored_twice() -> None:
    half = checked(
        between(
            node("Mul", ["x", "factor"], "a"),
            node("Tanh", ["a"], "b"),
            node("Mul", ["x", "factor"], "c"),
            node("Relu", ["c"], "d"),
            node("Mul", ["b", "factor"], "e"),
            node("Add", ["d", "e"], "y"),
            constants=[constant("factor", 2)],
        )
    )
    # The first is read by Tanh only: FP32 at once, instead of after it.
    assert kinds(half, "Mul") == ["FLOAT", "FLOAT16", "FLOAT"]
    stored = {item.name: item.data_type for item in half.model.graph.initializer}
    assert [stored[x] for x in sorted(stored) if "factor" in x] == [T.FLOAT, T.FLOAT16]
    assert kinds(half, "Add") == ["FLOAT"]
    assert half.islands == ("Tanh b: too steep, or too wide in range, for FP16",)


@pytest.mark.parametrize(
    ("op_type", "parameters"),
    [("InstanceNormalization", 2), ("BatchNormalization", 4), ("Softmax", 0)],
)
def test_normalisations_are_islands(op_type: str, parameters: int) -> None:
    names = [f"p{number}" for number in range(parameters)]
    half = checked(
        between(
            node(op_type, ["x", *names], "normal"),
            node("Relu", ["normal"], "y"),
            constants=[constant(name, np.ones(3)) for name in names],
        )
    )
    assert kinds(half, op_type) == ["FLOAT"]
    assert kinds(half, "Relu") == ["FLOAT16"]
    assert half.islands == (f"{op_type} normal: its statistics need FP32",)
    stored = {item.name: item.data_type for item in half.model.graph.initializer}
    assert {stored[name] for name in names} <= {T.FLOAT}


def test_what_no_convolution_follows_reads_the_island_without_a_cast() -> None:
    half = checked(
        planes(
            node("Conv", ["planes", "w"], "x"),
            node("InstanceNormalization", ["x", "one", "one"], "normal"),
            node("Tanh", ["normal"], "made"),
            constants=[constant("w", same()), constant("one", np.ones(3))],
        )
    )
    assert [x.input[0] for x in half.model.graph.node if x.op_type == "Cast"][1:-1] == [
        "planes",
        "x",
    ]
    assert half.islands == ()


@pytest.mark.parametrize("naive", [False, True])
def test_statistics_by_hand_are_fp32_until_the_next_convolution(naive: bool) -> None:
    half = checked(with_statistics(naive=naive))
    for op_type in ("ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div", "Relu"):
        assert set(kinds(half, op_type)) == {"FLOAT"}, op_type
    assert kinds(half, "Conv") == ["FLOAT16", "FLOAT16"]
    assert "ReduceMean mean: a sum over many values needs FP32" in half.islands


def test_a_weight_that_does_not_fit_keeps_its_node_in_fp32() -> None:
    half = checked(fragile())
    assert kinds(half, "Conv") == ["FLOAT", "FLOAT"]
    assert half.islands == (
        "Conv conv0: its constant 'b0' reaches 65536, and FP16 ends at 65504",
        "Conv conv1: its constant 'b1' reaches 65536, and FP16 ends at 65504",
    )
    frame = picture((16, 8))
    assert np.array_equal(translate(half.model)(frame), translate(fragile())(frame))


def test_a_weight_that_would_vanish_keeps_its_node_in_fp32() -> None:
    half = checked(
        between(
            node("Conv", ["x", "tiny"], "dark"),
            node("Conv", ["dark", "huge"], "y"),
            constants=[constant("tiny", same(1e-9)), constant("huge", same(6e4))],
        )
    )
    assert kinds(half, "Conv") == ["FLOAT16", "FLOAT", "FLOAT16", "FLOAT16"]
    assert half.islands == (
        "Conv dark: its constant 'tiny' would be 0 in FP16: its largest value is 1e-09",
    )


def test_a_bias_that_would_vanish_does_not_matter() -> None:
    """Real checkpoints have them in front of a normalisation, which takes them away anyway."""
    half = checked(
        between(
            node("Conv", ["x", "kernels", "nothing"], "y"),
            constants=[constant("kernels", same()), constant("nothing", np.full(3, 1e-10))],
        )
    )
    assert kinds(half, "Conv") == ["FLOAT16"] * 3
    assert half.islands == ()


def test_limits_that_mean_none_are_no_reason_for_an_island() -> None:
    half = checked(
        between(
            node("Clip", ["x", "zero", "most"], "y"),
            constants=[constant("zero", 0), constant("most", np.finfo(np.float32).max)],
        )
    )
    assert kinds(half, "Clip") == ["FLOAT16", "FLOAT"]
    assert half.islands == ()
    frame = picture((16, 8))
    assert np.array_equal(translate(rounded_twin(half.model))(frame), frame)


def test_constants_of_nodes_and_computed_ones() -> None:
    """Constant nodes, weights that a Reshape gives, and a cast that casts nothing."""
    half = checked(
        between(
            node("Constant", [], "factor", value_float=2.0),
            node("Constant", [], "shape", value_ints=[1, 3, 1, 1]),
            node("Constant", [], "row", value=constant("", [1, 2, 3])),
            node("Reshape", ["row", "shape"], "column"),
            node("Cast", ["x"], "float_x", to=T.FLOAT),
            node("Mul", ["float_x", "factor"], "twice"),
            node("Add", ["twice", "column"], "y"),
        )
    )
    assert kinds(half, "Mul") == ["FLOAT16"]
    assert kinds(half, "Add") == ["FLOAT16"]
    assert kinds(half, "Reshape") == ["FLOAT"]
    assert len(kinds(half, "Cast")) == 5  # frame, planes, column, made, translated


def test_sizes_and_what_the_schema_wants_in_fp32_stay() -> None:
    half = checked(
        between(
            node("Resize", ["x", "", "scales"], "large", mode="linear"),
            node("Shape", ["x"], "shape"),
            node("Cast", ["shape"], "floats", to=T.FLOAT),
            node("Mul", ["floats", "one"], "same_floats"),
            node("Cast", ["same_floats"], "sizes", to=T.INT64),
            node("Resize", ["large", "", "", "sizes"], "small"),
            node("Pad", ["small", "pads"], "y"),
            constants=[
                constant("scales", [1, 1, 2, 2]),
                constant("one", 1),
                constant("pads", [0] * 8, np.int64),
            ],
        )
    )
    assert kinds(half, "Resize") == ["FLOAT16", "FLOAT16"]
    assert kinds(half, "Pad") == ["FLOAT16"]
    assert kinds(half, "Mul") == ["FLOAT"]
    assert half.islands == ()


def test_types_that_come_from_another_tensor_are_written_down() -> None:
    half = checked(
        between(
            node("Greater", ["x", "grey"], "bright"),
            node("CastLike", ["bright", "x"], "mask"),
            node("Where", ["bright", "x", "grey"], "chosen"),
            node("Mul", ["chosen", "mask"], "y"),
            constants=[constant("grey", 100)],
        )
    )
    assert kinds(half, "Where") == ["FLOAT16"]
    assert kinds(half, "Mul") == ["FLOAT"]  # what is 0 or 1 came from a cast, and is FP32
    frame = picture((16, 8))
    assert np.array_equal(translate(half.model)(frame), np.where(frame > 100, frame, 0))


def test_squares_are_fp32() -> None:
    half = checked(between(node("Mul", ["x", "x"], "squares"), node("Relu", ["squares"], "y")))
    assert kinds(half, "Mul") == ["FLOAT"]
    assert half.islands == ("Mul squares: the squares of values above 256 do not fit into FP16",)


def test_no_cast_is_cast_again() -> None:
    """A mask goes into a convolution at once; weights were stored in FP16 to save space."""
    half = checked(
        between(
            node("Greater", ["x", "grey"], "bright"),
            node("Cast", ["bright"], "mask", to=T.FLOAT),
            node("Cast", ["stored"], "kernels", to=T.FLOAT),
            node("Conv", ["mask", "kernels"], "y"),
            constants=[constant("grey", 100), constant("stored", same(255), np.float16)],
        )
    )
    assert kinds(half, "Conv") == ["FLOAT16"] * 3
    convolution = next(item for item in half.model.graph.node if item.output[0] == "y")
    assert convolution.input[1] == "stored"
    frame = picture((16, 8))
    assert np.array_equal(translate(half.model)(frame), np.where(frame > 100, 255, 0))


def test_states_and_alpha_keep_their_types() -> None:
    assert checked(alpha_model()).model.graph.output[0].name == "alpha"
    assert checked(running_mean()).counts["Add"] == {"FLOAT16": 0, "FLOAT": 1}
    side = (1, 3, "H", "W")
    half = checked(
        planes(
            node("Conv", ["planes", "w"], "seen"),
            node("Add", ["seen", "state_trace"], "sum"),
            node("Conv", ["sum", "w"], "mixed"),
            node("Relu", ["mixed"], "state_trace_out"),
            node("Conv", ["state_trace_out", "w"], "made"),
            constants=[constant("w", same(0.5))],
            inputs=[value("state_trace", side, T.FLOAT)],
            outputs=[value("state_trace_out", side, T.FLOAT)],
        )
    )
    assert kinds(half, "Relu") == ["FLOAT16"]
    assert kinds(half, "Add") == ["FLOAT"]
    assert find_overflow(half.model, picture((16, 8))) is None


def test_old_graphs_list_their_weights_as_inputs() -> None:
    master = between(node("Relu", ["x"], "y"))
    master.graph.input.append(value("first", (3, 3, 1, 1), T.FLOAT))
    half = checked(master)
    assert [item.name for item in half.model.graph.input] == [FRAME]
    assert kinds(half, "Conv") == ["FLOAT16", "FLOAT16"]


def _branching() -> onnx.ModelProto:
    branch = helper.make_graph(
        [node("Identity", ["x"], "same_x")], "branch", [], [value("same_x", (1, 3, "H", "W"), 1)]
    )
    return between(
        node("If", ["yes"], "y", then_branch=branch, else_branch=branch),
        constants=[constant("yes", True, np.bool_)],
    )


def _custom() -> onnx.ModelProto:
    model = between(node("FastRelu", ["x"], "y", domain="com.somebody"))
    model.opset_import.append(helper.make_opsetid("com.somebody", 1))
    return model


def _local_function() -> onnx.ModelProto:
    model = between(node("Own", ["x"], "y", domain="local"))
    opsets = [helper.make_opsetid("", 18)]
    body = [node("Relu", ["a"], "b")]
    model.functions.append(helper.make_function("local", "Own", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def _wrong_types() -> onnx.ModelProto:
    return between(node("Add", ["x", "whole"], "y"), constants=[constant("whole", [1], np.int64)])


def _unknown() -> onnx.ModelProto:
    return between(node("Embiggen", ["x"], "y"))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_branching, "If y is control flow: .*; --precision f32 converts it without FP16$"),
        (_custom, "FastRelu y is an operator of 'com.somebody': .*; --precision f32 converts"),
        (_local_function, r"local functions \(Own\): .*; --precision f32 converts it"),
        (_wrong_types, "types do not fit together"),
        (_unknown, "Embiggen"),
    ],
)
def test_what_cannot_be_typed_is_refused(model: Callable[[], onnx.ModelProto], reason: str) -> None:
    for attempt in (to_half, rounded_twin):
        with pytest.raises(ConversionError, match=reason) as raised:
            attempt(model())
        assert "\n" not in str(raised.value)


STEPS: dict[str, Callable[[str, str, str], list[onnx.NodeProto]]] = {
    "conv": lambda x, y, _: [node("Conv", [x, "w"], y)],
    "relu": lambda x, y, _: [node("Relu", [x], y)],
    "norm": lambda x, y, _: [node("InstanceNormalization", [x, "ones", "ones"], y)],
    "tanh": lambda x, y, _: [node("Tanh", [x], y)],
    "square": lambda x, y, _: [node("Mul", [x, x], y)],
    "scale": lambda x, y, _: [node("Mul", [x, "half"], y)],
    "same": lambda x, y, _: [node("Cast", [x], y, to=T.FLOAT)],
    "double": lambda x, y, _: [
        node("Cast", [x], f"{y}_d", to=T.DOUBLE),
        node("Cast", [f"{y}_d"], y, to=T.FLOAT),
    ],
    "add": lambda x, y, other: [node("Add", [x, other], y)],
    "mean": lambda x, y, other: [
        node("ReduceMean", [x, "axes"], f"{y}_m"),
        node("Sub", [other, f"{y}_m"], y),
    ],
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20)), max_size=14))
def test_any_order_of_layers_gives_a_valid_typed_graph(steps: list[tuple[str, int]]) -> None:
    names, nodes = ["planes"], []
    for step, back in steps:
        made = STEPS[step](names[-1], f"t{len(names)}", names[-1 - back % len(names)])
        nodes += made
        names.append(made[-1].output[0])
    nodes.append(node("Identity", [names[-1]], "made"))
    master = planes(
        *nodes,
        constants=[
            constant("w", same(0.25)),
            constant("ones", np.ones(3)),
            constant("half", 0.5),
            constant("axes", [2, 3], np.int64),
        ],
    )
    used = {name for item in master.graph.node for name in item.input}
    for item in [x for x in master.graph.initializer if x.name not in used]:
        master.graph.initializer.remove(item)
    before = "double" in [step for step, _ in steps]
    half = to_half(master) if before else checked(master)
    onnx.checker.check_model(rounded_twin(half.model), full_check=True)
    if half.counts.get("Conv"):
        assert set(kinds(half, "Conv")) == {"FLOAT16"}
    assert set(kinds(half, "InstanceNormalization")) <= {"FLOAT"}
    assert set(kinds(half, "Tanh")) <= {"FLOAT"}
