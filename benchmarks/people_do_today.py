"""The loops that people write today, beside ours: `python -m benchmarks.people_do_today`.

The same filter and the same clip, nothing shown: OpenCV + PyTorch, OpenCV + ONNX Runtime, and the
whole path of pix2live. Claims: at least 2 times the fps of the first, 1.3 of the second, and the
same pictures within 2 of 255 on average.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import common
from engines import load_filter
from realtime import Frame, Pipeline
from tools.run import SWITCH_INTERVAL_S


def pytorch_loop(clip: Path) -> Iterator[Any]:
    """Yield translated frames as most repositories do it: read, to tensor, network, to array."""
    import torch

    from engines.generators.quarter import QuarterNet

    generator = QuarterNet.from_frame_model(load_filter(common.FILTER).path).eval()
    capture = cv2.VideoCapture(str(clip))
    with torch.inference_mode():
        while True:
            done, frame = capture.read()
            if not done:
                break
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            tensor = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float() / 255
            picture = generator(tensor)[0].permute(1, 2, 0).clamp(0, 1).numpy()
            yield cv2.cvtColor((picture * 255).round().astype(np.uint8), cv2.COLOR_RGB2BGR)
    capture.release()


def onnxruntime_loop(clip: Path) -> Iterator[Any]:
    """Yield translated frames by an ONNX Runtime session with its defaults."""
    import onnxruntime

    path = load_filter(common.FILTER).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    capture = cv2.VideoCapture(str(clip))
    while True:
        done, frame = capture.read()
        if not done:
            break
        yield session.run(["translated"], {"frame": frame[None]})[0][0]
    capture.release()


def fps_of(loop: Any, clip: Path) -> float:
    """Return frames a second after the first one: loading is not counted."""
    import time

    frames = loop(clip)
    next(frames)
    started = time.perf_counter()
    count = sum(1 for _ in frames)
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory() as folder:
        clip = common.clip(Path(folder))
        found = common.interleaved(
            {
                "pix2live": lambda: Pipeline(clip, common.FILTER, ["null"]).run().fps(),
                "OpenCV + PyTorch": lambda: fps_of(pytorch_loop, clip),
                "OpenCV + ONNX Runtime": lambda: fps_of(onnxruntime_loop, clip),
            },
            options.rounds,
        )
        ours: list[Any] = []

        def keep(frame: Frame) -> None:
            ours.append(frame.pixels.copy())

        Pipeline(clip, common.FILTER, [keep], mode="every").run()
        differences = {
            name: round(
                float(
                    np.mean(
                        [cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in zip(ours, loop(clip))]
                    )
                ),
                3,
            )
            for name, loop in (
                ("OpenCV + PyTorch", pytorch_loop),
                ("OpenCV + ONNX Runtime", onnxruntime_loop),
            )
        }
    common.save(
        "people_do_today",
        {
            "filter": common.FILTER,
            "size": list(common.SIZE),
            "fps": {name: common.summary(values) for name, values in found.items()},
            "pix2live / OpenCV + PyTorch": round(
                common.ratio(found, "pix2live", "OpenCV + PyTorch"), 2
            ),
            "pix2live / OpenCV + ONNX Runtime": round(
                common.ratio(found, "pix2live", "OpenCV + ONNX Runtime"), 2
            ),
            "mean difference of 255": differences,
        },
    )


if __name__ == "__main__":
    main()
