"""What only PyTorch and ONNX Runtime have: modules, devices, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from torch_modules import inverting_module

from engines import Engine, EngineError, FrameModel, load_filter, open_engine, processor, twins
from engines.twins import INT8, twin_path
from tools.bench import plan

SIZE = (64, 48)
FRAME = models.picture(SIZE)


def test_torch_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = models.written(models.inverting(), tmp_path / "m.onnx", architecture="inverting")
    with pytest.raises(EngineError, match=r"cannot rebuild 'inverting'.*openvino or onnxruntime"):
        open_engine(model, SIZE, backend="torch")
    with pytest.raises(EngineError, match=r"runs torch\.nn\.Module, found object"):
        open_engine(object(), SIZE, backend="torch")
    with pytest.raises(EngineError, match="torch runs f32 only, not bf16"):
        open_engine(inverting_module(), SIZE, backend="torch", precision="bf16")
    with pytest.raises(EngineError, match="the generator failed on a frame"):
        open_engine(torch.nn.Conv2d(5, 3, 1), SIZE, backend="torch")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="torch has no device 'cuda' here"):
            open_engine(inverting_module(), SIZE, backend="torch:cuda")


def test_torch_rebuilds_a_shipped_filter() -> None:
    pytest.importorskip("torch")
    model = load_filter("comic")
    frame = np.repeat(np.repeat(models.picture((16, 12)), 4, axis=0), 4, axis=1)
    pictures = []
    for backend in ("torch", "openvino"):
        with open_engine(model, SIZE, backend=backend, precision="f32") as engine:
            pictures.append(engine.infer(frame).astype(int))
    assert np.abs(pictures[0] - frame).max() > 8
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_onnxruntime_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with open_engine(model, SIZE, backend="onnxruntime:cpu") as engine:
        assert engine.device == "cpu"
    with pytest.raises(EngineError, match=r"f32 only, not bf16 \(and int8 on a CPU, for filters"):
        open_engine(model, SIZE, backend="onnxruntime", precision="bf16")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    with pytest.raises(EngineError, match=r"no 'cuda' here, only \['cpu'\]"):
        open_engine(model, SIZE, backend="onnxruntime:cuda")
    # A build with CUDA on a machine without: it would go on with the CPU and say nothing.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        engine = open_engine(model, SIZE, backend="onnxruntime")
    assert engine.device == "cpu"
    assert "not CUDAExecutionProvider: it did not start here" in engine.notes
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EngineError, match="has CUDAExecutionProvider, but it did not start"),
    ):
        open_engine(model, SIZE, backend="onnxruntime:cuda")


def _twin(model: FrameModel, graph: onnx.ModelProto, **card: Any) -> FrameModel:
    """A twin that computes something else in f32: the picture tells which one ran."""
    card = {"quantised_from": model.graph_sha256, **card}
    return models.written(graph, twin_path(model.path), **card)


def _in_int8(model: FrameModel, **options: Any) -> Engine:
    pytest.importorskip("onnxruntime")
    return open_engine(model, SIZE, **{"backend": "onnxruntime", "precision": INT8, **options})


def _has_inverted(engine: Engine) -> bool:
    return bool(np.array_equal(engine.infer(FRAME), models.inverted(FRAME)))


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has it."""
    monkeypatch.setattr(twins, "has_vnni", lambda: True)


def test_onnxruntime_runs_the_int8_twin(tmp_path: Path, vnni: None) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    proofs = {"onnxruntime/f32": {"psnr_db": 41.04}, "openvino/f32": {"psnr_db": 50.0}}
    twin = _twin(model, models.blurring(), proofs=proofs)
    with _in_int8(model, backend="onnxruntime:cpu") as engine:
        assert (engine.precision, engine.float_precision, engine.device) == (INT8, "f32", "cpu")
        assert engine.runs.path == twin.path
        assert engine.notes == ["int8: 41.0 dB from the original network (card)"]
        assert np.abs(engine.infer(FRAME).astype(int) - models.blurred(FRAME)).max() <= 1


def test_onnxruntime_says_that_a_file_is_a_twin(tmp_path: Path) -> None:
    twin = _twin(models.written(models.inverting(), tmp_path / "m.onnx"), models.blurring())
    with _in_int8(twin, backend="onnxruntime:cpu", precision="auto") as engine:
        assert (engine.precision, engine.runs) == ("f32", twin)
        assert engine.notes == ["convolutions in int8, the rest in f32"]


def test_onnxruntime_does_not_mix_a_model_and_its_twin_up(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    _twin(model, models.blurring())
    with (
        _in_int8(model, precision="f32") as first,
        _in_int8(model) as second,
        _in_int8(model, precision="auto") as third,
        _in_int8(model) as fourth,
    ):
        engines = first, second, third, fourth
        assert [_has_inverted(engine) for engine in engines] == [True, False, True, False]
        assert [engine.runs is model for engine in engines] == [True, False, True, False]
        assert [engine.precision for engine in engines] == ["f32", INT8, "f32", INT8]
        assert second.notes[0] == (
            "int8: without a proof (its card has no proof under onnxruntime/f32)"
        )
    second.asked_precision = "f32"
    with second:  # opened anew, it says what is true now
        second.open(SIZE)
        assert second.runs is model
        assert second.precision == "f32"
        assert _has_inverted(second)


@pytest.mark.parametrize("what", ["none", "stale", "damaged", "other outputs"])
def test_onnxruntime_says_what_is_wrong_with_a_twin_as_openvino_does(
    what: str, tmp_path: Path
) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    if what == "stale":
        _twin(model, models.blurring(), quantised_from="0" * 64)
    elif what == "damaged":
        twin_path(model.path).write_bytes(b"half of a file")
    elif what == "other outputs":
        _twin(model, models.with_alpha())
    said = []
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(EngineError) as refusal:
            _in_int8(model, backend=backend)
        said.append(str(refusal.value))
    assert said[0] == said[1]
    assert "m.int8.onnx" in said[0]
    assert said[0].endswith("pix2live convert m.onnx --to onnx-int8 --frames CLIP makes one")
    with _in_int8(model, precision="auto") as engine:
        assert _has_inverted(engine)


def test_onnxruntime_has_int8_on_processors_only(
    tmp_path: Path, vnni: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    _twin(model, models.blurring())
    for device in ("cuda", "coreml", "directml"):
        with pytest.raises(EngineError, match=f"int8 on a CPU only, not on {device}: INT8 twins"):
            _in_int8(model, backend=f"onnxruntime:{device}")
    # With CUDA listed nobody tries it: that would warn here.
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with _in_int8(model) as engine:
        assert engine.device == "cpu"
        assert engine.notes[1:] == [
            "provider CPUExecutionProvider: INT8 twins are made for processors"
        ]


def test_the_twin_of_a_filter_with_alpha(tmp_path: Path) -> None:
    model = models.written(models.with_alpha(), tmp_path / "m.onnx")
    graph = models.with_alpha()
    for item in graph.graph.initializer:  # alpha is the green
        if item.name in ("start", "end"):
            number = 1 if item.name == "start" else 2
            item.CopyFrom(models.constant(item.name, [number], np.int64))
    _twin(model, graph)
    for precision, colour in (("f32", 0), (INT8, 1)):
        with _in_int8(model, precision=precision) as engine:
            assert _has_inverted(engine)
            assert engine.alpha is not None
            assert np.array_equal(engine.alpha[..., 0], FRAME[..., colour])


def test_the_twin_of_a_filter_with_states(tmp_path: Path) -> None:
    model = models.written(models.running_mean(), tmp_path / "m.onnx")
    graph = models.running_mean()
    (one,) = (item for item in graph.graph.initializer if item.name == "one")
    one.CopyFrom(models.constant("one", [2], np.int32))  # counts 2, 4: half the mean, 5/8 of it
    _twin(model, graph)
    with _in_int8(model) as engine:
        for _ in range(2):
            found = [engine.infer(np.full_like(FRAME, 80)).max() for _ in range(3)]
            assert found == [40, 50, 55]
            engine.reset()


def test_of_filters_with_a_memory_no_twin_is_promised(tmp_path: Path) -> None:
    model = models.written(models.running_mean(), tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="beside it; none is made of filters with alpha or"):
        _in_int8(model)


@pytest.mark.parametrize("has_vnni", [True, False, None])
def test_sums_of_int8_products_do_not_overflow(
    has_vnni: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's fast way overflows at 16 bits on processors that have AVX2 and no VNNI.

    Seen on an emulated one (qemu-x86_64 -cpu Haswell): 134 instead of 255.
    """
    if has_vnni and not processor.has_vnni():
        pytest.skip("this processor has no VNNI")
    monkeypatch.setattr(twins, "has_vnni", lambda: has_vnni)
    node, constant = models.node, models.constant
    graph = models.graph(
        [
            node("Cast", ["frame"], "levels", to=T.FLOAT),
            node("Transpose", ["levels"], "planes", perm=[0, 3, 1, 2]),
            node("QuantizeLinear", ["planes", "one", "zero"], "few"),
            node("DequantizeLinear", ["few", "one", "zero"], "again"),
            node("DequantizeLinear", ["kernels", "ones"], "weights", axis=0),
            node("Conv", ["again", "weights"], "sums", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", ["sums", "most", "zero"], "shares"),  # of the most there can be
            node("DequantizeLinear", ["shares", "one", "zero"], "made"),
            node("Transpose", ["made"], "pixels", perm=[0, 2, 3, 1]),
            node("Cast", ["pixels"], "translated", to=T.UINT8),
        ],
        [
            constant("one", 1.0),
            constant("zero", 0, np.uint8),
            constant("kernels", np.full((3, 3, 3, 3), 127), np.int8),
            constant("ones", np.ones(3)),
            constant("most", 127 * 3 * 9),
        ],
    )
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    _twin(model, graph)
    with _in_int8(model) as engine:
        found = engine.infer(np.full_like(FRAME, 255))
        said = any("the slower way that does not overflow" in note for note in engine.notes)
    assert (found[1:-1, 1:-1] == 255).all()
    assert said == (not has_vnni)


def test_bench_tries_int8_where_onnxruntime_has_it() -> None:
    assert plan.precisions("onnxruntime:cpu") == ("f32", INT8)
    for device in ("cuda", "coreml", "directml"):
        assert plan.precisions(f"onnxruntime:{device}") == ("f32",)
