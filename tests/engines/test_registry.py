"""Which backend runs: a name is never replaced, and `auto` says why."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from engines import EngineError, FrameModel, ModelError, backend_names, open_engine
from engines.backends.identity import IdentityEngine
from engines.registry import BACKENDS, backend_class, why_not

SIZE = (64, 48)


@pytest.fixture
def model(tmp_path: Path) -> FrameModel:
    return models.written(models.inverting(), tmp_path / "m.onnx")


def _without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in missing else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_every_backend_can_be_named() -> None:
    assert backend_names()[: len(BACKENDS)] == list(BACKENDS)
    for name in BACKENDS:
        assert backend_class(name).name == name
    assert why_not("identity") is None
    assert why_not("openvino") is None


def test_an_unknown_backend_is_refused_with_those_there_are(model: FrameModel) -> None:
    with pytest.raises(EngineError, match=r"^no backend 'magic'; there are: tensorrt, "):
        open_engine(model, backend="magic")
    assert "no backend 'magic'" in (why_not("magic") or "")


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_a_missing_backend_is_an_error_and_never_another_one(
    name: str, model: FrameModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, name)
    reason = why_not(name)
    assert reason is not None
    assert f"the package {name} is not installed (pip install" in reason
    with pytest.raises(EngineError, match=f"the backend '{name}' cannot run here: the package"):
        open_engine(model, SIZE, backend=name)
    with pytest.raises(EngineError, match="cannot run here"):
        backend_class(name)(model).open(SIZE)


def test_auto_takes_the_first_and_says_why(
    model: FrameModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.nvidia.cuda.DRIVER_LIBRARY", "libnosuchdriver.so.1")
    engine = open_engine(model)
    assert engine.name == "openvino"
    no_gpu = "(not tensorrt: no NVIDIA driver here)"
    assert engine.notes == [f"openvino chosen by auto: the first that can run here {no_gpu}"]
    assert engine.size is None
    pytest.importorskip("onnxruntime")
    _without(monkeypatch, "openvino")
    with open_engine(model, SIZE) as engine:
        assert engine.name == "onnxruntime"
        assert "not openvino: the package openvino is not installed" in engine.notes[0]
    _without(monkeypatch, "openvino", "onnxruntime")
    with pytest.raises(EngineError, match=r"no backend can run FrameModel.*not onnxruntime: the"):
        open_engine(model)


def test_auto_for_a_generator_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    assert open_engine(torch.nn.Identity()).name == "torch"
    _without(monkeypatch, "torch")
    with pytest.raises(EngineError, match="no backend can run Identity here: not torch: the"):
        open_engine(torch.nn.Identity())


def test_auto_takes_no_device(model: FrameModel) -> None:
    with pytest.raises(EngineError, match="auto takes no device"):
        open_engine(model, backend="auto:GPU")


def test_a_model_may_be_a_path_or_a_shipped_name(model: FrameModel) -> None:
    for path in (model.path, str(model.path)):
        engine = open_engine(path, backend="identity")
        assert engine.model == model
    with pytest.raises(ModelError, match="no filter 'nothing-of-that-name'; shipped: "):
        open_engine("nothing-of-that-name")
    with pytest.raises(ModelError, match="no model file"):
        open_engine(model.path.with_name("gone.onnx"))


def test_identity_says_that_it_has_no_precision(model: FrameModel) -> None:
    for precision, notes in (("auto", []), ("int8", ["not int8: identity copies bytes"])):
        with open_engine(model, SIZE, backend="identity", precision=precision) as engine:
            assert engine.precision == "uint8"
            assert engine.notes == notes


def test_open_with_a_size_is_open(model: FrameModel) -> None:
    with open_engine(model, SIZE, backend="identity", depth=2) as engine:
        assert (engine.size, engine.depth) == (SIZE, 2)


PLUG_IN = """
import numpy as np
from engines.base import Engine

class Mirror(Engine):
    name = "mirror"
    @classmethod
    def why_not(cls): return None
    def _open(self, size): self.device, self.precision = "here", "uint8"
    def _submit(self, frame_in, frame_out): np.copyto(frame_out, frame_in[:, ::-1])
    def _collect(self, frame_out): pass
    def _close(self): pass

class Stranger:
    pass
"""


@pytest.fixture
def _plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that is really installed, in a folder of its own."""
    (tmp_path / "mirror_plug_in.py").write_text(PLUG_IN)
    info = tmp_path / "mirror_plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mirror-plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pix2live.backends]\n"
        "mirror = mirror_plug_in:Mirror\n"
        "stranger = mirror_plug_in:Stranger\n"
        "gone = no_such_module_of_mine:Engine\n"
        "empty = mirror_plug_in:Nothing\n"
        "openvino = mirror_plug_in:Mirror\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_plugged_in")
def test_another_package_can_bring_a_backend() -> None:
    names = backend_names()
    assert names[len(BACKENDS) :] == ["empty", "gone", "mirror", "stranger"]
    frame = models.picture(SIZE)
    with open_engine(None, SIZE, backend="mirror") as engine:
        assert np.array_equal(engine.infer(frame), frame[:, ::-1])
    assert backend_class("openvino").name == "openvino", "ours are not replaced"


@pytest.mark.usefixtures("_plugged_in")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone", r"'gone' \(no_such_module_of_mine:Engine\) cannot be loaded: No module"),
        ("empty", r"'empty' \(mirror_plug_in:Nothing\) cannot be loaded: .*Nothing"),
        ("stranger", r"'stranger' \(mirror_plug_in:Stranger\) is no engines\.Engine"),
    ],
)
def test_a_broken_plug_in_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        open_engine(None, backend=name)
    assert why_not(name)


def test_a_failed_open_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    class Moody(IdentityEngine):
        def _open(self, size: tuple[int, int]) -> None:
            self.notes.append("tried")
            if not closed:
                raise EngineError("not today")
            super()._open(size)

        def _close(self) -> None:
            closed.append(1)

    engine = Moody(None)
    with pytest.raises(EngineError, match="not today"):
        engine.open(SIZE)
    assert closed == [1]
    assert engine.size is None
    engine.open(SIZE)
    assert engine.notes == ["tried"]


def test_an_error_of_one_frame_is_not_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(IdentityEngine):
        def _collect(self, frame_out: Any) -> None:
            if frame_out[0, 0, 0] == 13:
                raise EngineError("13")

    engine = Broken(None)
    engine.open(SIZE, depth=2)
    frames = [np.full((SIZE[1], SIZE[0], 3), number, np.uint8) for number in (13, 14)]
    for frame in frames:
        engine.submit(frame, np.empty_like(frame))
    with pytest.raises(EngineError, match="13"):
        engine.collect()
    assert np.array_equal(engine.collect(), frames[1])
    engine.submit(frames[0], np.empty_like(frames[0]))
    engine.close()  # what nobody waits for does not stop it
    assert engine.size is None
