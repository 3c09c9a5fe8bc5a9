"""Where the engine of a frame model comes from: a file beside it, the cache, or built now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.artefact import ArtefactKey, engine_file, read_artefact
from engines.cache import EngineCache
from engines.errors import ConversionError, EngineError
from engines.model import FrameModel, Size
from engines.nvidia import tensorrt_api

if TYPE_CHECKING:
    from engines.nvidia.tensorrt_builder import Plan, Progress


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that was built for this model, size, precision, GPU and version."""

    data: bytes
    notes: tuple[str, ...]
    """How it came, and why it did not come faster; for a person."""
    kernel_cache: Path
    """Where TensorRT for RTX may keep the kernels that it compiles for this GPU."""
    path: Path | None = None
    """The engine file that it is from; None when it was built now, or comes from the cache."""


def find(
    backend: str,
    model: FrameModel,
    size: Size,
    *,
    precision: str,
    device: Any,
    cache: EngineCache | None = None,
    progress: Callable[[Progress], bool] | None = None,
    why_precision: str = "",
    build: bool = True,
) -> Found:
    """Return the engine of ``model`` for frames of ``size``, building it if need be.

    Args:
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        model: the FP32 master; a plan for ``f16`` is built from its half-precision form.
        size: (width, height) of the frames.
        precision: ``f16`` or ``f32``.
        device: name, compute_capability and driver_version, as `engines.nvidia.cuda.Cuda` has them.
        cache: where engines are kept; None is the one in the home folder.
        progress: see `engines.nvidia.tensorrt_builder.build_plan`.
        why_precision: the precision and why it is this one (``f32, the slower way: ...``), where
            nobody asked for it by name; for the note on an engine file of the other one.
        build: False: take one that is there, and build none.

    Raises:
        EngineError: it cannot be built, or is not there and must not be built; the reasons in one
            line.
    """
    cache = cache or EngineCache()
    key = ArtefactKey(
        model_sha256=model.graph_sha256,
        smallest=size,
        best=size,
        largest=size,
        precision=precision,
        backend=backend,
        backend_version=tensorrt_api.version(backend),
        device=device.name,
        driver=device.driver_version,
    )
    capability = "{}.{}".format(*device.compute_capability)
    kernel_cache = cache.folder / f"{key.digest()}.kernels"
    notes: list[str] = []
    files = engine_file(model.path, backend, size), engine_file(model.path, backend)
    for path in files:
        if not path.exists():
            continue
        try:
            artefact = read_artefact(path)
            reason = _why_not_here(key, artefact.key, capability, why_precision)
        except EngineError as error:
            reason = str(error)
        if not reason:
            said = (*notes, f"engine from {path.name}")
            return Found(artefact.payload, said, kernel_cache, path)
        notes.append(f"not {path.name}: {reason}")
    kept = None if build else cache.get(key)
    if kept is not None:
        return Found(kept.payload, (*notes, "engine from the cache"), kernel_cache)
    if not build:
        reasons = "; ".join(notes) or f"there is neither {files[0].name} nor {files[1].name}"
        raise EngineError(
            f"no {backend} engine in {precision} for {model.path.name} at {size[0]}x{size[1]}, and"
            f" none is to be built now: {reasons}"
        )
    artefact = cache.get_or_build(key, lambda: _build(key, model, capability, cache, progress))
    notes.append("engine built now" if artefact.built else "engine from the cache")
    if artefact.note:
        notes.append(artefact.note)
    return Found(artefact.payload, tuple(notes), kernel_cache)


def _why_not_here(
    here: ArtefactKey, found: ArtefactKey, capability: str, why_precision: str
) -> str:
    """Return in words why an engine file does not fit; empty when it does."""
    size = here.best
    if not all(
        low <= side <= high
        for low, side, high in zip(found.smallest, size, found.largest, strict=True)
    ):
        low, high = ("x".join(map(str, item)) for item in (found.smallest, found.largest))
        return f"it takes {low} to {high}, here {size[0]}x{size[1]}"
    if isinstance(found.device, tuple) and found.device and capability not in found.device:
        return (
            f"it is for GPUs of compute capability {', '.join(found.device)}, this one has"
            f" {capability}"
        )
    # A portable engine names no GPU; one without a driver does not depend on it.
    expected = ArtefactKey(
        model_sha256=here.model_sha256,
        smallest=found.smallest,
        best=found.best,
        largest=found.largest,
        precision=found.precision,
        backend=here.backend,
        backend_version=here.backend_version,
        device=found.device if isinstance(found.device, tuple) else here.device,
        driver=here.driver if found.driver else "",
        options=found.options,
    )
    reasons = [expected.differences(found)]
    if found.precision != here.precision:
        reason = f"it is {found.precision}, and here it runs in {why_precision or here.precision}"
        takes_it = f"; --precision {found.precision} takes it all the same"
        reasons.append(reason + (takes_it if why_precision else ""))
    return "; ".join(reason for reason in reasons if reason)


def _build(
    key: ArtefactKey,
    model: FrameModel,
    capability: str,
    cache: EngineCache,
    progress: Callable[[Progress], bool] | None,
) -> tuple[bytes, dict[str, Any]]:
    from engines.graphs.half import to_half
    from engines.nvidia.tensorrt_builder import build_plan, capabilities

    portable = capabilities(key.backend)
    timings = None if cache.why_nothing_is_kept else cache.folder / "kernels.timings"
    try:
        master = model.graph()
        plan: Plan = build_plan(
            key.backend,
            to_half(master).model if key.precision == "f16" else master,
            smallest=key.smallest,
            best=key.best,
            largest=key.largest,
            # Built for this GPU alone; a newer one may have no number of its own yet.
            compute_capabilities=[x for x in (capability, "current") if x in portable][:1],
            timing_cache=timings if key.backend == "tensorrt" else None,
            progress=progress,
        )
    except ConversionError as error:
        raise EngineError(f"no engine for {model.path.name}: {error}") from error
    facts = {
        "layers": plan.layers,
        "fp32_layers": list(plan.fp32_layers),
        "notes": list(plan.notes),
    }
    return plan.data, facts
