"""`pix2live convert`, from the command line to the files that it leaves, and those it does not."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="conversion starts from PyTorch; install torch")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")
pytest.importorskip("onnxruntime", reason="the proofs run in ONNX Runtime")

from engines.filters import load_filter  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.model import FrameModel  # noqa: E402
from engines.registry import open_engine  # noqa: E402
from tools.cli import main  # noqa: E402

ROOT = Path(__file__).parents[2]
ASSETS = ROOT.parent / "shared" / "assets"
WEIGHTS = sorted([*ASSETS.glob("weights/*/*.model"), *ASSETS.glob("weights/*/*.pth")])
SMALL = ("--size", "64x48", "--count", "2")

OVERFLOWING = """
import torch
from torch import nn

class Loud(nn.Module):
    '''Right in FP32; its middle is far beyond what FP16 can hold.'''

    def __init__(self, loudness=1e6):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.second = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3)[:, :, None, None] * loudness ** 0.5)
            self.second.weight.copy_(torch.eye(3)[:, :, None, None] / loudness)
        self.loudness = loudness

    def forward(self, x):
        return self.second(torch.relu(self.first(x) * self.loudness ** 0.5))
"""


def convert(*words: object) -> None:
    main(["convert", *map(str, words)])


def refusal(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    """Run a conversion that must fail; return its last line, the only one with the reason."""
    with pytest.raises(SystemExit) as end:
        convert(*words)
    assert end.value.code == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return " ".join(said.err.strip().splitlines()[-1:])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = QuarterNet(8, 1)
    torch.nn.init.normal_(network.tail.weight, std=0.05)
    path = tmp_path / "small_net_G.pth"
    torch.save(network.state_dict(), path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_checkpoint_becomes_a_frame_model_with_its_proofs(
    checkpoint: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "small.onnx", tmp_path / "report.json"
    convert(checkpoint, "--out", out, "--report", report, "--to", "onnx-f16", *SMALL)
    made = ["small.f16.onnx", "small.onnx", "small.proof.png"]
    assert names(tmp_path) == ["report.json", *made, checkpoint.name]
    model = FrameModel.read(out)
    assert model.fixed_size is None
    assert (model.card.name, model.card.stride) == ("small", 4)
    assert model.card.origin == checkpoint.name
    assert len(model.card.weights_sha256) == 64
    assert model.card.proofs["onnxruntime/f32"]["max_difference"] <= 1
    assert model.card.proofs["f16"]["psnr_db"] >= 45
    found = json.loads(report.read_text())
    assert found["verdict"] == "converted"
    assert found["model_sha256"] == model.sha256
    assert {step["verdict"] for step in found["steps"]} <= {"proven", "noted"}
    assert found["fp16"]["types"]["Conv"]["FLOAT16"] == 4


def test_the_frame_model_runs_live(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    convert(checkpoint, "--out", out, *SMALL, "--to", "openvino")
    frames = tmp_path / "frames"
    words = ["run", "test-pattern:64x48@30", "--frames", "3", "--filter", str(out)]
    with pytest.raises(SystemExit) as end:
        main([*words, "--sink", f"{frames}/", "--mode", "every"])
    assert not end.value.code
    assert len(list(frames.glob("*.png"))) == 3


def test_a_shipped_filter_needs_only_an_engine(tmp_path: Path) -> None:
    out, report = tmp_path / "comic.onnx", tmp_path / "report.json"
    convert("comic", "--out", out, "--report", report, "--to", "openvino", *SMALL)
    steps = json.loads(report.read_text())["steps"]
    assert not [step for step in steps if "PyTorch" in step["against"]]
    assert [step["verdict"] for step in steps if "FP16" in step["step"]] == ["proven"]
    assert FrameModel.read(out).card.licence == load_filter("comic").card.licence


@pytest.mark.parametrize("path", WEIGHTS or [None], ids=lambda path: path and path.name)
def test_every_real_file_on_sixteen_real_frames(path: Path | None, tmp_path: Path) -> None:
    if path is None:
        pytest.skip("the public checkpoints are not here (../shared/assets/weights)")
    clip = ASSETS / "video" / "webcam" / "book.mkv"
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    words = ["--frames", clip, "--count", 16, "--size", "64x48", "--to", "onnx-f16"]
    convert(path, "--out", out, "--report", report, *words)
    found = json.loads(report.read_text())
    assert found["frames"] == "16 frames of book.mkv"
    master, half = found["steps"][:2]
    assert master["step"].startswith("FP32 ONNX")
    assert master["against"].startswith("PyTorch")
    assert master["numbers"]["max_difference"] <= 1
    assert master["numbers"]["mean_difference"] < 0.1
    assert half["step"].startswith("FP16 graph")
    assert half["numbers"]["psnr_db"] >= 45
    # All that costs time is in FP16: every convolution, whatever the network.
    types = found["fp16"]["types"]
    assert all(not types[kind]["FLOAT"] for kind in ("Conv", "ConvTranspose") if kind in types)


def test_a_network_that_overflows_is_refused_with_picture_and_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud.py").write_text(OVERFLOWING)
    report = tmp_path / "report.json"
    words = ["--module", f"{tmp_path / 'loud.py'}:Loud", "--range", "0..1", *SMALL]
    reason = refusal(capsys, *words, "--out", tmp_path / "loud.onnx", "--report", report)
    assert "65504" in reason
    assert "--precision f32" in reason
    left = [name for name in names(tmp_path) if name != "__pycache__"]
    assert left == ["loud.py", "loud.refused.png", "report.json"]
    found = json.loads(report.read_text())
    assert found["verdict"] == "refused"
    assert found["model"] is None
    picture = cv2.imread(str(tmp_path / "loud.refused.png"))
    assert picture is not None
    assert picture.shape[1] >= 3 * 64
    convert(*words, "--out", tmp_path / "loud.onnx", "--precision", "f32", "--to", "openvino")
    assert FrameModel.read(tmp_path / "loud.onnx").card.architecture == "Loud"


def test_arguments_reach_the_class(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(OVERFLOWING)
    words = ["--module", f"{tmp_path / 'loud.py'}:Loud", "--range", "0..1", *SMALL]
    quiet = ["--arguments", '{"loudness": 4.0}', "--out", tmp_path / "quiet.onnx"]
    convert(*words, *quiet, "--to", "onnx-f16")
    assert "f16" in FrameModel.read(tmp_path / "quiet.onnx").card.proofs


@pytest.mark.parametrize("kind", ["trace", "script"])
def test_torchscript(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.ReflectionPad2d(1),
        torch.nn.Conv2d(3, 8, 3, 2),
        torch.nn.InstanceNorm2d(8, affine=True),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 3, 3, 2, 1, 1),
        torch.nn.Tanh(),
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, and that it is an old format
        made = (
            torch.jit.trace(network, torch.zeros(1, 3, 32, 32))
            if kind == "trace"
            else torch.jit.script(network)
        )
    path = tmp_path / "archive.pt"
    made.save(str(path))
    assert "--range" in refusal(capsys, path, "--out", tmp_path / "a.onnx")
    convert(path, "--range", "-1..1", "--out", tmp_path / "a.onnx", "--to", "onnx-f16", *SMALL)
    model = FrameModel.read(tmp_path / "a.onnx")
    assert model.card.stride == 2
    frame = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    with open_engine(model, (64, 32), backend="onnxruntime") as engine:
        found = engine.infer(frame)
    rgb = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    right = ((network(rgb)[0].permute(1, 2, 0).detach() + 1) * 127.5).round().numpy()[..., ::-1]
    assert np.abs(found.astype(float) - right).max() <= 1


def test_somebody_elses_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ASSETS / "weights" / "transformer_net" / "mosaic_nc8_256x256.onnx"
    if not path.exists():
        pytest.skip("the public ONNX file is not here (../shared/assets/weights)")
    out = tmp_path / "mosaic.onnx"
    assert "--range" in refusal(capsys, path, "--out", out)
    assert "256x256 only" in refusal(
        capsys, path, "--range", "0..255", "--size", "640x360", "--out", out
    )
    convert(path, "--range", "0..255", "--out", out, "--count", 2, "--to", "onnx-f16")
    assert FrameModel.read(out).fixed_size == (256, 256)


def test_an_rtx_engine_without_a_gpu(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    out, report = tmp_path / "small.onnx", tmp_path / "report.json"
    words = ["--to", "tensorrt-rtx", "--gpu", "8.6,8.9", "--report", report, *SMALL]
    convert(checkpoint, "--out", out, *words)
    engine = tmp_path / "small.64x48.tensorrt-rtx.engine"
    assert engine.stat().st_size > 10_000
    found = json.loads(report.read_text())
    built = found["engines"][0]
    assert built["targets"] == ["8.6", "8.9"]
    assert sum(built["layers"]["convolution"].values()) == 4
    assert built["layers"]["convolution"] == {"f16": 4}
    step = found["steps"][-1]
    assert "tensorrt-rtx" in step["step"]
    if open_engine_reason():
        assert step["verdict"] == "not proven"
        assert step["why"] == open_engine_reason()
        assert open_engine_reason() in " ".join(capsys.readouterr().err.split())


def open_engine_reason() -> str | None:
    from engines.registry import why_not

    return why_not("tensorrt-rtx")


def test_openvino_takes_its_engine_from_the_file(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    convert(checkpoint, "--out", out, "--to", "openvino", *SMALL)
    blob = tmp_path / "small.64x48.openvino.engine"
    with open_engine(out, (64, 48), backend="openvino") as engine:
        assert f"engine from {blob.name}" in engine.notes
        precision = engine.precision
        frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        from_file = engine.infer(frame)
    # Another precision than the file's is compiled, and said: it is no silent replacement.
    if precision != "f32":
        with open_engine(out, (64, 48), backend="openvino", precision="f32") as engine:
            assert any("precision" in note and blob.name in note for note in engine.notes)
    data = bytearray(blob.read_bytes())
    data[-100] ^= 1
    blob.write_bytes(data)
    with open_engine(out, (64, 48), backend="openvino") as engine:
        assert any("damaged" in note for note in engine.notes)
        assert np.array_equal(engine.infer(frame), from_file)


@pytest.mark.parametrize(
    ("words", "help_"),
    [
        (["--size", "65x48"], "multiples of 4"),
        (["--gpu", "8.6"], "--to tensorrt-rtx"),
        (["--dynamic", "64x48..128x96"], "--to tensorrt"),
        (["--precision", "f32", "--to", "onnx-f16"], "--precision f32"),
        (["--frames", "nowhere.mp4"], "nowhere.mp4"),
        (["--statistics", "batch"], "U-Net"),
        (["--out", "nowhere/x.onnx"], "no folder"),
        (["--report", "nowhere/r.json"], "no folder"),
        (["--out", "x.pth"], "FILE.onnx"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    words: list[str],
    help_: str,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert help_ in refusal(capsys, checkpoint, *words)
    assert names(checkpoint.parent) == [checkpoint.name]


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return what people give by mistake, with a word that the answer must have."""
    network = QuarterNet(8, 1)
    optimizer = torch.optim.Adam(network.parameters())
    discriminator = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 4, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(64, 1, 4)
    )
    segments = {**network.state_dict(), "tail.weight": torch.zeros(16 * 21, 8, 3, 3)}
    made: dict[str, Any] = {
        "optimizer": optimizer.state_dict(),
        "segmentation": segments,
        "discriminator": {f"model.{k}": v for k, v in discriminator.state_dict().items()},
        "nothing": {},
    }
    for name, data in made.items():
        torch.save(data, folder / f"{name}.pth")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "page.pth").write_text("<!DOCTYPE html><html>sign in</html>")
    found = {name: folder / f"{name}.pth" for name in (*made, "empty", "page")}
    helps = {
        "optimizer": "optimi",
        "segmentation": "tail.weight",
        "discriminator": "discriminator",
        "nothing": "tensor",
        "empty": "empty",
        "page": "web page",
    }
    files = {name: (found[name], helps[name]) for name in found}
    files["folder"] = folder, "folder"
    files["missing"] = folder / "missing.pth", "missing.pth"
    return files


@pytest.mark.parametrize(
    "name",
    [
        *("optimizer", "discriminator", "segmentation", "nothing"),
        *("empty", "page", "folder", "missing"),
    ],
)
def test_bad_input(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, help_ = bad_files(tmp_path)[name]
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert help_ in refusal(capsys, given)
    assert not names(work)


def test_run_says_how_to_convert(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "test-pattern", "--filter", str(checkpoint), "--frames", "1"])
    assert f"pix2live convert {checkpoint}" in capsys.readouterr().err


def test_the_list_of_families(capsys: pytest.CaptureFixture[str]) -> None:
    convert("--list")
    said = capsys.readouterr().out
    for family in ("fast-neural-style", "resnet", "unet", "pix2pixhd", "animegan", "cartoongan"):
        assert family in said


def test_it_is_a_script_too(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "tools" / "convert.py"), "--list"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "fast-neural-style" in done.stdout
