"""What `pix2live evaluate` refuses: in one line, before it has measured for an hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_filters import linear_filter, refusal, run, save, texture

from engines import SourceError
from engines.model import FrameModel

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def inverting(tmp_path: Path) -> FrameModel:
    return linear_filter(tmp_path / "inverting.onnx", -1, 255, stride=4)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Three pictures, one of another size; neither is a multiple of 4."""
    return save(
        tmp_path / "inputs",
        {f"{number}.png": texture(33, 42 + number // 2, number) for number in range(3)},
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to measure"),
        (("--target", "x"), "--target needs --input"),
        (("--against", "x"), "--against needs --input"),
        (("--cycle", "x"), "--cycle needs --input"),
        (("--input", "x"), "--input needs something to compare with"),
        (("--clip", "x", "--frames", "1"), "--frames"),
    ],
)
def test_nothing_asked_for_is_wrong_usage(words: tuple[str, ...], said: str) -> None:
    done = run("comic", *words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_folders_that_are_no_pairs(inverting: FrameModel, inputs: Path, tmp_path: Path) -> None:
    def said(inputs: Path, targets: Path) -> str:
        return refusal(inverting.path, "--input", inputs, "--target", targets)

    assert "--input takes a folder of pictures" in said(tmp_path / "nowhere", inputs)
    assert "nowhere is not there" in said(inputs, tmp_path / "nowhere")
    empty = save(tmp_path / "empty", {})
    assert "no pictures" in said(inputs, empty)
    assert "(--target)" in said(inputs, empty)
    assert "is no picture" in said(inputs, inverting.path)
    names = [f"{name}.png" for name in "12345"]
    others = save(tmp_path / "others", {name: texture(33, 42) for name in names})
    line = said(inputs, others)
    assert "only in --input: 0;" in line
    assert "only in --target: 3, 4, 5" in line
    small = {f"{number}.jpg": texture(33, 40) for number in range(3)}
    assert "42x33, and its target" in said(inputs, save(tmp_path / "small", small))
    tiny = save(tmp_path / "tiny", {"a.png": texture(8, 42)})
    assert "11x11 or more, found 40x8" in said(tiny, tiny)
    assert "a.png" in said(tiny, tiny)
    thin = save(tmp_path / "thin", {"a.png": texture(3, 42)})
    assert "at least 4 pixels wide and high for this filter, found 42x3" in said(thin, thin)
    (others / "1.png").write_bytes(b"\x89PNG broken")
    assert "1.png is no picture that can be read" in said(others, others)


def test_too_few_pictures_and_a_feature_file_that_is_none(
    inverting: FrameModel, inputs: Path, tmp_path: Path
) -> None:
    words = (inverting.path, "--input", inputs, "--against", inputs)
    assert "needs 10 pictures or more, found 3 in --input and 3" in refusal(*words)
    many = save(tmp_path / "many", {f"{n}.png": texture(32, 32, n) for n in range(10)})
    pytest.importorskip("torch", reason="a feature net needs torch")
    words = (inverting.path, "--input", many, "--against", many, "--features")
    assert "is no file" in refusal(*words, tmp_path / "nowhere.pth")
    assert "is no file" in refusal(*words, tmp_path)
    (tmp_path / "words.pth").write_text("no weights")
    assert "words.pth" in refusal(*words, tmp_path / "words.pth")
    assert refusal(*words, inverting.path)


def test_clips_that_cannot_be_measured(inverting: FrameModel, tmp_path: Path) -> None:
    def said(clip: Path) -> str:
        return refusal(inverting.path, "--clip", clip)

    assert "no such clip" in said(tmp_path / "nowhere.mp4")
    assert "no videos" in said(save(tmp_path / "empty", {}))
    (tmp_path / "words.mp4").write_text("no film")
    assert "words.mp4 is no video that can be read" in said(tmp_path / "words.mp4")
    assert "two frames or more, found 1" in said(save(tmp_path / "one", {"a.png": texture(32, 32)}))
    small = save(tmp_path / "small", {"a.png": texture(12, 32), "b.png": texture(12, 32)})
    assert "16x16 or more" in said(small)
    assert str(small) in said(small)


def test_a_report_that_cannot_be_written_is_said_first(
    inverting: FrameModel, inputs: Path, tmp_path: Path
) -> None:
    words = ("--input", tmp_path / "nowhere", "--cycle", inverting.path)
    line = refusal(inverting.path, *words, "--json", tmp_path / "missing" / "found.json")
    assert "there is no folder" in line
    assert isinstance(run(inverting.path, *words).exception, SourceError)


def test_as_a_module() -> None:
    words = [sys.executable, "-m", "tools.evaluate", "no-such-filter", "--clip", "x"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("pix2live: no filter 'no-such-filter'")
    assert len(done.stderr.splitlines()) == 1
