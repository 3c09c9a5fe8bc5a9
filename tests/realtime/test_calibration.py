"""Calibration: the numbers that a rendered camera had, other sizes, and files that are broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendered import BENT, BoardViews

from engines import EffectError, Pixels, SettingsError, SinkError
from realtime.effects.calibration import Board, Calibration, is_new


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    return BoardViews().around(14)


def test_a_bent_lens_is_measured(pictures: list[Pixels]) -> None:
    board = Board()
    views = [board.find(picture) for picture in pictures]
    found = board.calibrate([view for view in views if view is not None], BENT.size)
    assert found.size == BENT.size
    assert 0 < found.error_px < 0.3
    assert np.abs(found.camera_matrix - BENT.camera_matrix).max() < 4, "1 % of the focal length"
    grid = np.stack(np.meshgrid([40, 240, 440], [40, 180, 320]), -1).reshape(-1, 2).astype(float)
    # Differences in the coefficients may cancel out; where points land is what counts.
    assert np.abs(found.undistort(grid) - BENT.undistort(grid)).max() < 2
    assert np.abs(BENT.undistort(grid) - grid).max() > 8, "or it would be no test"


def test_a_view_that_lies_is_left_out(pictures: list[Pixels]) -> None:
    board = Board()
    views = [view for view in map(board.find, pictures) if view is not None]
    shaken = np.random.default_rng(3).normal(0, 9, views[4].corners.shape).astype(np.float32)
    views[4].corners[:] += shaken
    found = board.calibrate(views, BENT.size)
    assert found.error_px < 0.3
    assert np.abs(found.camera_matrix - BENT.camera_matrix).max() < 4


def test_distorting_undoes_undistorting() -> None:
    points = np.random.default_rng(0).uniform((20, 20), (460, 340), (50, 2))
    assert BENT.distort(BENT.undistort(points)) == pytest.approx(points, abs=0.02)


def test_no_board_is_no_view(pictures: list[Pixels]) -> None:
    board = Board()
    assert board.find(np.full((120, 160, 3), 128, np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    assert board.find(noise) is None
    hidden = pictures[0].copy()
    hidden[:, 120:] = 128
    assert board.find(hidden) is None, "a corner of it is too little"


def test_the_same_view_is_not_new(pictures: list[Pixels]) -> None:
    board = Board()
    first, second = board.find(pictures[0]), board.find(pictures[1])
    assert first is not None
    assert second is not None
    assert is_new(first, [], BENT.size)
    assert not is_new(first, [first], BENT.size)
    assert is_new(second, [first], BENT.size)
    assert not is_new(first, [second, first], BENT.size)


def test_too_few_views(pictures: list[Pixels]) -> None:
    view = Board().find(pictures[0])
    assert view is not None
    with pytest.raises(EffectError, match="needs 8 different views of the board, found 3"):
        Board().calibrate([view] * 3, BENT.size)


@pytest.mark.parametrize("rotation", [(0, 0, 0), (0.3, 0, 0)])
def test_views_that_do_not_tell(rotation: tuple[float, ...]) -> None:
    """Always from the same side: a longer lens further away would show the same."""
    camera = BoardViews()
    views = [
        camera.view(rotation, (0.3 * (number % 3), 0.4 * (number // 3), 12)) for number in range(9)
    ]
    found = [view for view in map(Board().find, views) if view is not None]
    assert len(found) == 9
    with pytest.raises(EffectError, match="from the same side, which leaves the focal length open"):
        Board().calibrate(found, BENT.size)


def test_a_file_keeps_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "cam.json"
    BENT.save(path)
    assert Calibration.load(path) == BENT
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text())["size"] == [480, 360]


def test_another_size_of_the_same_camera() -> None:
    doubled = BENT.at_size((960, 720))
    points = np.random.default_rng(0).uniform(20, 340, (20, 2))
    # A pixel covers its centre by half a pixel on each side; its edges scale.
    assert doubled.undistort((points + 0.5) * 2 - 0.5) == pytest.approx(
        (BENT.undistort(points) + 0.5) * 2 - 0.5, abs=0.05
    )
    assert BENT.at_size(BENT.size) is BENT
    assert doubled.at_size(BENT.size).camera_matrix == pytest.approx(BENT.camera_matrix)


def test_another_aspect_ratio_is_refused() -> None:
    with pytest.raises(SettingsError, match="for 480x360, the frames are 640x360: another aspect"):
        BENT.at_size((640, 360))


def broken(**changes: Any) -> str:
    return json.dumps(BENT.to_dict() | changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("\x00\x01", "no JSON"),
        ("[]", "no calibration of pix2live"),
        ('{"camera_matrix": 1}', "no calibration of pix2live"),
        (broken(size=[640]), "is broken"),
        (broken(size=None), "is broken"),
        (broken(size=[0, 480]), "is broken"),
        (broken(camera_matrix=[[1, 2], [3, 4]]), "3x3 camera matrix"),
        (broken(camera_matrix="x"), "is broken"),
        (broken(camera_matrix=[[-5, 0, 1], [0, 5, 1], [0, 0, 1]]), "a camera matrix is"),
        (broken(distortion=[1, 2, 3]), "distortion coefficients"),
        (broken(distortion=[1, 2, 3, float("nan")]), "must be finite"),
        (broken(error_px="much"), "is broken"),
        (json.dumps({key: BENT.to_dict()[key] for key in ("format", "size")}), "camera_matrix"),
    ],
)
def test_a_file_that_is_broken(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cam.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"pix2live calibrate SOURCE --out") as caught:
        Calibration.load(path)
    assert said in str(caught.value)
    assert "cam.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "cam.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(SettingsError, match="no JSON"):
        Calibration.load(tmp_path / "cam.json")


def test_no_file_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the calibration .*No such file"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(SinkError, match=r"cannot write .*No such file"):
        BENT.save(tmp_path / "none" / "cam.json")


def test_saving_is_one_step_and_leaves_nothing_beside(tmp_path: Path) -> None:
    """The draft has a name that no other thread's has: what another one writes is left alone."""
    draft = tmp_path / f".cam.json.{os.getpid()}.part"
    draft.write_text("of another thread")
    BENT.save(tmp_path / "cam.json")
    assert Calibration.load(tmp_path / "cam.json") == BENT
    assert sorted(path.name for path in tmp_path.iterdir()) == [draft.name, "cam.json"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(SinkError, match=r"cannot write .*folder: "):
        BENT.save(tmp_path / "folder")
    assert len(list(tmp_path.iterdir())) == 3
