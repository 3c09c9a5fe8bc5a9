"""What the benchmarks share: the clip, interleaved rounds, and the result file."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from engines import Size, open_engine
from engines.backends.openvino import import_openvino
from engines.backends.openvino_precision import fastest_float
from realtime import Frame, Pipeline, SinkInfo
from realtime.sinks.video import VideoSink
from tools import environment
from tools.demo import CLIP_CREDIT, find_clip

SIZE = (640, 360)
CLIP_FPS = 25.0
REPEATS = 3
FILTER = "comic"
RESULTS = Path(__file__).parent / "results"


def clip(folder: Path) -> Path:
    """Return the demo clip at 640x360, three times over, made as H.264 in ``folder``."""
    original = find_clip()
    if original is None:
        sys.exit("the benchmarks need the demo clip: pip install 'pix2live[demo]'")
    path = folder / "clip.mp4"
    once = frames_of(original, SIZE)
    sink = VideoSink(path)
    sink.open(SinkInfo(SIZE, CLIP_FPS))
    for index, pixels in enumerate(once * REPEATS):
        sink.write(Frame(pixels, index=index, pts_ns=round(index * 1e9 / CLIP_FPS)))
    sink.close()
    return path


def frames_of(path: Path, size: Size | None = None) -> list[Any]:
    """Return every frame of a clip as uint8 (H, W, 3) BGR."""
    frames: list[Any] = []

    def keep(frame: Frame) -> None:
        frames.append(frame.pixels.copy())

    engine = open_engine(None, backend="identity")
    Pipeline(path, engine, [keep], size=size, mode="every").run()
    return frames


def float_precision() -> str:
    """Return the fastest floating point of this processor: ``bf16``, ``f16`` or ``f32``."""
    return fastest_float(import_openvino().Core(), "CPU")


def interleaved(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every way once a round, so that a noisy minute hits all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def ratio(found: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(found[ours], found[theirs]))


def fps(count: int, action: Callable[[], object]) -> float:
    """Return ``count`` a second for one call of ``action``."""
    started = time.perf_counter()
    action()
    return count / (time.perf_counter() - started)


def save(name: str, result: dict[str, Any]) -> None:
    """Print the result, and write it with what it was taken on."""
    data = {
        "benchmark": name,
        "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment.describe(),
        "clip": CLIP_CREDIT,
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def summary(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }
