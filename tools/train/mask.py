"""Train a small network that says where people are, by distillation.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): the teacher's soft
masks are the targets, of frames and of people that were pasted elsewhere. The losses are the cross
entropy and the intersection over union of soft masks (Rahman and Wang, "Optimizing
Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engines.errors import SettingsError
from engines.generators.person import STRIDE, PersonNet
from tools.train.crops import StepSampler, loader
from tools.train.one_generator import OneGenerator
from tools.train.pairs import Picture
from tools.train.people import Lessons, read_backgrounds, read_people
from tools.train.recipe import (
    Average,
    Batch,
    Report,
    Scalars,
    Settings,
    as_unit,
    channels_last,
    set_learning_rate,
    some_of,
    translate,
    validation_frames,
    warm_cosine,
)
from tools.train.teachers.segmenter import Segmenter

GREEN: Final = (0, 200, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings(Settings):
    """Who is learned from.

    ``crop_px`` is the height of the pictures; their width is 16:9 or 4:3 of it.
    """

    generator: str = "person"
    """No other one."""

    people: Path | None = None
    """Folder of clips and pictures with people."""
    backgrounds: Path | None = None
    """Folder of pictures without people; those of each folder below count about the same."""
    teacher: Path | None = None
    """A segmentation network in ONNX; see `tools.train.teachers.segmenter.Segmenter`."""
    overlap_weight: float = 0.5

    def check(self) -> None:
        super(MaskSettings, self).check()
        for name in ("people", "backgrounds", "teacher"):
            if getattr(self, name) is None:
                raise SettingsError(f"--{name} is missing")
        if self.generator != "person":
            raise SettingsError(f"masks are learned by the generator person, not {self.generator}")
        if self.start:
            raise SettingsError("masks are learned from the beginning: leave out --start")
        if not 2 * STRIDE <= self.crop_px <= 512 or self.crop_px % STRIDE:
            raise SettingsError(
                f"--crop must be a multiple of {STRIDE} from {2 * STRIDE} to 512,"
                f" found {self.crop_px}"
            )
        if not 0 <= self.overlap_weight < 100:
            raise SettingsError(f"--overlap must be 0 or more, found {self.overlap_weight}")


class Mask(OneGenerator):
    """Frames in, where people are out."""

    task: ClassVar[str] = "other"
    settings: MaskSettings

    def prepare(self, report: Report) -> None:
        chosen = self.settings
        self._frames = validation_frames(chosen)
        self._build_network()
        assert chosen.people is not None
        assert chosen.backgrounds is not None
        assert chosen.teacher is not None
        self._teacher = Segmenter(chosen.teacher)
        self._people = read_people(
            chosen.people, self._teacher, lambda share: report("teacher", share)
        )
        skipped: list[str] = []
        self._backgrounds = read_backgrounds(
            chosen.backgrounds, skipped, lambda share: report("backgrounds", share)
        )
        if skipped:
            self.notes.append(f"{len(skipped)} backgrounds skipped: {', '.join(skipped[:5])}")

    def _build_network(self) -> None:
        torch.manual_seed(self.settings.seed)
        network = channels_last(PersonNet())
        self._stride = network.stride
        self._average = Average(network).to(self.fabric.device)
        self._network, self._optimiser = self.fabric.setup(
            network, torch.optim.Adam(network.parameters(), self.settings.learning_rate)
        )

    def batches(self, first_step: int) -> Iterator[Batch]:
        chosen, fabric = self.settings, self.fabric
        lessons = Lessons(
            self._people, self._backgrounds, chosen.crop_px, chosen.batch, chosen.seed
        )
        sampler = StepSampler(chosen.batch, first_step, fabric.global_rank, fabric.world_size)
        for both in loader(lessons, sampler, chosen.workers):
            yield {"input": both[:, :3], "target": both[:, 3:]}

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen, device = self.settings, self.fabric.device
        set_learning_rate(self._optimiser, chosen.learning_rate * warm_cosine(step, chosen.steps))
        given, wanted = (as_unit(batch[name].to(device)) for name in ("input", "target"))
        logits = self._network(given).float()
        losses: Scalars = {
            "entropy": functional.binary_cross_entropy_with_logits(logits, wanted),
            "overlap": overlap_loss(torch.sigmoid(logits), wanted),
        }
        loss = losses["entropy"] + chosen.overlap_weight * losses["overlap"]
        return self._improve(loss, losses, step)

    def captions(self) -> tuple[str, ...]:
        return ("input", "output", "teacher")

    def samples(self) -> list[list[Picture]]:
        rows = []
        for frame in some_of(self.proof_frames(""), 6):
            found = translate(self._average.network, frame)[..., 0]
            wanted = self._teacher(frame)
            rows.append([frame, on_green(frame, found), on_green(frame, wanted)])
        return rows

    def proof_frames(self, name: str) -> list[Picture]:
        frames = self._frames or [item.frame for clip in self._people for item in clip[:1]]
        return [working_frame(frame, self.settings.crop_px) for frame in frames]

    def summary(self) -> str:
        chosen = self.settings
        assert chosen.teacher is not None
        return (
            f"{chosen.steps} steps of {chosen.batch} pictures of {chosen.crop_px} lines, seed"
            f" {chosen.seed}; teacher {chosen.teacher.name}; {len(self._people)} clips and pictures"
            f" of people, {sum(map(len, self._backgrounds))} backgrounds; weights: cross entropy 1,"
            f" overlap {chosen.overlap_weight:g}"
        )


def overlap_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 minus the intersection over union of soft masks, (N, 1, H, W), 0 to 1.

    The mean over the batch; a mask of nobody is measured against a hundredth of the picture.
    """
    both = (found * wanted).sum((1, 2, 3))
    either = (found + wanted - found * wanted).sum((1, 2, 3))
    slack = 0.01 * wanted[0].numel()
    return (1 - (both + slack) / (either + slack)).mean()


def working_frame(frame: Picture, short_side_px: int) -> Picture:
    """Return a frame, uint8 (H, W, 3), reduced to about this short side, in whole strides."""
    scale = short_side_px / min(frame.shape[:2])
    size = [max(1, round(side * scale / STRIDE)) * STRIDE for side in frame.shape[1::-1]]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def on_green(frame: Picture, mask: Picture) -> Picture:
    """Return a frame (H, W, 3) with green where its mask, uint8 (H, W), is 0."""
    share = mask[..., None].astype(np.float32) / 255
    shown = frame * share + np.array(GREEN, np.float32) * (1 - share)
    return (shown + 0.5).astype(np.uint8)
