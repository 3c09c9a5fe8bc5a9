"""Train a filter that paints like a picture.

Perceptual losses after Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer
and Super-Resolution" (2016). The style is held at two sizes, fine strokes and broad ones, in turn;
a temporal loss with known motion keeps live video from flickering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import SettingsError
from realtime.sources.pictures import read_picture
from tools.train.crops import Crops, StepSampler, as_tensor, loader
from tools.train.features import LAYERS, load_features
from tools.train.generators import check_crop
from tools.train.library import Library
from tools.train.motion import inside, moved, noisy, random_motion
from tools.train.pairs import Picture
from tools.train.perceptual import (
    content_distance,
    gram,
    out_of_range,
    style_distance,
    total_variation,
)
from tools.train.recipe import (
    Average,
    Batch,
    Recipe,
    Report,
    Scalars,
    Settings,
    as_unit,
    channels_last,
    held_out,
    set_learning_rate,
    step_seed,
    translate,
    warm_cosine,
)
from tools.train.start import begin_with

STYLE_LAYERS: Final = ("relu1_2", "relu2_2", "relu3_1")
CONTENT_LAYER: Final = "relu3_1"
RANGE_WEIGHT: Final = 10.0
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
    style_weight: float = 1.0
    content_weight: float = 0.1
    tv_weight: float = 0.2
    temporal_weight: float = 20.0

    def check(self) -> None:
        super(StyleSettings, self).check()
        if self.crop_px % 8 or self.crop_px < 64:
            raise SettingsError(
                f"--crop must be a multiple of 8 and 64 or more, found {self.crop_px}"
            )
        if self.style_px < 64:
            raise SettingsError(f"--style-size must be 64 or more, found {self.style_px}")
        weights = (self.style_weight, self.content_weight, self.tv_weight, self.temporal_weight)
        if min(weights) < 0 or not self.style_weight:
            raise SettingsError(
                f"the weights must be 0 or more, and that of the style more than 0, found {weights}"
            )


class Style(Recipe):
    """Any picture in, the same content in the style of one painting out."""

    task: ClassVar[str] = "style"
    settings: StyleSettings

    def prepare(self, report: Report) -> None:
        chosen, device = self.settings, self.fabric.device
        painting = read_picture(chosen.style)
        self._painting = painting
        self._library = Library.read(chosen.content, smallest_px=chosen.crop_px, report=report)
        self._features = channels_last(load_features(chosen.features)).to(device)
        # Strokes as large as in the painting at this size, and in one of half of it.
        self._targets = [
            self._grams(_as_batch(painting, side_px).to(device))
            for side_px in (chosen.style_px, chosen.style_px // 2)
        ]
        torch.manual_seed(chosen.seed)
        network = channels_last(begin_with(chosen.generator, chosen.start))
        check_crop(network, chosen.crop_px)
        self._average = Average(network).to(device)
        optimiser = torch.optim.Adam(network.parameters(), chosen.learning_rate)
        self._network, self._optimiser = self.fabric.setup(network, optimiser)

    def batches(self, first_step: int) -> Iterator[Batch]:
        chosen, fabric = self.settings, self.fabric
        crops = Crops(self._library, chosen.crop_px, chosen.seed)
        sampler = StepSampler(chosen.batch, first_step, fabric.global_rank, fabric.world_size)
        for pictures in loader(crops, sampler, chosen.workers):
            yield {"pictures": pictures}

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen = self.settings
        rate = chosen.learning_rate * warm_cosine(step, chosen.steps)
        set_learning_rate(self._optimiser, rate)
        pictures = as_unit(batch["pictures"].to(self.fabric.device))
        losses: Scalars = {}
        painted = self._network(pictures)
        temporal_weight = chosen.temporal_weight * _ramp(step / chosen.steps)
        if temporal_weight and step % TEMPORAL_EVERY == 0:
            losses["temporal"] = self._unsteady(pictures, painted, step)
        seen, given, targets = self._at_a_size(painted, pictures, step)
        with torch.no_grad():
            content = self._maps(given)
        maps = self._maps(seen)
        style = [gram(maps[layer]) for layer in STYLE_LAYERS]
        losses["style"] = style_distance(style, targets)
        losses["content"] = content_distance(maps[CONTENT_LAYER], content[CONTENT_LAYER])
        losses["tv"] = total_variation(painted)
        losses["range"] = out_of_range(painted)
        weights = {
            "style": chosen.style_weight,
            "content": chosen.content_weight,
            "tv": chosen.tv_weight,
            "temporal": temporal_weight,
            "range": RANGE_WEIGHT,
        }
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        self._optimiser.zero_grad()
        self.fabric.backward(loss)
        self._optimiser.step()
        self._average.follow(self._network.module, step)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _at_a_size(
        self, painted: Tensor, pictures: Tensor, step: int
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the feature net looks at: half of the size, or a quarter of the area, in turn."""
        if step % FINE_EVERY:
            halved = (functional.avg_pool2d(p, 2) for p in (painted, pictures))
            return *halved, self._targets[1]  # type: ignore[return-value]
        side_px = painted.shape[-1] // 2
        random = np.random.default_rng(step_seed(self.settings.seed, step, 1))
        top, left = random.integers(0, side_px + 1, 2)
        part = (..., slice(top, top + side_px), slice(left, left + side_px))
        return painted[part], pictures[part], self._targets[0]

    def _unsteady(self, pictures: Tensor, painted: Tensor, step: int) -> Tensor:
        """How far the painting of a moved, noisy picture is from the moved painting."""
        random = torch.Generator().manual_seed(step_seed(self.settings.seed, step, 2))
        grid = random_motion(pictures, random)
        again = self._network(noisy(moved(pictures, grid), random))
        wrong: Tensor = (again - moved(painted, grid)).square() * inside(grid)
        return wrong.mean()

    def _maps(self, pictures: Tensor) -> dict[str, Tensor]:
        with self.fabric.autocast():
            found = self._features(pictures.contiguous(memory_format=torch.channels_last))
        return dict(zip(LAYERS, found, strict=True))

    @torch.no_grad()
    def _grams(self, picture: Tensor) -> list[Tensor]:
        maps = self._maps(picture)
        return [gram(maps[layer].float()) for layer in STYLE_LAYERS]

    def samples(self) -> list[list[Picture]]:
        rows = self.proof_frames()
        shown = rows[:: -(-len(rows) // 4)]
        return [[frame, translate(self._average.network, frame), self._painting] for frame in shown]

    def state(self) -> dict[str, Any]:
        return {
            "network": self._network.module.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._network.module.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def finished(self) -> dict[str, nn.Module]:
        return {self.settings.name: self._average.network.cpu().eval()}

    def proof_frames(self) -> list[Picture]:
        return held_out(self.settings, self._library)

    def summary(self) -> str:
        chosen = self.settings
        return (
            f"{super().summary()}; style {chosen.style.name} at {chosen.style_px} pixels, weights:"
            f" style {chosen.style_weight:g}, content {chosen.content_weight:g},"
            f" total variation {chosen.tv_weight:g}, temporal {chosen.temporal_weight:g}"
        )


def _ramp(done: float) -> float:
    """How much of the temporal loss counts when ``done`` (0 to 1) of the steps are made."""
    return min(1.0, max(0.0, (done - TEMPORAL_FROM) / (TEMPORAL_WHOLE - TEMPORAL_FROM)))


def _as_batch(picture: Picture, short_side_px: int) -> Tensor:
    scale = short_side_px / min(picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    sized = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    return as_unit(as_tensor(sized.astype(np.uint8, copy=False))[None])
