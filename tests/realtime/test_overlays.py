"""Overlays: exact where they are, nothing where they are not, in place on a marker's plane."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import patient
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import EffectError, Pixels, SettingsError
from realtime.effects import Context, Effect, open_effect
from realtime.effects.overlays import PictureOverlay, StatusOverlay, TextOverlay
from realtime.effects.patches import Patch
from realtime.frame import Frame

SIZE = (120, 80)
GREY = 100


def grey(size: tuple[int, int] = SIZE) -> Pixels:
    return np.full((size[1], size[0], 3), GREY, np.uint8)


def draw(
    effect: Effect | str, context: Context | None = None, size: tuple[int, int] = SIZE
) -> Pixels:
    """Return what the effect draws on grey; what was captured must not change."""
    effect = open_effect(effect)
    context = context or Context(size=size)
    effect.prepare(size, context)
    captured = np.full((size[1], size[0], 3), 7, np.uint8)
    made = effect.process(Frame(grey(size), captured), context)
    assert (captured == 7).all()
    assert made.shape == captured.shape
    assert made.dtype == np.uint8
    return made


def changed(picture: Pixels) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what is not grey."""
    rows, columns = ((picture != GREY).any(axis=(axis, 2)).nonzero()[0] for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def logo(folder: Path, width: int = 20, height: int = 10, alpha: int = 255) -> Path:
    """Write one colour with one alpha."""
    path = folder / "logo.png"
    picture = np.full((height, width, 4), (10, 20, 200, alpha), np.uint8)
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize(
    ("at", "box"),
    [
        ("5,7", (5, 7, 25, 17)),
        ("-5,7", (95, 7, 115, 17)),
        ("5,-7", (5, 63, 25, 73)),
        ("-0,-0", (100, 70, 120, 80)),
        ("0,0", (0, 0, 20, 10)),
        ("110,75", (110, 75, 120, 80)),
        ("-110,-75", (0, 0, 10, 5)),
    ],
)
def test_it_is_where_it_was_put(tmp_path: Path, at: str, box: tuple[int, int, int, int]) -> None:
    picture = draw(f"picture:{logo(tmp_path)};at={at}")
    assert changed(picture) == box
    left, top, right, bottom = box
    assert (picture[top:bottom, left:right] == (10, 20, 200)).all()


def test_alpha_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "ramp.png"
    ramp = np.zeros((1, 100, 4), np.uint8)
    ramp[..., :3] = (255, 0, 50)
    ramp[..., 3] = np.linspace(0, 255, 100).round()
    cv2.imwrite(str(path), ramp)
    alpha = ramp[0, :, 3:] / 255
    wanted = alpha * ramp[0, :, :3] + (1 - alpha) * GREY
    drawn = draw(f"picture:{path};at=0,0")[0, :100]
    assert np.abs(drawn - wanted).max() <= 1
    assert tuple(drawn[0]) == (GREY,) * 3
    assert tuple(drawn[-1]) == (255, 0, 50)
    half = draw(f"picture:{path};at=0,0;opacity=0.5")[0, :100]
    assert np.abs(half - (wanted + GREY) / 2).max() <= 1.5
    assert (draw(f"picture:{path};at=0,0;opacity=0") == GREY).all()


@pytest.mark.parametrize("width", [7, 40, 64, 90])
def test_scaling_keeps_the_proportions_and_clean_edges(tmp_path: Path, width: int) -> None:
    """A red disc; what is under alpha 0 is green and must never be seen."""
    path = tmp_path / "disc.png"
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[..., 1] = 255
    cv2.circle(picture, (32, 32), 28, (0, 0, 255, 255), -1)
    cv2.imwrite(str(path), picture)
    for words in (f"at=2,2;width={width}", "marker=3"):
        context = Context()
        corners = np.array([[20, 10], [90, 20], [80, 70], [25, 75]], np.float32)
        context.markers[3] = SimpleNamespace(corners=corners)
        drawn = draw(f"picture:{path};{words}", context, (100, 100))
        assert drawn[..., 1].max() <= GREY + 1
        assert drawn[..., 2].max() >= 250
    left, top, right, bottom = changed(
        draw(f"picture:{path};at=2,2;width={width}", size=(100, 100))
    )
    assert abs((right - left) - width * 57 / 64) <= 2
    assert abs((right - left) - (bottom - top)) <= 1


@pytest.mark.parametrize("kind", ["grey", "colour", "deep", "deep grey", "jpeg"])
def test_any_kind_of_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("p.jpg" if kind == "jpeg" else "p.png")
    value = 200 * 257 if kind.startswith("deep") else 200
    shape = (6, 8) if "grey" in kind else (6, 8, 4 if kind == "deep" else 3)
    picture = np.full(shape, value, np.uint16 if kind.startswith("deep") else np.uint8)
    if kind == "deep":
        picture[..., 3] = 65535
    assert cv2.imwrite(str(path), picture)
    drawn = draw(f"picture:{path};at=1,1")
    assert (drawn[1:7, 1:9] == 200).all()
    assert changed(drawn) == (1, 1, 9, 7)


def test_larger_than_the_frame_is_cut_off_and_a_note_says_so(tmp_path: Path) -> None:
    effect = PictureOverlay(logo(tmp_path, 400, 300), at=(-10, -10))
    picture = draw(effect)
    assert changed(picture) == (0, 0, 110, 70)
    (note,) = effect.notes
    assert note.endswith("logo.png (400x300 pixels) does not fit into 120x80: cut off")
    draw(effect)
    assert len(effect.notes) == 1, "not once more for each change of the size"
    outside = PictureOverlay(logo(tmp_path), at=(500, 500))
    assert (draw(outside) == GREY).all()
    assert "cut off" in outside.notes[0]
    small = PictureOverlay(logo(tmp_path))
    draw(small)
    assert small.notes == []


@patient
@given(
    left=st.integers(-300, 300),
    top=st.integers(-300, 300),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
)
def test_nothing_is_drawn_outside_of_the_box(left: int, top: int, width: int, height: int) -> None:
    picture = np.full((height, width, 4), 255, np.uint8)
    guarded = np.full((100, 140, 3), GREY, np.uint8)
    Patch.of(picture).draw(guarded[10:90, 10:130], left, top)
    wanted = np.zeros((100, 140), bool)
    inner = wanted[10:90, 10:130]
    inner[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = True
    assert np.array_equal((guarded == 255).all(axis=2), wanted)
    assert (guarded[~wanted] == GREY).all()


def on_marker(effect: str, corners: list[list[float]], size: tuple[int, int] = SIZE) -> Pixels:
    context = Context()
    context.markers[7] = SimpleNamespace(corners=np.array(corners, np.float32))
    return draw(effect, context, size)


def filled(corners: list[list[float]], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return how much of each pixel lies in the quadrilateral, by 16 x 16 samples."""
    fine = np.zeros((size[1] * 16, size[0] * 16), np.uint8)
    places = np.rint((np.array(corners) + 0.5) * 16 - 0.5).astype(np.int32)
    cv2.fillConvexPoly(fine, places, (255,))
    small = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float64) / 255


@pytest.mark.parametrize("side", [8, 64, 700])
def test_on_a_marker_its_edges_are_where_the_marker_is(tmp_path: Path, side: int) -> None:
    corners = [[20.0, 12.0], [95.0, 20.0], [85.0, 66.0], [30.5, 70.0]]
    path = logo(tmp_path, side, side)
    drawn = on_marker(f"picture:{path};marker=7", corners)
    covered = (drawn[..., 2].astype(float) - GREY) / (200 - GREY)
    wanted = filled(corners, SIZE)
    assert abs(covered.sum() - wanted.sum()) < 0.03 * wanted.sum()
    sure = cv2.erode(wanted, np.ones((3, 3))) == 1
    far = cv2.dilate(wanted, np.ones((3, 3))) == 0
    assert covered[sure].min() > 0.99
    assert covered[far].max() == 0


def test_places_on_a_marker_are_in_its_sides(tmp_path: Path) -> None:
    corners = [[40.0, 30.0], [60.0, 30.0], [60.0, 50.0], [40.0, 50.0]]
    path = logo(tmp_path, 80, 40)
    for words, box in (
        ("", (40, 35, 60, 45)),
        (";width=2", (30, 30, 70, 50)),
        (";at=0,0", (40, 30, 60, 40)),
        (";at=-1,-1;width=0.5", (20, 10, 30, 15)),
    ):
        found = changed(on_marker(f"picture:{path};marker=7{words}", corners))
        assert np.abs(np.subtract(found, box)).max() <= 1, words
    turned = [*corners[1:], corners[0]]  # the marker's own top left is now at the top right
    left, top, right, bottom = changed(on_marker(f"picture:{path};marker=7", turned))
    assert (bottom - top, right - left) == pytest.approx((20, 10), abs=2)


def test_without_the_marker_there_is_nothing(tmp_path: Path) -> None:
    effect = PictureOverlay(logo(tmp_path), marker=8)
    context = Context()
    context.markers[7] = SimpleNamespace(corners=np.zeros((4, 2), np.float32))
    assert (draw(effect, context) == GREY).all()
    assert not effect.notes
    context.markers.clear()
    draw(effect, context)
    assert "no effect before it looks for markers" in effect.notes[0]


@pytest.mark.parametrize(
    "corners",
    [
        [[10, 10], [10, 10], [10, 10], [10, 10]],
        [[10, 10], [50, 10], [90, 10], [20, 10]],
        [[float("nan"), 10], [50, 10], [50, 50], [10, 50]],
        [[10, 10], [50, 50], [50, 10], [10, 50]],
        [[-1e4, -1e4], [-9e3, -1e4], [-9e3, -9e3], [-1e4, -9e3]],
        [[-1e5, -1e5], [1e5, -1e5], [1e5, 1e5], [-1e5, 1e5]],
    ],
)
def test_strange_corners_are_no_trouble(tmp_path: Path, corners: list[list[float]]) -> None:
    on_marker(f"picture:{logo(tmp_path)};marker=7;at=-3,-3;width=9", corners)


def test_what_would_be_behind_the_camera_is_not_drawn(tmp_path: Path) -> None:
    leaning = [[50.0, 30.0], [70.0, 30.0], [90.0, 60.0], [30.0, 60.0]]
    near = on_marker(f"picture:{logo(tmp_path, 20, 20)};marker=7;at=0,0.2", leaning)
    assert (near != GREY).any()
    beyond = on_marker(f"picture:{logo(tmp_path, 20, 20)};marker=7;at=0,5", leaning)
    assert (beyond == GREY).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "cannot read the picture .*logo.png: No such file"),
        (b"", "logo.png is no picture that can be read"),
        (b"hello", "logo.png is no picture that can be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "logo.png is no picture that can be read"),
    ],
)
def test_a_file_that_is_no_picture(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / "logo.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(EffectError, match=said):
        draw(PictureOverlay(path))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("picture", "say which file: picture:logo.png"),
        ("picture:;at=1,1", "say which file"),
        ("picture:a.png;at=1", "at must be 2 numbers, found '1'"),
        ("picture:a.png;at=x,1", "at must be a number, found 'x'"),
        ("picture:a.png;width=0", "the width must be more than 0, found 0"),
        ("picture:a.png;opacity=2", "the opacity must be 0 to 1, found 2"),
        ("picture:a.png;marker=left", "picture: a marker is a whole number from 0, found 'left'"),
        ("picture:a.png;marker=-1", "picture: a marker is a whole number"),
        ("picture:a.png;weight=2", "does not know 'weight'"),
        ("picture:a.png;widht=2", r"does not know 'widht' \(did you mean width=\?\)"),
        ("text", "there is none: text:Hello"),
        ("text: ;size=20", "there is none"),
        ("text:Hi;size=2000", "the size must be 4 to 500 pixels, found 2000"),
        ("text:Hi;colour=reddish", "text: a colour is #rrggbb or one of white, .* 'reddish'"),
        ("text:Hi;colour=#12345", "found '#12345'"),
        ("text:Hi;colour=ffcc00", "found 'ffcc00'"),
        ("text:Hi;colour=ff cc 00", "found 'ff cc 00'"),
        ("key:ffcc00", "key: a colour is #rrggbb or one of green, .* found 'ffcc00'"),
        ("key:#ff cc 00", "found '#ff cc 00'"),
        ("text:Hi;large", "does not know 'large'"),
        ("status:left", "does not know 'left'"),
    ],
)
def test_words_that_mean_nothing(spec: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        open_effect(spec)


def test_a_width_that_would_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at most 8192 a side"):
        draw(f"picture:{logo(tmp_path)};width=1000000")


def test_text_has_its_colour_an_outline_and_its_place() -> None:
    assert TextOverlay("Hello", colour="Red").colour == (0, 0, 255), "BGR"
    picture = draw("text:Hello;at=10,20;size=24;colour=#ff8000")
    left, top, right, bottom = changed(picture)
    assert 10 <= left <= 14
    assert 20 <= top <= 26
    assert 45 < right - left < 90
    assert 16 < bottom - top < 30
    assert (np.abs(picture.astype(int) - (0, 128, 255)).max(axis=2) < 10).any(), "the ink"
    assert (picture.max(axis=2) < 20).any(), "the outline"
    at_the_right = changed(draw("text:Hello;at=-10,-20"))
    assert 104 <= at_the_right[2] <= 110
    assert at_the_right[3] <= 60


def test_text_may_be_large_or_have_lines_or_strange_signs() -> None:
    small, large = (changed(draw(TextOverlay("Ag", size_px=size))) for size in (12, 48))
    assert 3.2 < (large[3] - large[1]) / (small[3] - small[1]) < 4.8
    one, two = (changed(draw(TextOverlay(text, size_px=14))) for text in ("Ag", "Ag\nAg"))
    assert two[3] - two[1] > 1.7 * (one[3] - one[1])
    overlay = open_effect("text:1 + 1 = 2?;at=0,0")
    assert isinstance(overlay, TextOverlay)
    assert overlay.text == "1 + 1 = 2?"


def test_letters_that_the_font_has_not_are_an_error_and_no_question_mark() -> None:
    for text in ("smile \U0001f600", "\ue000", "bell \x07", "tab\t"):
        with pytest.raises(SettingsError, match=r"has no .*; leave it out, or draw"):
            TextOverlay(text)
    TextOverlay("".join(map(chr, range(33, 127))) + " ?")


def test_letters_beyond_ascii_are_drawn_or_refused() -> None:
    """OpenCV 5 has them, OpenCV 4 has not; neither may draw question marks."""
    for text in ("Grüße", "Привет", "日本"):
        if cv2.__version__ < "5":
            with pytest.raises(SettingsError, match="has no"):
                TextOverlay(text)
            continue
        drawn = draw(TextOverlay(text, at=(0, 0), size_px=20))
        marks = draw(TextOverlay("?" * len(text), at=(0, 0), size_px=20))
        assert not np.array_equal(drawn, marks)


def test_the_status_tells_filter_fps_and_age() -> None:
    def status(**known: float | str | None) -> Pixels:
        context = Context(size=(640, 360))
        for name, value in {"label": "comic", "age_ms": 34.0, "shown_fps": 29.9, **known}.items():
            setattr(context, name, value)
        return draw("status", context, (640, 360))

    picture = status()
    left, top, right, bottom = changed(picture)
    assert (left, top) == (0, 0)
    assert right < 320
    assert bottom < 60
    assert picture.max() == 255
    for other in (status(age_ms=35.0), status(shown_fps=10.0), status(label="pencil")):
        assert not np.array_equal(picture, other)
    assert status(shown_fps=None).max() == 255, "at the beginning nobody knows"
    assert changed(draw("status:bottom", size=(640, 360)))[3] == 360


def test_what_is_opened() -> None:
    for spec, kind in (
        ("picture:a.png", PictureOverlay),
        ("text:Hi", TextOverlay),
        ("status", StatusOverlay),
    ):
        effect = open_effect(spec)
        assert isinstance(effect, kind)
        assert effect.name == spec.partition(":")[0]
        assert 0 < effect.latency_ms < 1
        effect.close()
        effect.close()


def test_no_error_but_ours_from_damaged_files(tmp_path: Path) -> None:
    data = logo(tmp_path, 40, 30).read_bytes()
    path = tmp_path / "damaged.png"
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with contextlib.suppress(EffectError):  # what is nearly whole may be drawn
            draw(PictureOverlay(path))
