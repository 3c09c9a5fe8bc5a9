"""QuarterNet: shapes, ranges, and the way back from an exported file to PyTorch."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="QuarterNet is a PyTorch module; install torch")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from engines.errors import ModelError  # noqa: E402
from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.model import Card  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "filters" / "comic.onnx"


def random_network(channels: int = 8, blocks: int = 2) -> QuarterNet:
    torch.manual_seed(7)
    network = QuarterNet(channels, blocks).eval()
    torch.nn.init.normal_(network.tail.weight, std=0.05)
    return network


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 20), (36, 64)])
def test_output_has_the_size_of_the_input_and_stays_in_range(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    found = random_network()(image)
    assert found.shape == image.shape
    assert found.min() >= 0
    assert found.max() <= 1


def test_it_starts_close_to_the_identity() -> None:
    image = torch.rand(1, 3, 16, 16)
    assert torch.allclose(QuarterNet(16, 1)(image), image, atol=0.1)


def test_what_it_sees_ends_where_the_docstring_says() -> None:
    network = random_network(blocks=1)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 0:4, 0:4] = 1 - changed[..., 0:4, 0:4]
    reach = 4 * (2 * 1 + 2)
    with torch.inference_mode():
        difference = (network.unclamped(image) - network.unclamped(changed)).abs()
    assert difference[..., :4, :4].max() > 0
    assert difference[..., 4 + reach :, :].max() < 1e-5


def test_the_weights_survive_export(tmp_path: Path) -> None:
    network = random_network()
    path = tmp_path / "q.onnx"
    export_frame_model(network, Card(name="q", stride=4), path)
    rebuilt = QuarterNet.from_frame_model(path)
    image = torch.rand(1, 3, 32, 48)
    assert rebuilt.architecture == network.architecture == "QuarterNet, 8 channels, 2 blocks"
    with torch.inference_mode():
        assert torch.equal(rebuilt(image), network(image))


def test_biases_that_are_zero_survive_export(tmp_path: Path) -> None:
    network = random_network()
    torch.nn.init.zeros_(network.tail.bias)
    path = tmp_path / "q.onnx"
    export_frame_model(network, Card(name="q", stride=4), path)
    assert torch.equal(QuarterNet.from_frame_model(path).tail.bias, network.tail.bias)


def test_another_network_is_refused_with_its_weights_named(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    export_frame_model(torch.nn.Conv2d(3, 3, 1), Card(name="other"), path)
    with pytest.raises(ModelError, match=r"no weights of a QuarterNet.*generator\.weight"):
        QuarterNet.from_frame_model(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        QuarterNet.from_frame_model(tmp_path / "none.onnx")


def test_the_shipped_filter_is_its_pytorch_network() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    rows, columns = np.indices((120, 160))
    frame = np.stack([rows * 2, columns, (rows + columns) * 7 % 256], axis=-1).astype(np.uint8)
    session = onnxruntime.InferenceSession(str(SHIPPED), providers=["CPUExecutionProvider"])
    found = session.run(None, {"frame": frame[None]})[0]
    translator = FrameTranslator(QuarterNet.from_frame_model(SHIPPED))
    with torch.inference_mode():
        right = translator(torch.from_numpy(frame[None])).numpy()
    assert np.abs(found.astype(int) - right).max() <= 1
    assert right.std() > 20
