"""INT8 twins: beside ``comic.onnx`` lies ``comic.int8.onnx``, the same network in eight bits.

A twin is a frame model of its own, and says of which graph it was made: one that lies beside a
newer model is not taken for it. Twins are made for processors: GPUs want other ranges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engines.errors import EngineError, ModelError
from engines.model import Card, FrameModel
from engines.processor import has_vnni
from engines.reduced_precision import proven_db

INT8: Final = "int8"
SUFFIX: Final = ".int8.onnx"
ENOUGH_INT8_DB: Final = 38.0
"""What `auto` wants of a twin: INT8 is off by steps and lines here and there, which are seen sooner
than the grain of bf16."""
_NO_VNNI: Final = {
    True: None,
    False: "this processor has no VNNI",
    None: "nobody says here whether this processor has VNNI",
}


def twin_path(path: Path) -> Path:
    """Return where the INT8 twin of the frame model at ``path`` lies, if there is one."""
    return path.with_name(path.stem + SUFFIX)


def int8_twin(model: FrameModel) -> FrameModel:
    """Read the INT8 twin of ``model``.

    Raises:
        ModelError: there is none, it is no frame model, it was made of another graph, or has not
            the same alpha and states.
    """
    path = twin_path(model.path)
    how = f"pix2live convert {model.path.name} --to onnx-int8 --frames CLIP makes one"
    if model.has_alpha or model.states:  # see `engines.graphs.int8.to_int8`
        how = "none is made of filters with alpha or states"
    if not path.exists():
        raise ModelError(f"{model.path.name} has no INT8 twin {path.name} beside it; {how}")
    try:
        twin = FrameModel.read(path)
    except ModelError as error:
        raise ModelError(f"the INT8 twin {path.name} cannot be read; {how}") from error
    if twin.card.quantised_from != model.graph_sha256:
        raise ModelError(f"{path.name} was made of another {model.path.name}; {how}")
    if _more_than_frames(twin) != _more_than_frames(model):
        raise ModelError(f"{path.name} has not the alpha and states of {model.path.name}; {how}")
    return twin


def _more_than_frames(model: FrameModel) -> tuple[Any, ...]:
    return model.has_alpha, model.states, model.state_shapes, model.state_types


def twin_by_name(model: FrameModel, key: str) -> tuple[FrameModel, str]:
    """Return the twin that somebody asked for by name, and a note on how close it is.

    Args:
        model: whose twin; a twin is its own.
        key: under which the twin's card has its proof: ``openvino/bf16``.

    Raises:
        EngineError: as `int8_twin`.
    """
    try:
        twin = model if model.card.quantised_from else int8_twin(model)
    except ModelError as error:
        raise EngineError(str(error)) from error
    psnr_db, where = twin_proof(twin, key)
    if psnr_db is None:
        return twin, f"{INT8}: without a proof ({where})"
    return twin, f"{INT8}: {psnr_db:.1f} dB {where}"


def twin_proof(twin: FrameModel, key: str) -> tuple[float | None, str]:
    """Return the PSNR in dB that the twin's card has under ``key``, and from what it is off.

    None where the card has none, with the reason.
    """
    psnr_db = proven_db(twin.card, key)
    if psnr_db is None:
        return None, f"its card has no proof under {key}"
    return psnr_db, proven_from(twin.card, key)


def proven_from(card: Card, key: str) -> str:
    """Return in words what the proof under ``key`` was compared with."""
    original = card.proofs.get(key, {}).get("against_original", 1)
    return f"from {'the original network' if original else 'the same filter in f32'} (card)"


def why_not_int8() -> str | None:
    """Return None where this processor is made for INT8, else what it lacks."""
    return _NO_VNNI[has_vnni()]
