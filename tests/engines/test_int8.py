"""INT8: smaller, close to FP32, and a frame model as any other."""

from __future__ import annotations

import sys
from pathlib import Path

import models
import numpy as np
import onnx
import pytest

from engines import ConversionError, load_filter, open_engine
from engines.graphs import int8
from engines.graphs.int8 import to_int8
from engines.proof import compare
from tools.conversion.frames import dead_leaves

if int8.why_not() is not None:  # not by importing NNCF here, which would load its telemetry
    pytest.skip(f"{int8.why_not()}", allow_module_level=True)

SIZE = (128, 96)
FRAMES = [dead_leaves(SIZE, seed) for seed in range(6)]
UNSEEN = [dead_leaves(SIZE, seed) for seed in range(20, 23)]


@pytest.fixture(scope="module")
def comic() -> onnx.ModelProto:
    return to_int8(load_filter("comic").graph(), FRAMES)


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "f32"), ("onnxruntime", "f32")])
def test_the_pictures_are_close_on_frames_it_has_not_seen(
    comic: onnx.ModelProto, backend: str, precision: str, tmp_path: Path
) -> None:
    model = models.written(comic, tmp_path / "comic.int8.onnx", stride=4)
    master = load_filter("comic")
    options = {"backend": backend, "precision": precision}
    with open_engine(model, SIZE, **options) as fast, open_engine(master, SIZE, **options) as slow:
        proof = compare(slow.infer, fast.infer, UNSEEN)
    assert proof.psnr_db >= 35
    assert proof.max_difference > 1, "nothing is in INT8"


def test_every_convolution_but_the_last_is_in_int8(comic: onnx.ModelProto) -> None:
    nodes = list(comic.graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 8
    for node in convolutions[:-1]:
        for name in node.input[:2]:
            source = made_by[name]
            if source.op_type == "Transpose":  # of the frame's rows, for the first of them
                source = made_by[source.input[0]]
            assert source.op_type == "DequantizeLinear", node.name
    last = convolutions[-1]
    assert "DequantizeLinear" not in [
        made_by[name].op_type for name in last.input if name in made_by
    ]
    behind = nodes[nodes.index(last) + 1 :]
    assert not [node for node in behind if "Quantize" in node.op_type]


def test_sums_of_residual_blocks_are_not_rounded_to_eight_bits(comic: onnx.ModelProto) -> None:
    made_by = {name: node for node in comic.graph.node for name in node.output}
    sums = [node for node in comic.graph.node if node.op_type == "Add"]
    assert len(sums) == 4
    for node in sums:
        sources = [made_by[name].op_type for name in node.input if name in made_by]
        assert "DequantizeLinear" not in sources, node.name


def test_it_is_smaller_and_takes_any_size(comic: onnx.ModelProto, tmp_path: Path) -> None:
    model = models.written(comic, tmp_path / "comic.int8.onnx", stride=4)
    assert model.fixed_size is None
    assert model.path.stat().st_size < load_filter("comic").path.stat().st_size * 0.4
    with open_engine(model, (64, 48), backend="openvino") as engine:
        assert engine.infer(models.picture((64, 48))).std() > 10


def test_a_network_of_another_kind(tmp_path: Path) -> None:
    model = models.written(to_int8(models.blurring(), FRAMES), tmp_path / "m.onnx")
    with open_engine(model, SIZE, backend="openvino", precision="f32") as engine:
        difference = engine.infer(UNSEEN[0]).astype(int) - models.blurred(UNSEEN[0])
    assert np.abs(difference).mean() < 2


def test_the_given_graph_is_not_changed_and_nothing_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = models.blurring()
    before = graph.SerializeToString(deterministic=True)
    to_int8(graph, FRAMES[:2])
    assert graph.SerializeToString(deterministic=True) == before
    assert capfd.readouterr() == ("", "")


def test_nothing_is_sent_home() -> None:
    assert sys.modules.get("openvino_telemetry") is None


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ConversionError, match="it has no convolutions"):
        to_int8(models.inverting(), FRAMES)


@pytest.mark.parametrize(
    ("model", "what"),
    [(models.with_alpha(), "alpha"), (models.running_mean(), "state_mean and state_mean_out")],
)
def test_what_nobody_would_compare_is_refused(model: onnx.ModelProto, what: str) -> None:
    with pytest.raises(ConversionError, match=f"INT8 is not for models with .*{what}"):
        to_int8(model, FRAMES)


def test_without_frames_nothing_is_measured() -> None:
    with pytest.raises(ConversionError, match="there are none"):
        to_int8(models.blurring(), [])


def test_without_nncf_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConversionError, match=r"nncf is not installed \(pip install 'pix2live"):
        to_int8(models.blurring(), FRAMES)
