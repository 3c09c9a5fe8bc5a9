"""What only the openvino backend has: precisions with their proof, devices, many frames at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from engines import Engine, EngineError, FrameModel, open_engine
from engines.artefact import engine_file, write_artefact
from engines.backends.openvino import OpenVinoEngine, import_openvino
from engines.backends.openvino_precision import ENOUGH_PSNR_DB

openvino = import_openvino()
ROOT = Path(__file__).resolve().parents[2]
SIZE = (64, 48)
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16 arithmetic")


def _open(model: FrameModel, **options: Any) -> Engine:
    return open_engine(model, SIZE, backend="openvino", **options)


@needs_bf16
def test_bf16_is_taken_with_a_proof(tmp_path: Path) -> None:
    frame = models.picture(SIZE)
    with _open(models.written(models.blurring(), tmp_path / "m.onnx")) as engine:
        assert engine.precision == "bf16"
        (note,) = engine.notes
        assert note.startswith("bf16: ")
        assert note.endswith(" dB from f32 (measured now)")
        difference = engine.infer(frame).astype(int) - models.blurred(frame)
    assert np.abs(difference).max() <= 2


@needs_bf16
def test_a_filter_that_bf16_breaks_runs_in_f32_and_says_so(tmp_path: Path) -> None:
    frame = models.picture(SIZE)
    model = models.written(models.fragile(), tmp_path / "m.onnx")
    with _open(model, precision="bf16") as engine:  # as asked: no proof, no fallback
        assert engine.precision == "bf16"
        assert np.abs(engine.infer(frame).astype(int) - frame).max() > 50
    with _open(model) as engine:
        assert engine.precision == "f32"
        assert np.abs(engine.infer(frame).astype(int) - frame).max() <= 1
        (note,) = engine.notes
    assert note.startswith("f32, the slower way: bf16 is only ")
    assert "(measured now), 30 are needed" in note


@needs_bf16
@pytest.mark.parametrize(
    ("psnr_db", "precision", "note"),
    [
        (41.0, "bf16", "bf16: 41.0 dB from the original network (card)"),
        (ENOUGH_PSNR_DB, "bf16", "bf16: 30.0 dB from the original network (card)"),
        (29.9, "f32", "f32, the slower way: bf16 is only 29.9 dB from the original network (card)"),
    ],
)
def test_the_proof_on_the_card_decides(
    psnr_db: float, precision: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.backends.openvino.compare", None)  # nothing is measured
    proofs = {"openvino/bf16": {"psnr_db": psnr_db}}
    model = models.written(models.inverting(), tmp_path / "m.onnx", proofs=proofs)
    with _open(model) as engine:
        assert engine.precision == precision
        assert engine.notes[0].startswith(note)


class _Cpu:
    """OpenVINO on a CPU with other abilities."""

    def __init__(self, *able: str) -> None:
        self.able = able

    def __call__(self) -> Any:
        core, able = self.real(), self.able

        class Core:
            def get_property(self, device: str, name: str) -> Any:
                wanted = name == "OPTIMIZATION_CAPABILITIES"
                return list(able) if wanted else core.get_property(device, name)

            def __getattr__(self, name: str) -> Any:
                return getattr(core, name)

        return Core()

    real = openvino.Core


def test_a_cpu_without_bf16_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "Core", _Cpu("FP32", "INT8"))
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with _open(model) as engine:
        assert engine.precision == "f32"
        assert engine.notes == ["f32: CPU has no bf16 or f16 arithmetic"]
    for precision in ("bf16", "f16"):
        with pytest.raises(EngineError, match=f"CPU has no {precision} here, only f32"):
            _open(model, precision=precision)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16 arithmetic")
def test_f16_where_bf16_is_the_fast_one(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="CPU has no f16 here, only bf16 and f32"):
        _open(model, precision="f16")


def test_it_says_which_file_it_is_from(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    path = engine_file(model.path, "openvino", SIZE)
    engine = OpenVinoEngine(model, precision="f32")
    write_artefact(path, *engine.compiled(SIZE), {})
    assert engine.engine_path is None
    engine.open(SIZE)
    assert engine.engine_path == path
    engine.close()
    path.write_bytes(path.read_bytes()[:-9])
    engine.open(SIZE)
    assert engine.engine_path is None
    assert engine.notes[0].startswith(f"compiled again, not {path.name}: ")
    engine.close()


def test_f32_needs_no_proof_and_says_nothing(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with _open(model, precision="f32") as engine:
        assert (engine.precision, engine.notes) == ("f32", [])


def test_devices(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"no device 'NOPE' here, only \['CPU'"):
        open_engine(model, SIZE, backend="openvino:NOPE")
    with open_engine(model, SIZE, backend="openvino:cpu") as engine:
        assert engine.device.startswith("CPU: ")


def test_depth_is_kept_and_lowered_for_a_state(tmp_path: Path) -> None:
    with _open(models.written(models.inverting(), tmp_path / "m.onnx"), depth=3) as engine:
        assert engine.depth == 3
        assert "one frame" not in " ".join(engine.notes)
    with _open(models.written(models.running_mean(), tmp_path / "s.onnx"), depth=3) as engine:
        assert engine.depth == 1
        assert "one frame at a time: each needs the state that the last one left" in engine.notes


def test_many_frames_under_way_do_not_mix(tmp_path: Path) -> None:
    model = models.written(models.blurring(), tmp_path / "m.onnx")
    frames = [models.picture(SIZE, seed) for seed in range(5)]
    with _open(model, precision="f32", depth=4) as engine:
        right = [engine.infer(frame) for frame in frames]
        for round_ in range(40):
            count = 1 + round_ % 4
            for place in range(count):
                # New arrays each time, one of them read-only: what is under way is kept alive.
                frame = frames[(round_ + place) % 5].copy()
                frame.flags.writeable = place % 2 == 0
                engine.submit(frame, np.empty_like(frame))
            for place in range(count):
                assert np.array_equal(engine.collect(), right[(round_ + place) % 5])


def test_a_graph_that_openvino_cannot_take(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    model.path.write_bytes(b"spoilt")
    with pytest.raises(EngineError, match=r"OpenVINO cannot read .*m\.onnx") as refusal:
        _open(model)
    assert "\n" not in str(refusal.value)


def test_a_size_that_the_graph_cannot_take(tmp_path: Path) -> None:
    """The card promises a stride that the network does not keep."""
    reshape = models.graph(
        [
            models.node("Reshape", ["frame", "shape"], "halves"),
            models.node("Reshape", ["halves", "back"], "translated"),
        ],
        [
            models.constant("shape", [1, 48, 2, -1, 3], np.int64),
            models.constant("back", [1, 48, -1, 3], np.int64),
        ],
    )
    model = models.written(reshape, tmp_path / "m.onnx")
    with _open(model, precision="f32") as engine:
        frame = models.picture(SIZE)
        assert np.array_equal(engine.infer(frame), frame)
    with pytest.raises(EngineError, match="OpenVINO cannot") as refusal:
        open_engine(model, (63, 47), backend="openvino", precision="f32")
    assert "\n" not in str(refusal.value)


WITHOUT_TELEMETRY = """
import sys, threading
import numpy as np
from engines import open_engine
with open_engine(sys.argv[1], (64, 48), backend="openvino") as engine:
    engine.infer(np.zeros((48, 64, 3), np.uint8))
assert sys.modules.get("openvino_telemetry") is None
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""


def test_nothing_is_sent_home(tmp_path: Path) -> None:
    """openvino's telemetry keeps a thread, and a folder "intel" in the home folder."""
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TELEMETRY, str(model.path)],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()


ENDINGS = {
    "in the same thread": "engine = new(); engine.close(); del engine",
    "in another thread": "engine = new(); in_thread(engine.close); del engine",
    "opened in another thread": "box = []; in_thread(lambda: box.append(new())); box.pop().close()",
    "by the garbage collector": "x = [new()]; x.append(x); del x; in_thread(gc.collect)",
}


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_signal_after_an_engine_is_no_crash(ending: str) -> None:
    """OpenVINO takes a thread's signal stack and unmaps it whenever its plug-in goes."""
    program = f"""
import gc, os, signal, threading
from engines import open_engine

def new():
    return open_engine("comic", (64, 48), backend="openvino")

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
{ending}
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
