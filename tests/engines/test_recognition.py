"""Which network is this? What is refused, and in which words."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="recognition reads PyTorch tensors; install torch")

from checkpoints_a import (  # noqa: E402
    Resnet,
    Shapes,
    discriminator_shapes,
    enhancer_shapes,
    random_tensors,
    resnet_shapes,
    style_shapes,
)

from engines.errors import ConversionError  # noqa: E402
from engines.generators.families import FAMILIES, recognise  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402

ROOT = Path(__file__).parents[2]
FEATURES = ROOT.parent / "shared" / "assets" / "features"
WIDTHS = (4, 8, 16, 8, 4)
NET = Resnet(blocks=2)


def tensors_of(family: str) -> dict[str, Any]:
    if family == "quarter":
        return dict(QuarterNet(8, 2).state_dict())
    shapes = {
        "fast-neural-style": style_shapes(WIDTHS, 2),
        "resnet": resnet_shapes(NET),
        "pix2pixhd": resnet_shapes(replace(NET, downs=3)),
        "pix2pixhd-local": enhancer_shapes(NET),
    }[family]
    return dict(random_tensors(shapes))


HERE = ("fast-neural-style", "resnet", "pix2pixhd", "pix2pixhd-local", "quarter")


def refusal(tensors: dict[str, Any], family: str | None = None) -> str:
    with pytest.raises(ConversionError) as caught:
        recognise(tensors, family=family)
    message = str(caught.value)
    assert "\n" not in message
    return message


def empty(shapes: Shapes) -> dict[str, Any]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_the_table_is_complete_and_imports_no_torch() -> None:
    program = (
        "import sys; from engines.generators.families import FAMILIES; "
        "assert 'torch' not in sys.modules; print(*FAMILIES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(FAMILIES)
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.title
        assert re.search(r"\d{4}", family.paper)
        assert family.told_by
        module, _, function = family.target.partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


@pytest.mark.parametrize("family", HERE)
def test_a_family_is_recognised_by_itself_and_by_its_name(family: str) -> None:
    tensors = tensors_of(family)
    assert recognise(tensors).family.name == family
    assert recognise(tensors, family=family).family.name == family


@pytest.mark.parametrize("family", HERE)
def test_the_weights_are_taken_without_a_copy(family: str) -> None:
    tensors = tensors_of(family)
    loaded = recognise(tensors).generator.state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(loaded[name].data_ptr() == tensors[name].data_ptr() for name in tensors)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("other", HERE)
def test_every_other_family_says_why_it_is_not_the_one(family: str, other: str) -> None:
    if family == other:
        return
    message = refusal(tensors_of(other), family)
    assert message.startswith(f"these weights do not fit the family {family}: ")


@pytest.mark.parametrize(
    ("family", "other", "reason"),
    [
        ("fast-neural-style", "resnet", "it has no conv1.conv2d.weight"),
        ("resnet", "fast-neural-style", "it has no model.1.weight"),
        ("resnet", "pix2pixhd", "it has 3 downsamplings, expected 1 to 2"),
        ("pix2pixhd", "resnet", "it has 2 downsamplings, expected 3 to 8"),
        ("pix2pixhd-local", "resnet", "it has 0 enhancers (model1_1, model1_2), expected 1"),
        ("resnet", "pix2pixhd-local", "it has no model.19.weight"),
        ("quarter", "resnet", "it has no head.weight"),
    ],
)
def test_the_reason_names_what_is_missing(family: str, other: str, reason: str) -> None:
    assert reason in refusal(tensors_of(other), family)


def test_a_family_that_does_not_exist_is_refused_with_those_that_do() -> None:
    message = refusal(tensors_of("resnet"), "stylegan")
    assert "no family 'stylegan'" in message
    assert "cartoongan" in message
    assert "no tensors" in refusal({})


Change = Callable[[dict[str, Any]], Any]


def missing(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def transposed(name: str) -> Change:
    return lambda tensors: tensors.update({name: tensors[name].transpose(0, 1)})


def extra(name: str) -> Change:
    return lambda tensors: tensors.update({name: torch.ones(5)})


@pytest.mark.parametrize(
    ("family", "change", "reason"),
    [
        ("resnet", missing("model.1.weight"), "it has no model.1.weight"),
        ("resnet", missing("model.4.weight"), "it has no model.4.weight"),
        ("resnet", missing("model.4.bias"), "it has no model.4.bias (8,)"),
        ("resnet", missing("model.10.conv_block.5.weight"), "model.10.conv_block.5.weight"),
        ("resnet", missing("model.12.weight"), "it has no model.12.weight"),
        ("resnet", missing("model.19.bias"), "it has no model.19.bias (3,)"),
        ("resnet", transposed("model.4.weight"), "model.4.weight is (4, 8, 3, 3), expected"),
        ("resnet", transposed("model.12.weight"), "model.12.weight is (8, 16, 3, 3), expected"),
        ("resnet", extra("model.2.stray"), "model.2.stray (5,) is no tensor of this network"),
        ("resnet", extra("optimizer.exp_avg"), "optimizer.exp_avg (5,) is no tensor of this"),
        ("pix2pixhd", missing("model.7.bias"), "it has no model.7.bias (16,)"),
        ("pix2pixhd-local", missing("model1_1.4.bias"), "it has no model1_1.4.bias (8,)"),
        ("pix2pixhd-local", missing("model1_2.0.conv_block.1.weight"), "model1_2.0.conv_block.1."),
        ("pix2pixhd-local", missing("model1_2.6.weight"), "it has no model1_2.6.weight"),
        ("fast-neural-style", missing("in2.bias"), "it has no in2.bias (8,)"),
        ("fast-neural-style", missing("conv1.conv2d.weight"), "it has no conv1.conv2d.weight"),
        ("fast-neural-style", missing("res1.in1.weight"), "it has no res1.in1.weight (16,)"),
        (
            "fast-neural-style",
            transposed("deconv1.conv2d.weight"),
            "deconv1.conv2d.weight is (16, 8, 3, 3), expected (16, 16, 3, 3)",
        ),
        ("quarter", missing("blocks.0.first.bias"), "it has no blocks.0.first.bias (8,)"),
    ],
)
def test_the_message_names_the_nearest_family_and_the_first_difference(
    family: str, change: Change, reason: str
) -> None:
    tensors = tensors_of(family)
    change(tensors)
    message = refusal(tensors)
    assert f"the nearest family is {family} (" in message
    assert reason in message
    assert f"first keys: {next(iter(tensors))}, " in message


def test_numbers_of_another_type_are_refused() -> None:
    tensors = tensors_of("resnet")
    tensors["model.1.weight"] = tensors["model.1.weight"].half()
    assert "model.1.weight is float16, expected float32" in refusal(tensors)


@pytest.mark.parametrize("inputs", [3, 6])
@pytest.mark.parametrize("prefix", ["model", "layer0"])
def test_a_discriminator_is_called_by_its_name(inputs: int, prefix: str) -> None:
    message = refusal(empty(discriminator_shapes(inputs, prefix=prefix)))
    assert message.startswith("no generator: a discriminator")
    assert f"{prefix}.11.weight (1, 512, 4, 4)" in message
    assert "*_net_G.pth" in message


def test_a_multi_scale_and_a_pixel_discriminator_are_called_by_their_name() -> None:
    scales = {
        f"scale{scale}_layer{layer}.0.weight": shape
        for scale in (0, 1)
        for layer, shape in enumerate([(64, 6, 4, 4), (128, 64, 4, 4), (1, 128, 4, 4)])
    }
    assert "a discriminator" in refusal(empty(scales))
    pixel = {"net.0.weight": (64, 3, 1, 1), "net.2.weight": (128, 64, 1, 1),
             "net.5.weight": (1, 128, 1, 1)}  # fmt: skip
    assert "a discriminator" in refusal(empty(pixel))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)}, "a classifier with 1000"),
        ({"features.0.weight": (64, 3, 3, 3), "classifier.6.weight": (10, 4096)}, "with 10 cla"),
        ({"features.0.weight": (64, 3, 3, 3), "classifier.1.weight": (1000, 512, 1, 1)}, "1000"),
        ({"features.0.weight": (64, 3, 3, 3), "features.2.weight": (64, 64, 3, 3)}, "VGG"),
        (
            {
                "backbone.layer4.2.conv3.weight": (2048, 512, 1, 1),
                "classifier.0.weight": (512, 2048, 3, 3),
                "classifier.4.weight": (21, 512, 1, 1),
            },
            "a segmentation network with 21 classes",
        ),
        ({"0.exp_avg": (3,), "0.exp_avg_sq": (3,), "lr": ()}, "the state of an optimiser"),
    ],
)
def test_what_people_take_for_a_generator_is_called_by_its_name(shapes: Shapes, words: str) -> None:
    message = refusal(empty(shapes))
    assert message.startswith("no generator: ")
    assert words in message


def test_real_feature_networks_are_called_by_their_name() -> None:
    if not FEATURES.exists():
        pytest.skip("no features in shared/assets")
    for name, words in (
        ("vgg_normalised_conv3_1.pth", "VGG"),
        ("squeezenet1.0_decoded_fp32.pth", "a classifier with 1000 classes"),
    ):
        tensors = torch.load(FEATURES / name, map_location="cpu", weights_only=True)
        assert words in refusal(tensors)


@pytest.mark.parametrize(("downs", "family"), [(2, "resnet"), (4, "pix2pixhd")])
def test_labels_in_and_classes_out_are_no_pictures(downs: int, family: str) -> None:
    net = replace(NET, downs=downs)
    message = refusal(empty(resnet_shapes(replace(net, outputs=21))))
    assert f"the nearest family is {family} (" in message
    assert re.search(r"last convolution \(model\.\d+\.weight\) has 21 outputs", message)
    assert "segmentation" in message
    message = refusal(empty(resnet_shapes(replace(net, inputs=36))))
    assert f"the nearest family is {family} (" in message
    assert "first convolution (model.1.weight) takes 36 channels: label maps" in message


def test_labels_in_an_enhancer_and_classes_of_a_style_network() -> None:
    message = refusal(empty(enhancer_shapes(replace(NET, inputs=36))))
    assert "the nearest family is pix2pixhd-local" in message
    assert "takes 36 channels" in message
    shapes = style_shapes(WIDTHS)
    shapes |= {"deconv3.conv2d.weight": (21, 4, 9, 9), "deconv3.conv2d.bias": (21,)}
    message = refusal(empty(shapes))
    assert "the nearest family is fast-neural-style" in message
    assert "has 21 outputs" in message


def test_a_network_like_none_lists_the_families_and_its_keys() -> None:
    message = refusal(empty({f"encoder.{n}.attention.weight": (8, 8) for n in range(20)}))
    assert "no known generator; there are: fast-neural-style, resnet" in message
    assert message.count(".attention.weight") == 6


def test_names_of_a_hostile_file_stay_on_one_line() -> None:
    message = refusal({"model.1.weight\n\x1b[2Jok": torch.ones(1), "x" * 10_000: torch.ones(1)})
    assert "\x1b" not in message
    assert len(message) < 1000


def claims(shape: tuple[int, ...]) -> Any:
    """A tensor that says it is large, and holds one number."""
    return torch.zeros(()).expand(shape)


@pytest.mark.parametrize("family", HERE)
@pytest.mark.parametrize("channels", [0, 10**6, 10**9])
def test_claimed_sizes_cost_nothing(family: str, channels: int) -> None:
    tensors = {
        name: claims((channels, *value.shape[1:])) if value.ndim else value
        for name, value in tensors_of(family).items()
    }
    refusal(tensors)


@pytest.mark.parametrize("family", HERE)
def test_missing_sides_and_missing_biases(family: str) -> None:
    tensors = tensors_of(family)
    flat = {name: value.flatten() for name, value in tensors.items()}
    refusal(flat)
    refusal({name: value for name, value in tensors.items() if not name.endswith("bias")})
    refusal({name: torch.ones(()) for name in tensors})


def test_numbers_in_names_do_not_make_blocks() -> None:
    for name in ("model.{}.conv_block.1.weight", "res{}.conv1.conv2d.weight", "blocks.{}.x"):
        for number in ("9999", "1000000", "9" * 5000):
            tensors = tensors_of("resnet") | tensors_of("fast-neural-style") | tensors_of("quarter")
            refusal(tensors | {name.format(number): torch.ones(4, 4, 3, 3)})


def test_more_blocks_than_any_network_has() -> None:
    message = refusal(empty(resnet_shapes(replace(NET, ngf=1, blocks=200))))
    assert "its residual blocks end at model.209, expected model.10 to model.73" in message
    assert "it has 300 residual blocks" in refusal(empty(style_shapes((1, 1, 1, 1, 1), 300)))


@pytest.mark.parametrize("family", HERE)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_weights_are_refused_and_nothing_else(family: str, data: st.DataObject) -> None:
    tensors = tensors_of(family)
    names = sorted(tensors)
    sides = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 9, 48, 10**4]), max_size=5)
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)):
        change = data.draw(st.sampled_from(["drop", "reshape", "rename", "retype"]))
        value = tensors.pop(name)
        if change == "reshape":
            tensors[name] = claims(tuple(data.draw(sides)))
        elif change == "rename":
            other = data.draw(st.sampled_from(names)) + data.draw(st.sampled_from(["", "x", ".1"]))
            tensors[other] = value
        elif change == "retype":
            tensors[name] = value.to(data.draw(st.sampled_from([torch.int64, torch.complex64])))
    try:
        generator = recognise(tensors).generator
    except ConversionError:
        return
    # Not damaged: the name of a tensor was drawn as its new one, or the same shape.
    assert {name: x.shape for name, x in generator.state_dict().items()} == {
        name: x.shape for name, x in tensors.items()
    }
