"""Random crops of pictures, each of which follows from the seed and its number alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from engines.errors import SettingsError
from tools.train.pairs import Picture

SMALLEST_ZOOM: Final = 0.7
LARGEST_ZOOM: Final = 1.6
BATCHES_AHEAD: Final = 2  # for each worker


class Crops(Dataset[Tensor]):
    """Squares out of pictures at random places and sizes, mirrored half of the time.

    Item ``i`` is uint8 (3, S, S), RGB.
    """

    def __init__(self, pictures: Sequence[Picture], side_px: int, seed: int) -> None:
        self._pictures, self._side_px, self._seed = pictures, side_px, seed

    def __len__(self) -> int:
        return 2**31  # endless: the sampler says when it is enough

    def __getitem__(self, index: int) -> Tensor:
        random = np.random.default_rng((self._seed, index))
        picture = self._pictures[int(random.integers(len(self._pictures)))]
        (square,) = random_square([picture], self._side_px, random, zoom=True)
        return as_tensor(square)


def random_square(
    pictures: Sequence[Picture],
    side_px: int,
    random: np.random.Generator,
    *,
    align_px: int = 1,
    zoom: bool = False,
    mirror: bool = True,
) -> list[Picture]:
    """Return the same square, (S, S, 3), of pictures (H, W, 3) of one size, S is ``side_px``.

    Args:
        pictures: what to cut from; sides of at least ``side_px`` without ``zoom``.
        side_px: S.
        random: of everything here.
        align_px: the square begins at multiples of this.
        zoom: whether a larger or smaller square is taken and resized.
        mirror: whether half of the squares are mirrored.
    """
    height, width = pictures[0].shape[:2]
    taken_px = side_px
    if zoom:
        drawn = random.uniform(np.log(SMALLEST_ZOOM), np.log(LARGEST_ZOOM))
        taken_px = min(round(side_px / float(np.exp(drawn))), height, width)
    top, left = (
        align_px * int(random.integers(0, (whole - taken_px) // align_px + 1))
        for whole in (height, width)
    )
    step = -1 if mirror and random.random() < 0.5 else 1
    where = (slice(top, top + taken_px), slice(left, left + taken_px))
    return [_sized(picture[where][:, ::step], side_px) for picture in pictures]


def _sized(square: Picture, side_px: int) -> Picture:
    taken_px = square.shape[0]
    if taken_px == side_px:
        return square
    method = cv2.INTER_AREA if taken_px > side_px else cv2.INTER_LINEAR
    sized = cv2.resize(square, (side_px, side_px), interpolation=method)
    return sized.astype(np.uint8, copy=False)


def as_tensor(picture: Picture) -> Tensor:
    """Return a picture, uint8 (H, W, 3) BGR, as a tensor, uint8 (3, H, W) RGB."""
    return torch.from_numpy(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)))


def as_picture(tensor: Tensor) -> Picture:
    """Return what `as_tensor` gave as a picture again."""
    return np.ascontiguousarray(tensor.numpy().transpose(1, 2, 0)[..., ::-1])


class StepSampler(Sampler[list[int]]):
    """The numbers of the crops of every step, from ``first_step`` on, for one of several devices.

    They depend on the step only: a run that is resumed sees what it would have seen.
    """

    def __init__(self, batch: int, first_step: int, rank: int = 0, world: int = 1) -> None:
        self._batch, self._first_step, self._rank, self._world = batch, first_step, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        step = self._first_step
        while True:
            start = (step * self._world + self._rank) * self._batch
            yield list(range(start, start + self._batch))
            step += 1


def loader(dataset: Dataset[Tensor], sampler: StepSampler, workers: int) -> Iterator[Tensor]:
    """Return the batches of a dataset, made ahead by ``workers`` threads (0: when asked for).

    They are the same for any number of workers. An exception of the dataset comes out as it is.

    Threads, not processes: OpenCV and numpy let go of Python's lock, the pictures stay in memory
    once, and a process that is forked from one with OpenCV's threads hangs when it sets their
    number. Closing the iterator ends the threads.

    Raises:
        SettingsError: ``workers`` is below 0.
    """
    if workers < 0:
        raise SettingsError(f"--workers must be 0 or more, found {workers}")
    if not workers:
        return (_batch(dataset, numbers) for numbers in sampler)
    return _made_ahead(dataset, sampler, workers)


def _made_ahead(
    dataset: Dataset[Tensor], sampler: StepSampler, workers: int
) -> Generator[Tensor, None, None]:
    pool = ThreadPoolExecutor(workers, "crops")
    ahead: deque[Future[Tensor]] = deque()
    try:
        for numbers in sampler:
            ahead.append(pool.submit(_batch, dataset, numbers))
            if len(ahead) > BATCHES_AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batch(dataset: Dataset[Tensor], numbers: list[int]) -> Tensor:
    # By numpy: torch would start a team of threads in each of ours to copy this.
    return torch.from_numpy(np.stack([dataset[number].numpy() for number in numbers]))
