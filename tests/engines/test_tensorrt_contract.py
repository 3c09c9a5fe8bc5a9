"""The contract of all backends, kept by the TensorRT backend on the simulated device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import models
import pytest
from simulated_cuda import SimulatedCuda
from simulated_engine import new as new_engine
from test_engines_contract import (  # noqa: F401  (collected here with the fixtures below)
    SIZE,
    STRIDE,
    test_a_closed_engine_says_so,
    test_a_context_closes,
    test_a_read_only_frame_is_taken,
    test_a_size_that_does_not_fit_names_one_that_does,
    test_a_wrong_array_is_refused,
    test_an_array_that_cannot_be_used_in_place_is_refused,
    test_collect_returns_the_callers_array,
    test_frames_under_way_are_finished_first,
    test_frames_under_way_come_back_in_order,
    test_impossible_sizes_and_depths_are_refused,
    test_it_cannot_be_opened_twice_but_again,
    test_it_says_what_it_is,
    test_it_translates_every_value,
    test_memory_stays_flat,
    test_slots_are_pages_of_their_own,
    test_the_order_of_calls_is_kept,
)

from engines import Engine


@pytest.fixture
def backend() -> str:
    return "tensorrt"


@pytest.fixture(params=[False, True], ids=["plain", "graphs"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Makes a closed engine with the inverting filter."""
    model = models.written(models.inverting(), tmp_path / "inverting.onnx", stride=STRIDE)
    cuda = SimulatedCuda(7, graphs=request.param)

    def make(size: tuple[int, int] | None = None, precision: str = "auto") -> Engine:
        engine: Engine = new_engine(model, cuda)
        engine.asked_precision = precision
        if size is not None:
            engine.open(size)
        return engine

    yield make
    assert cuda.wrong == []
    assert cuda.held == []


@pytest.fixture
def engine(new: Callable[..., Engine]) -> Iterator[Engine]:
    made = new()
    made.open(SIZE)
    yield made
    made.close()
