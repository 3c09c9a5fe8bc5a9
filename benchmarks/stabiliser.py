"""What the stabiliser does, and what it costs: `python -m benchmarks.stabiliser [--quick]`.

Claims, for shipped filters on webcam clips, at the default strength: the warping error (Lai et al.
2018, as `pix2live evaluate` measures it) is at least 40 % lower; the mean difference to the
unfiltered translation on still scenes stays under 3 of 255; a frame of 640x360 costs under 8 ms.
With and without are of the same run and the same translated frames.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from benchmarks import common
from benchmarks.conversion import save
from engines import Pix2liveError, Pixels, Size, open_engine
from realtime import Frame
from realtime.effects import Context
from realtime.effects.stabiliser import STRENGTH, Stabiliser
from realtime.sources import parse_size
from tools.conversion.frames import NOISE_LEVELS
from tools.evaluation.flicker import flicker
from tools.evaluation.pictures import clip_frames

WEBCAM: Final = Path(__file__).resolve().parents[2] / "shared" / "assets" / "video" / "webcam"
CLIPS: Final = ("bird", "book", "night", "sister", "walk")
FILTERS: Final = "starry,pencil,comic"
STRENGTHS: Final = (0.4, 1.0)
"""What else the first filter and clip are measured at."""
SKIPPED: Final = 6
"""Frames at the beginning that say nothing about a still scene yet."""
STILL_LEVELS: Final = 4.0
"""Of 255: a place of a clip, smoothed over 5 pixels, stands still where it never leaves its median
by more."""
THREADS: Final = (1, 2)


def stabilise(
    captured: Sequence[Pixels], translated: Sequence[Pixels], strength: float = STRENGTH
) -> list[Pixels]:
    """Return what the stabiliser makes of a clip."""
    size = captured[0].shape[1], captured[0].shape[0]
    effect, context = Stabiliser(strength), Context(size=size)
    effect.prepare(size, context)
    frames = (Frame(made.copy(), given) for given, made in zip(captured, translated))
    return [effect.process(frame, context) for frame in frames]


def warping_error(captured: Sequence[Pixels], made: Sequence[Pixels]) -> float:
    """Return it as `pix2live evaluate` prints it, times 1000."""
    left = iter(made)
    return 1000 * flicker(lambda _: next(left), captured).warping_error


def lower(plain: float, calm: float) -> float:
    """Return how much lower the second is, in percent."""
    return round(100 * (1 - calm / plain), 1)


def apart(one: Pixels, other: Pixels) -> Any:
    """Return (H, W), the mean absolute difference over the colours, of 255."""
    return np.abs(one.astype(np.float32) - other).mean(axis=2)


def still_places(captured: Sequence[Pixels]) -> Any:
    """Return (H, W): where nothing ever moves."""
    greys = [cv2.blur(cv2.cvtColor(item, cv2.COLOR_BGR2GRAY), (5, 5)) for item in captured]
    levels = np.stack(greys).astype(np.float32)
    return np.abs(levels - np.median(levels, axis=0)).max(axis=0) < STILL_LEVELS


def still_difference(
    captured: Sequence[Pixels], translated: Sequence[Pixels], calm: Sequence[Pixels]
) -> tuple[float, float]:
    """Return the mean difference to the translation where the scene stands still, and how much of
    the picture that is.
    """
    still = still_places(captured)
    pairs = list(zip(translated, calm))[SKIPPED:]
    share = float(still.mean())
    return float(np.mean([apart(*pair)[still].mean() for pair in pairs])) if share else 0.0, share


class Bench:
    """The clips, and what the filters make of them."""

    def __init__(self, paths: Sequence[Path], size: Size, frames: int) -> None:
        self.size = size
        self.clips = {path.stem: read(path, size, frames) for path in paths}

    def filter(self, name: str, others: Sequence[float]) -> dict[str, Any]:
        """Measure one filter on all clips; at ``others`` strengths on the first one only."""
        engine = open_engine(name)
        engine.open(self.size, depth=1)
        rows = []
        try:
            for number, (clip, captured) in enumerate(self.clips.items()):
                translated = [engine.infer(frame) for frame in captured]
                strengths = dict.fromkeys((STRENGTH, *(others if number == 0 else ())))
                rows += self._rows(clip, captured, translated, tuple(strengths))
            held = self._held(engine.infer)
        finally:
            engine.close()
        usual = [row for row in rows if row["strength"] == STRENGTH]
        return {
            "filter": name,
            "lower_percent": lower(*(sum(row[x] for row in usual) for x in ("plain", "calm"))),
            "least_lower_percent": min(row["lower_percent"] for row in usual),
            "still_difference": max(row["still_difference"] for row in usual),
            "held_frame": held,
            "clips": rows,
        }

    def _rows(
        self,
        clip: str,
        captured: Sequence[Pixels],
        translated: Sequence[Pixels],
        strengths: Sequence[float],
    ) -> list[dict[str, Any]]:
        plain = warping_error(captured, translated)
        rows = []
        for strength in strengths:
            made = stabilise(captured, translated, strength)
            calm = warping_error(captured, made)
            difference, share = still_difference(captured, translated, made)
            rows.append(
                {
                    "clip": clip,
                    "strength": strength,
                    "plain": round(plain, 4),
                    "calm": round(calm, 4),
                    "lower_percent": lower(plain, calm),
                    "still_difference": round(difference, 2),
                    "still_share": round(share, 3),
                }
            )
        return rows

    def _held(self, infer: Any) -> dict[str, float]:
        """Hold a frame of each clip with a camera's noise: nothing moves at all.

        Beside the difference of each frame to its translation, that of the mean pictures, which
        have no noise left: drift and blur.
        """
        differences, biases, steps, calm_steps = [], [], [], []
        for captured in self.clips.values():
            rng = np.random.default_rng(0)
            held = [
                np.clip(
                    np.rint(captured[0] + rng.normal(0, NOISE_LEVELS, captured[0].shape)), 0, 255
                ).astype(np.uint8)
                for _ in captured
            ]
            translated = [infer(frame) for frame in held]
            made = stabilise(held, translated)
            pairs = list(zip(translated, made))[SKIPPED:]
            differences.append(np.mean([apart(*pair).mean() for pair in pairs]))
            means = [np.mean(list(items), axis=0) for items in zip(*pairs)]
            biases.append(np.abs(means[0] - means[1]).mean())
            for items, found in zip(zip(*pairs), (steps, calm_steps)):
                found.append(np.mean([apart(*two).mean() for two in itertools.pairwise(items)]))
        return {
            "difference": round(float(max(differences)), 2),
            "difference_of_the_means": round(float(max(biases)), 2),
            "step": round(float(np.mean(steps)), 2),
            "calm_step": round(float(np.mean(calm_steps)), 2),
        }


def read(path: Path, size: Size, frames: int) -> list[Pixels]:
    """Return the beginning of a clip, cut to the shape of ``size`` and scaled."""
    notes: list[str] = []

    def fit(frame: Pixels) -> Pixels:
        height, width = frame.shape[:2]
        scale = min(width / size[0], height / size[1])
        wide, tall = round(size[0] * scale), round(size[1] * scale)
        left, top = (width - wide) // 2, (height - tall) // 2
        part = frame[top : top + tall, left : left + wide]
        return np.array(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)

    return list(itertools.islice(clip_frames(path, fit, notes.append), frames))


def cost(captured: Sequence[Pixels], rounds: int) -> dict[str, Any]:
    """Time each frame of a clip, with OpenCV in one and in two threads, in turns.

    ``wall`` is what a frame waits, and on a busy machine longer than the work; ``cpu`` is the time
    that the thread of the effect computed, which is all of the work with one thread.
    """
    translated = [np.bitwise_not(frame) for frame in captured]
    size = captured[0].shape[1], captured[0].shape[0]
    context = Context(size=size)
    found: dict[int, dict[str, list[float]]] = {
        threads: {"wall": [], "cpu": [], "p50": []} for threads in THREADS
    }
    before = cv2.getNumThreads()
    try:
        for _ in range(rounds):
            for threads in THREADS:
                cv2.setNumThreads(threads)
                effect = Stabiliser()
                effect.prepare(size, context)
                wall = []
                for number, frame in enumerate(captured):
                    work = Frame(translated[number].copy(), frame)
                    started, computed = time.perf_counter(), time.thread_time()
                    effect.process(work, context)
                    if number > 1:  # the first has nothing to compare with
                        found[threads]["cpu"].append((time.thread_time() - computed) * 1000)
                        wall.append((time.perf_counter() - started) * 1000)
                found[threads]["wall"] += wall
                found[threads]["p50"].append(statistics.median(wall))
    finally:
        cv2.setNumThreads(before)
    return {f"{threads} threads": times(found[threads]) for threads in THREADS}


def times(found: dict[str, list[float]]) -> dict[str, Any]:
    """Return percentiles over all rounds, and the median of each."""
    wall = {f"wall_p{n}_ms": round(float(np.percentile(found["wall"], n)), 2) for n in (50, 95)}
    return {
        **wall,
        "cpu_p50_ms": round(statistics.median(found["cpu"]), 2),
        "wall_p50_ms_of_each_round": [round(value, 2) for value in found["p50"]],
    }


def show(filters: Sequence[dict[str, Any]], costs: dict[str, Any]) -> None:
    """Print what was found."""
    print("filter    clip     strength  plain   calm (x 1e-3)  lower   still difference of 255")
    for item in filters:
        for row in item["clips"]:
            print(
                f"{item['filter']:9} {row['clip']:9}{row['strength']:7.1f}{row['plain']:8.3f}"
                f"{row['calm']:8.3f}{row['lower_percent']:14.0f} %{row['still_difference']:8.2f}"
            )
        held = item["held_frame"]
        print(
            f"{item['filter']}: {item['lower_percent']} % lower in all,"
            f" {item['least_lower_percent']} % at least; a held frame with noise is"
            f" {held['difference']} off ({held['difference_of_the_means']} without the noise), and"
            f" changes by {held['calm_step']} a frame instead of {held['step']}"
        )
    for name, item in costs.items():
        print(
            f"{name}: p50 {item['wall_p50_ms']} ms, p95 {item['wall_p95_ms']} ms a frame"
            f" ({item['cpu_p50_ms']} ms computed in the effect's thread)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--filters", default=FILTERS)
    parser.add_argument("--size", type=parse_size, default=common.SIZE, metavar="WxH")
    parser.add_argument("--frames", type=int, default=16, help="of each clip")
    parser.add_argument("--rounds", type=int, default=7, help="of timing")
    parser.add_argument("--quick", action="store_true", help="does it run? 64x48, one clip")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    paths = options.clips or [WEBCAM / f"{name}.mkv" for name in CLIPS]
    if not all(path.is_file() for path in paths):
        sys.exit("the webcam clips are not here; name some: --clips FILE ...")
    names, size = options.filters.split(","), options.size
    rounds, frames = options.rounds, options.frames
    if options.quick:
        paths, names, size, rounds, frames = paths[:1], names[:1], (64, 48), 1, SKIPPED + 2
    try:
        bench = Bench(paths, size, frames)
        filters = [
            bench.filter(name, STRENGTHS if name == names[0] and not options.quick else ())
            for name in names
        ]
    except Pix2liveError as error:
        sys.exit(f"error: {error}")
    costs = cost(bench.clips[paths[0].stem], rounds)
    show(filters, costs)
    path = options.json or (None if options.quick else common.RESULTS / "stabiliser.json")
    if path is not None:
        settings = {"strength": STRENGTH, "size": size, "frames": frames, "rounds": rounds}
        result = {"settings": settings, "filters": filters, "cost": costs}
        save("stabiliser", result | {"declared_ms": Stabiliser.latency_ms}, path)


if __name__ == "__main__":
    main()
