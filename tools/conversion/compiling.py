"""Engines: the frame model compiled for a device, as a file beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engines import EngineError, FrameModel, SettingsError, Size
from engines.artefact import ArtefactKey, engine_file, write_artefact
from engines.cache import EngineCache
from engines.nvidia import tensorrt_api
from engines.registry import why_not
from tools.conversion.report import EngineFile

if TYPE_CHECKING:
    import onnx

    from engines.nvidia.cuda import Cuda
    from engines.nvidia.tensorrt_builder import Progress

Tick = Callable[[str, int, int], None]

EVERY_GPU: Final = "every GPU from 8.0 on"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be compiled."""

    backend: str
    precision: str
    smallest: Size
    best: Size
    largest: Size
    gpus: tuple[str, ...] = ()


def default_targets() -> tuple[str, ...]:
    """Return the backend that `auto` takes here: what the device that is there needs."""
    for backend in ("tensorrt", "tensorrt-rtx", "openvino"):
        if why_not(backend) is None:
            return (backend,)
    return ()


def compile_engine(job: Job, model: FrameModel, graph: onnx.ModelProto, tick: Tick) -> EngineFile:
    """Compile ``model`` for one backend and write the engine beside it.

    Args:
        job: what to compile.
        model: the FP32 master, whose SHA-256 the engine carries.
        graph: the same typed for the precision of the job; TensorRT takes its types from it.
        tick: called with the phase, the step and how many there are.

    Raises:
        ConversionError: the builder cannot build it.
        EngineError: the device or its package is missing.
    """
    if job.backend == "openvino":
        return _openvino(job, model, tick)
    if job.backend not in tensorrt_api.PACKAGES:
        raise SettingsError(f"{job.backend} has no engines to compile")
    return _tensorrt(job, model, graph, tick)


def _openvino(job: Job, model: FrameModel, tick: Tick) -> EngineFile:
    from engines.backends.openvino import OpenVinoEngine

    tick("openvino", 0, 1)
    engine = OpenVinoEngine(model)  # in the precision that `run` takes, too
    path = engine_file(model.path, "openvino", job.best)
    key, payload = engine.compiled(job.best)
    write_artefact(path, key, payload, {})
    return EngineFile(
        path=path,
        backend="openvino",
        version=key.backend_version,
        precision=key.precision,
        smallest=job.best,
        largest=job.best,
        targets=(str(key.device),),
        size_bytes=len(payload),
        seconds=0.0,
    )


def _tensorrt(job: Job, model: FrameModel, graph: onnx.ModelProto, tick: Tick) -> EngineFile:
    from engines.nvidia.tensorrt_builder import build_plan

    def progress(step: Progress) -> bool:
        if step.depth == 0:
            tick(f"{job.backend}: {step.phase}", step.step, step.steps)
        return True

    device: str | tuple[str, ...]
    driver, targets = "", job.gpus
    if job.backend == "tensorrt":
        if job.gpus:
            raise SettingsError(
                "--gpu is for tensorrt-rtx: tensorrt builds for the GPU that is here"
            )
        here = _gpu()
        device, driver, targets = here.name, here.driver_version, (here.name,)
    else:
        device = tuple(_capability_here() if gpu == "current" else gpu for gpu in job.gpus)
    timings = EngineCache().folder / "kernels.timings" if job.backend == "tensorrt" else None
    plan = build_plan(
        job.backend,
        graph,
        smallest=job.smallest,
        best=job.best,
        largest=job.largest,
        compute_capabilities=job.gpus,
        timing_cache=timings,
        progress=progress,
    )
    version = tensorrt_api.version(job.backend)
    key = ArtefactKey(
        model_sha256=model.graph_sha256,
        smallest=job.smallest,
        best=job.best,
        largest=job.largest,
        precision=job.precision,
        backend=job.backend,
        backend_version=version,
        device=device,
        driver=driver,
    )
    path = _file(job, model.path)
    facts = {"layers": plan.layers, "fp32_layers": list(plan.fp32_layers)}
    write_artefact(path, key, plan.data, facts)
    return EngineFile(
        path=path,
        backend=job.backend,
        version=version,
        precision=job.precision,
        smallest=job.smallest,
        largest=job.largest,
        targets=targets or (EVERY_GPU,),
        size_bytes=len(plan.data),
        seconds=0.0,
        layers=plan.layers,
        fp32_layers=plan.fp32_layers,
        notes=plan.notes,
    )


def _gpu() -> Cuda:
    """Return the GPU that is here.

    Raises:
        EngineError: there is none.
    """
    from engines.nvidia import cuda

    reason = cuda.why_not()
    if reason is not None:
        raise EngineError(f"this engine is built on the GPU that will run it: {reason}")
    return cuda.Cuda("")


def _capability_here() -> str:
    return "{}.{}".format(*_gpu().compute_capability)


def _file(job: Job, model: Path) -> Path:
    return engine_file(model, job.backend, job.best if job.smallest == job.largest else None)
