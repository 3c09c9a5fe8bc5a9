"""The teachers: what a network can learn from them, and that each has its look."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.train.pairs import load_teacher
from tools.train.teachers import comic, neon, pencil, watercolour
from tools.train.teachers.edges import along_edges, contours

Teacher = Callable[[np.ndarray], np.ndarray]
ON_PAPER = [comic, pencil, watercolour]
TEACHERS = [*ON_PAPER, neon]
REACH_PX = 40
STEADY = {"comic": 1.0, "pencil": 0.4, "watercolour": 0.35, "neon": 1.0}
"""Mean change, of 255, from one noisy picture to the next; they themselves change by 2.2."""
PHOTOS = Path(__file__).parents[2].parent / "shared" / "assets" / "photos" / "clean" / "skimage"

each = pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher.__name__)
each_on_paper = pytest.mark.parametrize("teacher", ON_PAPER, ids=lambda teacher: teacher.__name__)


def room(height: int = 96, width: int = 128) -> np.ndarray:
    """Someone in front of a wall, as a webcam sees them: BGR."""
    rows, columns = np.mgrid[:height, :width]
    wall = 205 - 20 * columns / width + 8 * rows / height
    picture = (wall[..., None] * np.array([0.97, 1.0, 0.96])).astype(np.uint8)
    cv2.rectangle(picture, (96, 10), (120, 60), (160, 90, 30), -1)
    cv2.ellipse(picture, (60, 92), (34, 30), 0, 0, 360, (40, 36, 34), -1)
    cv2.ellipse(picture, (60, 42), (15, 20), 0, 0, 360, (130, 160, 205), -1)
    cv2.ellipse(picture, (60, 28), (16, 9), 0, 180, 360, (30, 40, 60), -1)
    for x in (54, 66):
        cv2.circle(picture, (x, 40), 2, (30, 30, 40), -1)
    cv2.ellipse(picture, (60, 52), (5, 2), 0, 0, 360, (80, 80, 160), -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def with_noise(picture: np.ndarray, seed: int, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def leaves(height: int = 96, width: int = 128) -> np.ndarray:
    """Green texture with detail everywhere: no part of it is left to the paper."""
    grain = np.random.default_rng(6).normal(0, 50, (height, width)).astype(np.float32)
    texture = cv2.GaussianBlur(grain, (0, 0), 1.5)[..., None]
    return np.clip(np.array([70, 150, 80]) + texture, 0, 255).astype(np.uint8)


def gradient(picture: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def lightness_of(picture: np.ndarray) -> float:
    return float(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).mean())


@each
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (31, 45), (96, 128)])
def test_the_result_has_the_size_of_the_picture(teacher: Teacher, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = teacher(picture)
    assert result.shape == picture.shape
    assert result.dtype == np.uint8


@each
def test_the_same_picture_gives_the_same_result(teacher: Teacher) -> None:
    picture = room()
    before = picture.copy()
    first, second = teacher(picture), teacher(picture)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(picture, before)


@each
def test_a_view_of_a_picture_is_a_picture(teacher: Teacher) -> None:
    mirrored = room()[:, ::-1]
    np.testing.assert_array_equal(teacher(mirrored), teacher(np.ascontiguousarray(mirrored)))


@each
@pytest.mark.parametrize("value", [0, 60, 128, 255])
def test_flat_grey_gets_no_lines_and_hardly_a_colour(teacher: Teacher, value: int) -> None:
    result = teacher(np.full((48, 64, 3), value, np.uint8)).astype(int)
    repeated = result[:4, :4]
    np.testing.assert_array_equal(result, np.tile(repeated, (12, 16, 1)))
    # Shadows are tinted on purpose, by at most this much.
    assert np.ptp(result, axis=-1).max() <= 70


@each_on_paper
def test_light_grey_is_left_to_the_paper(teacher: Teacher) -> None:
    assert teacher(np.full((32, 32, 3), 235, np.uint8)).min() >= 225


@each_on_paper
def test_darker_never_becomes_lighter(teacher: Teacher) -> None:
    tones = [lightness_of(teacher(np.full((16, 16, 3), v, np.uint8))) for v in range(0, 256, 5)]
    assert np.diff(tones).min() >= -0.5
    assert tones[-1] - tones[0] > 120


@each
def test_camera_noise_changes_little(teacher: Teacher) -> None:
    first, second = (teacher(with_noise(room(), seed)).astype(int) for seed in (1, 2))
    assert np.abs(first - second).mean() < STEADY[teacher.__name__]


@each
def test_nothing_depends_on_far_away_pixels(teacher: Teacher) -> None:
    picture = leaves()
    changed = picture.copy()
    changed[:8, :8] = 255 - changed[:8, :8]
    differs = (teacher(picture) != teacher(changed)).any(axis=-1)
    assert differs[:12, :12].any()
    differs[: 8 + REACH_PX, : 8 + REACH_PX] = False
    assert not differs.any()


@each
def test_a_teacher_knows_no_place_but_its_4_pixel_cell(teacher: Teacher) -> None:
    """What is moved by whole cells is drawn the same: otherwise no network could learn it."""
    picture = with_noise(room(128, 160), 5)
    whole, moved = teacher(picture), teacher(np.ascontiguousarray(picture[4:, 8:]))
    inner = (slice(REACH_PX, -REACH_PX), slice(REACH_PX, -REACH_PX))
    difference = np.abs(whole[4:, 8:][inner].astype(int) - moved[inner])
    assert difference.max() <= 1  # sums are rounded in another order


@each
def test_the_trainer_finds_it_by_name(teacher: Teacher) -> None:
    assert load_teacher(f"tools.train.teachers:{teacher.__name__}") is teacher


def test_the_pencil_is_nearly_grey_and_mostly_paper() -> None:
    drawing = pencil(room())
    assert np.ptp(drawing.astype(int), axis=-1).max() <= 20
    wall = drawing[:20, :36]
    assert np.mean(wall.min(axis=-1) >= 215) > 0.9
    assert np.mean(drawing.min(axis=-1) >= 215) > 0.4


def test_the_pencil_hatches_shadows_along_one_diagonal() -> None:
    shadow = pencil(np.full((32, 32, 3), 90, np.uint8)).astype(int)[..., 0]
    assert np.ptp(shadow) > 30
    np.testing.assert_allclose(shadow[1:, :-1], shadow[:-1, 1:], atol=2)
    np.testing.assert_array_equal(shadow[4:], shadow[:-4])


def test_the_pencil_draws_an_edge_darker_than_both_its_sides() -> None:
    picture = np.full((64, 64, 3), 220, np.uint8)
    picture[:, 32:] = 150
    across = pencil(picture).astype(float).mean(axis=(0, 2))
    assert across[28:38].min() < min(across[16], across[48]) - 40


def test_the_watercolour_simplifies_and_keeps_the_colours() -> None:
    painted = watercolour(leaves())
    assert gradient(painted).mean() < 0.8 * gradient(leaves()).mean()
    assert np.median(gradient(painted)) < 0.6 * np.median(gradient(leaves()))
    before, after = (
        cv2.cvtColor(p, cv2.COLOR_BGR2Lab).mean(axis=(0, 1)) for p in (leaves(), painted)
    )
    assert 0 < after[0] - before[0] < 90
    assert np.hypot(*(after - before)[1:]) < 25


@pytest.mark.parametrize("bgr", [(60, 70, 200), (190, 110, 40), (50, 160, 60), (130, 160, 205)])
def test_a_wash_is_lighter_and_of_the_same_hue(bgr: tuple[int, int, int]) -> None:
    picture = np.full((32, 32, 3), bgr, np.uint8)
    painted = watercolour(picture)
    assert lightness_of(painted) > lightness_of(picture)
    hues = [cv2.cvtColor(p, cv2.COLOR_BGR2HSV)[0, 0, 0] * 2.0 for p in (picture, painted)]
    assert abs((hues[0] - hues[1] + 180) % 360 - 180) < 20


def test_a_wash_dries_with_a_dark_rim_and_a_white_gap() -> None:
    picture = np.full((64, 64, 3), 140, np.uint8)
    picture[:, 32:] = (110, 60, 30)
    across = watercolour(picture).astype(float).mean(axis=(0, 2))
    assert across[32:38].min() < across[56] - 10
    assert across[26:32].max() > across[8] + 2


def test_washes_have_no_black() -> None:
    assert watercolour(np.zeros((32, 32, 3), np.uint8)).mean() > 60


def test_neon_is_night_where_nothing_is() -> None:
    for value in (0, 90, 235):
        assert lightness_of(neon(np.full((32, 32, 3), value, np.uint8))) < 60


def test_neon_glows_along_edges_and_dies_away() -> None:
    picture = np.full((96, 96, 3), 60, np.uint8)
    picture[:, 48:] = 200
    across = neon(picture).astype(float).mean(axis=(0, 2))
    tube = int(across.argmax())
    assert 40 <= tube <= 52
    assert across[tube] > 150
    for step in (-1, 1):
        away = [across[tube + step * distance] for distance in (0, 6, 12, 20)]
        assert away == sorted(away, reverse=True)
        assert away[0] > away[-1] + 100


def test_the_colour_of_a_tube_tells_where_it_leads_and_what_is_warm() -> None:
    upright = np.full((96, 96, 3), 60, np.uint8)
    upright[:, 48:] = 200
    level = np.ascontiguousarray(upright.transpose(1, 0, 2))
    warm = upright.copy()
    warm[:, :48] = (40, 60, 120)
    cyan, violet, pink = (
        cv2.GaussianBlur(neon(picture), (0, 0), 3.0)[44, 44].astype(int)
        for picture in (upright, level, warm)
    )
    assert cyan[1] > cyan[2] + 60  # more green than red
    assert violet[2] > violet[1] + 30
    assert pink[2] > max(pink[0], pink[1]) + 20


def test_the_looks_are_not_the_same() -> None:
    looks = [teacher(room()).astype(int) for teacher in TEACHERS]
    for number, look in enumerate(looks):
        for other in looks[number + 1 :]:
            assert np.abs(look - other).mean() > 15


def test_contours_are_dark_where_a_line_is() -> None:
    lightness = np.full((40, 40), 0.8, np.float32)
    lightness[:, 19:21] = 0.3
    found = contours(lightness, 1.0)
    assert found[20, 20] < -0.1
    assert abs(found[20, 4]) < 1e-3


def test_smoothing_follows_the_edge_and_does_not_cross_it() -> None:
    lightness = np.zeros((40, 40), np.float32)
    lightness[:, 20:] = 1
    values = lightness.copy()
    values[20, 19:21] = 0.5  # a gap in the edge
    smooth = along_edges(values, lightness)
    assert smooth[10, 18] == pytest.approx(0, abs=0.02)
    assert smooth[10, 21] == pytest.approx(1, abs=0.02)
    assert smooth[20, 19] < 0.2
    assert smooth[20, 20] > 0.8


@each_on_paper
def test_a_photograph_keeps_its_lights_and_darks(teacher: Teacher) -> None:
    path = PHOTOS / "astronaut.png"
    if not path.exists():
        pytest.skip("needs the photograph shared/assets/photos/clean/skimage/astronaut.png")
    photo = cv2.imread(str(path))
    photo = cv2.resize(photo, (300, 300), interpolation=cv2.INTER_AREA)
    coarse = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), (30, 30), interpolation=cv2.INTER_AREA)
        for p in (photo, teacher(photo))
    ]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.85
