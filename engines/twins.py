"""INT8 twins: beside ``comic.onnx`` lies ``comic.int8.onnx``, the same network in eight bits.

A twin is a frame model of its own, and says of which graph it was made: one that lies beside a
newer model is not taken for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from engines.errors import ModelError
from engines.model import FrameModel

INT8: Final = "int8"
SUFFIX: Final = ".int8.onnx"


def twin_path(path: Path) -> Path:
    """Return where the INT8 twin of the frame model at ``path`` lies, if there is one."""
    return path.with_name(path.stem + SUFFIX)


def int8_twin(model: FrameModel) -> FrameModel:
    """Read the INT8 twin of ``model``.

    Raises:
        ModelError: there is none, it is no frame model, or it was made of another graph.
    """
    path = twin_path(model.path)
    how = f"pix2live convert {model.path.name} --to onnx-int8 --frames CLIP makes one"
    if not path.exists():
        raise ModelError(f"{model.path.name} has no INT8 twin {path.name} beside it; {how}")
    try:
        twin = FrameModel.read(path)
    except ModelError as error:
        raise ModelError(f"the INT8 twin {path.name} cannot be read; {how}") from error
    if twin.card.quantised_from != model.graph_sha256:
        raise ModelError(f"{path.name} was made of another {model.path.name}; {how}")
    return twin
