"""What everything around the engine costs: `python -m benchmarks.overhead`.

Claims, at 640x360: the whole path (file, every, null sink) reaches 0.95 of the bare OpenVINO loop
on preloaded frames in floating point, and 0.9 in INT8, where decoding the film is a larger part;
capture to sink takes under 1 ms (p50) with the identity engine; a live
30 fps source loses no frame and is under 45 ms old (p50) at the sink.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from engines import Engine, Size, open_engine
from engines.backends.openvino import OpenVinoEngine, import_openvino
from realtime import Pipeline
from tools.run import SWITCH_INTERVAL_S

PATH: Final = "whole path"


def bare_latency(frames: list[Any], engine: Engine) -> Any:
    """Return the loop that OpenVINO's own samples show: one request, one frame after the other."""
    request, _ = _compile("LATENCY", engine)

    def loop() -> None:
        for frame in frames:
            request.infer({"frame": frame[None]}, share_inputs=True)
            request.get_tensor("translated").data.sum(axis=None, where=False)

    loop()
    return loop


def bare_throughput(frames: list[Any], engine: Engine) -> Any:
    """Return OpenVINO's queue of parallel requests: the most that the machine can do."""
    _, compiled = _compile("THROUGHPUT", engine)
    queue = import_openvino().AsyncInferQueue(compiled)

    def loop() -> None:
        for frame in frames:
            queue.start_async({"frame": frame[None]}, share_inputs=True)
        queue.wait_all()

    loop()
    return loop


def _compile(hint: str, engine: Engine) -> tuple[Any, Any]:
    core = import_openvino().Core()
    network = core.read_model(engine.runs.path)
    width, height = common.SIZE
    network.reshape({"frame": [1, height, width, 3]})
    # Unpinned, as our backend: pinned threads lose where anything else runs beside them.
    config = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": engine.float_precision,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", config)
    return compiled.create_infer_request(), compiled


def opened(precision: str, size: Size | None = None) -> Engine:
    """Return the engine of the default filter, open when ``size`` is given."""
    return open_engine(common.FILTER, size, backend=OpenVinoEngine.name, precision=precision)


def ways_of(
    clip: Path, frames: list[Any], precision: str, suffix: str
) -> dict[str, Callable[[], float]]:
    """Return what measures the whole path and bare OpenVINO, in frames a second."""
    with opened(precision, common.SIZE) as engine:
        latency, throughput = bare_latency(frames, engine), bare_throughput(frames, engine)

    def whole_path() -> float:
        return Pipeline(clip, opened(precision), ["null"], mode="every").run().fps()

    return {
        PATH + suffix: whole_path,
        f"bare loop{suffix}": lambda: common.fps(len(frames), latency),
        f"bare queue{suffix}": lambda: common.fps(len(frames), throughput),
    }


def live(engine: Any, seconds: float) -> dict[str, Any]:
    """Return ages and drops of a 30 fps live source."""
    pipeline = Pipeline("test-pattern:640x360@30", engine, ["null"], seconds=seconds)
    stats = pipeline.run()
    return {
        "fps": round(stats.fps(), 2),
        "dropped": sum(stats.dropped().values()),
        "frames": stats.engine_out.count,
        "age": stats.sinks[0].ages.summary(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as folder:
        clip = common.clip(Path(folder))
        frames = [np.ascontiguousarray(frame) for frame in common.frames_of(clip)]
        ways = ways_of(clip, frames, "auto", "")
        with opened("auto", common.SIZE) as probe:
            precision = probe.precision
        floats = common.float_precision()
        if precision != floats:
            ways |= ways_of(clip, frames, floats, f", {floats}")
        found = common.interleaved(ways, options.rounds)
    identity = live(open_engine(None, backend="identity"), options.seconds)
    filtered = live(open_engine(common.FILTER), options.seconds)
    common.save(
        "overhead",
        {
            "filter": common.FILTER,
            "size": list(common.SIZE),
            "precision": precision,
            "fps": {name: common.summary(values) for name, values in found.items()},
            **{
                f"{name} / {other}": round(common.ratio(found, name, other), 3)
                for name in found
                if name.startswith(PATH)
                for other in (name.replace(PATH, "bare loop"), name.replace(PATH, "bare queue"))
            },
            "live, identity engine": identity,
            f"live, {common.FILTER}": filtered,
        },
    )


if __name__ == "__main__":
    main()
