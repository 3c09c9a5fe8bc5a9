"""Train a filter from pairs: pictures, and what they shall become.

The conditional GAN of Isola, Zhu, Zhou and Efros, "Image-to-Image Translation with Conditional
Adversarial Networks" (2017): L1 and a PatchGAN that sees input and output together; feature
matching and several scales after Wang et al., "High-Resolution Image Synthesis and Semantic
Manipulation with Conditional GANs" (2018). The pairs come from two folders, from one folder of
side-by-side pictures, or from a teacher: a slow picture function that is distilled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from engines.errors import SettingsError
from tools.train.adversarial import feature_matching, gan_loss
from tools.train.critic import Critic
from tools.train.crops import StepSampler, loader
from tools.train.library import Shelf
from tools.train.one_generator import OneGenerator
from tools.train.pair_folders import PairCrops, read_pairs, read_side_by_side, read_taught
from tools.train.pairs import LARGEST_CROP_PX, Degrader, Pair, Picture, load_teacher
from tools.train.perceptual import picture_loss
from tools.train.recipe import (
    Batch,
    Report,
    Scalars,
    Settings,
    as_unit,
    set_learning_rate,
    some_of,
    translate,
    validation_frames,
    warm_cosine,
    whole_cells,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSettings(Settings):
    """Where the pairs come from, and what the losses weigh."""

    input: Path | None = None
    target: Path | None = None
    pairs: Path | None = None
    teacher: str = ""
    variants: int = 3
    """How often a teacher sees each photograph, in other light and size."""
    l1_weight: float = 1.0
    adversarial_weight: float = 0.01
    feature_weight: float = 0.0
    scales: int = 1
    condition: bool = True
    discriminator_width: int = 64
    mirror: bool = True
    damage: bool = False
    """Whether inputs are made to look as if a cheap camera had taken them."""

    def check(self) -> None:
        super(PairedSettings, self).check()
        given = [
            bool(self.pairs),
            bool(self.input and self.target),
            bool(self.input and self.teacher),
        ]
        if sum(given) != 1:
            raise SettingsError(
                "give one source of pairs: --input DIR with --target DIR, --pairs DIR,"
                " or --input DIR with --teacher module:function"
            )
        if not 16 <= self.crop_px <= LARGEST_CROP_PX or self.crop_px % 4:
            raise SettingsError(
                f"--crop must be a multiple of 4 from 16 to {LARGEST_CROP_PX}, found {self.crop_px}"
            )
        weights = (self.l1_weight, self.adversarial_weight, self.feature_weight)
        if min(weights) < 0 or not max(weights):
            raise SettingsError(f"the weights must be 0 or more, and not all 0, found {weights}")
        if min(self.scales, self.variants, self.discriminator_width) < 1:
            raise SettingsError("--scales, --variants and --discriminator-width must be 1 or more")


class Paired(OneGenerator):
    """Input pictures in, pictures like their targets out."""

    task: ClassVar[str] = "paired"
    settings: PairedSettings

    def prepare(self, report: Report) -> None:
        chosen = self.settings
        self._frames = validation_frames(chosen)
        self._build(chosen.crop_px)
        self._build_critic()
        self._teacher = load_teacher(chosen.teacher) if chosen.teacher else None
        self._pairs = self._read(report)
        self.notes.append(self._pairs.note)

    def _build_critic(self) -> None:
        """Make the discriminator, where its losses count."""
        chosen = self.settings
        if chosen.adversarial_weight or chosen.feature_weight:
            self._critic = Critic(
                self.fabric,
                6 if chosen.condition else 3,
                width=chosen.discriminator_width,
                crop_px=chosen.crop_px,
                scales=chosen.scales,
            )

    def _read(self, report: Report) -> Shelf[Pair]:
        chosen = self.settings
        if chosen.pairs is not None:
            return read_side_by_side(chosen.pairs, smallest_px=chosen.crop_px, report=report)
        if chosen.input is None:
            raise SettingsError("--input is missing")
        if chosen.target is not None:
            return read_pairs(
                chosen.input, chosen.target, smallest_px=chosen.crop_px, report=report
            )
        return read_taught(
            chosen.input,
            self._teacher or load_teacher(chosen.teacher),
            chosen.out / "cache",
            variants=chosen.variants,
            smallest_px=chosen.crop_px,
            seed=chosen.seed,
            report=report,
        )

    def batches(self, first_step: int) -> Iterator[Batch]:
        chosen, fabric = self.settings, self.fabric
        crops = PairCrops(
            self._pairs,
            chosen.crop_px,
            chosen.seed,
            mirror=chosen.mirror,
            damage=Degrader(chosen.seed) if chosen.damage else None,
        )
        sampler = StepSampler(chosen.batch, first_step, fabric.global_rank, fabric.world_size)
        for both in loader(crops, sampler, chosen.workers):
            yield {"input": both[:, :3], "target": both[:, 3:]}

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen, device = self.settings, self.fabric.device
        rate = chosen.learning_rate * warm_cosine(step, chosen.steps)
        set_learning_rate(self._optimiser, rate)
        given, wanted = (as_unit(batch[name].to(device)) for name in ("input", "target"))
        made = self._network(given)
        losses: Scalars = {"l1": picture_loss(made, wanted)}
        loss = chosen.l1_weight * losses["l1"]
        if self._critic is not None:
            shown, true = self._shown(given, made), self._shown(given, wanted)
            losses["discriminator"] = self._critic.learn(true, shown, rate)
            fake = self._critic.judge(shown)
            losses["adversarial"] = gan_loss(fake, True)
            loss = loss + chosen.adversarial_weight * losses["adversarial"]
            if chosen.feature_weight:
                with torch.no_grad():
                    real = self._critic.judge(true)
                losses["features"] = feature_matching(fake, real)
                loss = loss + chosen.feature_weight * losses["features"]
        return self._improve(loss, losses, step)

    def _shown(self, given: Tensor, picture: Tensor) -> Tensor:
        return torch.cat([given, picture], 1) if self.settings.condition else picture

    def samples(self) -> list[list[Picture]]:
        rows = []
        if self._frames and self._teacher is not None:
            shown = [Pair(frame, self._teacher(frame)) for frame in some_of(self._frames, 4)]
        else:
            shown = [self._pairs[i] for i in range(0, len(self._pairs), -(-len(self._pairs) // 4))]
        for pair in shown[:4]:
            photo, target = (whole_cells(x, self._stride) for x in (pair.photo, pair.target))
            rows.append([photo, translate(self._average.network, photo), target])
        return rows

    def proof_frames(self, name: str) -> list[Picture]:
        step = max(1, -(-len(self._pairs) // 12))
        frames = self._frames or [
            self._pairs[number].photo for number in range(0, len(self._pairs), step)
        ]
        return [whole_cells(frame, self._stride) for frame in frames]

    def summary(self) -> str:
        chosen = self.settings
        source = f"teacher {chosen.teacher}" if chosen.teacher else f"{len(self._pairs)} pairs"
        return (
            f"{super().summary()}; {source}; weights: L1 {chosen.l1_weight:g},"
            f" adversarial {chosen.adversarial_weight:g}, features {chosen.feature_weight:g}"
        )
