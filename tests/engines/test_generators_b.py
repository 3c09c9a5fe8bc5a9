"""U-Net, AnimeGANv2 and CartoonGAN: the same pictures as the public code, and exported ones too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="generators are PyTorch modules; install torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

import checkpoints_b as public  # noqa: E402

from engines.errors import SettingsError  # noqa: E402
from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators import animegan, cartoongan, unet  # noqa: E402
from engines.generators.families import recognise  # noqa: E402
from engines.generators.matching import NotThisFamily  # noqa: E402
from engines.model import Card  # noqa: E402

ASSETS = Path(__file__).parents[3] / "shared" / "assets"
HAYAO = ASSETS / "weights" / "cartoongan" / "Hayao_net_G_float_reassembled.pth"
NORMS = ("batch", "instance", "old instance", "none")


def loaded(tensors: public.Checkpoint, family: str) -> Any:
    return recognise(tensors, family=family).generator


def difference(found: Any, right: Any) -> float:
    assert found.shape == right.shape
    assert right.std() > 0.1  # a flat picture would prove nothing
    return float((found - right).abs().max())


# The same arithmetic as the public code


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("levels", "takes", "gives"), [(5, 1, 3), (7, 4, 1), (8, 3, 3)])
def test_a_unet_is_the_public_one(levels: int, takes: int, gives: int, norm: str) -> None:
    tensors = public.unet(levels, norm, takes=takes, gives=gives)
    network = loaded(tensors, "unet")
    image = public.noise(takes, 2**levels, 2**levels * (2 if levels < 8 else 1))
    with torch.inference_mode():
        right = public.unet_forward(tensors, image.clone(), norm)
        assert difference(network(image), right) < 1e-4
    assert network.stride == 2**levels
    colours = {1: "grey", 3: "rgb", 4: "rgba"}
    assert (network.takes.colour, network.gives.colour) == (colours[takes], colours[gives])
    assert (network.takes.scale, network.takes.offset) == ((2.0,), (-1.0,))
    kind = {"none": "no", "batch": "batch"}.get(norm, "instance")
    assert network.architecture == f"U-Net, {levels} levels, 4 channels, {kind} normalisation"


def test_a_unet_may_be_shallow_or_deep() -> None:
    for levels in (2, 6, 9):
        network = loaded(public.unet(levels, width=1), "unet")
        assert network.stride == 2**levels
    with pytest.raises(NotThisFamily, match="more than 10 levels"):
        unet.build(public.unet(11, width=1))


def test_a_unet_leaves_the_picture_as_it_was() -> None:
    image = public.noise(3, 32, 32)
    before = image.clone()
    with torch.inference_mode():
        loaded(public.unet(5), "unet")(image)
    assert torch.equal(image, before)


def test_a_unet_with_the_statistics_of_each_picture() -> None:
    tensors = public.unet(7)
    network = loaded(tensors, "unet")
    image = torch.cat((public.noise(3, 128, 128), public.noise(3, 128, 128).abs() - 0.5))
    assert network.statistics == "running"
    assert "the statistics of the training" in network.notes[1]
    with torch.inference_mode():
        running = network(image)
        network.statistics = "batch"
        assert network.statistics == "batch"
        right = public.unet_forward(tensors, image.clone(), "batch", own=True)
        assert difference(network(image), right) < 1e-4
        alone = public.unet_forward(tensors, image[:1].clone(), "batch", own=True)
        assert difference(network(image)[:1], alone) < 1e-4
        assert (network(image) - running).abs().max() > 0.1
        network.statistics = "running"
        assert torch.equal(network(image), running)


def test_batch_normalisation_in_training_mode_is_what_batch_statistics_means() -> None:
    norm = unet.Normalisation(4, affine=True, running=True)
    reference = torch.nn.BatchNorm2d(4)
    x = public.noise(4, 6, 6)
    norm.statistics = "batch"
    assert torch.allclose(norm(x), reference.train()(x), atol=1e-5)


def test_without_running_statistics_each_picture_has_its_own() -> None:
    tensors = public.unet(5)
    for name in [name for name in tensors if "running" in name or "num_batches" in name]:
        del tensors[name]
    network = loaded(tensors, "unet")
    assert network.statistics == "batch"
    assert "batch normalisation" in network.architecture
    image = public.noise(3, 32, 64)
    with torch.inference_mode():
        right = public.unet_forward(tensors, image.clone(), "batch", own=True)
        assert difference(network(image), right) < 1e-4
    with pytest.raises(SettingsError, match="no running statistics"):
        network.statistics = "running"
    with pytest.raises(SettingsError, match="no statistics 'none'; there are: running, batch"):
        network.statistics = "none"


@pytest.mark.parametrize("align_corners", [True, False])
def test_animegan_is_the_public_one(align_corners: bool) -> None:
    tensors = public.animegan()
    network = loaded(tensors, "animegan-v2")
    assert network.align_corners
    network.align_corners = align_corners
    assert network.architecture == "AnimeGANv2 generator, 32 channels, 4 blocks"
    for size in ((8, 8), (36, 64)):
        image = public.noise(3, *size)
        with torch.inference_mode():
            right = public.animegan_forward(tensors, image, align_corners=align_corners)
            assert difference(network(image), right) < 1e-4


@pytest.mark.parametrize("blocks", [0, 3, 8])
def test_cartoongan_is_the_public_one(blocks: int) -> None:
    tensors = public.cartoongan(blocks=blocks)
    network = loaded(tensors, "cartoongan")
    assert network.architecture == f"CartoonGAN generator, 8 channels, {blocks} blocks"
    assert network.takes.colour == network.gives.colour == "bgr"
    image = public.noise(3, 24, 36)
    with torch.inference_mode():
        assert difference(network(image), public.cartoongan_forward(tensors, image)) < 1e-4


@pytest.mark.parametrize(
    ("tensors", "statistics"),
    [
        (public.unet(5), "running"),
        (public.unet(5), "batch"),
        (public.animegan(4, blocks=1), ""),
        (public.cartoongan(blocks=1), ""),
    ],
)
def test_half_precision_normalises_in_float32(tensors: public.Checkpoint, statistics: str) -> None:
    network = recognise(tensors).generator
    if statistics:
        network.statistics = statistics
    image = public.noise(3, 64, 64)
    with torch.inference_mode():
        right = network(image)
        # In half precision the epsilon of CartoonGAN would be 0.
        with public.NormTypes() as types:
            found = network.half()(image.half())
    assert found.dtype == torch.float16
    assert types.found == {torch.float32}
    assert difference(found.float(), right) < 0.1


# Exported


def _unet(levels: int, statistics: str = "", **described: Any) -> Any:
    network = loaded(public.unet(levels, **described), "unet")
    if statistics:
        network.statistics = statistics
    return network


EXPORTED: dict[str, tuple[Callable[[], Any], list[tuple[int, int]]]] = {
    # One cell of the stride, 256 x 256, is what pix2pix is used with most.
    "unet_256": (lambda: _unet(8), [(256, 256), (512, 256)]),
    "unet_batch": (lambda: _unet(5, "batch"), [(32, 32), (96, 64)]),
    "unet_rgba": (lambda: _unet(5, norm="instance", takes=1, gives=4), [(32, 32), (96, 64)]),
    "animegan": (lambda: loaded(public.animegan(4, blocks=1), "animegan-v2"), [(8, 8), (96, 64)]),
    "cartoongan": (lambda: loaded(public.cartoongan(blocks=1), "cartoongan"), [(8, 8), (96, 64)]),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Name -> the network and its file; each is exported once."""
    folder = tmp_path_factory.mktemp("exported")
    done: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        if name not in done:
            network, path = EXPORTED[name][0](), folder / f"{name}.onnx"
            export_frame_model(network, Card(name=name, stride=network.stride), path)
            done[name] = network, path
        return done[name]

    return get


def both_ways(network: Any, path: Path, pictures: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Differences of ONNX Runtime from PyTorch, of 255, one array a picture and output."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    translator = FrameTranslator(network).eval()
    for picture in pictures:
        with torch.inference_mode():
            right = translator(torch.from_numpy(picture[None]))
        outputs = right if isinstance(right, tuple) else (right,)
        names = ["translated", "alpha"][: len(outputs)]
        found = dict(zip(names, session.run(names, {"frame": picture[None]}), strict=True))
        for name, output in zip(names, outputs, strict=True):
            assert output.float().std() > 10
            yield np.abs(found[name].astype(int) - output.numpy())


@pytest.mark.parametrize("name", EXPORTED)
def test_the_exported_network_gives_the_same_picture(name: str, exported: Any) -> None:
    network, path = exported(name)
    outputs = list(both_ways(network, path, [public.frame(*size) for size in EXPORTED[name][1]]))
    assert len(outputs) == (4 if name == "unet_rgba" else 2)
    assert max(found.max() for found in outputs) <= 1
    assert max(found.mean() for found in outputs) < 0.1


def test_the_graphs_are_plain(exported: Any) -> None:
    graphs = {name: onnx.load(str(exported(name)[1])).graph for name in EXPORTED}
    kinds = {name: Counter(node.op_type for node in graphs[name].node) for name in graphs}
    assert not kinds["unet_256"]["BatchNormalization"]  # folded into the convolutions
    assert kinds["unet_batch"]["InstanceNormalization"] == 3 + 4
    resized = [node for node in graphs["animegan"].node if node.op_type == "Resize"]
    assert [len(node.input) for node in resized] == [3, 3]  # scales, not sizes


PARSE = """
import json, sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
found = {}
for path in sys.argv[1:]:
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(open(path, "rb").read())
    profile = builder.create_optimization_profile()
    if parsed:
        profile.set_shape(network.get_input(0).name, *[(1, 256, 256, 3)] * 3)
        parsed = builder.create_builder_config().add_optimization_profile(profile) >= 0
    errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    found[path] = "parsed" if parsed else f"refused: {errors}"
print(json.dumps(found))
"""


def test_tensorrt_reads_the_graphs(exported: Any) -> None:
    pytest.importorskip("tensorrt_rtx", reason="install tensorrt-rtx to parse with TensorRT")
    paths = [str(exported(name)[1]) for name in EXPORTED]
    # In a process of its own: the first logger of a process is there for good.
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *paths], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(paths, "parsed")


@pytest.mark.skipif(not HAYAO.is_file(), reason="needs shared/assets/weights/cartoongan")
def test_hayao_draws_the_same_picture_when_exported(tmp_path: Path) -> None:
    tensors = torch.load(HAYAO, weights_only=True)
    found = recognise(tensors)
    assert found.family.name == "cartoongan"
    network, path = found.generator, tmp_path / "hayao.onnx"
    assert network.architecture == "CartoonGAN generator, 64 channels, 8 blocks"
    photos = sorted((ASSETS / "photos" / "kodak").glob("*.png"))[:4]
    assert len(photos) == 4
    crops = [cv2.imread(str(photo))[200:264, 300:396].copy() for photo in photos]
    image = torch.from_numpy(crops[0].transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.inference_mode():  # BGR as OpenCV reads it
        right = public.cartoongan_forward(tensors, image)
        assert difference(network(image), right) < 1e-3
        drawn = FrameTranslator(network)(torch.from_numpy(crops[0][None]))[0].numpy()
    # Not inverted, no channels swapped: a drawing of red is red.
    assert np.corrcoef(drawn.ravel(), crops[0].ravel())[0, 1] > 0.6
    export_frame_model(network, Card(name="hayao", stride=4), path)
    outputs = list(both_ways(network, path, crops))
    assert max(found.max() for found in outputs) <= 1
    assert np.mean([found.mean() for found in outputs]) < 0.1


# What is no network of the family


SMALL = {
    "unet": (unet.build, public.unet(5, "batch")),
    "unet instance": (unet.build, public.unet(5, "old instance")),
    "animegan": (animegan.build, public.animegan(8, blocks=1)),
    "cartoongan": (cartoongan.build, public.cartoongan(blocks=1)),
}


@pytest.mark.parametrize(("family", "name", "shape", "reason"), public.BROKEN)
def test_what_does_not_fit_is_named(
    family: str, name: str, shape: tuple[int, ...] | None, reason: str
) -> None:
    build, tensors = SMALL[family]
    changed = {key: value for key, value in tensors.items() if key != name}
    assert len(changed) == len(tensors) - 1
    if shape is not None:
        changed[name] = torch.zeros(shape)
    with pytest.raises(NotThisFamily, match=reason) as caught:
        build(changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        *((public.unet(6, norm), "unet") for norm in NORMS),
        (public.animegan(8), "animegan-v2"),
        (public.cartoongan(), "cartoongan"),
    ],
)
def test_a_file_is_recognised_without_help(tensors: public.Checkpoint, family: str) -> None:
    found = recognise(tensors)
    assert found.family.name == family
    assert not found.generator.training


@pytest.mark.parametrize("family", SMALL)
def test_the_other_families_are_not_this_one(family: str) -> None:
    build, own = SMALL[family]
    assert all(value.is_meta for value in build(own).state_dict().values())
    for other_build, tensors in SMALL.values():
        if other_build is not build:
            with pytest.raises(NotThisFamily):
                build(tensors)


def test_levels_without_end_cost_nothing() -> None:
    tensors = public.unet(2, width=8)
    pattern = {"1.weight": (8, 8, 4, 4), "5.weight": (16, 8, 4, 4)}
    prefix = public.INNER
    for _ in range(3000):
        tensors |= {prefix + name: torch.zeros(()).expand(shape) for name, shape in pattern.items()}
        prefix += "3.model."
    with pytest.raises(NotThisFamily, match="more than 10 levels"):
        unet.build(tensors)


SIDES = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 16, 36, 1_000_000])
SHAPES = st.one_of(
    st.lists(SIDES, max_size=5).map(tuple),
    st.tuples(SIDES, SIDES, st.sampled_from([3, 4, 7]), st.sampled_from([3, 4, 7])),
)


@settings(max_examples=150)
@given(data=st.data())
def test_broken_files_are_refused_or_built_and_nothing_else(data: st.DataObject) -> None:
    build, whole = SMALL[data.draw(st.sampled_from(sorted(SMALL)))]
    tensors = dict(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        change = data.draw(st.sampled_from(["drop", "reshape", "rename", "move"]))
        value = tensors.pop(name)
        if change == "reshape":  # expanded, as a file can have it: large shapes of one number
            tensors[name] = torch.zeros(()).expand(data.draw(SHAPES))
        elif change == "rename":
            tensors[name.replace("weight", "bias").replace("scale", "shift")] = value
        elif change == "move":
            tensors[data.draw(st.sampled_from(sorted(whole)))] = value
    try:
        network = build(tensors)
    except NotThisFamily:
        return
    assert all(value.is_meta for value in network.state_dict().values())
