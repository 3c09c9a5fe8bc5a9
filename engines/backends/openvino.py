"""openvino: the default backend, for any CPU (and Intel GPUs as ``openvino:GPU``)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from engines.artefact import ArtefactKey, engine_file, read_artefact
from engines.backends.openvino_precision import Choice, fastest_float
from engines.backends.signal_stack import kept_signal_stack
from engines.base import Engine, Pixels, aligned_picture
from engines.errors import EngineError
from engines.graphs.rows import CELL_PX, in_rows
from engines.model import STATE_OUT_SUFFIX, FrameModel, Size
from engines.proof import Translate, compare
from engines.reduced_precision import made_picture
from engines.shared import Shared
from engines.twins import INT8, twin_path

if TYPE_CHECKING:
    import openvino


def import_openvino() -> Any:
    """Import openvino without its telemetry, which would contact Google Analytics unasked.

    openvino has a stub for the case that the package openvino_telemetry is not there.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@dataclass
class _Filter:
    """A compiled filter with what its engines say of it."""

    compiled: Any
    runs: FrameModel
    precision: str
    float_precision: str
    device: str
    engine_path: Path | None
    notes: tuple[str, ...]
    warm: bool = False
    """Whether a frame went through it."""


_FILTERS: Final[Shared[tuple[Any, ...], _Filter]] = Shared()


class OpenVinoEngine(Engine):
    """One infer request a frame under way; inputs and outputs stay in the caller's arrays.

    Engines of one process that were asked for the same have one compiled filter, with requests of
    their own. It computes one frame after the other as they were submitted (deeper ones: several at
    once): two engines take as long as two frames, and get the same pictures as alone.
    """

    name = "openvino"

    def __init__(self, model: Any, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self._device = device.upper() or "CPU"
        self._filter: _Filter | None = None
        self._requests: list[openvino.InferRequest] = []
        self._used: dict[int, tuple[openvino.Tensor, openvino.Tensor]] = {}
        self._started = 0
        self._finished = 0
        self._twin: FrameModel | None = None
        """The INT8 twin, where that is what runs."""
        self._states: dict[str, tuple[openvino.Tensor, openvino.Tensor]] = {}
        """Name -> what the next frame reads, and what it leaves for the one after it."""

    @classmethod
    def why_not(cls) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "the package openvino is not installed (pip install openvino)"
        return None

    def _open(self, size: Size) -> None:
        with kept_signal_stack():
            self._open_here(size)

    def _open_here(self, size: Size) -> None:
        if self._frame_model().states and self.depth > 1:
            self.notes.append("one frame at a time: each needs the state that the last one left")
            self.depth = 1
        found = _FILTERS.get(self._asked(size), lambda: self._make(size))
        self._filter = found
        self.precision, self.device = found.precision, found.device
        self.runs, self.float_precision = found.runs, found.float_precision
        self.engine_path = found.engine_path
        self.notes += found.notes
        self._requests = [found.compiled.create_infer_request() for _ in range(self.depth)]
        self._new_states(size)
        if found.warm:  # those who run it already are not kept waiting
            return
        # OpenVINO does not keep the arrays alive: they must outlive the request that writes them.
        picture, result = aligned_picture(*size[::-1]), aligned_picture(*size[::-1])
        for _ in self._requests:  # the first run allocates and compiles the last kernels
            self._submit(picture, result)
            self._collect(result)
        self._new_states(size)
        found.warm = True

    def _asked(self, size: Size) -> tuple[Any, ...]:
        """Return all that decides what `_make` makes; engines for which it is equal share it."""
        model = self._frame_model()
        beside = [engine_file(model.path, self.name, size), twin_path(model.path)]
        # The type: one that overrides `_read` compiles in another way.
        asked = type(self), self._device, self.asked_precision, self.depth, size
        return *asked, model.path.absolute(), model.sha256, *map(_stamp, beside)

    def _make(self, size: Size) -> _Filter:
        """Compile the filter, or take the compiled one that lies beside it."""
        said_before = len(self.notes)
        core, network = self._read(size)
        compiled = self._from_file(core, size)
        if compiled is None:
            compiled = _compile(core, network, self._device, self.precision, self.depth)
        device = f"{self._device}: {core.get_property(self._device, 'FULL_DEVICE_NAME')}"
        notes = tuple(self.notes[said_before:])
        del self.notes[said_before:]  # all who share it say them, this one too
        rest = fastest_float(core, self._device) if self._twin is not None else ""
        return _Filter(
            compiled, self._running(), self.precision, rest, device, self.engine_path, notes
        )

    def _read(self, size: Size) -> tuple[Any, Any]:
        """Choose the precision; return OpenVINO and the filter, or its twin, for ``size``."""
        core = import_openvino().Core()
        if self._device.split(".")[0] not in {
            item.split(".")[0] for item in core.available_devices
        }:
            raise EngineError(
                f"OpenVINO has no device {self._device!r} here, only {core.available_devices}"
            )
        choice = Choice(core, self._device, self.asked_precision)
        self._twin = choice.twin(self._frame_model())
        network = self._network(core, self._running(), size)
        self.precision = INT8
        if self._twin is None:
            self.precision = choice.floating_point(
                self._frame_model().card, lambda fast: self._measure(core, network, fast, size)
            )
        self.notes += choice.notes
        return core, network

    def _running(self) -> FrameModel:
        """Return what is compiled: the frame model, or its INT8 twin."""
        return self._twin or self._frame_model()

    def _network(self, core: Any, model: FrameModel, size: Size) -> Any:
        """Return OpenVINO's network of ``model``, for frames of ``size``."""
        rows = in_rows(model.graph()) if self._works_on_rows() else None
        try:
            network = core.read_model(model.path if rows is None else rows.SerializeToString())
            shapes = {name: zeros.shape for name, zeros in model.new_states(size).items()}
            width, height = size
            network.reshape({"frame": (1, height, width, 3), **shapes})
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot read {model.path}: {_last_line(error)}") from error
        return network

    def _works_on_rows(self) -> bool:
        """Whether `in_rows` is worth a look: it is of use to processors, and of such networks."""
        on_a_cpu = self._device.startswith("CPU")
        return on_a_cpu and self._twin is None and self._frame_model().card.stride == CELL_PX

    def compiled(self, size: Size) -> tuple[ArtefactKey, bytes]:
        """Compile for frames of ``size``, one at a time; return what `open` can take instead.

        The engine stays closed. `open` takes it from the file beside the model that
        `engines.artefact.engine_file` names, when the key is that of this machine.

        Raises:
            EngineError: as `open`.
        """
        with kept_signal_stack():
            core, network = self._read(size)
            blob = _compile(core, network, self._device, self.precision, 1).export_model()
            return self._key(core, size), blob.getvalue()

    def _key(self, core: Any, size: Size) -> ArtefactKey:
        return ArtefactKey(
            model_sha256=self._running().graph_sha256,
            smallest=size,
            best=size,
            largest=size,
            precision=self.precision,
            backend=self.name,
            backend_version=import_openvino().get_version(),
            device=core.get_property(self._device, "FULL_DEVICE_NAME"),
        )

    def _from_file(self, core: Any, size: Size) -> Any:
        """Return the compiled filter that lies beside the model, or None with a note why not."""
        path = engine_file(self._frame_model().path, self.name, size)
        if not path.exists():
            return None
        if self.depth > 1:
            self.notes.append(f"compiled for {self.depth} frames under way: {path.name} is for one")
            return None
        try:
            payload = read_artefact(path, self._key(core, size)).payload
            # Without the precision here it would run in the default one of the processor.
            found = core.import_model(
                payload, self._device, _config(core, self._device, self.precision)
            )
        except (EngineError, RuntimeError) as error:
            self.notes.append(f"compiled again, not {path.name}: {_last_line(error)}")
            return None
        self.notes.append(f"engine from {path.name}")
        self.engine_path = path
        return found

    def _measure(self, core: Any, network: Any, fast: str, size: Size) -> float:
        """Return the PSNR in dB of the fast precision against f32 on a made picture."""

        def translator(precision: str) -> Translate:
            request = _compile(core, network, self._device, precision, 1).create_infer_request()

            def translate(frame: Pixels) -> Pixels:
                request.infer({"frame": frame[None], **self._frame_model().new_states(size)})
                translated: Pixels = request.get_tensor("translated").data[0]
                return translated

            return translate

        return compare(translator("f32"), translator(fast), [made_picture(size)]).psnr_db

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        place = self._started % self.depth
        request = self._requests[place]
        try:
            tensors = _tensor(frame_in[None]), _tensor(frame_out[None])
            request.set_tensor("frame", tensors[0])
            request.set_tensor("translated", tensors[1])
            for name, (before, after) in self._states.items():
                request.set_tensor(name, before)
                request.set_tensor(name + STATE_OUT_SUFFIX, after)
            self._used[place] = tensors  # a request does not keep the memory alive
            request.start_async()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refused a frame: {_last_line(error)}") from error
        self._started += 1

    def _collect(self, frame_out: Pixels) -> None:
        request = self._requests[self._finished % self.depth]
        self._finished += 1
        try:
            request.wait()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on a frame: {_last_line(error)}") from error
        self._states = {name: (after, before) for name, (before, after) in self._states.items()}
        if self._frame_model().has_alpha:
            self.alpha = request.get_tensor("alpha").data[0]

    def _reset(self) -> None:
        self._new_states(self._opened())

    def _new_states(self, size: Size) -> None:
        states = self._frame_model().new_states(size)
        self._states = {
            name: (_tensor(zeros), _tensor(zeros.copy())) for name, zeros in states.items()
        }

    def _close(self) -> None:
        self._requests = []
        self._used = {}
        self._states = {}
        self._filter = None
        self._started = self._finished = 0


def _compile(core: Any, network: Any, device: str, precision: str, depth: int) -> Any:
    try:
        return core.compile_model(network, device, _config(core, device, precision, depth))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compile the filter: {_last_line(error)}") from error


def _config(core: Any, device: str, precision: str, depth: int = 1) -> dict[str, Any]:
    # In an INT8 network the convolutions say so themselves; this is for all else.
    rest = fastest_float(core, device) if precision == INT8 else precision
    config: dict[str, Any] = {
        # With four frames under way, throughput keeps the cores busy while frames come and go;
        # with two it is no faster than latency (0.99 on two cores, 181 rounds in turn).
        "PERFORMANCE_HINT": "LATENCY" if depth == 1 else "THROUGHPUT",
        "PERFORMANCE_HINT_NUM_REQUESTS": str(depth),
        "INFERENCE_PRECISION_HINT": rest,
    }
    if device.startswith("CPU"):
        # A pinned thread waits for its core while the other is free: unpinned ones are 1.0 to 1.9
        # times as fast on two cores that capture, display and encoding want too.
        config["ENABLE_CPU_PINNING"] = False
    return config


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _tensor(array: NDArray[Any]) -> openvino.Tensor:
    """Return a tensor on the memory of ``array``; cheaper to make than to look up (4 us)."""
    if not array.flags.writeable:  # OpenVINO shares writable memory only
        array = array.copy()
    tensor: openvino.Tensor = import_openvino().Tensor(array, shared_memory=True)
    return tensor


def _last_line(error: Exception) -> str:
    """OpenVINO puts its own source location first; the last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
