"""For the tests of tools: garbage is collected more rarely than PyTorch makes it."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _rare_collections() -> Iterator[None]:
    """What is loaded stays: to look through it again and again is a sixth of every export."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
