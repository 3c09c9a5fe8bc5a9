"""Runs of the recipes for `benchmarks.learning`, and the lines that they become."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.learning_sets import Picture

if TYPE_CHECKING:
    from torch import nn

    from tools.train.recipe import Recipe

QUICK_STEPS: Final = 4
COMMON: Final[dict[str, Any]] = {
    "generator": "quarter:32x2",
    "batch": 4,
    "crop_px": 64,
    "learning_rate": 2e-3,
    "precision": "32-true",
    "accelerator": "cpu",
    "workers": 0,
    "save_every": 10**6,
    "sheet_every": 10**6,
}
Translate = Callable[[Picture], Picture]


@dataclass(frozen=True, slots=True)
class Learned:
    """A filter that was trained."""

    translate: Translate
    steps: int
    seconds: float
    """Of the processor."""
    losses: dict[str, float]
    """Of the last step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    recipe: str
    metric: str
    unit: str = ""
    found: float
    """With the full recipe."""
    without: str
    other: float
    """Without that term, or without any training."""
    claim: str
    kept: bool
    ways: list[Learned]
    beside: dict[str, list[float]] = field(default_factory=dict)
    """What else was measured: with the full recipe, without the term, before any training."""

    @property
    def difference(self) -> str:
        """Decibels are subtracted, all else is divided."""
        if self.unit == "dB":
            return f"{self.found - self.other:+.2f} dB"
        return f"x {self.found / self.other:.3g}" if self.other else "from 0"

    def to_json(self) -> dict[str, Any]:
        """The row as it is written."""
        return {
            "recipe": self.recipe,
            "metric": self.metric,
            "unit": self.unit,
            "full recipe": round(self.found, 5),
            f"without {self.without}": round(self.other, 5),
            "difference": self.difference,
            "claim": self.claim,
            "kept": self.kept,
            "beside": {k: [round(x, 5) for x in values] for k, values in self.beside.items()},
            "steps": self.ways[0].steps,
            "CPU seconds": [way.seconds for way in self.ways],
            "losses of the last step": [way.losses for way in self.ways],
        }


class Bench:
    """Trains, and keeps what was made in a folder of its own."""

    def __init__(self, folder: Path, *, quick: bool = False, seed: int = 1) -> None:
        self._folder, self._quick, self._seed = folder, quick, seed
        self._runs = 0

    def folder(self, name: str) -> Path:
        return self._folder / name

    def train(self, recipe: str, **changes: Any) -> Learned:
        """Train one of the recipes on its class and the loop, without the export at the end."""
        import torch

        from tools.train import paired, style, unpaired
        from tools.train.curves import read_curves
        from tools.train.devices import make_fabric
        from tools.train.loop import fit
        from tools.train.recipe import translate

        kinds: dict[str, tuple[type[Recipe], Any]] = {
            "paired": (paired.Paired, paired.PairedSettings),
            "unpaired": (unpaired.Unpaired, unpaired.UnpairedSettings),
            "style": (style.Style, style.StyleSettings),
        }
        kind, make_settings = kinds[recipe]
        self._runs += 1
        out = self._folder / f"run{self._runs}"
        if self._quick:
            changes["steps"] = QUICK_STEPS
        settings = make_settings(
            **{**COMMON, "seed": self._seed, **changes, "out": out, "name": recipe}
        )
        settings.check()
        out.mkdir()
        torch.set_num_threads(1)
        started = time.process_time()  # of one thread: what an idle core takes
        made = kind(settings, make_fabric(settings)[0])
        fit(made)
        seconds = time.process_time() - started
        network: nn.Module = made.finished()[recipe]
        last = read_curves(out / "curves.jsonl")[-1]
        losses = {name: round(value, 4) for name, value in last.items() if name != "step"}
        return Learned(partial(translate, network), settings.steps, round(seconds, 1), losses)
