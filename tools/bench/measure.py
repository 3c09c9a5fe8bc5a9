"""What is measured of one engine, in the process that owns it."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from engines import Engine, Pixels, Size
from realtime import Frame, Pipeline, SourceInfo
from realtime.pacing import NS_PER_S, Timeline
from realtime.sinks import NullSink
from realtime.sources.base import Source
from tools.bench.results import QUANTILES, Bare, Live

STEP_S: Final = 0.5
"""About how long a step of frames a second over time is."""
FEWEST: Final = 3
"""Frames of a round for each one under way, however slow the engine is."""
WARM_SHARE: Final = 0.15
"""Of a live round, at its start: frames queue up until the path has found its pace."""
FEWEST_SHOWN: Final = 2
KILO: Final = 1024


class FramesSource(Source):
    """The same frames over and over, each at the moment that a camera would give it."""

    name = "paced frames"
    live = True

    def __init__(self, frames: Sequence[Pixels], fps: float) -> None:
        super().__init__()
        self._frames, self._fps = frames, fps
        self._timeline = Timeline()
        self._number = 0

    def open(self, size: Size | None, *, realtime: bool) -> SourceInfo:
        self._begin()
        self._timeline, self._number = Timeline(), 0
        height, width = self._frames[0].shape[:2]
        return SourceInfo((width, height), self._fps, None, f"{self._fps:g} fps")

    def read(self, frame: Frame) -> bool:
        pts_ns = round(self._number * NS_PER_S / self._fps)
        due_ns = self._timeline.due_ns(pts_ns, time.monotonic_ns())
        np.copyto(frame.pixels, self._frames[self._number % len(self._frames)])
        if not self._sleep_until(due_ns):
            return False
        frame.captured_ns, frame.pts_ns = due_ns, pts_ns
        self._number += 1
        return True

    def close(self) -> None:
        """Nothing to free."""


class ListeningSink(NullSink):
    """Remembers when which frame came and how old it was."""

    name = "bench"

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, int, int]] = []
        """(number, when, age) in the order in which they came; times in ns."""

    def write(self, frame: Frame) -> None:
        now_ns = time.monotonic_ns()
        self.shown.append((frame.index, now_ns, frame.age_ns(now_ns)))


def bare(
    engine: Engine,
    inputs: Sequence[Pixels],
    outputs: Sequence[Pixels],
    seconds: float,
    *,
    fewest: int = FEWEST,
) -> Bare:
    """Keep ``engine.depth`` frames under way for ``seconds``, and ``fewest`` frames for each.

    ``inputs`` and ``outputs`` are slots of the engine, more than its depth. The clock runs from one
    collect to another; the frames before it warm up what another process has cooled down.
    """
    turns = itertools.cycle(range(len(inputs)))
    submitted: deque[float] = deque()
    latencies_ms: list[float] = []
    times: list[float] = []

    def submit() -> None:
        turn = next(turns)
        submitted.append(time.perf_counter())
        engine.submit(inputs[turn], outputs[turn])

    def collect() -> float:
        engine.collect()
        now = time.perf_counter()
        latencies_ms.append((now - submitted.popleft()) * 1000)
        return now

    for _ in range(engine.depth - 1):
        submit()
    for _ in range(engine.depth + 1):
        submit()
        collect()
    latencies_ms.clear()
    cpu_s, started = time.process_time(), time.perf_counter()
    now = started
    while len(latencies_ms) < fewest * engine.depth or now - started < seconds:
        submit()
        now = collect()
        times.append(now)
    cpu_s = time.process_time() - cpu_s
    engine.reset()  # finishes what is under way
    wall_s = now - started
    p50_ms, p95_ms, p99_ms = np.percentile(latencies_ms, (50, 95, 99)).tolist()
    return Bare(
        frames=len(latencies_ms),
        seconds=round(wall_s, 4),
        fps=round(len(latencies_ms) / wall_s, 3),
        p50_ms=round(p50_ms, 4),
        p95_ms=round(p95_ms, 4),
        p99_ms=round(p99_ms, 4),
        cpu_s=round(cpu_s, 4),
        fps_steps=_steps(started, times, 2 * engine.depth),
    )


def _steps(started: float, times: Sequence[float], fewest: int) -> list[float]:
    """Return frames a second of groups of as many frames as come in `STEP_S`; the rest is cut.

    Of ``fewest`` or more: frames that were under way together may be finished together.
    """
    count = max(fewest, round(STEP_S * len(times) / (times[-1] - started)))
    marks = [started, *times[count - 1 :: count]]
    return [round(count / (after - before), 2) for before, after in itertools.pairwise(marks)]


def live(engine: Engine, frames: Sequence[Pixels], fps: float, seconds: float) -> Live:
    """Run the live path for ``seconds`` with the open ``engine``, which is closed at the end.

    Raises:
        Pix2liveError: a stage failed.
    """
    sink = ListeningSink()
    pipeline = Pipeline(FramesSource(frames, fps), engine, [sink], mode="freshest", seconds=seconds)
    pipeline.start()
    cpu_s, started = time.process_time(), time.perf_counter()
    pipeline.wait()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started
    return _live(sink.shown, cpu_s, wall_s)


def _live(shown: Sequence[tuple[int, int, int]], cpu_s: float, wall_s: float) -> Live:
    """Return the figures of the frames after the warm-up; all of them where there are few."""
    warm = round(len(shown) * WARM_SHARE)
    kept = shown[warm:] if len(shown) - warm >= FEWEST_SHOWN else shown
    if len(kept) < FEWEST_SHOWN:
        raise TooFewError(
            f"{len(shown)} frames came out in {wall_s:.1f} s of the live path: give more --seconds"
        )
    ages_ms = [age / 1e6 for _, _, age in kept]
    gaps_ms = [(b[1] - a[1]) / 1e6 for a, b in itertools.pairwise(kept)]
    span_s = (kept[-1][1] - kept[0][1]) / 1e9
    quantiles = np.percentile(ages_ms, np.linspace(0, 100, QUANTILES)).tolist()
    return Live(
        shown=len(kept),
        dropped=kept[-1][0] - kept[0][0] + 1 - len(kept),
        seconds=round(wall_s, 4),
        fps=round((len(kept) - 1) / span_s, 3),
        p50_ms=round(quantiles[50], 3),
        p95_ms=round(quantiles[95], 3),
        p99_ms=round(quantiles[99], 3),
        jitter_ms=round(statistics.pstdev(gaps_ms), 3),
        longest_gap_ms=round(max(gaps_ms), 3),
        cpu_s=round(cpu_s, 4),
        ages_ms=[round(value, 3) for value in quantiles],
    )


class TooFewError(RuntimeError):
    """A live round was too short to say anything."""


def translate(
    engine: Engine, inputs: Sequence[Pixels], outputs: Sequence[Pixels], count: int
) -> list[Pixels]:
    """Return copies of what the engine makes of the first ``count`` inputs, from a fresh state."""
    engine.reset()
    pictures = []
    for frame_in, frame_out in zip(inputs[:count], outputs[:count], strict=True):
        frame_out.fill(0)  # an engine that writes nothing must show
        pictures.append(engine.infer(frame_in, frame_out).copy())
    engine.reset()
    return pictures


def peak_memory_mb() -> float:
    """Return the most memory that this process ever had in use, in MB (10^6 bytes).

    Where Linux says it, from ``/proc``: the counter of ``getrusage`` starts with the memory of the
    process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KILO / 1e6
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else KILO
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
