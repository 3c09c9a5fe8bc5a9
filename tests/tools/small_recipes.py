"""A recipe that learns in milliseconds, and processes that train it until they are killed.

As a script, ``python small_recipes.py OUT`` kills and resumes one: see `main`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from engines.errors import Pix2liveError
from engines.generators.quarter import QuarterNet
from tools.train import checkpoint
from tools.train.options import train
from tools.train.pairs import Picture
from tools.train.recipe import (
    Average,
    Batch,
    Recipe,
    Report,
    Scalars,
    Settings,
    set_learning_rate,
    step_seed,
    translate,
    warm_cosine,
)

SIDE_PX = 16
LONG = {"steps": 60, "save_every": 4, "ballast": 1 << 16, "pause_s": 0.04}
KILLED_LIVES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSettings(Settings):
    data: Path | None = None
    dark_weight: float = 1.0
    bad_step: int = 0
    """The loss is not a number at this step."""
    ballast: int = 0
    """Numbers in the state, so that writing it takes a while."""
    pause_s: float = 0.0
    """How long a step takes, at least."""
    names: str = ""
    """Of several filters, with commas."""


class Small(Recipe):
    """Learns to make pictures half as bright."""

    task: ClassVar[str] = "paired"
    settings: SmallSettings

    def prepare(self, report: Report) -> None:
        torch.manual_seed(self.settings.seed)
        network = QuarterNet(4, 1)
        self._average = Average(network)
        optimiser = torch.optim.Adam(network.parameters(), self.settings.learning_rate)
        self._network, self._optimiser = self.fabric.setup(network, optimiser)
        self._ballast = torch.zeros(self.settings.ballast)
        report("reading", 1.0)

    def batches(self, first_step: int) -> Iterator[Batch]:
        step = first_step
        while True:
            random = torch.Generator().manual_seed(step_seed(self.settings.seed, step))
            yield {"pictures": torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=random)}
            step += 1

    def learn(self, batch: Batch, step: int) -> Scalars:
        chosen = self.settings
        time.sleep(chosen.pause_s)
        set_learning_rate(self._optimiser, chosen.learning_rate * warm_cosine(step, chosen.steps))
        pictures: Tensor = batch["pictures"]
        # Noise as dropout draws it, from torch's own generator.
        found = self._network(pictures + 0.01 * torch.randn_like(pictures))
        dark = (found - pictures / 2).square().mean()
        loss = chosen.dark_weight * dark
        self._optimiser.zero_grad()
        self.fabric.backward(loss)
        self._optimiser.step()
        self._average.follow(self._network.module, step)
        if step + 1 == chosen.bad_step:
            dark = dark * torch.nan
        return {"loss": dark.detach() * chosen.dark_weight, "dark": dark.detach()}

    def samples(self) -> list[list[Picture]]:
        frame = self.proof_frames("")[0]
        return [[frame, translate(self._average.network, frame), frame // 2]]

    def state(self) -> dict[str, Any]:
        return {
            "network": self._network.module.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ballast": self._ballast,
        }

    def load(self, state: dict[str, Any]) -> None:
        self._network.module.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def finished(self) -> dict[str, nn.Module]:
        network = self._average.network.cpu().eval()
        return dict.fromkeys(
            self.settings.names.split(",") if self.settings.names else [self.settings.name], network
        )

    def proof_frames(self, name: str) -> list[Picture]:
        ramp = np.linspace(0, 255, 64, dtype=np.uint8)
        frame = np.empty((48, 64, 3), np.uint8)
        frame[:] = ramp[None, :, None]
        frame[..., 1] = frame[::-1, ::-1, 0]
        return [frame, np.ascontiguousarray(frame[:, ::-1])]


class Unshipped(Small):
    """Makes no filter at the end: the tests of all else are faster."""

    def finished(self) -> dict[str, nn.Module]:
        return {}


def same(one: object, other: object) -> None:
    """Assert that two states are the same to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            same(left, right)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def small(out: Path, **changes: Any) -> SmallSettings:
    usual: dict[str, Any] = {
        "name": "small",
        "steps": 20,
        "batch": 2,
        "crop_px": SIDE_PX,
        "learning_rate": 0.01,
        "save_every": 5,
        "sheet_every": 1000,
        "precision": "32-true",
        "accelerator": "cpu",
    }
    return SmallSettings(out=out, **{**usual, **changes})


def child(work: Callable[[], object], errors: Path) -> int:
    """Start ``work`` in a process of its own; what it says goes to ``errors``. Return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except KeyboardInterrupt:
        code = 7
    except Pix2liveError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_while_it_writes() -> None:
    """Let the first checkpoint that this process writes be its last act, half done."""
    real = checkpoint.replace_file

    def replace_file(path: Path, parts: Iterable[bytes]) -> None:
        def half() -> Iterator[bytes]:
            for part in parts:
                yield part[: len(part) // 2]
                os.kill(os.getpid(), signal.SIGKILL)

        real(path, half())

    checkpoint.replace_file = replace_file


def lives(out: Path, seed: int) -> None:
    """Train in process after process: killed at a random moment, and while it writes, in turn.

    Prints for each how it ended, and whether a checkpoint was left half written.
    """
    random = np.random.default_rng(seed)
    for life in range(100):
        settings = small(out, **LONG, resume=life > 0)
        dies_writing = life < KILLED_LIVES and life % 2 == 1

        def work(chosen: SmallSettings = settings, dies: bool = dies_writing) -> None:
            if dies:
                killed_while_it_writes()
            train(Unshipped, chosen)

        pid = child(work, out.with_suffix(".log"))
        if life < KILLED_LIVES and not dies_writing:
            time.sleep(float(random.uniform(0.05, 0.25)))
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        print(code, "writing" if any(out.glob(".checkpoint.pt.*.part")) else "", flush=True)
        if code != -signal.SIGKILL:
            return


def main(out: Path) -> None:
    """Train once without interruption, in ``out/once``, and once with many, in ``out/lives``."""
    torch.set_num_threads(1)
    lives(out / "lives", seed=1)
    train(Unshipped, small(out / "once", **{**LONG, "pause_s": 0.0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
