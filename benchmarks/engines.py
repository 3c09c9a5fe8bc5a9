"""Bare engines, without source, queue and sink: `python -m benchmarks.engines [--quick]`.

From a uint8 frame in host memory to a uint8 frame in host memory, copies included; the memory is
the backend's own (`Engine.slots`), as in the live path. One table a network and size: one frame at
a time, then as many as the backend takes (up to 4), and how far the pictures are from those of
PyTorch in f32 on the CPU. All engines of a table take turns; what is not here is a row as well.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from benchmarks.conversion import exported, random_resnet, random_style, save
from engines import (
    Engine,
    EngineError,
    FrameModel,
    Pix2liveError,
    Pixels,
    Size,
    backend_names,
    load_filter,
    open_engine,
)
from engines.backends.tensorrt import TensorRtEngine
from engines.cache import EngineCache
from engines.proof import HIGHEST_PSNR_DB, Proof, compare
from engines.registry import why_not
from realtime.sources import parse_size
from tools.bench.plan import ON_THE_CPU, precisions
from tools.conversion.frames import dead_leaves
from tools.run import SWITCH_INTERVAL_S

BACKENDS: Final = "openvino,onnxruntime,torch,torch:cuda,tensorrt,tensorrt-rtx"
Frames = Sequence[Pixels]
REFERENCES: Final = ("torch:cpu", "openvino", "onnxruntime:cpu")
"""In f32; the first that can run the network is right by definition."""
DEEPEST: Final = 4
FRAMES: Final = 4
FEWEST: Final = 2
"""Frames of a round for each one under way, however slow the engine is."""
QUICK_SIZE: Final = (64, 64)
QUICK_SECONDS: Final = 0.2
PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True)
class Network:
    """What is measured, at these sizes (width, height)."""

    name: str
    model: FrameModel
    sizes: tuple[Size, ...]


@dataclass
class Way:
    """An open engine with its frames, and what it did in each round."""

    engine: Engine
    inputs: list[Pixels]
    outputs: list[Pixels]
    fps: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    """From submit to the end of collect, of every frame of every round."""

    def run(self, seconds: float) -> None:
        """Keep ``depth`` frames under way; the clock runs from one collect to another."""
        depth, turns = self.engine.depth, itertools.cycle(range(len(self.inputs)))
        submitted: deque[float] = deque()
        latencies_ms: list[float] = []

        def submit() -> None:
            turn = next(turns)
            submitted.append(time.perf_counter())
            self.engine.submit(self.inputs[turn], self.outputs[turn])

        def collect() -> None:
            self.engine.collect()
            latencies_ms.append((time.perf_counter() - submitted.popleft()) * 1000)

        for _ in range(depth - 1):
            submit()
        for _ in range(depth):  # the engine before left its own data in the caches
            submit()
            collect()
        latencies_ms.clear()
        started = time.perf_counter()
        while len(latencies_ms) < FEWEST * depth or time.perf_counter() - started < seconds:
            submit()
            collect()
        self.fps.append(len(latencies_ms) / (time.perf_counter() - started))
        self.latencies_ms += latencies_ms
        self.engine.reset()  # finishes what is under way

    def pictures(self) -> list[Pixels]:
        """Return what the engine makes of its frames, with ``depth`` of them under way."""
        self.engine.reset()
        for frame_in, frame_out in zip(self.inputs, self.outputs):
            if self.engine.pending == self.engine.depth:
                self.engine.collect()
            frame_out.fill(0)  # an engine that writes nothing must show
            self.engine.submit(frame_in, frame_out)
        while self.engine.pending:
            self.engine.collect()
        return [picture.copy() for picture in self.outputs]

    def to_json(self) -> dict[str, Any]:
        percentiles = np.percentile(self.latencies_ms, PERCENTILES).tolist()
        return {
            "depth": self.engine.depth,
            "fps": common.summary(self.fps),
            "fps of each round": [round(value, 3) for value in self.fps],
            **{f"p{n}_ms": round(value, 3) for n, value in zip(PERCENTILES, percentiles)},
            "frames": len(self.latencies_ms),
        }


@dataclass
class Candidate:
    """A backend in a precision."""

    backend: str
    precision: str
    ways: list[Way] = field(default_factory=list)
    """One frame at a time; then several, where the backend takes several."""
    proofs: list[Proof] = field(default_factory=list)
    why_not: str = ""

    @property
    def label(self) -> str:
        return f"{self.backend} {self.precision}"

    @contextmanager
    def or_why_not(self, what: str) -> Iterator[None]:
        """One engine that fails is a row with the reason, not the end of the benchmark."""
        try:
            yield
        except EngineError as error:
            self.ways, self.why_not = [], f"{what}: {error}"

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"backend": self.backend, "precision": self.precision}
        if not self.ways:
            return {**found, "why not": self.why_not}
        serial, *deeper = self.ways
        found |= {"device": serial.engine.device, "serial": serial.to_json()}
        for way in deeper:
            overlap = common.ratio({"deep": way.fps, "serial": serial.fps}, "deep", "serial")
            found |= {"pipelined": way.to_json(), "pipelined / serial": round(overlap, 3)}
        found["pictures"] = {
            "psnr_db": round(min(proof.psnr_db for proof in self.proofs), 2),
            "max_difference": max(proof.max_difference for proof in self.proofs),
            "broken_share": max(proof.broken_share for proof in self.proofs),
        }
        return {**found, "notes": serial.engine.notes}


@dataclass(frozen=True)
class Bench:
    """How everything is measured."""

    backends: tuple[str, ...]
    rounds: int
    seconds: float
    folder: Path

    def open(self, model: FrameModel, frames: Frames, words: tuple[str, str], depth: int) -> Way:
        """Open the backend and precision of ``words``, with the frames in memory of its own.

        Raises:
            EngineError: it is not here, or cannot run this network.
        """
        engine = open_engine(model, backend=words[0], precision=words[1])
        if isinstance(engine, TensorRtEngine):  # random networks are not for a person's cache
            engine.cache = EngineCache(self.folder / "engines")
        height, width = frames[0].shape[:2]
        engine.open((width, height), depth=depth)
        try:
            inputs, outputs = engine.slots(len(frames)), engine.slots(len(frames))
        except EngineError:  # the device has no page-locked memory left
            engine.close()
            raise
        for slot, frame in zip(inputs, frames):
            np.copyto(slot, frame)
        return Way(engine, inputs, outputs)

    def right_pictures(self, model: FrameModel, frames: Frames) -> tuple[str, list[Pixels]]:
        """Return who is right by definition, and the pictures.

        Raises:
            EngineError: nothing here can run this network in f32.
        """
        refused = []
        for backend in REFERENCES:
            try:
                way = self.open(model, frames, (backend, "f32"), 1)
            except EngineError as error:
                refused.append(f"not {backend}: {error}")
                continue
            with way.engine:
                return f"{backend} f32", way.pictures()
        raise EngineError(f"nothing to compare {model.name} with: {'; '.join(refused)}")

    def measure(self, network: Network, size: Size) -> dict[str, Any]:
        """Return the rows of one network at one size, and the ratios between them."""
        frames = [dead_leaves(size, seed) for seed in range(FRAMES)]
        reference, right = self.right_pictures(network.model, frames)
        candidates = [Candidate(x, precision) for x in self.backends for precision in precisions(x)]
        with ExitStack() as engines:
            for candidate in candidates:
                self._open_ways(candidate, network.model, frames, engines)
                with candidate.or_why_not("failed"):
                    for way in candidate.ways:
                        candidate.proofs.append(proof(frames, right, way.pictures()))
            for _ in range(self.rounds):
                for candidate in candidates:
                    with candidate.or_why_not("failed"):
                        for way in candidate.ways:
                            way.run(self.seconds)
            return {
                "network": network.name,
                "architecture": network.model.card.architecture,
                "size": list(size),
                "right by definition": reference,
                "rows": [candidate.to_json() for candidate in candidates],
                "ratios": ratios(candidates),
            }

    def _open_ways(
        self, candidate: Candidate, model: FrameModel, frames: Frames, engines: ExitStack
    ) -> None:
        words = candidate.backend, candidate.precision
        with candidate.or_why_not("not here"):
            candidate.ways.append(self.open(model, frames, words, 1))
            engines.enter_context(candidate.ways[0].engine)
            try:
                way = self.open(model, frames, words, DEEPEST)
            except EngineError as error:  # the device has no memory for several
                candidate.ways[0].engine.notes.append(f"one frame at a time only: {error}")
                return
            engines.enter_context(way.engine)
            if way.engine.depth > 1:
                candidate.ways.append(way)
            else:
                way.engine.close()


def proof(frames: Frames, right: Frames, found: Frames) -> Proof:
    """Compare the pictures of two ways to translate ``frames``."""
    places = {id(frame): place for place, frame in enumerate(frames)}
    return compare(lambda x: right[places[id(x)]], lambda x: found[places[id(x)]], frames)


def ratios(candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """Return the medians of the ratios of each round, for every two candidates that ran.

    ``serial``: one frame at a time; ``best``: each with as many under way as it takes.
    """
    found = {}
    for kind, place in (("serial", 0), ("best", -1)):
        fps = {item.label: item.ways[place].fps for item in candidates if item.ways}
        found[kind] = {
            f"{one} / {other}": round(common.ratio(fps, one, other), 3)
            for one, other in itertools.permutations(fps, 2)
        }
    return found


def default_networks(folder: Path) -> list[Network]:
    """Return the shipped filter, and two public architectures where PyTorch can make them."""
    networks = [Network(common.FILTER, load_filter(common.FILTER), (common.SIZE,))]
    reason = why_not("torch")
    if reason is not None:
        print(f"left out, resnet and style: {reason}")
        return networks
    resnet = exported(random_resnet(), "resnet", folder)
    networks.append(Network("resnet", resnet, ((256, 256), (512, 512))))
    style = exported(random_style(), "style", folder)
    networks.append(Network("style", style, ((640, 360), (1280, 720))))
    return networks


def given_networks(words: Sequence[str], sizes: Sequence[Size]) -> list[Network]:
    """Return the networks of ``NAME=FILE.onnx``, at the nearest sizes that they take."""
    networks = []
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            sys.exit(f"--model takes NAME=FILE.onnx, found {word!r}")
        model = load_filter(path)
        networks.append(Network(name, model, tuple(map(model.fit, sizes))))
    return networks


def show(cell: dict[str, Any]) -> None:
    """Print the rows of one network at one size, then what is not here, each reason once."""
    print(f"\n{cell['network']} ({cell['architecture']}), {'x'.join(map(str, cell['size']))}")
    print(f"{'':22}     fps   p50 ms   p95 ms   p99 ms  depth     fps  overlap  PSNR dB  max")
    reasons: dict[str, list[str]] = {}
    for row in cell["rows"]:
        label = f"{row['backend']} {row['precision']}"
        if "why not" in row:
            reasons.setdefault(row["why not"], []).append(label)
            continue
        one, same, deep = row["serial"], row["pictures"], row.get("pipelined")
        times = "".join(f"{one[f'p{n}_ms']:9.2f}" for n in PERCENTILES)
        several = f"{1:7}{'-':>8}{'-':>9}"
        if deep:
            fps, overlap = deep["fps"]["median"], row["pipelined / serial"]
            several = f"{deep['depth']:7}{fps:8.1f}{overlap:9.2f}"
        psnr = "same" if same["psnr_db"] >= HIGHEST_PSNR_DB else f"{same['psnr_db']:.1f}"
        broken = f"  {same['broken_share']:.0%} BROKEN" if same["broken_share"] else ""
        pictures = f"{psnr:>9}{same['max_difference']:5.0f}{broken}"
        print(f"{label:22}{one['fps']['median']:8.1f}{times}{several}{pictures}")
    for reason, whose in reasons.items():
        print(f"{', '.join(whose)}: {reason}")


def run(options: argparse.Namespace) -> None:
    """Measure everything; the file grows with each table, should a later one fail."""
    names = tuple(ON_THE_CPU.get(name, name) for name in options.backends.split(","))
    unknown = [name for name in names if name.partition(":")[0] not in backend_names()]
    if unknown:
        sys.exit(f"no backend {unknown[0]!r}; there are: {', '.join(backend_names())}")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    rounds, seconds = (1, QUICK_SECONDS) if options.quick else (options.rounds, options.seconds)
    settings = {"backends": names, "rounds": rounds, "seconds": seconds, "frames": FRAMES}
    path = options.json or (None if options.quick else common.RESULTS / "engines.json")
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(names, rounds, seconds, Path(folder))
        given = given_networks(options.model or [], options.size)
        networks = given or default_networks(bench.folder)
        for network in networks:
            quick = (network.model.fit(QUICK_SIZE),)
            for size in dict.fromkeys(quick if options.quick else network.sizes):
                cells.append(bench.measure(network, size))
                show(cells[-1])
                if path is not None:
                    save("engines", {"settings": settings, "networks": cells}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", action="extend", metavar="NAME=FILE.onnx")
    parser.add_argument("--size", nargs="+", type=parse_size, default=[common.SIZE], metavar="WxH")
    parser.add_argument("--backends", default=BACKENDS)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one engine in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="does it run? 64x64, one round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    try:
        run(parser.parse_args())
    except Pix2liveError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
