"""Real networks in half precision: the same pictures, and engines that TensorRT builds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from graphs import ASSETS, CLOSE_DB, COMIC, SIZE, checked, kinds, photographs, translate

from engines.graphs.half import find_overflow, rounded_twin
from engines.nvidia import tensorrt_api
from engines.nvidia.tensorrt_builder import build_plan
from engines.proof import compare

MOSAIC = ASSETS / "weights" / "transformer_net" / "mosaic_nc8_256x256.onnx"


def check_pictures(
    master: onnx.ModelProto, typed: onnx.ModelProto, size: tuple[int, int] = SIZE
) -> None:
    frames = photographs(size)
    proof = compare(translate(master), translate(rounded_twin(typed)), frames)
    assert proof.psnr_db > CLOSE_DB
    assert not proof.broken_share
    assert find_overflow(typed, frames[0]) is None


@pytest.fixture(scope="module")
def build() -> Callable[..., int]:
    """Build a strongly typed engine; returns its size in bytes. Needs no GPU."""
    reason = tensorrt_api.why_not("tensorrt-rtx")
    if reason is not None:
        pytest.skip(reason)

    def built(model: onnx.ModelProto, size: tuple[int, int] = SIZE) -> int:
        plan = build_plan(
            "tensorrt-rtx",
            model,
            smallest=size,
            best=size,
            largest=size,
            compute_capabilities=["8.6"],
        )
        return len(plan.data)

    return built


def test_the_shipped_filter() -> None:
    master = onnx.load(str(COMIC))
    half = checked(master)
    assert half.islands == ()
    assert half.counts["Conv"] == {"FLOAT16": 8, "FLOAT": 0}
    assert half.counts["Relu"] == {"FLOAT16": 4, "FLOAT": 0}
    assert half.counts["Round"] == {"FLOAT16": 0, "FLOAT": 1}
    assert half.model.ByteSize() < 0.52 * master.ByteSize()
    check_pictures(master, half.model)


def test_tensorrt_builds_the_shipped_filter(build: Callable[..., int]) -> None:
    master = onnx.load(str(COMIC))
    typed = build(checked(master).model)
    # Its weights are half as large: the graph's types are what the engine has.
    assert typed < 0.8 * build(master)


def network(norm: str, up: str) -> Any:
    """A small generator of the usual parts, -1 to 1: a residual block, a skip, a way up, tanh."""
    torch = pytest.importorskip("torch", reason="the networks come from PyTorch")
    pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")
    from torch import nn

    from engines.picture_format import SIGNED_RGB

    norms: dict[str, Callable[[int], Any]] = {
        "instance": lambda c: nn.InstanceNorm2d(c, affine=True),
        "batch": nn.BatchNorm2d,
        "group": lambda c: nn.GroupNorm(1, c),
    }
    ways: dict[str, Callable[[], list[Any]]] = {
        "nearest": lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, 1, 1)],
        "bilinear": lambda: [
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(16, 8, 3, 1, 1),
        ],
        "shuffle": lambda: [nn.Conv2d(16, 32, 3, 1, 1), nn.PixelShuffle(2)],
        "transposed": lambda: [nn.ConvTranspose2d(16, 8, 3, 2, 1, 1)],
    }
    made = norms[norm]

    class Generator(nn.Module):  # type: ignore[misc]
        takes = gives = SIGNED_RGB

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(
                *(nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7), made(8), nn.ReLU()),
                *(nn.Conv2d(8, 16, 3, 2, 1), made(16), nn.ReLU()),
            )
            self.block = nn.Sequential(
                *(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), made(16), nn.ReLU()),
                *(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), made(16)),
            )
            self.up = nn.Sequential(*ways[up](), made(8), nn.LeakyReLU(0.2))
            self.tail = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(11, 3, 7), nn.Tanh())

        def forward(self, image: Any) -> Any:
            seen = self.head(image)
            large = self.up(seen + self.block(seen))
            return self.tail(torch.cat([image, large], 1))

    torch.manual_seed(3)
    generator = Generator()
    for part in generator.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return generator.eval()


@pytest.mark.parametrize(
    ("norm", "up"),
    [
        ("instance", "nearest"),
        ("instance", "bilinear"),
        ("instance", "shuffle"),
        ("instance", "transposed"),
        ("batch", "nearest"),
        ("group", "bilinear"),
    ],
)
def test_generators_of_the_usual_parts(
    norm: str, up: str, tmp_path: Path, build: Callable[..., int]
) -> None:
    generator = network(norm, up)
    from engines.export import export_frame_model
    from engines.model import Card

    path = tmp_path / "generator.onnx"
    export_frame_model(generator, Card(name="generator", stride=2), path)
    master = onnx.load(str(path))
    half = checked(master)
    assert set(kinds(half, "Conv") + kinds(half, "ConvTranspose")) == {"FLOAT16"}
    assert kinds(half, "Relu") == ["FLOAT16"] * 3
    assert kinds(half, "LeakyRelu") == ["FLOAT16"]
    assert kinds(half, "Tanh") == ["FLOAT"]
    normalised = kinds(half, "InstanceNormalization")
    assert normalised == ([] if norm == "batch" else ["FLOAT"] * 5)
    assert len(half.islands) == len(normalised)
    check_pictures(master, half.model)
    assert build(half.model) > 0


def test_real_weights_with_statistics_by_hand(build: Callable[..., int]) -> None:
    from engines.graphs.adapt import adapt_onnx, load_onnx
    from engines.picture_format import BYTE_RGB

    if not MOSAIC.exists():
        pytest.skip(f"no {MOSAIC}")
    master = adapt_onnx(load_onnx(MOSAIC), BYTE_RGB, BYTE_RGB)
    half = checked(master)
    assert kinds(half, "Conv") == ["FLOAT16"] * 16
    assert set(kinds(half, "Pad") + kinds(half, "Div") + kinds(half, "Add")) == {"FLOAT"}
    assert len(half.islands) == 15 * 4
    check_pictures(master, half.model, (256, 256))
    assert build(half.model, (256, 256)) > 0


def test_real_weights_with_instance_norm(tmp_path: Path, build: Callable[..., int]) -> None:
    torch = pytest.importorskip("torch", reason="the network comes from PyTorch")
    pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")
    from engines.export import export_frame_model
    from engines.generators.fast_neural_style import build as network_of
    from engines.model import Card

    weights = MOSAIC.with_name("mosaic_nc8_b1_e2_1e05_1e10.model")
    if not weights.exists():
        pytest.skip(f"no {weights}")
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    generator = network_of(tensors)
    generator.load_state_dict(tensors)
    path = tmp_path / "mosaic.onnx"
    export_frame_model(generator.eval(), Card(name="mosaic", stride=4), path)
    master = onnx.load(str(path))
    half = checked(master)
    assert kinds(half, "Conv") == ["FLOAT16"] * 16
    assert kinds(half, "InstanceNormalization") == ["FLOAT"] * 15
    assert kinds(half, "Add") == ["FLOAT16"] * 5
    assert len(half.islands) == 15
    check_pictures(master, half.model)
    assert build(half.model) > 0
