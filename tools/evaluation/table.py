"""What an evaluation found: the table that a person sees, and the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from engines import FrameModel, write_frame_model
from tools import environment

EVALUATION_SCHEMA: Final = 1
LOWER: Final = "lower"
HIGHER: Final = "higher"
NO_NUMBER: Final = "-"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, as a person asks for it."""

    key: str
    """Its name in the JSON, with the unit."""
    name: str
    value: float | None
    """None where there is no such number (a ratio to 0)."""
    unit: str
    better: str
    """``lower`` or ``higher``."""
    count: int
    of: str
    """What was counted: pictures, frame pairs."""
    untranslated: float | None = None
    """The same of the pictures as they came in; None where that says nothing."""
    deviation: float | None = None


@dataclass(slots=True)
class Evaluation:
    """Everything about one evaluation."""

    model: FrameModel
    back: FrameModel | None = None
    """The filter that leads back (``--cycle``)."""
    backend: str = ""
    device: str = ""
    precision: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] | None = None
    """Which feature net was used, and where."""
    measures: list[Measure] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    clips: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "schema": EVALUATION_SCHEMA,
            "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": environment.describe(),
            "filter": _filter_json(self.model),
            "cycle_filter": None if self.back is None else _filter_json(self.back),
            "engine": {
                "backend": self.backend,
                "device": self.device,
                "precision": self.precision,
            },
            "asked": self.asked,
            "features": self.features,
            "measures": {
                item.key: {
                    "name": item.name,
                    "value": item.value,
                    "unit": item.unit,
                    "better": item.better,
                    "count": item.count,
                    "of": item.of,
                    "untranslated": item.untranslated,
                    "deviation": item.deviation,
                }
                for item in self.measures
            },
            "pictures": self.pictures,
            "clips": self.clips,
            "notes": self.notes,
        }

    def print(self, console: Console) -> None:
        """Print the table."""
        title = f"{self.model.name} on {self.backend} ({self.device}, {self.precision})"
        table = Table(title=title, title_justify="left")
        table.add_column("measure")
        for name in ("value", "untranslated"):
            table.add_column(name, justify="right")
        table.add_column("unit")
        table.add_column("better")
        table.add_column("count", justify="right")
        for item in self.measures:
            value = _number(item.value)
            if item.deviation is not None:
                value += f" ± {_number(item.deviation)}"
            count = f"{item.count} {item.of}"
            table.add_row(
                item.name, value, _number(item.untranslated), item.unit, item.better, count
            )
        console.print(table, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{value:.4g}"


def _filter_json(model: FrameModel) -> dict[str, Any]:
    return {"name": model.name, "sha256": model.sha256, "file": str(model.path)}


def write_measures(found: Evaluation) -> None:
    """Put the numbers onto the card of the filter's file, beside those that it does not replace.

    Raises:
        EngineError, ModelError: the file cannot be read or written any more.
    """
    card = found.model.card
    measures = dict(card.measures)
    for item in found.measures:
        for key, value in ((item.key, item.value), (f"{item.key}_untranslated", item.untranslated)):
            if value is not None:
                measures[key] = float(f"{value:.4g}")
    write_frame_model(found.model.graph(), replace(card, measures=measures), found.model.path)
