"""On a marker's plane: where it is, through the lens too, and how pictures are drawn there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rendered import BENT, BoardViews, as_frame, edge_errors

from engines import Pixels
from realtime.effects import Context, open_effect
from realtime.effects.chain import Chain
from realtime.effects.patches import Halves, coverage, draw_on, on_plane

Floats = NDArray[np.float64]
WHITE = np.full((48, 48, 3), 255, np.uint8)
TURN, PLACE = (0.3, 0.4, 0.1), (-0.9, -0.7, 4.0)
"""Of a marker that is nearly a unit large, towards a corner of the picture."""
MARKER_SIDE = 0.9


def box(sides: float) -> Floats:
    """Return a square around the middle of a marker, in its sides."""
    corners: Floats = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * sides + 0.5
    return corners


def truth(sides: float) -> Floats:
    """Return the pixels, (4, 2), of a square around the marker that `bent_marker` shows."""
    points = np.column_stack([(box(sides) - 0.5) * MARKER_SIDE, np.zeros(4)])
    found, _ = cv2.projectPoints(
        points, np.array(TURN), np.array(PLACE), BENT.camera_matrix, BENT.distortion
    )
    return np.asarray(found, np.float64).reshape(4, 2)


def bent_marker(number: int) -> Pixels:
    """Return a marker on white paper as a camera with a lens that bends lines sees it."""
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    paper = np.full((48, 48), 255, np.uint8)
    paper[6:42, 6:42] = cv2.aruco.generateImageMarker(dictionary, number, 36)
    return BoardViews(BENT, paper).view(TURN, PLACE)


def test_coverage_is_exact_along_edges() -> None:
    for shift in (0.0, 0.25, 0.5, 0.9):
        quad = np.array([[2 + shift, 3], [12 + shift, 3], [12 + shift, 9], [2 + shift, 9]])
        row = coverage(quad, (20, 12))[6] / 255
        assert row.sum() == pytest.approx(10, abs=0.02)
        assert (row * np.arange(20)).sum() / row.sum() == pytest.approx(7 + shift, abs=0.02)
        assert np.array_equal(coverage(quad[::-1], (20, 12))[6] / 255, row), "either way around"
    assert not coverage(np.full((4, 2), 5.0), (20, 12)).any()


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_beyond_the_frame_it_is_cut_off(turn: int) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    for quad in (
        [[-50, -50], [40, -50], [40, 30], [-50, 30]],
        [[-500, -500], [900, -500], [900, 700], [-500, 700]],
        [[200, 200], [300, 200], [300, 300], [200, 300]],
    ):
        draw_on(pixels, WHITE, np.roll(np.array(quad, float), turn, axis=0))
    assert (pixels == 255).all()


def test_a_plane_that_goes_behind_the_camera_is_not_drawn() -> None:
    steep = np.array([[300, 200], [340, 200], [380, 260], [260, 260]], float)
    assert on_plane(steep, box(1)) == pytest.approx(steep)
    assert on_plane(steep, box(8)) is None
    assert on_plane(np.zeros((4, 2)), box(1)) is None


def test_a_lens_that_bends_is_reckoned_with() -> None:
    """What is larger than the marker lies where the plane is, not where straight lines go."""
    found, straight = on_plane(truth(1), box(2), BENT), on_plane(truth(1), box(2))
    assert found == pytest.approx(truth(2), abs=0.1)
    assert straight is not None
    assert np.abs(straight - truth(2)).max() > 1
    far = on_plane(truth(1), box(12), BENT)
    assert far == pytest.approx(on_plane(truth(1), box(12))), "no lens formula holds far outside"


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize(
    "specs",
    [
        ("marker:7={paper};scale=2;{lens}",),
        ("markers:{lens}", "picture:{paper};marker=7;width=2"),
        ("marker:8={paper};{lens}", "markers", "picture:{paper};marker=7;width=2"),
    ],
)
def test_every_effect_on_a_plane_respects_the_lens(
    specs: tuple[str, ...], calibrated: bool, tmp_path: Path
) -> None:
    paper, lens = tmp_path / "paper.png", tmp_path / "lens.json"
    assert cv2.imwrite(str(paper), WHITE)
    BENT.save(lens)
    words = {"paper": paper, "lens": f"calibration={lens}" if calibrated else ""}
    chain = Chain([open_effect(spec.format(**words)) for spec in specs])
    context = Context(size=BENT.size, live=False)
    chain.prepare(BENT.size, context)
    frame = as_frame(bent_marker(7), 0)
    chain.apply(frame, context)
    chain.close()
    errors = edge_errors(frame.pixels[..., 0], truth(2))
    assert len(errors) > 50
    assert (np.percentile(errors, 95) <= 1.0) == calibrated


@pytest.mark.parametrize("size", [(8, 8), (400, 400), (900, 90)])
@pytest.mark.parametrize("channels", [3, 4])
def test_opaque_or_with_alpha_it_is_the_same_picture(size: tuple[int, int], channels: int) -> None:
    """Of an opaque picture, alpha and no alpha, at any size."""
    quad = np.array([[20.0, 12.0], [95.0, 20.0], [85.0, 66.0], [30.5, 70.0]])
    picture = np.full((size[1], size[0], channels), 255, np.uint8)
    pixels = np.zeros((80, 120, 3), np.uint8)
    draw_on(pixels, Halves(picture).fitting(quad), quad)
    covered = coverage(quad, (120, 80))
    assert np.abs(pixels.astype(int) - covered[..., None]).max() <= 1


def test_half_of_alpha_shows_half() -> None:
    picture = np.full((10, 20, 4), (5, 10, 100, 128), np.uint8)  # multiplied by alpha
    pixels = np.full((40, 60, 3), 200, np.uint8)
    draw_on(pixels, picture, np.array([[10.0, 10], [50, 10], [50, 30], [10, 30]]))
    assert pixels[20, 30].tolist() == pytest.approx([105, 110, 200], abs=1)
    assert pixels[5, 5].tolist() == [200, 200, 200]


@pytest.mark.parametrize(
    ("size", "drawn", "wanted"),
    [
        ((640, 640), (100, 100), (160, 160)),
        ((640, 64), (320, 32), (320, 32)),
        ((640, 64), (330, 33), (640, 64)),
        ((1000, 100), (100, 10), (125, 12)),
        ((16, 16), (400, 400), (16, 16)),
        ((1, 300), (1, 1), (1, 300)),
    ],
)
def test_a_copy_is_less_than_twice_as_large_as_drawn(
    size: tuple[int, int], drawn: tuple[int, int], wanted: tuple[int, int]
) -> None:
    copies = Halves(np.zeros((size[1], size[0], 3), np.uint8))
    width, height = drawn
    quad = np.array([[0.0, 0], [width, 0], [width, height], [0, height]])
    for _ in range(2):
        assert copies.fitting(quad).shape[1::-1] == wanted
    assert copies.fitting(64 * quad).shape[1::-1] == size, "and drawn larger, all of it"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("marker:8", "marker 8 was in none of 1 frame; seen: 7"),
        ("inside-markers:1,2,3,7", "markers 1, 2, 3 were in none of 1 frame; seen: 7"),
    ],
)
def test_markers_that_never_came_are_said_at_the_end(spec: str, said: str) -> None:
    effect = open_effect(spec)
    context = Context(size=BENT.size)
    effect.prepare(BENT.size, context)
    effect.process(as_frame(bent_marker(7), 0), context)
    assert effect.notes == []
    effect.close()
    effect.close()
    assert [note.partition(" (")[0] for note in effect.notes] == [said]
