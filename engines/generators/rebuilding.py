"""From a frame model back to its PyTorch network, for architectures that pix2live knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from engines.backends.openvino import OpenVinoEngine
from engines.base import Pixels
from engines.errors import ConversionError, EngineError
from engines.export import FrameTranslator
from engines.generators.families import recognise
from engines.generators.quarter import dilations_of
from engines.model import FrameModel
from engines.proof import Limits, Proof, compare

if TYPE_CHECKING:
    import onnx

PREFIX: Final = "generator."
"""Of the weights in an exported frame model: the rest is what the frame needs around them."""
CONVOLUTION: Final = 4
"""Sides of its weight."""
TEST_SIZE: Final = (96, 64)
SAME: Final = Limits(psnr_db=40.0)


def rebuild(model: FrameModel) -> nn.Module:
    """Return the generator whose weights are in ``model``, in eval mode.

    Raises:
        EngineError: it is none of the known families, or weights are missing: exporters fold batch
            normalisation into convolutions, for instance.
    """
    cannot = f"torch cannot rebuild {model.card.architecture!r} from a frame model"
    instead = "take --backend openvino or onnxruntime"
    proto = model.graph()
    weights = _weights(proto)
    weights |= dilations_of(proto.graph, PREFIX)
    if not weights or model.states:
        lacks = "it has states" if model.states else f"it has no weights named {PREFIX}..."
        raise EngineError(f"{cannot}: {lacks}; {instead}")
    try:
        return recognise(weights).generator
    except ConversionError as error:
        first = error
    try:  # exporters drop a bias that is zero
        return recognise(weights | _zero_biases(proto, weights)).generator
    except ConversionError:
        raise EngineError(f"{cannot}: {first}; {instead}") from first


def prove_same(generator: nn.Module, model: FrameModel) -> Proof:
    """Compare the rebuilt network with the file: names and shapes do not tell everything.

    Raises:
        EngineError: it makes another picture.
    """
    size = width, height = model.fit(TEST_SIZE)
    rows, columns = np.indices((height, width))
    frame = np.stack([rows * 2, columns, (rows + columns) * 7], axis=-1).astype(np.uint8)
    translator = FrameTranslator(generator)

    def by_torch(picture: Pixels) -> Pixels:
        with torch.inference_mode():
            found = translator(torch.from_numpy(picture[None]))
        pixels: Pixels = (found[0] if isinstance(found, tuple) else found)[0].numpy()
        return pixels

    with OpenVinoEngine(model, precision="f32") as engine:
        engine.open(size)
        proof = compare(engine.infer, by_torch, [frame], SAME)
    if not proof.passed:
        raise EngineError(
            f"torch cannot rebuild {model.card.architecture!r}: the network of this name makes"
            f" another picture ({'; '.join(proof.problems)}); take --backend openvino"
        )
    return proof


def _weights(proto: onnx.ModelProto) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {
        _own_name(item.name): torch.from_numpy(np.array(numpy_helper.to_array(item)))
        for item in proto.graph.initializer
        if item.name.startswith(PREFIX)
    }


def _own_name(name: str) -> str:
    """The name in the generator; one that was trained may be exported with what is around it."""
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name


def _zero_biases(proto: onnx.ModelProto, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A bias for every convolution that has none."""
    zeros = {}
    for node in proto.graph.node:
        name = _own_name(node.input[1]) if len(node.input) > 1 else ""
        bias = name.removesuffix("weight") + "bias"
        if node.op_type in ("Conv", "ConvTranspose") and name in weights and bias not in weights:
            zeros[bias] = torch.zeros(weights[name].shape[node.op_type == "ConvTranspose"])
    return zeros
