"""How good the mask on people is, and what it costs: `python -m benchmarks.person`.

On webcam clips of people whom the network never saw: the intersection over union with its teacher,
how much the mask flickers where the picture stands still, what a mask costs alone, and beside a
filter in a live run at 30 fps. Claims: an IoU of 0.90 or more, under 8 ms a mask.

Writes results/person.json and, with `--sheet FILE.png`, what is to be seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from benchmarks import common
from benchmarks.conversion import save
from benchmarks.stabiliser import WEBCAM, read
from engines import Pixels, Size
from engines.masks import PERSON
from realtime import Frame, Pipeline, SinkInfo
from realtime.effects import Context
from realtime.effects.person import PersonMask, _Found, _Picture
from realtime.sinks.video import VideoSink
from tools.train.mask import on_green
from tools.train.teachers.segmenter import Segmenter

HELD_OUT: Final = ("again", "help", "no", "hungry", "want")
"""Of two people who are in no clip that was learned from."""
BESIDE: Final = "bird"
"""Not learned from either, with a second person cut off by the edge; the first one was."""
TEACHER: Final = WEBCAM.parents[1] / "segmentation" / "selfie_segmentation.onnx"
KODAK: Final = WEBCAM.parents[1] / "photos" / "kodak"
NOBODY_IN: Final = (1, 2, 3, 7, 8, 13, 16, 20, 21, 22, 23, 24)
"""Of the Kodak photographs, which were not learned from either."""
WHOLE: Final = (640, 480)
"""The clips as they are: the teacher wants a square, and is worse the more it is squeezed."""
SIZE: Final = (640, 360)
"""Of the times."""
FILTERS: Final = ("comic", "pencil")
FPS: Final = 30.0
STILL_LEVELS: Final = 3
"""Of 255: where two smoothed frames differ less, nothing moved."""
SHEET_FRAMES: Final = (0.15, 0.6)


class Timed(PersonMask):
    """Remembers how long each mask took, in ms, without what a frame does with it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.looks_ms: list[float] = []

    def _look(self, picture: _Picture) -> _Found:
        started_s = time.perf_counter()
        found = super()._look(picture)
        self.looks_ms.append((time.perf_counter() - started_s) * 1e3)
        return found


def masks(frames: Sequence[Pixels], **options: Any) -> list[Pixels]:
    """Return the mask of every frame, as in a recording."""
    size = frames[0].shape[1], frames[0].shape[0]
    effect, context = PersonMask(feather_px=0, **options), Context(size=size, live=False)
    effect.prepare(size, context)
    try:
        return [effect.find(Frame(frame, frame), context).copy() for frame in frames]
    finally:
        effect.close()


def overlap(found: Pixels, wanted: Pixels) -> float:
    """Return the intersection over union of two masks, uint8, of what is over the middle."""
    one, other = found > 127, wanted > 127
    return float((one & other).sum() / max(1, (one | other).sum()))


def unsteady(frames: Sequence[Pixels], found: Sequence[Pixels]) -> dict[str, float]:
    """Return how much masks change from frame to frame where the picture stands still."""
    changes, flips = [], []
    blurred = [cv2.GaussianBlur(frame, (0, 0), 2).astype(np.int16) for frame in frames]
    for (before, now), (one, other) in zip(itertools.pairwise(blurred), itertools.pairwise(found)):
        still = np.abs(now - before).max(axis=2) < STILL_LEVELS
        apart = np.abs(other.astype(np.int16) - one)
        changes.append(float(apart[still].mean()))
        flips.append(float(((one > 127) != (other > 127))[still].mean()))
    return {
        "change_of_255": round(float(np.mean(changes)), 3),
        "flips_of_a_million": round(1e6 * float(np.mean(flips)), 0),
    }


def quality(names: Sequence[str], teacher: Segmenter) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        frames = read(WEBCAM / f"{name}.mkv", WHOLE, 10_000)
        wanted = [teacher(frame) for frame in frames]
        made, hasty = masks(frames), masks(frames, smooth=0.0)
        shares = [overlap(*both) for both in zip(made, wanted)]
        rows.append(
            {
                "clip": name,
                "frames": len(frames),
                "iou": round(float(np.mean(shares)), 4),
                "iou_least": round(min(shares), 4),
                "flicker": unsteady(frames, made),
                "flicker_not_smoothed": unsteady(frames, hasty),
                "flicker_teacher": unsteady(frames, wanted),
            }
        )
        print(rows[-1], flush=True)
    return rows


def elsewhere(teacher: Segmenter) -> dict[str, float]:
    """Paste the people of the held-out clips on photographs; measure against how they were cut."""
    pasted, wanted = [], []
    for name in HELD_OUT:
        for number, frame in enumerate(read(WEBCAM / f"{name}.mkv", WHOLE, 10_000)[::6]):
            photo = cv2.imread(
                str(KODAK / f"kodim{NOBODY_IN[number % len(NOBODY_IN)]:02d}.png"), cv2.IMREAD_COLOR
            )
            background = cv2.resize(photo, WHOLE, interpolation=cv2.INTER_AREA)
            mask = teacher(frame)
            share = np.clip((mask[..., None].astype(np.float32) / 255 - 0.4) * 2, 0, 1)
            pasted.append((frame * share + background * (1 - share)).astype(np.uint8))
            wanted.append(mask)
    shares = [overlap(*both) for both in zip(masks(pasted, smooth=0.0), wanted)]
    theirs = [overlap(teacher(picture), mask) for picture, mask in zip(pasted, wanted)]
    return {
        "pictures": len(shares),
        "iou": round(float(np.mean(shares)), 4),
        "iou_p10": round(float(np.percentile(shares, 10)), 4),
        "iou_teacher": round(float(np.mean(theirs)), 4),
    }


def cost(frames: Sequence[Pixels]) -> dict[str, float]:
    """Time a mask alone: the network, and all that a frame of a recording does."""
    size = frames[0].shape[1], frames[0].shape[0]
    effect, context = Timed(feather_px=0), Context(size=size, live=False)
    effect.prepare(size, context)
    walls = []
    cpu_s = time.process_time()
    for frame in frames:
        started_s = time.perf_counter()
        effect.find(Frame(frame, frame), context)
        walls.append((time.perf_counter() - started_s) * 1e3)
    cpu_s = time.process_time() - cpu_s
    effect.close()
    return {
        "network_ms": round(float(np.median(effect.looks_ms)), 2),
        "mask_ms": round(float(np.median(walls)), 2),
        "mask_p95_ms": round(float(np.percentile(walls, 95)), 2),
        "mask_cpu_ms": round(1e3 * cpu_s / len(frames), 2),
    }


def beside(clip: Path, filter_name: str, hz: float | None) -> dict[str, Any]:
    """Run a filter live at 30 fps, with masks at ``hz`` or without."""
    effect = None if hz is None else Timed(most_hz=hz)
    shown: list[int] = []
    pipeline = Pipeline(
        clip,
        filter_name,
        [lambda frame: shown.append(frame.index)],
        mode="freshest",
        effects=[] if effect is None else [effect],
        stand_in=False,
    )
    started_s = time.perf_counter()
    stats = pipeline.run()
    lasted_s = time.perf_counter() - started_s
    row: dict[str, Any] = {"filter": filter_name, "hz": hz, "fps": round(len(shown) / lasted_s, 1)}
    if effect is not None:
        times = stats.effects[0].times
        row |= {
            "on_a_frame_p50_ms": round(times.percentile_ms(50) or 0, 2),
            "on_a_frame_p95_ms": round(times.percentile_ms(95) or 0, 2),
            "mask_p50_ms": round(float(np.median(effect.looks_ms)), 2),
            "mask_p95_ms": round(float(np.percentile(effect.looks_ms, 95)), 2),
            "masks_a_second": round(len(effect.looks_ms) / lasted_s, 1),
        }
    print(row, flush=True)
    return row


def times() -> dict[str, Any]:
    """Return what a mask costs, alone and beside filters."""
    found: dict[str, Any] = {"alone": cost(read(WEBCAM / "help.mkv", SIZE, 10_000)), "beside": []}
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder), SIZE)
        for name, hz in itertools.product(FILTERS, (None, 15.0, 30.0)):
            found["beside"].append(beside(clip, name, hz))
    return found


def kept_times(path: Path) -> dict[str, Any]:
    """Return the times of an earlier run."""
    earlier = json.loads(path.read_text())
    return {name: earlier[name] for name in ("alone", "beside")}


def write_clip(folder: Path, size: Size) -> Path:
    """Write all held-out clips as one film of 30 fps."""
    path = folder / "people.mp4"
    sink = VideoSink(path)
    sink.open(SinkInfo(size, FPS))
    frames = [x for name in HELD_OUT for x in read(WEBCAM / f"{name}.mkv", size, 10_000)]
    for index, pixels in enumerate(frames):
        sink.write(Frame(pixels, index=index, pts_ns=round(index * 1e9 / FPS)))
    sink.close()
    return path


def sheet(path: Path, teacher: Segmenter) -> None:
    """Draw frames, the person by our mask, and by the teacher's."""
    rows = []
    for name in (*HELD_OUT, BESIDE):
        frames = read(WEBCAM / f"{name}.mkv", WHOLE, 10_000)
        found = masks(frames)
        for share in SHEET_FRAMES:
            number = int(share * len(frames))
            frame = frames[number]
            ours, theirs = on_green(frame, found[number]), on_green(frame, teacher(frame))
            rows.append(np.hstack([frame, ours, theirs]))
    cv2.imwrite(str(path), np.vstack(rows))


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--sheet", type=Path)
    asked.add_argument("--no-times", action="store_true", help="keep those of the last run")
    asked.add_argument("--out", type=Path, default=common.RESULTS / "person.json")
    given = asked.parse_args()
    if not WEBCAM.is_dir() or not TEACHER.is_file():
        sys.exit(f"the webcam clips and the teacher are not here: {WEBCAM}, {TEACHER}")
    teacher = Segmenter(TEACHER)
    rows = quality(HELD_OUT, teacher)
    result = {
        "model_kb": round(PERSON.stat().st_size / 1000),
        "iou": round(float(np.mean([row["iou"] for row in rows])), 4),
        "iou_of_the_worst_clip": min(row["iou"] for row in rows),
        "held_out": rows,
        "with_somebody_at_the_edge": quality([BESIDE], teacher),
        "pasted_on_photographs": elsewhere(teacher),
    }
    result |= kept_times(given.out) if given.no_times else times()
    save("person", result, given.out)
    if given.sheet is not None:
        sheet(given.sheet, teacher)
    return 0


if __name__ == "__main__":
    sys.exit(main())
