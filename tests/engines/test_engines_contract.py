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

from engines import Engine, EngineError, load_filter, open_engine
from engines.registry import BACKENDS, why_not

SIZE = (64, 48)
STRIDE = 4
FRAME_MODEL_BACKENDS = ("openvino", "onnxruntime")


def _generator(stride: int = STRIDE) -> Any:
    """The inverting filter as PyTorch would have it: RGB, 0 to 1, NCHW."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its threads spin, which is slow where others work too

    class Inverting(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, image: Any) -> Any:
            if not image.is_floating_point() or image.shape[:2] != (1, 3):
                raise ValueError(f"found {image.dtype} {tuple(image.shape)}")
            return 1 - image

    generator = Inverting()
    generator.stride = stride
    return generator


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
    model: Any = _generator() if backend == "torch" else None
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


# --- what only frame models have --------------------------------------------------------------


@pytest.fixture(params=FRAME_MODEL_BACKENDS)
def reads_frame_models(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"the extra {name} is not installed")
    return name


def test_a_convolution_is_that_of_numpy(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.blurring(), tmp_path / "blur.onnx")
    frame = models.picture((65, 47))
    with open_engine(model, (65, 47), backend=reads_frame_models, precision="f32") as engine:
        assert engine.precision == "f32"
        difference = engine.infer(frame).astype(int) - models.blurred(frame)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("sides", [models.SYMBOLIC, (48, 64)])
def test_a_state_lives_until_the_reset(
    reads_frame_models: str, tmp_path: Path, sides: models.Sides
) -> None:
    model = models.written(models.running_mean(sides), tmp_path / "mean.onnx")
    frames = [models.picture(SIZE, seed) for seed in range(5)]
    with open_engine(model, SIZE, backend=reads_frame_models, precision="f32", depth=2) as engine:
        assert engine.depth == 1
        for clip in (frames, frames[::-1]):
            for count in range(1, len(clip) + 1):
                found = engine.infer(clip[count - 1])
                assert np.abs(found - np.mean(clip[:count], axis=0)).max() <= 0.51
            engine.reset()
        engine.infer(frames[0])
        engine.close()
        engine.open(SIZE)  # opening begins a new clip too
        assert np.array_equal(engine.infer(frames[1]), frames[1])


def test_a_state_in_cells(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.counting_in_cells(), tmp_path / "cells.onnx", stride=4)
    grey = np.full((SIZE[1], SIZE[0], 3), 100, np.uint8)
    with open_engine(model, SIZE, backend=reads_frame_models) as engine:
        assert [int(engine.infer(grey).max()) for _ in range(4)] == [100, 101, 102, 103]
        engine.reset()
        assert int(engine.infer(grey).max()) == 100


def test_alpha(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.with_alpha(), tmp_path / "alpha.onnx")
    engine = open_engine(model, SIZE, backend=reads_frame_models, depth=2)
    assert engine.alpha is None
    frames = [models.picture(SIZE, seed) for seed in range(6)]
    outs = [np.empty_like(frame) for frame in frames]
    for number, (frame, out) in enumerate(zip(frames, outs)):
        engine.submit(frame, out)
        if engine.pending < engine.depth:
            continue
        done = frames[number - engine.pending + 1]
        assert np.array_equal(engine.collect(), models.inverted(done))
        assert engine.alpha is not None
        assert engine.alpha.shape == (SIZE[1], SIZE[0], 1)
        assert np.array_equal(engine.alpha, done[..., :1])
    engine.close()
    assert engine.alpha is None


def test_a_fixed_size_is_the_only_one(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.inverting((48, 64)), tmp_path / "fixed.onnx")
    engine = open_engine(model, backend=reads_frame_models)
    assert engine.fit((1280, 720)) == SIZE
    with pytest.raises(EngineError, match="takes 64x48, not 1280x720"):
        engine.open((1280, 720))
    engine.open(SIZE)
    engine.close()


def test_a_generator_is_no_frame_model(reads_frame_models: str) -> None:
    engine = open_engine(object(), backend=reads_frame_models)
    with pytest.raises(EngineError, match=r"runs frame models \(\.onnx\), found object"):
        engine.open(SIZE)


def test_a_file_that_went_away(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    model.path.unlink()
    engine = open_engine(model, backend=reads_frame_models)
    with pytest.raises(EngineError, match=r"cannot (read|open) .*m\.onnx"):
        engine.open(SIZE)


# --- what only torch and onnxruntime have -----------------------------------------------------


def test_torch_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = models.written(models.inverting(), tmp_path / "m.onnx", architecture="inverting")
    with pytest.raises(EngineError, match=r"cannot rebuild 'inverting'.*openvino or onnxruntime"):
        open_engine(model, SIZE, backend="torch")
    with pytest.raises(EngineError, match=r"runs torch\.nn\.Module, found object"):
        open_engine(object(), SIZE, backend="torch")
    with pytest.raises(EngineError, match="torch runs f32 only, not bf16"):
        open_engine(_generator(), SIZE, backend="torch", precision="bf16")
    with pytest.raises(EngineError, match="the generator failed on a frame"):
        open_engine(torch.nn.Conv2d(5, 3, 1), SIZE, backend="torch")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="torch has no device 'cuda' here"):
            open_engine(_generator(), SIZE, backend="torch:cuda")


def test_torch_rebuilds_a_shipped_filter() -> None:
    pytest.importorskip("torch")
    model = load_filter("comic")
    frame = np.repeat(np.repeat(models.picture((16, 12)), 4, axis=0), 4, axis=1)
    pictures = []
    for backend in ("torch", "openvino"):
        with open_engine(model, SIZE, backend=backend, precision="f32") as engine:
            pictures.append(engine.infer(frame).astype(int))
    assert np.abs(pictures[0] - frame).max() > 8
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_onnxruntime_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with open_engine(model, SIZE, backend="onnxruntime:cpu") as engine:
        assert engine.device == "cpu"
    with pytest.raises(EngineError, match="f32 only, not bf16"):
        open_engine(model, SIZE, backend="onnxruntime", precision="bf16")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    with pytest.raises(EngineError, match=r"no 'cuda' here, only \['cpu'\]"):
        open_engine(model, SIZE, backend="onnxruntime:cuda")
    # A build with CUDA on a machine without: it would go on with the CPU and say nothing.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        engine = open_engine(model, SIZE, backend="onnxruntime")
    assert engine.device == "cpu"
    assert "not CUDAExecutionProvider: it did not start here" in engine.notes
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EngineError, match="has CUDAExecutionProvider, but it did not start"),
    ):
        open_engine(model, SIZE, backend="onnxruntime:cuda")
