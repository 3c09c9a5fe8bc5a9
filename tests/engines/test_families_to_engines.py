"""Every family: public weights -> FP16 typed graph -> TensorRT engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the weights are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

import checkpoints_a as public_a  # noqa: E402
import checkpoints_b as public_b  # noqa: E402

from engines.export import frame_model_graph  # noqa: E402
from engines.generators.families import FAMILIES, recognise  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.graphs.half import HalfModel, to_half  # noqa: E402
from engines.nvidia import tensorrt_api  # noqa: E402
from engines.nvidia.tensorrt_builder import build_plan  # noqa: E402

CONVOLUTIONS = ("convolution", "deconvolution")


def style() -> Any:
    return public_a.random_tensors(public_a.style_shapes((8, 16, 32, 16, 8), 2))


def resnet(**choices: Any) -> Any:
    """One residual block: all the others would be exported and built as that one is."""
    return public_a.random_tensors(public_a.resnet_shapes(public_a.Resnet(blocks=1, **choices)))


def enhancer() -> Any:
    return public_a.random_tensors(public_a.enhancer_shapes(public_a.Resnet(blocks=1, downs=3)))


WEIGHTS = {
    "fast-neural-style": ("fast-neural-style", style),
    "resnet": ("resnet", resnet),
    "CUT": ("resnet", lambda: resnet(blur_down=True, blur_up=True)),
    "pix2pix, batch norm": ("resnet", lambda: resnet(norm="batch")),
    "pix2pixhd": ("pix2pixhd", lambda: resnet(downs=3)),
    "pix2pixhd-local": ("pix2pixhd-local", enhancer),
    "unet": ("unet", lambda: public_b.unet(5, norm="batch")),
    "unet, instance norm": ("unet", lambda: public_b.unet(5, norm="instance")),
    "animegan-v2": ("animegan-v2", lambda: public_b.animegan(4, blocks=1)),
    "cartoongan": ("cartoongan", lambda: public_b.cartoongan(8, 1)),
    "quarter": ("quarter", lambda: QuarterNet(8, 1).state_dict()),
}


@pytest.fixture(scope="module", params=WEIGHTS)
def typed(request: pytest.FixtureRequest) -> tuple[HalfModel, int]:
    family, make = WEIGHTS[request.param]
    found = recognise(make())
    assert found.family.name == family
    generator: Any = found.generator
    return to_half(frame_model_graph(generator, generator.stride)), generator.stride


def test_every_family_is_here() -> None:
    assert {family for family, _ in WEIGHTS.values()} == set(FAMILIES)


def test_every_convolution_is_in_fp16_and_every_statistic_in_fp32(
    typed: tuple[HalfModel, int],
) -> None:
    counts = typed[0].counts
    assert sum(counts.get(kind, {}).get("FLOAT16", 0) for kind in ("Conv", "ConvTranspose")) >= 4
    for kind, found in counts.items():
        if kind in ("Conv", "ConvTranspose"):
            assert found["FLOAT"] == 0, typed[0].islands
        if kind in ("InstanceNormalization", "Tanh", "ReduceMean", "Round"):
            assert found["FLOAT16"] == 0, kind


def test_an_engine_is_built_without_a_gpu(typed: tuple[HalfModel, int]) -> None:
    reason = tensorrt_api.why_not("tensorrt-rtx")
    if reason is not None:
        pytest.skip(reason)
    half, stride = typed
    cells = -(-64 // stride)
    size = (cells * stride, cells * stride)
    plan = build_plan(
        "tensorrt-rtx",
        half.model,
        smallest=size,
        best=size,
        largest=size,
        compute_capabilities=["8.6"],
    )
    assert len(plan.data) > 10_000
    floats = {
        kind: {name: count for name, count in types.items() if name in ("f16", "f32", "bf16")}
        for kind, types in plan.layers.items()
    }
    made = [floats[kind] for kind in CONVOLUTIONS if kind in floats]
    assert made
    assert all(set(types) == {"f16"} for types in made)
    expected = sum(half.counts.get(x, {}).get("FLOAT16", 0) for x in ("Conv", "ConvTranspose"))
    assert sum(types["f16"] for types in made) == expected
    assert set(floats.get("normalization", {"f32": 0})) == {"f32"}
    assert plan.layers["cast"]["u8"] == 1
    assert np.frombuffer(plan.data[:4], np.uint8).any()
