"""What backends of frame models promise beyond the contract of all: state, alpha, fixed sizes."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest

from engines import EngineError, open_engine

SIZE = (64, 48)
FRAME_MODEL_BACKENDS = ("openvino", "onnxruntime")


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
