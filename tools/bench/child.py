"""The process of one case: opens its engine, and measures when it is told to.

A process a case: peak memory is the case's own, a library that crashes takes nobody along, and no
backend finds the threads of another one. It reads one JSON object a line from standard input and
answers with one a line; what libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from engines import Engine, EngineError, Pix2liveError, Pixels, Size, load_filter, open_engine
from engines.twins import INT8
from realtime.pipeline import EVERY_DEPTH
from tools.bench import measure
from tools.bench.ceilings import CPU, MEMORY, Probe, device_key, memory_rate, open_probe
from tools.bench.measure import TooFewError
from tools.bench.results import Bare
from tools.bench.schema import to_json
from tools.run import SWITCH_INTERVAL_S

LIVE_FRAMES = 6
"""A live round of a slow engine lasts as long as so many of its frames."""


class CaseProcess:
    """What one process knows of its case."""

    def __init__(self) -> None:
        self._asked: dict[str, Any] = {}
        self._frames: list[Pixels] = []
        self._engine: Engine | None = None
        self._deep: Engine | None = None
        self._slots: dict[int, tuple[Sequence[Pixels], Sequence[Pixels]]] = {}
        self._probes: dict[str, Probe] = {}
        """Number type -> its probe."""

    def open(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Open and warm up; ``asked`` as `tools.bench.worker.Worker.open` sends it."""
        self._asked = asked
        self._frames = list(np.load(asked["frames"]))
        before_mb = measure.peak_memory_mb()
        started = time.perf_counter()
        self._engine = self._made(1)
        open_s = time.perf_counter() - started
        inputs, outputs = self._filled(self._engine)
        measure.bare(self._engine, inputs, outputs, 0)
        return {
            "device": self._engine.device,
            "runs": str(self._engine.runs.path),
            "float_precision": self._engine.float_precision,
            "notes": list(self._engine.notes),
            "open_s": round(open_s, 3),
            "memory_before_mb": round(before_mb, 1),
            "memory_mb": round(measure.peak_memory_mb(), 1),
        }

    def deepen(self, _: dict[str, Any]) -> dict[str, Any]:
        """Open the engine for throughput, where the backend takes several frames."""
        assert self._engine is not None
        notes = []
        try:
            self._deep = self._made(EVERY_DEPTH)
            self._filled(self._deep)
        except EngineError as error:  # the device has no memory for several
            notes.append(f"one frame at a time only: {error}")
        if self._deep is not None and self._deep.depth == 1:
            self._deep.close()
            self._deep = None
        gc.collect()
        gc.freeze()  # as in `pix2live run`: nobody looks through all modules while frames move
        return {"depth": self._deep.depth if self._deep is not None else 1, "notes": notes}

    def pictures(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Write what becomes of the first ``count`` frames into the file ``to``."""
        assert self._engine is not None
        inputs, outputs = self._slots[id(self._engine)]
        np.save(asked["to"], measure.translate(self._engine, inputs, outputs, asked["count"]))
        return {}

    def round(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Measure one turn: latency, throughput, the live path, ``seconds`` each."""
        assert self._engine is not None
        seconds = asked["seconds"]
        latency = throughput = self._bare(self._engine, seconds)
        if self._deep is not None:
            throughput = self._bare(self._deep, seconds)
        # The pipeline closes its engine. Another one is quick: the code is compiled and loaded.
        live_s = max(seconds, LIVE_FRAMES * latency.p50_ms / 1000)
        live = measure.live(self._made(1), self._frames, asked["fps"], live_s)
        return {
            "latency": to_json(latency),
            "throughput": to_json(throughput),
            "live": to_json(live),
        }

    def probe(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Open a probe for each of ``types`` (number types), as deep as the throughput's engine.

        ``sides`` says at which size, where that is known; ``folder`` is for their files.
        """
        assert self._engine is not None
        backend, depth = self._asked["backend"], self._deep.depth if self._deep is not None else 1
        on_cpu = device_key(backend, self._engine.device) == CPU
        for kind in asked["types"]:
            self._probes[kind] = open_probe(
                lambda model, side: self._made(depth, model, (side, side)),
                Path(asked["folder"]),
                backend=backend,
                on_cpu=on_cpu,
                int8=kind == INT8,
                side_px=asked["sides"].get(kind),
            )
        gc.collect()
        gc.freeze()
        return {"sides": {kind: probe.side_px for kind, probe in self._probes.items()}}

    def ceilings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run each probe for ``seconds``, and copy in the memory of ``device`` where it is named.

        ``rates``: number type -> operations a second, ``memory`` -> bytes a second; ``no_memory``
        says why not, where it cannot be measured.
        """
        seconds, rates, reason = asked["seconds"], {}, ""
        for kind, probe in self._probes.items():
            rates[kind] = probe.rate(seconds)
        if asked["device"]:
            try:
                rates[MEMORY] = memory_rate(asked["device"], seconds / 2)
            except (EngineError, RuntimeError) as error:  # PyTorch has no memory
                reason = " ".join(str(error).split())
        return {"rates": {kind: float(f"{rate:.5g}") for kind, rate in rates.items()},
                "no_memory": reason}  # fmt: skip

    def _bare(self, engine: Engine, seconds: float) -> Bare:
        """Measure in a thread of its own, as the live path computes.

        OpenMP (PyTorch) makes threads for each thread that computes, and spins less when there
        are more of them than processors: on a busy machine the main thread is many times slower.
        """
        inputs, outputs = self._slots[id(engine)]
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(measure.bare, engine, inputs, outputs, seconds).result()

    def close(self) -> None:
        probes = [probe.engine for probe in self._probes.values()]
        for engine in (*probes, self._deep, self._engine):
            if engine is not None:
                engine.close()

    def _made(self, depth: int, model: Any = None, size: Size | None = None) -> Engine:
        """Open another engine as it was asked for; of another model, for another size."""
        asked = self._asked
        precision = asked["precision"]
        if model is None:
            model = load_filter(asked["model"])
        elif self._engine is not None:  # a probe, as the case computes; in INT8 it says so itself
            precision = self._engine.float_precision
        engine = open_engine(model, backend=asked["backend"], precision=precision)
        if hasattr(engine, "cache"):  # a person's own would hide what compiling costs
            from engines.cache import EngineCache

            engine.cache = EngineCache(Path(asked["cache"]))
        engine.open(size or tuple(asked["size"]), depth=depth)
        return engine

    def _filled(self, engine: Engine) -> tuple[Sequence[Pixels], Sequence[Pixels]]:
        """Return inputs and outputs in memory of the engine's own, and remember them."""
        count = len(self._frames)
        inputs, outputs = engine.slots(count), engine.slots(count)
        for slot, frame in zip(inputs, self._frames, strict=True):
            np.copyto(slot, frame)
        self._slots[id(engine)] = inputs, outputs
        return inputs, outputs


def devices(_: dict[str, Any]) -> dict[str, Any]:
    """Return the devices that backends name, as far as they can be asked without a model."""
    from engines.registry import why_not

    found: dict[str, list[str]] = {}
    if why_not("openvino") is None:
        from engines.backends.openvino import import_openvino

        found["openvino"] = list(import_openvino().Core().available_devices)
    if why_not("onnxruntime") is None:
        import onnxruntime

        found["onnxruntime"] = list(onnxruntime.get_available_providers())
    return found


def answer(words: dict[str, Any], case: CaseProcess) -> dict[str, Any]:
    """Do what one line asks for; an error is an answer."""
    doers = {
        "open": case.open,
        "deepen": case.deepen,
        "pictures": case.pictures,
        "round": case.round,
        "probe": case.probe,
        "ceilings": case.ceilings,
        "devices": devices,
    }
    try:
        return {"done": doers[words["do"]](words)}
    except (Pix2liveError, TooFewError) as error:
        return {"error": " ".join(str(error).split())}
    except Exception as error:  # noqa: BLE001  (a backend is somebody's code: a row, not the end)
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def serve(lines: IO[str], replies: IO[str]) -> None:
    """Answer until the other side closes the pipe."""
    case = CaseProcess()
    for line in lines:
        replies.write(json.dumps(answer(json.loads(line), case)) + "\n")
        replies.flush()
    case.close()


def main() -> None:
    """Talk over what were standard input and output."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's chatter must not be taken for an answer
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
