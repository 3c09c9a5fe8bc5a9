"""The TensorRT backends on a simulated device: what the events promise, in any order it may choose.

No GPU is needed, and none is used. The device is `simulated_cuda`; what is tested is the backend.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_cuda import SimulatedCuda, WrongUseError
from simulated_engine import SEEDS, SIZE, freed, new, pictures, run

from engines import FrameModel
from engines.nvidia.frame_ring import FrameRing, Slot


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def inverting(folder: Path) -> FrameModel:
    return models.written(models.inverting(), folder / "inverting.onnx")


@pytest.fixture(scope="session")
def with_alpha(folder: Path) -> FrameModel:
    return models.written(models.with_alpha(), folder / "alpha.onnx")


@pytest.fixture(scope="session")
def running_mean(folder: Path) -> FrameModel:
    return models.written(models.running_mean(), folder / "mean.onnx")


# --- what the events promise --------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    depth=st.integers(1, 4),
    graphs=st.booleans(),
    locked=st.sampled_from(["none", "in", "out", "both"]),
    eager=st.sampled_from([0.0, 0.3, 0.9]),
    count=st.integers(1, 14),
)
def test_every_frame_comes_back_right_and_in_order(  # noqa: PLR0917  (hypothesis names them)
    inverting: FrameModel,
    seed: int,
    depth: int,
    graphs: bool,
    locked: str,
    eager: float,
    count: int,
) -> None:
    cuda = SimulatedCuda(seed, graphs=graphs, eager=eager)
    engine = new(inverting, cuda)
    frames = pictures(count)
    with engine:
        engine.open(SIZE, depth=depth)
        assert engine.depth == depth
        found = run(engine, frames, locked=locked, order=random.Random(seed))
    for frame, result in zip(frames, found, strict=True):
        assert np.array_equal(result, 255 - frame)
    freed(cuda, engine.library_of_test)


class WithoutUploadWait(FrameRing):
    def _wait_for_upload(self, slot: Slot) -> None:
        """The computation may begin before the frame is there."""


class WithoutComputeWait(FrameRing):
    def _wait_for_compute(self, slot: Slot) -> None:
        """The result may be copied before it is there."""


class WithoutDownloadWait(FrameRing):
    def _wait_for_download(self, slot: Slot) -> None:
        """The caller may look at the picture before it is there."""


class WithOneSlot(FrameRing):
    """A slot is used again while its earlier frame is under way."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        del self.slots[1:]


@pytest.mark.parametrize("depth", [2, 4])
def test_no_slot_can_be_left_out(inverting: FrameModel, depth: int) -> None:
    assert _wrong_runs(inverting, WithOneSlot, depth) > len(SEEDS) // 2


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("ring", [WithoutUploadWait, WithoutComputeWait, WithoutDownloadWait])
def test_no_event_can_be_left_out(inverting: FrameModel, ring: type[FrameRing], depth: int) -> None:
    """The test above finds every one of them: this is what it is worth."""
    assert _wrong_runs(inverting, ring, depth) > len(SEEDS) // 2
    assert _wrong_runs(inverting, FrameRing, depth) == 0


def _wrong_runs(model: FrameModel, ring: type[FrameRing], depth: int) -> int:
    """For how many seeds a picture is wrong, or memory is used that nobody has written."""
    wrong = 0
    frames = pictures(6)
    for seed in SEEDS:
        cuda = SimulatedCuda(seed, eager=0.3)
        engine = new(model, cuda, ring=ring)
        try:
            engine.open(SIZE, depth=depth)
            found = run(engine, frames, locked="both", order=random.Random(seed))
            wrong += not np.array_equal(found, [255 - frame for frame in frames])
        except WrongUseError:
            wrong += 1
        finally:
            engine.close()
    return wrong


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("rtx", [False, True])
def test_a_frame_allocates_nothing_and_waits_once(
    inverting: FrameModel, graphs: bool, rtx: bool
) -> None:
    cuda = SimulatedCuda(graphs=graphs)
    with new(inverting, cuda, rtx=rtx) as engine:
        engine.open(SIZE, depth=3)
        places = [engine.slots(2) for _ in range(3)]
        with cuda.counting() as counted:
            for number in range(30):
                if engine.pending == engine.depth:
                    engine.collect()
                engine.submit(*places[number % 3])
            while engine.pending:
                engine.collect()
    del counted["all"]
    launched = "graph.launch" if graphs and not rtx else "enqueue"
    assert counted == {
        "upload": 30,
        "download": 30,
        launched: 30,
        "record": 90,
        "wait": 60,
        "event.synchronize": 30,
    }


def test_an_upload_and_a_computation_may_overlap(inverting: FrameModel) -> None:
    """Nothing orders the upload of a frame and the computation of the one before: both happen."""
    seen = set()
    for seed in SEEDS:
        cuda = SimulatedCuda(seed, eager=0.3)
        with new(inverting, cuda) as engine:
            engine.open(SIZE, depth=2)
            cuda.timeline.clear()
            first, second = (engine.slots(2) for _ in range(2))
            number = cuda.calls["upload"] + 1
            engine.submit(*first)
            engine.submit(*second)
            while engine.pending:
                engine.collect()
            place = cuda.timeline.index
            seen.add(place(f"upload {number + 1}") < place(f"compute {number}"))
            seen.add(place(f"compute {number + 1}") < place(f"download {number}"))
    assert seen == {True, False}


def test_graphs_and_the_plain_way_give_the_same(with_alpha: FrameModel) -> None:
    frames, notes = pictures(5), []
    found = []
    for graphs in (False, True):
        cuda = SimulatedCuda(3, graphs=graphs)
        with new(with_alpha, cuda) as engine:
            engine.open(SIZE, depth=2)
            found.append(run(engine, frames, locked="none", order=random.Random(3)))
            notes.append(" / ".join(engine.notes))
        freed(cuda, engine.library_of_test)
    for plain, graph in zip(*found, strict=True):
        assert np.array_equal(plain[0], graph[0])
        assert np.array_equal(plain[1], graph[1])
    assert "no CUDA graph, which costs time of the processor: the test wants none" in notes[0]
    assert "CUDA graph: captured from TensorRT" in notes[1]


# --- alpha and states ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3])
def test_alpha_belongs_to_the_frame_that_was_collected(with_alpha: FrameModel, depth: int) -> None:
    frames = pictures(9)
    for seed in SEEDS:
        cuda = SimulatedCuda(seed)
        with new(with_alpha, cuda) as engine:
            engine.open(SIZE, depth=depth)
            assert engine.alpha is None
            found = run(engine, frames, locked="both", order=random.Random(seed))
        for frame, (result, alpha) in zip(frames, found, strict=True):
            assert np.array_equal(result, 255 - frame)
            assert np.array_equal(alpha, frame[..., :1])


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("rtx", [False, True])
def test_a_state_stays_on_the_device_until_the_reset(
    running_mean: FrameModel, graphs: bool, rtx: bool
) -> None:
    frames = pictures(5)
    for seed in SEEDS[:6]:
        cuda = SimulatedCuda(seed, graphs=graphs)
        with new(running_mean, cuda, rtx=rtx) as engine:
            engine.open(SIZE, depth=2)
            assert engine.depth == 1
            assert any("one frame at a time" in note for note in engine.notes)
            for clip in (frames, frames[:2], frames[::-1]):
                for count in range(1, len(clip) + 1):
                    found = engine.infer(clip[count - 1])
                    assert np.abs(found - np.mean(clip[:count], axis=0)).max() <= 0.51
                engine.reset()
            with cuda.counting() as counted:
                engine.infer(frames[0])
            assert (counted["upload"], counted["download"]) == (1, 1), "states are not copied"
            engine.close()
            engine.open(SIZE)  # opening begins a new clip too
            assert np.array_equal(engine.infer(frames[1]), frames[1])
        freed(cuda, engine.library_of_test)
