"""The loops that people write today around a filter, each as a generator of translated frames.

All read the clip with OpenCV, run the same weights, and give uint8 (H, W, 3) BGR. The networks are
loaded before the first frame is asked for. Whoever cannot run here says so by a `LoopError`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from benchmarks import common
from engines import Engine, Pixels, load_filter
from engines.backends.openvino import import_openvino

Translate = Callable[[Pixels], Pixels]
Loop = Callable[[Path], Iterator[Pixels]]
TRIAL_FRAMES: Final = 24
ENOUGH: Final = 4
"""Frames under way in the configurations of many requests."""


class LoopError(Exception):
    """One line: why this loop cannot run here."""


def frames(clip: Path) -> Iterator[Pixels]:
    """Yield the frames of a clip as OpenCV reads them."""
    capture = cv2.VideoCapture(str(clip))
    while True:
        done, frame = capture.read()
        if not done:
            break
        yield frame
    capture.release()


def looped(translate: Translate) -> Loop:
    """Return the loop of a function: read, translate, next."""
    return lambda clip: (translate(frame) for frame in frames(clip))


def _network(name: str) -> Any:
    from engines.generators.quarter import QuarterNet

    return QuarterNet.from_frame_model(load_filter(name).path).eval()


def pytorch(name: str, *, compiled: bool = False) -> Loop:
    """As most repositories do it: to a tensor, network, to an array; or with torch.compile."""
    import torch

    network = _network(name)
    if compiled:
        network = torch.compile(network)

    def translate(frame: Pixels) -> Pixels:
        with torch.inference_mode():
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            tensor = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float() / 255
            picture = network(tensor)[0].permute(1, 2, 0).clamp(0, 1).numpy()
        bgr: Any = cv2.cvtColor((picture * 255).round().astype(np.uint8), cv2.COLOR_RGB2BGR)
        return bgr

    if compiled:
        width, height = common.SIZE
        try:
            translate(np.zeros((height, width, 3), np.uint8))
        except Exception as error:  # of the compiler, of which there are several
            raise LoopError(f"torch.compile: {str(error).splitlines()[0]}") from error
    return looped(translate)


def onnxruntime(name: str) -> Loop:
    """Return the loop of an ONNX Runtime session with its defaults."""
    import onnxruntime as runtime

    session = runtime.InferenceSession(
        str(load_filter(name).path), providers=["CPUExecutionProvider"]
    )
    return looped(lambda frame: session.run(["translated"], {"frame": frame[None]})[0][0])


def opencv_dnn(name: str, folder: Path) -> Loop:
    """Return the loop of OpenCV's own networks; they take float pictures, not frames."""
    import torch

    width, height = common.SIZE
    path = folder / f"{name}.plain.onnx"
    network = _network(name)
    torch.onnx.export(
        network, (torch.zeros(1, 3, height, width),), str(path), dynamo=True, verbose=False
    )
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise LoopError(f"OpenCV DNN cannot read it: {error.err}") from error

    def translate(frame: Pixels) -> Pixels:
        net.setInput(cv2.dnn.blobFromImage(frame, 1 / 255, swapRB=True))
        picture = net.forward()[0].transpose(1, 2, 0)
        rgb = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
        bgr: Any = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return bgr

    try:
        translate(np.zeros((height, width, 3), np.uint8))
    except cv2.error as error:
        raise LoopError(f"OpenCV DNN cannot run it: {error.err}") from error
    return looped(translate)


class BareOpenVino:
    """OpenVINO on frames in memory: no source, no sink, the file as it is that an engine runs."""

    def __init__(self, engine: Engine) -> None:
        width, height = common.SIZE
        self._core = import_openvino().Core()
        self._network = self._core.read_model(engine.runs.path)
        self._network.reshape({"frame": [1, height, width, 3]})
        self._precision = engine.float_precision
        self.configuration = ""

    def configurations(self) -> dict[str, dict[str, Any]]:
        """Return what its benchmark tool tries: hints, requests, streams, threads, pinning."""
        hints = {
            "latency": {"PERFORMANCE_HINT": "LATENCY"},
            "throughput": {"PERFORMANCE_HINT": "THROUGHPUT"},
            "1 stream": {"NUM_STREAMS": "1"},
            "2 streams": {"NUM_STREAMS": "2"},
            "1 thread": {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1},
        }
        return {
            f"{hint}, {'pinned' if pinned else 'not pinned'}": {
                **settings,
                "ENABLE_CPU_PINNING": pinned,
                "INFERENCE_PRECISION_HINT": self._precision,
            }
            for (hint, settings), pinned in itertools.product(hints.items(), (False, True))
        }

    def best(self, pictures: list[Pixels]) -> Callable[[], float]:
        """Try every configuration, and return what measures the fastest: frames a second."""
        fastest = 0.0
        chosen: Callable[[], float] | None = None
        for name, settings in self.configurations().items():
            compiled = self._core.compile_model(self._network, "CPU", settings)
            for way, loop in (("one", _one_by_one), ("queue", _queued)):
                run = loop(compiled, pictures[:TRIAL_FRAMES])
                run()
                fps = max(run() for _ in range(2))
                if chosen is None or fps > fastest:  # only one is kept: they are large
                    fastest, chosen = fps, loop(compiled, pictures)
                    self.configuration = f"{name}, {way}"
        assert chosen is not None
        return chosen


def _one_by_one(compiled: Any, pictures: list[Pixels]) -> Callable[[], float]:
    request = compiled.create_infer_request()

    def run() -> float:
        started = time.perf_counter()
        for frame in pictures:
            request.infer({"frame": frame[None]}, share_inputs=True, share_outputs=True)
        return len(pictures) / (time.perf_counter() - started)

    return run


def _queued(compiled: Any, pictures: list[Pixels]) -> Callable[[], float]:
    queue = import_openvino().AsyncInferQueue(compiled, ENOUGH)

    def run() -> float:
        started = time.perf_counter()
        for frame in pictures:
            queue.start_async({"frame": frame[None]}, share_inputs=True)
        queue.wait_all()
        return len(pictures) / (time.perf_counter() - started)

    return run


def fps_of(loop: Loop, clip: Path, count: int) -> float:
    """Return frames a second of ``count`` frames after the first one: loading is not counted."""
    found = loop(clip)
    next(found)
    started = time.perf_counter()
    done = sum(1 for _ in itertools.islice(found, count))
    return done / (time.perf_counter() - started)
