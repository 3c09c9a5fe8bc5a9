"""Fast neural style, ResNet and pix2pixHD generators: the pictures of the public networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the generators are PyTorch modules; install torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from checkpoints_a import (  # noqa: E402
    Resnet,
    enhancer_forward,
    enhancer_shapes,
    random_tensors,
    resnet_forward,
    resnet_shapes,
    style_forward,
    style_shapes,
)

from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators.families import Recognised, recognise  # noqa: E402
from engines.model import Card  # noqa: E402

ROOT = Path(__file__).parents[2]
ASSETS = ROOT.parent / "shared" / "assets"
STYLE = ASSETS / "weights" / "transformer_net"
CYCLEGAN = ASSETS / "weights" / "cyclegan" / "vintagify_G_A2B_epoch33.pth"
STYLE_FILES = (
    "mosaic_nc8_b1_e2_1e05_1e10",
    "candy_nc8_b1_e2_1e05_1e10",
    "candy_nc16_b1_e2_1e05_1e10",
    "mosaic_nc16_b1_e2_1e05_1e10",
    "legacy_candy_nf16_e2_1e5_1e10",
)
PHOTOS = ("kitten-on-lawn", "rich-port", "colorful-wall", "motherboard-circuits")
WIDTH_PX, HEIGHT_PX = 128, 96


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(path: Path) -> dict[str, Any]:
    if not path.exists():
        pytest.skip(f"no {path.name} in shared/assets")
    tensors: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Four real frames, uint8 (96, 128, 3) BGR."""
    folder = ASSETS / "photos" / "clean" / "budgie"
    frames = []
    for name in PHOTOS:
        photo = cv2.imread(str(folder / f"{name}.jpg")) if folder.exists() else None
        if photo is None:
            pytest.skip(f"no {name}.jpg in shared/assets/photos")
        small = cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        top, left = (side // 2 - size // 2 for side, size in zip(small.shape, (96, 128)))
        crop = small[top : top + HEIGHT_PX, left : left + WIDTH_PX]
        assert crop.shape == (HEIGHT_PX, WIDTH_PX, 3)
        frames.append(np.ascontiguousarray(crop))
    return frames


def exported(found: Recognised, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    path = folder / "model.onnx"
    generator: Any = found.generator
    card = Card(name="test", architecture=generator.architecture, stride=generator.stride)
    export_frame_model(generator, card, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda frame: session.run(["translated"], {"frame": frame[None]})[0][0]


def in_torch(found: Recognised) -> Callable[[np.ndarray], np.ndarray]:
    translator = FrameTranslator(found.generator).eval()

    def run(frame: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels: np.ndarray = translator(torch.from_numpy(frame[None]))[0].numpy()
        return pixels

    return run


def assert_the_same(found: Recognised, frames: list[np.ndarray], folder: Path) -> None:
    reference, candidate = in_torch(found), exported(found, folder)
    for frame in frames:
        right = reference(frame).astype(int)
        difference = np.abs(candidate(frame) - right)
        assert right.std() > 10, "a flat picture proves nothing"
        assert difference.max() <= 1
        assert difference.mean() < 0.1


@pytest.mark.parametrize("name", STYLE_FILES)
def test_a_real_style_network_is_recognised(name: str) -> None:
    """What it becomes is compared in tests/tools/test_convert.py, on sixteen frames."""
    found = recognise(saved(STYLE / f"{name}.model"))
    assert found.family.name == "fast-neural-style"
    assert found.generator.stride == 4
    channels = "8" if "nc8" in name else "16"
    assert found.generator.architecture == f"Fast neural style, {channels} channels, 5 blocks"


def test_the_real_cyclegan_generator_is_recognised() -> None:
    found = recognise(saved(CYCLEGAN))
    assert found.family.name == "resnet"
    assert found.generator.architecture == "ResNet generator, 64 channels, 9 blocks"
    assert found.generator.takes.scale == (2.0,)


def test_a_real_style_network_is_the_independent_onnx_of_the_same_weights() -> None:
    found = recognise(saved(STYLE / f"{STYLE_FILES[0]}.model"))
    photo = cv2.imread(str(ASSETS / "photos" / "clean" / "budgie" / f"{PHOTOS[0]}.jpg"))
    rgb = cv2.cvtColor(cv2.resize(photo, (256, 256)), cv2.COLOR_BGR2RGB)
    picture = rgb.astype(np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(
        str(STYLE / "mosaic_nc8_256x256.onnx"), providers=["CPUExecutionProvider"]
    )
    right = session.run(None, {session.get_inputs()[0].name: picture})[0]
    with torch.inference_mode():
        made = found.generator(torch.from_numpy(picture)).numpy()
    levels = [np.clip(np.round(item), 0, 255) for item in (right, made)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert levels[0].std() > 10


@pytest.mark.parametrize(
    "forward", [(CYCLEGAN, 0), (STYLE / f"{STYLE_FILES[4]}.model", 1)], ids=["resnet", "style"]
)
def test_a_real_network_is_what_its_description_says(forward: tuple[Path, int]) -> None:
    path, is_style = forward
    tensors = saved(path)
    generator = recognise(tensors).generator
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if is_style:
            made, right = generator(picture * 255), style_forward(picture * 255, tensors)
        else:
            net = Resnet(ngf=64, blocks=9, norm="affine", block_name="block")
            made, right = generator(picture * 2 - 1), resnet_forward(picture * 2 - 1, tensors, net)
    assert (made - right).abs().max() < (0.05 if is_style else 1e-4)


CYCLE = Resnet()
LAYOUTS: dict[str, tuple[Resnet, str]] = {
    "6 blocks": (replace(CYCLE, blocks=6), "resnet"),
    "9 blocks": (replace(CYCLE, blocks=9), "resnet"),
    "one downsampling": (replace(CYCLE, downs=1), "resnet"),
    "batch norm": (replace(CYCLE, norm="batch"), "resnet"),
    "batch norm beside biases": (replace(CYCLE, norm="batch", biased=True), "resnet"),
    "instance norm without biases": (replace(CYCLE, biased=False), "resnet"),
    "affine": (replace(CYCLE, norm="affine", block_name="block"), "resnet"),
    "old statistics": (replace(CYCLE, tracked=True), "resnet"),
    "dropout": (replace(CYCLE, dropout=True), "resnet"),
    "zero padding": (replace(CYCLE, zero_padding=True), "resnet"),
    "zero padding and dropout": (replace(CYCLE, zero_padding=True, dropout=True), "resnet"),
    "zero padding at the ends": (replace(CYCLE, old_ends=True, zero_padding=True), "resnet"),
    "CUT": (replace(CYCLE, blur_down=True, blur_up=True), "resnet"),
    "CUT, other filters": (
        replace(CYCLE, blur_down=True, blur_up=True, blur_sizes=(4, 3)),
        "resnet",
    ),
    "CUT, down only": (replace(CYCLE, blur_down=True), "resnet"),
    "CUT, up only": (replace(CYCLE, blur_up=True), "resnet"),
    "enlarged, padded": (replace(CYCLE, enlarge="padded"), "resnet"),
    "enlarged, zeros": (replace(CYCLE, enlarge="zeros"), "resnet"),
    "grey to alpha": (replace(CYCLE, inputs=1, outputs=4), "resnet"),
    "pix2pixHD, 3 downsamplings": (replace(CYCLE, downs=3), "pix2pixhd"),
    "pix2pixHD, 4 downsamplings": (replace(CYCLE, downs=4), "pix2pixhd"),
    "pix2pixHD, batch norm": (replace(CYCLE, downs=3, norm="batch", biased=True), "pix2pixhd"),
}
EXPORTED = (
    "batch norm",
    "CUT",
    "CUT, other filters",
    "enlarged, padded",
    "grey to alpha",
    "pix2pixHD, 3 downsamplings",
)


def signed_noise(channels: int, height_px: int = 48, width_px: int = 64) -> Any:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(1, channels, height_px, width_px, generator=generator) * 2 - 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_what_its_description_says(name: str) -> None:
    net, family = LAYOUTS[name]
    tensors = random_tensors(resnet_shapes(net))
    found = recognise(tensors)
    generator = found.generator
    assert found.family.name == family
    assert generator.stride == 2**net.downs
    assert generator.takes.channels == net.inputs
    assert generator.gives.channels == net.outputs
    assert f"{net.ngf} channels, {net.blocks} blocks" in generator.architecture
    assert ("anti-aliased" in generator.architecture) == (net.blur_down or net.blur_up)
    assert not generator.training
    assert not any(value.requires_grad for value in generator.parameters())
    assert not any(value.is_meta for value in generator.state_dict().values())
    picture = signed_noise(net.inputs)
    with torch.inference_mode():
        made, right = generator(picture), resnet_forward(picture, tensors, net)
    assert right.std() > 0.1
    assert made.shape == right.shape == (1, net.outputs, *picture.shape[2:])
    assert (made - right).abs().max() < 1e-4


@pytest.mark.parametrize("name", EXPORTED)
def test_a_layout_exports(name: str, photos: list[np.ndarray], tmp_path: Path) -> None:
    net = replace(LAYOUTS[name][0], blocks=1)
    found = recognise(random_tensors(resnet_shapes(net)))
    assert_the_same(found, photos[:2], tmp_path)


@pytest.mark.parametrize(("enhancers", "downs"), [(1, 3), (2, 2), (1, 4)])
def test_a_local_enhancer_is_what_its_description_says(enhancers: int, downs: int) -> None:
    net = Resnet(ngf=4, blocks=3, downs=downs)
    tensors = random_tensors(enhancer_shapes(net, enhancers))
    found = recognise(tensors)
    assert found.family.name == "pix2pixhd-local"
    assert found.generator.stride == 2 ** (downs + enhancers)
    depth = " + ".join(["3"] + ["2"] * enhancers)
    expected = f"pix2pixHD local enhancer, 4 channels, {depth} blocks"
    assert found.generator.architecture == expected
    picture = signed_noise(3, 64, 96)
    with torch.inference_mode():
        made, right = found.generator(picture), enhancer_forward(picture, tensors, net, enhancers)
    assert right.std() > 0.1
    assert (made - right).abs().max() < 1e-4


def test_a_local_enhancer_exports(photos: list[np.ndarray], tmp_path: Path) -> None:
    found = recognise(random_tensors(enhancer_shapes(Resnet(blocks=1, downs=2))))
    assert_the_same(found, photos[:2], tmp_path)


@pytest.mark.parametrize(("widths", "blocks"), [((4, 8, 12, 8, 4), 5), ((5, 7, 9, 3, 11), 2)])
def test_style_networks_of_any_width_and_depth(
    widths: tuple[int, int, int, int, int], blocks: int
) -> None:
    tensors = random_tensors(style_shapes(widths, blocks))
    statistics = {"in1.running_mean": torch.zeros(4), "res1.in2.running_var": torch.ones(12)}
    found = recognise(tensors | statistics)
    assert found.family.name == "fast-neural-style"
    assert found.notes == ("dropped 2 running statistics of instance normalisation",)
    picture = (signed_noise(3) + 1) * 127.5
    with torch.inference_mode():
        made, right = found.generator(picture), style_forward(picture, tensors, blocks)
    assert right.std() > 0.1
    assert (made - right).abs().max() < 1e-4


def test_what_cannot_be_told_is_noted() -> None:
    def notes(net: Resnet) -> str:
        return "; ".join(recognise(random_tensors(resnet_shapes(net))).notes)

    assert notes(CYCLE) == ""
    assert notes(LAYOUTS["CUT"][0]) == ""
    assert "dropped 22 running statistics" in notes(LAYOUTS["old statistics"][0])
    assert "reflection is assumed" in notes(LAYOUTS["affine"][0])
    assert "nearest neighbour is assumed" in notes(LAYOUTS["enlarged, zeros"][0])
    assert "batch normalisation is assumed" in notes(LAYOUTS["batch norm beside biases"][0])
    assert "instance normalisation is assumed" in notes(LAYOUTS["instance norm without biases"][0])


def test_batch_norm_without_counters_of_batches_loads() -> None:
    tensors = random_tensors(resnet_shapes(LAYOUTS["batch norm"][0]))
    old = {name: x for name, x in tensors.items() if not name.endswith("num_batches_tracked")}
    picture = signed_noise(3)
    with torch.inference_mode():
        assert torch.equal(recognise(old).generator(picture), recognise(tensors).generator(picture))


@pytest.mark.parametrize("name", ["6 blocks", "CUT", "affine"])
def test_statistics_do_not_overflow_in_half_precision(name: str) -> None:
    net, _ = LAYOUTS[name]
    tensors = random_tensors(resnet_shapes(net))
    # Features of about 1000, whose squares are beyond half precision.
    tensors["model.1.weight"] *= 500
    generator = recognise(tensors).generator
    picture = signed_noise(3)
    with torch.inference_mode():
        right = generator(picture)
        made = generator.half()(picture.half()).float()
    assert torch.isfinite(made).all()
    assert (made - right).abs().mean() < 0.02
