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

from engines.errors import ConversionError
from engines.model import Card, write_frame_model

if TYPE_CHECKING:
    import onnx

OPSET: Final = 18
EXAMPLE_CELLS: Final = (15, 20)  # different and not 1, or the exporter takes them for constants


class FrameTranslator(nn.Module):
    """A generator with everything around it that a frame needs.

    uint8 (1, H, W, 3) BGR in and out. The generator takes and gives float32 (1, 3, H, W) RGB,
    0 to 1.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, frame: Tensor) -> Tensor:
        # The cast comes first: TensorRT takes no other operator on uint8.
        image = frame.to(torch.float32).permute(0, 3, 1, 2).flip(1) * (1 / 255)
        translated: Tensor = self.generator(image)
        levels = torch.round(translated * 255).clamp(0, 255)
        return levels.flip(1).permute(0, 2, 3, 1).to(torch.uint8)


def export_frame_model(generator: nn.Module, card: Card, path: str | Path) -> None:
    """Write ``generator`` as a frame model with symbolic H and W, in FP32.

    Args:
        generator: float32 (1, 3, H, W) RGB, 0 to 1, in and out, for every H and W that are
            multiples of ``card.stride``.
        card: written into the file.
        path: the .onnx file; replaced in one step when it exists.

    Raises:
        ConversionError: PyTorch cannot express the generator as ONNX.
        ModelError: the result breaks the frame model contract, or cannot be written.
    """
    was_training = generator.training
    # A copy would double the memory; the mode is put back below.
    translator = FrameTranslator(generator).eval()
    try:
        model = _to_onnx(translator, card.stride)
    finally:
        generator.train(was_training)
    for value in (*model.graph.input, *model.graph.output):
        height, width = value.type.tensor_type.shape.dim[1:3]
        height.dim_param, width.dim_param = "H", "W"
    write_frame_model(model, card, path)


def _to_onnx(translator: FrameTranslator, stride: int) -> onnx.ModelProto:
    height, width = (cells * stride for cells in EXAMPLE_CELLS)
    device = next(translator.parameters(), torch.empty(0)).device
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
    sides = {
        axis: stride * torch.export.Dim(name, min=2, max=4096)
        for axis, name in ((1, "rows"), (2, "columns"))
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                translator,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["frame"],
                output_names=["translated"],
                dynamic_shapes={"frame": sides},
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever the tracing met
        raise ConversionError(f"PyTorch cannot export this generator to ONNX: {error}") from error
    if program is None:
        raise ConversionError("PyTorch gave no ONNX program for this generator")
    model: onnx.ModelProto = program.model_proto
    for node in model.graph.node:
        # Stack traces of the exporting machine: size, and paths that are nobody's business.
        del node.metadata_props[:]
        node.doc_string = ""
    return model


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
