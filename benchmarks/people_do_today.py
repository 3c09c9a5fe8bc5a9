"""The loops that people write today, beside ours: `python -m benchmarks.people_do_today`.

Every shipped filter at 640x360, the same weights and the same clip, nothing shown: OpenCV with
PyTorch (as it is, and with torch.compile), with ONNX Runtime, with OpenCV's own networks; and bare
OpenVINO on frames in memory, in the fastest of the configurations that its own benchmark tool
offers. Ours is the whole path from the file to the null sink, as `auto` runs it and in INT8
(`pix2live convert --to onnx-int8`, on other frames than those of the proof), and the bare engine.

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
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common, loops
from benchmarks.streams import quietest
from engines import (
    Card,
    Engine,
    Pixels,
    filter_names,
    load_filter,
    open_engine,
    write_frame_model,
)
from engines.backends.openvino import OpenVinoEngine
from engines.graphs import int8
from engines.proof import compare
from realtime import Pipeline
from tools.run import SWITCH_INTERVAL_S

OURS: Final = "pix2live, whole path"
INT8: Final = "pix2live, whole path, INT8"
ENGINE: Final = "pix2live, engine"
BARE: Final = "bare OpenVINO, best"
PYTORCH: Final = "OpenCV + PyTorch"
COMPILED: Final = "OpenCV + torch.compile"
ONNX: Final = "OpenCV + ONNX Runtime"
DNN: Final = "OpenCV DNN"
CLAIMS: Final = (
    (OURS, PYTORCH, 3.0),
    (INT8, PYTORCH, 3.0),
    (OURS, ONNX, 2.0),
    (ENGINE, BARE, 0.97),
)
PROOF_FRAMES: Final = 8
PSNR_DB: Final = 35.0


def ways(
    name: str, clip: Path, pictures: list[Pixels], folder: Path, slow: bool
) -> tuple[dict[str, Callable[[], float]], dict[str, Any]]:
    """Return what measures each loop, in frames a second, and what there is to say of them."""
    count = len(pictures)
    engine = open_engine(name, common.SIZE, backend=OpenVinoEngine.name)
    frame_in, frame_out = engine.slots(2)

    def bare_engine() -> float:
        started = time.perf_counter()
        for picture in pictures:
            np.copyto(frame_in, picture)
            engine.infer(frame_in, frame_out)
        return count / (time.perf_counter() - started)

    bare = loops.BareOpenVino(name, engine.precision)
    pytorch = loops.pytorch(name)
    found: dict[str, Callable[[], float]] = {
        OURS: lambda: Pipeline(clip, name, ["null"], mode="every", frames=count).run().fps(),
        ENGINE: bare_engine,
        BARE: bare.best(pictures),
        PYTORCH: lambda: loops.fps_of(pytorch, clip, count),
    }
    shown = pictures[:PROOF_FRAMES]
    right = [*itertools.islice(pytorch(clip), len(shown))]
    facts: dict[str, Any] = {
        "architecture": load_filter(name).card.architecture,
        "precision": engine.precision,
        "bare OpenVINO's best": bare.configuration,
    }
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
    facts["psnr_db from PyTorch"] = psnr_db(engine, shown, right)
    if (missing := int8.why_not()) is None:
        twin = in_int8(name, pictures[PROOF_FRAMES:], folder)
        found[INT8] = lambda: Pipeline(clip, twin, ["null"], mode="every", frames=count).run().fps()
        with open_engine(twin, common.SIZE, backend=OpenVinoEngine.name) as fast:
            facts["psnr_db from PyTorch, INT8"] = psnr_db(fast, shown, right)
    else:
        facts[INT8] = missing
    return found, facts


def in_int8(name: str, frames: list[Pixels], folder: Path) -> Path:
    """Write a shipped filter in INT8, measured on ``frames``; returns its path."""
    path = folder / f"{name}.int8.onnx"
    master = load_filter(name)
    card = Card(name=path.stem, stride=master.card.stride)
    write_frame_model(int8.to_int8(master.graph(), frames), card, path)
    return path


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
    ratios = {
        f"{ours} / {theirs}": round(common.ratio(fps, ours, theirs), 2)
        for ours, theirs in [
            *((OURS, other) for other in fps if other not in (OURS, ENGINE, INT8)),
            (ENGINE, BARE),
            *((INT8, other) for other in (OURS, PYTORCH) if INT8 in fps),
        ]
    }
    kept = {
        f"{ours} / {theirs} >= {least}": common.ratio(fps, ours, theirs) >= least
        for ours, theirs, least in CLAIMS
        if ours in fps
    }
    for what in ("psnr_db from PyTorch", "psnr_db from PyTorch, INT8"):
        if what in facts:
            kept[f"{what} >= {PSNR_DB:.0f}"] = facts[what] >= PSNR_DB
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
