"""Real engines of TensorRT for RTX, which are built without a GPU; running them is another test."""

from __future__ import annotations

import ast
import importlib.util
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto as T

from engines.errors import ConversionError, EngineError
from engines.nvidia import tensorrt_api
from engines.nvidia.tensorrt_builder import Plan, Progress, build_plan, capabilities

ROOT = Path(__file__).resolve().parents[2]
RTX = "tensorrt-rtx"
SIZE = (64, 48)
FIXED: dict[str, Any] = {"smallest": SIZE, "best": SIZE, "largest": SIZE}
RANGE: dict[str, Any] = {"smallest": (32, 32), "best": SIZE, "largest": (128, 96)}

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
needs_no_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="the full tensorrt is installed"
)
needs_no_driver = pytest.mark.skipif(
    tensorrt_api.has_driver_library(), reason="there is an NVIDIA driver here"
)


def half() -> onnx.ModelProto:
    """Two FP16 convolutions with an FP32 normalisation between them, and FP32 at both ends."""
    kernels = np.random.default_rng(3).standard_normal((3, 3, 3, 3)).astype(np.float16) / 9

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return models.node(kind, inputs, output, name=f"{kind} {output}", **attributes)

    return models.graph(
        [
            node("Cast", ["frame"], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
            node("Mul", ["planes", "scale"], "scaled"),
            node("Cast", ["scaled"], "scaled_half", to=T.FLOAT16),
            node("Conv", ["scaled_half", "kernels"], "conv1", pads=[1, 1, 1, 1]),
            node("Cast", ["conv1"], "conv1_single", to=T.FLOAT),
            node("InstanceNormalization", ["conv1_single", "gain", "bias"], "normal"),
            node("Cast", ["normal"], "normal_half", to=T.FLOAT16),
            node("Conv", ["normal_half", "kernels"], "conv2", pads=[1, 1, 1, 1]),
            node("Cast", ["conv2"], "conv2_single", to=T.FLOAT),
            node("Tanh", ["conv2_single"], "tanh"),
            node("Clip", ["tanh", "black", "white"], "clipped"),
            node("Transpose", ["clipped"], "pixels", perm=[0, 2, 3, 1]),
            node("Cast", ["pixels"], "translated", to=T.UINT8),
        ],
        [
            models.constant("scale", 1 / 255),
            models.constant("kernels", kernels, np.float16),
            models.constant("gain", np.ones(3)),
            models.constant("bias", np.zeros(3)),
            models.constant("black", 0),
            models.constant("white", 255),
        ],
    )


def _count(plan: Plan, data_type: str) -> int:
    return sum(types.get(data_type, 0) for types in plan.layers.values())


@needs_rtx
def test_types_come_from_the_graph_and_are_reported() -> None:
    single = build_plan(RTX, models.blurring(), **FIXED)
    assert single.layers["convolution"] == {"f32": 1}
    assert single.layers["cast"] == {"f32": 1, "u8": 1}
    assert _count(single, "f16") == 0
    assert single.fp32_layers == single.notes == ()

    mixed = build_plan(RTX, half(), **FIXED)
    assert mixed.layers["convolution"] == {"f16": 2}
    assert mixed.layers["normalization"] == {"f32": 1}
    assert mixed.layers["activation"]["f32"] == 2, "Tanh and Clip"
    # Scale, tanh and clip are FP32 too, but at the ends: nothing goes back to FP16.
    assert [name.split()[0] for name in mixed.fp32_layers] == ["InstanceNormalization"]
    assert mixed.data != single.data


@needs_rtx
def test_an_fp16_model_without_islands_has_none() -> None:
    model = half()
    (norm,) = (node for node in model.graph.node if node.op_type == "InstanceNormalization")
    norm.op_type, norm.input[:] = "Relu", ["conv1"]
    model.graph.node.remove(next(x for x in model.graph.node if "conv1_single" in x.output))
    back = next(x for x in model.graph.node if "normal_half" in x.output)
    norm.output[0] = "normal_half"
    model.graph.node.remove(back)
    plan = build_plan(RTX, model, **FIXED)
    assert plan.layers["convolution"] == {"f16": 2}
    assert plan.fp32_layers == ()


@needs_rtx
@pytest.mark.parametrize("model", [models.blurring, half])
def test_fp32_is_not_tf32(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = tensorrt_api.load(RTX)
    configs: list[Any] = []

    class Builder(trt.Builder):  # type: ignore[misc]
        def create_builder_config(self) -> Any:
            configs.append(super().create_builder_config())
            assert configs[-1].get_flag(trt.BuilderFlag.TF32), "TensorRT's own default"
            return configs[-1]

    monkeypatch.setattr(trt, "Builder", Builder)
    build_plan(RTX, model(), **FIXED)
    assert [config.get_flag(trt.BuilderFlag.TF32) for config in configs] == [False]


@needs_rtx
def test_a_plan_is_of_its_sizes() -> None:
    """One size is the same plan whether the graph or the caller fixes it; others differ."""
    fixed = build_plan(RTX, models.blurring(), **FIXED)
    assert build_plan(RTX, models.blurring(), **FIXED).data == fixed.data
    other = (128, 96)
    larger = build_plan(RTX, models.blurring(), smallest=other, best=other, largest=other)
    dynamic = build_plan(RTX, models.blurring(), **RANGE)
    wider = build_plan(RTX, models.blurring(), **{**RANGE, "largest": (256, 96)})
    assert len({fixed.data, larger.data, dynamic.data, wider.data}) == 4
    in_graph = build_plan(RTX, models.inverting((48, 64)), **FIXED)
    assert in_graph.data == build_plan(RTX, models.inverting(), **FIXED).data


@needs_rtx
@pytest.mark.parametrize("model", [models.running_mean, models.counting_in_cells])
def test_states_follow_the_frame(model: Any) -> None:
    fixed, dynamic = (build_plan(RTX, model(), **sizes) for sizes in (FIXED, RANGE))
    assert fixed.data != dynamic.data
    assert fixed.layers == dynamic.layers


@needs_rtx
def test_a_state_of_another_size_is_refused() -> None:
    model = models.running_mean()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "rows"
    with pytest.raises(ConversionError, match=r"the side 'rows' of the state 'state_mean' is neit"):
        build_plan(RTX, model, **RANGE)


@needs_rtx
def test_a_fixed_model_takes_its_size_only() -> None:
    with pytest.raises(ConversionError, match=r"^the model takes 64x48 only, not 32x32$"):
        build_plan(RTX, models.inverting((48, 64)), **RANGE)


@needs_rtx
@pytest.mark.parametrize(
    "sizes", [((64, 64), (32, 64), (64, 64)), ((0, 8), (8, 8), (8, 8)), ((8, 8), (8, 9), (8, 8))]
)
def test_sizes_must_rise(sizes: Any) -> None:
    smallest, best, largest = sizes
    with pytest.raises(ConversionError, match="must be 1 or more and rise from the smallest"):
        build_plan(RTX, models.inverting(), smallest=smallest, best=best, largest=largest)


@needs_rtx
def test_targets_decide_the_plan() -> None:
    known = capabilities(RTX)
    assert {"8.6", "8.9", "12.0", "current"} <= set(known)
    assert "9.0" not in known
    assert capabilities("tensorrt") == [] if importlib.util.find_spec("tensorrt") else True
    plans = [
        build_plan(RTX, models.blurring(), **FIXED, compute_capabilities=targets).data
        for targets in ((), ("8.6",), ("8.6", "8.9"))
    ]
    assert len(set(plans)) == 3
    again = build_plan(RTX, models.blurring(), **FIXED, compute_capabilities=("8.6", "8.6"))
    assert again.data == plans[1]


@needs_rtx
@pytest.mark.parametrize("target", ["9.0", "8.7", "8", "", "SM86"])
def test_a_gpu_that_is_not_listed_is_refused_with_the_list(target: str) -> None:
    with pytest.raises(ConversionError) as caught:
        build_plan(RTX, models.inverting(), **FIXED, compute_capabilities=("8.6", target))
    said = str(caught.value)
    assert said.startswith(f"{RTX} {tensorrt_api.version(RTX)} cannot build for {target};")
    assert "it has: " + ", ".join(capabilities(RTX)) in said
    with pytest.raises(ConversionError, match="goes with no other"):
        build_plan(RTX, models.inverting(), **FIXED, compute_capabilities=("8.6", "current"))


@needs_rtx
@needs_no_driver
def test_the_gpu_that_is_here_needs_a_driver() -> None:
    with pytest.raises(ConversionError, match="cannot build this model: there is no NVIDIA driver"):
        build_plan(RTX, models.inverting(), **FIXED, compute_capabilities=("current",))


@needs_rtx
@needs_no_driver
def test_a_plan_without_a_driver_is_refused_in_one_clear_line() -> None:
    plan = build_plan(RTX, models.inverting(), **FIXED).data
    messages = tensorrt_api.messages(RTX)
    runtime = tensorrt_api.load(RTX).Runtime(messages.logger)
    for data, words in (
        (plan, "there is no NVIDIA driver here (libcuda.so.1 is missing): install one"),
        (plan[:5000], "the engine is cut off: build it again"),
        (b"x" * 5000, "the engine is of another version of TensorRT, or is no engine at all"),
    ):
        mark = messages.mark()
        assert runtime.deserialize_cuda_engine(data) is None
        assert words in messages.words(mark)
        assert "\n" not in messages.words(mark)
        assert messages.errors(mark), "what it said itself is kept for reports"


def _with(**changes: Any) -> onnx.ModelProto:
    """The inverting filter with its subtraction made something else."""
    model = models.inverting()
    node = model.graph.node[1]
    if "inputs" in changes:
        node.input[:] = changes["inputs"]
    node.op_type = changes.get("kind", node.op_type)
    node.name = changes.get("name", "")
    return model


def _renamed() -> onnx.ModelProto:
    model = models.inverting()
    model.graph.input[0].name = model.graph.node[0].input[0] = "photo"
    return model


PARSER: dict[str, tuple[Any, str]] = {
    "no such operator": (
        lambda: _with(kind="Nonesuch"),
        "cannot read the node 'inverted' (Nonesuch): it has no operator Nonesuch; express it by",
    ),
    "an operator that it lacks": (
        lambda: _with(kind="StringSplit", name="split"),
        "node 'split' (StringSplit): it has no operator StringSplit; express it by other operators",
    ),
    "uint8 without a cast": (
        lambda: _with(inputs=["frame", "levels"]),
        "are of types UInt8 and Float.); a picture of uint8 can only be cast, to float32 first",
    ),
    "a slice of uint8": (models.with_alpha, "(Slice): Found unsupported input type of UINT8;"),
    "a tensor that nobody makes": (
        lambda: _with(inputs=["nothing", "white"]),
        "cannot read the node 'inverted' (Sub): Node input was not registered.",
    ),
    "no frame model": (_renamed, "this is no frame model: it has no input 'frame' (1, H, W, 3)"),
    "an empty graph": (onnx.ModelProto, "this is no frame model: it has no input 'frame'"),
}


@needs_rtx
@pytest.mark.parametrize("name", PARSER)
def test_what_cannot_be_read_is_named(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, words = PARSER[name]
    with pytest.raises(ConversionError) as caught:
        build_plan(RTX, make(), **FIXED)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "its messages are collected, not printed"


@needs_rtx
def test_progress_tells_of_every_phase_once_a_step() -> None:
    seen: list[Progress] = []

    def progress(step: Progress) -> bool:
        seen.append(step)
        return True

    plan = build_plan(RTX, models.blurring(), **FIXED, progress=progress)
    assert plan.data == build_plan(RTX, models.blurring(), **FIXED).data
    whole = [step for step in seen if step.depth == 0]
    steps = whole[0].steps
    assert [step.step for step in whole] == list(range(steps + 1))
    assert {step.phase for step in whole} == {whole[0].phase}
    assert max(step.depth for step in seen) > 1
    assert all(0 <= step.step <= step.steps for step in seen)


class Stopped(Exception):  # noqa: N818  # not an error: how this test ends a build
    pass


@needs_rtx
@pytest.mark.parametrize("call", [1, 20])
def test_progress_can_cancel(call: int, capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[Progress] = []

    def cancel(step: Progress) -> bool:
        calls.append(step)
        return len(calls) < call

    def fail(step: Progress) -> bool:
        if not cancel(step):
            raise Stopped
        return True

    with pytest.raises(ConversionError, match=r"^cancelled: nothing was built$"):
        build_plan(RTX, models.blurring(), **FIXED, progress=cancel)
    assert len(calls) == call, "nobody is asked again"
    calls.clear()
    with pytest.raises(Stopped):
        build_plan(RTX, models.blurring(), **FIXED, progress=fail)
    assert len(calls) == call
    assert capfd.readouterr() == ("", "")
    assert build_plan(RTX, models.blurring(), **FIXED).data, "the next build is not affected"


def _interrupt(step: Progress) -> bool:
    if step.depth == 1:
        signal.raise_signal(signal.SIGINT)
    return True


@needs_rtx
def test_ctrl_c_ends_a_build(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_plan(RTX, models.blurring(), **FIXED, progress=_interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr() == ("", "")
    assert build_plan(RTX, models.blurring(), **FIXED).data


@pytest.fixture
def pressed() -> Iterator[list[int]]:
    """A handler of the caller's own, which raises nothing."""
    seen: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGINT, handler)
    yield seen
    signal.signal(signal.SIGINT, before)


@needs_rtx
def test_a_handler_of_the_caller_is_called_and_stays(pressed: list[int]) -> None:
    mine = signal.getsignal(signal.SIGINT)
    with pytest.raises(ConversionError, match="cancelled"):
        build_plan(RTX, models.blurring(), **FIXED, progress=_interrupt)
    assert pressed == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is mine


@needs_rtx
def test_threads_build_side_by_side() -> None:
    together = threading.Barrier(2)

    def build(model: onnx.ModelProto) -> Plan:
        together.wait(30)
        return build_plan(RTX, model, **FIXED)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(build, model) for model in (models.blurring(), half())]
        single, mixed = (job.result(60) for job in jobs)
    assert single.data == build_plan(RTX, models.blurring(), **FIXED).data
    assert mixed.layers["convolution"] == {"f16": 2}


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import test_cache
import models
from engines.cache import EngineCache
from engines.nvidia.tensorrt_builder import build_plan

def progress(step):
    if step.depth == 1 and step.step == 1:
        print("building", flush=True)
        sys.stdin.readline()  # until the signal was sent
    return True

def build():
    size = (64, 48)
    plan = build_plan("tensorrt-rtx", models.blurring(), smallest=size, best=size, largest=size,
                      progress=progress)
    print("built", flush=True)
    return plan.data, {}

EngineCache(Path(sys.argv[1])).get_or_build(test_cache.KEY, build)
print("kept", flush=True)
"""


def _paths() -> list[str]:
    return [str(ROOT), str(Path(__file__).parent)]


@needs_rtx
def test_sigint_from_outside_ends_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), *_paths()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    child.send_signal(signal.SIGINT)
    said, errors = child.communicate("sent\n", timeout=30)
    assert child.returncode == -signal.SIGINT
    assert said == ""
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Exception caught in" not in errors, "nothing was raised into C++"
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


STAND_IN = """
import tensorrt_rtx
from tensorrt_rtx import *
from tensorrt_rtx import __version__

class Builder(tensorrt_rtx.Builder):
    def create_network(self, flags):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED), flags
        return super().create_network(flags)
"""
NO_GPU = """
class Builder:
    def __init__(self, logger):
        logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35. Please check")
        raise TypeError("pybind11::init(): factory function returned nullptr")
"""
BUILD = """
import sys
sys.path[:0] = sys.argv[2:]
import models
from pathlib import Path
from engines.errors import ConversionError
from engines.nvidia.tensorrt_builder import build_plan, capabilities
size = (64, 48)
timings = Path(sys.argv[1])
assert capabilities("tensorrt") == []
for targets in ((), ("8.6",)):
    try:
        plan = build_plan("tensorrt", models.blurring(), smallest=size, best=size, largest=size,
                          compute_capabilities=targets, timing_cache=timings)
        print(len(plan.data) > 1000, plan.notes)
    except ConversionError as error:
        print(error)
"""


def _as_full(stand_in: str, timings: Path) -> list[str]:
    """Run with TensorRT for RTX under the name of the full one, which builds on a GPU only."""
    package = timings.parent / "packages" / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(stand_in)
    command = [sys.executable, "-c", BUILD, str(timings), str(package.parent), *_paths()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_rtx
@needs_no_tensorrt
def test_the_full_tensorrt_keeps_its_timings_and_takes_no_targets(tmp_path: Path) -> None:
    """TensorRT for RTX still has the calls of the timing cache, with nothing behind them.

    The stand-in also sees to the flag without which TensorRT 10 chooses types by itself.
    """
    timings = tmp_path / "new" / "kernels.timings"
    built, refused = _as_full(STAND_IN, timings)
    assert built == "True ()"
    assert refused == (
        "tensorrt builds for the GPU that is here and for no other, found --gpu 8.6: leave it out,"
        " or take tensorrt-rtx"
    )
    assert timings.stat().st_size > 0
    assert [path.name for path in timings.parent.glob(".*")] == []


@needs_rtx
@needs_no_tensorrt
@pytest.mark.parametrize("what", ["rubbish", "folder"])
def test_timings_that_do_not_fit_stop_no_build(what: str, tmp_path: Path) -> None:
    timings = tmp_path / "kernels.timings"
    if what == "folder":
        timings.mkdir()
    else:
        timings.write_bytes(b"rubbish" * 100)
    built, _ = _as_full(STAND_IN, timings)
    if what == "folder":
        assert built.startswith(f"True ('the timing cache {timings} was not written: ")
    else:
        assert built == "True ()"
        assert not timings.read_bytes().startswith(b"rubbish")


@needs_rtx
@needs_no_tensorrt
@needs_no_driver
def test_the_full_tensorrt_without_a_gpu_is_one_clear_line(tmp_path: Path) -> None:
    """It makes no builder then, and pybind11 only says that it got none (NVIDIA/TensorRT#308)."""
    said, _ = _as_full(STAND_IN + NO_GPU, tmp_path / "kernels.timings")
    assert said.startswith("tensorrt cannot build on this machine: there is no NVIDIA driver here")


@needs_rtx
def test_tensorrt_for_rtx_has_no_timing_cache(tmp_path: Path) -> None:
    timings = tmp_path / "kernels.timings"
    plan = build_plan(RTX, models.inverting(), **FIXED, timing_cache=timings)
    assert plan.notes == (f"no timing cache: {RTX} does not time kernels when it builds",)
    assert not timings.exists()


@needs_rtx
def test_optimisation_levels_are_checked() -> None:
    assert build_plan(RTX, models.inverting(), **FIXED, optimization_level=0).data
    with pytest.raises(ConversionError, match="must be 0 to 5, found 6"):
        build_plan(RTX, models.inverting(), **FIXED, optimization_level=6)


@needs_rtx
def test_the_model_is_not_changed() -> None:
    model = models.running_mean()
    before = model.SerializeToString()
    build_plan(RTX, model, **FIXED)
    assert model.SerializeToString() == before


@needs_rtx
def test_messages_are_kept_since_a_mark_and_not_without_end() -> None:
    messages = tensorrt_api.Messages(tensorrt_api.load(RTX))
    level = tensorrt_api.load(RTX).ILogger.Severity
    messages.logger.log(level.ERROR, "before")
    mark = messages.mark()
    assert messages.words(mark) == "it gave no reason"
    for severity, text in (
        (level.INFO, "loaded"),
        (level.VERBOSE, "chatter"),
        (level.WARNING, "slow"),
    ):
        messages.logger.log(severity, text)
    assert messages.since(mark) == ("slow",)
    assert messages.words(mark) == "slow"
    messages.logger.log(level.INTERNAL_ERROR, "cudaError 2: out of memory")
    assert messages.since(mark) == ("slow", "cudaError 2: out of memory")
    assert messages.errors(mark) == ("cudaError 2: out of memory",)
    assert "too little free memory" in messages.words(mark)
    for number in range(2 * tensorrt_api.KEPT_MESSAGES):
        messages.logger.log(level.WARNING, str(number))
    assert len(messages.since(0)) == tensorrt_api.KEPT_MESSAGES
    assert messages.since(0)[-1] == str(2 * tensorrt_api.KEPT_MESSAGES - 1)
    assert tensorrt_api.messages(RTX) is tensorrt_api.messages(RTX)


# As TensorRT 8 to 11, TensorRT for RTX 1.7 and their issue trackers have them.
SAID: dict[str, str] = {
    "Cuda Runtime (In x at /y.cpp:1 (cudaError 100: no CUDA-capable device is detected))": (
        "the NVIDIA driver shows no GPU"
    ),
    "CUDA initialization failure with error: 100. Please check your CUDA installation": (
        "the NVIDIA driver shows no GPU"
    ),
    "(cudaError 803: system has unsupported display driver / cuda driver combination)": (
        "the NVIDIA driver and its libraries are of different versions"
    ),
    "The engine plan file is generated on an incompatible device, expecting compute 8.9 got"
    " compute 8.6, please rebuild.": "(this GPU has 8.9, the engine is for 8.6)",
    "The engine cannot run on this GPU, which has compute capability 9.0.": (
        "the engine was built for another GPU: build it again on this machine"
    ),
    "The engine plan file is not compatible with this version of TensorRT, expecting library"
    " version 10.3.0.30 got 10.7.0.23, please rebuild.": "of another version of TensorRT",
    "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not"
    " match. Note: Current Version: 239, Serialized Engine Version: 236": "of another version",
    "The engine has been created with TensorRT-RTX version 1.6, but the current runtime is"
    " TensorRT-RTX version 1.7. Rebuild the engine": "of another version of TensorRT",
    "Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)": "too little free memory",
    "Requested amount of GPU memory (8589934592 bytes) could not be allocated.": "too little free",
    "Target GPU SM 61 is not supported by this TensorRT release.": "does not know this GPU",
    "(cudaError 209: no kernel image is available for execution on the device)": "not know this",
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (conv: kernel is empty. In"
    " validate at /_src/nodes/conv.cpp:40)": "API Usage Error (conv: kernel is empty.)",
    "API error: it broke\n[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In"
    " catchCudaError at /_src/checkMacros.cpp:250 (cudaError 35: insufficient))": "it broke",
    "": "it gave no reason",
}


@pytest.mark.parametrize("text", SAID)
def test_known_failures_have_words(text: str) -> None:
    words = tensorrt_api.words_for(text)
    assert SAID[text] in words
    assert "\n" not in words
    assert ".cpp" not in words


def test_an_old_driver_and_none_are_told_apart() -> None:
    """The CUDA runtime has one error for both."""
    words = tensorrt_api.words_for("cudaError 35: CUDA driver version is insufficient")
    driver = "driver is too old" if tensorrt_api.has_driver_library() else "is no NVIDIA driver"
    assert driver in words


@needs_no_tensorrt
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    words = (
        "the package tensorrt is not installed (pip install 'pix2live[tensorrt]'); on a Jetson it"
        " comes with JetPack: use a venv with --system-site-packages"
    )
    assert tensorrt_api.why_not("tensorrt") == words
    with pytest.raises(EngineError, match="the backend 'tensorrt' cannot run here: the package"):
        build_plan("tensorrt", models.inverting(), **FIXED)
    (tmp_path / "tensorrt").mkdir()  # somebody's engines, in the folder where Python was started
    monkeypatch.syspath_prepend(tmp_path)
    assert tensorrt_api.why_not("tensorrt") == words
    broken = 'raise ImportError("libnvinfer.so.10: cannot open shared object file")'
    (tmp_path / "tensorrt" / "__init__.py").write_text(broken)
    importlib.invalidate_caches()
    assert tensorrt_api.why_not("tensorrt") is None
    with pytest.raises(EngineError) as caught:
        tensorrt_api.version("tensorrt")
    assert "tensorrt is installed, but cannot be loaded: libnvinfer.so.10: cannot" in str(
        caught.value
    )


def test_tensorrt_is_imported_in_one_place() -> None:
    """There its messages are collected; any other import could bring a logger of its own."""
    names = set(tensorrt_api.PACKAGES.values())
    imports, names_it = set(), set()
    for floor in ("engines", "realtime", "tools", "examples", "benchmarks"):
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                found: list[str] = []
                if isinstance(node, ast.Import):
                    found = [item.name for item in node.names]
                elif isinstance(node, ast.ImportFrom):
                    found = [node.module or ""]
                if names & {name.partition(".")[0] for name in found}:
                    imports.add(path.relative_to(ROOT).as_posix())
                if isinstance(node, ast.Constant) and node.value == "tensorrt_rtx":
                    names_it.add(path.relative_to(ROOT).as_posix())
    assert imports == set(), "importlib does it, in engines/nvidia/tensorrt_api.py"
    assert names_it == {"engines/nvidia/tensorrt_api.py"}
