"""The TensorRT backend on the simulated device, for tests: nothing of the backend is replaced."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import Messages, SimulatedTensorRt

from engines import Engine, FrameModel
from engines.backends.tensorrt import TensorRtEngine
from engines.nvidia.frame_ring import FrameRing
from engines.nvidia.tensorrt_plan import Found

SIZE = (12, 8)
SEEDS = range(20)


class Simulated(TensorRtEngine):
    """The backend with a simulated device, library and plan."""

    device_of_test: SimulatedCuda
    library_of_test: SimulatedTensorRt
    kernels: Path | None = None

    @classmethod
    def why_not(cls) -> str | None:
        return None

    def _library(self) -> tuple[Any, Any]:
        return self.library_of_test, Messages()

    def _find_plan(self, size: tuple[int, int], device: Any, why_precision: str) -> Found:
        kernels = self.kernels or self.model.path.with_suffix(".kernels")
        return Found(self.model.path.read_bytes(), ("plan of the test",), kernels)


def new(
    model: FrameModel,
    cuda: SimulatedCuda,
    *,
    rtx: bool = False,
    ring: Callable[..., FrameRing] = FrameRing,
    precision: str = "f16",
) -> Any:
    """A closed engine on ``cuda``; with ``auto`` it would measure its precision at each start."""

    class Engine(Simulated):
        name = "tensorrt-rtx" if rtx else "tensorrt"
        cuda_factory = staticmethod(lambda _: cuda)
        ring_factory = ring
        device_of_test = cuda
        library_of_test = SimulatedTensorRt(cuda, rtx=rtx)

    return Engine(model, precision=precision)


def freed(cuda: SimulatedCuda, library: SimulatedTensorRt | None = None) -> None:
    """Nothing of the device is held any more, and nothing was done that may not be done."""
    assert cuda.wrong == []
    assert cuda.held == []
    assert cuda.locked == {}
    assert library is None or library.live == 0


def run(engine: Engine, frames: list[Any], *, locked: str, order: random.Random) -> list[Any]:
    """Send ``frames`` with as many under way as fit, collecting when ``order`` wants to.

    Every array is written over as soon as it is the caller's again.
    """
    count = engine.depth + 2  # more than the engine has: results are looked at late
    pairs = [(np.empty_like(frames[0]), np.empty_like(frames[0])) for _ in range(count)]
    if locked in ("in", "both"):
        pairs = [(page, out) for (_, out), page in zip(pairs, engine.slots(count), strict=True)]
    if locked in ("out", "both"):
        pairs = [(frame, page) for (frame, _), page in zip(pairs, engine.slots(count), strict=True)]
    found: list[Any] = []
    under_way: list[Any] = []

    def collect() -> None:
        frame_in, frame_out = under_way.pop(0)
        assert engine.collect() is frame_out
        found.append(frame_out.copy())
        if engine.alpha is not None:
            found[-1] = (found[-1], engine.alpha.copy())
        frame_in[:] = frame_out[:] = 77

    for number, frame in enumerate(frames):
        while engine.pending == engine.depth or (engine.pending and order.random() < 0.3):
            collect()
        frame_in, frame_out = pairs[number % count]
        frame_in[:] = frame
        engine.submit(frame_in, frame_out)
        under_way.append((frame_in, frame_out))
    while engine.pending:
        collect()
    return found


def pictures(count: int, seed: int = 0) -> list[Any]:
    return [models.picture(SIZE, seed * 1000 + number) for number in range(count)]
