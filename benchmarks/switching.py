"""What a switch of filters costs a live run: `python -m benchmarks.switching`.

Claims, at 30 fps, over 100 switches of shipped filters, with and without a cross-fade: no frame is
out of order or shown twice; the longest gap between two shown frames is under 70 ms; memory is flat
from the tenth switch on; a broken model file leaves the old filter running, with the
reason.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import common
from engines import Pix2liveError, filter_names
from realtime import Frame, Pipeline
from realtime.sources import parse_size
from tools.run import SWITCH_INTERVAL_S, keep_what_is_loaded

GAP_LIMIT_MS = 70.0
MEMORY_FROM = 10
"""The switch from which on memory must be flat: each filter was open by then."""
STILL_S = 5.0
START_S = 2.0
"""Not counted: the first frames of a run."""


@dataclass
class Watch:
    """A sink that checks the order of the frames, and measures the gaps between them."""

    last_index: int = -1
    last_ns: int | None = None
    out_of_order: int = 0
    gaps_ms: list[float] = field(default_factory=list)

    def __call__(self, frame: Frame) -> None:
        now_ns = time.monotonic_ns()
        self.out_of_order += frame.index <= self.last_index
        self.last_index = frame.index
        if self.last_ns is not None:
            self.gaps_ms.append((now_ns - self.last_ns) / 1e6)
        self.last_ns = now_ns


def switching(source: str, switches: int, pause_s: float, crossfade_ms: float) -> dict[str, Any]:
    """Run ``source`` through the shipped filters in turn; returns what was seen."""
    names = filter_names()
    watch = Watch()
    pipeline = Pipeline(source, names[0], [watch], crossfade_ms=crossfade_ms)
    stats = pipeline.stats
    found: dict[str, Any] = {}
    memory: list[float] = []
    gap_of_each: list[float] = []
    took_s: list[float] = []

    def script() -> None:
        time.sleep(START_S)
        watch.gaps_ms.clear()
        time.sleep(STILL_S)
        found["gaps without a switch"] = spread(watch.gaps_ms)
        watch.gaps_ms.clear()
        stats.sinks[0].longest_gap_ms = 0.0
        for name in itertools.islice(itertools.cycle([*names[1:], names[0]]), switches):
            before, started = len(watch.gaps_ms), time.monotonic()
            pipeline.switch(name, wait=True)
            took_s.append(time.monotonic() - started)
            time.sleep(pause_s + crossfade_ms / 1e3)
            gap_of_each.append(max(watch.gaps_ms[before:], default=0.0))
            memory.append(psutil.Process().memory_info().rss / 1e6)
        found["longest_gap_ms"] = round(stats.sinks[0].longest_gap_ms, 1)
        found["gaps"] = spread(watch.gaps_ms)
        found["a broken file"] = broken(pipeline, watch)

    live(pipeline, script)
    return {
        "switches": stats.switches,
        "crossfade_ms": crossfade_ms,
        "frames": stats.engine_out.count,
        "fps": round(stats.fps(), 2),
        "out of order or twice": watch.out_of_order,
        **found,
        "longest gap of each switch": common.summary(gap_of_each),
        "switches with a gap above the limit": sum(gap > GAP_LIMIT_MS for gap in gap_of_each),
        "opened in s": common.summary(took_s),
        "memory_mb": {
            f"after switch {number}": round(memory[number - 1], 1)
            for number in sorted({1, MEMORY_FROM, switches // 2, switches})
            if 0 < number <= switches
        },
    }


def live(pipeline: Pipeline, script: Callable[[], None]) -> None:
    """Run ``pipeline`` in this thread while ``script`` steers it from another, to its end."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            script()
        except BaseException as error:  # noqa: BLE001  (raised below)
            errors.append(error)
        finally:
            pipeline.stop()

    pipeline.start()
    keep_what_is_loaded()
    steering = threading.Thread(target=guarded, name="script", daemon=True)
    steering.start()
    pipeline.wait()
    steering.join()
    if errors:
        raise errors[0]


def broken(pipeline: Pipeline, watch: Watch) -> dict[str, Any]:
    """Switch to a file that is no model; returns whether the old filter runs on, and why."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.onnx"
        path.write_bytes(b"no model at all")
        try:
            pipeline.switch(path, wait=True)
        except Pix2liveError as error:
            shown = watch.last_index
            time.sleep(1)
            reason = str(error).replace(folder, "FOLDER")
            return {"the old filter runs on": watch.last_index > shown, "reason": reason}
    return {"the old filter runs on": False, "reason": "it was opened"}


def spread(gaps_ms: list[float]) -> dict[str, float]:
    """Return percentiles and the longest of gaps in ms."""
    ordered = sorted(gaps_ms)
    if not ordered:
        return {}
    found = {
        f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
        for share in (50, 95, 99)
    }
    return {name: round(value, 1) for name, value in (found | {"longest": ordered[-1]}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two switches")
    parser.add_argument("--crossfade", type=float, default=200.0, help="ms")
    parser.add_argument("--size", type=parse_size, default=common.SIZE)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    width, height = options.size
    source = f"test-pattern:{width}x{height}@30"
    common.save(
        "switching",
        {
            "size": [width, height],
            "filters": filter_names(),
            "switch": switching(source, options.switches, options.pause, 0.0),
            "cross-fade": switching(source, options.switches, options.pause, options.crossfade),
        },
    )


if __name__ == "__main__":
    main()
