"""onnxruntime: the portable second (CPU, CUDA, CoreML, DirectML), as the extra ``onnxruntime``."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from engines.base import Engine, Pixels, aligned_picture
from engines.errors import EngineError
from engines.model import STATE_OUT_SUFFIX, Size

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


class OnnxRuntimeEngine(Engine):
    """Binds the caller's arrays as inputs and outputs, so that nothing is copied on a CPU."""

    name = "onnxruntime"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._device = device.lower()
        self._session: Any = None
        self._binding: Any = None
        self._states: dict[str, Any] = {}

    @classmethod
    def why_not(cls) -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return "the package onnxruntime is not installed (pip install 'pix2live[onnxruntime]')"
        return None

    def _open(self, size: Size) -> None:
        import onnxruntime

        model = self._frame_model()
        if self.asked_precision not in ("auto", "f32"):
            raise EngineError(f"onnxruntime runs f32 only, not {self.asked_precision}")
        device, provider = self._choose_provider(onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about its own optimiser
        try:
            self._session = onnxruntime.InferenceSession(
                str(model.path), options, providers=[provider]
            )
        except Exception as error:  # pybind raises a family of types without a common root
            raise EngineError(f"ONNX Runtime cannot open {model.path}: {error}") from error
        if self._session.get_providers()[0] != provider:
            raise EngineError(f"ONNX Runtime did not start {provider}; naming cpu takes the CPU")
        self.depth = 1
        self.device, self.precision = device, "f32"
        self._binding = self._session.io_binding()
        self._reset()
        width, height = size
        picture = aligned_picture(height, width)
        self._submit(picture, picture.copy())

    def _choose_provider(self, available: list[str]) -> tuple[str, str]:
        if self._device:
            provider = PROVIDERS.get(self._device)
            if provider not in available:
                known = [name for name, item in PROVIDERS.items() if item in available]
                raise EngineError(f"ONNX Runtime has no {self._device!r} here, only {known}")
            return self._device, provider
        for device, provider in PROVIDERS.items():
            if provider in available:
                self.notes.append(f"provider {provider}: the first of {list(PROVIDERS)} here")
                return device, provider
        raise EngineError(f"ONNX Runtime has no provider that is known here: {available}")

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        # Runs at once: the session has no queue, and a thread of our own would only add age.
        binding = self._binding
        shape = (1, *frame_in.shape)
        binding.bind_input("frame", "cpu", 0, np.uint8, shape, frame_in.ctypes.data)
        binding.bind_output("translated", "cpu", 0, np.uint8, shape, frame_out.ctypes.data)
        for name, value in self._states.items():
            binding.bind_cpu_input(name, value)
            binding.bind_output(name + STATE_OUT_SUFFIX, "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on a frame: {error}") from error
        if self._states:
            outputs = dict(
                zip((item.name for item in self._session.get_outputs()), binding.get_outputs())
            )
            for name in self._states:
                self._states[name] = outputs[name + STATE_OUT_SUFFIX].numpy()

    def _collect(self, frame_out: Pixels) -> None:
        """Submit has finished already."""

    def _reset(self) -> None:
        model = self._frame_model()
        for name, shape in zip(model.states, model.state_shapes):
            if not all(isinstance(dim, int) for dim in shape):
                raise EngineError(
                    f"onnxruntime needs a fixed shape for the state {name!r}, found {shape}"
                )
            self._states[name] = np.zeros([int(dim) for dim in shape], dtype=np.float32)

    def _close(self) -> None:
        self._session = self._binding = None
        self._states.clear()
