"""Train a filter that paints like a picture.

Perceptual losses after Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer
and Super-Resolution" (2016), led by matched neighbours (`tools.train.neighbours`). The style is
held at two sizes, fine strokes and broad ones, in turn; a temporal loss with known motion keeps
live video from flickering.
"""

from __future__ import annotations

import hashlib
import itertools
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
from realtime.sources.pictures import read_picture
from tools.train.adversarial import gan_loss
from tools.train.critic import Critic
from tools.train.crops import Crops, StepSampler, as_picture, as_tensor, loader
from tools.train.export import weights_sha256
from tools.train.features import LAYERS, load_features
from tools.train.library import Library
from tools.train.motion import unsteadiness
from tools.train.neighbours import MATCHED_BY, Maps, Neighbours, match_distance
from tools.train.one_generator import OneGenerator
from tools.train.painting import PAINTER, Painter, painted_pairs
from tools.train.pair_folders import PairCrops
from tools.train.pairs import Degrader, Pair, Picture
from tools.train.perceptual import Style as StyleStatistics
from tools.train.perceptual import (
    content_distance,
    out_of_range,
    picture_loss,
    style_distance,
    style_of,
    total_variation,
)
from tools.train.recipe import (
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
    whole_cells,
)

STYLE_LAYERS: Final = ("relu1_2", "relu2_2", "relu3_1")
CONTENT_LAYER: Final = "relu3_1"
RANGE_WEIGHT: Final = 10.0
MEAN_CROPS: Final = 32
PAINTED_PX: Final = 320
FINE_EVERY: Final = 4  # steps; at the others the broad strokes are looked at
TEMPORAL_EVERY: Final = 2  # steps: it takes as long as all the rest of the generator's work
TEMPORAL_FROM: Final = 0.5  # of the steps: held steady too early, nothing is ever painted
TEMPORAL_WHOLE: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleSettings(Settings):
    """What a style is made of. The weights are relative to the style loss."""

    content: Path
    style: Path
    features: Path | None = None
    style_px: int = 512
    """Short side of the painting, beside frames whose short side is 360."""
    imitate: int = 120
    """How many photographs are painted by optimisation first, to be imitated."""
    match_weight: float = 1.0
    style_weight: float = 0.3
    content_weight: float = 0.0
    tv_weight: float = 0.2
    temporal_weight: float = 20.0
    last_word: float = 0.1
    """Of the feature net, beside the imitation: in this share of the steps, at the end."""
    adversarial_weight: float = 0.1
    discriminator_width: int = 32

    def check(self) -> None:
        super(StyleSettings, self).check()
        if self.crop_px % 8 or self.crop_px < 64:
            raise SettingsError(
                f"--crop must be a multiple of 8 and 64 or more, found {self.crop_px}"
            )
        if self.style_px < 64:
            raise SettingsError(f"--style-size must be 64 or more, found {self.style_px}")
        if not 0 <= self.last_word <= 1:
            raise SettingsError(f"--last-word is a share, 0 to 1, found {self.last_word}")
        if self.discriminator_width < 1:
            raise SettingsError("--discriminator-width must be 1 or more")
        weights = (
            self.style_weight,
            self.content_weight,
            self.tv_weight,
            self.temporal_weight,
            self.adversarial_weight,
        )
        if min(weights) < 0 or not self.style_weight:
            raise SettingsError(
                f"the weights must be 0 or more, and that of the style more than 0, found {weights}"
            )


class Style(OneGenerator):
    """Any picture in, the same content in the style of one painting out."""

    task: ClassVar[str] = "style"
    settings: StyleSettings

    def prepare(self, report: Report) -> None:
        chosen, device = self.settings, self.fabric.device
        self._frames = validation_frames(chosen)
        smallest_px = chosen.crop_px // (2 if chosen.imitate else 1)
        self._build(smallest_px)
        if chosen.adversarial_weight:
            self._critic = Critic(
                self.fabric, 3, width=chosen.discriminator_width, crop_px=smallest_px
            )
        painting = read_picture(chosen.style)
        self._painting = painting
        self._library = Library.read(chosen.content, smallest_px=chosen.crop_px, report=report)
        self.notes.append(self._library.note)
        self._features = channels_last(load_features(chosen.features)).to(device)
        # Strokes as large as in the painting at this size, and in one of half of it.
        sizes = (chosen.style_px, chosen.style_px // 2)
        paintings = [self._seen(_as_batch(painting, side_px).to(device)) for side_px in sizes]
        self._styles = [styles(maps) for maps in paintings]
        mean = self._content_mean()
        self._neighbours = [Neighbours(maps, mean, chosen.seed) for maps in paintings]
        self._pairs = self._paint(report)

    def _paint(self, report: Report) -> list[Pair]:
        """Paint some photographs by optimisation."""
        chosen, device = self.settings, self.fabric.device
        weights = (chosen.match_weight, chosen.style_weight, chosen.tv_weight)
        painter = Painter(self._maps, styles, self._styles, self._neighbours, weights)
        crops = Crops(self._library, PAINTED_PX, chosen.seed)
        photographs = [as_picture(crops[number]) for number in range(chosen.imitate)]
        painting = hashlib.sha256(self._painting.tobytes()).hexdigest()
        features = weights_sha256(self._features)
        stamp = f"{chosen.style_px} {weights} {PAINTER} {chosen.seed} {painting} {features}"
        pairs = []
        for pair in painted_pairs(
            photographs, lambda photo: painter.paint(photo, device), chosen.out / "cache", stamp
        ):
            pairs.append(pair)
            report("painting", len(pairs) / chosen.imitate)
        return pairs

    def batches(self, first_step: int) -> Iterator[Batch]:
        chosen, fabric = self.settings, self.fabric
        crops = Crops(self._library, chosen.crop_px, chosen.seed)

        def pictures(from_step: int) -> Iterator[Tensor]:
            place = (from_step, fabric.global_rank, fabric.world_size)
            return loader(crops, StepSampler(chosen.batch, *place), chosen.workers)

        strokes = self._strokes(first_step)
        if not self._pairs:
            for found in pictures(first_step):
                yield {"pictures": found, **next(strokes)}
            return
        pairs = PairCrops(
            self._pairs, chosen.crop_px // 2, chosen.seed, damage=Degrader(chosen.seed)
        )
        place = (first_step, fabric.global_rank, fabric.world_size)
        painted = loader(pairs, StepSampler(4 * chosen.batch, *place), chosen.workers)
        looked_at: Iterator[Tensor] | None = None
        for step, both in enumerate(painted, first_step):
            batch = {"given": both[:, :3], "wanted": both[:, 3:], **next(strokes)}
            if self._looks(step):
                looked_at = looked_at or pictures(step)
                batch["pictures"] = next(looked_at)
            yield batch

    def _strokes(self, first_step: int) -> Iterator[Batch]:
        """Crops of the painting itself, as the critic knows them."""
        chosen, fabric = self.settings, self.fabric
        if not chosen.adversarial_weight:
            yield from itertools.repeat({})
        painting = [_sized(self._painting, chosen.style_px)]
        count, side_px = (4, 2) if self._pairs else (1, 1)
        crops = Crops(painting, chosen.crop_px // side_px, chosen.seed + 1)
        place = (first_step, fabric.global_rank, fabric.world_size)
        for found in loader(crops, StepSampler(count * chosen.batch, *place), chosen.workers):
            yield {"strokes": found}

    def _looks(self, step: int) -> bool:
        """Whether the feature net has a word in this step."""
        return not self._pairs or step / self.settings.steps >= 1 - self.settings.last_word

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen, device = self.settings, self.fabric.device
        rate = chosen.learning_rate * warm_cosine(step, chosen.steps)
        set_learning_rate(self._optimiser, rate)
        weights = {
            "imitation": 1.0,
            "match": chosen.match_weight,
            "style": chosen.style_weight,
            "content": chosen.content_weight,
            "tv": chosen.tv_weight,
            "temporal": chosen.temporal_weight * _ramp(step / chosen.steps),
            "range": RANGE_WEIGHT,
            "adversarial": chosen.adversarial_weight,
        }
        losses: Scalars = {}
        pictures = painted = None
        if self._pairs:
            pictures, wanted = (as_unit(batch[name].to(device)) for name in ("given", "wanted"))
            painted = self._network(pictures)
            losses["imitation"] = picture_loss(painted, wanted)
            judged = painted
        if self._looks(step):
            pictures = as_unit(batch["pictures"].to(device))
            painted = self._network(pictures)
            losses.update(self._look(pictures, painted, step))
        assert pictures is not None
        assert painted is not None
        if weights["temporal"] and step % TEMPORAL_EVERY == 0:
            random = torch.Generator().manual_seed(self.seed(step, 2))
            losses["temporal"] = unsteadiness(self._network, pictures, painted, random)
        if self._critic:
            judged = judged if self._pairs else painted
            strokes = as_unit(batch["strokes"].to(device))
            discriminator = self._critic.learn(strokes, judged, rate)
            losses["adversarial"] = gan_loss(self._critic.judge(judged), True)
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        if self._critic:
            losses["discriminator"] = discriminator
        return self._improve(loss, losses, step)

    def _look(self, pictures: Tensor, painted: Tensor, step: int) -> Scalars:
        """What the feature net thinks of painted pictures."""
        seen, given, size = self._at_a_size(painted, pictures, step)
        content, maps = self._seen(given), self._maps(seen)
        losses = {
            "style": style_distance(styles(maps), self._styles[size]),
            "content": content_distance(maps[CONTENT_LAYER], content[CONTENT_LAYER]),
            "tv": total_variation(painted),
            "range": out_of_range(painted),
        }
        if self.settings.match_weight:
            wanted = self._neighbours[size].matched(content)
            losses["match"] = match_distance(maps, wanted)
        return losses

    def _at_a_size(
        self, painted: Tensor, pictures: Tensor, step: int
    ) -> tuple[Tensor, Tensor, int]:
        """What the feature net looks at: half of the size, or a quarter of the area, in turn."""
        if step % FINE_EVERY:
            return functional.avg_pool2d(painted, 2), functional.avg_pool2d(pictures, 2), 1
        side_px = painted.shape[-1] // 2
        random = np.random.default_rng(self.seed(step, 1))
        # On the grid of relu3_1, so that both see the same places.
        top, left = random.integers(0, side_px // 4 + 1, 2) * 4
        part = (..., slice(top, top + side_px), slice(left, left + side_px))
        return painted[part], pictures[part], 0

    def _maps(self, pictures: Tensor) -> dict[str, Tensor]:
        with self.fabric.autocast():
            found = self._features(pictures.contiguous(memory_format=torch.channels_last))
        return dict(zip(LAYERS, found, strict=True))

    @torch.no_grad()
    def _seen(self, pictures: Tensor) -> dict[str, Tensor]:
        """The feature maps of pictures that are not learned from."""
        return self._maps(pictures)

    def _content_mean(self) -> Tensor:
        """Of the features of some photographs, (C,)."""
        crops = Crops(self._library, self.settings.crop_px, self.settings.seed)
        means = []
        for number in range(MEAN_CROPS):
            crop = as_unit(crops[number][None].to(self.fabric.device))
            maps = self._seen(functional.avg_pool2d(crop, 2))[MATCHED_BY]
            means.append(maps.float().mean((0, 2, 3)))
        return torch.stack(means).mean(0)

    def samples(self) -> list[list[Picture]]:
        rows = self.proof_frames(self.settings.name)
        shown = rows[:: -(-len(rows) // 4)]
        return [[frame, translate(self._average.network, frame), self._painting] for frame in shown]

    def proof_frames(self, name: str) -> list[Picture]:
        frames = self._frames or some_of(self._library)
        return [whole_cells(frame, self._stride) for frame in frames]

    def summary(self) -> str:
        chosen = self.settings
        seen = f"{chosen.batch} crops of {chosen.crop_px} pixels"
        painted = (
            f"{4 * chosen.batch} crops of {chosen.crop_px // 2} pixels of {chosen.imitate}"
            " photographs painted by optimisation"
        )
        if not chosen.imitate:
            steps = f"each with {seen}"
        elif not chosen.last_word:
            steps = f"each with {painted}"
        else:
            steps = f"{1 - chosen.last_word:.0%} of them with {painted}, the others with {seen}"
        return (
            f"{chosen.steps} steps, {steps}, seed {chosen.seed}; style {chosen.style.name} at"
            f" {chosen.style_px} pixels, weights: match {chosen.match_weight:g}, style"
            f" {chosen.style_weight:g}, content {chosen.content_weight:g}, total variation"
            f" {chosen.tv_weight:g}, temporal {chosen.temporal_weight:g}, adversarial"
            f" {chosen.adversarial_weight:g}"
        )


def styles(maps: Maps) -> list[StyleStatistics]:
    """Return the style of each of the layers that count."""
    return [style_of(maps[layer]) for layer in STYLE_LAYERS]


def _ramp(done: float) -> float:
    """How much of the temporal loss counts when ``done`` (0 to 1) of the steps are made."""
    return min(1.0, max(0.0, (done - TEMPORAL_FROM) / (TEMPORAL_WHOLE - TEMPORAL_FROM)))


def _as_batch(picture: Picture, short_side_px: int) -> Tensor:
    return as_unit(as_tensor(_sized(picture, short_side_px))[None])


def _sized(picture: Picture, short_side_px: int) -> Picture:
    scale = short_side_px / min(picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    width, height = (max(1, round(side * scale / 4)) * 4 for side in picture.shape[1::-1])
    sized = cv2.resize(picture, (width, height), interpolation=method)
    return sized.astype(np.uint8, copy=False)
