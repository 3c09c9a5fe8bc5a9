"""The PyTorch backend: any picture format, networks rebuilt from frame models, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from torch import nn  # noqa: E402

from engines import EngineError, FrameModel, open_engine  # noqa: E402
from engines.backends.torch import in_half  # noqa: E402
from engines.export import export_frame_model  # noqa: E402
from engines.generators.families import recognise  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.generators.rebuilding import rebuild  # noqa: E402
from engines.model import Card  # noqa: E402
from engines.picture_format import BYTE_RGB, SIGNED_RGB, PictureFormat  # noqa: E402

SIZE = (64, 48)
ASSETS = Path(__file__).parents[2].parent / "shared" / "assets" / "weights"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Inverting(nn.Module):
    """Inverts the colours inside any picture format; with alpha, that is the red."""

    def __init__(self, picture: PictureFormat) -> None:
        super().__init__()
        self.takes = self.gives = picture

    def forward(self, image: Any) -> Any:
        axis = 1 if self.takes.layout == "nchw" else 3
        assert image.dtype == torch.float32
        assert image.shape[axis] == self.takes.channels
        low, high = self.takes.offset[0], self.takes.offset[0] + self.takes.scale[0]
        inverted = low + high - image
        if self.takes.colour == "rgba":
            inverted = torch.cat([inverted[:, :3], image[:, :1]], 1)
        return inverted


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("picture", [SIGNED_RGB, BYTE_RGB, PictureFormat()])
def test_a_generator_says_what_its_pictures_are(
    picture: PictureFormat, colour: str, layout: str
) -> None:
    generator = Inverting(PictureFormat(colour, picture.scale, picture.offset, layout))
    frame = models.picture(SIZE)
    with open_engine(generator, SIZE, backend="torch:cpu") as engine:
        assert np.array_equal(engine.infer(frame), 255 - frame)
        assert engine.alpha is None


def test_alpha_comes_out(tmp_path: Path) -> None:
    frame = models.picture(SIZE)
    with open_engine(Inverting(PictureFormat("rgba")), SIZE, backend="torch:cpu") as engine:
        for seed in range(2):
            frame = models.picture(SIZE, seed)
            assert np.array_equal(engine.infer(frame), 255 - frame)
            assert engine.alpha is not None
            assert np.array_equal(engine.alpha, frame[..., 2:])


def test_a_generator_that_gives_another_size_is_refused() -> None:
    for broken in (nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, 3, 1)):
        with pytest.raises(EngineError, match="the generator failed on a frame: ") as refusal:
            open_engine(broken, SIZE, backend="torch:cpu")
        assert "\n" not in str(refusal.value)


def test_precisions_without_cuda() -> None:
    for precision in ("f16", "bf16"):
        with pytest.raises(EngineError, match=f"torch runs f32 only, not {precision}"):
            open_engine(nn.Identity(), SIZE, backend="torch:cpu", precision=precision)


# --- rebuilt from frame models ------------------------------------------------------------------


def written(generator: Any, path: Path, **card: Any) -> FrameModel:
    stride = generator.stride
    export_frame_model(generator, Card(path.stem, stride=stride, **card), path)
    return FrameModel.read(path)


def same_as_the_file(model: FrameModel, size: tuple[int, int] = SIZE) -> str:
    """Compare with OpenVINO; return the notes."""
    frame = np.repeat(np.repeat(models.picture((size[0] // 4, size[1] // 4)), 4, 0), 4, 1)
    with open_engine(model, size, backend="openvino", precision="f32") as engine:
        right = engine.infer(frame).astype(int)
    with open_engine(model, size, backend="torch:cpu") as engine:
        assert np.abs(engine.infer(frame) - right).max() <= 2
        return " / ".join(engine.notes)


def test_a_quarter_net_with_a_zero_bias(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = QuarterNet(8, 2).eval()
    nn.init.normal_(network.tail.weight, std=0.05)
    nn.init.zeros_(network.blocks[1].first.bias)
    model = written(network, tmp_path / "q.onnx", architecture=network.architecture)
    assert "generator.blocks.1.first.bias" not in _initializers(model)
    notes = same_as_the_file(model)
    assert "rebuilt from q.onnx: " in notes
    assert " dB from the file" in notes


def _initializers(model: FrameModel) -> set[str]:
    import onnx

    return {item.name for item in onnx.load(str(model.path)).graph.initializer}


def test_weights_that_an_exporter_folded_away_are_an_error_in_words(tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(1)
    path = written(QuarterNet(8, 1).eval(), tmp_path / "q.onnx", architecture="QuarterNet").path
    proto = onnx.load(str(path))
    gone = "generator.blocks.0.first.weight"
    for item in (*proto.graph.initializer, *proto.graph.node):
        if item.name == gone:
            item.name = "folded_with_another"
        if isinstance(item, onnx.NodeProto):
            item.input[:] = ["folded_with_another" if x == gone else x for x in item.input]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(EngineError, match="cannot rebuild 'QuarterNet' from a frame") as refusal:
        rebuild(FrameModel.read(path))
    assert "blocks.0.first.weight" in str(refusal.value)
    assert str(refusal.value).endswith("; take --backend openvino or onnxruntime")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", ["legacy_candy_nf16_e2_1e5_1e10", "mosaic_nc8_b1_e2_1e05_1e10"])
def test_a_public_checkpoint_survives_export(file: str, tmp_path: Path) -> None:
    path = ASSETS / "transformer_net" / f"{file}.model"
    if not path.exists():
        pytest.skip("the checkpoints that people have are not here")
    found = recognise(torch.load(path, map_location="cpu", weights_only=True)).generator
    model = written(found, tmp_path / "style.onnx", architecture=found.architecture)
    same_as_the_file(model)


def test_a_network_that_only_looks_the_same_is_refused(tmp_path: Path) -> None:
    """The names and shapes of a QuarterNet, and another computation between them."""

    class Other(QuarterNet):
        def forward(self, image: Any) -> Any:
            return 1 - super().forward(image)

    torch.manual_seed(1)
    model = written(Other(8, 1).eval(), tmp_path / "other.onnx", architecture="QuarterNet")
    with pytest.raises(EngineError, match="makes another picture"):
        open_engine(model, SIZE, backend="torch:cpu")


def test_a_frame_model_with_states_is_refused(tmp_path: Path) -> None:
    model = models.written(models.running_mean(), tmp_path / "mean.onnx", architecture="mean")
    with pytest.raises(EngineError, match="rebuild 'mean' from a frame model: it has states"):
        open_engine(model, SIZE, backend="torch:cpu")


# --- half precision -----------------------------------------------------------------------------


class HalfSafe(nn.Module):
    """What float16 would break: a normalisation of its own over values of thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3, padding=1)
        self.back = nn.Conv2d(8, 3, 3, padding=1)
        nn.init.normal_(self.wide.weight, std=300)

    def forward(self, image: Any) -> Any:
        wide = self.wide(image)
        assert wide.dtype == torch.float32
        centred = wide - wide.mean((2, 3), keepdim=True)
        scaled = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return torch.sigmoid(self.back(scaled))


def test_half_precision_is_in_the_convolutions_only() -> None:
    torch.manual_seed(2)
    generator = HalfSafe().eval()
    halved = in_half(generator)
    image = torch.rand(1, 3, 24, 32)
    with torch.inference_mode():
        wide = halved.wide(image)
        difference = (halved(image) - generator(image)).abs()
    assert halved.wide.weight.dtype == torch.float16
    assert wide.dtype == torch.float32
    assert torch.equal(wide, wide.half().float()), "the convolution itself is in half precision"
    assert 0 < difference.max() < 0.01
    assert generator.wide.weight.dtype == torch.float32, "the caller's network is not changed"


class Labelled(nn.Conv2d):
    """A convolution of somebody's own that is given whole numbers, too."""

    def forward(self, image: Any, labels: Any) -> Any:
        assert labels.dtype == torch.int64
        return super().forward(image)


class Doubling(nn.Module):
    """Calls its layers as people do: by position, by name, and with the size of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1)
        self.last = nn.ConvTranspose2d(8, 3, 3, padding=1)
        self.labelled = Labelled(3, 3, 1)

    def forward(self, image: Any) -> Any:
        height, width = image.shape[2:]
        image = self.labelled(image, torch.tensor([height]))
        up = self.up(self.down(input=image), [height, width])
        return torch.sigmoid(self.last(input=up, output_size=torch.Size([height, width])))


def test_half_precision_takes_layers_however_they_are_called() -> None:
    torch.manual_seed(2)
    generator = Doubling().eval()
    halved = in_half(generator)
    seen: list[Any] = []

    def keep(_: Any, given: Any, named: Any) -> None:
        seen.append((*given, *named.values()))

    for layer in (halved.down, halved.up, halved.last):
        layer.register_forward_pre_hook(keep, with_kwargs=True)  # after the one of in_half
    image = torch.rand(1, 3, 24, 32)
    with torch.inference_mode():
        difference = (halved(image) - generator(image)).abs()
    assert 0 < difference.max() < 0.01
    assert [given[0].dtype for given in seen] == [torch.float16] * 3
    assert [given[1:] for given in seen] == [(), ([24, 32],), (torch.Size([24, 32]),)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_on_cuda_it_is_the_same_picture(precision: str) -> None:
    torch.manual_seed(1)
    network = QuarterNet(8, 2).eval()
    frame = models.picture(SIZE)
    with open_engine(network, SIZE, backend="torch:cpu") as engine:
        right = engine.infer(frame).astype(int)
    with open_engine(network, SIZE, backend="torch:cuda", precision=precision) as engine:
        assert "CUDA graph: captured from PyTorch" in engine.notes
        for _ in range(3):
            found = engine.infer(frame)
    assert np.abs(found - right).max() <= (1 if precision == "f32" else 3)
