"""The loop around every recipe: steps, curves, sample sheets, checkpoints, resuming, the end.

A run that is killed at any moment and resumed gives the numbers of one that was not: the
checkpoint holds everything that the next step depends on, and everything random in a step follows
from the seed and the number of the step.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
from torch import Tensor

from engines.errors import Pix2liveError, SettingsError, SinkError
from tools.train.checkpoint import (
    Checkpoint,
    file_of,
    fingerprint,
    remove_leftovers,
    write_checkpoint,
)
from tools.train.curves import FOLDER, Curves
from tools.train.recipe import Recipe, Scalars, step_seed
from tools.train.screen import Screen
from tools.train.sheets import sheet_file, sheets_of, write_sheet

CHECK_EVERY: Final = 10
"""Steps whose losses are fetched together: each fetch makes a GPU wait."""
FIRST_SHEET: Final = 100
"""An early one: a person sees soon whether this goes anywhere."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
EVENTS: Final = "events.out.tfevents.*"
"""What TensorBoard's writer calls its files."""
DROPOUT_STREAM: Final = 1000
"""Of `step_seed`, for what layers draw themselves; one more a device."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a training came."""

    step: int
    ended_by: int | None = None
    """The signal that ended it early."""


def fit(
    recipe: Recipe,
    screen: Screen | None = None,
    checkpoint: Checkpoint | None = None,
    machine: str = "",
) -> Outcome:
    """Prepare the recipe and train it until ``settings.steps``, from ``checkpoint`` on.

    Ctrl-C (and SIGTERM) saves after the step that is being made; a second one ends at once.

    Args:
        recipe: not prepared yet. With several devices each process calls this; one of them writes.
        screen: what is shown; None shows nothing.
        checkpoint: where to go on; None begins.
        machine: device and precision in words, for the checkpoint.

    Raises:
        Pix2liveError: a loss is not finite; the last good checkpoint is untouched.
        SettingsError, SourceError: what the recipe cannot use.
        SinkError: something cannot be written; the last checkpoint is whole.
    """
    screen = screen or Screen(loud=False)
    settings = recipe.settings
    recipe.prepare(screen.preparing)
    for note in filter(None, recipe.notes):
        screen.say(note)
    take_over(recipe, checkpoint)
    run = _Run(recipe, screen, machine)
    if checkpoint is not None:
        run.step = run.saved_step = checkpoint.step
    with _signals() as received:
        try:
            if recipe.fabric.is_global_zero:
                run.open(begins=checkpoint is None)
            recipe.fabric.barrier()
            run.learn(received)
        finally:
            run.close()
    return Outcome(run.step, received[0] if received and run.step < settings.steps else None)


def take_over(recipe: Recipe, checkpoint: Checkpoint | None) -> None:
    """Give a prepared recipe the state of a checkpoint.

    Raises:
        SettingsError: it is the state of other networks.
    """
    if checkpoint is None:
        return
    try:
        recipe.load(checkpoint.recipe)
        if checkpoint.precision:
            recipe.fabric.strategy.precision.load_state_dict(checkpoint.precision)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SettingsError(
            f"{file_of(recipe.settings.out)} cannot continue these networks: {reason[0]}"
        ) from error


@dataclass(slots=True)
class _Run:
    recipe: Recipe
    screen: Screen
    machine: str
    step: int = 0
    """How many are done."""
    saved_step: int = -1
    curves: Curves | None = None
    """Where this process writes."""
    pending: list[tuple[int, Scalars]] = field(default_factory=list)
    """Losses that were not looked at yet."""

    def open(self, *, begins: bool) -> None:
        settings = self.recipe.settings
        out = settings.out
        remove_leftovers(out)
        if begins and settings.overwrite:
            _remove_earlier(out)
        self.curves = Curves(out, self.step)
        self.screen.say(self.curves.note)

    def close(self) -> None:
        if self.curves is not None:
            curves, self.curves = self.curves, None
            curves.close()

    def learn(self, received: list[int]) -> None:
        recipe, settings = self.recipe, self.recipe.settings
        fabric, first = recipe.fabric, self.step
        alone = fabric.world_size == 1
        every = 1 if alone and fabric.device.type == "cpu" else CHECK_EVERY
        stream = DROPOUT_STREAM + fabric.global_rank
        steps = range(first, settings.steps)
        batches = recipe.batches(first)
        try:
            for step, batch in zip(steps, batches if steps else ()):
                torch.manual_seed(step_seed(settings.seed, step, stream))
                found = recipe.learn(batch, step)
                self.step = step + 1
                self.pending.append((self.step, found))
                last = self.step == settings.steps
                saves = last or self.step % settings.save_every == 0
                draws = last or self.step % settings.sheet_every == 0 or self.step == FIRST_SHEET
                stops = alone and bool(received)
                if saves or draws or stops or self.step % every == 0:
                    stops = self._look(bool(received))
                if saves or stops:
                    self.save()
                if draws or stops:
                    self.draw()
                if stops:
                    break
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def _look(self, stop: bool) -> bool:
        """Fetch the losses, check and note them; return whether any device was told to stop."""
        fabric = self.recipe.fabric
        rows = [torch.stack([_number(v) for v in found.values()]) for _, found in self.pending]
        if fabric.world_size > 1:
            rows = [_tensor(fabric.all_reduce(row, reduce_op="mean")) for row in rows]
            flag = torch.tensor(float(stop), device=fabric.device)
            stop = bool(_tensor(fabric.all_reduce(flag, reduce_op="sum")))
        numbers = torch.cat(rows).tolist() if rows else []
        position, loss = 0, math.nan
        for step, found in self.pending:
            values = dict(zip(found, numbers[position : position + len(found)], strict=True))
            position += len(found)
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                raise self._not_finite(step, bad, values)
            loss = values.get("loss", math.nan)
            if self.curves is not None:
                self.curves.add(step, values)
        self.pending.clear()
        if self.curves is not None:
            self.curves.flush()
        self.screen.training(self.step, self.recipe.settings.steps, loss)
        return stop

    def _not_finite(self, step: int, bad: list[str], values: dict[str, float]) -> Pix2liveError:
        settings = self.recipe.settings
        terms = [name for name in bad if name != "loss"] or bad
        path = file_of(settings.out)
        advice = f"--overwrite --learning-rate {settings.learning_rate / 3:.2g}"
        if self.saved_step <= 0:
            kept, advice = "no checkpoint was saved yet", f"try {advice}"
        else:
            kept = f"{path} is the last good checkpoint, of step {self.saved_step}"
            advice = f"begin again with {advice}"
            if "32-true" not in self.machine:
                advice = f"go on with --resume --precision 32-true, or {advice}"
        return Pix2liveError(
            f"{' and '.join(terms)} became {values[terms[0]]} at step {step}; {kept}; {advice}"
        )

    def save(self) -> None:
        """Write the checkpoint; what it holds was looked at."""
        recipe = self.recipe
        if self.step == self.saved_step:
            return
        settings = recipe.settings
        state = recipe.state()  # of every process: some of it may be gathered
        if self.curves is not None:
            write_checkpoint(
                file_of(settings.out),
                Checkpoint(
                    step=self.step,
                    recipe=state,
                    settings=fingerprint(settings),
                    machine=self.machine,
                    precision=_plain(recipe.fabric.strategy.precision.state_dict()),
                ),
            )
        self.saved_step = self.step

    def draw(self) -> None:
        """Write the sample sheet."""
        if self.curves is None:
            return
        recipe = self.recipe
        path = sheet_file(recipe.settings.out, self.step)
        sheet = write_sheet(path, recipe.samples(), recipe.captions(), f"step {self.step}")
        self.curves.picture("samples", self.step, sheet)


def _number(value: Tensor) -> Tensor:
    return value.detach().float().reshape(())


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What `torch.load` takes back with ``weights_only``."""
    return {name: value for name, value in state.items() if isinstance(value, (int, float, Tensor))}


def _remove_earlier(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing that only lies beside it.

    The curves are emptied by who goes on with them; filters stay until there are new ones.
    """
    board = out / FOLDER
    # A link leads to where others may write, too.
    events = [] if board.is_symlink() else sorted(board.glob(EVENTS))
    for path in (file_of(out), *sheets_of(out), *events):
        if path.is_file() or path.is_symlink():
            try:
                path.unlink()
            except OSError as error:
                raise SinkError(f"cannot remove {path}: {error.strerror or error}") from error
    if events:
        with contextlib.suppress(OSError):
            board.rmdir()  # where it is empty


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Remember the first Ctrl-C or SIGTERM; a second one ends at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
