"""Train two filters from two folders of pictures that have nothing to do with each other.

CycleGAN: Zhu, Park, Isola and Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks" (2017): two generators, there and back; two discriminators; cycle and
identity losses; least squares (Mao et al., 2017); a pool of earlier results for the
discriminators (Shrivastava et al., 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn

from engines.errors import SettingsError
from tools.train.adversarial import ADAM_BETAS, gan_loss
from tools.train.crops import Crops, StepSampler, loader
from tools.train.discriminators import PatchGAN
from tools.train.generators import build_generator, check_crop
from tools.train.library import Library
from tools.train.motion import unsteadiness
from tools.train.pairs import Picture
from tools.train.recipe import (
    Average,
    Batch,
    Recipe,
    Report,
    Scalars,
    Settings,
    as_unit,
    channels_last,
    set_learning_rate,
    some_of,
    translate,
    validation_frames,
    whole_cells,
)

CONSTANT_SHARE: Final = 0.5  # of the steps; then the learning rate falls in a line
LOWEST_RATE: Final = 0.01
DIRECTIONS: Final = ("a_to_b", "b_to_a")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedSettings(Settings):
    """The two domains, and what the losses weigh beside the adversarial one."""

    a: Path
    b: Path
    back_name: str = ""
    """Of the filter from B to A; by default the other one's with -back."""
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    temporal_weight: float = 0.0
    discriminator_rate: float = 2e-4
    discriminator_width: int = 64
    pool: int = 50

    def check(self) -> None:
        super(UnpairedSettings, self).check()
        weights = (self.cycle_weight, self.identity_weight, self.temporal_weight)
        if min(weights) < 0:
            raise SettingsError(f"the weights must be 0 or more, found {weights}")
        if self.pool < 0 or self.discriminator_width < 1:
            raise SettingsError("--pool must be 0 or more, --discriminator-width 1 or more")
        if self.start:
            raise SettingsError("--start is for style and paired: two networks begin here")
        if self.discriminator_rate <= 0:
            raise SettingsError(
                f"--discriminator-rate must be more than 0, found {self.discriminator_rate}"
            )
        if self.back_name == self.name or "/" in self.back_name or self.back_name.startswith("."):
            raise SettingsError(
                f"--back-name must be a name of its own for a file, found {self.back_name!r}"
            )
        if self.a.resolve() == self.b.resolve():
            raise SettingsError(f"--a and --b are the same folder {self.a}")


class Unpaired(Recipe):
    """Pictures of one domain in, pictures that look like the other domain out; and back."""

    task: ClassVar[str] = "unpaired"
    settings: UnpairedSettings

    def prepare(self, report: Report) -> None:
        chosen, device = self.settings, self.fabric.device
        self._frames = validation_frames(chosen)
        self._libraries = {
            "a": Library.read(chosen.a, smallest_px=chosen.crop_px, report=report),
            "b": Library.read(chosen.b, smallest_px=chosen.crop_px, report=report),
        }
        self.notes += [library.note for library in self._libraries.values()]
        torch.manual_seed(chosen.seed)
        networks = nn.ModuleDict({name: build_generator(chosen.generator) for name in DIRECTIONS})
        for network in networks.values():
            check_crop(network, chosen.crop_px)
        self._stride = int(getattr(networks["a_to_b"], "stride", 1))
        networks = channels_last(networks)
        self._averages = {name: Average(networks[name]).to(device) for name in DIRECTIONS}
        # An instance: what its weights draw is a part of what a seed gives.
        smallest_px = PatchGAN(3, 1).smallest_px
        if chosen.crop_px < smallest_px:
            raise SettingsError(
                f"--crop must be {smallest_px} or more for the discriminators,"
                f" found {chosen.crop_px}"
            )
        judges = nn.ModuleDict({name: PatchGAN(3, chosen.discriminator_width) for name in "ab"})
        judges = channels_last(judges)
        self._optimiser = torch.optim.Adam(
            networks.parameters(), chosen.learning_rate, betas=ADAM_BETAS
        )
        self._judge_optimiser = torch.optim.Adam(
            judges.parameters(), chosen.discriminator_rate, betas=ADAM_BETAS
        )
        # One call each, so that Fabric knows which modules an optimiser belongs to.
        self._networks, self._optimiser = self._set_up(networks, self._optimiser)
        self._judges, self._judge_optimiser = self._set_up(judges, self._judge_optimiser)
        self._pools = {name: PicturePool(chosen.pool) for name in "ab"}

    def _set_up(self, modules: nn.ModuleDict, optimiser: Any) -> tuple[dict[str, Any], Any]:
        found = {name: self.fabric.setup_module(module) for name, module in modules.items()}
        return found, self.fabric.setup_optimizers(optimiser)

    def batches(self, first_step: int) -> Iterator[Batch]:
        chosen, fabric = self.settings, self.fabric
        streams = []
        for number, name in enumerate("ab"):
            crops = Crops(self._libraries[name], chosen.crop_px, chosen.seed + number)
            sampler = StepSampler(chosen.batch, first_step, fabric.global_rank, fabric.world_size)
            streams.append(loader(crops, sampler, chosen.workers))
        for one, other in zip(*streams):
            yield {"a": one, "b": other}

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen, device = self.settings, self.fabric.device
        decay = _constant_then_linear(step, chosen.steps)
        set_learning_rate(self._optimiser, chosen.learning_rate * decay)
        set_learning_rate(self._judge_optimiser, chosen.discriminator_rate * decay)
        real = {name: as_unit(batch[name].to(device)) for name in "ab"}
        there, back = self._networks["a_to_b"], self._networks["b_to_a"]
        fake = {"b": there(real["a"]), "a": back(real["b"])}
        again = {"a": back(fake["b"]), "b": there(fake["a"])}
        losses: Scalars = {}
        for judge in self._judges.values():
            judge.requires_grad_(False)  # the generators' step leaves them alone
        judged = [gan_loss(self._judges[name](fake[name]), True) for name in "ab"]
        losses["adversarial"] = torch.stack(judged).sum()
        losses["cycle"] = torch.stack([(again[n] - real[n]).abs().mean() for n in "ab"]).sum()
        if chosen.identity_weight:
            kept = [(there(real["b"]), real["b"]), (back(real["a"]), real["a"])]
            losses["identity"] = torch.stack([(x - y).abs().mean() for x, y in kept]).sum()
        if chosen.temporal_weight:
            losses["temporal"] = self._unsteady(real, fake, step)
        weights = {
            "adversarial": 1.0,
            "cycle": chosen.cycle_weight,
            "identity": chosen.identity_weight,
            "temporal": chosen.temporal_weight,
        }
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        self._optimiser.zero_grad()
        self.fabric.backward(loss)
        self._optimiser.step()
        for name in DIRECTIONS:
            self._averages[name].follow(self._networks[name].module, step)
        losses["discriminators"] = self._judge(real, fake, step)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _judge(self, real: Batch, fake: Batch, step: int) -> Tensor:
        """One step of both discriminators, on results of now and of earlier."""
        random = np.random.default_rng(self.seed(step, 1))
        wrong = []
        for name in "ab":
            judge = self._judges[name].requires_grad_(True)
            shown = self._pools[name].swap(fake[name].detach(), random)
            wrong.append(gan_loss(judge(real[name]), True))
            wrong.append(gan_loss(judge(shown), False))
        loss = torch.stack(wrong).sum() / 2
        self._judge_optimiser.zero_grad()
        self.fabric.backward(loss)
        self._judge_optimiser.step()
        return loss.detach()

    def _unsteady(self, real: Batch, fake: Batch, step: int) -> Tensor:
        """Of both directions together."""
        random = torch.Generator().manual_seed(self.seed(step, 2))
        wrong = [
            unsteadiness(self._networks[name], real[given], fake[made], random)
            for given, made, name in (("a", "b", "a_to_b"), ("b", "a", "b_to_a"))
        ]
        return torch.stack(wrong).sum()

    def samples(self) -> list[list[Picture]]:
        rows = []
        there, back = (self._averages[name].network for name in DIRECTIONS)
        frames = self.proof_frames(self.settings.name)
        paintings = self.proof_frames("")[:2]
        for first, second, shown in (
            (there, back, frames[:: -(-len(frames) // 3)]),
            (back, there, paintings),
        ):
            for frame in shown:
                made = translate(first, frame)
                rows.append([frame, made, translate(second, made)])
        return rows

    def state(self) -> dict[str, Any]:
        return {
            "networks": {name: x.module.state_dict() for name, x in self._networks.items()},
            "judges": {name: x.module.state_dict() for name, x in self._judges.items()},
            "averages": {name: x.state_dict() for name, x in self._averages.items()},
            "optimiser": self._optimiser.state_dict(),
            "judge_optimiser": self._judge_optimiser.state_dict(),
            **self._remembered(),
        }

    def _remembered(self) -> dict[str, Any]:
        """Return the pools of this device, and those of the others, which are gathered.

        All have as many pictures: each device gets as many crops a step.
        """
        pools = {name: pool.pictures for name, pool in self._pools.items()}
        if self.fabric.world_size == 1 or not pools["a"]:
            return {"pools": pools}
        # (devices, pictures, 3, S, S)
        found: Any = self.fabric.all_gather({name: torch.stack(pools[name]) for name in "ab"})
        every = [
            {name: list(found[name][rank].cpu()) for name in "ab"}
            for rank in range(self.fabric.world_size)
        ]
        return {"pools": every[0], "pools_of_others": every[1:]}

    def load(self, state: dict[str, Any]) -> None:
        for name, network in self._networks.items():
            network.module.load_state_dict(state["networks"][name])
        for name, judge in self._judges.items():
            judge.module.load_state_dict(state["judges"][name])
        for name, average in self._averages.items():
            average.load_state_dict(state["averages"][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self._judge_optimiser.load_state_dict(state["judge_optimiser"])
        every = [state["pools"], *state.get("pools_of_others", [])]
        # Of a run with fewer devices, the new ones take over what the others remember.
        mine = every[self.fabric.global_rank % len(every)]
        for name, pool in self._pools.items():
            pool.pictures = [picture.to(self.fabric.device) for picture in mine[name]]

    def finished(self) -> dict[str, nn.Module]:
        chosen = self.settings
        names = (chosen.name, chosen.back_name or f"{chosen.name}-back")
        return {
            name: self._averages[direction].network.cpu().eval()
            for name, direction in zip(names, DIRECTIONS, strict=True)
        }

    def domains_of(self, name: str) -> str:
        from_, arrow, to = self.settings.domains.partition(" -> ")
        back = name != self.settings.name and arrow
        return f"{to}{arrow}{from_}" if back else self.settings.domains

    def proof_frames(self, name: str) -> list[Picture]:
        if name == self.settings.name:
            frames = self._frames or some_of(self._libraries["a"])
        else:
            frames = some_of(self._libraries["b"])
        return [whole_cells(frame, self._stride) for frame in frames]

    def summary(self) -> str:
        chosen = self.settings
        return (
            f"{super().summary()}; {len(self._libraries['a'])} and {len(self._libraries['b'])}"
            f" pictures, weights: cycle {chosen.cycle_weight:g},"
            f" identity {chosen.identity_weight:g}, temporal {chosen.temporal_weight:g}"
        )


class PicturePool:
    """Earlier results, so that discriminators do not forget what generators once did.

    Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial
    Training" (2017). ``pictures`` are tensors (3, S, S), at most ``size`` of them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.pictures: list[Tensor] = []

    def swap(self, made: Tensor, random: np.random.Generator) -> Tensor:
        """Return (N, 3, S, S): half of the time an earlier picture for a new one, which stays."""
        if not self._size:
            return made
        shown = []
        for picture in made:
            if len(self.pictures) < self._size:
                self.pictures.append(picture.clone())
                shown.append(picture)
            elif random.random() < 0.5:
                place = int(random.integers(len(self.pictures)))
                shown.append(self.pictures[place])
                self.pictures[place] = picture.clone()
            else:
                shown.append(picture)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)


def _constant_then_linear(step: int, steps: int) -> float:
    """Factor of the learning rate, as the authors decay it: constant, then down in a line."""
    done = step / steps
    return 1.0 if done < CONSTANT_SHARE else max(LOWEST_RATE, 2 * (1 - done))
