"""What the hardware can do at most: probes that are measured beside the cases, in their processes.

Arithmetic: the network of `tools.bench.probe`, at the size at which it does most operations a
second. Memory: a copy of arrays that no cache holds.
"""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines import Engine, EngineError, FrameModel, Pix2liveError, Pixels
from engines.graphs.work import count_work
from engines.model import Card, write_frame_model
from tools import environment
from tools.bench import measure
from tools.bench.probe import Weights, expected_levels, probe_graph, probe_module, probe_weights

CPU: Final = "cpu"
MEMORY: Final = "memory"
"""Beside the number types: the ceiling in bytes a second."""
CHANNELS: Final = {True: 256, False: 1024}
"""On a CPU, elsewhere: enough that arithmetic takes longer than the values between two layers."""
SIDES_PX: Final = {True: (32, 64, 128, 256, 512), False: (64, 128, 256)}
GAIN: Final = 1.03
"""A larger frame that brings less is not worth its memory."""
CHECKED_ROWS: Final = 4
LONGEST_S: Final = 0.2
"""Of a frame of the probe, but for the smallest. Behind each turn three of them go through at
least, for each one under way."""
SEARCH_S: Final = 0.05
SEARCHES: Final = 2
"""For each size that is tried, so long and so often: the best counts."""
CACHES: Final = 4
"""A copied array is so many times as large as the last caches together."""
UNKNOWN_CACHE_BYTES: Final = 32 << 20
LEAST_BYTES, MOST_BYTES = 64 << 20, 1 << 30
MEMORY_SHARE: Final = 16
"""At most this part of the memory for one array."""
CGROUP: Final = Path("/sys/fs/cgroup")
DEVICE_BYTES: Final = 512 << 20


def device_key(backend: str, device: str) -> str:
    """Return what tells one piece of hardware from another, whoever computes on it.

    Args:
        backend: as asked for: ``openvino:GPU``, ``tensorrt:1``.
        device: what its engine says: ``CPU: A Processor``, ``cuda``.
    """
    name, _, asked = backend.partition(":")
    if name.startswith("tensorrt"):
        return f"cuda:{asked or 0}"
    word = device.split(" ", maxsplit=1)[0].rstrip(":").lower() or asked.lower()
    if word == CPU:
        return CPU
    cuda = re.fullmatch(r"cuda(?::(\d+))?", word)
    return f"cuda:{cuda[1] or 0}" if cuda else f"{name}:{word}"


@dataclass
class Probe:
    """An open engine of the probe, at the size at which it does most."""

    engine: Engine
    inputs: list[Pixels]
    outputs: list[Pixels]
    side_px: int
    operations: int
    """Of a frame."""

    def rate(self, seconds: float) -> float:
        """Return operations a second over ``seconds``; a frame for each one under way at least."""
        with ThreadPoolExecutor(1) as thread:  # as the cases are: see `CaseProcess._bare`
            found = thread.submit(
                measure.bare, self.engine, self.inputs, self.outputs, seconds, fewest=1
            ).result()
        return found.fps * self.operations


def open_probe(
    make: Callable[[Any, int], Engine], folder: Path, *, backend: str, on_cpu: bool, int8: bool,
    side_px: int | None = None,
) -> Probe:  # fmt: skip
    """Return the probe, open and checked, at the size at which it does most operations a second.

    Args:
        make: opens an engine of a model (frame model, or module of PyTorch) for frames of a side.
        folder: where the probe's file is, or is written.
        backend: whose engine it is: PyTorch takes modules.
        on_cpu: smaller than what a GPU needs.
        int8: with its convolutions between QuantizeLinear and DequantizeLinear.
        side_px: what an earlier search has found, instead of another one.

    Raises:
        Pix2liveError: the backend cannot run it, or its pictures are wrong.
    """
    weights = probe_weights(CHANNELS[on_cpu])
    model: Any
    if backend.partition(":")[0] == "torch":
        if int8:
            raise EngineError("torch has no INT8 probe")
        model = probe_module(weights)
    else:
        model = _probe_file(weights, folder, int8=int8)
    work, reason = count_work(probe_graph(weights, int8=int8), (1, 1))
    assert work is not None, reason
    best, best_rate = None, 0.0
    for side in [side_px] if side_px else SIDES_PX[on_cpu]:
        probe: Probe | None = None
        try:
            probe = _opened(make(model, side), side, work.operations * side**2)
            if best is None:
                _check(probe, weights)
            rate = max(probe.rate(SEARCH_S) for _ in range(SEARCHES))
        except Pix2liveError:
            if probe is not None:
                probe.engine.close()
            if best is None:
                raise
            break  # there is no memory for a larger one
        # The next one has four times the pixels.
        enough = rate < GAIN * best_rate or 4 * probe.operations / rate > LONGEST_S
        loser: Probe | None = probe
        if rate > best_rate:
            loser, best, best_rate = best, probe, rate
        if loser is not None:
            loser.engine.close()
        if enough:
            break
    assert best is not None
    return best


def copy_rate(seconds: float) -> float:
    """Return bytes read and written a second by as many threads as there are processors.

    The best of the copies in ``seconds``. That a processor may read a line of the target before it
    writes it (write-allocate) is not counted.
    """
    threads = environment.cpu_count()
    part = copied_bytes() // threads
    with ThreadPoolExecutor(threads) as pool:
        arrays = list(pool.map(lambda _: (_touched(part), _touched(part)), range(threads)))
        best, ends = math.inf, time.perf_counter() + seconds
        while True:
            started = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), arrays))
            now = time.perf_counter()
            best = min(best, now - started)
            if now >= ends:
                return 2 * part * threads / best


def copied_bytes() -> int:
    """Return the length of the copied array: several times that of the caches, if memory allows."""
    memory = int((environment.memory_gb() or 1.0) * 1e9)
    most = min(MOST_BYTES, min(memory, container_bytes(CGROUP) or memory) // MEMORY_SHARE)
    caches = cache_bytes(Path("/sys/devices/system/cpu")) or UNKNOWN_CACHE_BYTES
    return min(max(CACHES * caches, LEAST_BYTES), most)


def container_bytes(cgroup: Path) -> int | None:
    """Return the memory that a container may use; None where there is no limit (Linux)."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def cache_bytes(cpus: Path) -> int | None:
    """Return the length of all caches of the last level; None where nobody says it (Linux)."""
    found: dict[int, dict[str, int]] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level, shared, size = (
                (index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size")
            )
        except OSError:
            continue
        part = re.fullmatch(r"(\d+)([KMG]?)", size)
        if part is not None and level.isdigit():
            unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[part[2]]
            found.setdefault(int(level), {})[shared] = int(part[1]) * unit
    return sum(found[max(found)].values()) if found else None


def memory_rate(device: str, seconds: float) -> float:
    """Return bytes read and written a second by a copy in the memory of ``device`` (its key).

    Raises:
        EngineError: nobody knows how to copy there, or PyTorch for CUDA is not installed.
    """
    if device == CPU:
        return copy_rate(seconds)
    if not device.startswith("cuda:"):
        raise EngineError(f"the memory of {device} cannot be measured")
    if importlib.util.find_spec("torch") is None:
        raise EngineError("copies on a GPU are measured with PyTorch, which is not installed")
    import torch

    if not torch.cuda.is_available():
        raise EngineError("copies on a GPU are measured with PyTorch, and this one has no CUDA")
    return _cuda_copy_rate(device, seconds)


def _cuda_copy_rate(device: str, seconds: float) -> float:
    """As `copy_rate`, on a GPU. Not verified on every GPU: a copy of half a GB at a time."""
    import torch

    with torch.cuda.device(device), torch.inference_mode():
        free_bytes, _ = torch.cuda.mem_get_info()
        count = min(DEVICE_BYTES, free_bytes // MEMORY_SHARE)
        source = torch.ones(count, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        best_s, ends = math.inf, time.perf_counter() + seconds
        while best_s is math.inf or time.perf_counter() < ends:
            begin.record()
            target.copy_(source)
            end.record()
            end.synchronize()
            best_s = min(best_s, begin.elapsed_time(end) / 1000)
        del source, target
        torch.cuda.empty_cache()  # the cases need it
    return 2 * count / best_s


def _check(probe: Probe, weights: Sequence[Weights]) -> None:
    """Refuse an engine that does not compute: one that only copies would be the fastest."""
    right = expected_levels(probe.inputs[0][:CHECKED_ROWS], weights)
    found = probe.engine.infer(probe.inputs[0], probe.outputs[0])[:CHECKED_ROWS]
    error = float(np.abs(found - right).mean())
    spread = float(np.abs(right - right.mean((0, 1))).mean())
    if error > spread / 2:
        probe.engine.close()
        raise EngineError(
            f"the probe's picture is {error:.0f} levels off: this backend does not compute it"
        )


def _opened(engine: Engine, side: int, operations: int) -> Probe:
    rng = np.random.default_rng(1)
    count = engine.depth + 2
    inputs, outputs = engine.slots(count), engine.slots(count)
    for slot in inputs:
        slot[:] = rng.integers(0, 256, slot.shape, np.uint8)
    return Probe(engine, inputs, outputs, side, operations)


def _probe_file(weights: Sequence[Weights], folder: Path, *, int8: bool) -> FrameModel:
    path = folder / f"probe-{len(weights[0])}{'-int8' if int8 else ''}.onnx"
    if not path.exists():
        write_frame_model(probe_graph(weights, int8=int8), Card(name=path.stem), path)
    return FrameModel.read(path)


def _touched(count: int) -> NDArray[np.uint8]:
    """Return an array whose pages are there."""
    return np.full(count, 1, np.uint8)
