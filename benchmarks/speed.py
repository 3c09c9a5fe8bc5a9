"""How near to the limit of a processor: `python -m benchmarks.speed`.

Claims, bare engines, one frame at a time, ratios from one run:

* the fastest shipped filter has 100 fps at 640x360 and 30 fps at 1280x720, the default one 60 at
  640x360;
* INT8, which `auto` takes where the twin of a filter is proven and the processor has VNNI, has 1.5
  times the fps of the fastest floating point for the default filter, 35 dB or more from FP32
  on frames of a film (the twins that ship were measured on photographs);
* the 11 million parameter generator of CycleGAN at 256x256 has 1.8 times the fps of ONNX Runtime.

Beside them: what working on rows brings, which is done to every QuarterNet when it is opened.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.conversion import exported, random_resnet
from benchmarks.scaling import label, rounds_of
from engines import Engine, Pixels, load_filter, open_engine
from engines.backends.openvino import OpenVinoEngine
from engines.proof import compare
from engines.twins import INT8
from tools.run import SWITCH_INTERVAL_S

FASTEST: Final = "neon"
LARGE: Final = (1280, 720)
SQUARE: Final = (256, 256)
PROVEN_ON: Final = 16


class AsExported(OpenVinoEngine):
    """The file as it is."""

    def _works_on_rows(self) -> bool:
        return False


def opened(model: Any, size: tuple[int, int], **options: Any) -> Engine:
    return open_engine(model, size, backend=OpenVinoEngine.name, **options)


def psnr_db(model: Any, engine: Engine, frames: Sequence[Pixels]) -> float:
    """Return how far an engine is from FP32, as the same backend computes it."""
    assert engine.size is not None
    with opened(model, engine.size, precision="f32") as right:
        proof = compare(right.infer, engine.infer, frames)
    return round(proof.psnr_db, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tries", type=int, default=35, help="of which the quietest count")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one engine in one round")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    default, small = common.FILTER, label(common.SIZE)
    with tempfile.TemporaryDirectory() as folder:
        clip = common.clip(Path(folder))
        frames = common.frames_of(clip)
        frames = frames[: len(frames) // common.REPEATS]  # it is there several times
        proven = frames[:: max(1, len(frames) // PROVEN_ON)]
        resnet = exported(random_resnet(), "resnet", Path(folder))
        engines: dict[str, Engine] = {}
        floats = common.float_precision()
        as_exported = AsExported(load_filter(default), precision=floats)
        as_exported.open(common.SIZE)
        engines[f"{default}, {floats}, as exported, {small}"] = as_exported
        engines[f"{default}, {floats}, {small}"] = opened(default, common.SIZE, precision=floats)
        if floats != "f32":
            engines[f"{default}, f32, {small}"] = opened(default, common.SIZE, precision="f32")
        engines[f"{default}, {small}"] = opened(default, common.SIZE)
        engines[f"{FASTEST}, {floats}, {small}"] = opened(FASTEST, common.SIZE, precision=floats)
        engines[f"{FASTEST}, {small}"] = opened(FASTEST, common.SIZE)
        engines[f"{FASTEST}, {label(LARGE)}"] = opened(FASTEST, LARGE)
        engines["ResNet generator, 256x256"] = opened(resnet, SQUARE)
        engines["ResNet generator, ONNX Runtime, 256x256"] = open_engine(
            resnet, SQUARE, backend="onnxruntime:cpu"
        )
        times, others = rounds_of(engines, options.rounds, options.tries, options.seconds)
        pictures = {
            name: psnr_db(default, engine, proven)
            for name, engine in engines.items()
            if name.startswith(default)
        }
        precisions = {name: engine.precision for name, engine in engines.items()}
        for engine in engines.values():
            engine.close()

    def faster(ours: str, theirs: str) -> float:
        return round(statistics.median(b / a for a, b in zip(times[ours], times[theirs])), 2)

    def fps(name: str) -> float:
        return 1e3 / statistics.median(times[name])

    found = {
        "rows / as exported": faster(
            f"{default}, {floats}, {small}", f"{default}, {floats}, as exported, {small}"
        ),
        "ResNet generator / ONNX Runtime": faster(
            "ResNet generator, 256x256", "ResNet generator, ONNX Runtime, 256x256"
        ),
    }
    kept = {
        f"{FASTEST}: 100 fps at {small}": fps(f"{FASTEST}, {small}") >= 100,
        f"{FASTEST}: 30 fps at {label(LARGE)}": fps(f"{FASTEST}, {label(LARGE)}") >= 30,
        f"{default}: 60 fps at {small}": fps(f"{default}, {small}") >= 60,
        "ResNet generator: 1.8 of ONNX Runtime": found["ResNet generator / ONNX Runtime"] >= 1.8,
    }
    quick = f"{default}, {small}"
    if precisions[quick] == INT8:
        for theirs in dict.fromkeys((floats, "f32", f"{floats}, as exported")):
            found[f"INT8 / {theirs}"] = faster(quick, f"{default}, {theirs}, {small}")
        kept["INT8: 1.5 of floating point"] = found[f"INT8 / {floats}"] >= 1.5
        kept["INT8: 35 dB"] = pictures[quick] >= 35
    else:
        kept["INT8 was taken"] = False
    common.save(
        "speed",
        {
            "rounds": len(next(iter(times.values()))),
            "most cores that others used in a round": round(others, 2),
            "ms a frame": {name: common.summary(values) for name, values in times.items()},
            "fps": {name: round(fps(name), 1) for name in times},
            "precision": precisions,
            "psnr_db from f32": pictures,
            "ratios": found,
            "claims kept": kept,
        },
    )


if __name__ == "__main__":
    main()
