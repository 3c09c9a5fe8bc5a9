"""Several devices, as processes on a CPU: pools of each, and an end that all of them reach."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

import torch
from small_recipes import same, small

from engines.errors import EngineError
from tools.train.checkpoint import file_of, read_checkpoint
from tools.train.devices import in_our_words

TOOLS = Path(__file__).parent
ROOT = TOOLS.parent.parent
Run = tuple[Path, Future[subprocess.CompletedProcess[str]]]
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no distributed package"
)

# Fabric starts a script again for each device.
POOLS = '''
"""Train six steps, and the last three of them again from a checkpoint."""
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from realtime.sources.pictures import write_picture
from tools.train.checkpoint import file_of, read_checkpoint, write_checkpoint
from tools.train.devices import make_fabric, quiet
from tools.train.loop import fit
from tools.train.unpaired import Unpaired, UnpairedSettings

out = Path(sys.argv[1])
torch.set_num_threads(1)
common = dict(generator="quarter:4x1", batch=2, crop_px=32, discriminator_width=2, pool=3,
              workers=0, precision="32-true", accelerator="cpu", sheet_every=10**6, name="x")
settings = UnpairedSettings(a=out / "a", b=out / "b", out=out / "whole", steps=6, save_every=3,
                            devices=2, **common)
fabric = make_fabric(settings)[0]
with quiet():
    fabric.launch()
for name in "ab" if fabric.is_global_zero else "":
    (out / name).mkdir()
    for number in range(3):
        random = np.random.default_rng((ord(name), number))
        noise = random.integers(0, 256, (48, 40, 3), dtype=np.uint8)
        write_picture(out / name / f"{number}.png", noise)
fabric.barrier()
half = []


class Halved(Unpaired):
    def learn(self, batch, step):
        if step == 3:
            self.fabric.barrier()  # by now it is written
            half.append(read_checkpoint(file_of(out / "whole")))
        return super().learn(batch, step)


fit(Halved(settings, fabric))
again = replace(settings, out=out / "again")
fit(Unpaired(again, fabric), checkpoint=half[0])
'''

FAILS = '''
"""Train on two devices, one of which fails at a step."""
import os
import sys
from pathlib import Path

import click
import torch
from small_recipes import Small, small

from tools import cli
from tools.train import options
from tools.train.options import train

out, kind, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
# A busy machine is no failure: the first process waits for the other's end as long as it takes.
first = "LOCAL_RANK" not in os.environ
options.SAY_AFTER_S = 60.0 if first or kind == "loss" else 0.5


class Failing(Small):
    def batches(self, first_step):
        for step, batch in enumerate(super().batches(first_step), first_step):
            if step == 7 and self.fabric.global_rank == rank:
                if kind == "memory":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried\\nGPU 0 has")
                if kind == "killed":
                    os.kill(os.getpid(), 9)
            yield batch


@click.command()
def work():
    train(Failing, small(out, devices=2, steps=100_000, bad_step=13 if kind == "loss" else 0))


cli.COMMANDS["work"] = ("__main__:work", "")
cli.main(["work"])
'''


FAILURES = {
    "memory": (1, "out of memory at --batch 2 and --crop 16: "),
    "killed": (1, "signal 9 ended one of the 2 processes"),
    "loss": (0, "dark became nan at step 13"),
}
"""What fails, in which process, and what is said of it."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """The folder and the end of every run, two at a time: most of each is starting Python."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("pools", *FAILURES)}
    for name in ("out", "out/whole", "out/again"):
        (folders["pools"] / name).mkdir()
    with ThreadPoolExecutor(2) as pool:
        started = {"pools": pool.submit(ran, folders["pools"], POOLS)}
        for kind, (rank, _) in FAILURES.items():
            started[kind] = pool.submit(ran, folders[kind], FAILS, kind, str(rank))
        yield {name: (folders[name], run) for name, run in started.items()}


def ran(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script)
    return subprocess.run(
        [sys.executable, str(path), str(folder / "out"), *words],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(TOOLS))),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )


def test_each_device_goes_on_with_its_own_pool(runs: dict[str, Run]) -> None:
    folder, run = runs["pools"]
    done = run.result()
    assert done.returncode == 0, done.stderr
    whole, again = (
        read_checkpoint(file_of(folder / "out" / name)).recipe for name in ("whole", "again")
    )
    (other,) = whole["pools_of_others"]
    for name in "ab":
        assert len(whole["pools"][name]) == len(other[name]) == 3
        assert not any(torch.equal(one, two) for one in whole["pools"][name] for two in other[name])
    same(whole, again)


@pytest.mark.parametrize("kind", FAILURES)
def test_when_one_fails_all_end_and_one_says_why(kind: str, runs: dict[str, Run]) -> None:
    done = runs[kind][1].result()  # it waits for all who hold its pipes
    line = FAILURES[kind][1]
    assert done.returncode in (1, -9)  # Fabric ends the first process with all, if it is faster
    said = [words for words in done.stderr.splitlines() if words.startswith("pix2live: ")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(f"pix2live: {line}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), "out of memory at --batch 2"),
        (MemoryError(), "out of memory at --batch 2"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (RuntimeError("CUDA error: an illegal memory access\nmore"), "the device failed; --resume"),
    ],
)
def test_a_full_or_failing_device_is_named(tmp_path: Path, error: Exception, line: str) -> None:
    found = in_our_words(error, small(tmp_path))
    assert isinstance(found, EngineError)
    assert str(found).startswith(line)
    assert "\n" not in str(found)
    for other in (ValueError("CUDA error"), RuntimeError("a bug"), KeyError()):
        assert in_our_words(other, small(tmp_path)) is other
