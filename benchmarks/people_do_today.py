"""The loops that people write today, beside ours: `python -m benchmarks.people_do_today`.

Every shipped filter at 640x360, the same weights and the same clip, nothing shown: OpenCV with
PyTorch (as it is, and with torch.compile), with ONNX Runtime, with OpenCV's own networks; and bare
OpenVINO on frames in memory, in the fastest of the configurations that its own benchmark tool
offers, with the same file and precision as ours. Ours is the whole path from the file to the null
sink and the bare engine, both as `auto` runs them (INT8 where the processor has VNNI), and both in
the fastest floating point.

Networks that differ in their weights only take the same time: torch.compile and OpenCV's own, which
take long to prepare, run for one filter of each architecture. Of the rounds, those count in which
other processes used least of the processor.

Claims, in one run: the whole path has at least 3 times the fps of OpenCV + PyTorch and 2 times that
of OpenCV + ONNX Runtime; the engine has 0.97 of bare OpenVINO's best of the same precision; the
pictures are those of PyTorch (35 dB or more).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common, loops
from benchmarks.streams import quietest
from engines import Engine, Pixels, filter_names, load_filter, open_engine
from engines.backends.openvino import OpenVinoEngine
from engines.proof import compare
from engines.twins import INT8
from realtime import Pipeline
from realtime.pipeline import EVERY_DEPTH
from tools.run import SWITCH_INTERVAL_S

OURS: Final = "pix2live, whole path"
ENGINE: Final = "pix2live, engine"
BARE: Final = "bare OpenVINO, best"
PYTORCH: Final = "OpenCV + PyTorch"
COMPILED: Final = "OpenCV + torch.compile"
ONNX: Final = "OpenCV + ONNX Runtime"
DNN: Final = "OpenCV DNN"
LEAST: Final = {(OURS, PYTORCH): 3.0, (OURS, ONNX): 2.0, (ENGINE, BARE): 0.97}
"""Of the ratios of fps."""
PROOF_FRAMES: Final = 8
PSNR_DB: Final = 35.0


def ways(
    name: str, clip: Path, pictures: list[Pixels], folder: Path, slow: bool
) -> tuple[dict[str, Callable[[], float]], dict[str, Any]]:
    """Return what measures each loop, in frames a second, and what there is to say of them."""
    count = len(pictures)
    pytorch = loops.pytorch(name)
    shown = pictures[:PROOF_FRAMES]
    right = [*itertools.islice(pytorch(clip), len(shown))]
    facts: dict[str, Any] = {"architecture": load_filter(name).card.architecture}
    found: dict[str, Callable[[], float]] = {}
    chosen = ours(name, clip, pictures, "auto")
    facts["precision"] = chosen.precision
    found |= chosen.ways("")
    each = [("", chosen)]
    if chosen.precision == INT8:
        floats = common.float_precision()
        each.append((f", {floats}", ours(name, clip, pictures, floats)))
        found |= each[-1][1].ways(each[-1][0])
    for suffix, way in each:
        facts[f"psnr_db from PyTorch{suffix}"] = psnr_db(way.engine, shown, right)
        facts[f"frames under way{suffix}"] = way.engine.depth
        facts[f"bare OpenVINO's best{suffix}"] = way.configuration
    found[PYTORCH] = lambda: loops.fps_of(pytorch, clip, count)
    others: dict[str, Callable[[], loops.Loop]] = {ONNX: lambda: loops.onnxruntime(name)}
    if slow:
        others[COMPILED] = lambda: loops.pytorch(name, compiled=True)
        others[DNN] = lambda: loops.opencv_dnn(name, folder)
    for label, make in others.items():
        try:
            loop = make()
        except loops.LoopError as error:
            facts[label] = str(error)
            continue
        found[label] = lambda loop=loop: loops.fps_of(loop, clip, count)  # type: ignore[misc]
    return found, facts


@dataclass(frozen=True)
class Ours:
    """The filter in one precision, and bare OpenVINO with the same file."""

    engine: Engine
    whole_path: Callable[[], float]
    bare_engine: Callable[[], float]
    bare_openvino: Callable[[], float]
    configuration: str
    """The fastest one of bare OpenVINO."""

    @property
    def precision(self) -> str:
        return self.engine.precision

    def ways(self, suffix: str) -> dict[str, Callable[[], float]]:
        """Return what measures them, in frames a second."""
        return {
            OURS + suffix: self.whole_path,
            ENGINE + suffix: self.bare_engine,
            BARE + suffix: self.bare_openvino,
        }


def ours(name: str, clip: Path, pictures: list[Pixels], precision: str) -> Ours:
    """Open the filter, and look for the fastest way of its engine and of bare OpenVINO."""
    backend = OpenVinoEngine.name
    loop: Callable[[int], float] | None = None
    fastest = 0.0
    for depth in (1, EVERY_DEPTH):  # live, and for files
        opened = open_engine(name, common.SIZE, backend=backend, precision=precision, depth=depth)
        tried = engine_loop(opened, pictures)
        tried(len(pictures))
        fps = max(tried(len(pictures)) for _ in range(3))
        if loop is None or fps > fastest:
            engine, loop, fastest = opened, tried, fps
    assert loop is not None
    run = loop

    def whole_path() -> float:
        another = open_engine(name, backend=backend, precision=precision)
        return Pipeline(clip, another, ["null"], mode="every", frames=len(pictures)).run().fps()

    bare = loops.BareOpenVino(engine)
    best = bare.best(pictures)
    return Ours(engine, whole_path, lambda: run(len(pictures)), best, bare.configuration)


def engine_loop(engine: Engine, pictures: list[Pixels]) -> Callable[[int], float]:
    """Return what measures so many frames of an open engine, in frames a second.

    The pictures lie in its slots, where a source writes them: bare OpenVINO has them in memory too.
    """
    inputs, outputs = engine.slots(len(pictures)), engine.slots(engine.depth + 1)
    for slot, picture in zip(inputs, pictures, strict=True):
        np.copyto(slot, picture)

    def run(count: int) -> float:
        started = time.perf_counter()
        for number in range(count):
            if number >= engine.depth:
                engine.collect()
            engine.submit(inputs[number % len(inputs)], outputs[number % len(outputs)])
        for _ in range(min(engine.depth, count)):
            engine.collect()
        return count / (time.perf_counter() - started)

    return run


def psnr_db(engine: Engine, frames: list[Pixels], pictures: list[Pixels]) -> float:
    """Return how far what an engine makes of frames is from pictures."""
    right = {id(frame): picture for frame, picture in zip(frames, pictures)}
    return round(compare(lambda frame: right[id(frame)], engine.infer, frames).psnr_db, 1)


def measured(
    name: str, clip: Path, pictures: list[Pixels], options: argparse.Namespace, slow: bool
) -> dict[str, Any]:
    """Return everything about one filter; ``slow``: also the loops that take long to prepare."""
    each, facts = ways(name, clip, pictures, clip.parent, slow)
    for way in each.values():
        way()  # what is loaded or compiled with the first frame is not counted
    found = quietest(
        lambda: {label: way() for label, way in each.items()}, options.rounds, options.tries
    )
    facts["most cores that others used in a round"] = round(found[-1][0], 2)
    fps = {label: [done[label] for _, done in found] for label in each}
    each.clear()  # with what they hold
    gc.collect()
    suffixes = [label.removeprefix(OURS) for label in fps if label.startswith(OURS)]
    pairs = {
        (OURS + suffix, other): LEAST.get((OURS, other))
        for suffix in suffixes
        for other in (PYTORCH, ONNX, COMPILED, DNN)
        if other in fps
    }
    pairs |= {(ENGINE + suffix, BARE + suffix): LEAST[ENGINE, BARE] for suffix in suffixes}
    ratios = {f"{a} / {b}": round(common.ratio(fps, a, b), 2) for a, b in pairs}
    kept = {
        f"{a} / {b} >= {least}": common.ratio(fps, a, b) >= least
        for (a, b), least in pairs.items()
        if least is not None
    }
    for what, psnr in facts.items():
        if what.startswith("psnr_db"):
            kept[f"{what} >= {PSNR_DB:.0f}"] = psnr >= PSNR_DB
    return {
        **facts,
        "fps": {label: common.summary(values) for label, values in fps.items()},
        "ratios": ratios,
        "claims kept": kept,
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Print a filter as one line a loop."""
    print(f"\n{name}: {found['architecture']}, {found['precision']}")
    for label, fps in found["fps"].items():
        print(f"  {label:24} {fps['median']:7.1f} fps ({fps['min']} to {fps['max']})")
    for label, kept in found["claims kept"].items():
        print(f"  {'kept' if kept else 'NOT KEPT'}: {label}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", nargs="+", default=filter_names(), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tries", type=int, default=20, help="of which the quietest count")
    parser.add_argument("--frames", type=int, default=96, help="of each loop in a round")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    filters: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = common.clip(Path(folder))
        pictures = [
            np.ascontiguousarray(frame)
            for frame in itertools.islice(loops.frames(clip), options.frames)
        ]
        for name in options.filter:
            same = [load_filter(done).card.architecture for done in filters]
            slow = load_filter(name).card.architecture not in same
            filters[name] = measured(name, clip, pictures, options, slow)
            show(name, filters[name])
    common.save(
        "people_do_today",
        {
            "size": list(common.SIZE),
            "rounds": options.rounds,
            "frames of a round": len(pictures),
            "filters": filters,
        },
    )


if __name__ == "__main__":
    main()
