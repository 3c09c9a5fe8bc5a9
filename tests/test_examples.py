"""The programs in examples/, as the recipes in docs/recipes run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines import load_filter, open_engine
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.effects import open_effect
from realtime.sources.pictures import list_pictures, read_picture, write_picture

ROOT = Path(__file__).parent.parent
ASSETS = ROOT.parent / "shared" / "assets"
YUNET = ASSETS / "segmentation" / "yunet_s_dynamic.onnx"
LONGEST = 40
"""An example that does not fit on a screen is a program."""
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def example(name: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an example without a screen, from a plain checkout."""
    kept = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, words)],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < LONGEST


@pytest.mark.parametrize("name", sorted({*EXAMPLES} - {"webcam"}))  # which has a default
def test_without_words_there_is_the_usage(name: str, tmp_path: Path) -> None:
    done = example(name, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name}.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


BAD = {
    "ar_poster": (["none.mp4", "comic", "out/"], "no such file: none.mp4"),
    "dicom_pairs": (["out", "none.dcm"], "none.dcm"),
    "edge_pairs": (["none", "out"], "cannot read the folder none"),
    "face_box": (["test-pattern", "sepia", "0,0,8,8", "out/"], "no filter 'sepia'"),
    "face_cartoon": (["test-pattern", "none.onnx", "out/"], "none.onnx"),
    "person_only": (["test-pattern", "comic", "no/out.mp4"], "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, tmp_path: Path) -> None:
    words, said = BAD[name]
    done = example(name, *words, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(name)
    assert said in line
    assert not list(tmp_path.iterdir()), "nothing was left behind"


@pytest.mark.parametrize("box", ["1,2,3", "-4,0,20,20", "0,0,x,4"])
def test_a_box_that_is_none(box: str, tmp_path: Path) -> None:
    done = example("face_box", "test-pattern:64x48", "comic", box, "null", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "spec", ["ar_poster.py:seen", "face_cartoon.py:numbers", "person_only.py:grey_room"]
)
def test_an_example_is_a_file_of_effects_too(spec: str) -> None:
    """It does nothing when it is imported."""
    assert open_effect(ROOT / "examples" / spec).name == spec.partition(":")[2]


@pytest.fixture
def frames(tmp_path: Path) -> list[NDArray[np.uint8]]:
    """The frames of a clip, tmp_path/"clip", without losses."""
    folder = tmp_path / "clip"
    Pipeline(
        "test-pattern:128x96@30", IdentityEngine(None), [f"{folder}/"], mode="every", frames=5
    ).run()
    return [read_picture(path) for path in list_pictures(folder)]


def test_a_filter_in_a_box(frames: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    done = example("face_box", "clip", "comic", "20,10,70,61", "out/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [read_picture(path) for path in list_pictures(tmp_path / "out")]
    assert len(found) == len(frames)
    assert done.stdout == f"out/: {len(frames)} frames\n"
    box = np.s_[10 : 10 + 60, 20 : 20 + 68]  # the sides are multiples of the filter's stride
    engine = open_engine("comic", (68, 60))
    for picture, frame in zip(found, frames, strict=True):
        outside = np.ones(frame.shape[:2], bool)
        outside[box] = False
        assert np.array_equal(picture[outside], frame[outside])
        wanted = engine.infer(np.ascontiguousarray(frame[box]))
        assert np.abs(picture[box].astype(int) - wanted).max() <= 1
        assert np.abs(picture[box].astype(int) - frame[box]).mean() > 5, "it is another picture"
    engine.close()
    assert load_filter("comic").card.stride == 4


def test_a_box_that_does_not_fit_is_refused(
    frames: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    done = example("face_box", "clip", "comic", "100,10,40,40", "out/", cwd=tmp_path)
    assert done.returncode != 0
    assert "the box reaches out of the frame of 128x96" in done.stderr
    assert not (tmp_path / "out").exists()


def test_pairs_of_edges_and_photographs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(11):
        photo = np.full((180, 240, 3), 220, np.uint8)
        cv2.rectangle(photo, (60, 40), (120 + number, 130), (40, 60, 200), -1)
        write_picture(tmp_path / "photos" / f"{number:02d}.png", photo)
    done = example("edge_pairs", "photos", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out: edges of 11 photographs, 1 of them held out\n"
    pairs = list_pictures(tmp_path / "out" / "pairs")
    assert [path.stem for path in pairs] == [f"{n:02d}" for n in range(11) if n != 9]
    both = read_picture(pairs[0])
    assert both.shape == (360, 960, 3)
    lines, photo = both[:, :480], both[:, 480:]
    assert set(np.unique(lines)) == {0, 255}
    assert (lines[80:260, 115:125] == 0).any(), "the left edge of the rectangle"
    assert (lines[150:200, 150:200] == 255).all(), "no lines where nothing is"
    assert abs(int(photo[170, 170, 2]) - 200) <= 2
    for kind in ("input", "target"):
        held_out = list_pictures(tmp_path / "out" / "held-out" / kind)
        assert [path.name for path in held_out] == ["09.png"]
        assert read_picture(held_out[0]).shape == (360, 480, 3)


def test_pairs_of_edges_train(tmp_path: Path) -> None:
    for name in ("torch", "lightning_fabric", "onnxscript"):
        pytest.importorskip(name, reason=f"training needs {name}; install pix2live[train]")
    from tools.train.pair_folders import read_side_by_side

    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (9, 12, 3)).astype(np.uint8)
        photo = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_NEAREST)
        write_picture(tmp_path / "photos" / f"{number}.png", photo)
    assert example("edge_pairs", "photos", "out", cwd=tmp_path).returncode == 0
    pairs = read_side_by_side(
        tmp_path / "out" / "pairs", smallest_px=256, report=lambda what, share: None
    )
    assert not pairs.skipped
    assert pairs[0].photo.shape == pairs[0].target.shape == (360, 480, 3)
    assert set(np.unique(pairs[0].photo)) == {0, 255}, "the edges are the input"


@pytest.mark.skipif(not YUNET.is_file(), reason="shared/assets/segmentation has no face detector")
def test_a_cartoon_on_faces_only(tmp_path: Path) -> None:
    clip = ASSETS / "video" / "webcam" / "again.mkv"
    Pipeline(clip, IdentityEngine(None), [f"{tmp_path}/clip/"], mode="every", frames=12).run()
    done = example("face_cartoon", "clip", YUNET, "out/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/: 12 frames\n"
    pairs = zip(list_pictures(tmp_path / "clip"), list_pictures(tmp_path / "out"), strict=True)
    for before, after in pairs:
        changed = np.abs(read_picture(before).astype(int) - read_picture(after)).max(axis=2) > 8
        rows, columns = np.nonzero(changed)
        # The face of the one person there is in the upper middle; nothing else is touched.
        assert changed[80:160, 280:360].mean() > 0.3
        assert rows.min() > 20
        assert rows.max() < 230
        assert columns.min() > 220
        assert columns.max() < 420


def test_a_film_on_a_marker(tmp_path: Path) -> None:
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    marker = cv2.aruco.generateImageMarker(dictionary, 7, 60)
    rng = np.random.default_rng(3)
    (tmp_path / "clip").mkdir()
    for number in range(4):
        frame = rng.integers(90, 110, (240, 320, 3), np.uint8)
        frame[60:180, 100:220] = 225  # paper
        left = 120 + 4 * number
        frame[90:150, left : left + 60] = marker[..., None]
        write_picture(tmp_path / "clip" / f"{number}.png", frame)
    film = np.full((90, 90, 3), (40, 200, 30), np.uint8)  # as bright green as nothing else
    write_picture(tmp_path / "film.png", film)
    done = example("ar_poster", "clip", "comic", "out/", "film.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [read_picture(path) for path in list_pictures(tmp_path / "out")]
    assert len(found) == 4
    assert done.stdout == "out/: 4 frames\n"
    for number, picture in enumerate(found):
        middle = 150 + 4 * number
        shown = picture[70:170, middle - 50 : middle + 50].astype(int)  # twice the marker's side
        assert np.abs(shown - film[0, 0]).max() <= 2
        assert np.abs(picture[120, middle + 66 :].astype(int) - film[0, 0]).max(axis=1).min() > 40


@pytest.mark.skipif(not ASSETS.is_dir(), reason="shared/assets has the clip of a person")
def test_a_filter_on_people_only(tmp_path: Path) -> None:
    clip = ASSETS / "video" / "webcam" / "want.mkv"
    Pipeline(clip, IdentityEngine(None), [f"{tmp_path}/clip/"], mode="every", frames=4).run()
    done = example("person_only", "clip", "starry", "out/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/: 4 frames\n"
    picture = read_picture(list_pictures(tmp_path / "out")[-1]).astype(int)
    colour = picture.max(axis=2) - picture.min(axis=2)
    assert colour[150:300, 260:360].mean() > 12  # the shirt is translated, in colour
    assert colour[20:80, 20:120].max() == 0  # the wall is grey
    assert colour[100:300, 520:600].max() == 0  # and so is the blue board


def test_pairs_of_a_dicom_file(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the samples need pix2live[medical]")
    done = example("dicom_pairs", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "out: 8 pairs of CT_small.dcm; levels -896 to 1167 become 0 to 65535",
        "out: 8 pairs of MR_small.dcm; levels 127 to 2145 become 0 to 65535",
    ]
    written = sorted(path.relative_to(tmp_path / "out") for path in tmp_path.rglob("CT*.png"))
    assert len(written) == 16
    assert [path.parts[:2] for path in written if path.stem == "CT_small-5"] == [
        ("held-out", "input"),
        ("held-out", "target"),
    ]
