"""What the training loop writes and shows: curves, sample sheets, the screen."""

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")

from rich.console import Console

from tools.train.curves import Curves, read_curves
from tools.train.export import fitting_frames
from tools.train.screen import Screen
from tools.train.sheets import CAPTION_PX, CELL_PX, sheet_file, sheets_of, write_sheet


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_curves(out / "curves.jsonl")]


def test_curves_lose_what_comes_again(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 0)
    for step in range(1, 6):
        curves.add(step, {"loss": 1 / step})
    curves.close()
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = Curves(tmp_path, 3)
    again.add(4, {"loss": 0.125})
    again.close()
    assert losses(tmp_path) == [1, 1 / 2, 1 / 3, 0.125]


def test_tensorboard_has_the_curves_and_the_sheets(tmp_path: Path) -> None:
    reason = "TensorBoard is not installed"
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    curves = Curves(tmp_path, 0)
    for step in range(1, 8):
        curves.add(step, {"loss": 1 / step})
    curves.picture("samples", 7, np.zeros((8, 8, 3), np.uint8))
    curves.close()
    found = events.EventAccumulator(str(tmp_path / "tensorboard"), {"images": 9}).Reload()
    assert [event.step for event in found.Scalars("loss")] == list(range(1, 8))
    assert [event.value for event in found.Scalars("loss")] == pytest.approx(losses(tmp_path))
    assert [event.step for event in found.Images("samples")] == [7]


def test_without_tensorboard_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what import makes of a missing one
    curves = Curves(tmp_path, 0)
    curves.add(1, {"loss": 1.0})
    curves.close()
    assert "pip install tensorboard" in curves.note
    assert losses(tmp_path) == [1.0]
    assert not (tmp_path / "tensorboard").exists()


def test_sheets_have_captions_and_whole_pictures(tmp_path: Path) -> None:
    wide = np.full((90, 160, 3), 200, np.uint8)
    tall = np.full((160, 90, 3), (0, 0, 255), np.uint8)
    write_sheet(tmp_path / "s.png", [[wide, wide, tall], [tall, wide]], ("a", "b", "c"), "step 7")
    found = cv2.imread(str(tmp_path / "s.png"))
    assert found is not None
    heights = [round(CELL_PX * 90 / 160), round(CELL_PX * 160 / 90)]
    assert found.shape == (CAPTION_PX + sum(heights), 3 * CELL_PX, 3)
    assert found[:CAPTION_PX, 2 * CELL_PX :].max() > 200  # the last caption
    cell = found[CAPTION_PX : CAPTION_PX + heights[0], 2 * CELL_PX :]
    red = (cell == (0, 0, 255)).all(-1)
    assert red.any(1).all()  # as high as the row
    assert abs(red.any(0).sum() - heights[0] * 90 / 160) < 2


def test_sheets_are_known_by_their_names(tmp_path: Path) -> None:
    ours = [sheet_file(tmp_path, step) for step in (7, 123456, 1234567)]
    for path in (*ours, tmp_path / "sheet-7.png", tmp_path / "sheet-000007-old.png"):
        path.touch()
    assert sheets_of(tmp_path) == sorted(ours)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_shows_the_time_left(terminal: bool) -> None:
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, force_terminal=terminal, width=120)
    with Screen(console=console, clock=clock) as screen:
        screen.say("[not markup]")
        screen.preparing("reading", 1.0)
        for step in range(1, 101):
            clock.now_s += 0.5
            screen.training(step, 400, 1 / step)
    said = text.getvalue()
    assert "[not markup]" in said
    assert "step 100/400  2 steps/s  loss 0.01  2:30 left" in said
    if not terminal:
        lines = said.splitlines()
        assert lines[1] == "reading 100%"
        assert len(lines) < 10  # each 5 %, not each step
        assert "\x1b" not in said


def test_a_quiet_screen_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Screen(loud=False) as screen:
        screen.say("words")
        screen.training(1, 2, 0.5)
    assert capfd.readouterr() == ("", "")


def test_frames_for_the_proof_are_of_one_size_and_whole_cells() -> None:
    frames = [np.zeros((h, w, 3), np.uint8) for h, w in ((50, 70), (30, 30), (51, 71), (5, 9))]
    assert [frame.shape for frame in fitting_frames(frames, 8)] == [(48, 64, 3)] * 2
    assert [frame.shape for frame in fitting_frames(frames[3:], 8)] == [(8, 8, 3)]
