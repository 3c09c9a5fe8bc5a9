"""Engines of the same filter at the same time: what each makes is as if it were alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from at_once import in_threads

from engines import Engine, open_engine

SIZE = (64, 48)


@pytest.fixture(params=["openvino", "onnxruntime"])
def reads_frame_models(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"the extra {name} is not installed")
    return name


def _translated(engine: Engine, frames: list[Any], pictures: list[Any]) -> None:
    """Append what ``engine`` makes of each frame, and its alpha, to ``pictures``."""
    for frame in frames:
        pictures.append(engine.infer(frame).copy())
        if engine.alpha is not None:
            pictures.append(engine.alpha.copy())


KINDS = {
    "alpha": models.with_alpha,
    "states": models.running_mean,
    "a state in cells": models.counting_in_cells,
    "a convolution": models.blurring,
}


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_side_as_alone_bit_by_bit(
    reads_frame_models: str, tmp_path: Path, kind: str
) -> None:
    """Alpha and the states of one engine are no other's, though they compute with the same."""
    model = models.written(KINDS[kind](), tmp_path / "m.onnx", stride=4)
    clips = [[models.picture(SIZE, 100 * seed + n) for n in range(50)] for seed in range(3)]
    alone: list[list[Any]] = [[], [], []]
    together: list[list[Any]] = [[], [], []]
    for clip, pictures in zip(clips, alone):
        with open_engine(model, SIZE, backend=reads_frame_models) as engine:
            _translated(engine, clip, pictures)
    engines = [open_engine(model, SIZE, backend=reads_frame_models) for _ in clips]
    in_threads(
        *[lambda given=given: _translated(*given) for given in zip(engines, clips, together)]
    )
    for engine, one, other in zip(engines, alone, together):
        assert len(one) == len(other) == (100 if kind == "alpha" else 50)
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
        engine.close()


def test_alpha_stays_until_the_next_frame_of_the_same_engine(
    reads_frame_models: str, tmp_path: Path
) -> None:
    model = models.written(models.with_alpha(), tmp_path / "alpha.onnx")
    frames = [models.picture(SIZE, seed) for seed in range(2)]
    one, other = (open_engine(model, SIZE, backend=reads_frame_models) for _ in frames)
    one.infer(frames[0])
    for _ in range(3):
        other.infer(frames[1])
        assert one.alpha is not None
        assert np.array_equal(one.alpha, frames[0][..., :1])
    other.close()
    assert np.array_equal(one.alpha, frames[0][..., :1])
    one.close()


def test_a_reset_is_of_one_engine(reads_frame_models: str, tmp_path: Path) -> None:
    model = models.written(models.counting_in_cells(), tmp_path / "cells.onnx", stride=4)
    grey = np.full((SIZE[1], SIZE[0], 3), 100, np.uint8)
    one, other = (open_engine(model, SIZE, backend=reads_frame_models) for _ in range(2))
    assert [int(one.infer(grey).max()) for _ in range(3)] == [100, 101, 102]
    assert int(other.infer(grey).max()) == 100
    one.reset()
    late = open_engine(model, SIZE, backend=reads_frame_models)  # begins a clip of its own
    assert [int(engine.infer(grey).max()) for engine in (one, other, late)] == [100, 101, 100]
    for engine in (one, other, late):
        engine.close()
