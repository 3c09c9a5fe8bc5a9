"""The training loop, with a recipe that learns in milliseconds: killed, resumed, refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

import torch
from small_recipes import LONG, Small, SmallSettings, Unshipped, child, ended, same, small

from engines.errors import ConversionError, Pix2liveError, SettingsError, SinkError
from engines.model import FrameModel
from tools.train.checkpoint import (
    Checkpoint,
    file_of,
    read_checkpoint,
    write_checkpoint,
)
from tools.train.curves import read_curves
from tools.train.devices import make_fabric
from tools.train.loop import Outcome, fit
from tools.train.options import train

TOOLS = Path(__file__).parent
ROOT = TOOLS.parent.parent


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are so small that threads only wait for each other
    yield
    torch.set_num_threads(before)


def trained(settings: SmallSettings) -> Outcome:
    """Train without the export, as `tools.train.options.train` does with it."""
    settings.out.mkdir(parents=True, exist_ok=True)
    found = read_checkpoint(file_of(settings.out)) if settings.resume else None
    return fit(Small(settings, make_fabric(settings)[0]), checkpoint=found)


def losses(out: Path) -> list[float]:
    lines = read_curves(out / "curves.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")
def test_killed_at_any_moment_it_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOLS / "small_recipes.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(TOOLS)))},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    ends = done.stdout.split("\n")[:-1]
    assert ends[-1].strip() == "0", (tmp_path / "lives.log").read_text()
    assert sum(end.startswith("-9") for end in ends) >= 4
    assert ends.count("-9 writing") >= 4  # while a checkpoint was being written
    killed, whole = tmp_path / "lives", tmp_path / "once"
    assert len(losses(whole)) == LONG["steps"]
    assert (killed / "curves.jsonl").read_bytes() == (whole / "curves.jsonl").read_bytes()
    same(*(read_checkpoint(file_of(folder)).recipe for folder in (killed, whole)))
    assert not list(killed.glob(".*.part"))


def test_it_learns_and_a_seed_repeats_it(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(small(tmp_path / name, steps=40, seed=seed))
        weights.append(read_checkpoint(file_of(tmp_path / name)).recipe["average"])
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert np.mean(losses(tmp_path / "a")[-5:]) < 0.5 * losses(tmp_path / "a")[0]


def test_every_filter_has_a_card_with_proofs(tmp_path: Path) -> None:
    settings = small(
        tmp_path, steps=2, names="there,back", command="pix2live train small", licence="CC0-1.0"
    )
    paths = train(Small, replace(settings, domains="day -> dusk"))
    assert [path.name for path in paths] == ["there.onnx", "back.onnx"]
    card = FrameModel.read(paths[1]).card
    assert (card.name, card.task, card.licence) == ("back", "paired", "CC0-1.0")
    assert card.domains == "day -> dusk"
    assert card.architecture == "QuarterNet, 4 channels, 1 blocks"
    assert card.stride == 4
    assert card.training == "2 steps of 2 crops of 16 pixels, seed 1"
    assert card.command == "pix2live train small"
    assert "openvino/f32" in card.proofs
    if "onnxruntime/f32" in card.proofs:
        assert card.proofs["f16"]["psnr_db"] > 45
    assert not list(tmp_path.glob(".export*"))


def test_nothing_is_written_when_the_pictures_are_none(tmp_path: Path) -> None:
    class Blank(Small):
        def finished(self) -> dict[str, torch.nn.Module]:
            found = super().finished()
            for value in found["small"].parameters():
                value.data.fill_(torch.nan)
            return found

    with pytest.raises(ConversionError, match=r"small is not written: .* no picture .*NaN"):
        train(Blank, small(tmp_path, steps=1))
    assert not list(tmp_path.glob("*.onnx"))
    assert file_of(tmp_path).exists()


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    reason = r"dark became nan at step 13; .*checkpoint.pt is the last good .* step 10; .*0.0033"
    with pytest.raises(Pix2liveError, match=reason):
        trained(small(tmp_path, bad_step=13))
    assert read_checkpoint(file_of(tmp_path)).step == 10
    assert len(losses(tmp_path)) == 12
    with pytest.raises(Pix2liveError, match="step 2; no checkpoint was saved yet; try"):
        trained(small(tmp_path / "early", bad_step=2))


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, Checkpoint(3, {"network": {"weight": torch.ones(2)}}))
    bad = Checkpoint(4, {"network": {"weight": torch.tensor([1.0, torch.inf])}})
    with pytest.raises(Pix2liveError, match=r"network\.weight became infinite .* step 4"):
        write_checkpoint(path, bad)
    assert read_checkpoint(path).step == 3


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    settings = small(tmp_path / "out", save_every=5, ballast=1 << 14)
    assert trained(settings).step == 20
    before = file_of(settings.out).read_bytes()
    limit = len(before) - 1000

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        torch.set_num_threads(1)
        again = Checkpoint(25, read_checkpoint(file_of(settings.out)).recipe)
        write_checkpoint(file_of(settings.out), again)

    assert ended(child(work, tmp_path / "errors")) == 1
    said = (tmp_path / "errors").read_text()
    assert "SinkError: cannot write" in said
    assert "the earlier checkpoint is whole" in said
    assert file_of(settings.out).read_bytes() == before
    assert not list(settings.out.glob(".*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    settings = small(tmp_path / "out", steps=100_000, save_every=100_000, pause_s=0.005)
    pid = child(one_thread(lambda: train(Small, settings)), tmp_path / "errors")
    wait_for(lambda: len(read_curves(settings.out / "curves.jsonl")) > 5)
    os.kill(pid, number)
    assert ended(pid) == code
    said = (tmp_path / "errors").read_text()
    assert "--resume" in said
    assert "--export" in said
    assert "Traceback" not in said
    step = read_checkpoint(file_of(settings.out)).step
    assert len(losses(settings.out)) == step > 5
    assert (settings.out / f"sheet-{step:06d}.png").exists()
    assert not list(settings.out.glob("*.onnx"))
    card = FrameModel.read(train(Small, replace(settings, export=True))[0]).card
    assert f"stopped after {step} of these steps" in card.training


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    settings = small(tmp_path / "out", pause_s=100.0)
    pid = child(one_thread(lambda: train(Small, settings)), tmp_path / "errors")
    wait_for((settings.out / "curves.jsonl").exists)
    time.sleep(0.3)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # it would finish its step
    os.kill(pid, signal.SIGINT)
    assert ended(pid) == 7
    assert not file_of(settings.out).exists()


def one_thread(work: Callable[[], object]) -> Callable[[], object]:
    """The threads of torch are not there after a fork."""

    def alone() -> object:
        torch.set_num_threads(1)
        return work()

    return alone


def wait_for(happened: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_checkpoint_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    settings = small(tmp_path, steps=5)
    trained(settings)
    before = file_of(tmp_path).read_bytes()
    with pytest.raises(SettingsError, match=r"--resume goes on .* --overwrite begins again"):
        train(Unshipped, settings)
    assert file_of(tmp_path).read_bytes() == before
    with pytest.raises(SettingsError, match="--overwrite throws the checkpoint away"):
        train(Unshipped, replace(settings, overwrite=True, resume=True))
    again = replace(settings, seed=5, steps=3, overwrite=True)
    train(Unshipped, again)
    assert read_checkpoint(file_of(tmp_path)).step == 3
    assert len(losses(tmp_path)) == 3


def test_overwrite_removes_what_the_earlier_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    trained(small(out, steps=9, sheet_every=3))
    board = out / "tensorboard"
    before = {path.name for path in out.glob("sheet-*")}
    assert before == {f"sheet-00000{step}.png" for step in (3, 6, 9)}
    events = set(board.glob("events.out.tfevents.*"))
    kept = [out / "small.onnx", out / "sheet-of-mine.png", out / "cache" / "one.png"]
    kept += [elsewhere / "events.out.tfevents.1"]
    if events:
        kept += [board / "notes.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (out / "sheet-000001.png").mkdir()
    trained(small(out, steps=4, sheet_every=2, overwrite=True))
    found = {path.name for path in out.glob("sheet-0*")}
    assert found == {"sheet-000001.png", "sheet-000002.png", "sheet-000004.png"}
    assert len(losses(out)) == 4
    assert all(path.read_text() == "mine" for path in kept)
    assert not events & set(board.glob("*"))
    assert bool(events) == bool(list(board.glob("events.out.tfevents.*")))
    shutil.rmtree(board, ignore_errors=True)
    board.symlink_to(elsewhere)  # others may write there, too
    trained(small(out, steps=2, overwrite=True))
    assert kept[3].read_text() == "mine"


def test_to_go_on_removes_no_sheet(tmp_path: Path) -> None:
    trained(small(tmp_path, steps=4, sheet_every=2))
    trained(small(tmp_path, steps=4, sheet_every=2, resume=True))
    assert len(list(tmp_path.glob("sheet-*.png"))) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 2}, "--seed was 1, is 2"),
        ({"steps": 9}, "--steps was 5, is 9"),
        ({"generator": "quarter:8x1"}, "--generator was quarter:64x4, is quarter:8x1"),
        ({"batch": 3, "dark_weight": 2.0}, "--batch was 2, is 3; --dark-weight was 1.0, is 2.0"),
    ],
)
def test_another_training_is_not_resumed(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    trained(small(tmp_path, steps=5))
    with pytest.raises(SettingsError, match=reason):
        train(Unshipped, small(tmp_path, **{"steps": 5, "resume": True, **change}))


def test_data_may_move_but_not_change(tmp_path: Path) -> None:
    data, moved = tmp_path / "data", tmp_path / "moved"
    data.mkdir()
    (data / "one.png").write_bytes(b"1")
    trained(small(tmp_path / "out", steps=5, data=data))
    data.rename(moved)
    again = small(
        tmp_path / "out", steps=5, data=moved, resume=True, save_every=2, workers=3, sheet_every=7
    )
    train(Unshipped, again)
    (moved / "two.png").write_bytes(b"22")
    with pytest.raises(SettingsError, match=r"--data was 1 files .*, is 2 files"):
        train(Unshipped, again)


def test_to_resume_what_never_began_is_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(Unshipped, small(tmp_path, steps=2, resume=True))
    assert "no checkpoint" in " ".join(capsys.readouterr().err.split())
    assert len(losses(tmp_path)) == 2
    with pytest.raises(SettingsError, match="--export: there is no checkpoint"):
        train(Unshipped, small(tmp_path / "empty", export=True))


def test_on_another_machine_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Unshipped, small(tmp_path, steps=2, precision="bf16-mixed"))
    train(Unshipped, small(tmp_path, steps=2, resume=True))
    said = " ".join(capsys.readouterr().err.split())
    assert "going on after step 2 of 2" in said
    assert "bf16-mixed: as asked': the numbers will not be quite those" in said


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trained(small(tmp_path, steps=5))
    data = path.read_bytes()
    for bad in (b"", b"no checkpoint", data[: len(data) // 2]):
        path.write_bytes(bad)
        with pytest.raises(SettingsError, match=r"checkpoint\.pt is damaged or no checkpoint"):
            train(Unshipped, small(tmp_path, steps=5, resume=True))
        assert path.read_bytes() == bad
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(SettingsError, match="expected format 1, found None"):
        read_checkpoint(path)
    path.write_bytes(data)
    found = read_checkpoint(path)
    found.recipe["network"].pop("head.weight")
    write_checkpoint(path, found)
    with pytest.raises(SettingsError, match="cannot continue these networks"):
        train(Unshipped, small(tmp_path, steps=5, resume=True))


def test_one_training_a_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    class Double(Unshipped):
        def samples(self) -> Any:
            try:
                train(Unshipped, small(tmp_path, overwrite=True))
            except SinkError as error:
                refused.append(str(error))
            return super().samples()

    train(Double, small(tmp_path, steps=1))
    assert refused[0].startswith("another training is running in")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accelerator": "tpu"}, "--accelerator must be one of"),
        ({"precision": "fp8"}, "--precision must be one of"),
        ({"precision": "16-mixed"}, "needs a GPU"),
        ({"save_every": 0}, "--save-every must be 1 or more"),
        ({"workers": -1}, "--workers must be 0 or more"),
        ({"name": "a/b"}, "--name must be letters"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        train(Unshipped, small(tmp_path / "out", **change))


def test_a_missing_gpu_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SettingsError, match="--accelerator cuda: torch finds none here"):
        make_fabric(small(tmp_path, accelerator="cuda"))


def test_outside_the_main_thread_it_trains_too(tmp_path: Path) -> None:
    done: list[Outcome] = []
    thread = threading.Thread(target=lambda: done.append(trained(small(tmp_path, steps=2))))
    thread.start()
    thread.join()
    assert done == [Outcome(2)]
    assert json.loads((tmp_path / "curves.jsonl").read_text().splitlines()[1])["step"] == 2
