"""Picture metrics and feature distances: against direct computations and known answers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_filters import Picture, texture

from engines import SettingsError
from tools.evaluation import distances
from tools.evaluation.distances import kernel_distance, pooled_features, squared_mmd
from tools.evaluation.metrics import l1, psnr_db, ssim

ROOT = Path(__file__).parent.parent.parent
VGG = ROOT.parent / "shared" / "assets" / "features" / "vgg_normalised_conv3_1.pth"


def grey(level: int, height: int = 32, width: int = 40) -> Picture:
    return np.full((height, width, 3), level, np.uint8)


def test_l1_and_psnr_of_a_known_difference() -> None:
    random = np.random.default_rng(1)
    right = random.integers(20, 236, (32, 40, 3), dtype=np.uint8)
    found = (right + random.choice([-7, 7], right.shape)).astype(np.uint8)
    assert l1(found, right) == 7
    assert psnr_db(found, right) == pytest.approx(20 * np.log10(255 / 7))
    assert psnr_db(grey(0), grey(255)) == 0
    assert psnr_db(right, right) == 99
    one_colour = right.copy()
    one_colour[..., 0] += 9
    assert l1(one_colour, right) == 3
    assert psnr_db(one_colour, right) == pytest.approx(10 * np.log10(255**2 / 27))


def test_psnr_of_normal_noise() -> None:
    noise = np.random.default_rng(2).normal(0, 10, (200, 200, 3))
    found = np.round(128 + noise).astype(np.uint8)
    right = 10 * np.log10(255**2 / (10**2 + 1 / 12))
    assert psnr_db(found, grey(128, 200, 200)) == pytest.approx(right, abs=0.05)


def direct_ssim(found: Picture, right: Picture) -> float:
    """Window by window, as the paper says it (Wang et al. 2004)."""
    place = np.arange(11) - 5
    weights = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    x, y = (
        0.299 * picture[..., 2] + 0.587 * picture[..., 1] + 0.114 * picture[..., 0]
        for picture in (found.astype(float), right.astype(float))
    )
    values = []
    for top, left in itertools.product(range(x.shape[0] - 10), range(x.shape[1] - 10)):
        one, other = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
        mean_one, mean_other = (weights * one).sum(), (weights * other).sum()
        variance_one = (weights * (one - mean_one) ** 2).sum()
        variance_other = (weights * (other - mean_other) ** 2).sum()
        covariance = (weights * (one - mean_one) * (other - mean_other)).sum()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        values.append(
            (2 * mean_one * mean_other + c1)
            * (2 * covariance + c2)
            / ((mean_one**2 + mean_other**2 + c1) * (variance_one + variance_other + c2))
        )
    return float(np.mean(values))


@pytest.mark.parametrize("sigma", [2, 20, 80])
def test_ssim_is_that_of_the_paper(sigma: int) -> None:
    right = texture(24, 31)
    noise = np.random.default_rng(4).normal(0, sigma, right.shape)
    found = np.clip(right + noise, 0, 255).astype(np.uint8)
    assert ssim(found, right) == pytest.approx(direct_ssim(found, right), abs=1e-9)
    assert ssim(right, found) == pytest.approx(ssim(found, right))


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    c1 = (0.01 * 255) ** 2
    right = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(grey(100, 11, 11), grey(150, 11, 11)) == pytest.approx(right)
    picture = texture(20, 30)
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(255 - picture, picture) < 0.2


def test_pictures_that_cannot_be_compared() -> None:
    for metric in (l1, psnr_db, ssim):
        with pytest.raises(SettingsError, match="two pictures of one size") as refused:
            metric(grey(1, 32, 40), grey(1, 32, 48))
        assert "40x32 and 48x32" in str(refused.value)
    with pytest.raises(SettingsError, match="11x11 or more, found 40x10"):
        ssim(grey(1, 10, 40), grey(1, 10, 40))


def brute_force(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    m, n = len(one), len(other)
    same_one = sum(kernel(one[i], one[j]) for i in range(m) for j in range(m) if i != j)
    same_other = sum(kernel(other[i], other[j]) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(x, y) for x in one for y in other)
    return same_one / (m * (m - 1)) + same_other / (n * (n - 1)) - 2 * across / (m * n)


def test_squared_mmd_is_its_formula() -> None:
    random = np.random.default_rng(5)
    one, other = random.normal(0, 1, (7, 5)), random.normal(0.5, 2, (9, 5))
    assert squared_mmd(one, other) == pytest.approx(brute_force(one, other))


def test_the_kernel_distance_is_the_mean_of_blocks() -> None:
    random = np.random.default_rng(6)
    one, other = random.normal(0, 1, (20, 4)), random.normal(0.2, 1, (24, 4))
    found = kernel_distance(one, other, blocks=5, seed=8)
    again = np.random.default_rng(8)
    values = []
    for _ in range(5):
        first = one[again.choice(20, 10, replace=False)]
        values.append(brute_force(first, other[again.choice(24, 10, replace=False)]))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values))
    assert (found.blocks, found.block_size) == (5, 10)


def test_halves_of_one_set_are_nothing_apart_on_average() -> None:
    random = np.random.default_rng(7)
    values = []
    for _ in range(200):
        both = random.gamma(2.0, 1.0, (40, 8))
        values.append(squared_mmd(both[:20], both[20:]))
    mean, error = np.mean(values), np.std(values) / np.sqrt(len(values))
    assert abs(mean) < 3 * error
    assert min(values) < 0 < max(values)  # a biased estimate is never negative
    other = random.gamma(2.0, 1.0, (40, 8))
    apart = kernel_distance(both, other + 0.5)
    assert apart.mean > 5 * abs(kernel_distance(both, other).mean)


def test_too_few_pictures_for_the_kernel_distance() -> None:
    features = np.random.default_rng(1).normal(0, 1, (12, 4))
    with pytest.raises(SettingsError, match="10 pictures or more on both sides, found 12 and 9"):
        kernel_distance(features, features[:9])


def colour_net():  # type: ignore[no-untyped-def]
    """Each pixel's colour is its feature; and a second map of half the size."""
    torch = pytest.importorskip("torch", reason="a feature net needs torch")

    class Colours(torch.nn.Module):  # type: ignore[misc, name-defined]
        layers = ("colours", "half")

        def forward(self, images):  # type: ignore[no-untyped-def]
            return [images, torch.nn.functional.avg_pool2d(images, 2)]

    return Colours()


def test_perceptual_distance_of_known_features() -> None:
    net = colour_net()
    red, blue, black = grey(0), grey(0), grey(0)
    red[..., 2] = 255
    blue[..., 0] = 10
    yellow = red.copy()
    yellow[..., 1] = 255
    dim_red = red // 5
    found = distances.perceptual_distances(net, red, [red, blue, dim_red, yellow, black])
    # Unit vectors: equal, at right angles, equal (only the direction counts), 45 degrees, none.
    assert found == pytest.approx([0, 2, 0, 2 - np.sqrt(2), 1], abs=1e-6)
    half = red.copy()
    half[:, :20] = blue[:, :20]
    assert distances.perceptual_distances(net, red, [half]) == pytest.approx([1], abs=1e-6)
    with pytest.raises(SettingsError, match="one size"):
        distances.perceptual_distances(net, red, [grey(1, 32, 44)])


def test_a_large_picture_is_seen_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = colour_net()
    right, found = texture(64, 96), texture(64, 96, seed=3)
    whole = distances.perceptual_distances(net, right, [found])
    monkeypatch.setattr(distances, "TILE_PX", 32)
    assert distances.perceptual_distances(net, right, [found]) == pytest.approx(whole)
    monkeypatch.setattr(distances, "TILE_PX", 50)  # four parts, none of them square
    assert distances.perceptual_distances(net, right, [found]) == pytest.approx(whole)


def test_pooled_features_are_those_of_the_colours_in_rgb() -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:] = (51, 102, 204)  # blue, green, red
    picture[:, :16] = picture[:, 48:] = 0  # what the square in the middle leaves out
    found = pooled_features(colour_net(), [picture, grey(255)])
    assert found == pytest.approx(np.array([[0.8, 0.4, 0.2], [1, 1, 1]]), abs=0.01)


@pytest.mark.skipif(not VGG.is_file(), reason="the feature net of shared/assets is not here")
def test_a_real_feature_net() -> None:
    pytest.importorskip("torch", reason="a feature net needs torch")
    from tools.train.features import load_features

    net = load_features(VGG)
    right = texture(48, 64)
    random = np.random.default_rng(1)
    candidates = [
        np.clip(right + random.normal(0, sigma, right.shape), 0, 255).astype(np.uint8)
        for sigma in (0, 5, 20, 60)
    ]
    found = distances.perceptual_distances(net, right, candidates)
    assert found[0] == 0
    assert found == sorted(found)
    assert 0 < found[1] < found[3] < 2
    assert pooled_features(net, [right]).shape == (1, 256)
