"""From what a person typed to the network that is to be converted."""

from __future__ import annotations

from pathlib import Path

from engines import ConversionError, filter_names
from engines.filters import load_filter
from tools.conversion.foreign import onnx_original, torchscript_original
from tools.conversion.networks import checkpoint_original, module_original
from tools.conversion.original import Original, Words, frame_model_original


def read_original(words: Words) -> Original:
    """Read whatever ``words`` names.

    Raises:
        ConversionError: it is nothing that can be converted; the message says what to do.
        ModelError: a damaged frame model.
    """
    if words.module is not None:
        return module_original(words)
    if words.source is None:
        raise ConversionError("give a checkpoint, an .onnx file, or --module FILE.py:CLASS")
    if words.source in filter_names():
        words.refuse_others("a shipped filter", ())
        return frame_model_original(load_filter(words.source))
    path = Path(words.source)
    if path.is_dir():
        raise ConversionError(f"{path} is a folder; give the file of the weights in it")
    if path.suffix.lower() == ".onnx":
        return onnx_original(path, words)
    from engines.weights import is_torchscript

    if path.is_file() and is_torchscript(path):
        return torchscript_original(path, words)
    return checkpoint_original(path, words)
