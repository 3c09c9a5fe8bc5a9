"""What only PyTorch and ONNX Runtime have: modules, devices, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from torch_modules import inverting_module

from engines import EngineError, load_filter, open_engine

SIZE = (64, 48)


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
    with pytest.raises(EngineError, match="f32 only, not bf16"):
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
