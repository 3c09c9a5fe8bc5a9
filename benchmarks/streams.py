"""Several people at once, whose engines share a compiled filter: `python -m benchmarks.streams`.

Claims, at 640x360: two streams together reach 0.95 of the fps of one alone; one more engine takes a
tenth of the time and memory that one with a compiled filter of its own takes.

Each stream is a thread with an engine: first as fast as it can, one frame under way; then with a
frame every 1/30 s, where the age counts from the moment at which the frame was due.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks import common
from engines import Engine, Pixels, Size, load_filter, open_engine
from engines.backends.openvino import OpenVinoEngine
from realtime.sources import parse_size
from tools.conversion.frames import dead_leaves
from tools.run import SWITCH_INTERVAL_S

ENOUGH: Final = 0.95
LITTLE: Final = 0.1
QUIET_CORES: Final = 0.1
"""A round in which others use less is quiet; noisy ones are taken again, whatever they showed."""
LIVE_FPS: Final = 30.0
MOST: Final = 4
PERCENTILES: Final = (50, 95, 99)
ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Together:
    """What streams did that ran at the same time."""

    fps: list[float]
    """Of each stream."""
    ages_ms: list[float]
    """Of every frame of every stream."""
    dropped: int
    """Frames that were not taken: a fresher one was there."""


def shared(size: Size) -> Engine:
    """Return an open engine as everybody gets it."""
    return open_engine(common.FILTER, size, backend=OpenVinoEngine.name)


def apart(size: Size) -> Engine:
    """Return an open engine with a compiled filter of its own: a class of its own has one."""
    engine: Engine = type("Apart", (OpenVinoEngine,), {})(load_filter(common.FILTER))
    engine.open(size)
    return engine


def run(engines: list[Engine], seconds: float, live_fps: float | None = None) -> Together:
    """Run every open engine in a thread; with ``live_fps`` each gets so many frames a second."""
    found: list[tuple[float, list[float], int]] = []
    errors: list[BaseException] = []
    together = threading.Barrier(len(engines))

    def stream(place: int) -> None:
        engine = engines[place]
        frame_in, frame_out = engine.slots(2)
        frame_in[...] = picture((frame_in.shape[1], frame_in.shape[0]))
        engine.infer(frame_in, frame_out)
        together.wait()
        started = time.perf_counter()
        # Cameras are not in step: neither the best case nor the worst.
        due = started + (place / len(engines) / live_fps if live_fps else 0.0)
        ages_ms: list[float] = []
        dropped = 0
        while (now := time.perf_counter()) < started + seconds or not ages_ms:
            if live_fps and now < due:
                time.sleep(due - now)
            since = due if live_fps else now
            engine.infer(frame_in, frame_out)
            done = time.perf_counter()
            ages_ms.append((done - since) * 1e3)
            if live_fps:
                passed = max(1, int((done - due) * live_fps))  # the freshest frame wins
                dropped += passed - 1
                due += passed / live_fps
        found.append((len(ages_ms) / (time.perf_counter() - started), ages_ms, dropped))

    def guarded(place: int) -> None:
        try:
            stream(place)
        except BaseException as error:  # noqa: BLE001  (raised below)
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=guarded, args=(place,)) for place in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Together(
        [fps for fps, _, _ in found],
        [age for _, ages_ms, _ in found for age in ages_ms],
        sum(dropped for _, _, dropped in found),
    )


@functools.cache
def picture(size: Size) -> Pixels:
    """Return a picture of ``size``; the time that a filter takes does not depend on it."""
    return dead_leaves(size, 0)


def opening(size: Size, way: str) -> list[dict[str, float]]:
    """Open four engines; returns how long each took, and the memory of the process after it."""
    engines, found = [], []
    for _ in range(MOST):
        started = time.perf_counter()
        engines.append({"shared": shared, "apart": apart}[way](size))
        took_ms = (time.perf_counter() - started) * 1e3
        memory = psutil.Process().memory_info()
        # Without files: the kernel drops pages of libraries when it likes.
        memory_mb = (memory.rss - getattr(memory, "shared", 0)) / 1e6
        found.append({"opened_ms": round(took_ms, 1), "memory_mb": round(memory_mb, 1)})
    for engine in engines:
        engine.close()
    return found


def opening_alone(size: Size, way: str) -> list[dict[str, float]]:
    """Return `opening` of a process of its own."""
    words = ["-m", "benchmarks.streams", "--opening", way, "--size", f"{size[0]}x{size[1]}"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    rows: list[dict[str, float]] = json.loads(done.stdout)
    return rows


def one_more(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return what each engine after the first took."""
    return {
        "opened_ms": round(statistics.median(row["opened_ms"] for row in rows[1:]), 1),
        "memory_mb": round((rows[-1]["memory_mb"] - rows[0]["memory_mb"]) / (len(rows) - 1), 1),
    }


def same_pictures(engines: list[Engine], size: Size, count: int = 8) -> bool:
    """Return whether engines that run at the same time make what each makes alone, bit by bit."""
    clips = [[dead_leaves(size, 10 * place + n) for n in range(count)] for place in range(MOST)]
    alone = [[engines[0].infer(frame) for frame in clip] for clip in clips]
    found: dict[int, list[Any]] = {}

    def stream(place: int) -> None:
        found[place] = [engines[place].infer(frame) for frame in clips[place]]

    threads = [threading.Thread(target=stream, args=(n,)) for n in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(
        place in found and all(map(np.array_equal, alone[place], found[place]))
        for place in range(len(engines))
    )


def busy_s() -> tuple[float, float]:
    """Return the time, and the processor seconds of all other processes so far."""
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = times.user + times.nice + times.system + getattr(times, "steal", 0.0)
    return time.perf_counter(), busy - own.user - own.system


def quietest(
    a_round: Callable[[], dict[str, Together]], rounds: int, tries: int
) -> list[tuple[float, dict[str, Together]]]:
    """Repeat ``a_round`` until so many were quiet, ``tries`` times at most.

    Returns the quietest, each with how many cores others used during it.
    """
    found: list[tuple[float, dict[str, Together]]] = []
    while len(found) < tries and sum(others < QUIET_CORES for others, _ in found) < rounds:
        before = busy_s()
        done = a_round()
        seconds, others_s = (now - then for now, then in zip(busy_s(), before))
        found.append((max(0.0, others_s / seconds), done))
    return sorted(found, key=lambda item: item[0])[:rounds]


def measured(size: Size, rounds: int, seconds: float, tries: int) -> dict[str, Any]:
    """Return everything about streams of ``size``."""
    together = [shared(size) for _ in range(MOST)]
    each = [apart(size) for _ in range(2)]
    groups = {
        "one stream": together[:1],
        "two streams": together[:2],
        "two streams, compiled apart": each,
        "four streams": together,
    }

    def a_round() -> dict[str, Together]:
        return {
            name + live: run(engines, seconds, fps)
            for live, fps in (("", None), (", live", LIVE_FPS))
            for name, engines in groups.items()
        }

    kept = quietest(a_round, rounds, tries)
    fps = {name: [sum(done[name].fps) for _, done in kept] for name in groups}
    result = {
        "filter": common.FILTER,
        "size": list(size),
        "precision": together[0].precision,
        "rounds": len(kept),
        "most cores that others used in a round": round(kept[-1][0], 2),
        "sum of fps": {name: common.summary(values) for name, values in fps.items()},
        "two streams / one stream": round(common.ratio(fps, "two streams", "one stream"), 3),
        "four streams / one stream": round(common.ratio(fps, "four streams", "one stream"), 3),
        "two streams / compiled apart": round(
            common.ratio(fps, "two streams", "two streams, compiled apart"), 3
        ),
        "slowest / fastest of two": round(
            statistics.median(
                min(done["two streams"].fps) / max(done["two streams"].fps) for _, done in kept
            ),
            3,
        ),
        "ages_ms": {name: ages([done[name] for _, done in kept]) for name in kept[0][1]},
        "same pictures": same_pictures(together, size),
    }
    for engine in (*together, *each):
        engine.close()
    return result


def ages(runs: list[Together]) -> dict[str, float]:
    """Return percentiles of all frames, and how many were dropped."""
    values = [age for item in runs for age in item.ages_ms]
    found = np.percentile(values, PERCENTILES).tolist()
    return {
        **{f"p{share}": round(value, 1) for share, value in zip(PERCENTILES, found)},
        "frames": len(values),
        "dropped": sum(item.dropped for item in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tries", type=int, default=35, help="of which the quietest count")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one group in one round")
    parser.add_argument("--size", type=parse_size, default=common.SIZE)
    parser.add_argument("--opening", choices=("shared", "apart"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opening:
        print(json.dumps(opening(options.size, options.opening)))
        return
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    opened = {way: opening_alone(options.size, way) for way in ("shared", "apart")}
    more = {way: one_more(rows) for way, rows in opened.items()}
    result = measured(options.size, options.rounds, options.seconds, options.tries)
    result |= {"opening": opened, "one more engine": more}
    result["claims kept"] = {
        "two streams": result["two streams / one stream"] >= ENOUGH,
        **{
            name: more["shared"][name] <= more["apart"][name] * LITTLE
            for name in ("opened_ms", "memory_mb")
        },
    }
    common.save("streams", result)


if __name__ == "__main__":
    main()
