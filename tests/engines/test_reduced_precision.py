"""`auto` takes FP16 where it is known to be the same picture, and says why where it does not."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from graphs import planes, same
from models import constant, node
from onnx import helper
from simulated_cuda import SimulatedCuda
from simulated_engine import new

from engines import FrameModel
from engines.model import Card
from engines.reduced_precision import (
    MEASURED_SIDE_PX,
    judged,
    made_picture,
    measured_size,
    proven_db,
)

SIZE = (64, 48)


def overflowing() -> onnx.ModelProto:
    """Numbers of up to 255 * 400 between two convolutions: FP32 bears it, FP16 does not."""
    return planes(
        node("Conv", ["planes", "up"], "large"),
        node("Conv", ["large", "down"], "made"),
        constants=[constant("up", same(400)), constant("down", same(1 / 400))],
    )


def branching() -> onnx.ModelProto:
    """Nothing that can be typed: a branch."""
    outside = helper.make_tensor_value_info("same", 1, (1, 3, "H", "W"))
    branch = helper.make_graph([node("Identity", ["planes"], "same")], "branch", [], [outside])
    return planes(
        node("If", ["yes"], "made", then_branch=branch, else_branch=branch),
        constants=[constant("yes", True, np.bool_)],
    )


def opened(model: FrameModel, precision: str = "auto") -> tuple[str, list[str]]:
    """Return the precision and the notes of the TensorRT backend on the simulated device."""
    engine = new(model, SimulatedCuda(), precision=precision)
    engine.open(SIZE)
    frame = models.picture(SIZE)
    assert engine.infer(frame).shape == frame.shape
    engine.close()
    return engine.precision, engine.notes


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.parametrize(
    ("psnr_db", "precision", "note"),
    [
        (48.12, "f16", "f16: 48.1 dB from f32, rounded on a processor (card)"),
        (45.0, "f16", "f16: 45.0 dB from f32"),
        (44.9, "f32", "f32, the slower way: f16 is only 44.9 dB from f32"),
        (5.0, "f32", "f32, the slower way: f16 is only 5.0 dB from f32, rounded on a processor"),
        (0.0, "f32", "f32, the slower way: f16 is only 0.0 dB"),
        (float("nan"), "f32", "f32, the slower way: f16 is only nan dB"),
    ],
)
def test_the_proof_on_the_card_decides(
    psnr_db: float, precision: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.backends.tensorrt._measured_db", None)  # nothing is measured
    written = models.written(models.blurring(), tmp_path / "m.onnx")
    model = dataclasses.replace(written, card=Card("m", proofs={"f16": {"psnr_db": psnr_db}}))
    found, notes = opened(model)
    assert found == precision
    assert notes[0].startswith(note)
    assert notes[0].endswith("45 are needed" if precision == "f32" else "(card)")


@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_by_name_it_is_what_was_asked_for(precision: str, tmp_path: Path) -> None:
    proofs = {"f16": {"psnr_db": 5.0}}
    model = models.written(models.blurring(), tmp_path / "m.onnx", proofs=proofs)
    found, notes = opened(model, precision)
    assert found == precision
    assert notes[0] == "plan of the test"


def test_without_a_proof_it_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime measures")
    for proofs in ({}, {"openvino/f16": {"psnr_db": 5.0}}, {"f16": {"frames": 3}}):
        model = models.written(models.blurring(), tmp_path / "m.onnx", proofs=proofs)
        found, notes = opened(model)
        assert found == "f16"
        assert notes[0].startswith("f16: ")
        assert notes[0].endswith(" dB from f32, rounded on a processor (measured now)")
    found, notes = opened(models.written(overflowing(), tmp_path / "o.onnx"))
    assert found == "f32"
    assert notes[0].startswith("f32, the slower way: f16 is only ")
    assert notes[0].endswith(" (measured now), 45 are needed")


def test_a_model_with_states_is_measured_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime measures")
    for number, graph in enumerate((models.running_mean(), models.counting_in_cells())):
        model = models.written(graph, tmp_path / f"{number}.onnx", stride=4)
        assert opened(model)[0] == "f16"


@pytest.mark.usefixtures("without_onnxruntime")
def test_without_a_proof_and_a_way_to_measure_it_is_f32(tmp_path: Path) -> None:
    found, notes = opened(models.written(models.blurring(), tmp_path / "blur.onnx"))
    assert found == "f32"
    assert notes[0] == (
        "f32, the slower way: f16 was not proven for this model (pix2live convert blur.onnx proves"
        " it, with pip install 'pix2live[onnxruntime]')"
    )


def test_what_cannot_be_typed_runs_in_f32(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime measures")
    found, notes = opened(models.written(branching(), tmp_path / "m.onnx"))
    assert found == "f32"
    assert notes[0].startswith("f32, the slower way: f16 cannot be measured for this model: If ")
    assert "\n" not in notes[0]


# --- the torch backend --------------------------------------------------------------------------


def chosen_by_torch(generator: Any, model: Any = None, precision: str = "auto") -> Any:
    """Let the torch backend choose as on CUDA, on the processor: (precision, notes, translator)."""
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    from engines.backends.torch import TorchEngine
    from engines.export import FrameTranslator

    torch.set_num_threads(1)
    engine = TorchEngine(model or generator, precision=precision)
    engine.device = "cpu"
    engine._translator = FrameTranslator(generator).eval()
    engine._choose_precision(SIZE)
    weights = {item.dtype for item in engine._translator.parameters()}
    assert weights == {torch.float16 if engine.precision == "f16" else torch.float32}
    return engine.precision, engine.notes


def generator(scale: float) -> Any:
    """Two convolutions of one pixel, which multiply and divide by ``scale``."""
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    made = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1, bias=False) for _ in range(2)))
    for layer, factor in zip(made, (scale, 1 / scale), strict=True):
        layer.weight.data = torch.from_numpy(same(factor))
    return made


def test_torch_measures_a_generator() -> None:
    found, notes = chosen_by_torch(generator(3.0))
    assert found == "f16"
    assert notes[0].startswith("f16: ")
    assert notes[0].endswith(" dB from f32 (measured now)")
    assert "convolutions only" in notes[1]
    found, notes = chosen_by_torch(generator(1e6))
    assert found == "f32"
    assert len(notes) == 1
    assert notes[0].startswith("f32, the slower way: f16 is only ")
    assert chosen_by_torch(generator(1e6), precision="f16")[0] == "f16"
    assert chosen_by_torch(generator(3.0), precision="f32") == ("f32", [])


def test_torch_believes_the_card_of_a_frame_model(tmp_path: Path) -> None:
    for psnr_db, precision in ((48.0, "f16"), (5.0, "f32")):
        proofs = {"f16": {"psnr_db": psnr_db}}
        model = models.written(models.blurring(), tmp_path / "m.onnx", proofs=proofs)
        found, notes = chosen_by_torch(generator(1e6 if precision == "f16" else 3.0), model)
        assert found == precision
        assert f"{psnr_db:.1f} dB from f32, rounded on a processor (card)" in notes[0]


def test_a_generator_that_fails_in_half_precision_runs_in_f32() -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")

    class ByHand(torch.nn.Module):
        """Computes with the weights of a layer, whose hooks nobody calls."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 3, 1)

        def forward(self, image: Any) -> Any:
            return torch.nn.functional.conv2d(image, self.layer.weight)

    found, notes = chosen_by_torch(ByHand())
    assert found == "f32"
    assert notes[0].startswith("f32, the slower way: f16 cannot be measured for this generator: ")
    assert "\n" not in notes[0]


# --- the parts ----------------------------------------------------------------------------------


def test_the_made_picture_is_the_same_each_time_and_not_flat() -> None:
    picture = made_picture(SIZE)
    assert (picture.shape, picture.dtype) == ((48, 64, 3), np.uint8)
    assert np.array_equal(picture, made_picture(SIZE))
    assert np.ptp(picture.mean((0, 2))) > 100, "a ramp"
    assert picture[:, 30].std() > 10, "grain"


def test_a_processor_measures_on_small_pictures() -> None:
    model = FrameModel(Path("m"), Card("m", stride=48), "")
    assert measured_size((1920, 1080), model.fit) == (240, 240)
    assert measured_size((96, 1080), model.fit) == (96, 240)
    fixed = dataclasses.replace(model, fixed_size=(512, 512))
    assert measured_size((512, 512), fixed.fit) == (512, 512)
    assert MEASURED_SIDE_PX == 256


def test_a_card_without_a_number_has_no_proof() -> None:
    assert proven_db(Card("m"), "f16") is None
    assert proven_db(Card("m", proofs={"f16": {"frames": 3.0}}), "f16") is None
    assert proven_db(Card("m", proofs={"f16": {"psnr_db": 50.0}}), "f16") == 50.0
    assert judged("bf16", 30.0, 30.0, "from f32") == ("bf16", "bf16: 30.0 dB from f32")
