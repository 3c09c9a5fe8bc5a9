"""From a PyTorch generator to a frame model: frames in, frames out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import ConversionError
from engines.model import Card, Size, write_frame_model
from engines.picture_format import LUMA, UNIT_RGB, PictureFormat

if TYPE_CHECKING:
    import onnx

OPSET: Final = 18
EXAMPLE_CELLS: Final = (15, 20)  # different and not 1, or the exporter takes them for constants
EXAMPLE_LARGE_CELLS: Final = (3, 5)
LARGE_STRIDE: Final = 16


class FrameTranslator(nn.Module):
    """A generator with everything around it that a frame needs.

    uint8 (1, H, W, 3) BGR in and out; with a generator that gives ``rgba``, also the alpha, uint8
    (1, H, W, 1). The generator takes and gives float32; its attributes ``takes`` and ``gives``
    (`PictureFormat`) say in which colours, range and layout. Without them: (1, 3, H, W), RGB, 0 to
    1.
    """

    scale_in: Tensor
    offset_in: Tensor
    scale_out: Tensor
    offset_out: Tensor
    luma: Tensor

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.takes: PictureFormat = getattr(generator, "takes", UNIT_RGB)
        self.gives: PictureFormat = getattr(generator, "gives", UNIT_RGB)
        for name, values in (
            ("scale_in", [scale / 255 for scale in self.takes.scale]),
            ("offset_in", self.takes.offset),
            ("scale_out", [255 / scale for scale in self.gives.scale]),
            ("offset_out", self.gives.offset),
            ("luma", LUMA),
        ):
            numbers = torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, frame: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = torch.round(self.levels(frame)).clamp(0, 255)
        bgr = as_bgr(found, self.gives.colour).permute(0, 2, 3, 1).to(torch.uint8)
        if self.gives.colour != "rgba":
            return bgr
        return bgr, found[:, 3:].permute(0, 2, 3, 1).to(torch.uint8)

    def levels(self, frame: Tensor) -> Tensor:
        """What the generator makes of a frame, 0 to 255, before it is rounded and limited.

        float32 (1, C, H, W), in the generator's colours.

        Raises:
            ConversionError: the generator gives something else than one picture.
        """
        # The cast comes first: TensorRT takes no other operator on uint8.
        levels = frame.to(torch.float32).permute(0, 3, 1, 2)
        picture = self.generator(self._layout(self._given(levels), self.takes))
        if not isinstance(picture, Tensor):
            raise ConversionError(
                f"the network gives {_kind(picture)}: it must give one picture, a tensor"
            )
        translated = picture.permute(0, 3, 1, 2) if self.gives.layout == "nhwc" else picture
        if translated.ndim != 4 or translated.shape[1] != self.gives.channels:
            raise ConversionError(
                f"the network gives {tuple(picture.shape)}: expected {self.gives.channels} channels"
                f" ({self.gives.colour}, {self.gives.layout})"
            )
        found = translated.to(torch.float32)
        if any(self.gives.offset):
            found = found - self.offset_out
        return found * self.scale_out

    def _given(self, bgr: Tensor) -> Tensor:
        """The picture in the colours and the range that the generator takes."""
        colour = self.takes.colour
        if colour == "grey":
            levels = (bgr.flip(1) * self.luma).sum(1, keepdim=True)
        else:
            levels = bgr if colour == "bgr" else bgr.flip(1)
        if colour == "rgba":
            levels = functional.pad(levels, (0, 0, 0, 0, 0, 1), value=255.0)
        scaled = levels * self.scale_in
        return scaled + self.offset_in if any(self.takes.offset) else scaled

    @staticmethod
    def _layout(picture: Tensor, wanted: PictureFormat) -> Tensor:
        return picture.permute(0, 2, 3, 1) if wanted.layout == "nhwc" else picture


def _kind(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, list(value)[:4]))}"
    return f"{type(value).__name__}"


def as_bgr(levels: Tensor, colour: str) -> Tensor:
    """Return the three channels of a frame, (N, 3, H, W), of those of a generator."""
    if colour == "grey":
        return levels.expand(-1, 3, -1, -1)
    return levels if colour == "bgr" else levels[:, :3].flip(1)


def export_frame_model(
    generator: nn.Module, card: Card, path: str | Path, size: Size | None = None
) -> None:
    """Write ``generator`` as a frame model in FP32, with symbolic H and W.

    Args:
        generator: float32 pictures in and out as its ``takes`` and ``gives`` say (without them
            (1, 3, H, W), RGB, 0 to 1), for every H and W that are multiples of ``card.stride``.
        card: written into the file.
        path: the .onnx file; replaced in one step when it exists.
        size: (width, height) for a network that works at one size only.

    Raises:
        ConversionError: PyTorch cannot express the generator as ONNX.
        ModelError: the result breaks the frame model contract, or cannot be written.
    """
    write_frame_model(frame_model_graph(generator, card.stride, size), card, path)


def frame_model_graph(
    generator: nn.Module, stride: int, size: Size | None = None
) -> onnx.ModelProto:
    """Return what `export_frame_model` writes, still without its card.

    Raises:
        ConversionError: PyTorch cannot express the generator as ONNX.
    """
    was_training = generator.training
    # A copy would double the memory; the mode is put back below.
    translator = FrameTranslator(generator).eval()
    try:
        model = _to_onnx(translator, stride, size)
    finally:
        generator.train(was_training)
    for value in (*model.graph.input, *model.graph.output):
        height, width = value.type.tensor_type.shape.dim[1:3]
        if size is None:
            height.dim_param, width.dim_param = "H", "W"
        else:
            height.dim_value, width.dim_value = size[1], size[0]
    return model


def _to_onnx(translator: FrameTranslator, stride: int, size: Size | None) -> onnx.ModelProto:
    cells = EXAMPLE_CELLS if stride <= LARGE_STRIDE else EXAMPLE_LARGE_CELLS
    width, height = size or (cells[1] * stride, cells[0] * stride)
    device = next(translator.parameters(), torch.empty(0)).device
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
    sides = {
        axis: stride * torch.export.Dim(name, min=1, max=8192 // stride)
        for axis, name in ((1, "rows"), (2, "columns"))
    }
    names = ["translated", "alpha"] if translator.gives.colour == "rgba" else ["translated"]
    try:
        with _quiet():
            program = torch.onnx.export(
                translator,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["frame"],
                output_names=names,
                dynamic_shapes={"frame": sides if size is None else None},
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever the tracing met
        raise ConversionError(
            f"PyTorch cannot export this generator to ONNX: {_cause(error)}"
        ) from error
    if program is None:
        raise ConversionError("PyTorch gave no ONNX program for this generator")
    model: onnx.ModelProto = program.model_proto
    for node in model.graph.node:
        # Stack traces of the exporting machine: size, and paths that are nobody's business.
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _cause(error: Exception) -> str:
    """The exporter wraps the reason in advice on how to debug it: return the reason, one line."""
    innermost: BaseException = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    return lines[0] if lines else type(innermost).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and deprecation notes are not for the person who converts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
