"""What a recipe is: one way to learn, as the loop sees it.

The loop (`tools.train.loop`) asks for one step after the other, stores what `Recipe.state` gives,
and draws what `Recipe.samples` shows. Everything random in a step follows from the seed and the
number of the step, so that a resumed run goes on to the same numbers.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from engines.errors import SettingsError
from tools.train.pairs import Picture, frames_of

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Batch = dict[str, Tensor]
Scalars = dict[str, Tensor]
Report = Callable[[str, float], None]
"""What is being prepared, and how much of it is done (0 to 1)."""

EMA_DECAY: Final = 0.999
EMA_START: Final = 10  # the average reaches back over about a tenth of the first steps
WARM_UP_STEPS: Final = 200
WARM_UP_SHARE: Final = 0.05  # of a run that is too short for that


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every training run is made of."""

    out: Path
    name: str
    generator: str = "quarter:64x4"
    start: str = ""
    """A filter of the same network to start from."""
    steps: int = 6000
    batch: int = 4
    crop_px: int = 256
    learning_rate: float = 1e-3
    seed: int = 1
    precision: str = "auto"
    """32-true, bf16-mixed, 16-mixed, or auto: what this device computes fast and safely."""
    accelerator: str = "auto"
    devices: int = 1
    workers: int = 1
    validate: Path | None = None
    save_every: int = 250
    sheet_every: int = 1000
    resume: bool = False
    overwrite: bool = False
    """Whether a checkpoint of an earlier run may be thrown away."""
    export: bool = False
    """Whether to stop training, and make a filter of the checkpoint as it is."""
    title: str = ""
    domains: str = ""
    licence: str = ""
    origin: str = ""
    command: str = ""
    """What a person types to make this filter again; the card says it."""

    def check(self) -> None:
        """Raise SettingsError for what cannot be trained."""
        for option, value in (
            ("--steps", self.steps),
            ("--batch", self.batch),
            ("--devices", self.devices),
            ("--save-every", self.save_every),
            ("--sheet-every", self.sheet_every),
        ):
            if value < 1:
                raise SettingsError(f"{option} must be 1 or more, found {value}")
        if self.workers < 0:
            raise SettingsError(f"--workers must be 0 or more, found {self.workers}")
        if self.seed < 0:
            raise SettingsError(f"--seed must be 0 or more, found {self.seed}")
        if self.overwrite and (self.resume or self.export):
            raise SettingsError(
                "--overwrite throws the checkpoint away that --resume and --export need: give one"
            )
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"--seed must be 0 or more, and below 2^63, found {self.seed}")
        if not 0 < self.learning_rate < 1:
            raise SettingsError(
                f"--learning-rate must be between 0 and 1, found {self.learning_rate}"
            )


class Recipe(abc.ABC):
    """Networks, losses and data of one way to learn."""

    task: ClassVar[str]
    """Of the card: paired, unpaired or style."""

    def __init__(self, settings: Settings, fabric: Fabric) -> None:
        self.settings, self.fabric = settings, fabric
        self.notes: list[str] = []
        """What a person should know after `prepare`, such as pictures that were skipped."""

    @abc.abstractmethod
    def prepare(self, report: Report) -> None:
        """Read the pictures and build the networks; called once, before anything else."""

    @abc.abstractmethod
    def batches(self, first_step: int) -> Iterator[Batch]:
        """Yield the batch of ``first_step`` and of every later step."""

    @abc.abstractmethod
    def learn(self, batch: Batch, step: int) -> Scalars:
        """Take one step; return what is worth a curve. ``loss`` is among it."""

    @abc.abstractmethod
    def samples(self) -> list[list[Picture]]:
        """Rows of pictures (input, output, target or reconstruction) for the sample sheet."""

    def seed(self, step: int, stream: int) -> int:
        """Return the seed of what this device draws in a step; ``stream`` (0 to 9) tells uses."""
        return step_seed(self.settings.seed, step, stream + 10 * self.fabric.global_rank)

    def captions(self) -> tuple[str, ...]:
        """What the columns of `samples` are."""
        last = {"paired": "target", "unpaired": "reconstruction", "style": "style"}
        return ("input", "output", last[self.task])

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on: weights, optimisers, averages, pools.

        Called in every process; that of the first is stored.
        """

    @abc.abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    @abc.abstractmethod
    def finished(self) -> dict[str, nn.Module]:
        """The generators to ship: name of the filter -> network, in eval mode, on the CPU."""

    def domains_of(self, name: str) -> str:
        """From what to what the generator ``name`` of `finished` translates, for its card."""
        return self.settings.domains

    @abc.abstractmethod
    def proof_frames(self, name: str) -> list[Picture]:
        """Real pictures on which the exported generator ``name`` is compared with its network."""

    def summary(self) -> str:
        """One line for the card: what was learned from, how long, which losses."""
        chosen = self.settings
        return (
            f"{chosen.steps} steps of {chosen.batch} crops of {chosen.crop_px} pixels,"
            f" seed {chosen.seed}"
        )


class Average(nn.Module):
    """The running average of a network's weights, which is what ships.

    Of a short past at first, so that it does not remember the start.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        import copy

        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Move towards ``network``, as after step number ``step`` (from 0)."""
        weight = max(1 - EMA_DECAY, EMA_START / (step + EMA_START))
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value.to(mean.dtype), weight)
        for kept, found in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(found)


def warm_cosine(step: int, steps: int) -> float:
    """Factor of the learning rate: a short warm-up, then a cosine down to a hundredth.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017).
    """
    done = step / steps
    warm = min(1.0, max((step + 1) / WARM_UP_STEPS, done / WARM_UP_SHARE))
    return float(warm * (0.505 + 0.495 * np.cos(np.pi * min(done, 1.0))))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """Return the seed of everything random in one step. ``stream`` tells uses apart."""
    words = np.random.SeedSequence((seed, step, stream)).generate_state(2)
    return int(words[0]) << 31 ^ int(words[1])


def channels_last(module: AnyModule) -> AnyModule:
    """Return a module whose weights have the channels last in memory (faster convolutions)."""
    found: AnyModule = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found


def as_unit(pictures: Tensor) -> Tensor:
    """Return uint8 (N, 3, S, S) RGB as float32, 0 to 1, channels last in memory (faster)."""
    return pictures.float().div_(255).contiguous(memory_format=torch.channels_last)


def translate(network: nn.Module, frame: Picture) -> Picture:
    """Return what a network makes of one frame. uint8 (H, W, 3) BGR in and out.

    ``network`` takes and gives float32 (1, 3, H, W), RGB, 0 to 1.
    """
    device = next(network.parameters()).device
    image = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None].to(device)
    with torch.inference_mode():
        found = network(as_unit(image))[0].float().clamp(0, 1).mul(255).round().byte().cpu()
    return np.ascontiguousarray(found.permute(1, 2, 0).numpy()[..., ::-1])


def validation_frames(settings: Settings, count: int = 12) -> list[Picture]:
    """Return frames of ``validate``, which are never learned from; none where it is not given.

    Raises:
        SourceError: nothing there can be read.
    """
    return [] if settings.validate is None else frames_of(settings.validate, count)


def some_of(pictures: Sequence[Picture], count: int = 12) -> list[Picture]:
    """Return a few pictures, evenly spread."""
    return [pictures[i] for i in range(0, len(pictures), max(1, -(-len(pictures) // count)))]


def whole_cells(frame: Picture, stride: int) -> Picture:
    """Return a picture (H, W, 3) without what is over at the right and at the bottom."""
    height, width = (side // stride * stride for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])
