"""From a frame model to a TensorRT plan: parse, choose sizes and GPUs, build, report the types.

The types are in the graph (strongly typed networks): a plan is as much FP16 as its model.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines.artefact import replace_file
from engines.errors import ConversionError
from engines.model import Size
from engines.nvidia import tensorrt_api
from engines.nvidia.tensorrt_quantisation import other_quantisation

if TYPE_CHECKING:
    import onnx

FRAME: Final = "frame"
CURRENT: Final = "current"
OPTIMIZATION_LEVELS: Final = range(6)
HALF_TYPES: Final = ("f16", "bf16")
TYPE_NAMES: Final = {
    "FLOAT": "f32",
    "HALF": "f16",
    "UINT8": "u8",
    "INT8": "i8",
    "INT32": "i32",
    "INT64": "i64",
}
"""TensorRT's names of data types -> ours; others are its own, in lower case."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a build is. Phases are nested: the outermost has ``depth`` 0 and tells of the whole."""

    phase: str
    step: int
    """0 when the phase begins, ``steps`` when it is done."""
    steps: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled engine as TensorRT serialised it, and what a person should know about it."""

    data: bytes
    layers: dict[str, dict[str, int]]
    """Layer type -> {data type of its output -> how many}, of the network before TensorRT's own
    optimiser fused it: ``{"convolution": {"f16": 23}, "cast": {"f16": 1, "u8": 1}}``."""
    fp32_layers: tuple[str, ...] = ()
    """Names of the FP32 layers between FP16 ones, casts left out: islands that cost time."""
    notes: tuple[str, ...] = ()
    """What was asked for and was not done, one line each."""


def capabilities(backend: str) -> list[str]:
    """Return the compute capabilities that `build_plan` takes: ``7.5``, ..., ``current``.

    Empty for the full TensorRT, which builds for the GPU that is there and for no other.

    Raises:
        EngineError: the package of ``backend`` is missing.
    """
    return list(_targets(backend))


def build_plan(
    backend: str,
    model: onnx.ModelProto,
    *,
    smallest: Size,
    best: Size,
    largest: Size,
    compute_capabilities: Sequence[str] = (),
    timing_cache: Path | None = None,
    progress: Callable[[Progress], bool] | None = None,
    optimization_level: int | None = None,
) -> Plan:
    """Compile a frame model. Ctrl-C ends it at the next step of the build.

    What is FP32 in the graph is computed in FP32: TF32, which NVIDIA GPUs from 8.0 on take for it
    unasked (10 bits of mantissa instead of 23), is off.

    Args:
        backend: ``tensorrt`` (needs the GPU that will run it) or ``tensorrt-rtx`` (needs none).
        model: frames in, frames out, see `engines.model`; states too. It is not changed.
        smallest: (width, height). With all three the same the plan takes this size only.
        best: what TensorRT optimises for.
        largest: the plan takes every size from ``smallest`` to this one.
        compute_capabilities: for ``tensorrt-rtx``, out of `capabilities`: the GPUs that the plan
            is for. None: every GPU from 8.0 on; ``current``: the one that is here.
        timing_cache: for ``tensorrt``: a file where it keeps how fast its kernels were here, so
            that the next build is faster. Made when it is missing or does not fit.
        progress: called from the thread that builds; returns False to cancel.
        optimization_level: 0 (builds fast) to 5; None is TensorRT's own default.

    Raises:
        ConversionError: TensorRT cannot build this model, these sizes or these GPUs, or
            ``progress`` returned False.
        EngineError: the package of ``backend`` is missing.
    """
    trt = tensorrt_api.load(backend)
    messages = tensorrt_api.messages(backend)
    _check_sizes(smallest, best, largest)
    targets = _chosen_targets(backend, compute_capabilities)
    if optimization_level is not None and optimization_level not in OPTIMIZATION_LEVELS:
        raise ConversionError(f"the optimisation level must be 0 to 5, found {optimization_level}")
    with tensorrt_api.interrupt_after() as interrupted:
        mark = messages.mark()
        try:
            builder = trt.Builder(messages.logger)
        except (TypeError, RuntimeError) as error:  # pybind11 says only that it got no builder
            reason = messages.words(mark) if messages.since(mark) else "it found no GPU to use"
            raise ConversionError(f"{backend} cannot build on this machine: {reason}") from error
        network = _parsed(trt, backend, builder, messages, model)
        config = builder.create_builder_config()
        # So that the inspector of the engine tells the types of its layers, too.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if optimization_level is not None:
            config.builder_optimization_level = optimization_level
        if targets:
            _set_targets(config, targets)
        _set_sizes(builder, config, network, model, (smallest, best, largest))
        monitor = _monitor(trt, progress, interrupted)
        config.progress_monitor = monitor
        notes: list[str] = []
        timings = None
        if timing_cache is not None and backend == "tensorrt":
            timings = _attach_timing_cache(config, timing_cache)
        elif timing_cache is not None:
            notes.append(f"no timing cache: {backend} does not time kernels when it builds")
        mark = messages.mark()
        data = None if interrupted.is_set() else builder.build_serialized_network(network, config)
        if monitor.raised is not None:
            raise monitor.raised
        if monitor.cancelled or (data is None and interrupted.is_set()):
            raise ConversionError("cancelled: nothing was built")
        if data is None:
            raise ConversionError(f"{backend} cannot build this model: {messages.words(mark)}")
        if timings is not None and timing_cache is not None:
            notes += _save_timing_cache(timings, timing_cache)
        layers, islands = _types(network)
        return Plan(bytes(data), layers, islands, tuple(notes))


def _check_sizes(smallest: Size, best: Size, largest: Size) -> None:
    for low, middle, high, name in zip(smallest, best, largest, ("widths", "heights")):
        if not 1 <= low <= middle <= high:
            raise ConversionError(
                f"the {name} must be 1 or more and rise from the smallest to the largest size,"
                f" found {low}, {middle}, {high}"
            )


def _targets(backend: str) -> dict[str, Any]:
    """Compute capability as people write it -> TensorRT's member."""
    trt = tensorrt_api.load(backend)
    if backend == "tensorrt":
        return {}
    members = trt.ComputeCapability.__members__
    found = {
        f"{name[2:-1]}.{name[-1]}": member
        for name, member in members.items()
        if re.fullmatch(r"SM\d{2,}", name)
    }
    return found | ({CURRENT: members["CURRENT"]} if "CURRENT" in members else {})


def _chosen_targets(backend: str, asked: Sequence[str]) -> list[Any]:
    if not asked:
        return []
    known = _targets(backend)
    if not known:
        raise ConversionError(
            f"{backend} builds for the GPU that is here and for no other, found --gpu"
            f" {','.join(asked)}: leave it out, or take tensorrt-rtx"
        )
    wrong = [name for name in asked if name not in known]
    if wrong:
        raise ConversionError(
            f"{backend} {tensorrt_api.version(backend)} cannot build for {', '.join(wrong)};"
            f" it has: {', '.join(known)}. For other GPUs take tensorrt, on the machine that has"
            " the GPU"
        )
    if CURRENT in asked and len(set(asked)) > 1:
        raise ConversionError(f"'{CURRENT}' is the GPU that is here, and goes with no other")
    return [known[name] for name in dict.fromkeys(asked)]


def _set_targets(config: Any, targets: Sequence[Any]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        if not config.set_compute_capability(target, index):
            raise ConversionError(f"TensorRT refused the compute capability {target.name}")


def _parsed(
    trt: Any, backend: str, builder: Any, messages: tensorrt_api.Messages, model: onnx.ModelProto
) -> Any:
    if reason := other_quantisation(model):
        raise ConversionError(f"{backend} cannot read this model: {reason}")
    # From TensorRT 11 on every network is strongly typed, and the flag says nothing new.
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, messages.logger)
    mark = messages.mark()
    if parser.parse(model.SerializeToString()):
        return network
    if not parser.num_errors:
        raise ConversionError(f"{backend} cannot read this model: {messages.words(mark)}")
    raise ConversionError(f"{backend} cannot read {_parser_words(parser.get_error(0), model)}")


def _parser_words(error: Any, model: onnx.ModelProto) -> str:
    operator, name = error.node_operator(), error.node_name()
    if not operator:
        return f"this model: {tensorrt_api.words_for(error.desc())}"
    nodes, index = model.graph.node, error.node()
    if 0 <= index < len(nodes) and nodes[index].op_type == operator and nodes[index].output:
        name = name or nodes[index].output[0]  # many exporters name no nodes
    lines = [x for x in error.desc().splitlines() if not x.startswith("Invalid Node - ")]
    reason = tensorrt_api.words_for("\n".join(lines))
    if reason == "false" or "Plugin not found" in reason:  # what its parser says of those
        reason = f"it has no operator {operator}; express it by other operators"
    reason = re.sub(r"^Assertion failed: .+?: (?=[A-Z])", "", reason)  # the C++ that failed
    if "uint8" in reason.lower():
        reason += "; a picture of uint8 can only be cast, to float32 first"
    return f"the node {name or index!r} ({operator}): {reason}"


def _set_sizes(
    builder: Any, config: Any, network: Any, model: onnx.ModelProto, sizes: Sequence[Size]
) -> None:
    """Fix every input at one size, or give the builder a range; states follow the frame."""
    described = {item.name: item.type.tensor_type.shape.dim for item in model.graph.input}
    if FRAME not in described or len(described[FRAME]) != 4:
        raise ConversionError(f"this is no frame model: it has no input '{FRAME}' (1, H, W, 3)")
    frame = [dim.dim_value or dim.dim_param for dim in described[FRAME][1:3]]
    for size in sizes:
        if any(isinstance(side, int) and side != n for side, n in zip(frame, reversed(size))):
            raise ConversionError(
                f"the model takes {frame[1]}x{frame[0]} only, not {size[0]}x{size[1]}"
            )
    profile, is_dynamic = builder.create_optimization_profile(), False
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        name, dims = tensor.name, described[tensor.name]
        if name == FRAME:
            shapes = [(1, size[1], size[0], 3) for size in sizes]
        else:
            sides = [dim.dim_value or dim.dim_param for dim in dims]
            shapes = [
                tuple(_length(name, side, frame, size) for side in sides)  # type: ignore[misc]
                for size in sizes
            ]
        if shapes[0] == shapes[-1]:
            tensor.shape = shapes[0]
        else:
            is_dynamic = True
            profile.set_shape(name, *shapes)
    if is_dynamic and config.add_optimization_profile(profile) < 0:
        raise ConversionError(f"TensorRT refused the sizes {sizes}")


def _length(name: str, side: int | str, frame: Sequence[int | str], size: Size) -> int:
    """Return a side of a state for one size of the frame; as `FrameModel.new_states` does."""
    if isinstance(side, int):
        return side
    part = re.fullmatch(r"(.+?)(?://?([1-9]\d*))?", side)
    if part is None or part[1] not in frame:
        raise ConversionError(
            f"the side {side!r} of the state {name!r} is neither a number nor a part of the"
            f" frame's {tuple(frame)}"
        )
    return size[1 - frame.index(part[1])] // int(part[2] or 1)


def _monitor(
    trt: Any, progress: Callable[[Progress], bool] | None, interrupted: threading.Event
) -> Any:
    """Return TensorRT's progress monitor; ``cancelled`` and ``raised`` say how it ended."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base comes from the package
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self.raised: BaseException | None = None
            self._lock = threading.Lock()  # TensorRT may build in several threads
            self._phases: dict[str, tuple[int, int, int]] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            depth = self._phases[parent][1] + 1 if parent in self._phases else 0
            self._phases[phase] = (steps, depth, -1)
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            return self._tell(phase, step + 1)

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self._phases[phase][0])  # some phases leave the last step to this

        def _tell(self, phase: str, step: int) -> bool:
            """Return whether the build goes on. Nothing may be raised into C++: it is lost."""
            with self._lock:
                if interrupted.is_set() or self.cancelled or self.raised is not None:
                    return False
                steps, depth, said = self._phases[phase]
                self._phases[phase] = (steps, depth, step)
                if progress is None or step == said:
                    return True
                try:
                    self.cancelled = progress(Progress(phase, step, steps, depth)) is False
                except BaseException as error:  # noqa: BLE001  # raised again after the build
                    self.raised = error
                return not self.cancelled and self.raised is None

    return Monitor()


def _attach_timing_cache(config: Any, path: Path) -> Any:
    """Return the timing cache of the build: from the file if it fits this GPU, else a new one."""
    try:
        known = path.read_bytes()
    except OSError:
        known = b""
    timings = config.create_timing_cache(known)
    if timings is None or not config.set_timing_cache(timings, False):
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    return timings


def _save_timing_cache(timings: Any, path: Path) -> list[str]:
    """Return what to say when it cannot be kept: that is no reason to lose the plan."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [bytes(timings.serialize())])
    except OSError as error:
        return [f"the timing cache {path} was not written: {error.strerror}"]
    return []


def _types(network: Any) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Return `Plan.layers` and `Plan.fp32_layers` of a parsed network."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    counts: dict[str, Counter[str]] = {}
    from_half: set[str] = set()  # FP32 tensors that an FP16 one was turned into
    for layer in layers:
        outputs = _outputs(layer)
        if outputs:
            kind = layer.type.name.lower()
            counts.setdefault(kind, Counter())[_type_name(outputs[0])] += 1
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        given = [tensor for tensor in inputs if tensor is not None]
        if any(_type_name(x) in HALF_TYPES or x.name in from_half for x in given):
            from_half |= {x.name for x in outputs if _type_name(x) == "f32"}
    islands: list[str] = []
    to_half: set[str] = set()  # tensors that an FP16 one is made of
    for layer in reversed(layers):
        outputs = _outputs(layer)
        is_f32 = any(_type_name(x) == "f32" for x in outputs)
        feeds_half = any(_type_name(x) in HALF_TYPES for x in outputs)
        if not feeds_half and not (is_f32 and any(x.name in to_half for x in outputs)):
            continue
        if is_f32 and layer.type.name != "CAST" and any(x.name in from_half for x in outputs):
            islands.append(layer.name)
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        to_half |= {x.name for x in inputs if x is not None}
    return {kind: dict(found) for kind, found in counts.items()}, tuple(reversed(islands))


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(index) for index in range(layer.num_outputs)]


def _type_name(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return TYPE_NAMES.get(name, name.lower())
