"""What a person sees of a conversion: the tables, the JSON, and the picture of the worst frame."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import Pixels, Size
from engines.proof import Pictures, Proof
from tools import environment
from tools.conversion.proving import (
    NOT_PROVEN,
    NOTED,
    PROVEN,
    REFUSED,
    ROUNDED,
    ROUNDED_MEANS,
    Step,
)

REPORT_SCHEMA: Final = 1
CONVERTED: Final = "converted"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
COLOURS: Final = {PROVEN: "green", REFUSED: "bold red", NOTED: "yellow", NOT_PROVEN: "yellow"}
LABEL_HEIGHT_PX: Final = 28
AMPLIFIED: Final = 8
"""The difference is drawn this many times as strong: 4 of 255 would not be seen."""
PREVIEW_COLUMNS: Final = 96
FLOATS: Final = ("f16", "FLOAT16", "f32", "FLOAT")
PLUMBING: Final = frozenset(
    {"cast", "concat", "constant", "concatenation", "gather", "identity", "pad", "reshape"}
    | {"shape", "shuffle", "slice", "squeeze", "transpose", "unsqueeze"}
)
NUMBERED: Final = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A compiled engine."""

    path: Path
    backend: str
    version: str
    precision: str
    smallest: Size
    largest: Size
    targets: tuple[str, ...]
    """Compute capabilities, or the device's name."""
    size_bytes: int
    seconds: float
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Layer type -> data type -> count, from the network definition."""
    fp32_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    inspected: dict[str, int] = field(default_factory=dict)
    """Kind -> how many, as the device sees the engine; empty where it is not there."""


@dataclass(slots=True)
class Report:
    """Everything about one conversion, as far as it came."""

    source: str
    family: str = ""
    architecture: str = ""
    stride: int = 1
    origin_sha256: str = ""
    notes: list[str] = field(default_factory=list)
    frames: str = ""
    size: Size = (0, 0)
    steps: list[Step] = field(default_factory=list)
    islands: tuple[str, ...] = ()
    half_types: dict[str, dict[str, int]] = field(default_factory=dict)
    model: Path | None = None
    model_sha256: str = ""
    engines: list[EngineFile] = field(default_factory=list)
    picture: Path | None = None
    shown: str = ""
    """Which step the picture is of, and how close it came."""
    verdict: str = FAILED
    """``converted``, ``refused`` by a proof, ``failed`` before one, or ``interrupted``."""
    why: str = ""
    """Why it was not converted."""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": REPORT_SCHEMA,
            "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": environment.describe(),
            "verdict": self.verdict,
            "why": self.why or None,
            "source": self.source,
            "family": self.family,
            "architecture": self.architecture,
            "stride": self.stride,
            "weights_sha256": self.origin_sha256 or None,
            "model": str(self.model) if self.model else None,
            "model_sha256": self.model_sha256 or None,
            "frames": self.frames,
            "size": list(self.size),
            "steps": [_step_json(step) for step in self.steps],
            "fp16": {"types": self.half_types, "fp32_islands": list(self.islands)},
            "engines": [_engine_json(engine) for engine in self.engines],
            "picture": str(self.picture) if self.picture else None,
            "notes": self.notes,
        }

    def print(self, console: Console) -> None:
        """Print what was done, what was proven, and in words what was not."""
        for note in self.notes:
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
        if self.steps:
            console.print(_proof_table(self.steps, self.frames, self.size))
            if any(step.what == ROUNDED for step in self.steps):
                console.print(f"  {ROUNDED_MEANS}", style="dim")
        if self.half_types:
            console.print(_types_line("FP16 graph", self.half_types, self.islands))
        for engine in self.engines:
            console.print(_engine_line(engine), soft_wrap=True)
            if engine.layers:
                console.print(_types_line("its layers", engine.layers, engine.fp32_layers))
            if engine.inspected:
                kinds = ", ".join(f"{count} {kind}" for kind, count in engine.inspected.items())
                console.print(Text("on the device: ", "bold").append(kinds, "default"))
        for step in self.steps:
            if step.verdict in (NOT_PROVEN, NOTED):
                line = Text(f"{step.what}: {step.verdict}", COLOURS[step.verdict])
                console.print(line.append(f": {step.why}", "default"), soft_wrap=True)
        if self.picture is not None:
            console.print(Text(f"worst frame ({self.shown}): {self.picture}"), soft_wrap=True)
        if self.verdict == CONVERTED and self.model is not None:
            missing = [step.what for step in self.steps if step.verdict == NOT_PROVEN]
            proven = [step for step in self.steps if step.verdict == PROVEN]
            said = "is proven" if proven else "is written, and nothing was proven"
            if missing:
                said += f", without: {', '.join(missing)}"
            live = f"pix2live run --filter {shlex.quote(str(self.model))}"
            console.print(Text(f"{self.model} {said}. Live: {live}", "bold"), soft_wrap=True)


def three_panels(pictures: Pictures, what: str, against: str) -> Pixels:
    """Return reference, candidate and their amplified difference beside each other, labelled."""
    right = np.nan_to_num(np.asarray(pictures.reference, np.float32))
    found = np.nan_to_num(np.asarray(pictures.candidate, np.float32))
    difference = np.abs(right - found) * AMPLIFIED
    panels = [
        _labelled(np.clip(picture, 0, 255).astype(np.uint8), label)
        for picture, label in (
            (right, against),
            (found, what),
            (difference, f"difference x {AMPLIFIED}"),
        )
    ]
    gap = np.full((panels[0].shape[0], 4, 3), 255, np.uint8)
    joined: Pixels = np.hstack([panels[0], gap, panels[1], gap, panels[2]])
    return joined


def show_in_terminal(picture: Pixels, console: Console) -> None:
    """Draw a picture with half blocks, two pixels a character: seen where the refusal is read."""
    columns = min(PREVIEW_COLUMNS, console.width)
    rows = max(2, round(picture.shape[0] * columns / picture.shape[1])) // 2 * 2
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)[..., ::-1]
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        line = Text()
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append(
                "▀", f"rgb({top[0]},{top[1]},{top[2]}) on rgb({','.join(map(str, bottom))})"
            )
        console.print(line)


def _labelled(picture: Pixels, label: str) -> Pixels:
    width = picture.shape[1]
    strip = np.full((LABEL_HEIGHT_PX, width, 3), 255, np.uint8)
    scale = min(0.5, width / (max(len(label), 1) * 19.0))
    cv2.putText(
        strip,
        label,
        (6, LABEL_HEIGHT_PX - 9),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )
    stacked: Pixels = np.vstack([strip, picture])
    return stacked


def _proof_table(steps: list[Step], frames: str, size: Size) -> Table:
    title = Text(f"Proof on {frames}, {size[0]}x{size[1]}")
    table = Table(title=title, title_justify="left")
    for name in ("step", "against", "verdict", "PSNR dB", "needed", "max", "mean", "broken"):
        table.add_column(
            name, justify="left" if name in ("step", "against", "verdict") else "right"
        )
    for step in steps:
        verdict = Text(step.verdict, COLOURS[step.verdict])
        table.add_row(step.what, step.against, verdict, *_numbers(step.proof))
    return table


def _numbers(proof: Proof | None) -> list[str]:
    if proof is None:
        return ["-"] * 5
    return [
        f"{proof.psnr_db:.1f}",
        f"{proof.limits.psnr_db:g}",
        f"{proof.max_difference:.0f}",
        f"{proof.mean_difference:.3f}",
        f"{proof.broken_share:.0%}",
    ]


def _types_line(label: str, types: dict[str, dict[str, int]], islands: tuple[str, ...]) -> Text:
    """Say which layers compute in which type; what only moves data is left out."""
    line = Text(f"{label}: ", "bold")
    said = []
    for kind, counts in sorted(types.items(), key=lambda item: -sum(item[1].values())):
        floats = {name: counts[name] for name in FLOATS if counts.get(name)}
        if floats and kind.lower() not in PLUMBING:
            each = " + ".join(f"{count} {name}" for name, count in floats.items())
            said.append(f"{kind} {each}")
    line.append("; ".join(said), "default")
    if islands:
        alike = Counter(NUMBERED.sub("", island.split(":")[0].split()[0]) for island in islands)
        named = ", ".join(f"{count} {kind}" for kind, count in alike.most_common(5))
        line.append(f". FP32 islands between FP16: {named}", "default")
    return line


def _engine_line(engine: EngineFile) -> Text:
    sizes = "x".join(map(str, engine.smallest))
    if engine.largest != engine.smallest:
        sizes += f" to {'x'.join(map(str, engine.largest))}"
    return Text("engine ", "bold").append(
        f"{engine.path}: {engine.backend} {engine.version.partition('-')[0]}, {engine.precision},"
        f" {sizes}, for {', '.join(engine.targets)}, {engine.size_bytes / 1e6:.1f} MB,"
        f" {engine.seconds:.1f} s",
        "default",
    )


def _step_json(step: Step) -> dict[str, Any]:
    numbers = None
    if step.proof is not None:
        limits = step.proof.limits
        numbers = {
            **step.proof.for_card(),
            "broken_share": step.proof.broken_share,
            "limits": {
                "psnr_db": limits.psnr_db,
                "max_difference": limits.max_difference,
                "mean_difference": limits.mean_difference,
                "broken_share": limits.broken_share,
            },
        }
    return {
        "step": step.what,
        "against": step.against,
        "verdict": step.verdict,
        "why": step.why or None,
        "numbers": numbers,
    }


def _engine_json(engine: EngineFile) -> dict[str, Any]:
    return {
        "file": str(engine.path),
        "backend": engine.backend,
        "version": engine.version,
        "precision": engine.precision,
        "smallest": list(engine.smallest),
        "largest": list(engine.largest),
        "targets": list(engine.targets),
        "bytes": engine.size_bytes,
        "seconds": round(engine.seconds, 3),
        "layers": engine.layers,
        "fp32_layers": list(engine.fp32_layers),
        "inspected": engine.inspected,
    }
