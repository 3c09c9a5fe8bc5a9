"""Which backends there are, which of them can run here, and which one `auto` takes."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from engines.base import Engine
from engines.errors import EngineError
from engines.model import FrameModel, Size

BACKENDS = {
    "tensorrt": "engines.backends.tensorrt:TensorRtEngine",
    "tensorrt-rtx": "engines.backends.tensorrt:TensorRtRtxEngine",
    "openvino": "engines.backends.openvino:OpenVinoEngine",
    "onnxruntime": "engines.backends.onnxruntime:OnnxRuntimeEngine",
    "torch": "engines.backends.torch:TorchEngine",
    "identity": "engines.backends.identity:IdentityEngine",
}
"""Name -> ``module:Class``; loaded on demand, best first."""

ENTRY_POINT_GROUP = "pix2live.backends"
AUTO_FRAME_MODEL = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
AUTO_GENERATOR = ("torch",)


def backend_names() -> list[str]:
    """Return every known backend, those of other packages last."""
    return [*BACKENDS, *sorted(set(_plugged_in()) - set(BACKENDS))]


def backend_class(name: str) -> type[Engine]:
    """Import the backend ``name``.

    Raises:
        EngineError: no backend has that name, or another package's cannot be loaded.
    """
    target = BACKENDS.get(name) or _plugged_in().get(name)
    if target is None:
        raise EngineError(f"no backend {name!r}; there are: {', '.join(backend_names())}")
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plug-in is somebody else's code
        raise EngineError(f"the backend {name!r} ({target}) cannot be loaded: {error}") from error
    if not isinstance(found, type) or not issubclass(found, Engine):
        raise EngineError(f"the backend {name!r} ({target}) is no engines.Engine")
    return found


def why_not(name: str) -> str | None:
    """Return None when the backend can run here, else the reason in one line."""
    try:
        return backend_class(name).why_not()
    except EngineError as error:
        return str(error)


def open_engine(
    model: Any,
    size: Size | None = None,
    *,
    backend: str = "auto",
    precision: str = "auto",
    depth: int = 1,
) -> Engine:
    """Return the engine for ``model``, open when ``size`` is given.

    Args:
        model: a `FrameModel`, the name of a shipped filter, a path to a frame model, or a PyTorch
            generator (see `engines.generators`) for the ``torch`` backend.
        size: (width, height) of the frames; None leaves opening to the pipeline, which learns
            the size from its source.
        backend: a name, or ``auto``: the best that is really there; ``notes`` say why. A device
            may follow: ``openvino:GPU``, ``onnxruntime:cuda``, ``torch:cuda``, ``tensorrt:1``.
        precision: ``auto``, ``f32``, ``bf16``, ``f16`` or ``int8``; a backend that cannot do it
            says so.
        depth: how many frames may be under way.

    Raises:
        EngineError: the named backend is missing: it is never replaced by another one.
        ModelError: the model file is no frame model.
    """
    from engines.filters import load_filter

    if isinstance(model, str) or hasattr(model, "__fspath__"):
        model = load_filter(model)
    name, _, device = backend.partition(":")
    note = ""
    if name == "auto":
        if device:
            raise EngineError(f"auto takes no device ({device!r}): name the backend that has it")
        name, note = _choose(model)
    chosen = backend_class(name)
    reason = chosen.why_not()
    if reason is not None:
        raise EngineError(f"the backend {name!r} cannot run here: {reason}")
    engine = chosen(model, precision=precision, device=device)
    if note:
        engine.notes.append(note)
    if size is not None:
        engine.open(size, depth=depth)
    return engine


def _choose(model: Any) -> tuple[str, str]:
    candidates = AUTO_FRAME_MODEL if isinstance(model, FrameModel) else AUTO_GENERATOR
    refused: dict[str, str] = {}
    """Reason -> the first backend that has it: what two lack is said once."""
    for name in candidates:
        reason = why_not(name)
        if reason is None:
            because = f" ({_told(refused)})" if refused else ""
            return name, f"{name} chosen by auto: the first that can run here{because}"
        refused.setdefault(reason, name)
    raise EngineError(f"no backend can run {type(model).__name__} here: {_told(refused)}")


def _told(refused: dict[str, str]) -> str:
    return "; ".join(f"not {name}: {reason}" for reason, name in refused.items())


def _plugged_in() -> dict[str, str]:
    return {item.name: item.value for item in entry_points(group=ENTRY_POINT_GROUP)}
