"""Networks by name: every one learns, is a public one, and exports to the same picture."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="generators are PyTorch modules; install torch")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from engines.errors import SettingsError  # noqa: E402
from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators.families import recognise  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.generators.rebuilding import rebuild  # noqa: E402
from engines.model import Card, FrameModel  # noqa: E402
from engines.picture_format import PictureFormat  # noqa: E402
from engines.proof import prove_frame_model  # noqa: E402
from engines.registry import open_engine  # noqa: E402
from engines.weights import read_weights  # noqa: E402
from tools.train.generators import (  # noqa: E402
    KINDS,
    UnitRGB,
    build_generator,
    check_crop,
    public,
)

ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"
HAYAO = ASSETS / "weights" / "cartoongan"

SMALL = {
    "quarter:4x2": ("quarter", 4, 4),
    "quarter:4x3:wide": ("quarter", 4, 4),
    "quarter-instance:4x3": ("quarter", 4, 8),
    "resnet:1x2": ("resnet", 4, 8),
    "unet:3x2": ("unet", 8, 8),
    "unet:5x1:instance": ("unet", 32, 32),
    "pix2pixhd:1x2": ("pix2pixhd", 16, 32),
    "fast-neural-style:2x1": ("fast-neural-style", 4, 8),
    "animegan:2x2": ("animegan-v2", 4, 8),
    "cartoongan:2x1": ("cartoongan", 4, 8),
}
"""The family that its weights are of, its stride, its smallest picture."""
FOLDED = ("unet:3x2", "animegan:2x2")
"""Exporters fold the weights of batch and group normalisation: no way back from a frame model."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(11)


def frame(side_px: int = 64) -> NDArray[np.uint8]:
    """Soft blobs of every colour."""
    blobs = np.random.default_rng(6).random((5, 5, 3))
    sized = cv2.resize(blobs, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return (sized.clip(0, 1) * 255).astype(np.uint8)


def pictures(count: int = 2) -> torch.Tensor:
    """The frame as float32 (N, 3, 64, 64), RGB, 0 to 1, and its mirror images."""
    image = torch.from_numpy(frame()[..., ::-1].copy()).permute(2, 0, 1).float() / 255
    return torch.stack([image.flip(-1) if i % 2 else image for i in range(count)])


def learned(spec: str, steps: int = 3) -> torch.nn.Module:
    """After a few steps, so that nothing is at its first value: buffers neither."""
    network = build_generator(spec).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        (network(pictures()) - 0.6).square().mean().backward()
        optimiser.step()
    return network


def test_every_kind_is_tested() -> None:
    assert {spec.partition(":")[0] for spec in SMALL} == set(KINDS)


@pytest.mark.parametrize("spec", SMALL)
def test_its_weights_are_of_the_family(spec: str) -> None:
    network = build_generator(spec)
    found = recognise(public(network).state_dict())
    assert found.family.name == SMALL[spec][0]
    assert found.generator.architecture == network.architecture
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())


@pytest.mark.parametrize("spec", SMALL)
def test_the_seed_repeats_it(spec: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_generator(spec).state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("spec", SMALL)
def test_a_step_lowers_the_loss_and_reaches_every_weight(spec: str) -> None:
    network = build_generator(spec).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    given = pictures().contiguous(memory_format=torch.channels_last)

    def loss() -> torch.Tensor:
        torch.manual_seed(3)  # the same dropout
        with torch.autocast("cpu", torch.bfloat16):
            found = network(given)
        assert found.dtype == torch.float32
        assert found.shape == given.shape
        return (found - given.flip(1)).square().mean()

    start = loss()
    start.backward()
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert not without
    for _ in range(6):
        optimiser.step()
        optimiser.zero_grad()
        loss().backward()
    assert float(loss().detach()) < float(start.detach())


def translated(network: torch.nn.Module) -> NDArray[np.uint8]:
    with torch.inference_mode():
        found = network(pictures(1))[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(found[..., ::-1])


def largest_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("spec", SMALL)
def test_the_frame_model_is_the_same_picture(spec: str, tmp_path: Path) -> None:
    network = learned(spec).eval()
    right = translated(network)
    assert right.std() > 0.5
    assert network.stride == SMALL[spec][1]
    path = tmp_path / "small.onnx"
    card = Card(name="small", stride=network.stride, architecture=network.architecture)
    export_frame_model(network, card, path)
    proofs = prove_frame_model(path, network, [frame()])
    assert proofs["openvino/f32"].max_difference <= 1
    with open_engine(path, (64, 64), backend="openvino", precision="f32") as engine:
        assert largest_difference(engine.infer(frame()), right) <= 1
    if spec in FOLDED:
        return
    again = FrameTranslator(rebuild(FrameModel.read(path)))
    with torch.inference_mode():
        shown = again(torch.from_numpy(frame()[None]))[0].numpy()
    assert largest_difference(shown, right) <= 1


def test_what_is_inside_exports_to_the_same_picture(tmp_path: Path) -> None:
    network = learned("cartoongan:2x1").eval()
    path = tmp_path / "small.onnx"
    export_frame_model(public(network), Card(name="small", stride=4), path)
    with open_engine(path, (64, 64), backend="openvino", precision="f32") as engine:
        assert largest_difference(engine.infer(frame()), translated(network)) <= 1


@pytest.mark.parametrize("spec", SMALL)
def test_the_smallest_picture_works(spec: str) -> None:
    network = build_generator(spec)
    side_px = SMALL[spec][2]
    assert network.smallest_px == side_px
    check_crop(network, side_px)
    picture = torch.rand(1, 3, side_px, side_px)
    assert network(picture).shape == picture.shape
    assert network.eval()(picture).isfinite().all()


@pytest.mark.parametrize("crop_px", [0, 4, 10, -8])
def test_a_crop_that_does_not_fit_is_refused(crop_px: int) -> None:
    network = build_generator("resnet:1x2")
    with pytest.raises(SettingsError, match=r"--crop must be a multiple of 4, 8 or more, for ResN"):
        check_crop(network, crop_px)


@pytest.mark.parametrize("spec", ["resnet:1x2", "fast-neural-style:2x1", "cartoongan:2x1"])
def test_what_is_around_it_is_what_a_frame_needs(spec: str) -> None:
    """Ranges and the order of colours, in -1..1 RGB, 0..255 RGB, -1..1 BGR."""
    network = learned(spec)
    network.train()
    inner = public(network)
    given = pictures(1)
    scale, offset = inner.takes.scale[0], inner.takes.offset[0]
    ordered = given.flip(1) if inner.takes.colour == "bgr" else given
    right = (inner(ordered * scale + offset) - offset) / scale
    right = right.flip(1) if inner.takes.colour == "bgr" else right
    assert torch.allclose(network(given), right, atol=1e-6)


def test_only_the_trained_result_is_clamped() -> None:
    network = build_generator("fast-neural-style:2x1")
    with torch.no_grad():
        network.generator.deconv3.conv2d.bias.copy_(torch.tensor([-100.0, 100.0, 400.0]))
    image = pictures(1)
    assert network(image).amin() < 0
    assert network(image).amax() > 1
    found = network.eval()(image)
    assert found.amin() >= 0
    assert found.amax() <= 1


def test_a_format_that_is_no_colour_picture_is_refused() -> None:
    network = public(build_generator("resnet:1x2"))
    network.takes = PictureFormat("grey")
    with pytest.raises(ValueError, match="expected RGB or BGR"):
        UnitRGB(network, 8)


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        ("resnet", 11_378_179),  # "11.378 M" and "54.414 M", as the authors' code prints them
        ("unet", 54_413_955),
        ("unet:7x64", 41_828_995),
        ("fast-neural-style", 1_679_235),
        ("animegan", 2_143_552),
    ],
)
def test_the_published_sizes(spec: str, weights: int) -> None:
    assert sum(value.numel() for value in build_generator(spec).parameters()) == weights


def test_the_published_cartoongan_is_a_real_file() -> None:
    files = sorted(HAYAO.glob("*.pth")) if HAYAO.is_dir() else []
    if not files:
        pytest.skip("no CartoonGAN weights in shared/assets")
    theirs = {name: value.shape for name, value in read_weights(files[0]).tensors.items()}
    ours = public(build_generator("cartoongan")).state_dict()
    assert {name: value.shape for name, value in ours.items()} == theirs


def test_gan_weights_start_as_in_the_paper() -> None:
    state = public(build_generator("unet:5x16")).state_dict()
    convolutions = torch.cat([w.flatten() for w in state.values() if w.ndim == 4])
    assert abs(float(convolutions.std()) - 0.02) < 1e-3
    norm = "model.model.1.model.2"
    assert 0.005 < float(state[f"{norm}.weight"].std()) < 0.05
    assert abs(float(state[f"{norm}.weight"].mean()) - 1) < 0.02
    assert not state[f"{norm}.running_mean"].any()
    assert (state[f"{norm}.running_var"] == 1).all()


def test_a_new_animegan_keeps_the_contrast() -> None:
    found = build_generator("animegan:8x2")(pictures(1))
    assert 0.1 < float(found.detach().std()) < 0.5


def test_batch_statistics_follow_the_training_and_stay_when_it_runs() -> None:
    network = build_generator("unet:4x4")
    norm = public(network).get_submodule("model.model.1.model.2")
    network(pictures())
    after = norm.running_mean.clone()
    assert after.any()
    with torch.inference_mode():
        network.eval()(pictures())
    assert torch.equal(norm.running_mean, after)


def test_batch_normalisation_is_that_of_pytorch() -> None:
    norm = public(build_generator("unet:4x4")).get_submodule("model.model.1.model.2").train()
    right = torch.nn.BatchNorm2d(8).train()
    right.load_state_dict(norm.state_dict(), strict=False)
    for _ in range(3):
        x = torch.randn(2, 8, 5, 6)
        assert torch.allclose(norm(x), right(x), atol=1e-6)
    assert torch.allclose(norm.running_var, right.running_var)
    assert torch.allclose(norm.eval()(x), right.eval()(x), atol=1e-6)


def test_dropout_is_where_the_original_has_it_and_in_training_only() -> None:
    network = build_generator("unet:8x1")
    dropouts = [name for name, m in network.named_modules() if isinstance(m, torch.nn.Dropout)]
    inner = "model.model.1.model" + ".3.model" * 3  # the levels 5, 6 and 7 of 8
    assert sorted(dropouts) == sorted(
        f"generator.{inner}{'.3.model' * deeper}.7" for deeper in range(3)
    )
    image = torch.rand(1, 3, 256, 256)
    network(image)
    network.eval()
    assert torch.equal(network(image), network(image))
    network.train()
    assert not torch.equal(network(image), network(image))


@pytest.mark.parametrize("spec", ["unet:4x2", "quarter:4x3:wide", "animegan:2x1"])
def test_a_saved_state_goes_on_the_same(spec: str) -> None:
    """Buffers too, or a resumed run would not be the same."""
    network = learned(spec)
    state = copy.deepcopy(network.state_dict())
    again = build_generator(spec).to(memory_format=torch.channels_last)
    again.load_state_dict(state)
    image = pictures(1)
    assert torch.equal(network.eval()(image), again.eval()(image))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "resnet9",
            r"no generator 'resnet9'; there are: quarter:48x6\[:wide\] \(CHANNELSxBLOCKS\)",
        ),
        ("", "no generator ''"),
        ("resnet:", "no generator 'resnet:'"),
        ("resnet:9", "unet:8x64.*cartoongan:64x8"),
        ("resnet:9x64:wide", "resnet:9x64 "),
        ("unet:8x64:wide", r"unet:8x64\[:instance\] \(LEVELSxCHANNELS\)"),
        ("quarter:48x6:wide:wide", "no generator"),
        ("quarter:wide", "no generator"),
        ("quarter:4٣x2", "no generator"),
        ("quarter:0x4", "a width and a depth of 1 or more"),
        ("resnet:0x64", "a width and a depth of 1 or more"),
        ("unet:1x64", "2 to 10 levels, found 1"),
        ("unet:11x64", "2 to 10 levels, found 11"),
        ("resnet:65x64", "1 to 64 blocks, found 65"),
    ],
)
def test_a_name_that_is_none_is_told_what_there_is(spec: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        build_generator(spec)


def test_the_small_live_one_is_as_it_was() -> None:
    network = build_generator("quarter:48x6:wide")
    assert isinstance(network, QuarterNet)
    assert network.architecture == "QuarterNet, 48 channels, 6 blocks, dilations 1 2 4 4 2 1"
    assert build_generator("quarter").architecture == "QuarterNet, 64 channels, 4 blocks"
    assert public(network) is network
