"""What a frame costs by its pixels and by the width of the filter: `python -m benchmarks.scaling`.

Claims: fps times pixels is constant within 20 % from 256x256 to 1280x720 (1920x1080 is shown, too).
Bare engine, one frame at a time, as `auto` opens it on the processor. Several streams are the
subject of `benchmarks.streams`.

All ways take turns; of the rounds, those count in which other processes used least. The time of a
round is that of its fastest frames: a median, and a frame that somebody interrupted is not in it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.conversion import exported
from benchmarks.streams import QUIET_CORES, busy_s, picture
from engines import Engine, Size, open_engine
from engines.backends.openvino import OpenVinoEngine
from tools.run import SWITCH_INTERVAL_S

SIZES: Final[tuple[Size, ...]] = (
    (256, 256),
    (320, 180),
    (480, 272),
    (640, 360),
    (960, 540),
    (1280, 720),
    (1920, 1080),
)
CLAIMED: Final[tuple[Size, Size]] = (256, 256), (1280, 720)
CONSTANT: Final = 0.2
CHANNELS: Final = (16, 24, 32, 40, 48, 64, 96)
BLOCKS: Final = 3
FEWEST: Final = 3


def label(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def rounds_of(
    engines: dict[str, Engine], rounds: int, tries: int, seconds: float
) -> tuple[dict[str, list[float]], float]:
    """Return ms a frame of every engine in the quietest rounds, and how busy others were."""
    slots = {name: engine.slots(2) for name, engine in engines.items()}
    for name, (frame_in, frame_out) in slots.items():
        frame_in[...] = picture((frame_in.shape[1], frame_in.shape[0]))
        engines[name].infer(frame_in, frame_out)
    found: list[tuple[float, dict[str, float]]] = []
    while len(found) < tries and sum(others < QUIET_CORES for others, _ in found) < rounds:
        before = busy_s()
        times = {name: median_ms(engine, *slots[name], seconds) for name, engine in engines.items()}
        passed, others = (now - then for now, then in zip(busy_s(), before))
        found.append((max(0.0, others / passed), times))
    kept = sorted(found, key=lambda item: item[0])[:rounds]
    return {name: [times[name] for _, times in kept] for name in engines}, kept[-1][0]


def median_ms(engine: Engine, frame_in: Any, frame_out: Any, seconds: float) -> float:
    """Return the time of a frame; the first one finds another network in the caches."""
    engine.infer(frame_in, frame_out)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < FEWEST or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        engine.infer(frame_in, frame_out)
        times.append((time.perf_counter() - before) * 1e3)
    return statistics.median(times)


def by_pixels(options: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of a frame of every size."""
    engines = {
        label(size): open_engine(options.filter, size, backend=OpenVinoEngine.name)
        for size in SIZES
    }
    times, others = rounds_of(engines, options.rounds, options.tries, options.seconds)
    rows: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        megapixels = size[0] * size[1] / 1e6
        ms = times[label(size)]
        rows[label(size)] = {
            "ms": common.summary(ms),
            "fps": round(1e3 / statistics.median(ms), 1),
            "megapixels a second": round(megapixels * 1e3 / statistics.median(ms), 2),
        }
    low, high = (size[0] * size[1] for size in CLAIMED)
    inside = [label(size) for size in SIZES if low <= size[0] * size[1] <= high]
    rates = [rows[name]["megapixels a second"] for name in inside]
    spread = max(rates) / min(rates) - 1
    precision = next(iter(engines.values())).precision
    for engine in engines.values():
        engine.close()
    return {
        "filter": options.filter,
        "precision": precision,
        "most cores that others used in a round": round(others, 2),
        "sizes": rows,
        "spread from 256x256 to 1280x720": round(spread, 3),
        "claim kept": spread <= CONSTANT,
    }


def by_width(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the cost of filters of several widths, untrained, at 640x360."""
    from engines.generators.quarter import CELL_VALUES, STRIDE, QuarterNet

    models = {
        str(channels): exported(QuarterNet(channels, BLOCKS), f"quarter{channels}", folder)
        for channels in CHANNELS
    }
    engines = {
        name: open_engine(model, common.SIZE, backend=OpenVinoEngine.name)
        for name, model in models.items()
    }
    times, others = rounds_of(engines, options.rounds, options.tries, options.seconds)
    cells = common.SIZE[0] * common.SIZE[1] / STRIDE**2
    rows = {}
    for channels in CHANNELS:
        ms = times[str(channels)]
        weights = 9 * (2 * CELL_VALUES * channels + 2 * BLOCKS * channels**2)
        giga = cells * weights / 1e9
        rows[str(channels)] = {
            "ms": common.summary(ms),
            "fps": round(1e3 / statistics.median(ms), 1),
            "giga multiply-adds": round(giga, 3),
            "giga multiply-adds a second": round(giga * 1e3 / statistics.median(ms)),
        }
    precisions = {engine.precision for engine in engines.values()}
    for engine in engines.values():
        engine.close()
    return {
        "size": label(common.SIZE),
        "blocks": BLOCKS,
        "precision": " ".join(sorted(precisions)),
        "most cores that others used in a round": round(others, 2),
        "channels": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default=common.FILTER)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tries", type=int, default=35, help="of which the quietest count")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one engine in one round")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as folder:
        result = {"by pixels": by_pixels(options), "by width": by_width(options, Path(folder))}
    common.save("scaling", result)


if __name__ == "__main__":
    main()
