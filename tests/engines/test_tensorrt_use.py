"""The TensorRT backends on a simulated device: threads, ends, and any call that fails."""

from __future__ import annotations

import importlib.util
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from simulated_cuda import SimulatedCuda
from simulated_engine import SEEDS, SIZE, freed, new, pictures, run

from engines import Engine, EngineError, FrameModel
from engines.backends.tensorrt import TensorRtEngine, TensorRtRtxEngine
from engines.nvidia.cuda_words import in_words
from engines.nvidia.tensorrt_plan import Found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def inverting(folder: Path) -> FrameModel:
    return models.written(models.inverting(), folder / "inverting.onnx")


@pytest.fixture(scope="session")
def with_alpha(folder: Path) -> FrameModel:
    return models.written(models.with_alpha(), folder / "alpha.onnx")


# --- the caller's side --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
def test_frames_under_way_are_finished_first(inverting: FrameModel, end: str) -> None:
    for seed in SEEDS:
        cuda = SimulatedCuda(seed, eager=0.2)
        engine = new(inverting, cuda)
        engine.open(SIZE, depth=3)
        pairs = [(frame, np.zeros_like(frame)) for frame in pictures(3)]
        for pair in pairs:
            engine.submit(*pair)
        getattr(engine, end)()
        assert engine.pending == 0
        for frame, result in pairs:
            assert np.array_equal(result, 255 - frame)
        engine.close()
        freed(cuda, engine.library_of_test)


def test_slots_outlive_the_engine(inverting: FrameModel) -> None:
    cuda = SimulatedCuda()
    engine = new(inverting, cuda)
    engine.open(SIZE)
    slot = engine.slots(1)[0]
    assert cuda.is_page_locked(slot)
    engine.close()
    slot[:] = 5
    assert (slot == 5).all()
    assert len(cuda.locked) == 1
    del slot
    freed(cuda)


def test_another_thread_may_use_what_this_one_opened(inverting: FrameModel) -> None:
    cuda = SimulatedCuda(1)
    engine = new(inverting, cuda)
    engine.open(SIZE, depth=2)
    frames, found = pictures(6), []

    def work() -> None:
        found.extend(run(engine, frames, locked="both", order=random.Random(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    engine.close()
    assert np.array_equal(found, [255 - frame for frame in frames])
    freed(cuda, engine.library_of_test)


def test_it_says_what_it_is(inverting: FrameModel) -> None:
    for precision in ("f16", "f32"):
        engine = new(inverting, SimulatedCuda(), precision=precision)
        engine.open(SIZE)
        assert engine.device == "Simulated GPU (compute capability 8.6)"
        assert (engine.precision, engine.depth, engine.size) == (precision, 1, SIZE)
        assert engine.notes[0] == "plan of the test"
        assert engine.engine_path is None
        assert engine.layers() == {"Cast": 2, "Sub": 1}
        engine.close()
    engine = new(inverting, SimulatedCuda(), precision="bf16")
    with pytest.raises(EngineError, match="tensorrt runs f16 and f32, not bf16"):
        engine.open(SIZE)


def test_rtx_captures_graphs_itself_and_keeps_its_kernels(
    inverting: FrameModel, tmp_path: Path
) -> None:
    cuda = SimulatedCuda(graphs=True)
    engine = new(inverting, cuda, rtx=True)
    type(engine).kernels = tmp_path / "new" / "folder" / "a.kernels"
    for seen in ([], [b"kernels for this GPU"]):
        engine.open(SIZE, depth=2)
        assert "CUDA graph: by TensorRT for RTX" in engine.notes
        assert engine.library_of_test.kernels_seen == seen
        assert cuda.calls["capture.begin"] == 0
        engine.close()
    assert [path.name for path in engine.kernels.parent.iterdir()] == ["a.kernels"]
    type(engine).kernels = tmp_path / "new"  # a folder: nothing can be read or written there
    engine.open(SIZE)
    engine.close()
    freed(cuda, engine.library_of_test)


# --- what goes wrong ----------------------------------------------------------------------------


def _session(engine: Engine) -> None:
    """Everything that an engine does, once."""
    engine.open(SIZE, depth=2)
    frames = pictures(3)
    slots = [engine.slots(2) for _ in range(3)]
    for frame, pair in zip(frames, slots, strict=True):
        pair[0][:] = frame
        if engine.pending == engine.depth:
            engine.collect()
        engine.submit(*pair)
    engine.reset()
    for frame, pair in zip(frames, slots, strict=True):
        assert np.array_equal(pair[1], 255 - frame)
    result = engine.infer(frames[0])
    assert np.array_equal(result, 255 - frames[0])


def _calls_of_a_session(model: FrameModel, graphs: bool, rtx: bool) -> int:
    cuda = SimulatedCuda(graphs=graphs)
    engine = new(model, cuda, rtx=rtx)
    _session(engine)
    engine.close()
    freed(cuda, engine.library_of_test)
    return cuda.calls["all"]


@pytest.mark.parametrize(("graphs", "rtx"), [(False, False), (True, False), (False, True)])
def test_any_call_may_fail(inverting: FrameModel, graphs: bool, rtx: bool) -> None:
    total = _calls_of_a_session(inverting, graphs, rtx)
    assert total > 100
    told = set()
    for number in range(1, total + 1):
        cuda = SimulatedCuda(number, graphs=graphs, fail_at=number)
        engine = new(inverting, cuda, rtx=rtx)
        try:
            _session(engine)
        except EngineError as error:
            told.add(str(error))
        else:  # nobody waits for what is freed, and without a graph there is another way
            assert cuda.failed in ("", "free", "context.push", "stream.synchronize") or any(
                "no CUDA graph, which costs time of the processor: " in note
                for note in engine.notes
            ), cuda.failed
        engine.close()
        assert cuda.wrong == [], cuda.failed
        if cuda.failed != "context.push":
            freed(cuda, engine.library_of_test)
        cuda.fail_at = None
        _session(engine)  # it can be opened again
        engine.close()
        assert cuda.wrong == [], cuda.failed
    assert not any("\n" in text for text in told)
    assert any("the GPU has not enough free memory" in text for text in told)


def test_an_enqueue_that_is_refused_is_an_error_of_its_frame(inverting: FrameModel) -> None:
    cuda = SimulatedCuda(5)
    engine = new(inverting, cuda)
    engine.open(SIZE, depth=2)
    frames = pictures(3)
    results = [np.zeros_like(frame) for frame in frames]
    engine.submit(frames[0], results[0])
    engine.library_of_test.refuse_frame = cuda.calls["enqueue"] + 1
    with pytest.raises(EngineError, match="TensorRT failed on a frame: simulated: no reason"):
        engine.submit(frames[1], results[1])
    assert engine.pending == 1
    engine.submit(frames[2], results[2])
    assert engine.collect() is results[0]
    assert engine.collect() is results[2]
    assert np.array_equal(results[0], 255 - frames[0])
    assert np.array_equal(results[2], 255 - frames[2])
    engine.close()
    freed(cuda, engine.library_of_test)


def test_a_plan_that_does_not_fit_is_refused(
    inverting: FrameModel, with_alpha: FrameModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = SimulatedCuda()
    engine = new(inverting, cuda)
    plans: Iterator[bytes] = iter([b"of another version", with_alpha.path.read_bytes()])
    plan = lambda self, size, device, why: Found(  # noqa: E731
        next(plans), (), Path("nowhere"), Path("some.engine")
    )
    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "_find_plan", plan)
        with pytest.raises(EngineError, match="cannot be loaded: simulated: no reason"):
            engine.open(SIZE)
        freed(cuda, engine.library_of_test)
        with pytest.raises(EngineError, match=r"another model: expected .*found \['alpha'"):
            engine.open(SIZE)
        assert engine.engine_path is None, "it did not open"
        plans = iter([inverting.path.read_bytes()])
        engine.open(SIZE)
        assert engine.engine_path == Path("some.engine")
        engine.close()
    freed(cuda, engine.library_of_test)
    with pytest.raises(EngineError, match=r"not take 'frame' of shape \(1, 8, 5000, 3\), only"):
        engine.open((5000, 8))
    freed(cuda, engine.library_of_test)
    engine.open(SIZE)
    engine.close()


def test_without_a_driver_it_says_so_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.nvidia.cuda.DRIVER_LIBRARY", "libnosuchdriver.so.1")
    for engine in (TensorRtEngine, TensorRtRtxEngine):
        assert engine.why_not() == "no NVIDIA driver here"


def test_a_driver_without_pycuda_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pycuda") is not None:
        pytest.skip("pycuda is installed")
    if not sys.platform.startswith("linux"):
        pytest.skip("a library that is always there is named for Linux only")
    monkeypatch.setattr("engines.nvidia.cuda.DRIVER_LIBRARY", "libc.so.6")
    for engine in (TensorRtEngine, TensorRtRtxEngine):
        assert "pip install 'pix2live[cuda]'" in (engine.why_not() or "")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("cuMemAlloc failed: out of memory", "the GPU has not enough free memory"),
        ("graph: CUDA_ERROR_OUT_OF_MEMORY", "the GPU has not enough free memory"),
        ("cuEventSynchronize failed: an illegal memory access", "start pix2live again"),
        ("cuEventSynchronize failed: unspecified launch failure", "start pix2live again"),
        ("cuCtxPushCurrent failed: invalid context\nsecond line", "CUDA failed: cuCtxPushCurrent"),
        ("", "no reason given"),
    ],
)
def test_cuda_errors_in_words(said: str, words: str) -> None:
    assert words in in_words(said)
    assert "\n" not in in_words(said)
