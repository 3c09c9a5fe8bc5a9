"""The pool of earlier pictures that discriminators are shown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")

import torch

from tools.train.unpaired import PicturePool


@given(st.integers(0, 6), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=60)
def test_a_pool_shows_what_it_was_given_and_each_at_most_once_from_its_memory(
    size: int, batches: list[int], seed: int
) -> None:
    pool, random = PicturePool(size), np.random.default_rng(seed)
    number, given_so_far, remembered = 0, set(), set()
    for count in batches:
        made = torch.stack([torch.full((3, 2, 2), float(number + i)) for i in range(count)])
        new = set(range(number, number + count))
        given_so_far |= new
        number += count
        passed = made.clone()
        shown = pool.swap(passed, random)
        assert shown.shape == made.shape
        values = [int(picture.flatten()[0]) for picture in shown]
        for value, picture in zip(values, shown):
            assert bool((picture == value).all())
            assert value in given_so_far
        from_memory = [value for value in values if value in remembered]
        assert len(from_memory) == len(set(from_memory))
        if size == 0:
            assert torch.equal(shown, made)
        kept = [int(picture.flatten()[0]) for picture in pool.pictures]
        assert len(kept) == len(set(kept)) <= size
        assert set(kept) <= given_so_far
        assert remembered - set(kept) <= set(values)  # who leaves the pool is shown
        remembered = set(kept)
        passed.fill_(-1)  # the pool has its own
        assert [int(picture.flatten()[0]) for picture in pool.pictures] == kept
    assert len(pool.pictures) == min(size, number)


def test_half_of_what_a_full_pool_shows_is_old() -> None:
    pool, random = PicturePool(10), np.random.default_rng(0)
    pool.swap(torch.zeros(10, 3, 1, 1), random)
    shown = torch.cat([pool.swap(torch.full((1, 3, 1, 1), i), random) for i in range(1, 401)])
    new = shown[:, 0, 0, 0] == torch.arange(1, 401)
    assert 160 < int(new.sum()) < 240
