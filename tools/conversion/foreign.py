"""Networks that come without a PyTorch module: ONNX files and TorchScript archives.

Their reference is the file as it came, run by ONNX Runtime or PyTorch, with the colours and ranges
computed here in numpy: apart from the graph that `engines.graphs.adapt` makes, which has to agree.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines import Card, ConversionError, FrameModel, Size
from engines.picture_format import LUMA, PictureFormat
from engines.proof import Levels, torch_levels
from tools.conversion.original import (
    Original,
    Words,
    card_name,
    file_sha256,
    find_stride,
    frame_model_original,
)

if TYPE_CHECKING:
    import onnx

PICTURE_WORDS: Final = ("range", "range_out", "colour", "colour_out", "layout")
LEGACY_OPSET: Final = 18
EXAMPLE_CELLS: Final = 48
NUMPY_TYPES: Final = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def torchscript_original(path: Path, words: Words) -> Original:
    """A TorchScript archive: PyTorch's older exporter takes it, the frame is put around it after.

    The archive's code runs in PyTorch's own interpreter, which has no way to the system.
    """
    import torch

    words.refuse_others("a TorchScript archive", (*PICTURE_WORDS, "stride"))
    takes, gives = words.pictures()
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise ConversionError(
            f"{path} cannot be read as TorchScript: {reason[-1] if reason else error}"
        ) from error
    for weights in network.parameters():
        weights.requires_grad_(False)
    wrapped: Any = torch.nn.Module()
    wrapped.network, wrapped.takes, wrapped.gives = network, takes, gives
    wrapped.forward = network.forward
    levels = torch_levels(wrapped)
    stride = words.stride or find_stride(levels, words.size)
    card = Card(
        name=card_name(path.stem),
        architecture="TorchScript network",
        stride=stride,
        origin=path.name,
        weights_sha256=file_sha256(path),
    )

    def graph(size: Size | None) -> onnx.ModelProto:
        from engines.graphs.adapt import adapt_onnx

        return adapt_onnx(_export_script(network, takes, stride, size), takes, gives)

    return Original(card, "PyTorch", levels, graph)


def _export_script(
    network: Any, takes: PictureFormat, stride: int, size: Size | None
) -> onnx.ModelProto:
    import onnx
    import torch

    cells = max(4, EXAMPLE_CELLS // stride)
    width, height = size or ((cells + 1) * stride, cells * stride)
    axes = {1: "H", 2: "W"} if takes.layout == "nhwc" else {2: "H", 3: "W"}
    shape = (
        (height, width, takes.channels)
        if takes.layout == "nhwc"
        else (takes.channels, height, width)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    network,
                    (torch.zeros(1, *shape),),
                    path,
                    dynamo=False,
                    opset_version=LEGACY_OPSET,
                    input_names=["image"],
                    output_names=["picture"],
                    dynamic_axes=None if size else {"image": axes, "picture": axes},
                )
        except Exception as error:  # the exporter raises whatever the tracing met
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConversionError(
                f"PyTorch cannot export this archive to ONNX: {reason[0]}"
            ) from error
        return onnx.load(str(path))


def onnx_original(path: Path, words: Words) -> Original:
    """Return an ONNX file, wrapped into the contract where it is no frame model yet.

    Raises:
        ConversionError: it is no ONNX file, or no picture goes in or comes out.
    """
    from engines.graphs import adapt

    model = adapt.load_onnx(path)
    if adapt.is_frame_model(model):
        words.refuse_others("a frame model", ())
        return frame_model_original(FrameModel.read(path))
    words.refuse_others("an ONNX file", (*PICTURE_WORDS, "input", "output", "stride"))
    names = {"input_name": words.input, "output_name": words.output}
    takes, gives = words.pictures(words.layout or adapt.guess_layout(model, input_name=words.input))
    adapted = adapt.adapt_onnx(model, takes, gives, **names)
    sides = adapted.graph.input[0].type.tensor_type.shape.dim[1:3]
    height, width = (side.dim_value for side in sides)
    fixed = (width, height) if height and width else None
    levels = _onnx_levels(model, takes, gives, words)
    stride = 1 if fixed else words.stride or find_stride(levels, words.size)
    card = Card(
        name=card_name(path.stem),
        architecture=f"ONNX network, {len(model.graph.node)} operators",
        stride=stride,
        origin=path.name,
        weights_sha256=file_sha256(path),
    )
    return Original(card, "the ONNX file", levels, lambda _: adapted, fixed_size=fixed)


def _onnx_levels(
    model: onnx.ModelProto, takes: PictureFormat, gives: PictureFormat, words: Words
) -> Levels:
    """Run the file as it came; colours and ranges are computed here, apart from the graph's way."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConversionError(
            "the file must be run to be compared with: pip install 'pix2live[convert]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # pybind types of ONNX Runtime
        raise ConversionError(f"ONNX Runtime cannot read the file: {error}") from error
    inputs = {item.name: item for item in session.get_inputs()}
    given = inputs[words.input] if words.input else next(iter(inputs.values()))
    wanted = [words.output] if words.output else None
    dtype = NUMPY_TYPES.get(given.type, np.float32)

    def levels(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        picture = to_network(frame, takes)
        if dtype is np.uint8:
            picture = np.round(picture)
        if len(given.shape) == 3:  # without a batch
            picture = picture[0]
        try:
            found = session.run(wanted, {given.name: picture.astype(dtype)})[0]
        except Exception as error:  # pybind types of ONNX Runtime
            raise ConversionError(f"ONNX Runtime failed on a frame: {error}") from error
        return from_network(found if found.ndim == 4 else found[None], gives)

    return levels


def to_network(frame: NDArray[np.uint8], takes: PictureFormat) -> NDArray[np.float32]:
    """Return a frame, uint8 (H, W, 3) BGR, as the float32 picture that a network takes."""
    levels = frame.astype(np.float32)
    rgb = levels[..., ::-1]
    picture = {
        "rgb": lambda: rgb,
        "bgr": lambda: levels,
        "grey": lambda: rgb @ np.array(LUMA, np.float32)[:, None],
        "rgba": lambda: np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1),
    }[takes.colour]()
    # The same float32 numbers as in the graph: a level that is a tie must round the same way.
    scale = np.array([value / 255 for value in takes.scale], np.float32)
    scaled = picture * scale + np.array(takes.offset, np.float32)
    batch = scaled[None] if takes.layout == "nhwc" else scaled.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(batch, dtype=np.float32)


def from_network(picture: NDArray[Any], gives: PictureFormat) -> NDArray[np.float32]:
    """Return the float picture that a network gave as levels, (H, W, 3) BGR, 0 to 255."""
    found = picture[0].astype(np.float32)
    if gives.layout == "nchw":
        found = found.transpose(1, 2, 0)
    scale = np.array([255 / value for value in gives.scale], np.float32)
    levels = (found - np.array(gives.offset, np.float32)) * scale
    if gives.colour == "grey":
        levels = np.repeat(levels, 3, axis=-1)
    bgr = levels if gives.colour == "bgr" else levels[..., 2::-1]
    return np.ascontiguousarray(bgr, dtype=np.float32)
