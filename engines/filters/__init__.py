"""The filters that ship: small frame models with cards."""

from __future__ import annotations

import os
from pathlib import Path

from engines.errors import ModelError
from engines.model import FrameModel
from engines.twins import SUFFIX

FOLDER = Path(__file__).parent


def filter_names() -> list[str]:
    """Return the names of the shipped filters, sorted."""
    found = FOLDER.glob("*.onnx")
    return sorted(path.stem for path in found if not path.name.endswith(SUFFIX))


def load_filter(name: str | os.PathLike[str]) -> FrameModel:
    """Read a shipped filter by its name, or any frame model by its path.

    Raises:
        ModelError: neither a shipped filter nor a frame model file.
    """
    text = os.fspath(name)
    if text in filter_names():
        return FrameModel.read(FOLDER / f"{text}.onnx")
    if text.endswith(".engine"):
        model = f"{Path(text).name.split('.')[0]}.onnx"
        raise ModelError(
            f"{text} is an engine: give the frame model that it was built from, {model}; the engine"
            " is taken from beside it"
        )
    if not text.endswith(".onnx") and not os.path.exists(text):
        raise ModelError(
            f"no filter {text!r}; shipped: {', '.join(filter_names())}; or give a FILE.onnx"
        )
    return FrameModel.read(text)
