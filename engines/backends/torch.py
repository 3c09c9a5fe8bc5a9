"""torch: runs PyTorch generators; the reference that every conversion is measured against."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.base import Engine, Pixels
from engines.errors import EngineError
from engines.model import FrameModel, Size
from engines.proof import HALF_LIMITS, Translate, compare
from engines.reduced_precision import HALF, judged, made_picture, proven_db, slower

if TYPE_CHECKING:
    import torch

WARM_UP_RUNS: Final = 3
"""Before a CUDA graph is captured: cuDNN chooses its algorithms, the allocator its blocks."""


class TorchEngine(Engine):
    """Runs a generator (``torch.nn.Module``, see `engines.generators`), one frame at a time.

    A frame model is taken only when its architecture is one that pix2live can rebuild. On CUDA
    the frame goes through page-locked buffers and a CUDA graph, on a stream of its own.
    """

    name = "torch"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._translator: torch.nn.Module | None = None
        self._cuda: _CudaGraph | None = None
        self._alpha: Pixels | None = None

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

        from engines.export import FrameTranslator

        device = self.asked_device or ("cuda" if torch.cuda.is_available() else "cpu")
        on_cuda = device.partition(":")[0] == "cuda"
        self._check_precision(on_cuda)
        generator = self._rebuilt() if isinstance(self.model, FrameModel) else self.model
        if not isinstance(generator, torch.nn.Module):
            raise EngineError(f"torch runs torch.nn.Module, found {type(generator).__name__}")
        if not self.asked_device:
            self.notes.append(f"device {device}: CUDA is {'' if on_cuda else 'not '}here")
        try:
            torch.empty(1, device=device)
            translator = FrameTranslator(generator).eval().to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(f"torch has no device {device!r} here: {reason}") from error
        self.device, self.depth, self._translator = device, 1, translator
        if on_cuda:
            self._choose_precision(size)
        else:
            self.precision = "f32"
        width, height = size
        picture = np.zeros((height, width, 3), np.uint8)
        self._run(picture, picture.copy())  # whatever is wrong with a generator shows here
        if on_cuda:
            try:
                self._cuda = _CudaGraph(self._translator, device, size)
            except RuntimeError as error:
                self.notes.append(f"no CUDA graph, which costs time: {_one_line(error)}")
            else:
                self.notes.append("CUDA graph: captured from PyTorch")

    def _check_precision(self, on_cuda: bool) -> None:
        asked = self.asked_precision
        if not on_cuda and asked not in ("auto", "f32"):
            raise EngineError(f"torch runs f32 only, not {asked}, without CUDA")
        if asked not in ("auto", "f32", HALF):
            raise EngineError(f"torch runs f32 and f16 on CUDA, not {asked}")

    def _choose_precision(self, size: Size) -> None:
        """Set the precision where there are two; `auto` takes f16 only when it is the picture."""
        self.precision = self.asked_precision
        if self.precision == "f32":
            return
        single = self._translator
        assert single is not None
        half = in_half(single)
        if self.precision == "auto":
            self.precision, note = self._half_if_same(single, half, size)
            self.notes.append(note)
        if self.precision == HALF:
            self.notes.append("f16: convolutions only, all else is f32 (precision f32: all)")
            self._translator = half

    def _half_if_same(
        self, single: torch.nn.Module, half: torch.nn.Module, size: Size
    ) -> tuple[str, str]:
        """Return the precision of `auto`, and a note why."""
        enough_db = HALF_LIMITS.psnr_db
        if isinstance(self.model, FrameModel):
            psnr_db = proven_db(self.model.card, HALF)
            if psnr_db is not None:
                return judged(HALF, psnr_db, enough_db, "from f32, rounded on a processor (card)")

        def on_device(translator: torch.nn.Module) -> Translate:
            def translate(frame: Pixels) -> Pixels:
                result = np.empty_like(frame)
                self._run(frame, result, translator)
                return result

            return translate

        try:
            found = compare(on_device(single), on_device(half), [made_picture(size)])
        except EngineError as error:  # if f32 fails too, that is said when it warms up
            return "f32", slower(f"f16 cannot be measured for this generator: {error}")
        return judged(HALF, found.psnr_db, enough_db, "from f32 (measured now)")

    def _rebuilt(self) -> torch.nn.Module:
        from engines.generators.rebuilding import prove_same, rebuild

        model = self._frame_model()
        generator = rebuild(model)
        proof = prove_same(generator, model)
        self.notes.append(f"rebuilt from {model.path.name}: {proof.psnr_db:.1f} dB from the file")
        return generator

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        if self._cuda is None:
            self._run(frame_in, frame_out)
            return
        try:
            self._cuda.start(frame_in)
        except RuntimeError as error:
            raise EngineError(f"the generator failed on a frame: {_one_line(error)}") from error

    def _run(
        self, frame_in: Pixels, frame_out: Pixels, translator: torch.nn.Module | None = None
    ) -> None:
        """Translate at once, without a graph."""
        import torch

        translator = translator or self._translator
        assert translator is not None
        shareable = frame_in if frame_in.flags.writeable else frame_in.copy()
        try:
            with torch.inference_mode():
                found = translator(torch.from_numpy(shareable)[None].to(self.device))
                bgr, alpha = found if isinstance(found, tuple) else (found, None)
                if bgr.shape[1:] != frame_out.shape:  # numpy would repeat a smaller one
                    raise ValueError(f"it gives {tuple(bgr.shape[1:])}, not {frame_out.shape}")
                np.copyto(frame_out, bgr[0].cpu().numpy(), casting="no")
                self._alpha = None if alpha is None else alpha[0].cpu().numpy()
        except Exception as error:  # a generator is anybody's code
            raise EngineError(f"the generator failed on a frame: {_one_line(error)}") from error

    def _collect(self, frame_out: Pixels) -> None:
        if self._cuda is not None:
            try:
                self._alpha = self._cuda.finish(frame_out)
            except RuntimeError as error:
                raise EngineError(f"the generator failed on a frame: {_one_line(error)}") from error
        self.alpha = self._alpha  # without CUDA, submit has finished already

    def _close(self) -> None:
        self._cuda = self._translator = self._alpha = None


class _CudaGraph:
    """The translator as a CUDA graph between fixed buffers; nothing waits for the device."""

    def __init__(self, translator: torch.nn.Module, device: str, size: Size) -> None:
        import torch

        width, height = size
        self._stream = torch.cuda.Stream(device)
        self._done = torch.cuda.Event(blocking=True)  # a waiting thread sleeps
        self._locked_in = torch.zeros(1, height, width, 3, dtype=torch.uint8, pin_memory=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.device(device):
            self._frame = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):
                    translator(self._frame)
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                found = translator(self._frame)
            self._results = found if isinstance(found, tuple) else (found,)
            self._locked_out = tuple(
                torch.empty(tuple(result.shape), dtype=result.dtype, pin_memory=True)
                for result in self._results
            )

    def start(self, frame_in: Pixels) -> None:
        import torch

        # The earlier frame was collected, so nothing reads this buffer any more.
        np.copyto(self._locked_in.numpy()[0], frame_in)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._frame.copy_(self._locked_in, non_blocking=True)
            self._graph.replay()
            for locked, result in zip(self._locked_out, self._results, strict=True):
                locked.copy_(result, non_blocking=True)
            self._done.record(self._stream)

    def finish(self, frame_out: Pixels) -> Pixels | None:
        self._done.synchronize()
        np.copyto(frame_out, self._locked_out[0].numpy()[0])
        return self._locked_out[1].numpy()[0] if len(self._locked_out) > 1 else None


def in_half(generator: torch.nn.Module) -> torch.nn.Module:
    """Return a copy whose convolutions compute in float16, with all between them in float32.

    Normalisation in float16 overflows into black pictures, and a network may have one of its own:
    so only the layers are touched that are safe by what they are.
    """
    import torch
    from torch import nn

    def halved(given: Any) -> Any:
        """Whatever else a layer is given, such as the size of its output, stays as it is."""
        is_float = isinstance(given, torch.Tensor) and given.is_floating_point()
        return given.half() if is_float else given

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return (
            tuple(halved(value) for value in given),
            {name: halved(value) for name, value in named.items()},
        )

    def after(_: nn.Module, __: Any, made: torch.Tensor) -> torch.Tensor:
        return made.float()

    changed = copy.deepcopy(generator)
    for layer in changed.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            anything: Any = layer  # PyTorch's stubs do not know this argument
            anything.to(dtype=torch.float16, memory_format=torch.channels_last)
            layer.register_forward_pre_hook(before, with_kwargs=True)
            layer.register_forward_hook(after)
    return changed


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
