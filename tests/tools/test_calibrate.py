"""`pix2live calibrate` and `pix2live markers`: what is printed, found again, and refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from engines import EffectError, Pix2liveError, SettingsError, SinkError, SourceError
from realtime.effects.calibration import LEAST_VIEWS, Board, Calibration
from realtime.effects.markers import DICTIONARIES, predefined_dictionary
from realtime.sources.pictures import write_picture
from tools.calibrate import calibrate
from tools.markers import markers, parse_ids

sys.path.append(str(Path(__file__).parents[1] / "realtime"))
from rendered import BENT, BoardViews


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of the board, each twice."""
    folder = tmp_path_factory.mktemp("views")
    for number, picture in enumerate(BoardViews().around(12)):
        for copy in "ab":
            write_picture(folder / f"{number:02d}{copy}.png", picture)
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(calibrate, [str(word) for word in words])


def refused(result: Result, kind: type[Pix2liveError]) -> str:
    assert isinstance(result.exception, kind), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_folder_of_pictures_becomes_a_calibration(views: Path, tmp_path: Path) -> None:
    out = tmp_path / "cam.json"
    result = run(views, "--out", out)
    assert result.exit_code == 0, result.output
    found = Calibration.load(out)
    assert found.size == BENT.size
    assert np.abs(found.camera_matrix - BENT.camera_matrix).max() < 4
    assert "480x360, focal length 4" in result.output
    assert "views of the board in 24 pictures" in result.output
    views_found = int(result.output.split(" views of the board in 24")[0].split("\r")[-1])
    assert LEAST_VIEWS <= views_found <= 12, "the second of two equal pictures is no view"


def test_it_stops_when_there_are_enough(views: Path, tmp_path: Path) -> None:
    result = run(views, "--out", tmp_path / "cam.json", "--views", 8)
    assert result.exit_code == 0, result.output
    assert "8 views of the board" in result.output
    assert "in 24 pictures" not in result.output


def test_too_few_views(views: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(views.iterdir())[:6]:
        (few / path.name).write_bytes(path.read_bytes())
    said = refused(run(few, "--out", tmp_path / "cam.json"), EffectError)
    assert "in 6 of 6 pictures, with 3 different views" in said
    assert "needs 8 or more" in said
    assert not (tmp_path / "cam.json").exists()


def test_a_live_source_without_a_board_ends(tmp_path: Path) -> None:
    result = run("test-pattern:160x120@60", "--out", tmp_path / "cam.json", "--seconds", 1)
    assert "the board was in 0 of" in refused(result, EffectError)


def test_no_source_and_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "cam.json"
    assert "no such file" in refused(run(tmp_path / "none.mp4", "--out", out), SourceError)
    said = refused(run("test-pattern", "--out", tmp_path / "none" / "cam.json"), SinkError)
    assert "no folder" in said


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("0",),
        ("--out", "x.json"),
        ("0", "--board", "x.png"),
        ("--board", "x.png", "--size", "640x480"),
        ("--board", "x.png", "--views", "9"),
        ("0", "--out", "x", "--size", "640:480"),
        ("0", "--out", "x", "--size", "4"),
    ],
)
def test_wrong_usage(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    if "--board" in words:
        assert "--board FILE.png stands alone" in result.output
        assert (words[-2] if words[-2] != "--board" else "source") in result.output
    assert not list(tmp_path.iterdir())


def test_progress_is_for_terminals(views: Path, tmp_path: Path) -> None:
    result = run(views, "--out", tmp_path / "cam.json", "--views", 8)
    assert "\r" not in result.output
    assert result.stderr.count("views of the board") == 1
    assert "views of the board" not in result.stdout


def test_one_is_no_plural(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_picture(tmp_path / "one" / "0.png", BoardViews().around(12)[0])
    result = run(tmp_path / "one", "--out", tmp_path / "cam.json")
    assert "in 1 of 1 picture, with 1 different view;" in refused(result, EffectError)
    assert result.stderr == "1 view of the board in 1 picture\n"


def pixels_per_metre(path: Path) -> int:
    data = path.read_bytes()
    across, down, unit = struct.unpack(">IIB", data[data.index(b"pHYs") + 4 :][:9])
    assert (across, unit) == (down, 1)
    return int(across)


def test_the_board_can_be_printed_and_found(tmp_path: Path) -> None:
    path = tmp_path / "board.png"
    assert run("--board", path).exit_code == 0
    picture = cv2.imread(str(path))
    assert picture is not None
    height, width = picture.shape[:2]
    assert width / pixels_per_metre(path) <= 0.2795, "US letter; A4 is wider"
    assert height / pixels_per_metre(path) <= 0.210
    small = cv2.resize(picture, (width // 6, height // 6), interpolation=cv2.INTER_AREA)
    view = Board().find(np.asarray(small, np.uint8))
    assert view is not None
    assert len(view.ids) == 28


def print_markers(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(markers, [*words, "--out", str(folder)])


@pytest.mark.parametrize("name", DICTIONARIES)
def test_every_marker_is_found_again_at_its_size(name: str, tmp_path: Path) -> None:
    result = print_markers(tmp_path, "2,5", "--dictionary", name, "--size", "50")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}-2.png", f"{name}-5.png"}
    path = tmp_path / f"{name}-5.png"
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    detector = cv2.aruco.ArucoDetector(predefined_dictionary(name))
    corners, ids, _ = detector.detectMarkers(picture)
    assert ids.ravel().tolist() == [5]
    side_m = (corners[0][0, 1, 0] - corners[0][0, 0, 0] + 1) / pixels_per_metre(path)
    assert side_m == pytest.approx(0.05, rel=0.005)


def test_names_of_other_people_are_understood(tmp_path: Path) -> None:
    result = print_markers(tmp_path, "7", "--dictionary", "DICT_APRILTAG_36h11")
    assert result.stderr == f"marker 7 of april_36h11, 80 mm, in {tmp_path}; print at 100 %\n"
    assert result.stdout == f"{tmp_path / 'april_36h11-7.png'}\n"


def test_markers_that_are_there_already_are_kept(tmp_path: Path) -> None:
    (tmp_path / "4x4_50-1.png").write_text("mine")
    (tmp_path / "4x4_50-2.png").write_text("mine")
    said = refused(print_markers(tmp_path, "0-3"), SinkError)
    assert said == (
        f"{tmp_path / '4x4_50-1.png'} and 1 more exist already; --overwrite replaces what is there"
    )
    assert len(list(tmp_path.iterdir())) == 2, "nothing was written"
    assert "1.png exists already" in refused(print_markers(tmp_path, "1"), SinkError)
    result = print_markers(tmp_path, "0-2", "--overwrite")
    assert result.exit_code == 0, result.output
    paths = [tmp_path / f"4x4_50-{number}.png" for number in range(3)]
    assert result.stdout.splitlines() == [str(path) for path in paths], "every file is told"
    assert all(cv2.imread(str(path)) is not None for path in paths)


def test_the_default_folder_is_not_for_git(tmp_path: Path) -> None:
    (option,) = [item for item in markers.params if item.name == "out"]
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert f"/{option.default}/" in ignored


def test_numbers() -> None:
    assert parse_ids("7") == [7]
    assert parse_ids("3,1,0-2") == [3, 1, 0, 2]
    for wrong in ("", "x", "1,", "5-3", "-1", "0-99999", "1.5"):
        with pytest.raises(SettingsError):
            parse_ids(wrong)


def test_markers_that_are_not(tmp_path: Path) -> None:
    said = refused(print_markers(tmp_path, "50"), SettingsError)
    assert said == "4x4_50 has the markers 0 to 49, found 50"
    said = refused(print_markers(tmp_path, "1", "--dictionary", "9x9_7"), SettingsError)
    assert said.startswith("no marker dictionary '9x9_7'; there are: 4x4_50, ")
    assert not list(tmp_path.iterdir())


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(print_markers(tmp_path / "file", "1"), SinkError)
    assert said.startswith("cannot write ")
