"""One suite for every backend: what `engines.base.Engine` promises."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import psutil
import pytest
from at_once import in_threads
from torch_modules import inverting_module

from engines import Engine, EngineError, open_engine
from engines.registry import BACKENDS, why_not

SIZE = (64, 48)
STRIDE = 4


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in ("identity", "openvino"):
        reason = why_not(name)
        if reason is not None:
            pytest.skip(reason)
    return name


@pytest.fixture
def new(backend: str, tmp_path: Path) -> Callable[..., Engine]:
    """Makes a closed engine with the inverting filter."""
    model: Any = inverting_module(STRIDE) if backend == "torch" else None
    if model is None:
        model = models.written(models.inverting(), tmp_path / "inverting.onnx", stride=STRIDE)
    return lambda **options: open_engine(model, backend=backend, **options)


@pytest.fixture
def engine(new: Callable[..., Engine]) -> Iterator[Engine]:
    made = new()
    made.open(SIZE)
    yield made
    made.close()


def _expected(engine: Engine, frame: Any) -> Any:
    return frame if engine.name == "identity" else models.inverted(frame)


def test_it_translates_every_value(engine: Engine) -> None:
    for seed in range(3):
        frame = models.picture(SIZE, seed)
        kept = frame.copy()
        assert np.array_equal(engine.infer(frame), _expected(engine, frame))
        assert np.array_equal(frame, kept), "frame_in must not change"


def test_it_says_what_it_is(engine: Engine, backend: str) -> None:
    assert engine.name == backend
    assert engine.size == SIZE
    assert engine.device
    assert engine.precision
    assert engine.depth == 1
    assert engine.alpha is None
    assert engine.engine_path is None, "there is no engine file"


def test_collect_returns_the_callers_array(engine: Engine) -> None:
    frame_in, frame_out = engine.slots(2)
    frame_in[...] = models.picture(SIZE)
    engine.submit(frame_in, frame_out)
    assert engine.pending == 1
    assert engine.collect() is frame_out
    assert engine.pending == 0
    assert np.array_equal(frame_out, _expected(engine, frame_in))
    assert engine.infer(frame_in, frame_out) is frame_out


def test_slots_are_pages_of_their_own(engine: Engine) -> None:
    slots = engine.slots(3)
    for slot in slots:
        assert slot.shape == (SIZE[1], SIZE[0], 3)
        assert slot.dtype == np.uint8
        assert slot.flags.c_contiguous
        assert slot.flags.writeable
        assert slot.ctypes.data % mmap.PAGESIZE == 0
    assert not np.may_share_memory(slots[0], slots[1])


def test_a_read_only_frame_is_taken(engine: Engine) -> None:
    frame = models.picture(SIZE)
    frame.flags.writeable = False
    assert np.array_equal(engine.infer(frame), _expected(engine, frame))


WRONG = {
    "higher": np.zeros((SIZE[1] + STRIDE, SIZE[0], 3), np.uint8),
    "width and height exchanged": np.zeros((SIZE[0], SIZE[1], 3), np.uint8),
    "grey": np.zeros((SIZE[1], SIZE[0]), np.uint8),
    "four channels": np.zeros((SIZE[1], SIZE[0], 4), np.uint8),
    "a batch": np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8),
    "float": np.zeros((SIZE[1], SIZE[0], 3), np.float32),
    "int8": np.zeros((SIZE[1], SIZE[0], 3), np.int8),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_array_is_refused(engine: Engine, wrong: Any) -> None:
    right = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    with pytest.raises(EngineError, match=r"frame_in must be uint8 \(48, 64, 3\), found"):
        engine.submit(wrong, right)
    with pytest.raises(EngineError, match=r"frame_out must be uint8 \(48, 64, 3\), found"):
        engine.submit(right, wrong)
    assert engine.pending == 0
    engine.infer(right)


def test_an_array_that_cannot_be_used_in_place_is_refused(engine: Engine) -> None:
    right = models.picture(SIZE)
    mirrored = right[:, ::-1]
    with pytest.raises(EngineError, match="frame_in must be C-contiguous"):
        engine.submit(mirrored, right)
    with pytest.raises(EngineError, match="frame_out must be C-contiguous"):
        engine.submit(right, mirrored)
    with pytest.raises(EngineError, match="frame_out must not be frame_in"):
        engine.submit(right, right)
    locked = right.copy()
    locked.flags.writeable = False
    with pytest.raises(EngineError, match="frame_out is read-only"):
        engine.submit(right, locked)
    assert engine.pending == 0


def test_the_order_of_calls_is_kept(engine: Engine) -> None:
    frame_in, frame_out, other = engine.slots(3)
    with pytest.raises(EngineError, match="nothing was submitted"):
        engine.collect()
    engine.submit(frame_in, frame_out)
    with pytest.raises(EngineError, match="1 frames are under way already: collect first"):
        engine.submit(frame_in, other)
    with pytest.raises(EngineError, match="one frame at a time"):
        engine.infer(frame_in, other)
    assert engine.collect() is frame_out


def test_a_closed_engine_says_so(new: Callable[..., Engine]) -> None:
    engine = new()
    frame = models.picture(SIZE)
    for _ in range(2):
        for call in (
            lambda: engine.slots(1),
            lambda: engine.submit(frame, frame.copy()),
            lambda: engine.infer(frame),
            engine.reset,
        ):
            with pytest.raises(EngineError, match=f"{engine.name} is not open"):
                call()
        engine.close()  # before it was opened, and twice
        engine.open(SIZE)
        engine.close()


def test_it_cannot_be_opened_twice_but_again(new: Callable[..., Engine]) -> None:
    engine = new()
    engine.open(SIZE)
    with pytest.raises(EngineError, match="open already; close it first"):
        engine.open(SIZE)
    notes = list(engine.notes)
    for size in ((32, 16), SIZE):
        engine.close()
        assert engine.size is None
        engine.open(size)
        frame = models.picture(size)
        assert np.array_equal(engine.infer(frame), _expected(engine, frame))
    assert engine.notes == notes
    engine.close()


def test_a_context_closes(new: Callable[..., Engine]) -> None:
    with new(size=SIZE) as engine:
        engine.infer(models.picture(SIZE))
    assert engine.size is None


@pytest.mark.parametrize("size", [(66, 48), (64, 50), (3, 3)])
def test_a_size_that_does_not_fit_names_one_that_does(
    new: Callable[..., Engine], size: tuple[int, int]
) -> None:
    engine = new()
    if engine.name == "identity":
        assert engine.fit(size) == size
        return
    fitting = engine.fit(size)
    assert all(side % STRIDE == 0 and side > 0 for side in fitting)
    with pytest.raises(EngineError, match=f"takes {fitting[0]}x{fitting[1]}, not {size[0]}x"):
        engine.open(size)
    engine.open(fitting)  # still closed, and can be opened
    engine.close()


def test_impossible_sizes_and_depths_are_refused(new: Callable[..., Engine]) -> None:
    engine = new()
    for size, depth in (((0, 48), 1), ((64, -48), 1), (SIZE, 0)):
        with pytest.raises(EngineError, match="must be 1 or more"):
            engine.open(size, depth=depth)


def test_frames_under_way_come_back_in_order(new: Callable[..., Engine]) -> None:
    engine = new()
    engine.open(SIZE, depth=3)
    assert 1 <= engine.depth <= 3
    frames = [models.picture(SIZE, seed) for seed in range(20)]
    results = [(frame, np.zeros_like(frame)) for frame in frames]
    collected = []
    for frame_in, frame_out in results:
        if engine.pending == engine.depth:
            collected.append(engine.collect())
        engine.submit(frame_in, frame_out)
    while engine.pending:
        collected.append(engine.collect())
    for (frame_in, frame_out), found in zip(results, collected, strict=True):
        assert found is frame_out
        assert np.array_equal(found, _expected(engine, frame_in))
    engine.close()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_frames_under_way_are_finished_first(new: Callable[..., Engine], end: str) -> None:
    engine = new()
    engine.open(SIZE, depth=2)
    pairs = [engine.slots(2) for _ in range(engine.depth)]
    for frame_in, frame_out in pairs:
        frame_in[...] = models.picture(SIZE)
        engine.submit(frame_in, frame_out)
    getattr(engine, end)()
    assert engine.pending == 0
    for frame_in, frame_out in pairs:
        assert np.array_equal(frame_out, _expected(engine, frame_in))
    engine.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_engines_of_the_same_run_side_by_side(new: Callable[..., Engine], depth: int) -> None:
    """Opened, run and closed at the same moment, each with its own frames."""

    def work(seed: int) -> None:
        engine = new()
        engine.open(SIZE, depth=depth)
        frames = [models.picture(SIZE, 100 * seed + number) for number in range(40)]
        expected = iter(frames)
        for frame in frames:
            if engine.pending == engine.depth:
                assert np.array_equal(engine.collect(), _expected(engine, next(expected)))
            engine.submit(frame, np.empty_like(frame))
        while engine.pending:
            assert np.array_equal(engine.collect(), _expected(engine, next(expected)))
        engine.close()

    in_threads(*[lambda seed=seed: work(seed) for seed in range(3)])


def test_closing_one_leaves_the_others(new: Callable[..., Engine]) -> None:
    engines = [new() for _ in range(3)]
    for engine in engines:
        engine.open(SIZE)
    while engines:
        for number, engine in enumerate(engines):
            frame = models.picture(SIZE, number)
            assert np.array_equal(engine.infer(frame), _expected(engine, frame))
        engines.pop(0).close()


def test_an_unknown_precision_is_refused(new: Callable[..., Engine]) -> None:
    with pytest.raises(EngineError, match="no precision 'int3'; there are: auto, f32, bf16, f16"):
        new(precision="int3")


def test_an_unknown_device_is_refused(backend: str, new: Callable[..., Engine]) -> None:
    if backend == "identity":
        pytest.skip("identity has no devices")
    engine = open_engine(new().model, backend=f"{backend}:NOPE")
    with pytest.raises(EngineError, match=r"(?s)no .*'?(NOPE|nope)") as refusal:
        engine.open(SIZE)
    assert "\n" not in str(refusal.value)
    assert engine.size is None


def test_memory_stays_flat(engine: Engine) -> None:
    process = psutil.Process()
    count = 800 if engine.name == "torch" else 3000  # the reference is slow

    def infer(times: int) -> None:
        for number in range(times):
            engine.infer(np.full((SIZE[1], SIZE[0], 3), number & 0xFF, np.uint8))

    infer(count // 10)
    gc.collect()
    before = process.memory_info().rss
    infer(count)
    gc.collect()
    both = 2 * SIZE[0] * SIZE[1] * 3
    assert process.memory_info().rss - before < max(6e6, count * both / 4)


def test_no_handle_stays_after_close(new: Callable[..., Engine]) -> None:
    process = psutil.Process()

    def once() -> None:
        with new(size=SIZE) as engine:
            engine.infer(models.picture(SIZE))

    once()
    once()
    before = process.num_fds()
    for _ in range(3):
        once()
    assert process.num_fds() <= before
