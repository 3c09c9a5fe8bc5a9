"""Other people's ONNX networks become frame models: the same pictures, or a reason why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import ASSETS, FREE, foreign_network, photographs
from models import constant, node, picture, value
from onnx import TensorProto as T
from onnx import helper

from engines.errors import ConversionError
from engines.graphs.adapt import adapt_onnx, guess_layout, is_frame_model, load_onnx
from engines.graphs.graph_types import tensor_types
from engines.graphs.half import rounded_twin, to_half
from engines.model import Card, FrameModel, write_frame_model
from engines.picture_format import BYTE_RGB, LUMA, SIGNED_RGB, UNIT_RGB, PictureFormat
from engines.proof import compare

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime runs the networks")

MOSAIC = ASSETS / "weights" / "transformer_net" / "mosaic_nc8_256x256.onnx"
SELFIE = ASSETS / "segmentation" / "selfie_segmentation.onnx"


def run(model: onnx.ModelProto, given: np.ndarray, output: str | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(
        [output or session.get_outputs()[0].name], {session.get_inputs()[0].name: given}
    )[0]
    return found


def framed(model: onnx.ModelProto, frame: np.ndarray, output: str = "translated") -> np.ndarray:
    return run(model, frame[None], output)[0]


def checked(model: onnx.ModelProto, tmp_path: Path) -> FrameModel:
    """Write an adapted network as a frame model: it has to keep the whole contract."""
    assert is_frame_model(model)
    assert [x.op_type for x in model.graph.node if "frame" in x.input] == ["Cast"]
    path = tmp_path / "adapted.onnx"
    write_frame_model(model, Card(name="adapted"), path)
    return FrameModel.read(path)


def in_numpy(
    inner: onnx.ModelProto, frame: np.ndarray, takes: PictureFormat, gives: PictureFormat
) -> np.ndarray:
    """What a network makes of a frame, converted in double precision; (H, W, C) of ``gives``."""
    levels = frame.astype(np.float64)
    rgb = levels[..., ::-1]
    given = {
        "rgb": rgb,
        "bgr": levels,
        "grey": (rgb * np.array(LUMA)).sum(-1, keepdims=True),
        "rgba": np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1),
    }[takes.colour] / 255 * np.array(takes.scale) + np.array(takes.offset)
    port = inner.graph.input[0].type.tensor_type
    batch = given if takes.layout == "nhwc" else given.transpose(2, 0, 1)
    dtype = helper.tensor_dtype_to_np_dtype(port.elem_type)
    if dtype == np.uint8:
        batch = np.round(batch)
    batch = batch.astype(dtype)
    made = run(inner, batch[None] if len(port.shape.dim) == 4 else batch).astype(np.float64)
    made = made[0] if made.ndim == 4 else made
    made = made if gives.layout == "nhwc" else made.transpose(1, 2, 0)
    return np.clip(np.round((made - np.array(gives.offset)) / np.array(gives.scale) * 255), 0, 255)


def check(
    inner: onnx.ModelProto,
    takes: PictureFormat,
    gives: PictureFormat,
    tmp_path: Path,
    frame: np.ndarray | None = None,
) -> FrameModel:
    before = inner.SerializeToString()
    adapted = adapt_onnx(inner, takes, gives)
    assert inner.SerializeToString() == before
    model = checked(adapted, tmp_path)
    if frame is None:
        frame = picture(model.fixed_size or (12, 8))
    right = in_numpy(inner, frame, takes, gives)
    assert np.ptp(right) > 40
    bgr = {"grey": [0, 0, 0], "bgr": [0, 1, 2]}.get(gives.colour, [2, 1, 0])
    difference = np.abs(framed(adapted, frame) - right[..., bgr])
    assert difference.max() <= 1
    assert difference.mean() < 0.05  # rounded, not cut off
    assert model.has_alpha == (gives.colour == "rgba")
    if model.has_alpha:
        assert np.abs(framed(adapted, frame, "alpha") - right[..., 3:]).max() <= 1
    return model


def test_an_old_file_of_real_weights(tmp_path: Path) -> None:
    """Opset 9, IR version 3, weights listed as inputs, names such as "1"."""
    if not MOSAIC.exists():
        pytest.skip(f"no {MOSAIC}")
    inner = load_onnx(MOSAIC)
    assert not is_frame_model(inner)
    assert guess_layout(inner) == "nchw"
    frame = photographs((256, 256))[0]
    model = check(inner, BYTE_RGB, BYTE_RGB, tmp_path, frame)
    assert model.fixed_size == (256, 256)
    assert onnx.load(str(model.path)).opset_import[0].version == 18


def test_a_real_network_in_nhwc_that_gives_a_mask(tmp_path: Path) -> None:
    if not SELFIE.exists():
        pytest.skip(f"no {SELFIE}")
    inner = load_onnx(SELFIE)
    takes = PictureFormat(layout=guess_layout(inner))
    assert takes.layout == "nhwc"
    gives = PictureFormat("grey", layout="nhwc")
    check(inner, takes, gives, tmp_path, photographs((256, 256))[0])


@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey", "rgba"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", [(1,), ("batch",), ()], ids=["one", "symbolic", "missing"])
def test_colours_layouts_and_batches(
    colour: str, layout: str, batch: tuple[Any, ...], tmp_path: Path
) -> None:
    wanted = PictureFormat(colour, (2.0,), (-1.0,), layout)
    sides = ("h", "w", wanted.channels) if layout == "nhwc" else (wanted.channels, "h", "w")
    inner = foreign_network(given=(*batch, *sides), made=(*batch, *sides))
    model = check(inner, wanted, wanted, tmp_path)
    assert model.fixed_size is None


def test_every_channel_has_its_own_range(tmp_path: Path) -> None:
    takes = PictureFormat.parse("imagenet", "bgr")
    channels = constant("weights", np.reshape([0.9, 0.5, 0.2], (1, 3, 1, 1)))
    inner = foreign_network(node("Mul", ["image", "weights"], "result"), constants=[channels])
    check(inner, takes, PictureFormat.parse("-2..2"), tmp_path)


def test_what_comes_out_may_have_other_colours_than_what_goes_in(tmp_path: Path) -> None:
    mixing = np.random.default_rng(5).random((4, 1, 1, 1), dtype=np.float32)
    inner = foreign_network(
        node("Conv", ["image", "w"], "result"),
        constants=[constant("w", mixing)],
        given=(1, 1, "h", "w"),
        made=(1, 4, "h", "w"),
    )
    check(inner, PictureFormat("grey"), PictureFormat("rgba"), tmp_path)


@pytest.mark.parametrize("kind", [T.FLOAT16, T.DOUBLE])
def test_other_floats(kind: int, tmp_path: Path) -> None:
    check(foreign_network(kind=kind), UNIT_RGB, UNIT_RGB, tmp_path)


def test_bfloat16_is_refused_by_name() -> None:
    cast = node("Cast", ["image"], "result", to=T.BFLOAT16)
    gives = foreign_network(cast)
    gives.graph.output[0].type.tensor_type.elem_type = T.BFLOAT16
    for inner, what in ((foreign_network(kind=T.BFLOAT16), "input 'image'"), (gives, "output")):
        with pytest.raises(ConversionError, match=f"bfloat16 networks .* the {what}") as refusal:
            adapt_onnx(inner, UNIT_RGB, UNIT_RGB)
        assert str(refusal.value).endswith("): export it in float32")


@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_a_network_of_bytes(colour: str, tmp_path: Path) -> None:
    bytes_in = PictureFormat(colour, (255.0,))
    shape = (1, bytes_in.channels, "h", "w")
    nodes = [
        node("Cast", ["image"], "floats", to=T.FLOAT),
        node("Mul", ["floats", "factor"], "dark"),
        node("Cast", ["dark"], "result", to=T.UINT8),
    ]
    inner = foreign_network(
        *nodes, constants=[constant("factor", 0.37)], kind=T.UINT8, given=shape, made=shape
    )
    check(inner, bytes_in, bytes_in, tmp_path)
    # TensorRT has uint8 at the ends of a graph only.
    adapted = adapt_onnx(inner, bytes_in, bytes_in)
    kinds = tensor_types(adapted)
    inside = {x for item in adapted.graph.node for x in item.output} - {"translated", "result"}
    assert T.UINT8 not in {kinds[name] for name in inside}
    turned = foreign_network(node("Neg", ["image"], "result"), kind=T.UINT8)
    with pytest.raises(ConversionError, match=r"uint8 .*: its range can only be 0\.\.255"):
        adapt_onnx(turned, UNIT_RGB, BYTE_RGB)


def test_names_that_the_contract_has_are_given_away(tmp_path: Path) -> None:
    inner = foreign_network(
        node("Mul", ["frame", "alpha"], "translated"), constants=[constant("alpha", 0.37)]
    )
    inner.graph.input[0].name, inner.graph.output[0].name = "frame", "translated"
    check(inner, UNIT_RGB, UNIT_RGB, tmp_path)


def test_a_network_that_does_nothing(tmp_path: Path) -> None:
    inner = foreign_network(node("Identity", ["image"], "result"))
    check(inner, SIGNED_RGB, SIGNED_RGB, tmp_path)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17, 21])
def test_opsets(opset: int, tmp_path: Path) -> None:
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    pad = (
        [node("Pad", ["image"], "padded", pads=pads, mode="reflect")]
        if opset < 11
        else [node("Pad", ["image", "pads"], "padded", mode="reflect")]
    )
    kernels = np.random.default_rng(1).random((3, 3, 3, 3), dtype=np.float32) / 6
    constants = [constant("w", kernels)]
    if opset >= 11:
        constants += [constant("pads", pads, np.int64), constant("region", [])]
    inner = foreign_network(
        *pad,
        node("Conv", ["padded", "w"], "seen"),
        node("Constant", [], "scales", value=constant("", [1, 1, 2, 2])),
        *(
            [node("Upsample", ["seen", "scales"], "large", mode="nearest")]
            if opset == 9
            else [node("Resize", ["seen", "scales"], "large", mode="nearest")]
            if opset == 10
            else [node("Resize", ["seen", "region", "scales"], "large", mode="nearest")]
        ),
        node("AveragePool", ["large"], "result", kernel_shape=[2, 2], strides=[2, 2]),
        constants=constants,
        opset=opset,
    )
    check(inner, UNIT_RGB, UNIT_RGB, tmp_path)
    adapted = adapt_onnx(inner, UNIT_RGB, UNIT_RGB)
    assert adapted.opset_import[0].version == (18 if opset < 13 else opset)
    half = to_half(adapted)
    assert half.counts["Conv"] == {"FLOAT16": 1, "FLOAT": 0}
    frame = picture((12, 8))
    twin = rounded_twin(half.model)
    assert compare(lambda f: framed(adapted, f), lambda f: framed(twin, f), [frame]).psnr_db > 45


def test_the_output_is_chosen_and_the_rest_left_out(tmp_path: Path) -> None:
    inner = foreign_network(
        node("Mul", ["image", "half"], "result"),
        node("Mul", ["image", "mask"], "other"),
        constants=[constant("half", 0.5), constant("unused", 1)],
        inputs=[value("mask", FREE, T.FLOAT)],
        outputs=[value("other", FREE, T.FLOAT)],
    )
    with pytest.raises(ConversionError, match=r"which output is the picture.*'result'.*'other'"):
        adapt_onnx(inner, UNIT_RGB, UNIT_RGB)
    adapted = adapt_onnx(inner, UNIT_RGB, UNIT_RGB, output_name="result")
    checked(adapted, tmp_path)
    assert np.abs(framed(adapted, picture((12, 8))) - picture((12, 8)) / 2.0).max() <= 1
    names = {item.name for item in adapted.graph.initializer}
    assert "half" in names
    assert "unused" not in names
    with pytest.raises(ConversionError, match=r"which input is the picture.*'image'.*'mask'"):
        adapt_onnx(inner, UNIT_RGB, UNIT_RGB, output_name="other")
    with pytest.raises(ConversionError, match=r"also needs 'mask' float \(1, 3, height, width\)"):
        adapt_onnx(inner, UNIT_RGB, UNIT_RGB, input_name="image", output_name="other")
    with pytest.raises(ConversionError, match="does not depend on the input 'mask'"):
        adapt_onnx(inner, UNIT_RGB, UNIT_RGB, input_name="mask", output_name="result")
    with pytest.raises(ConversionError, match="no output 'picture', only 'result'"):
        adapt_onnx(inner, UNIT_RGB, UNIT_RGB, output_name="picture")


def test_branches_may_read_the_picture(tmp_path: Path) -> None:
    def branch(factor: str) -> onnx.GraphProto:
        made = [value("frame", FREE, T.FLOAT)]
        return helper.make_graph([node("Mul", ["alpha", factor], "frame")], factor, [], made)

    inner = foreign_network(
        node("Identity", ["image"], "alpha"),
        node("If", ["yes"], "result", then_branch=branch("part"), else_branch=branch("one")),
        constants=[constant("yes", True, np.bool_), constant("part", 0.37), constant("one", 1)],
    )
    check(inner, UNIT_RGB, UNIT_RGB, tmp_path)


def resized(factor: float) -> onnx.ModelProto:
    scales = constant("scales", [1, 1, factor, factor])
    return foreign_network(
        node("Resize", ["image", "", "scales"], "result", mode="nearest"),
        constants=[scales],
        made=(1, 3, "other_height", "other_width"),
    )


def shapeless() -> onnx.ModelProto:
    model = foreign_network()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def sequence() -> onnx.ModelProto:
    model = foreign_network(node("SequenceConstruct", ["image"], "result"))
    element = helper.make_tensor_type_proto(T.FLOAT, None)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(element))
    return model


FIXED = (1, 3, 64, 96)
REFUSALS: list[tuple[Callable[[], onnx.ModelProto], str]] = [
    (lambda: resized(2), r"another size: 1024x512 of 512x256 \(width x height\)"),
    (lambda: resized(0.5), "another size: 256x128 of 512x256"),
    (
        lambda: foreign_network(
            node("AveragePool", ["image"], "result", kernel_shape=[2, 2], strides=[2, 2]),
            given=FIXED,
            made=None,
        ),
        "another size: 48x32 of 96x64",
    ),
    (
        lambda: foreign_network(
            node("Transpose", ["image"], "result", perm=[0, 1, 3, 2]), made=None
        ),
        "another size: 256x512 of 512x256",
    ),
    (
        lambda: foreign_network(
            node("Gather", ["table", "image"], "result"),
            constants=[constant("table", np.ones((9, 4)))],
            given=(1, 77),
            made=None,
            kind=T.INT64,
        ),
        r"no picture goes in: expected float \(1, C, H, W\), found 'image' int64 \(1, 77\)",
    ),
    (
        lambda: foreign_network(node("ReduceMean", ["image"], "result", keepdims=0), made=()),
        r"no picture comes out: expected float \(1, C, H, W\), found 'result' float \(\)",
    ),
    (sequence, "no picture comes out: .* found 'result' no tensor"),
    (shapeless, "no picture goes in: .* found 'image' float of unknown rank"),
    (lambda: foreign_network(given=(4, 3, "h", "w")), "is 4 pictures at once, expected one"),
    (
        lambda: foreign_network(given=(1, 3, 64, "w")),
        "one side of the input .* is fixed and one is free",
    ),
    (
        lambda: foreign_network(given=(1, 1, "h", "w")),
        "has 1 channels in layout nchw, but rgb has 3",
    ),
    (
        lambda: foreign_network(
            node("Conv", ["image", "w"], "result"),
            constants=[constant("w", np.ones((2, 3, 1, 1)))],
            made=None,
        ),
        r"output 'result' float \(1, 2, .*\) has 2 channels in layout nchw, but rgb has 3",
    ),
    (
        lambda: foreign_network(
            node("Constant", [], "result", value=constant("", np.ones((1, 3, 8, 8))))
        ),
        "the output 'result' does not depend on any input",
    ),
    (lambda: foreign_network(node("Relu", ["nothing"], "result")), "does not depend on any input"),
    (
        lambda: foreign_network(node("Add", ["image", "nothing"], "result")),
        "no valid ONNX graph: .*nothing",
    ),
    (lambda: foreign_network(node("Add", ["image"], "result"), opset=9), "no valid|brought to 18"),
]


@pytest.mark.parametrize(("model", "reason"), REFUSALS, ids=[x[1][:40] for x in REFUSALS])
def test_refusals(model: Callable[[], onnx.ModelProto], reason: str) -> None:
    with pytest.raises(ConversionError, match=reason) as raised:
        adapt_onnx(model(), UNIT_RGB, UNIT_RGB)
    assert "\n" not in str(raised.value)
