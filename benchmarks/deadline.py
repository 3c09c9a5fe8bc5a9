"""The deadline keeper against a load that comes and goes: `python -m benchmarks.deadline`.

A live run at 30 fps, of which the machine can just do the full size; then as many busy processes as
there are cores take half of it, and leave again. Claims: at least 27 fps again within 3 s, the full
size again afterwards, never more than two steps of the working size in a second. The same script
without the keeper is the comparison.

Writes results/deadline.json and docs/images/deadline.png; `--redraw` draws the picture from what
is in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.deadline_plot import write_plot
from engines import Size
from realtime import Frame, Pipeline
from realtime.sources import parse_size
from tools.run import SWITCH_INTERVAL_S, keep_what_is_loaded

FPS = 30.0
ENOUGH_FPS = 27.0
WITHIN_S = 3.0
SIZE = (720, 400)
"""Where the shipped filters need both of two desktop cores for 30 fps."""
WINDOW_S = 1.0
PLOT = Path(__file__).parent.parent / "docs" / "images" / "deadline.png"


def scripted(
    size: Size, filter_name: str, before_s: float, load_s: float, after_s: float, *, keep: bool
) -> dict[str, Any]:
    """Run for ``before_s``, with a load for ``load_s``, and for ``after_s`` without it."""
    shown_ns: list[int] = []
    ages_ms: list[float] = []

    def show(frame: Frame) -> None:
        now_ns = time.monotonic_ns()
        shown_ns.append(now_ns)
        ages_ms.append(frame.age_ns(now_ns) / 1e6)

    pipeline = Pipeline(
        f"test-pattern:{size[0]}x{size[1]}@{FPS:g}",
        filter_name,
        [show],
        keep_fps=FPS if keep else None,
        stand_in=False,
        seconds=before_s + load_s + after_s,
    )
    pipeline.start()
    sizes = getattr(pipeline.engine, "sizes", (size,))
    keep_what_is_loaded()
    load = threading.Thread(target=_load, args=(before_s, load_s), daemon=True)
    load.start()
    stats = pipeline.wait()
    load.join()
    times_s = [(item - stats.started_ns) / 1e9 for item in shown_ns]
    return {
        "shown_s": [round(item, 3) for item in times_s],
        "ages_ms": [round(item, 1) for item in ages_ms],
        "steps": [step.to_dict() for step in stats.size_steps],
        "sizes": [list(item) for item in sizes],
    }


def _load(wait_s: float, load_s: float) -> None:
    """Keep every core busy for a while, with processes as important as this one."""
    time.sleep(wait_s)
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(load_s)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fps_at(shown_s: list[float], time_s: float) -> float:
    """Return the frames shown in the second up to ``time_s``."""
    return (bisect_left(shown_s, time_s) - bisect_left(shown_s, time_s - WINDOW_S)) / WINDOW_S


def again(slow: list[float], appears_s: float) -> float:
    """Return when the first time with too few fps has ended, in s after the load appeared."""
    ended = next((a for a, b in pairwise(slow) if b - a > 0.15), slow[-1] if slow else appears_s)
    return round(ended - appears_s, 1)


def judged(found: dict[str, Any], appears_s: float, goes_s: float, ends_s: float) -> dict[str, Any]:
    """Return the claims' figures of one run."""
    shown, steps = found["shown_s"], found["steps"]
    ages = list(zip(shown, found["ages_ms"], strict=True))

    def age_p95(start: float, end: float) -> float | None:
        within = sorted(age for time_s, age in ages if start <= time_s < end)
        return within[len(within) * 95 // 100] if within else None

    def mean_fps(start: float, end: float) -> float:
        return round((bisect_left(shown, end) - bisect_left(shown, start)) / (end - start), 2)

    looks = [appears_s + 0.1 * number for number in range(round((goes_s - appears_s) * 10))]
    slow = [time_s for time_s in looks if fps_at(shown, time_s) < ENOUGH_FPS]
    times = [step["at_s"] for step in steps]
    largest = found["sizes"][0]
    back = [step["at_s"] - goes_s for step in steps if step["at_s"] > goes_s]
    calm = WITHIN_S + WINDOW_S
    return {
        "fps before the load": mean_fps(WINDOW_S, appears_s),
        "fps in the load's first 3 s": mean_fps(appears_s, appears_s + WITHIN_S),
        "fps in the load, after 3 s": mean_fps(appears_s + WITHIN_S, goes_s),
        "fps after the load": mean_fps(goes_s + WINDOW_S, ends_s),
        # The fps of a moment are those of the second before it.
        "seconds until 27 fps again": again(slow, appears_s),
        "seconds until 27 fps, for good": round(slow[-1] - appears_s, 1) if slow else 0.0,
        "share of seconds below 27 fps after 3 s": round(
            sum(item >= appears_s + calm for item in slow) / max(1, len(looks) - calm * 10), 3
        ),
        "age p95 before, in and after the load, ms": [
            age_p95(WINDOW_S, appears_s),
            age_p95(appears_s + WITHIN_S, goes_s),
            age_p95(goes_s + WINDOW_S, ends_s),
        ],
        "steps": len(steps),
        "most steps in a second": max(
            (bisect_left(times, item + 1.0) - place for place, item in enumerate(times)), default=0
        ),
        "size at the end": steps[-1]["after"] if steps else largest,
        "full size again after s": round(back[-1], 1)
        if back and steps[-1]["after"] == largest
        else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=SIZE)
    parser.add_argument("--filter", default=common.FILTER)
    parser.add_argument("--before", type=float, default=8)
    parser.add_argument("--load", type=float, default=16)
    parser.add_argument("--after", type=float, default=20)
    parser.add_argument("--redraw", action="store_true", help="only draw the picture again")
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    if options.redraw:
        write_plot(json.loads((common.RESULTS / "deadline.json").read_text()), options.plot)
        return
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    times = (options.before, options.load, options.after)
    appears, goes, ends = times[0], times[0] + times[1], sum(times)
    runs = {
        name: scripted(options.size, options.filter, *times, keep=keep)
        for name, keep in (("with the keeper", True), ("without", False))
    }
    result: dict[str, Any] = {
        "filter": options.filter,
        "size": list(options.size),
        "kept_fps": FPS,
        "load": {"processes": os.cpu_count(), "appears_s": appears, "goes_s": goes},
        "ends_s": ends,
    }
    for name, found in runs.items():
        result[name] = judged(found, appears, goes, ends)
    result["runs"] = {
        name: {
            "steps": found["steps"],
            "sizes": found["sizes"],
            "fps of every 0.25 s": [
                fps_at(found["shown_s"], number / 4) for number in range(4, int(ends * 4) + 1)
            ],
        }
        for name, found in runs.items()
    }
    common.save("deadline", result)
    write_plot(result, options.plot)


if __name__ == "__main__":
    main()
