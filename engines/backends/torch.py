"""torch: runs PyTorch generators; the reference that every conversion is measured against."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import Engine, Pixels
from engines.errors import EngineError
from engines.model import FrameModel, Size

if TYPE_CHECKING:
    import torch


class TorchEngine(Engine):
    """Runs a generator (``torch.nn.Module``: float (1, 3, H, W), RGB, 0..1, in and out).

    A frame model is taken only when its architecture is one that pix2live can rebuild.
    """

    name = "torch"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._generator: torch.nn.Module | None = None

    @classmethod
    def why_not(cls) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "the package torch is not installed (pip install 'pix2live[torch]')"
        return None

    def fit(self, size: Size) -> Size:
        """Return the nearest size; a generator may say by ``stride`` what its sides divide by."""
        stride = getattr(self.model, "stride", 1)
        if isinstance(self.model, FrameModel) or not isinstance(stride, int):
            return super().fit(size)
        width, height = (max(stride, side // stride * stride) for side in size)
        return width, height

    def _open(self, size: Size) -> None:
        import torch

        if self.asked_precision not in ("auto", "f32"):
            raise EngineError(f"torch runs f32 only, not {self.asked_precision}")
        generator = self._rebuild() if isinstance(self.model, FrameModel) else self.model
        if not isinstance(generator, torch.nn.Module):
            raise EngineError(f"torch runs torch.nn.Module, found {type(generator).__name__}")
        device = self.asked_device or ("cuda" if torch.cuda.is_available() else "cpu")
        if not self.asked_device:
            self.notes.append(f"device {device}: CUDA is {'' if device == 'cuda' else 'not '}here")
        try:
            torch.empty(1, device=device)
            self._generator = generator.eval().to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(f"torch has no device {device!r} here: {reason}") from error
        self.device, self.precision, self.depth = device, "f32", 1
        width, height = size
        self._submit(np.zeros((height, width, 3), np.uint8), np.zeros((height, width, 3), np.uint8))

    def _rebuild(self) -> torch.nn.Module:
        model = self._frame_model()
        if not model.card.architecture.startswith("QuarterNet"):
            raise EngineError(
                f"torch runs generators, and cannot rebuild {model.card.architecture!r} from a"
                " frame model; take --backend openvino or onnxruntime"
            )
        from engines.generators.quarter import QuarterNet

        return QuarterNet.from_frame_model(model.path)

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        import torch

        assert self._generator is not None
        shareable = frame_in if frame_in.flags.writeable else frame_in.copy()
        try:
            with torch.inference_mode():
                rgb = torch.from_numpy(shareable).to(self.device)[..., [2, 1, 0]]
                picture = rgb.permute(2, 0, 1)[None].float() / 255
                translated = self._generator(picture)[0].clamp(0, 1) * 255
                bgr = translated.round().to(torch.uint8).permute(1, 2, 0)[..., [2, 1, 0]]
                np.copyto(frame_out, bgr.cpu().numpy())
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the generator failed on a frame: {error}") from error

    def _collect(self, frame_out: Pixels) -> None:
        """Submit has finished already."""

    def _close(self) -> None:
        self._generator = None
