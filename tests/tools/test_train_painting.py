"""Matching of neural neighbours, and painting by optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from torch import Tensor  # noqa: E402

from tools.train.crops import as_tensor  # noqa: E402
from tools.train.features import LAYERS, load_features  # noqa: E402
from tools.train.neighbours import MATCHED_BY, Neighbours, match_distance  # noqa: E402
from tools.train.painting import Painter, painted_pairs  # noqa: E402
from tools.train.pairs import Picture  # noqa: E402
from tools.train.perceptual import style_distance  # noqa: E402
from tools.train.recipe import as_unit  # noqa: E402
from tools.train.style import styles  # noqa: E402

FEATURES = (
    Path(__file__).parents[2].parent
    / "shared"
    / "assets"
    / "features"
    / "vgg_normalised_conv3_1.pth"
)


def maps(seed: int, side: int = 6) -> dict[str, Tensor]:
    """Feature maps as a feature net gives them, of a picture of 4 ``side`` pixels."""
    random = torch.Generator().manual_seed(seed)
    sizes = {"relu3_1": (256, side), "relu2_2": (128, 2 * side), "relu1_2": (64, 4 * side)}
    return {
        name: torch.rand(1, channels, size, size, generator=random)
        for name, (channels, size) in sizes.items()
    }


def test_each_place_finds_itself_wherever_it_was_moved() -> None:
    painting = maps(1)
    mean = painting[MATCHED_BY].mean((0, 2, 3))
    turned = {name: found.flip(-1) for name, found in painting.items()}
    wanted = Neighbours(painting, mean).matched({MATCHED_BY: turned[MATCHED_BY]})
    places = turned[MATCHED_BY].permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.equal(wanted[MATCHED_BY], places)
    assert float(match_distance(painting, Neighbours(painting, mean).matched(painting))) == 0
    assert float(match_distance(maps(2), Neighbours(painting, mean).matched(painting))) > 0.1


def test_light_and_contrast_do_not_change_the_neighbour() -> None:
    painting, mean = maps(1), maps(1)[MATCHED_BY].mean((0, 2, 3))
    neighbours = Neighbours(painting, mean)
    given = maps(3)[MATCHED_BY]
    centred = given - mean[:, None, None]
    flat = {MATCHED_BY: 0.25 * centred + mean[:, None, None]}
    right, found = neighbours.matched({MATCHED_BY: given}), neighbours.matched(flat)
    same = (right[MATCHED_BY] == found[MATCHED_BY]).all(-1).float().mean()
    assert float(same) > 0.9  # bfloat16 may choose otherwise between two that are as like


def test_paintings_are_made_once(tmp_path: Path) -> None:
    painted: list[int] = []

    def paint(photograph: Picture) -> Picture:
        painted.append(1)
        return 255 - photograph

    random = np.random.default_rng(0)
    photographs = [random.integers(0, 256, (16, 24, 3)).astype(np.uint8) for _ in range(3)]
    first = list(painted_pairs(photographs, paint, tmp_path, "blue"))
    again = list(painted_pairs(photographs, paint, tmp_path, "blue"))
    assert len(painted) == 3
    for one, other, photograph in zip(first, again, photographs, strict=True):
        assert np.array_equal(other.photo, photograph)
        assert np.array_equal(one.target, other.target)
        assert np.array_equal(one.target, 255 - photograph)
    list(painted_pairs(photographs[:2], paint, tmp_path, "red"))
    assert len(painted) == 5


@pytest.mark.skipif(not FEATURES.exists(), reason="needs the VGG weights of the shared assets")
def test_painting_takes_on_the_style() -> None:
    net = load_features(FEATURES)

    def seen(pictures: Tensor) -> Mapping[str, Tensor]:
        return dict(zip(LAYERS, net(pictures), strict=True))

    rows, columns = np.mgrid[:64, :64]
    stripes = np.where((rows + columns) // 16 % 2, 170, 80)
    painting = np.dstack([stripes, 0.5 * stripes, 255 - stripes]).astype(np.uint8)
    clouds = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    photograph = cv2.normalize(cv2.GaussianBlur(clouds, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    photograph = photograph.astype(np.uint8)
    sizes = [as_unit(as_tensor(painting[::step, ::step].copy())[None]) for step in (1, 2)]
    with torch.no_grad():
        looks = [seen(size) for size in sizes]
        wanted = [styles(look) for look in looks]
    neighbours = [Neighbours(look, look[MATCHED_BY].mean((0, 2, 3))) for look in looks]
    painter = Painter(seen, styles, wanted, neighbours, (0.0, 1.0, 0.0))
    painted = painter.paint(photograph, torch.device("cpu"))
    assert painted.shape == photograph.shape

    def distance(picture: Picture) -> float:
        with torch.no_grad():
            half = np.ascontiguousarray(picture[::2, ::2])
            found = styles(seen(as_unit(as_tensor(half)[None])))
        return float(style_distance(found, wanted[1]))

    assert distance(painted) < 0.5 * distance(photograph)
