"""Views: what each shows, and that no frame is ever changed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from clips import patient
from hypothesis import given
from hypothesis import strategies as st

from engines import Pixels, SettingsError
from realtime import Frame
from realtime.effects.views import (
    AMPLIFIED,
    KEYS,
    LINE_COLOUR,
    VIEWS,
    Presenter,
    check_view,
    draw_label,
    draw_panel,
    view_size,
)

sides = st.integers(1, 200)
label_sides = st.integers(64, 400)
words = st.text(st.characters(codec="utf-8"), max_size=60)
views = st.sampled_from(VIEWS)


def pair(width: int, height: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    """Return (captured, translated): noise, dark and bright."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    return rng.integers(0, 100, shape, np.uint8), rng.integers(100, 200, shape, np.uint8)


@patient
@given(width=sides, height=sides)
def test_each_view_shows_what_it_says(width: int, height: int) -> None:
    source, pixels = pair(width, height)
    frame = Frame(pixels, source)
    assert Presenter("filtered").render(frame) is pixels
    assert np.array_equal(Presenter("original").render(frame), source)

    both = Presenter("side-by-side").render(frame)
    assert np.array_equal(both[:, :width], source)
    assert np.array_equal(both[:, width:], pixels)

    split = Presenter("split").render(frame)
    middle = width // 2
    line = slice(max(0, middle - 1), middle + 1)
    assert np.array_equal(split[:, : line.start], source[:, : line.start])
    assert np.array_equal(split[:, line.stop :], pixels[:, line.stop :])
    assert (split[:, line] == LINE_COLOUR).all()


@patient
@given(view=views, overlay=st.booleans(), text=words, width=sides, height=sides)
def test_no_frame_is_changed_and_the_size_is_as_announced(
    view: str, overlay: bool, text: str, width: int, height: int
) -> None:
    source, pixels = pair(width, height)
    before = source.copy(), pixels.copy()
    shown = Presenter(view, overlay=overlay).render(Frame(pixels, source), text)
    assert np.array_equal(source, before[0])
    assert np.array_equal(pixels, before[1])
    assert shown.shape[1::-1] == view_size(view, (width, height))
    assert shown.dtype == np.uint8
    assert shown.flags.c_contiguous


@patient
@given(width=label_sides, height=label_sides, text=words)
def test_the_label_stays_in_its_corner(width: int, height: int, text: str) -> None:
    guarded = np.full((height + 40, width + 40, 3), 200, np.uint8)
    inner = guarded[20:-20, 20:-20]
    draw_label(inner, text)
    guarded[20:-20, 20:-20] = 200
    assert (guarded == 200).all(), "outside of the picture"
    picture = np.full((height, width, 3), 200, np.uint8)
    draw_label(picture, text)
    changed = np.argwhere((picture != 200).any(axis=2))
    assert changed[:, 0].min() >= height // 3
    assert changed[:, 0].max() == height - 1
    assert changed[:, 1].min() == 0
    assert tuple(picture[-1, 0]) == (50, 50, 50), "darkened"


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (1920, 1080)])
def test_the_label_is_large_enough_and_small_enough(size: tuple[int, int]) -> None:
    picture = np.full((size[1], size[0], 3), 200, np.uint8)
    draw_label(picture, "comic  29.9 fps  age  34 ms")
    dark = (picture != 200).any(axis=2)
    assert 0.05 < dark.any(axis=1).mean() < 0.16
    assert 0.15 < dark.any(axis=0).mean() < 0.7
    assert picture.max() == 255, "white text"


def test_the_box_does_not_twitch_with_the_digits() -> None:
    widths = set()
    for age_ms in range(30, 50):
        picture = np.full((360, 640, 3), 200, np.uint8)
        draw_label(picture, f"comic   29.{age_ms % 10} fps  age {age_ms:3.0f} ms")
        widths.add(int((picture != 200).any(axis=(0, 2)).sum()))
    assert len(widths) <= 2


def test_the_difference_is_black_where_nothing_was_changed() -> None:
    source = pair(64, 48)[0]
    pixels = source.copy()
    pixels[10, 20] += 7
    pixels[30, 40] += 150  # more than can be shown
    shown = Presenter("difference").render(Frame(pixels, source)).copy()
    assert tuple(shown[10, 20]) == (7 * AMPLIFIED,) * 3
    assert tuple(shown[30, 40]) == (255,) * 3
    shown[10, 20] = shown[30, 40] = 0
    assert not shown.any()
    swapped = Presenter("difference").render(Frame(source, pixels))
    assert tuple(swapped[10, 20]) == (7 * AMPLIFIED,) * 3, "either may be the brighter one"


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (97, 41)])
def test_the_picture_in_picture_is_all_of_the_captured_one(size: tuple[int, int]) -> None:
    source, pixels = (np.full((size[1], size[0], 3), value, np.uint8) for value in (90, 10))
    source[: size[1] // 2] = 200
    shown = Presenter("picture-in-picture").render(Frame(pixels, source))
    captured = (shown == 90).all(axis=2) | (shown == 200).all(axis=2)
    rows, columns = captured.any(axis=1), captured.any(axis=0)
    assert 0.24 < rows.mean() < 0.36
    assert 0.24 < columns.mean() < 0.36
    assert 0.4 < (shown == 200).all(axis=2).sum() / captured.sum() < 0.6, "scaled, not cut"
    first = np.flatnonzero(rows)[0], np.flatnonzero(columns)[0]
    assert (shown[: first[0] - 4] == 10).all()
    assert (shown[:, : first[1] - 4] == 10).all()
    assert (shown[-1] == 10).all()


@patient
@given(part=st.floats(-2, 3), width=st.integers(4, 200))
def test_the_split_line_is_where_it_was_dragged_to(part: float, width: int) -> None:
    source, pixels = pair(width, 8)
    presenter = Presenter("split")
    presenter.drag(part)
    assert presenter.split_at == min(max(part, 0), 1)
    shown = presenter.render(Frame(pixels, source))
    line = int(width * presenter.split_at)
    captured = (shown == source).all(axis=(0, 2))
    assert captured[: max(0, line - 1)].all()
    assert not captured[line + 1 :].any()


def test_there_is_nothing_to_drag_in_other_views() -> None:
    for view in VIEWS:
        presenter = Presenter(view, split_at=0.25)
        presenter.drag(0.75)
        assert presenter.split_at == (0.75 if view == "split" else 0.25)


def test_the_line_may_be_moved_from_another_thread_while_it_renders() -> None:
    source, pixels = pair(64, 64)
    presenter = Presenter("split")
    done = threading.Event()

    def move() -> None:
        for number in range(3000):
            presenter.split_at = number % 65 / 64
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    while not done.is_set():
        shown = presenter.render(Frame(pixels, source))
        captured = (shown[..., 0] < 100).all(axis=0)
        line = int((~captured).argmax()) if not captured.all() else 64
        assert not captured[line:].any(), "one line"
    mover.join()


@pytest.mark.parametrize("part", [-0.01, 1.01, float("nan")])
def test_a_line_outside_of_the_picture(part: float) -> None:
    with pytest.raises(SettingsError, match="split_at is a part of the width, 0 to 1, found"):
        Presenter("split", split_at=part)
    presenter = Presenter("split")
    with pytest.raises(SettingsError, match="split_at is a part of the width"):
        presenter.split_at = part
    assert presenter.split_at == 0.5


def test_each_key_changes_to_its_view_and_back() -> None:
    presenter = Presenter()
    actions = presenter.actions()
    assert set(actions) == set(KEYS) == {"f", "s", "i", "d"}
    for key, view in KEYS.items():
        assert actions[key]() == f"view: {view}"
        assert presenter.view == view
        assert actions[key]() == "view: filtered"
    actions["s"]()
    assert actions["d"]() == "view: difference", "from one to another"


def test_rows_and_columns() -> None:
    picture = np.full((360, 640, 3), 200, np.uint8)
    draw_panel(picture, [])
    assert (picture == 200).all()
    draw_panel(picture, [("q", "quit"), ("f", "filter on or off")])
    dark = (picture != 200).any(axis=2)
    assert dark[0, 0]
    assert not dark[180:].any()


def test_a_view_that_wants_what_is_not_there_shows_the_frame() -> None:
    pixels = pair(64, 64)[1]
    for view in VIEWS:
        assert Presenter(view).render(Frame(pixels)) is pixels


def test_only_the_filtered_view_does_without_the_source() -> None:
    assert [view for view in VIEWS if not Presenter(view).needs_source] == ["filtered"]


def test_views_and_sizes_may_change_while_it_runs() -> None:
    presenter = Presenter(overlay=True)
    for view in (*VIEWS, *VIEWS):
        presenter.view = view
        for width in (64, 65, 128):
            source, pixels = pair(width, 64)
            shown = presenter.render(Frame(pixels, source), "text")
            assert shown.shape[1::-1] == view_size(view, (width, 64))
            assert shown is not pixels


def test_no_such_view() -> None:
    with pytest.raises(SettingsError, match="no view 'upside-down'; there are: filtered, split"):
        check_view("upside-down")
