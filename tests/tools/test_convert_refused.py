"""What `pix2live convert` must not believe, replace or leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="conversion starts from PyTorch; install torch")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")
pytest.importorskip("onnxruntime", reason="the proofs run in ONNX Runtime")

from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.model import FrameModel  # noqa: E402
from engines.registry import open_engine, why_not  # noqa: E402
from tools.cli import main  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = ("--size", "64x48", "--count", "2")


def convert(*words: object) -> None:
    main(["convert", *map(str, words)])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a conversion that must fail with one line, and return it."""
    with pytest.raises(SystemExit) as end:
        convert(*words)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "a fault in pix2live" not in said
    return said.strip().splitlines()[-1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command runs."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = QuarterNet(8, 1)
    torch.nn.init.normal_(network.tail.weight, std=0.05)
    path = tmp_path / "net.pth"
    torch.save(network.state_dict(), path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.name != "__pycache__")


FORWARDS = {
    "NaN": ("return x * float('nan')", "NaN"),
    "one colour": ("return x * 0 + 0.5", "one colour"),
    "another range": ("return x * 255 + 300", "outside its range"),
    "a few levels": ("return torch.sigmoid(x) / 255", "levels 0 to 1"),
    "a tuple": ("return x, x", "a tuple of 2"),
    "a dictionary": ("return {'out': x}", "'out'"),
    "nothing": ("pass", "NoneType"),
    "an error of its own": ("return self.missing(x)", "missing"),
    "five channels": ("return torch.cat([x, x], 1)[:, :5]", "expected 3 channels"),
    "half the size": ("return x[:, :, ::2, ::2]", "--stride"),
    "an exit": ("raise SystemExit(3)", "SystemExit"),
}


def module(path: Path, forward: str, start: str = "pass") -> str:
    path.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        {start}\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
    )
    return f"{path}:Net"


@pytest.mark.parametrize(("forward", "word"), FORWARDS.values(), ids=FORWARDS)
def test_a_network_without_a_picture(
    forward: str, word: str, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = module(tmp_path / "own.py", forward)
    assert word in refusal(capsys, "--module", made, "--range", "0..1", *SMALL)
    assert not names(here)


def test_a_class_that_is_not_there(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = module(tmp_path / "own.py", "return x")
    line = refusal(capsys, "--module", f"{made}t", "--range", "0..1", *SMALL)
    assert "own.py has no Nett, only Net" in line


def test_a_gpu_that_is_not_here(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    if why_not("tensorrt-rtx") is None:
        pytest.skip("there is a GPU here")
    words = ("--to", "tensorrt-rtx", "--gpu", "current")
    assert "NVIDIA driver" in refusal(capsys, checkpoint, *words, *SMALL)
    assert not names(here)


def test_a_class_that_exits_is_no_end(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = module(tmp_path / "own.py", "return x", "raise SystemExit(3)")
    assert "SystemExit" in refusal(capsys, "--module", made, "--range", "0..1", *SMALL)


@pytest.mark.parametrize("name", ["json.py", "onnx.py", "engines.py"])
def test_a_file_may_be_called_as_it_likes(name: str, tmp_path: Path, here: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "pix2live_test_neighbour.py").write_text("factor = 0.5\n")
    neighbour = "from pix2live_test_neighbour import factor; return x * factor"
    made = module(folder / name, neighbour)
    convert("--module", made, "--range", "0..1", "--to", "onnx-f16", *SMALL)
    assert names(here) == ["Net.f16.onnx", "Net.onnx", "Net.proof.png"]


def test_a_range_that_cuts_much_off_is_said(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = module(tmp_path / "own.py", "return x * 3 - 1")
    convert("--module", made, "--range", "0..1", "--to", "onnx-f16", *SMALL)
    assert "is the range right?" in " ".join(capsys.readouterr().err.split())


def test_a_network_for_one_size(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = module(
        tmp_path / "own.py", "return x * self.w", "self.w = torch.nn.Parameter(torch.rand(48, 64))"
    )
    words = ("--module", made, "--range", "0..1", "--to", "onnx-f16", "--count", "2")
    assert "a network for one size needs --size" in refusal(capsys, *words)
    convert(*words, "--size", "64x48")
    assert "takes 64x48 only" in " ".join(capsys.readouterr().err.split())
    assert FrameModel.read("Net.onnx").fixed_size == (64, 48)


def test_a_frame_model_stays_where_it_is_and_keeps_its_proofs(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second step of docs/jetson.md: the engine is made where it runs."""
    convert(checkpoint, "--out", "net.onnx", "--to", "onnx-f16", *SMALL)
    before = FrameModel.read(here / "net.onnx")
    convert("net.onnx", "--to", "openvino", "--precision", "f32", *SMALL)
    assert "net.onnx: the new proofs are on its card" in capsys.readouterr().err
    after = FrameModel.read(here / "net.onnx")
    assert after.card.proofs["f16"] == before.card.proofs["f16"]
    assert after.card.weights_sha256 == before.card.weights_sha256
    convert("net.onnx", "--to", "openvino", "--size", "128x96", "--count", "1")
    for width, height in ((64, 48), (128, 96)):
        with open_engine("net.onnx", (width, height), backend="openvino") as engine:
            assert engine.engine_path == Path(f"net.{width}x{height}.openvino.engine")
    # Proven against itself on one frame: worth less than against the original on two.
    card = FrameModel.read("net.onnx").card
    assert {(proof["against_original"], proof["frames"]) for proof in card.proofs.values()} == {
        (1, 2)
    }


def test_nothing_else_is_replaced(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(checkpoint, "--to", "onnx-f16", *SMALL)
    convert(checkpoint, "--to", "onnx-f16", *SMALL)  # again is fine
    other = QuarterNet(8, 2).state_dict()
    torch.save(other, here / "net.pth")
    assert "is there already" in refusal(capsys, "net.pth", *SMALL)
    (here / "thesis.onnx").write_text("not to be lost")
    line = refusal(capsys, checkpoint, "--out", "thesis.onnx", *SMALL)
    assert "thesis.onnx is there already and is no frame model" in line
    assert (here / "thesis.onnx").read_text() == "not to be lost"
    convert("net.pth", "--out", f"{checkpoint.stem}.onnx", "--to", "onnx-f16", *SMALL)
    assert ".onnx: the earlier one is replaced" in capsys.readouterr().err
    for report in ("net.pth", "net.onnx", "net.proof.png"):
        line = refusal(capsys, "net.pth", "--out", "x.onnx", "--report", report, *SMALL)
        assert "--report takes a FILE.json" in line
    assert torch.load("net.pth", weights_only=True).keys() == other.keys()
    (here / "folder.64x48.openvino.engine").mkdir()
    line = refusal(capsys, checkpoint, "--out", "folder.onnx", "--to", "openvino", *SMALL)
    assert "is a folder" in line
    assert not (here / "folder.onnx").exists()


def test_names_of_every_script(checkpoint: Path, here: Path) -> None:
    path = here / "сеть [1].pth"
    path.write_bytes(checkpoint.read_bytes())
    convert(path, "--to", "onnx-f16", "--to", "onnx-f16", *SMALL)
    assert FrameModel.read(here / "сеть [1].onnx").card.name == "сеть-1"


IDLE = {
    "--range": ("0..1", "weights of a known family"),
    "--colour": ("bgr", "weights of a known family"),
    "--stride": ("8", "weights of a known family"),
    "--arguments": ('{"a": 1}', "weights of a known family"),
    "--input": ("x", "weights of a known family"),
}


@pytest.mark.parametrize("option", IDLE)
def test_an_option_that_does_nothing_is_refused(
    option: str, checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, kind = IDLE[option]
    assert f"{option} does not apply to {kind}" in refusal(capsys, checkpoint, option, value)


@pytest.mark.parametrize("gpu", ["9.0", "garbage", ","])
def test_a_gpu_that_it_does_not_know_is_refused_at_once(
    gpu: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    assert "--gpu" in refusal(capsys, "nothing.pth", "--to", "tensorrt-rtx", "--gpu", gpu)


def test_ties_round_as_in_the_original(here: Path) -> None:
    """Half of every level: each second one is a tie."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "half"], ["y"])],
        "halving",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [numpy_helper.from_array(np.float32(0.5).reshape(1), "half")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), "halving.onnx")
    convert("halving.onnx", "--range", "0..1", "--report", "r.json", "--to", "onnx-f16", *SMALL)
    assert FrameModel.read("halving.live.onnx").card.origin == "halving.onnx"
    steps = json.loads(Path("r.json").read_text())["steps"]
    assert steps[0]["numbers"]["max_difference"] == 0


def signalled(number: signal.Signals, doing: str, checkpoint: Path, folder: Path) -> None:
    """Convert into ``folder``, with a signal while it says what it is ``doing``, to its end."""
    folder.mkdir()
    said = folder.with_suffix(".said")
    words = [sys.executable, "-m", "tools", "convert", checkpoint, "--out", folder / "x.onnx"]
    with said.open("w") as errors:
        child = subprocess.Popen(
            [*map(str, words), "--size", "64x48", "--count", "100"], cwd=ROOT, stderr=errors
        )
    until = time.monotonic() + 100
    while time.monotonic() < until and f"{doing} ..." not in said.read_text():
        time.sleep(0.02)
    assert any(folder.glob(".convert.*"))
    child.send_signal(number)
    assert child.wait(timeout=100) == 128 + number, said.read_text()
    assert "Traceback" not in said.read_text()
    assert not names(folder)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_signal_leaves_nothing_whatever_is_being_done(checkpoint: Path, tmp_path: Path) -> None:
    cases = [
        (signal.SIGINT, "the original"),
        (signal.SIGTERM, "the original"),
        (signal.SIGINT, "export"),
    ]
    with ThreadPoolExecutor(2) as pool:  # two at once: most of it is starting Python
        ends = [
            pool.submit(signalled, number, doing, checkpoint, tmp_path / str(place))
            for place, (number, doing) in enumerate(cases)
        ]
        for end in ends:
            end.result()
