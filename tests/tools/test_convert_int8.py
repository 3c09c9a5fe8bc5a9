"""`pix2live convert --to onnx-int8`: proven on other frames than it was measured on, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from engines import load_filter, open_engine
from engines.artefact import engine_file
from engines.graphs import int8
from engines.processor import has_vnni
from engines.registry import why_not
from tools.cli import main
from tools.conversion import proving
from tools.conversion.frames import dead_leaves

if int8.why_not() is not None:  # not by importing NNCF here, which would load its telemetry
    pytest.skip(f"{int8.why_not()}", allow_module_level=True)

SIZE = (128, 96)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), dead_leaves(SIZE, seed))
    return folder


def convert(*words: object) -> None:
    main(["convert", *map(str, words), "--size", "128x96", "--count", "2"])


def test_the_filter_lies_beside_the_model_with_proofs_of_its_own(
    frames: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "comic.onnx", tmp_path / "r.json"
    convert("comic", "--out", out, "--to", "onnx-int8", "--frames", frames, "--report", report)
    model = load_filter(tmp_path / "comic.int8.onnx")
    master = load_filter(out).card
    assert model.card.architecture == f"{master.architecture}, INT8"
    assert (model.card.licence, model.card.stride) == (master.licence, master.stride)
    proof = model.card.proofs["openvino/f32"]
    assert 35 <= proof["psnr_db"] < master.proofs["openvino/f32"]["psnr_db"]
    assert proof["real_frames"] == 1
    if why_not("onnxruntime") is None:
        assert model.card.proofs["onnxruntime/f32"]["psnr_db"] >= 35
        with open_engine(out, SIZE, backend="onnxruntime", precision="int8") as engine:
            assert any(note.startswith("int8: ") and " dB " in note for note in engine.notes)
    steps = json.loads(report.read_text())["steps"]
    assert "INT8 model, openvino in f32" in [step["step"] for step in steps]
    with open_engine(model, (64, 48)) as engine:
        assert engine.infer(dead_leaves((64, 48), 9)).std() > 10


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
@pytest.mark.parametrize("targets", [("onnx-int8", "openvino"), ("openvino", "onnx-int8")])
def test_with_an_engine_of_the_twin(targets: tuple[str, str], frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "comic.onnx"
    words = [word for target in targets for word in ("--to", target)]
    convert("comic", "--out", out, *words, "--frames", frames)
    with open_engine(load_filter(out), SIZE, backend="openvino") as engine:
        assert engine.precision == "int8"
        assert engine.engine_path == engine_file(out, "openvino", SIZE)
    command = load_filter(tmp_path / "comic.int8.onnx").card.command
    assert command == (
        "pix2live convert comic --to onnx-int8 --frames frames --count 2 --size 128x96"
    )


def test_it_is_measured_on_frames_that_are_not_of_the_proof(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[bytes] = []
    real = int8.to_int8

    def watched(master, given):  # type: ignore[no-untyped-def]
        measured.extend(frame.tobytes() for frame in given)
        return real(master, given)

    proven: list[bytes] = []
    compare = proving.compare

    def watched_proof(reference, candidate, shown, limits):  # type: ignore[no-untyped-def]
        proven.extend(frame.tobytes() for frame in shown)
        return compare(reference, candidate, shown, limits)

    monkeypatch.setattr(int8, "to_int8", watched)
    monkeypatch.setattr(proving, "compare", watched_proof)
    convert("comic", "--out", tmp_path / "c.onnx", "--to", "onnx-int8", "--frames", frames)
    assert len(measured) == 6
    assert proven
    assert not set(measured) & set(proven)


def test_too_far_from_fp32_is_refused_and_nothing_is_written(
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(proving, "INT8_LIMITS", proving.Limits(psnr_db=70.0))
    with pytest.raises(SystemExit) as end:
        convert("comic", "--out", tmp_path / "c.onnx", "--to", "onnx-int8", "--frames", frames)
    assert end.value.code == 1
    assert "INT8 model, openvino in f32 is not the same picture: PSNR" in capsys.readouterr().err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["c.refused.png", "frames"]


def test_frames_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert("comic", "--out", tmp_path / "c.onnx", "--to", "onnx-int8")
    assert "add --frames CLIP" in capsys.readouterr().err
