"""Discriminators and their losses: sizes, what a patch sees, known values, and that they learn."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="discriminators are PyTorch modules; install torch")

from tools.train.adversarial import feature_matching, gan_loss  # noqa: E402
from tools.train.discriminators import MultiScale, PatchGAN  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(5)


def test_the_sizes_of_the_paper() -> None:
    (maps,) = PatchGAN(3, 4)(torch.rand(2, 3, 128, 128))
    assert len(maps) == 5
    assert maps[-1].shape == (2, 1, 14, 14)


def test_a_logit_sees_its_patch_and_no_more() -> None:
    judge = PatchGAN(3, 4)
    for layer in judge.layers:
        for place, step in enumerate(layer):
            if isinstance(step, torch.nn.InstanceNorm2d):
                layer[place] = torch.nn.Identity()  # it sees everything
    picture = torch.rand(1, 3, 160, 160, requires_grad=True)
    logits = judge(picture)[0][-1]
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = picture.grad.abs().sum((0, 1)).nonzero()
    sides = seen.max(0).values - seen.min(0).values + 1
    assert sides.tolist() == [70, 70]


def test_the_published_network_has_its_size() -> None:
    # 4 x 4 convolutions 6-64-128-256-512-1 with biases.
    expected = sum(given * made * 16 + made for given, made in [(6, 64), (64, 128), (128, 256)])
    expected += sum(given * made * 16 + made for given, made in [(256, 512), (512, 1)])
    assert sum(value.numel() for value in PatchGAN(6).parameters()) == expected


def test_weights_start_as_in_the_paper() -> None:
    weights = torch.cat([w.detach().flatten() for w in PatchGAN(6, 32).parameters() if w.ndim == 4])
    assert abs(float(weights.std()) - 0.02) < 1e-3
    assert abs(float(weights.mean())) < 1e-3


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_the_smallest_picture_works_and_a_smaller_one_is_refused(scales: int) -> None:
    judge = MultiScale(3, scales, 2)
    side_px = judge.smallest_px
    found = judge(torch.rand(1, 3, side_px, side_px + 5))
    assert len(found) == scales
    assert found[-1][-1].shape[2] == 1  # not one row more than needed
    with pytest.raises(ValueError, match=rf"{side_px} pixels or more, found {side_px}x"):
        judge(torch.rand(1, 3, side_px - 1, side_px))


def test_one_scale_is_a_patch_gan() -> None:
    assert MultiScale(3, 1, 4).smallest_px == PatchGAN(3, 4).smallest_px == 24


def test_coarser_judges_see_the_halved_picture() -> None:
    judge = MultiScale(1, 2, 2).eval()
    white = torch.ones(1, 1, 64, 64)
    fine, coarse = judge(white)
    # Padding is not counted, so a white picture stays white and the second judge sees just that.
    assert torch.equal(coarse[-1], judge.judges[1](torch.ones(1, 1, 32, 32))[0][-1])
    assert fine[-1].shape[-1] == 2 * coarse[-1].shape[-1] + 2


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more, found 3 and 0"):
        PatchGAN(3, 0)
    with pytest.raises(ValueError, match="must be 1 or more, found 0 and 4"):
        PatchGAN(0, 4)
    with pytest.raises(ValueError, match="scales must be 1 or more, found 0"):
        MultiScale(3, 0)


def test_it_learns_to_tell_stripes_from_noise() -> None:
    judge = MultiScale(3, 2, 8)
    judge = judge.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(judge.parameters(), 2e-3, betas=(0.5, 0.999))
    stripes = (torch.arange(48) % 8 < 4).float().expand(4, 3, 48, 48)

    def loss() -> torch.Tensor:
        noise = torch.rand(4, 3, 48, 48).contiguous(memory_format=torch.channels_last)
        real = stripes * torch.rand(4, 3, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            judged = judge(noise), judge(real)
        return gan_loss(judged[0], False) + gan_loss(judged[1], True)

    start = float(loss().detach())
    for _ in range(40):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert float(loss().detach()) < 0.5 * start


def judgement(*logits: float) -> list[list[torch.Tensor]]:
    return [[torch.zeros(1, 2, 4, 4), torch.full((1, 1, 3, 3), value)] for value in logits]


def test_known_losses() -> None:
    half = judgement(0.5)
    assert gan_loss(half, True).item() == gan_loss(half, False).item() == 0.25
    assert gan_loss(judgement(1.0, 3.0), True).item() == 2.0  # the mean over the sizes


def test_the_loss_is_that_of_pytorch() -> None:
    found = [[torch.randn(2, 1, 5, 5)], [torch.randn(2, 1, 3, 3)]]
    for real in (True, False):
        goals = [torch.full_like(maps[-1], float(real)) for maps in found]
        loss = torch.nn.MSELoss()
        right = sum(loss(maps[-1], goal) for maps, goal in zip(found, goals)) / 2
        assert torch.allclose(gan_loss(found, real), right)


def test_feature_matching_leaves_out_the_logits_and_the_real_side() -> None:
    real = [[torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 3, 3)]] * 2
    fake = [[m + 1 for m in maps[:-1]] + [maps[-1] + 100] for maps in real]
    assert feature_matching(fake, real).item() == 2.0  # 1 for each of two layers
    assert feature_matching(real, real).item() == 0.0
    judge = MultiScale(3, 2, 2)
    ours = torch.rand(1, 3, 48, 48, requires_grad=True)
    theirs = torch.rand(1, 3, 48, 48, requires_grad=True)
    feature_matching(judge(ours), judge(theirs)).backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None


def test_features_of_another_discriminator_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        feature_matching(judgement(0.0), judgement(0.0, 0.0))
