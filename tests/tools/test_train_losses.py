"""What perceptual losses are made of: known motion, statistics of pictures, the feature net."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")

import torch
from torch import Tensor
from torch.nn import functional

from engines.errors import Pix2liveError, SettingsError
from tools.train.features import IMAGENET_DEVIATION, IMAGENET_MEAN, LAYERS, load_features
from tools.train.motion import (
    LARGEST_SHIFT_PX,
    LARGEST_TURN,
    LARGEST_ZOOM,
    MOST_NOISE,
    inside,
    moved,
    noisy,
    random_motion,
    unsteadiness,
)
from tools.train.perceptual import (
    EPSILON,
    content_distance,
    out_of_range,
    picture_loss,
    style_distance,
    style_of,
    total_variation,
)

ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"
VGG = ASSETS / "features" / "vgg_normalised_conv3_1.pth"
CHANNELS = (3, 64, 64, 128, 128, 256)
CONVOLUTIONS = (0, 2, 5, 7, 10)
POOLED_BEFORE = (5, 10)


def places(height: int, width: int) -> Tensor:
    """A picture (1, 2, H, W) whose values are the column and the row of each pixel."""
    rows, columns = torch.meshgrid(
        torch.arange(height).float(), torch.arange(width).float(), indexing="ij"
    )
    return torch.stack([columns, rows])[None]


def shifted(right_px: float, down_px: float, height: int, width: int) -> Tensor:
    """The grid that takes each pixel from so far to the right and below."""
    matrix = torch.tensor([[[1, 0, 2 * right_px / width], [0, 1, 2 * down_px / height]]])
    return functional.affine_grid(matrix.float(), [1, 3, height, width], align_corners=False)


def where(grid: Tensor, height: int, width: int) -> Tensor:
    """Columns and rows, (N, 2, H, W), that a grid takes from."""
    size = torch.tensor([width, height])
    return (((grid + 1) * size - 1) / 2).permute(0, 3, 1, 2)


# ---- motion ------------------------------------------------------------------------------------


@given(st.floats(-9, 9), st.floats(-9, 9))
@settings(max_examples=25)
def test_a_known_shift_is_right_to_a_fraction_of_a_pixel(right_px: float, down_px: float) -> None:
    height, width = 40, 56
    grid = shifted(right_px, down_px, height, width)
    found = moved(places(height, width), grid)
    wanted = places(height, width) + torch.tensor([right_px, down_px])[:, None, None]
    seen = inside(grid, margin_px=0)[0, 0].bool()
    # A pixel further in: at the outermost half pixel the edge is repeated.
    seen &= (wanted[0, 0] >= 0) & (wanted[0, 0] <= width - 1)
    seen &= (wanted[0, 1] >= 0) & (wanted[0, 1] <= height - 1)
    assert float(seen.float().mean()) > 0.5
    assert float((found - wanted)[0, :, seen].abs().max()) < 1e-3


def test_whole_pixels_are_moved_as_they_are() -> None:
    picture = torch.rand(1, 3, 24, 32)
    found = moved(picture, shifted(3, -2, 24, 32))
    assert torch.allclose(found[..., 2:, :-3], picture[..., :-2, 3:], atol=1e-5)
    assert torch.allclose(found[..., 0, :-3], picture[..., 0, 3:], atol=1e-5)  # the edge again


@pytest.mark.parametrize(("margin_px", "count"), [(0, 52 * 43), (8, 44 * 32)])
def test_inside_is_what_was_in_the_picture_before(margin_px: int, count: int) -> None:
    height, width = 48, 64
    columns = where(shifted(12, -5, height, width), height, width)[0]
    found = inside(shifted(12, -5, height, width), margin_px)
    assert found.shape == (1, 1, height, width)
    edges = torch.tensor([width, height])[:, None, None] - 0.5 - margin_px
    wanted = ((columns > margin_px - 0.5) & (columns < edges)).all(0)
    assert torch.equal(found[0, 0], wanted.float())
    assert int(found.sum()) == count


@given(st.integers(0, 2**31), st.sampled_from([(48, 48), (40, 64), (64, 32)]))
@settings(max_examples=25)
def test_random_motion_is_small_and_a_turn_with_a_zoom(seed: int, size: tuple[int, int]) -> None:
    height, width = size
    grid = random_motion(torch.zeros(4, 3, height, width), torch.Generator().manual_seed(seed))
    apart = where(grid, height, width) - places(height, width)
    assert grid.shape == (4, height, width, 2)
    bent = 0.5 * (1.05 * LARGEST_TURN + LARGEST_ZOOM) * max(size)
    assert float(apart.abs().max()) <= LARGEST_SHIFT_PX + bent
    centre = apart.mean((2, 3))
    assert float(centre.abs().max()) <= LARGEST_SHIFT_PX + 1e-3
    assert len({tuple(row) for row in centre.tolist()}) == 4  # another one for each
    again = random_motion(torch.zeros(4, 3, height, width), torch.Generator().manual_seed(seed))
    assert torch.equal(grid, again)
    found = moved(places(height, width).repeat(4, 1, 1, 1), grid)
    seen = inside(grid, margin_px=1).expand_as(found).bool()
    assert float((found - where(grid, height, width))[seen].abs().max()) < 1e-2


def test_random_motion_goes_to_its_limits_and_not_beyond() -> None:
    grid = random_motion(torch.zeros(400, 3, 16, 16), torch.Generator().manual_seed(0))
    along = (grid[:, 0, -1] - grid[:, 0, 0]) * 8 / 15  # the first column of the matrix
    turn, zoom = torch.atan2(along[:, 1], along[:, 0]), along.norm(dim=1) - 1
    shift_px = grid.mean((1, 2)) * 8
    for found, limit in ((turn, LARGEST_TURN), (zoom, LARGEST_ZOOM), (shift_px, LARGEST_SHIFT_PX)):
        assert 0.95 * limit < float(found.abs().max()) < limit * 1.001
        assert float(found.mean().abs()) < 0.1 * limit


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_noise_has_no_mean_and_a_bound(size: tuple[int, int]) -> None:
    pictures = torch.full((64, 3, *size), 0.5)
    added = noisy(pictures, torch.Generator().manual_seed(1)) - pictures
    strength = added.std((1, 2, 3))
    assert float(strength.max()) < 1.05 * MOST_NOISE
    assert float(strength.max()) > 0.5 * MOST_NOISE
    assert float(strength.min()) < 0.2 * MOST_NOISE
    assert float(added.mean().abs()) < 0.05 * MOST_NOISE
    assert float(added.abs().max()) < 7 * MOST_NOISE
    grey = added.mean(1, keepdim=True)
    assert float((added - grey).std()) > 0.2 * float(added.std())  # some of it is coloured


def test_what_moves_along_is_steady_and_what_stays_is_not() -> None:
    smooth = functional.interpolate(torch.rand(2, 3, 5, 5), size=(64, 64), mode="bicubic")

    def found(network: Callable[[Tensor], Tensor]) -> float:
        random = torch.Generator().manual_seed(4)
        return float(unsteadiness(network, smooth, network(smooth), random))

    texture = (torch.arange(64) % 8 < 4).float().expand(2, 3, 64, 64)
    assert found(lambda pictures: 0 * pictures + 0.5) < 1e-12
    follows, stays = found(lambda pictures: pictures), found(lambda pictures: pictures + texture)
    assert 0 < follows < MOST_NOISE**2  # the noise alone
    assert stays > 0.05


def test_unsteadiness_teaches_the_network_by_both_ways() -> None:
    weight = torch.ones(2, requires_grad=True)
    pictures = torch.rand(1, 3, 32, 32)
    random = torch.Generator().manual_seed(0)
    lost = unsteadiness(lambda given: given * weight[0], pictures, pictures * weight[1], random)
    (gradient,) = torch.autograd.grad(lost, weight)
    assert bool((gradient.abs() > 0).all())


# ---- statistics --------------------------------------------------------------------------------


def test_the_gradient_of_the_covariance_is_that_of_the_plain_formula() -> None:
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 6, 7, generator=random, requires_grad=True)
    weight = torch.randn(2, 5, 5, generator=random)
    mean, covariance = style_of(maps)
    rows = maps.permute(0, 2, 3, 1).reshape(2, 42, 5)
    centred = rows - rows.mean(1, keepdim=True)
    plain = torch.einsum("nri,nrj->nij", centred, centred) / 42
    assert torch.allclose(mean, maps.mean((2, 3)), atol=1e-6)
    assert torch.allclose(covariance, plain, atol=1e-6)
    found, wanted = (
        torch.autograd.grad((matrix * weight).sum() + mean.square().sum(), maps, retain_graph=True)
        for matrix in (covariance, plain)
    )
    assert torch.allclose(found[0], wanted[0], atol=1e-6)
    assert float(found[0].abs().max()) > 0.01


def test_mean_and_covariance_are_the_gram_matrix() -> None:
    maps = torch.randn(1, 4, 8, 8)
    mean, covariance = style_of(maps)
    rows = maps[0].flatten(1)
    assert torch.allclose(
        covariance[0] + torch.outer(mean[0], mean[0]), rows @ rows.T / 64, atol=1e-5
    )


def test_the_same_style_is_at_no_distance_and_another_one_is() -> None:
    maps = torch.randn(1, 4, 16, 16) + 1
    (mean, covariance), moved_about = style_of(maps), style_of(maps.flip(-1).roll(5, 2))
    none = float(style_distance([moved_about], [(mean, covariance)]))
    assert none <= 2 * EPSILON**0.5 / min(float(mean.norm()), float(covariance.norm()))
    black = [(torch.zeros_like(mean), torch.zeros_like(covariance))]
    assert float(style_distance(black, [(mean, covariance)])) == pytest.approx(1, rel=1e-3)
    both = style_of(torch.cat([maps, torch.zeros_like(maps)]))
    assert float(style_distance([both], [(mean, covariance)])) == pytest.approx(0.5, rel=1e-2)


def test_a_flat_picture_has_a_finite_gradient() -> None:
    """The root of the distance has none at 0: where a style is met, nothing may become NaN."""
    maps = torch.ones(1, 4, 8, 8, requires_grad=True)
    statistics = style_of(maps)
    wanted = [(statistics[0].detach(), statistics[1].detach() + torch.eye(4))]
    (gradient,) = torch.autograd.grad(style_distance([statistics], wanted), maps)
    assert bool(gradient.isfinite().all())


def test_known_pictures() -> None:
    step = torch.zeros(1, 3, 4, 6)
    step[..., 3:] = 0.5
    assert float(total_variation(step)) == pytest.approx(0.25 / 5)
    assert float(total_variation(step.transpose(2, 3))) == pytest.approx(0.25 / 5)
    assert float(total_variation(torch.full((1, 3, 4, 6), 0.7))) == 0
    assert float(out_of_range(torch.tensor([-1.0, 0.0, 1.0, 1.5]))) == pytest.approx(1.5 / 4)
    assert float(content_distance(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0]))) == 2.5
    assert float(content_distance(step, step)) == 0
    # 0.5 too much in half of the picture, and an edge of 0.5 where there is none.
    assert float(picture_loss(step, torch.zeros_like(step))) == pytest.approx(0.25 + 0.5 / 5)
    assert float(picture_loss(step, step)) == 0


# ---- the feature net ---------------------------------------------------------------------------


def vgg19(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under torchvision's names, to conv3_2, and one of the classifier."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    shapes = dict(zip((*CONVOLUTIONS, 12), zip((*CHANNELS, 256), (*CHANNELS[1:], 256))))
    for layer, (inner, made) in shapes.items():
        weights = torch.randn(made, inner, 3, 3, generator=random)
        found[f"features.{layer}.weight"] = weights * (2 / (9 * inner)) ** 0.5
        found[f"features.{layer}.bias"] = 0.1 * torch.randn(made, generator=random)
    return found | {"classifier.6.weight": torch.zeros(10, 4), "classifier.6.bias": torch.zeros(10)}


def plain_forward(tensors: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """VGG-19 as the paper has it, with borders that repeat the picture's."""
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
    values = (images - mean[:, None, None]) / deviation[:, None, None]
    found = []
    for layer in CONVOLUTIONS:
        if layer in POOLED_BEFORE:
            count, channels, height, width = values.shape
            values = values.reshape(count, channels, height // 2, 2, width // 2, 2).amax((3, 5))
        padded = functional.pad(values, (1, 1, 1, 1), mode="reflect")
        weight, bias = tensors[f"features.{layer}.weight"], tensors[f"features.{layer}.bias"]
        windows = functional.unfold(padded, 3)
        values = (weight.flatten(1) @ windows + bias[:, None]).reshape(
            len(values), len(bias), *values.shape[2:]
        )
        values = values.clamp(min=0)
        found.append(values)
    return found


def test_torchvisions_weights_give_the_maps_of_vgg(tmp_path: Path) -> None:
    torch.save(vgg19(), tmp_path / "vgg19.pth")
    net = load_features(tmp_path / "vgg19.pth")
    images = torch.rand(2, 3, 24, 16)
    with torch.inference_mode():
        found, wanted = net(images), plain_forward(vgg19(), images)
    assert len(found) == len(LAYERS) == 5
    assert [maps.shape[1] for maps in found] == list(CHANNELS[1:])
    for maps, right in zip(found, wanted, strict=True):
        assert maps.shape == right.shape
        assert float((maps - right).abs().max()) < 1e-4 * float(right.max())
    assert not any(value.requires_grad for value in net.parameters())


def test_colours_are_normalised_as_imagenet(tmp_path: Path) -> None:
    torch.save(vgg19(), tmp_path / "vgg19.pth")
    net = load_features(tmp_path / "vgg19.pth")
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION)[:, None, None]
    picture = (mean + 2 * deviation * torch.tensor([1.0, 0.0, -1.0])[:, None, None]).expand(3, 8, 8)
    found = net.colours(picture[None])[0]
    assert torch.allclose(found[:, 0, 0], torch.tensor([2.0, 0.0, -2.0]), atol=1e-5)


@pytest.mark.parametrize("case", ["other", "half", "shapes", "text", "missing"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "file.pth"
    tensors = vgg19()
    if case == "other":
        torch.save({"layer1.weight": torch.zeros(3, 3)}, path)
    elif case == "half":
        del tensors["features.7.bias"]
        torch.save(tensors, path)
    elif case == "shapes":
        tensors["features.2.weight"] = torch.zeros(32, 64, 3, 3)
        torch.save(tensors, path)
    elif case == "text":
        path.write_text("no weights")
    with pytest.raises(Pix2liveError) as caught:
        load_features(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if case in ("other", "half", "shapes"):
        assert isinstance(caught.value, SettingsError)


@pytest.mark.skipif(not VGG.exists(), reason="the feature net of the shared assets is not here")
def test_the_normalised_net_has_mean_activations_near_one() -> None:
    net = load_features(VGG)
    files = sorted((ASSETS / "paintings").glob("*.jpg"))
    if not files:
        pytest.skip("no shared paintings here")
    picture = cv2.imread(str(files[0]))
    assert picture is not None
    small = np.ascontiguousarray(cv2.resize(picture, (128, 96))[..., ::-1])
    with torch.inference_mode():
        maps = net(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)
    assert [tuple(found.shape[1:]) for found in maps] == [
        *((64, 96, 128), (64, 96, 128), (128, 48, 64), (128, 48, 64), (256, 24, 32))
    ]
    for found in maps:
        assert float(found.min()) == 0
        assert 0.3 < float(found.mean()) < 3
