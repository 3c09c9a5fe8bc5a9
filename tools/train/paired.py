"""Train a filter from pairs: a teacher shows on photographs what the network shall do live.

The teacher is slow and exact; the network learns from damaged photographs, at a quarter of the
resolution, and ends as a frame model with proofs on its card.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engines import Card, write_frame_model
from engines.errors import Pix2liveError
from engines.export import export_frame_model
from engines.generators.quarter import STRIDE, QuarterNet
from engines.proof import prove_frame_model
from tools.train.pairs import Pair, Picture, frames_of, load_teacher, make_pairs
from tools.train.trainer import Batches, Settings, Trainer

SHEET_ROWS: Final = 4
SHEET_CELL_PX: Final = 480
VALIDATION_FRAMES: Final = 30
LOG_EVERY: Final = 0.05

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "comic": {
        "teacher": "tools.train.teachers:comic",
        "channels": 64,
        "blocks": 3,
        "minutes": 38.0,
        "title": "Comic",
        "domains": "photo -> comic",
        "licence": "Apache-2.0",
        "origin": "trained by the pix2live project on CC0, public-domain and CC-BY photographs",
    },
}


@dataclass(frozen=True, slots=True)
class Event:
    """Where a run is. ``done`` goes from 0 to 1."""

    what: str
    done: float
    step: int = 0
    loss: float = float("nan")


Report = Callable[[Event], None]


def train(settings: Settings, report: Report = lambda _: None) -> Path:
    """Train, export and prove; return the frame model's path.

    Ctrl-C ends the training early: what was learned so far is saved, exported and proved.

    Raises:
        SettingsError, SourceError: the settings or the photographs cannot be used.
        Pix2liveError: the loss was not finite. The last good state is in ``checkpoint.pt``.
        ConversionError: the exported model is not the same picture as the network.
    """
    settings.check()
    settings.out.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(settings.teacher)
    pairs: list[Pair] = []
    made = make_pairs(
        settings.photos,
        teacher,
        settings.out / "cache",
        variants=settings.variants,
        smallest_px=settings.crop_px,
        seed=settings.seed,
    )
    for pair, count in made:
        pairs.append(pair)
        report(Event("teacher", len(pairs) / count))
    trainer = Trainer(settings)
    frames = _validation(settings, pairs)
    shown = frames[:: -(-len(frames) // SHEET_ROWS)]
    rows = [Pair(frame, teacher(frame)) for frame in shown]
    trainer.save()  # so that there is always a last good state
    batches = Batches(pairs, settings)
    started_s = time.monotonic()
    try:
        for batch in batches:
            done = (
                trainer.step / settings.steps
                if settings.steps
                else (time.monotonic() - started_s) / (60 * settings.minutes)
            )
            if done >= 1:
                break
            loss = trainer.learn(*batch, done)
            if trainer.step % 20 == 0:
                report(Event("training", done, trainer.step, loss))
            if trainer.step % settings.sheet_every == 0:
                trainer.save()
                _write_sheet(settings.out, trainer, rows)
    except KeyboardInterrupt:
        report(Event("stopped early", 1, trainer.step))
    finally:
        batches.close()
    trainer.save()
    _write_sheet(settings.out, trainer, rows)
    report(Event("export", 1, trainer.step))
    return export(settings, trainer.averaged, trainer.step, frames)


def export(settings: Settings, network: QuarterNet, step: int, frames: list[Picture]) -> Path:
    """Write ``OUT/NAME.onnx`` and prove it on ``frames`` against the PyTorch network.

    Raises:
        ConversionError: a backend gives another picture than PyTorch.
    """
    import onnx

    path = settings.out / f"{settings.name}.onnx"
    draft = settings.out / f".{settings.name}.draft.onnx"
    network = network.cpu().eval()
    card = Card(
        name=settings.name,
        title=settings.title or settings.name,
        task="paired",
        domains=settings.domains,
        architecture=network.architecture,
        stride=STRIDE,
        licence=settings.licence,
        origin=settings.origin,
        weights_sha256=_weights_sha256(network),
        training=(
            f"{step} steps of {settings.batch} crops of {settings.crop_px} pixels,"
            f" teacher {settings.teacher}, seed {settings.seed}"
        ),
    )
    export_frame_model(network, card, draft)
    try:
        found = prove_frame_model(draft, network, frames)
        proofs = {name: proof.for_card() for name, proof in found.items()}
        write_frame_model(onnx.load(str(draft)), replace(card, proofs=proofs), path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _weights_sha256(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _validation(settings: Settings, pairs: list[Pair]) -> list[Picture]:
    """Frames that were not learned from where there are any, else some photographs."""
    if settings.validate is not None:
        frames = frames_of(settings.validate, VALIDATION_FRAMES)
    else:
        frames = [pair.photo for pair in pairs[:: max(1, len(pairs) // VALIDATION_FRAMES)]]
    return [_whole_cells(frame) for frame in frames]


def _whole_cells(frame: Picture) -> Picture:
    height, width = (side // STRIDE * STRIDE for side in frame.shape[:2])
    return np.ascontiguousarray(frame[:height, :width])


def _write_sheet(out: Path, trainer: Trainer, rows: list[Pair]) -> None:
    """``sheet-STEP.png``: input, teacher and network side by side, a row a frame."""
    sheet = []
    for row in rows:
        cells = (row.photo, row.target, trainer.translate(row.photo))
        height = round(SHEET_CELL_PX * row.photo.shape[0] / row.photo.shape[1])
        sheet.append(np.hstack([cv2.resize(c, (SHEET_CELL_PX, height)) for c in cells]))
    cv2.imwrite(str(out / f"sheet-{trainer.step:06d}.png"), np.vstack(sheet))


@click.command()
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Settings of a shipped filter.")
@click.option("--teacher", help="module:function, a picture effect (uint8 BGR in and out).")
@click.option(
    "--input",
    "photos",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the cache, sheets, checkpoint and model.",
)
@click.option("--name", help="Name of the filter [default: the preset's, or the folder's].")
@click.option("--channels", type=int, help="Width of the network [default: 48].")
@click.option("--blocks", type=int, help="Depth of the network [default: 3].")
@click.option("--minutes", type=float, help="How long to train [default: 20].")
@click.option("--steps", type=int, help="How long to train in all, instead of --minutes.")
@click.option("--crop", "crop_px", type=int, help="Side of the training crops [default: 128].")
@click.option("--batch", type=int, help="Crops a step [default: 8].")
@click.option("--variants", type=int, help="Lights and sizes of each photograph [default: 3].")
@click.option("--learning-rate", type=float, help="At its highest [default: 0.001].")
@click.option("--seed", type=int, help="[default: 1]")
@click.option(
    "--validate",
    type=click.Path(exists=True, path_type=Path),
    help="A clip or folder for the sheets and the proof; never learned from.",
)
@click.option("--sheet-every", type=int, help="Steps between two sample sheets [default: 1000].")
@click.option("--resume", is_flag=True, help="Start from the checkpoint in --out.")
@click.option("--licence", help="Licence of the result, for its card.")
@click.option("--origin", help="What it was trained on, for its card.")
def paired(preset: str | None, photos: Path, out: Path, **given: Any) -> None:
    """Train a live filter that imitates a slow picture effect."""
    chosen = dict(PRESETS[preset]) if preset else {}
    chosen.update({name: value for name, value in given.items() if value is not None})
    if "teacher" not in chosen:
        raise click.UsageError("give --teacher module:function, or --preset comic")
    chosen.setdefault("name", preset or out.resolve().name)
    try:
        with _Screen() as screen:
            path = train(Settings(photos=photos, out=out, **chosen), screen.show)
    except Pix2liveError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{path}  ({path.stat().st_size / 1000:.0f} kB)")


class _Screen:
    """Progress bars with the time left; a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> _Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if event.what not in self._tasks:
            self._tasks[event.what] = self._progress.add_task(event.what, total=1.0, note="")
        loss = f"  loss {event.loss:.4f}" if np.isfinite(event.loss) else ""
        note = f"step {event.step}{loss}" if event.step else ""
        self._progress.update(self._tasks[event.what], completed=event.done, note=note)
        if not self._progress.console.is_terminal and event.done >= self._said.get(event.what, 0):
            click.echo(f"{event.what} {event.done:4.0%}  {note}", err=True)
            self._said[event.what] = event.done + LOG_EVERY


if __name__ == "__main__":
    paired()
