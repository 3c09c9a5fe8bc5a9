"""The training loop's parts: settings, batches, loss, and the network with its optimiser."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engines.errors import Pix2liveError, SettingsError
from engines.generators.quarter import STRIDE, QuarterNet
from tools.train.pairs import LARGEST_CROP_PX, Degrader, Pair, Picture, random_crop

EMA_DECAY: Final = 0.999
GRADIENT_WEIGHT: Final = 1.0
BATCHES_AHEAD: Final = 4
WARM_UP_STEPS: Final = 200
WARM_UP_SHARE: Final = 0.05  # of a run that is too short for that


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training run is made of. ``steps`` wins over ``minutes`` when it is not 0."""

    teacher: str
    photos: Path
    out: Path
    name: str
    channels: int = 48
    blocks: int = 3
    minutes: float = 20.0
    steps: int = 0
    crop_px: int = 128
    batch: int = 8
    variants: int = 3
    learning_rate: float = 1e-3
    seed: int = 1
    validate: Path | None = None
    sheet_every: int = 1000
    resume: bool = False
    title: str = ""
    domains: str = ""
    licence: str = ""
    origin: str = ""

    def check(self) -> None:
        """Raise SettingsError for what cannot be trained."""
        if self.crop_px % STRIDE or not 4 * STRIDE <= self.crop_px <= LARGEST_CROP_PX:
            raise SettingsError(
                f"--crop must be a multiple of {STRIDE} from {4 * STRIDE} to {LARGEST_CROP_PX},"
                f" found {self.crop_px}"
            )
        if min(self.channels, self.blocks, self.batch, self.variants) < 1:
            raise SettingsError("--channels, --blocks, --batch and --variants must be 1 or more")
        if self.steps < 0 or (not self.steps and self.minutes <= 0):
            raise SettingsError("--steps or --minutes must be more than 0")


class Trainer:
    """The network, its optimiser, and the running average of its weights, which is what ships."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self._settings = settings
        self._checkpoint = settings.out / "checkpoint.pt"
        self.step = 0
        """Steps since the very start: a resumed run goes on counting."""
        self.network = QuarterNet(settings.channels, settings.blocks)
        self.averaged = QuarterNet(settings.channels, settings.blocks).eval()
        if settings.resume:
            self._load()
        self.averaged.load_state_dict(self.network.state_dict())
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for network in (self.network, self.averaged):
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.network.parameters(), settings.learning_rate)

    def learn(self, inputs: Tensor, targets: Tensor, done: float) -> float:
        """One step on (N, 3, S, S) float32 RGB, 0 to 1; returns the loss.

        Raises:
            Pix2liveError: the loss is not finite.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * _schedule(done, self.step)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        # bfloat16 halves the time of a step and is what the filter will mostly run in.
        with torch.autocast(self.device.type, torch.bfloat16):
            found = self.network.unclamped(inputs)
        loss = picture_loss(found.float(), targets)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise Pix2liveError(
                f"the loss became {value} at step {self.step}; the last good state is in"
                f" {self._checkpoint}; try --learning-rate {self._settings.learning_rate / 3:.1g}"
            )
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        self.step += 1
        self._average()
        return value

    def _average(self) -> None:
        # The average of a short past at first, so that it does not remember the start.
        weight = max(1 - EMA_DECAY, 1 / (self.step + 1))
        with torch.no_grad():
            for mean, value in zip(
                self.averaged.parameters(), self.network.parameters(), strict=True
            ):
                mean.lerp_(value, weight)

    def translate(self, frame: Picture) -> Picture:
        """One frame by the averaged weights; sides are multiples of the stride."""
        image = _tensor([frame]).to(self.device)
        with torch.inference_mode():
            found = self.averaged(image)[0].mul(255).round().byte().cpu()
        return np.ascontiguousarray(found.permute(1, 2, 0).numpy()[..., ::-1])

    def save(self) -> None:
        """Write the checkpoint in one step, so that a crash leaves the earlier one.

        Weights that are not finite are never written over good ones.
        """
        state = {"step": self.step, "weights": self.averaged.state_dict()}
        if not all(bool(value.isfinite().all()) for value in self.averaged.state_dict().values()):
            return
        temporary = self._checkpoint.with_suffix(f".{os.getpid()}.part")
        torch.save(state, temporary)
        os.replace(temporary, self._checkpoint)

    def _load(self) -> None:
        try:
            state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
            self.network.load_state_dict(state["weights"])
            self.step = int(state["step"])
        except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            raise SettingsError(
                f"--resume: {self._checkpoint} cannot continue this network: {error}"
            ) from error


def picture_loss(found: Tensor, target: Tensor) -> Tensor:
    """L1 of the values and of their differences to the neighbours: flat areas and crisp lines."""
    wrong = found - target
    return (
        wrong.abs().mean()
        + GRADIENT_WEIGHT * wrong.diff(dim=2).abs().mean()
        + GRADIENT_WEIGHT * wrong.diff(dim=3).abs().mean()
    )


def _schedule(done: float, step: int) -> float:
    """A short warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, max((step + 1) / WARM_UP_STEPS, done / WARM_UP_SHARE))
    return float(warm * (0.505 + 0.495 * np.cos(np.pi * min(done, 1.0))))


class Batches:
    """Endless random batches: (inputs, targets), each float32 (N, 3, S, S) RGB, 0 to 1.

    Made a few ahead in another thread, while the network computes.
    """

    def __init__(self, pairs: list[Pair], settings: Settings) -> None:
        self._pairs = pairs
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)
        self._degrade = Degrader(self._random)
        self._worker = ThreadPoolExecutor(1, "batches")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        ahead = [self._worker.submit(self._make) for _ in range(BATCHES_AHEAD)]
        while True:
            ahead.append(self._worker.submit(self._make))
            yield ahead.pop(0).result()

    def _make(self) -> tuple[Tensor, Tensor]:
        random, chosen = self._random, self._settings
        picks = random.integers(0, len(self._pairs), chosen.batch)
        crops = [random_crop(self._pairs[i], chosen.crop_px, random) for i in picks]
        damaged = [self._degrade(crop.photo) for crop in crops]
        return _tensor(damaged), _tensor([crop.target for crop in crops])

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)


def _tensor(pictures: list[Picture]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pictures)[..., ::-1].copy())
    # Channels stay last in memory: the convolutions are faster that way.
    return stacked.permute(0, 3, 1, 2).float().div_(255)
