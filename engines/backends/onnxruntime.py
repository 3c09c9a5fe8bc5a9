"""onnxruntime: the portable second (CPU, CUDA, CoreML, DirectML), as the extra ``onnxruntime``."""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Engine, Pixels, aligned_picture
from engines.errors import EngineError
from engines.model import STATE_OUT_SUFFIX, FrameModel, Size
from engines.processor import is_x86
from engines.shared import Shared
from engines.twins import INT8, twin_by_name, why_not_int8

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
INT8_KEY: Final = "onnxruntime/f32"
"""Under which a twin's card has its proof: what is not in INT8 is f32."""
_SESSIONS: Final[Shared[tuple[Any, ...], Any]] = Shared()


class OnnxRuntimeEngine(Engine):
    """Binds the caller's arrays as inputs and outputs, so that nothing is copied on a CPU.

    On a CPU, engines of one process for the same file and size have one session.
    """

    name = "onnxruntime"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._session: Any = None
        self._binding: Any = None
        self._alpha: Pixels | None = None
        self._states: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        """Name -> what the next frame reads, and what it leaves for the one after it."""

    @classmethod
    def why_not(cls) -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return "the package onnxruntime is not installed (pip install 'pix2live[onnxruntime]')"
        return None

    def _open(self, size: Size) -> None:
        import onnxruntime

        model = self._chosen()
        available = onnxruntime.get_available_providers()
        for device in self._candidates(available):
            provider = PROVIDERS[device]
            self._session = self._session_on(device, model, size)
            if self._session.get_providers()[0] == provider:
                break
            # Listed, but the driver or the device is missing: it went on with the CPU.
            if self.asked_device:
                raise EngineError(f"ONNX Runtime has {provider}, but it did not start here")
            self.notes.append(f"not {provider}: it did not start here")
        else:
            raise EngineError(f"ONNX Runtime has no provider that is known here: {available}")
        if not self.asked_device:
            why = f"the first of {list(PROVIDERS)} that runs here"
            if self.precision == INT8:
                why = "INT8 twins are made for processors"
            self.notes.append(f"provider {provider}: {why}")
        if model.card.quantised_from and device == "cpu":
            if self.precision != INT8:  # a twin, given as the filter
                self.notes.append("convolutions in int8, the rest in f32")
            if _may_overflow():
                self.notes.append(
                    f"{why_not_int8()}: INT8 in the slower way that does not overflow"
                )
        self.depth = 1
        self.device, self.runs = device, model
        self._binding = self._session.io_binding()
        width, height = size
        if model.has_alpha:
            self._alpha = np.empty((height, width, 1), np.uint8)
        self._new_states(size)
        picture = aligned_picture(height, width)
        self._submit(picture, picture.copy())
        self._new_states(size)

    def _chosen(self) -> FrameModel:
        """Set the precisions; return what is to run, the frame model or its INT8 twin."""
        model, asked = self._frame_model(), self.asked_precision
        if asked not in ("auto", "f32", INT8):
            raise EngineError(
                f"onnxruntime runs f32 only, not {asked} (and int8 on a CPU, for filters with a"
                " twin)"
            )
        self.precision, self.float_precision = INT8 if asked == INT8 else "f32", "f32"
        if asked != INT8:
            return model
        if self.asked_device.lower() not in ("", "cpu"):
            raise EngineError(
                f"onnxruntime runs int8 on a CPU only, not on {self.asked_device}: INT8 twins are"
                " made for processors"
            )
        twin, note = twin_by_name(model, INT8_KEY)
        self.notes.append(note)
        return twin

    def _session_on(self, device: str, model: FrameModel, size: Size) -> Any:
        import onnxruntime

        def make() -> Any:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # its warnings are about its own optimiser
            if model.card.quantised_from and _may_overflow():
                # Its fast way overflows where it sums up INT8 products at 16 bits, and
                # the picture is another; this is its slower way, for INT8 twins only: it refuses
                # scales of channels that come without zero points, which others have.
                options.add_session_config_entry("session.x64quantprecision", "1")
            try:
                return onnxruntime.InferenceSession(
                    str(model.path), options, providers=[PROVIDERS[device]]
                )
            except Exception as error:  # pybind raises a family of types without a common root
                raise EngineError(f"ONNX Runtime cannot open {model.path}: {error}") from error

        if device != "cpu":  # others may run one frame at a time only (DirectML)
            return make()
        return _SESSIONS.get((model.path.absolute(), model.sha256, size), make)

    def _candidates(self, available: list[str]) -> list[str]:
        here = [device for device, provider in PROVIDERS.items() if provider in available]
        if self.precision == INT8:
            here = [device for device in here if device == "cpu"]
        asked = self.asked_device.lower()
        if asked and asked not in here:
            raise EngineError(f"ONNX Runtime has no {self.asked_device!r} here, only {here}")
        return [asked] if asked else here

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        # Runs at once: the session has no queue, and a thread of our own would only add age.
        self._bind_input("frame", frame_in[None])
        self._bind_output("translated", frame_out[None])
        if self._alpha is not None:
            self._bind_output("alpha", self._alpha[None])
        for name, (before, after) in self._states.items():
            self._bind_input(name, before)
            self._bind_output(name + STATE_OUT_SUFFIX, after)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on a frame: {error}") from error
        self._states = {name: (after, before) for name, (before, after) in self._states.items()}

    def _bind_input(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _collect(self, frame_out: Pixels) -> None:
        self.alpha = self._alpha  # all else is done: submit has finished already

    def _reset(self) -> None:
        self._new_states(self._opened())

    def _new_states(self, size: Size) -> None:
        states = self._frame_model().new_states(size)
        self._states = {name: (zeros, zeros.copy()) for name, zeros in states.items()}

    def _close(self) -> None:
        self._session = self._binding = self._alpha = None
        self._states = {}


def _may_overflow() -> bool:
    """Whether ONNX Runtime's fast way sums up INT8 products at 16 bits here: x86 without VNNI."""
    return is_x86() and why_not_int8() is not None
