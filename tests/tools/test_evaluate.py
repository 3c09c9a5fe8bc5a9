"""`pix2live evaluate`, with filters and pictures whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_filters import (
    Picture,
    counting_filter,
    linear_filter,
    moved_frames,
    refusal,
    run,
    save,
    texture,
)

from engines import SettingsError
from engines.model import FrameModel
from realtime import Frame, SinkInfo
from realtime.sinks.video import VideoSink
from tools.evaluation import distances, on_pictures
from tools.evaluation.measuring import evaluate as measure
from tools.evaluation.pictures import common_size, match_names
from tools.evaluation.settings import Settings

ROOT = Path(__file__).parent.parent.parent
VGG = ROOT.parent / "shared" / "assets" / "features" / "vgg_normalised_conv3_1.pth"
EXACT = ("--precision", "f32")


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


@pytest.fixture
def targets(inputs: Path) -> Path:
    """The inverse, and 4 levels beside it."""
    read = {path.name: cv2.imread(str(path)) for path in sorted(inputs.iterdir())}
    made = {name: np.clip(255 - picture.astype(int), 4, 251) for name, picture in read.items()}
    beside = {
        name: (picture + np.random.default_rng(1).choice([-4, 4], picture.shape)).astype(np.uint8)
        for name, picture in made.items()
    }
    return save(inputs.parent / "targets", beside)


def clip(path: Path, frames: list[Picture]) -> Path:
    sink = VideoSink(path)
    sink.open(SinkInfo((frames[0].shape[1], frames[0].shape[0]), 25.0))
    for number, frame in enumerate(frames):
        sink.write(Frame(frame, index=number, pts_ns=number * 40_000_000))
    sink.close()
    return path


def report(*words: object, at: Path) -> dict[str, Any]:
    done = run(*words, *EXACT, "--json", at / "found.json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    found: dict[str, Any] = json.loads((at / "found.json").read_text())
    return found


def test_held_out_pairs(inverting: FrameModel, inputs: Path, targets: Path, tmp_path: Path) -> None:
    found = report(inverting.path, "--input", inputs, "--target", targets, at=tmp_path)
    assert found["schema"] == 1
    assert found["filter"]["name"] == "inverting"
    assert found["filter"]["sha256"] == inverting.sha256
    assert found["engine"]["backend"] in ("openvino", "onnxruntime", "tensorrt", "tensorrt-rtx")
    assert found["engine"]["device"]
    assert found["asked"]["target"] == str(targets)
    assert [row["name"] for row in found["pictures"]] == ["0.png", "1.png", "2.png"]
    assert [row["size"] for row in found["pictures"]] == [[40, 32]] * 3
    measures = found["measures"]
    assert measures["l1"]["value"] == pytest.approx(4, abs=0.1)
    assert measures["psnr_db"]["value"] == pytest.approx(20 * np.log10(255 / 4), abs=0.2)
    assert measures["ssim"]["value"] > 0.95
    assert measures["ssim"]["untranslated"] < 0.3
    assert measures["psnr_db"]["better"] == "higher"
    assert measures["l1"]["count"] == 3
    for key in ("l1", "psnr_db", "ssim"):
        each = [row[key] for row in found["pictures"]]
        assert measures[key]["value"] == pytest.approx(np.mean(each))
    picture = cv2.imread(str(inputs / "1.png"))[:32, :40].astype(float)
    right = cv2.imread(str(targets / "1.png"))[:32, :40]
    assert found["pictures"][1]["untranslated_l1"] == pytest.approx(np.abs(picture - right).mean())
    assert found["pictures"][1]["l1"] == pytest.approx(np.abs(255 - picture - right).mean())
    # Not asked for, and not computed.
    assert not {"cycle_l1", "kernel_distance", "warping_error_1e3"} & set(measures)
    assert found["clips"] == []


def test_without_a_feature_net_it_is_said(
    inverting: FrameModel, inputs: Path, targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(path: Path | None) -> None:
        raise SettingsError("a feature net is needed: pass --features FILE")

    monkeypatch.setattr(on_pictures, "_load_feature_net", none)
    settings = Settings(str(inverting.path), input=inputs, target=targets)
    found = measure(settings)
    assert [item.key for item in found.measures] == ["l1", "psnr_db", "ssim"]
    assert "no perceptual distance: a feature net is needed: pass --features FILE" in found.notes
    with pytest.raises(SettingsError, match="is needed"):
        measure(Settings(str(inverting.path), input=inputs, target=targets, features=inputs))


@pytest.mark.skipif(not VGG.is_file(), reason="the feature net of shared/assets is not here")
def test_with_a_feature_net(
    inverting: FrameModel,
    inputs: Path,
    targets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch", reason="a feature net needs torch")
    monkeypatch.setattr(distances, "POOLED_SIDE_PX", 48)  # faster
    others = save(tmp_path / "b", {f"{n}.png": 255 - texture(40, 40, 100 + n) for n in range(12)})
    many = save(tmp_path / "a", {f"{n}.png": texture(40, 40, 200 + n) // 3 for n in range(12)})
    words = (inverting.path, "--features", VGG)
    pairs = report(*words, "--input", inputs, "--target", targets, at=tmp_path)
    perceptual = pairs["measures"]["perceptual"]
    assert 0 < perceptual["value"] < 0.5 * perceptual["untranslated"] < 1
    assert pairs["features"]["file"] == str(VGG)
    assert len(pairs["features"]["sha256"]) == 64
    assert pairs["features"]["layers"][-1] == "relu3_1"
    assert pairs["features"]["device"] in ("cpu", "cuda:0")

    apart = report(*words, "--input", many, "--against", others, at=tmp_path)["measures"]
    assert set(apart) == {"kernel_distance"}
    distance = apart["kernel_distance"]
    assert distance["count"] == 12
    assert distance["deviation"] > 0
    # Inverted dark pictures are light ones, and so are inverted textures: nearer than before.
    brighter = linear_filter(tmp_path / "brighter.onnx", 3, 0)
    near = report(
        brighter.path, "--features", VGG, "--input", many, "--against", others, at=tmp_path
    )["measures"]["kernel_distance"]
    assert near["untranslated"] == pytest.approx(distance["untranslated"])
    assert abs(near["value"]) < 0.2 * near["untranslated"]


def test_cycle_error(inverting: FrameModel, inputs: Path, tmp_path: Path) -> None:
    words = (inverting.path, "--input", inputs, "--cycle")
    same = report(*words, inverting.path, at=tmp_path)
    assert same["measures"]["cycle_l1"]["value"] == 0
    assert same["measures"]["cycle_psnr_db"]["value"] == 99
    assert same["cycle_filter"]["sha256"] == inverting.sha256

    beside = save(tmp_path / "dark", {"a.png": texture(30, 50) // 2 + 20})
    off_by_3 = linear_filter(tmp_path / "off.onnx", -1, 252, stride=6)
    words = (inverting.path, "--input", beside, "--cycle")
    found = report(*words, off_by_3.path, at=tmp_path)
    assert found["measures"]["cycle_l1"]["value"] == 3
    right = 20 * np.log10(255 / 3)
    assert found["measures"]["cycle_psnr_db"]["value"] == pytest.approx(right)
    assert found["pictures"][0]["size"] == [48, 24]  # what strides of 4 and 6 take
    assert found["pictures"][0]["cycle_l1"] == 3
    assert found["cycle_filter"]["name"] == "off"


def test_flicker_of_clips(inverting: FrameModel, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "LICENSE.txt").write_text("no clip")
    clip(folder / "one.mp4", moved_frames(5, 2))
    clip(folder / "two.mp4", moved_frames(3, 0))
    numbered = save(
        tmp_path / "numbered",
        {f"{n}.png": frame for n, frame in enumerate(moved_frames(4, 1, height=50))},
    )
    half = linear_filter(tmp_path / "half.onnx", 0.5, 0, stride=8)

    found = report(half.path, "--clip", folder, "--clip", numbered, at=tmp_path)

    assert [item["name"] for item in found["clips"]] == ["one.mp4", "two.mp4", "numbered"]
    assert [item["pairs"] for item in found["clips"]] == [4, 2, 3]
    measures = found["measures"]
    assert set(measures) == {
        "warping_error_1e3",
        "warping_ratio",
        "still_difference",
        "still_ratio",
    }
    errors = [item["warping_error"] for item in found["clips"]]
    assert measures["warping_error_1e3"]["value"] == pytest.approx(1e3 * np.mean(errors))
    assert measures["warping_error_1e3"]["count"] == 9
    # Half of the levels: a quarter of the squares, and a little for rounding.
    assert measures["warping_ratio"]["value"] == pytest.approx(0.25, rel=0.2)
    assert measures["warping_error_1e3"]["untranslated"] > 0
    first = report(half.path, "--clip", folder / "one.mp4", "--frames", 3, at=tmp_path)
    assert first["clips"][0]["frames"] == 3


def test_a_filter_with_a_memory_begins_anew(tmp_path: Path) -> None:
    """With every picture and every clip; within a clip it goes on."""
    counting = counting_filter(tmp_path / "counting.onnx")
    dark = {f"{number}.png": texture(32, 48, number) // 2 for number in range(3)}
    pictures = save(tmp_path / "pictures", dark)
    light = np.full((32, 48, 3), 252, np.uint8)  # a fifth frame could not become brighter
    still = save(tmp_path / "still", {f"{number}.png": light for number in range(4)})
    words = ("--input", pictures, "--target", pictures, "--clip", still, "--clip", still)
    found = report(counting.path, *words, at=tmp_path)
    assert [row["l1"] for row in found["pictures"]] == [0, 0, 0]
    for item in found["clips"]:
        assert item["warping_error"] == pytest.approx(1 / 255**2, rel=1e-4)
        assert item["still_difference"] == pytest.approx(1, rel=1e-4)
        assert item["input_warping_error"] == 0
        assert item["ratio"] is None
    assert found["measures"]["warping_ratio"]["value"] is None


def test_a_filter_for_one_size_gets_scaled_pictures(tmp_path: Path) -> None:
    fixed = linear_filter(tmp_path / "fixed.onnx", -1, 255, sides=(48, 64))
    inputs = save(tmp_path / "inputs", {"a.png": texture(96, 128)})
    found = report(fixed.path, "--input", inputs, "--cycle", fixed.path, at=tmp_path)
    assert found["pictures"][0]["size"] == [64, 48]
    assert found["measures"]["cycle_l1"]["value"] == 0


def test_the_table(inverting: FrameModel, inputs: Path, targets: Path) -> None:
    done = run(inverting.path, "--input", inputs, "--target", targets, *EXACT)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("inverting on ")
    row = next(line for line in lines if "PSNR" in line)
    assert "dB" in row
    assert "higher" in row
    assert "3 pictures" in row
    assert "kernel" not in done.stdout


def test_a_backend_is_taken_as_named(inverting: FrameModel, inputs: Path, tmp_path: Path) -> None:
    words = (inverting.path, "--input", inputs, "--cycle", inverting.path)
    found = report(*words, "--backend", "identity", at=tmp_path)
    assert found["engine"]["backend"] == "identity"
    assert "no backend 'nonsense'" in refusal(*words, "--backend", "nonsense")


def test_names_match_whatever_the_suffix() -> None:
    inputs, targets = [Path("a.jpg"), Path("b.png")], [Path("t/b.webp"), Path("t/a.png")]
    assert match_names(inputs, targets) == [Path("t/a.png"), Path("t/b.webp")]
    with pytest.raises(SettingsError, match=r"two pictures of one name: a\.jpg and a\.png"):
        match_names([Path("a.jpg"), Path("a.png")], targets)
    many = [Path(f"{number}.png") for number in range(9)]
    with pytest.raises(SettingsError, match=r"only in --input: 1, 2, 3 and 5 more$"):
        match_names(many, [Path("0.png")])


def test_sizes_that_filters_have_in_common(inverting: FrameModel, tmp_path: Path) -> None:
    fixed = linear_filter(tmp_path / "fixed.onnx", 1, 0, sides=(50, 64))
    assert common_size((63, 47), [inverting]) == (60, 44)
    with pytest.raises(SettingsError, match="inverting does not take 64x50"):
        common_size((640, 480), [inverting, fixed])


def test_measures_go_onto_the_card(inverting: FrameModel, inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "carded.onnx"
    path.write_bytes(inverting.path.read_bytes())
    found = report(path, "--input", inputs, "--cycle", inverting.path, "--to-card", at=tmp_path)
    first = FrameModel.read(path)
    assert first.card.measures["cycle_l1"] == found["measures"]["cycle_l1"]["value"] == 0
    assert first.graph_sha256 == inverting.graph_sha256  # engines that were built stay good

    moving = clip(tmp_path / "moving.mp4", moved_frames(4, 1))
    report(path, "--clip", moving, "--to-card", at=tmp_path)
    then = FrameModel.read(path).card.measures
    assert then["cycle_l1"] == 0  # what was measured before stays
    assert then["warping_error_1e3"] > 0
    assert then["warping_error_1e3_untranslated"] > 0
