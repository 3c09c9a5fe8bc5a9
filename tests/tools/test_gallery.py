"""`pix2live filters`: the sheet of all filters on the same frames, the list, the cards."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from small_filters import Picture, counting_filter, linear_filter, save, texture

from engines import (
    EngineError,
    FrameModel,
    Pix2liveError,
    SourceError,
    filter_names,
    write_frame_model,
)
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from tools import gallery
from tools.cards import print_card
from tools.conversion.frames import ProofFrames
from tools.filters import filters, table_of
from tools.gallery import CAPTION_PX, CELL_PX, GAP_PX, Column, draw_sheet, gallery_frames

BACKGROUND = (gallery.BACKGROUND,) * 3


def flat(level: int, height: int = 36, width: int = 64) -> Picture:
    return np.full((height, width, 3), level, np.uint8)


def cell(sheet: Picture, across: int, down: int, rows: int, height: int) -> Picture:
    """The picture in a column and row; the rows of all blocks count."""
    block, row = divmod(down, rows)
    top = block * (CAPTION_PX + rows * (height + GAP_PX)) + CAPTION_PX + row * (height + GAP_PX)
    left = GAP_PX + across * (CELL_PX + GAP_PX)
    return sheet[top : top + height, left : left + CELL_PX]


def caption(sheet: Picture, across: int) -> Picture:
    left = GAP_PX + across * (CELL_PX + GAP_PX)
    return sheet[:CAPTION_PX, left : left + CELL_PX]


@pytest.mark.parametrize(
    ("count", "beside", "blocks"),
    [(1, 1, 1), (2, 2, 1), (5, 5, 1), (6, 3, 2), (7, 4, 2), (10, 5, 2), (11, 4, 3)],
)
def test_at_most_five_columns_stand_beside_each_other(count: int, beside: int, blocks: int) -> None:
    rows, height = 2, round(CELL_PX * 36 / 64)
    columns = [Column(f"f{n}", "", [flat(100 + 10 * n), flat(105 + 10 * n)]) for n in range(count)]
    sheet = draw_sheet(columns)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (
        blocks * (CAPTION_PX + rows * (height + GAP_PX)),
        GAP_PX + beside * (CELL_PX + GAP_PX),
        3,
    )
    for number in range(count):
        block, across = divmod(number, beside)
        for row in range(rows):
            found = cell(sheet, across, block * rows + row, rows, height)
            assert (found == 100 + 10 * number + 5 * row).all()


def test_a_picture_of_another_shape_is_shown_whole() -> None:
    square = flat(200, 64, 64)
    square[:, :2], square[:, -2:] = 90, 90
    sheet = draw_sheet([Column("input", "", [flat(50)]), Column("f", "", [square])])
    shown = cell(sheet, 1, 0, 1, 216)
    inside = np.flatnonzero((shown[100] != BACKGROUND).any(axis=1))
    assert (inside[0], inside[-1] + 1) == ((CELL_PX - 216) // 2, (CELL_PX + 216) // 2)
    assert shown[100, inside[0], 0] == shown[100, inside[-1], 0] == 90
    assert shown[0, CELL_PX // 2, 0] == shown[-1, CELL_PX // 2, 0] == 200


def test_a_pixel_less_for_the_stride_leaves_no_gap() -> None:
    sheet = draw_sheet([Column("input", "", [flat(50)]), Column("f", "", [flat(200, 36, 63)])])
    assert (cell(sheet, 1, 0, 1, 216) == 200).all()


def test_captions_are_readable_and_stay_in_their_column() -> None:
    def drawn(name: str, title: str) -> Picture:
        sheet = draw_sheet([Column("input", "", [flat(9)]), Column(name, title, [flat(9)])])
        assert (caption(sheet, 1)[:, -4:] == BACKGROUND).all()
        assert caption(sheet, 1).max() > 200
        return caption(sheet, 1)

    title = drawn("wave", "The Great Wave off Kanagawa, a woodblock print by Hokusai, about 1831")
    assert (title[30:] != BACKGROUND).any()
    assert (drawn("comic", "Comic")[30:] == BACKGROUND).all(), "the same word once"
    drawn("a-name-that-somebody-gave-without-thinking-of-sheets", "")
    # OpenCV would draw question marks.
    assert np.array_equal(drawn("Çédille", "Straße — “œ”…"), drawn("Cedille", 'Strasse - "oe"...'))


@pytest.fixture
def inverting(tmp_path: Path) -> FrameModel:
    return linear_filter(tmp_path / "inverting.onnx", -1, 255)


def made(frames: Sequence[Picture], *models: FrameModel) -> tuple[list[Column], list[str]]:
    return gallery.make_columns(models, ProofFrames(tuple(frames), "two frames", real=True))


def test_columns_are_what_engines_make_of_the_frames(inverting: FrameModel, tmp_path: Path) -> None:
    frames = [texture(48, 64, seed) for seed in range(2)]
    darker = linear_filter(tmp_path / "darker.onnx", 0.5, 0, stride=20)
    small = linear_filter(tmp_path / "small.onnx", 1, 0, sides=(24, 24))
    columns, _ = made(frames, inverting, darker, small)
    assert [column.name for column in columns] == ["input", "inverting", "darker", "small"]
    assert columns[0].title == "two frames"
    for number, frame in enumerate(frames):
        assert np.array_equal(columns[0].pictures[number], frame)
        assert np.array_equal(columns[1].pictures[number], 255 - frame)
        assert columns[2].pictures[number].shape == (40, 60, 3)
        assert columns[3].pictures[number].shape == (24, 24, 3)
    assert columns[2].pictures[0].mean() < 0.6 * frames[0].mean()


def test_a_filter_with_a_memory_begins_anew_with_each_frame(tmp_path: Path) -> None:
    frames = [texture(32, 32, seed) for seed in range(2)]
    columns, _ = made(frames, counting_filter(tmp_path / "counting.onnx"))
    for frame, picture in zip(frames, columns[1].pictures, strict=True):
        assert np.array_equal(picture, frame)


def test_notes_of_all_are_said_once(inverting: FrameModel, tmp_path: Path) -> None:
    _, notes = made([texture(32, 32)], inverting, linear_filter(tmp_path / "b.onnx", 1, 0))
    assert len([note for note in notes if "chosen by auto" in note]) == 1
    assert len(notes) == len(set(notes))
    proven = replace(inverting.card, name="proven", proofs={"openvino/bf16": {"psnr_db": 60.0}})
    write_frame_model(inverting.graph(), proven, tmp_path / "proven.onnx")
    other = FrameModel.read(tmp_path / "proven.onnx")
    _, notes = made([texture(32, 32)], inverting, other)
    for note in notes:
        assert "chosen by auto" in note or note.startswith(("inverting: ", "proven: "))


def test_a_filter_that_cannot_run_is_named(inverting: FrameModel, tmp_path: Path) -> None:
    broken = linear_filter(tmp_path / "broken.onnx", 1, 0)
    broken.path.unlink()
    with pytest.raises(EngineError, match=r"^broken: .*cannot read"):
        made([texture(32, 32)], inverting, broken)


def test_frames_of_a_picture_a_folder_and_a_clip(tmp_path: Path) -> None:
    folder = save(tmp_path / "some", {f"{n}.png": flat(10 * n, 60, 80) for n in range(7)})
    found = gallery_frames(folder)
    assert [int(frame[0, 0, 0]) for frame in found.frames] == [0, 20, 40, 60]
    one = gallery_frames(folder / "3.png")
    assert [frame.shape for frame in one.frames] == [(416, 556, 3)]
    clip = tmp_path / "clip.mp4"
    Pipeline("test-pattern:96x64@30", IdentityEngine(None), [clip], mode="every", frames=9).run()
    of_clip = gallery_frames(clip)
    assert len(of_clip.frames) == 3
    assert "clip.mp4" in of_clip.description
    assert not np.array_equal(of_clip.frames[0], of_clip.frames[2])


def test_extreme_pictures_are_cropped_to_readable_cells(tmp_path: Path) -> None:
    folder = save(tmp_path / "odd", {"tall.png": flat(9, 300, 30), "wide.png": flat(9, 30, 300)})
    for name, least, most in (("tall.png", 0.79, 0.82), ("wide.png", 1.98, 2.02)):
        height, width = gallery_frames(folder / name).frames[0].shape[:2]
        assert least < width / height < most
        assert 0.95 < height * width / (640 * 360) < 1.05


def test_without_a_clip_frames_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "find_clip", lambda: None)
    found = gallery_frames(None)
    assert [frame.shape for frame in found.frames] == [(360, 640, 3)] * 3
    assert "made frames" in found.description


def test_the_demo_clip_is_credited() -> None:
    if gallery.find_clip() is None:
        pytest.skip("the demo clip is not installed: pip install 'pix2live[demo]'")
    found = gallery_frames(None)
    assert found.real
    assert "Blender Foundation" in found.description


@pytest.mark.parametrize("name", ["0", "nowhere", "empty", "/dev/null"])
def test_frames_that_are_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"--input takes|no pictures"):
        gallery_frames(tmp_path / name)


def run(*words: object) -> Result:
    return CliRunner().invoke(filters, [str(word) for word in words])


def test_the_shipped_filters_on_one_sheet(tmp_path: Path) -> None:
    picture = save(tmp_path / "in", {"a.png": texture(48, 64)}) / "a.png"
    done = run("--sheet", tmp_path / "sheet.png", "--input", picture)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert str(tmp_path / "sheet.png") in done.stdout
    assert "chosen by auto" in done.stderr
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    beside = min(5, 1 + len(filter_names()))
    assert sheet.shape[1] <= GAP_PX + beside * (CELL_PX + GAP_PX)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in", "sheet.png"]


def test_one_filter_of_mine_as_jpeg(inverting: FrameModel, tmp_path: Path) -> None:
    picture = save(tmp_path / "in", {"a.png": flat(200)}) / "a.png"
    path = tmp_path / "sheet.JPG"
    done = run(inverting.path, "--sheet", path, "--input", picture)
    assert done.exit_code == 0, done.output
    assert path.read_bytes()[:2] == b"\xff\xd8"
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape[1] == GAP_PX + 2 * (CELL_PX + GAP_PX)
    assert abs(int(sheet[200, -50, 0]) - 55) < 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--sheet", "s.gif"], "FILE.png or FILE.jpg, found s.gif"),
        (["--sheet", "s"], "FILE.png or FILE.jpg"),
        (["--sheet", "no/s.png"], "the folder no does not exist"),
        (["--sheet", "s.png", "--input", "nowhere"], "found nowhere"),
        (["--sheet", "s.png", "--input", "broken.png"], "no picture that can be read|none of the"),
        (["--sheet", "in/s.png", "--input", "in"], "would be one of the pictures of in"),
        (["--sheet", "in/a.png", "--input", "in/a.png"], "would be one of the pictures"),
        (["sepia", "--sheet", "s.png"], "no filter 'sepia'"),
    ],
)
def test_what_is_refused_leaves_nothing(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in", {"a.png": flat(9)})
    (tmp_path / "broken.png").write_bytes(b"no picture")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    done = run(*words)
    assert isinstance(done.exception, Pix2liveError), done.output
    assert "\n" not in str(done.exception)
    with pytest.raises(Pix2liveError, match=reason):
        raise done.exception
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_input_alone_is_wrong_usage(tmp_path: Path) -> None:
    done = run("--input", tmp_path)
    assert done.exit_code == 2
    assert "--sheet" in done.output


COMMAND = "pix2live train style --content photos --style painting.jpg --style-size 512 --out wave"


@pytest.fixture
def described(inverting: FrameModel, tmp_path: Path) -> FrameModel:
    card = replace(
        inverting.card,
        title="A title with [/bold] and [red]",
        domains="photo -> something with a long name",
        architecture="QuarterNet, 64 channels, 3 blocks",
        command=f"{COMMAND} --seed 3",
        measures={"warping_error_1e3": 0.712345, "training_minutes": 20},
    )
    write_frame_model(inverting.graph(), card, tmp_path / "a-rather-long-name.onnx")
    return FrameModel.read(tmp_path / "a-rather-long-name.onnx")


def said(width: int, what: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    if isinstance(what, FrameModel):
        print_card(what, console)
    else:
        console.print(what)
    return out.getvalue()


def test_a_card_has_its_command_in_one_piece_and_its_measures(described: FrameModel) -> None:
    text = said(80, described)
    assert f"{COMMAND} --seed 3" in text.splitlines(), "it can be copied"
    assert [
        line.split() for line in text.splitlines() if "warping" in line or "minutes" in line
    ] == [
        ["warping", "error", "0.7123", "x", "1e-3", "flicker", "of", "what", "moves"],
        ["training", "minutes", "20"],
    ]
    assert "A title with [/bold] and [red]" in text
    assert described.sha256 in text.replace("\n", "").replace(" ", "")


def test_a_card_without_them_is_silent_about_it(inverting: FrameModel) -> None:
    text = said(80, inverting)
    assert "made with" not in text
    assert "measured" not in text


@pytest.mark.parametrize("width", [80, 200])
def test_the_list_fits(width: int, described: FrameModel) -> None:
    lines = said(width, table_of([described, described], width)).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("a-rather-long-name ")
    assert "…" not in "".join(lines)
    assert ("QuarterNet" in lines[1]) == (width == 200)
    assert len(lines) == 3 if width == 200 else len(lines) <= 7
