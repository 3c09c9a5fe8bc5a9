"""INT8 twins: taken where they are proven and fast, refused where they are another model's."""

from __future__ import annotations

from collections.abc import Iterator
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
    twins,
)
from engines.artefact import engine_file, write_artefact
from engines.backends.openvino import OpenVinoEngine
from engines.proof import compare
from engines.twins import ENOUGH_INT8_DB, INT8, int8_twin, twin_path
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
    monkeypatch.setattr(twins, "has_vnni", lambda: True)


def test_auto_takes_a_proven_twin_and_says_so(tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path, 41.04)
    with _open(model) as engine:
        assert engine.precision == INT8
        assert engine.runs.path == twin.path
        assert engine.float_precision in ("f32", "bf16", "f16")
        (note,) = engine.notes
        assert note.startswith("int8, m.int8.onnx: 41.0 dB from the original network (card); ")
        assert note.endswith(" is slower and closer")
        assert not _has_inverted(engine)


@pytest.mark.parametrize("precision", ["f32", "auto", INT8])
def test_engines_of_one_process_do_not_mix_them_up(
    precision: str, tmp_path: Path, vnni: None
) -> None:
    model, _ = _pair(tmp_path)
    with _open(model, precision="f32") as first, _open(model, precision=precision) as second:
        assert _has_inverted(first)
        assert _has_inverted(second) == (precision == "f32")
        with _open(model, precision=precision) as third:  # as the second, which compiled it
            assert third.runs.path == second.runs.path
            assert third.float_precision == second.float_precision


def test_what_runs_is_said_anew_at_every_open(tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path)
    engine = _open(model)
    assert (engine.runs.path, engine.precision) == (twin.path, INT8)
    engine.close()
    twin.path.unlink()
    engine.open(SIZE)
    with engine:
        assert engine.runs is model
        assert engine.float_precision == engine.precision != INT8


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
            "not int8: only 37.9 dB from the original network (card), 38 are needed"
        )
        assert _has_inverted(engine)
    with _open(model, precision=INT8) as engine:  # as asked
        assert not _has_inverted(engine)


def test_auto_leaves_a_twin_of_another_model_aside(tmp_path: Path, vnni: None) -> None:
    model, _ = _pair(tmp_path, made_from="0" * 64)
    with _open(model) as engine:
        assert engine.notes[0].startswith("not int8: m.int8.onnx was made of another m.onnx; ")
        assert "pix2live convert m.onnx --to onnx-int8" in engine.notes[0]
        assert _has_inverted(engine)
    with pytest.raises(EngineError, match=r"made of another m\.onnx"):
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
        assert engine.notes[0].startswith("not int8: the INT8 twin m.int8.onnx cannot be read; ")
        assert _has_inverted(engine)


@pytest.mark.parametrize(
    ("has_vnni", "words"),
    [
        (False, "this processor has no VNNI"),
        (None, "nobody says here whether this processor has VNNI"),
    ],
)
def test_auto_wants_a_processor_for_it(
    has_vnni: bool | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "has_vnni", lambda: has_vnni)
    model, _ = _pair(tmp_path, 41.04)
    with _open(model) as engine:
        assert engine.notes[0] == f"not int8: {words}"
        assert _has_inverted(engine)
    with _open(model, precision=INT8) as engine:  # as asked, and said
        assert engine.notes == [
            "int8: 41.0 dB from the original network (card)",
            f"{words}: the picture may be another",
        ]
        assert not _has_inverted(engine)


@pytest.mark.parametrize("precision", ["auto", INT8])
def test_a_compiled_twin_is_taken_from_its_file(precision: str, tmp_path: Path, vnni: None) -> None:
    model, twin = _pair(tmp_path)
    key, payload = OpenVinoEngine(model, precision=precision).compiled(SIZE)
    assert (key.precision, key.model_sha256) == (INT8, twin.graph_sha256)
    path = engine_file(model.path, "openvino", SIZE)
    write_artefact(path, key, payload, {})
    with _open(model, precision=precision) as engine:
        assert engine.engine_path == path
        assert not _has_inverted(engine)


def test_an_engine_that_was_compiled_before_the_twin_came_is_said(
    tmp_path: Path, vnni: None
) -> None:
    model, twin = _pair(tmp_path)
    data = twin.path.read_bytes()
    twin.path.unlink()
    key, payload = OpenVinoEngine(model).compiled(SIZE)
    path = engine_file(model.path, "openvino", SIZE)
    write_artefact(path, key, payload, {})
    twin.path.write_bytes(data)
    with _open(model) as engine:
        assert engine.precision == INT8
        assert engine.engine_path is None
        assert any(note.startswith(f"compiled again, not {path.name}") for note in engine.notes)
        assert not _has_inverted(engine)
    with _open(model, precision=key.precision) as engine:  # who wants that one names it
        assert engine.engine_path == path
        assert _has_inverted(engine)


def test_without_a_twin_it_says_how_to_make_one(tmp_path: Path) -> None:
    model = models.written(models.inverting(), tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"no INT8 twin m\.int8\.onnx .*--to onnx-int8 --frames"):
        _open(model, precision=INT8)


def test_a_twin_with_other_outputs_is_not_taken(tmp_path: Path, vnni: None) -> None:
    """The mask of a filter would be gone, or somebody would wait for one."""
    model = models.written(models.with_alpha(), tmp_path / "m.onnx")
    models.written(models.inverting(), twin_path(model.path), quantised_from=model.graph_sha256)
    words = r"m\.int8\.onnx has not the alpha and states of m\.onnx; none is made of filters with"
    with pytest.raises(EngineError, match=words):
        _open(model, precision=INT8)
    with _open(model) as engine:
        assert engine.notes[0].startswith("not int8: m.int8.onnx has not the alpha and states of ")
    other = models.written(models.inverting(), tmp_path / "other.onnx")
    models.written(models.running_mean(), twin_path(other.path), quantised_from=other.graph_sha256)
    with pytest.raises(EngineError, match=r"has not the alpha and states of other\.onnx"):
        _open(other, precision=INT8)


def test_other_backends_say_that_they_have_no_int8() -> None:
    pytest.importorskip("torch")
    with pytest.raises(EngineError, match="torch runs f32 only, not int8"):
        open_engine("comic", SIZE, backend="torch:cpu", precision=INT8)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime:cpu"])
def test_a_twin_that_is_given_as_the_filter_is_its_own(backend: str, vnni: None) -> None:
    if backend != "openvino":
        pytest.importorskip("onnxruntime")
    twin = int8_twin(load_filter("comic"))
    with open_engine(twin, SIZE, backend=backend, precision=INT8) as engine:
        assert engine.runs is twin
        assert engine.precision == INT8
        assert engine.notes[0].startswith("int8: 42.")


@pytest.mark.parametrize("name", filter_names())
def test_every_shipped_filter_has_its_twin(name: str) -> None:
    model = load_filter(name)
    twin = int8_twin(model)
    assert twin.fixed_size is None
    assert (twin.card.name, twin.card.stride) == (name, model.card.stride)
    assert twin.path.stat().st_size < 0.4 * model.path.stat().st_size
    for key in ("openvino/f32", "openvino/bf16", "onnxruntime/f32"):
        proof = twin.card.proofs[key]
        assert proof["psnr_db"] >= ENOUGH_INT8_DB
        assert proof["real_frames"] == 1
        assert proof["frames"] >= 16


@pytest.mark.parametrize("backend", [pytest.param("openvino", marks=needs_vnni), "onnxruntime:cpu"])
@pytest.mark.parametrize("name", filter_names())
def test_a_shipped_twin_is_the_same_picture(name: str, backend: str) -> None:
    if backend != "openvino":
        pytest.importorskip("onnxruntime")
    size = (320, 180)
    clip = find_clip()
    frames = proof_frames(clip, size, 3).frames if clip else [dead_leaves(size, 3)]
    options = {"backend": backend}
    with (
        open_engine(name, size, precision=INT8, **options) as fast,
        open_engine(name, size, precision="f32", **options) as slow,
    ):
        proof = compare(slow.infer, fast.infer, frames)
    assert proof.psnr_db >= ENOUGH_INT8_DB
    assert proof.max_difference > 1, "nothing is in INT8"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file in which Linux describes the processor; it is not there yet."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.instructions.cache_clear()
    yield tmp_path / "cpuinfo"
    processor.instructions.cache_clear()


@pytest.mark.parametrize(
    ("text", "found", "has_vnni"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx_vnni\n", {"fpu", "avx2", "avx_vnni"}, True),
        ("processor : 0\nflags\t\t: fpu avx2\n", {"fpu", "avx2"}, False),
        ("processor : 0\nFeatures\t: fp asimddp\n", {"fp", "asimddp"}, False),
        ("nothing of interest\n", set(), None),
        (None, set(), None),
    ],
)
def test_what_the_processor_can(
    text: str | None, found: set[str], has_vnni: bool | None, cpuinfo: Path
) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    assert processor.instructions() == found
    assert processor.has_vnni() is has_vnni
