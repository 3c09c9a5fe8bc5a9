"""openvino: the default backend, for any CPU (and Intel GPUs as ``openvino:GPU``)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import Engine, Pixels, aligned_picture
from engines.errors import EngineError
from engines.model import STATE_OUT_SUFFIX, FrameModel, Size

if TYPE_CHECKING:
    import openvino

ENOUGH_PSNR_DB = 30.0
"""A reduced precision must come this close to f32; below it, `auto` takes f32."""


class OpenVinoEngine(Engine):
    """One infer request a frame under way; inputs and outputs stay in the caller's arrays."""

    name = "openvino"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._device = device or "CPU"
        self._compiled: openvino.CompiledModel | None = None
        self._requests: list[openvino.InferRequest] = []
        self._started = 0
        self._finished = 0
        self._tensors: dict[int, tuple[Pixels, openvino.Tensor]] = {}
        self._states: dict[str, Any] = {}

    @classmethod
    def why_not(cls) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "the package openvino is not installed (pip install openvino)"
        return None

    def _open(self, size: Size) -> None:
        import openvino

        model = self._frame_model()
        core = openvino.Core()
        if self._device.split(".")[0] not in {
            item.split(".")[0] for item in core.available_devices
        }:
            raise EngineError(
                f"OpenVINO has no device {self._device!r} here, only {core.available_devices}"
            )
        try:
            network = core.read_model(model.path)
            width, height = size
            shapes: dict[str, Any] = {"frame": [1, height, width, 3]}
            network.reshape(shapes)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot read {model.path}: {_first_line(error)}") from error
        if model.states:
            self.depth = 1  # each frame needs the state that the one before it left
        self.precision = self._choose_precision(core, network, model, size)
        self._compiled = _compile(core, network, self._device, self.precision, self.depth)
        self.device = f"{self._device}: {core.get_property(self._device, 'FULL_DEVICE_NAME')}"
        self._requests = [self._compiled.create_infer_request() for _ in range(self.depth)]
        self._reset()
        picture = aligned_picture(height, width)
        for _ in self._requests:  # the first run allocates and compiles the last kernels
            self._submit(picture, picture.copy())
            self._wait()
        self._tensors.clear()

    def _choose_precision(
        self, core: openvino.Core, network: openvino.Model, model: FrameModel, size: Size
    ) -> str:
        asked = self.asked_precision
        able = core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        fast = "bf16" if "BF16" in able else "f16" if "FP16" in able else None
        if asked == "f32" or (asked == "auto" and fast is None):
            if asked == "auto":
                self.notes.append(f"f32: {self._device} has no bf16 or f16 arithmetic")
            return "f32"
        if asked != "auto":
            if asked != fast:
                raise EngineError(f"{self._device} has no {asked} here, only f32 and {fast}")
            return asked
        assert fast is not None
        proof = model.card.proofs.get(f"openvino/{fast}")
        if proof is not None:
            psnr_db, where = proof.get("psnr_db", 0.0), "on the card"
        else:
            psnr_db, where = self._measure(core, network, fast, size), "measured now"
        if psnr_db >= ENOUGH_PSNR_DB:
            self.notes.append(f"{fast}: {psnr_db:.1f} dB from f32 ({where})")
            return fast
        self.notes.append(
            f"f32, the slower way: {fast} is only {psnr_db:.1f} dB from f32 ({where}),"
            f" {ENOUGH_PSNR_DB:.0f} are needed"
        )
        return "f32"

    def _measure(self, core: Any, network: Any, fast: str, size: Size) -> float:
        """Return the PSNR in dB of the fast precision against f32 on a test picture."""
        width, height = size
        rng = np.random.default_rng(0)
        ramp = np.linspace(0, 255, width)[None, :, None] * np.array([1.0, 0.7, 0.4])
        grain = rng.normal(0, 20, (height, width, 3))
        picture = np.clip(ramp + grain, 0, 255).astype(np.uint8)[None]
        pictures = []
        for precision in (fast, "f32"):
            request = _compile(core, network, self._device, precision, 1).create_infer_request()
            feed: dict[str, Any] = {"frame": picture}
            feed |= {name: _zeros(request, name) for name in self._frame_model().states}
            request.infer(feed)
            pictures.append(request.get_tensor("translated").data.astype(np.float64))
        error = float(np.mean((pictures[0] - pictures[1]) ** 2))
        return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        request = self._requests[self._started % self.depth]
        request.set_tensor("frame", self._tensor(frame_in))
        request.set_tensor("translated", self._tensor(frame_out))
        for name, value in self._states.items():
            request.set_tensor(name, value)
        request.start_async()
        self._started += 1

    def _collect(self, frame_out: Pixels) -> None:
        self._wait()

    def _wait(self) -> None:
        request = self._requests[self._finished % self.depth]
        self._finished += 1
        try:
            request.wait()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on a frame: {_first_line(error)}") from error
        for name in self._states:
            # A copy: the request writes its own output buffer again on the next frame.
            self._states[name].data[...] = request.get_tensor(name + STATE_OUT_SUFFIX).data

    def _tensor(self, picture: Pixels) -> openvino.Tensor:
        """Return the tensor that shares memory with ``picture``; made once for each array."""
        import openvino

        key = picture.ctypes.data
        known = self._tensors.get(key)
        if known is None:
            if len(self._tensors) >= 64:  # callers without slots pass ever new arrays
                self._tensors.clear()
            known = picture, openvino.Tensor(picture[None], shared_memory=True)
            self._tensors[key] = known
        return known[1]

    def _reset(self) -> None:
        import openvino

        for name in self._frame_model().states:
            zeros = _zeros(self._requests[0], name)
            self._states[name] = openvino.Tensor(zeros, shared_memory=False)

    def _close(self) -> None:
        self._requests = []
        self._tensors.clear()
        self._states.clear()
        self._compiled = None
        self._started = self._finished = 0


def _compile(core: Any, network: Any, device: str, precision: str, depth: int) -> Any:
    config = {
        "PERFORMANCE_HINT": "LATENCY" if depth == 1 else "THROUGHPUT",
        "PERFORMANCE_HINT_NUM_REQUESTS": str(depth),
        "INFERENCE_PRECISION_HINT": precision,
    }
    try:
        return core.compile_model(network, device, config)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compile the filter: {_first_line(error)}") from error


def _zeros(request: Any, name: str) -> Any:
    return np.zeros_like(request.get_tensor(name).data)


def _first_line(error: Exception) -> str:
    """OpenVINO puts its own source location first; the last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
