"""tensorrt and tensorrt-rtx: NVIDIA GPUs, from desktops to Jetsons; the extras of the same names.

Upload, computation and download overlap across ``depth`` frames (`engines.nvidia.frame_ring`); the
thread waits for one event a frame, never for the device. `slots` are page-locked, so that the
device reads and writes them by itself; frames in other memory cost one copy by the processor.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import Engine, Pixels
from engines.errors import ConversionError, EngineError
from engines.model import FrameModel, Size
from engines.nvidia import cuda, tensorrt_api, tensorrt_plan
from engines.nvidia.frame_ring import FRAME, FrameRing
from engines.nvidia.tensorrt_network import OWN_GRAPH_RUNS, Network
from engines.proof import HALF_LIMITS
from engines.reduced_precision import (
    HALF,
    judged,
    made_picture,
    measured_size,
    proven_db,
    slower,
)
from engines.twins import INT8

if TYPE_CHECKING:
    from engines.cache import EngineCache
    from engines.nvidia.tensorrt_builder import Progress


class TensorRtEngine(Engine):
    """One slot a frame under way, each with an execution context and a CUDA graph of its own."""

    name = "tensorrt"
    cuda_factory: Callable[[str], Any] = cuda.Cuda
    ring_factory: Callable[..., FrameRing] = FrameRing

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self.cache: EngineCache | None = None
        """Where built engines are kept; None is the folder in the home folder."""
        self.on_progress: Callable[[Progress], bool] | None = None
        """Called while an engine is built, in the thread that opens; False cancels."""
        self.build_if_missing = True
        """False: `open` takes an engine that is there, or raises EngineError with the reasons."""
        self._cuda: Any = None
        self._network: Network | None = None
        self._ring: FrameRing | None = None
        self._graphs: list[Any] = []

    @classmethod
    def why_not(cls) -> str | None:
        return cuda.why_not() or tensorrt_api.why_not(cls.name)

    def _open(self, size: Size) -> None:
        model = self._frame_model()
        why_precision = self._choose_precision(size)
        module, messages = self._library()
        if model.states and self.depth > 1:
            self.notes.append("one frame at a time: each needs the state that the last one left")
            self.depth = 1
        self._cuda = device = type(self).cuda_factory(self.asked_device)
        capability = "{}.{}".format(*device.compute_capability)
        self.device = f"{device.name} (compute capability {capability})"
        with device.current():
            found = self._find_plan(size, device, why_precision)
            self.notes += found.notes
            self.engine_path = found.path
            self._network = network = Network(module, messages, found.data)
            graphs_note = network.configure(found.kernel_cache)
            states = model.new_states(size)
            self._ring = ring = type(self).ring_factory(
                device, size, self.depth, alpha=model.has_alpha, states=states
            )
            width, height = size
            shapes = {FRAME: (1, height, width, 3)}
            shapes |= {name: zeros.shape for name, zeros in states.items()}
            for slot in ring.slots:
                slot.enqueue = network.enqueue(slot.addresses, shapes)
            # The first frame of a context allocates, and compiles kernels for this GPU.
            self._warm_up(OWN_GRAPH_RUNS if network.own_graphs else 1)
            network.save_kernels(found.kernel_cache)
            self.notes.append(graphs_note or self._capture_graphs())
            self._warm_up(1)
            ring.reset()

    def _library(self) -> tuple[Any, Any]:
        """The package and its messages."""
        return tensorrt_api.load(self.name), tensorrt_api.messages(self.name)

    def _find_plan(self, size: Size, device: Any, why_precision: str) -> tensorrt_plan.Found:
        return tensorrt_plan.find(
            self.name,
            self._frame_model(),
            size,
            precision=self.precision,
            device=device,
            cache=self.cache,
            progress=self.on_progress,
            why_precision=why_precision,
            build=self.build_if_missing,
        )

    def _choose_precision(self, size: Size) -> str:
        """Set the precision; return it and why, or nothing where it was asked for by name."""
        asked, model = self.asked_precision, self._frame_model()
        made_for = ": INT8 twins are made for processors"
        if asked not in ("auto", HALF, "f32"):
            because = made_for if asked == INT8 else ""
            raise EngineError(f"{self.name} runs f16 and f32, not {asked}{because}")
        if model.card.quantised_from:  # TensorRT would read its unsigned numbers as signed ones
            raise EngineError(
                f"{self.name} cannot run {model.path.name}{made_for}; give it the filter that it is"
                " the twin of"
            )
        if asked != "auto":
            self.precision = asked
            return ""
        self.precision, note = self._half_if_proven(size)
        self.notes.append(note)
        return note

    def _half_if_proven(self, size: Size) -> tuple[str, str]:
        """Return the precision of `auto` and a note: f16 where it is known to be the picture."""
        model = self._frame_model()
        enough_db, psnr_db = HALF_LIMITS.psnr_db, proven_db(model.card, HALF)
        if psnr_db is not None:
            return judged(HALF, psnr_db, enough_db, "from f32, rounded on a processor (card)")
        if importlib.util.find_spec("onnxruntime") is None:
            return "f32", slower(
                f"f16 was not proven for this model (pix2live convert {model.path.name} proves it,"
                " with pip install 'pix2live[onnxruntime]')"
            )
        try:
            psnr_db = _measured_db(model, size)
        except ConversionError as error:
            return "f32", slower(f"f16 cannot be measured for this model: {error}")
        return judged(HALF, psnr_db, enough_db, "from f32, rounded on a processor (measured now)")

    def _warm_up(self, times: int) -> None:
        """Send a black frame through every slot."""
        assert self._ring is not None
        picture = np.zeros_like(self._ring.slots[0].frame)
        result = np.empty_like(picture)
        for _ in range(times * len(self._ring.slots)):
            self._ring.start(picture, result)
            self._ring.finish(result)

    def _capture_graphs(self) -> str:
        """Replace each slot's enqueue by the launch of a graph; return a note for a person."""
        ring = self._ring
        assert ring is not None
        reason = self._cuda.why_no_graphs()
        if reason is None:
            try:
                for slot in ring.slots:
                    assert slot.enqueue is not None
                    self._graphs.append(self._cuda.capture(ring.compute, slot.enqueue))
            except EngineError as error:
                reason = str(error)
        if reason is not None:
            _free(self._graphs)
            return f"no CUDA graph, which costs time of the processor: {reason}"
        for slot, graph in zip(ring.slots, self._graphs, strict=True):
            slot.enqueue = graph.launch
        return "CUDA graph: captured from TensorRT"

    def layers(self) -> dict[str, int]:
        """Return how many layers of each kind the open engine has (TensorRT's inspector)."""
        self._opened()
        assert self._network is not None
        with self._cuda.current():
            return self._network.layers()

    def slots(self, count: int) -> list[Pixels]:
        """Allocate ``count`` pictures (H, W, 3) in page-locked memory."""
        width, height = self._opened()
        with self._cuda.current():
            return [self._cuda.page_locked((height, width, 3)) for _ in range(count)]

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        assert self._ring is not None
        with self._cuda.current():
            self._ring.start(frame_in, frame_out)

    def _collect(self, frame_out: Pixels) -> None:
        assert self._ring is not None
        with self._cuda.current():
            self.alpha = self._ring.finish(frame_out)

    def _reset(self) -> None:
        assert self._ring is not None
        with self._cuda.current():
            self._ring.reset()

    def _close(self) -> None:
        device, self._cuda = self._cuda, None
        ring, self._ring = self._ring, None
        network, self._network = self._network, None
        graphs, self._graphs = self._graphs, []
        if device is None:
            return
        with contextlib.suppress(EngineError), device.current():  # a device that failed is empty
            if ring is not None:
                ring.drain()
            _free(graphs)
            if network is not None:
                network.free()
            if ring is not None:
                ring.close()


class TensorRtRtxEngine(TensorRtEngine):
    """The same with TensorRT for RTX, whose engines are built without a GPU, for many GPUs."""

    name = "tensorrt-rtx"


def _free(graphs: list[Any]) -> None:
    while graphs:
        cuda.quietly(graphs.pop().free)


def _measured_db(model: FrameModel, size: Size) -> float:
    """Return the PSNR in dB of FP16, rounded as the GPU does, against f32 on a made picture."""
    from engines.graphs.half import to_half
    from engines.graphs.half_proof import half_psnr_db

    master = model.graph()
    return half_psnr_db(master, to_half(master).model, made_picture(measured_size(size, model.fit)))
