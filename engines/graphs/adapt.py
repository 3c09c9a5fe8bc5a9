"""From somebody else's ONNX network to a frame model: the frame is put around its picture.

The same arithmetic as `engines.export.FrameTranslator`, written in ONNX's operators: cast, colours,
range and layout on the way in, and back, rounded and clamped, on the way out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from engines.errors import ConversionError
from engines.graphs.foreign import (
    Port,
    choose_input,
    choose_output,
    guess_layout,
    inputs_of,
    is_frame_model,
    load_onnx,
    outputs_of,
)
from engines.graphs.frame_wrapping import UINT8, FrameWrapping, sides_of
from engines.graphs.graph_types import FLOAT, FLOAT16, Names, one_line, read_by, rename, upstream
from engines.picture_format import PictureFormat

if TYPE_CHECKING:
    import onnx

__all__ = ["adapt_onnx", "guess_layout", "is_frame_model", "load_onnx"]

OLDEST_OPSET: Final = 13
"""Older graphs are converted: operators that took attributes take inputs since then."""
OPSET: Final = 18

DOUBLE: Final = 11
BFLOAT16: Final = 16
PICTURE_TYPES: Final = (FLOAT, UINT8, FLOAT16, DOUBLE)

INVALID: Final = "it is no valid ONNX graph"
CONTRACT_NAMES: Final = ("frame", "translated", "alpha")
TRIED_SIZES: Final = ((256, 512), (512, 256))
"""(height, width) in pixels with which a free graph is asked for the size of its output."""


def adapt_onnx(
    model: onnx.ModelProto,
    takes: PictureFormat,
    gives: PictureFormat,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
) -> onnx.ModelProto:
    """Put the frame contract around a network of one picture in and one picture out.

    The result takes ``frame``, uint8 (1, H, W, 3) BGR, and gives ``translated``, the same, with
    ``alpha``, uint8 (1, H, W, 1), when the network gives ``rgba``. H and W are symbolic where the
    network's are. It has no card yet; the stride is for the caller to find out.

    Args:
        model: its picture is float32, float16, double or uint8, batched or not; it is not
            changed. Graphs older than opset 13 are converted.
        takes: what the input's picture looks like; uint8 ones are always 0..255.
        gives: the same of the output.
        input_name: which one, where there are several.
        output_name: the same; what it does not depend on is left out.

    Raises:
        ConversionError: no picture goes in or comes out, it is of another size or has other
            channels, the network wants more than a picture, or it is no valid graph.
    """
    import onnx

    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    given = choose_output(wrapped, output_name)
    taken = choose_input(wrapped, input_name, given.name)
    _check_picture(taken, takes, "input")
    _keep_only(wrapped, taken, given)
    _complete_output(wrapped)
    _check_rank(outputs_of(wrapped)[0], gives, "output")
    wrapped = _modern(wrapped)
    _rename_contract_names(wrapped)
    _fix_sizes(wrapped, takes)
    taken, given = inputs_of(wrapped)[0], _inferred_output(wrapped)
    _check_picture(given, gives, "output")
    _check_size(wrapped, takes, gives)
    FrameWrapping(wrapped, takes, gives).write(taken, given)
    try:
        onnx.checker.check_model(wrapped, full_check=True)
    except Exception as error:  # the checker's and the type inference's, without a common root
        raise ConversionError(f"{INVALID}: {one_line(error)}") from error
    return wrapped


def _check_picture(port: Port, wanted: PictureFormat, what: str) -> None:
    """Refuse what is no picture, or not the one that ``wanted`` says."""
    _check_rank(port, wanted, what)
    assert port.dims is not None
    if len(port.dims) == 4 and isinstance(port.dims[0], int) and port.dims[0] != 1:
        raise ConversionError(
            f"the {what} {port.words} is {port.dims[0]} pictures at once, expected one"
        )
    channels, height, width = sides_of(port, wanted)
    if isinstance(channels, int) and channels != wanted.channels:
        raise ConversionError(
            f"the {what} {port.words} has {channels} channels in layout {wanted.layout},"
            f" but {wanted.colour} has {wanted.channels}"
        )
    if port.kind == UINT8 and (set(wanted.scale), set(wanted.offset)) != ({255.0}, {0.0}):
        raise ConversionError(f"the {what} {port.words} is uint8: its range can only be 0..255")
    if what == "input" and isinstance(height, int) != isinstance(width, int):
        raise ConversionError(
            f"one side of the input {port.words} is fixed and one is free:"
            " export it with both fixed or both free"
        )


def _check_rank(port: Port, wanted: PictureFormat, what: str) -> None:
    # ONNX Runtime computes nothing in it, and OpenVINO 2026.4 takes its weights for integers.
    if port.kind == BFLOAT16:
        raise ConversionError(
            f"bfloat16 networks are not taken, found the {what} {port.words}: export it in float32"
        )
    verb = "goes in" if what == "input" else "comes out"
    shape = "(1, C, H, W)" if wanted.layout == "nchw" else "(1, H, W, C)"
    if port.kind not in PICTURE_TYPES or port.dims is None or len(port.dims) not in (3, 4):
        raise ConversionError(f"no picture {verb}: expected float {shape}, found {port.words}")


def _keep_only(model: onnx.ModelProto, taken: Port, given: Port) -> None:
    """Leave out what the picture does not depend on, and what was true for other sizes only."""
    graph = model.graph
    nodes = upstream(graph.node, [given.name])
    read = {name for node in nodes for name in read_by(node)} | {given.name}
    weights = [item for item in graph.initializer if item.name in read]
    inputs = [item for item in graph.input if item.name == taken.name]
    outputs = [item for item in graph.output if item.name == given.name]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    del graph.value_info[:], model.training_info[:]


def _complete_output(model: onnx.ModelProto) -> None:
    """Some files do not say what shape comes out; ONNX's checker takes none of them."""
    import onnx

    if outputs_of(model)[0].dims is None and outputs_of(model)[0].kind:
        with contextlib.suppress(Exception):  # then it stays unknown, and is refused for that
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            model.graph.output[0].CopyFrom(inferred.graph.output[0])


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring an old graph to an opset that the frame's operators have."""
    import onnx
    from onnx import helper, version_converter

    opset = next((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), 0)
    # From version 4 on weights need not be inputs, and here they are not any more.
    model.ir_version = max(model.ir_version, 8)
    try:
        if opset < OLDEST_OPSET:
            model = version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(model)
    except Exception as error:  # C++ exceptions and the checker's, without a common root
        doing = f"opset {opset} cannot be brought to {OPSET}" if opset < OLDEST_OPSET else INVALID
        raise ConversionError(f"{doing}: {one_line(error)}") from error
    oldest = helper.find_min_ir_version_for(list(model.opset_import), True)
    model.ir_version = max(model.ir_version, oldest)
    del model.graph.value_info[:]
    return model


def _rename_contract_names(model: onnx.ModelProto) -> None:
    names = Names(model.graph)
    for name in CONTRACT_NAMES:
        rename(model.graph, name, names.new(f"network_{name}"))


def _fix_sizes(model: onnx.ModelProto, takes: PictureFormat) -> None:
    """One picture at a time; its free sides are called H and W."""
    port = inputs_of(model)[0]
    value = next(item for item in model.graph.input if item.name == port.name)
    _, height, width = sides_of(port, takes)
    free = not isinstance(height, int)
    _set_sides(value, takes, ("H", "W") if free else (height, width), port)


def _set_sides(
    value: onnx.ValueInfoProto, wanted: PictureFormat, sides: Sequence[Any], port: Port
) -> None:
    from onnx import helper

    assert port.dims is not None
    planes = wanted.channels
    shape = [planes, *sides] if wanted.layout == "nchw" else [*sides, planes]
    batch = [1] if len(port.dims) == 4 else []
    value.CopyFrom(helper.make_tensor_value_info(port.name, port.kind, [*batch, *shape]))


def _inferred_output(model: onnx.ModelProto) -> Port:
    """What the file says about its output may be of another batch or size: infer it anew."""
    import onnx
    from onnx import helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    port = outputs_of(model)[0]
    if port.kind in PICTURE_TYPES:
        kind_only = helper.make_tensor_value_info(port.name, port.kind, None)
        copy.graph.output[0].CopyFrom(kind_only)
    try:
        found = outputs_of(onnx.shape_inference.infer_shapes(copy, data_prop=True))[0]
    except Exception:  # noqa: BLE001  what cannot be inferred is as the file says
        return port
    return found if found.dims is not None else port


def _check_size(model: onnx.ModelProto, takes: PictureFormat, gives: PictureFormat) -> None:
    """Refuse a network that does not keep the size, as far as the graph tells."""
    import onnx

    port = inputs_of(model)[0]
    sides = sides_of(port, takes)[1:]
    for tried in (sides,) if isinstance(sides[0], int) else TRIED_SIZES:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        _set_sides(copy.graph.input[0], takes, tried, port)
        found = sides_of(_inferred_output(copy), gives)[1:]
        known = all(isinstance(side, int) for side in found)
        if known and found != tuple(tried):
            raise ConversionError(
                f"it makes pictures of another size: {found[1]}x{found[0]} of {tried[1]}x{tried[0]}"
                " (width x height); a frame model keeps the size"
            )
