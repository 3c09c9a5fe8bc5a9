"""INT8 twins: taken where they are proven and fast, refused where they are another model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from engines import (
    Engine,
    EngineError,
    FrameModel,
    filter_names,
    load_filter,
    open_engine,
    processor,
)
from engines.artefact import engine_file, write_artefact
from engines.backends import openvino_precision
from engines.backends.openvino import OpenVinoEngine
from engines.backends.openvino_precision import ENOUGH_INT8_DB
from engines.proof import compare
from engines.twins import INT8, int8_twin, twin_path
from tools.conversion.frames import dead_leaves, proof_frames
from tools.demo import find_clip

SIZE = (64, 48)
FRAME = models.picture(SIZE)
needs_vnni = pytest.mark.skipif(not processor.has_vnni(), reason="this processor has no VNNI")


def _open(model: FrameModel, **options: Any) -> Engine:
    return open_engine(model, SIZE, backend="openvino", **options)


def _pair(
    folder: Path, psnr_db: float = 45.0, made_from: str | None = None
) -> tuple[FrameModel, FrameModel]:
    """A model that inverts, and as its twin one that blurs: the picture tells which one ran."""
    model = models.written(models.inverting(), folder / "m.onnx")
    proofs = {f"openvino/{kind}": {"psnr_db": psnr_db} for kind in ("f32", "bf16", "f16")}
    source = model.graph_sha256 if made_from is None else made_from
    twin = models.written(
        models.blurring(), twin_path(model.path), proofs=proofs, quantised_from=source
    )
    return model, twin


def _has_inverted(engine: Engine) -> bool:
    return bool(np.abs(engine.infer(FRAME).astype(int) - models.inverted(FRAME)).max() <= 2)


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has it: the pairs here compute nothing in INT8."""
    monkeypatch.setattr(openvino_precision, "has_vnni", lambda: True)


def test_auto_takes_a_proven_twin_and_says_so(tmp_path: Path, vnni: None) -> None:
    model, _ = _pair(tmp_path, 41.04)
    with _open(model) as engine:
        assert engine.precision == INT8
        assert engine.notes == ["int8: 41.0 dB from the original network (card)"]
        assert not _has_inverted(engine)


@pytest.mark.parametrize("precision", ["f32", "auto", INT8])
def test_engines_of_one_process_do_not_mix_them_up(
    precision: str, tmp_path: Path, vnni: None
) -> None:
    model, _ = _pair(tmp_path)
    with _open(model, precision="f32") as first, _open(model, precision=precision) as second:
        assert _has_inverted(first)
        assert _has_inverted(second) == (precision == "f32")


def test_a_twin_that_comes_later_is_taken_by_the_next_engine(tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path)
    data = twin.path.read_bytes()
    twin.path.unlink()
    with _open(model) as before:
        twin.path.write_bytes(data)
        with _open(model) as after:
            assert (_has_inverted(before), _has_inverted(after)) == (True, False)


def test_auto_leaves_a_twin_aside_that_is_not_close_enough(tmp_path: Path, vnni: None) -> None:
    model, _ = _pair(tmp_path, ENOUGH_INT8_DB - 0.1)
    with _open(model) as engine:
        assert engine.precision != INT8
        assert engine.notes[0] == (
            "not m.int8.onnx: only 37.9 dB from the original network (card), 38 are needed"
        )
        assert _has_inverted(engine)
    with _open(model, precision=INT8) as engine:  # as asked
        assert not _has_inverted(engine)


def test_auto_leaves_a_twin_of_another_model_aside(tmp_path: Path, vnni: None) -> None:
    model, _ = _pair(tmp_path, made_from="0" * 64)
    with _open(model) as engine:
        note = "not m.int8.onnx: m.int8.onnx was not made of this m.onnx: convert it again"
        assert engine.notes[0] == note
        assert _has_inverted(engine)
    with pytest.raises(EngineError, match=r"not made of this m\.onnx"):
        _open(model, precision=INT8)


def test_auto_leaves_a_twin_without_a_proof_aside(tmp_path: Path, vnni: None) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    models.written(models.blurring(), twin_path(model.path), quantised_from=model.graph_sha256)
    with _open(model) as engine:
        assert "its card has no proof under openvino/" in engine.notes[0]
        assert _has_inverted(engine)


def test_a_damaged_twin_is_no_reason_to_stop(tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path)
    twin.path.write_bytes(b"half of a file")
    with _open(model) as engine:
        assert "m.int8.onnx is no ONNX file" in engine.notes[0]
        assert _has_inverted(engine)


def test_auto_wants_a_processor_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_precision, "has_vnni", lambda: False)
    model, _ = _pair(tmp_path)
    with _open(model) as engine:
        assert engine.notes[0] == (
            "not m.int8.onnx: this processor is not known to have VNNI (--precision int8 takes it)"
        )
        assert _has_inverted(engine)


def test_an_engine_that_somebody_compiled_goes_first(tmp_path: Path, vnni: None) -> None:
    model, _ = _pair(tmp_path)
    key, payload = OpenVinoEngine(model, precision="f32").compiled(SIZE)
    write_artefact(engine_file(model.path, "openvino", SIZE), key, payload, {})
    with _open(model) as engine:
        assert engine.precision != INT8
        assert _has_inverted(engine)


def test_a_compiled_twin_is_taken_from_its_file(tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path)
    key, payload = OpenVinoEngine(model, precision=INT8).compiled(SIZE)
    assert (key.precision, key.model_sha256) == (INT8, twin.graph_sha256)
    path = engine_file(model.path, "openvino", SIZE)
    write_artefact(path, key, payload, {})
    with _open(model, precision=INT8) as engine:
        assert engine.engine_path == path
        assert not _has_inverted(engine)


def test_without_a_twin_it_says_how_to_make_one(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"no INT8 twin m\.int8\.onnx .*--to onnx-int8 --frames"):
        _open(model, precision=INT8)


def test_other_backends_say_that_they_have_no_int8() -> None:
    with pytest.raises(EngineError, match="onnxruntime runs f32 only, not int8"):
        open_engine("comic", SIZE, backend="onnxruntime", precision=INT8)


@pytest.mark.parametrize("name", filter_names())
def test_every_shipped_filter_has_its_twin(name: str) -> None:
    model = load_filter(name)
    twin = int8_twin(model)
    assert twin.fixed_size is None
    assert (twin.card.name, twin.card.stride) == (name, model.card.stride)
    assert twin.path.stat().st_size < 0.4 * model.path.stat().st_size
    for kind in ("f32", "bf16"):
        proof = twin.card.proofs[f"openvino/{kind}"]
        assert proof["psnr_db"] >= ENOUGH_INT8_DB
        assert proof["real_frames"] == 1
        assert proof["frames"] >= 16


@needs_vnni
@pytest.mark.parametrize("name", filter_names())
def test_a_shipped_twin_is_the_same_picture(name: str) -> None:
    size = (320, 180)
    clip = find_clip()
    frames = proof_frames(clip, size, 3).frames if clip else [dead_leaves(size, 3)]
    options = {"backend": "openvino"}
    with (
        open_engine(name, size, precision=INT8, **options) as fast,
        open_engine(name, size, precision="f32", **options) as slow,
    ):
        proof = compare(slow.infer, fast.infer, frames)
    assert proof.psnr_db >= ENOUGH_INT8_DB
    assert proof.max_difference > 1, "nothing is in INT8"


def test_the_processor_is_asked_once_and_unknown_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, found in (
        ("processor : 0\nflags\t\t: fpu avx2 avx_vnni\n", {"fpu", "avx2", "avx_vnni"}),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", {"fp", "asimd", "asimddp"}),
        ("nothing of interest\n", set()),
        (None, set()),
    ):
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(processor, "CPUINFO", path)
        processor.instructions.cache_clear()
        assert processor.instructions() == found
        assert processor.has_vnni() == ("avx_vnni" in found)
    processor.instructions.cache_clear()
