"""Engine: the contract between the live path and whatever computes a filter."""

from __future__ import annotations

import contextlib
import mmap
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.model import FrameModel, Size

if TYPE_CHECKING:
    from typing_extensions import Self

PRECISIONS = ("auto", "f32", "bf16", "f16", "int8")

Pixels = NDArray[np.uint8]
"""uint8, (H, W, 3), BGR, C-contiguous."""


class Engine(ABC):
    """Computes one filter at one size.

    Thread: any, one at a time. `close` may come in another thread than `open`: what a library ties
    to a thread is the backend's affair. Nothing is loaded before `open`.

    Ownership: the caller owns every array. ``frame_in`` must not change, and ``frame_out`` must
    not be read, between `submit` and the `collect` that returns it.

    The public methods check; backends fill in the methods with an underscore.
    """

    name: str = "engine"
    """The backend's name in the registry."""

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
        self.model = model
        self.asked_precision = precision
        self.asked_device = device
        self.notes: list[str] = []
        """What a person should know: why this backend, why a slower way was taken."""
        self.depth = 1
        """How many frames may be under way; `open` may lower what was asked for."""
        self.device = ""
        self.precision = ""
        self.runs: Any = model
        """What `open` took: ``model``, or its INT8 twin."""
        self.float_precision = ""
        """What is not in INT8 is computed in this: ``precision``, or what a backend that runs INT8
        says of the rest; empty where it says nothing."""
        self.size: Size | None = None
        self.engine_path: Path | None = None
        """The engine file that `open` took; None when the engine was compiled now, or comes from
        the cache, or this backend has no such files."""
        self.alpha: Pixels | None = None
        """uint8 (H, W, 1) of the frame that `collect` returned, where the model has this output;
        valid until the next `submit`."""
        self._pending: list[tuple[Pixels, Pixels]] = []
        self._notes_of_open: list[str] = []

    @classmethod
    @abstractmethod
    def why_not(cls) -> str | None:
        """Return None when this backend can run here, else the reason and what to install."""

    def fit(self, size: Size) -> Size:
        """Return the nearest (width, height) that the model takes."""
        return self.model.fit(size) if isinstance(self.model, FrameModel) else size

    def open(self, size: Size, *, depth: int = 1) -> None:
        """Load and warm up for frames of ``size`` (width, height).

        ``depth`` above 1 trades age for throughput: for files, not for cameras.

        Raises:
            EngineError: the backend is missing, or refuses the model or the size; the engine
                stays closed and can be opened again.
        """
        if self.size is not None:
            raise EngineError(f"{self.name} is open already; close it first")
        reason = self.why_not()
        if reason is not None:
            raise EngineError(f"the backend {self.name!r} cannot run here: {reason}")
        if depth < 1 or min(size) < 1:
            raise EngineError(f"size and depth must be 1 or more, found {size} and {depth}")
        fitting = self.fit(size)
        if fitting != size:
            raise EngineError(
                f"the filter takes {fitting[0]}x{fitting[1]}, not {size[0]}x{size[1]}"
                " (Engine.fit gives the nearest size)"
            )
        self.depth = depth
        # Opened again: only what is true now is said.
        self.notes[:] = [note for note in self.notes if note not in self._notes_of_open]
        said_before = len(self.notes)
        self.engine_path = None
        self.runs, self.float_precision = self.model, ""
        try:
            self._open(size)
        except BaseException:
            self._close()
            self.engine_path = None
            raise
        finally:
            self._notes_of_open = self.notes[said_before:]
        self.size, self.alpha = size, None
        if not self.float_precision and self.precision != "int8":
            self.float_precision = self.precision

    def slots(self, count: int) -> list[Pixels]:
        """Allocate ``count`` pictures (H, W, 3) in the memory that this device reads fastest."""
        width, height = self._opened()
        return [aligned_picture(height, width) for _ in range(count)]

    def submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        """Start translating ``frame_in`` into ``frame_out``; both uint8 (H, W, 3) BGR.

        Raises:
            EngineError: an array does not fit, or `depth` frames are under way already.
        """
        width, height = self._opened()
        for name, picture in (("frame_in", frame_in), ("frame_out", frame_out)):
            if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
                raise EngineError(
                    f"{name} must be uint8 {(height, width, 3)}, found {picture.dtype}"
                    f" {picture.shape}"
                )
            if not picture.flags.c_contiguous:
                raise EngineError(f"{name} must be C-contiguous; numpy.ascontiguousarray helps")
        if not frame_out.flags.writeable:
            raise EngineError("frame_out is read-only")
        if np.may_share_memory(frame_in, frame_out):
            raise EngineError("frame_out must not be frame_in: the filter reads around each pixel")
        if len(self._pending) >= self.depth:
            raise EngineError(f"{self.depth} frames are under way already: collect first")
        self._submit(frame_in, frame_out)
        self._pending.append((frame_in, frame_out))

    def collect(self) -> Pixels:
        """Wait for the oldest submitted frame and return its ``frame_out``."""
        if not self._pending:
            raise EngineError("nothing was submitted")
        _, frame_out = self._pending[0]
        try:
            self._collect(frame_out)
        finally:
            del self._pending[0]
        return frame_out

    @property
    def pending(self) -> int:
        """How many frames are under way."""
        return len(self._pending)

    def infer(self, frame_in: Pixels, frame_out: Pixels | None = None) -> Pixels:
        """Submit and collect one frame; allocates ``frame_out`` when none is given."""
        if self._pending:
            raise EngineError("infer is for one frame at a time: collect what is under way first")
        if frame_out is None:
            frame_out = np.empty_like(frame_in)
        self.submit(frame_in, frame_out)
        return self.collect()

    def reset(self) -> None:
        """Forget earlier frames: a new clip begins. Frames under way are finished first."""
        self._opened()
        while self._pending:
            self.collect()
        self._reset()

    def close(self) -> None:
        """Free the device. Safe to call twice, or before `open`."""
        try:
            while self._pending:
                with contextlib.suppress(EngineError):  # nobody waits for these pictures
                    self.collect()
        finally:
            self.size = self.alpha = None
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> Size:
        if self.size is None:
            raise EngineError(f"{self.name} is not open")
        return self.size

    def _frame_model(self) -> FrameModel:
        if not isinstance(self.model, FrameModel):
            raise EngineError(
                f"{self.name} runs frame models (.onnx), found {type(self.model).__name__}"
            )
        return self.model

    @abstractmethod
    def _open(self, size: Size) -> None: ...

    @abstractmethod
    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None: ...

    @abstractmethod
    def _collect(self, frame_out: Pixels) -> None: ...

    def _reset(self) -> None:
        """Nothing to forget, unless a backend keeps state."""

    @abstractmethod
    def _close(self) -> None: ...


def aligned_picture(height: int, width: int) -> Pixels:
    """Return a zeroed uint8 (H, W, 3) picture that starts on a memory page.

    Devices take page-aligned memory without a copy of their own.
    """
    count = height * width * 3
    raw = np.zeros(count + mmap.PAGESIZE, dtype=np.uint8)
    start = -raw.ctypes.data % mmap.PAGESIZE
    return raw[start : start + count].reshape(height, width, 3)
