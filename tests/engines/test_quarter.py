"""QuarterNet: shapes, ranges, and the way back from an exported file to PyTorch."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="QuarterNet is a PyTorch module; install torch")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from engines.errors import ConversionError, ModelError  # noqa: E402
from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators.families import recognise  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.generators.rebuilding import prove_same, rebuild  # noqa: E402
from engines.model import Card, FrameModel  # noqa: E402
from engines.weights import read_weights  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "engines" / "filters" / "comic.onnx"


WIDE = (1, 3, 2)


def random_network(
    channels: int = 8, blocks: int = 2, dilations: tuple[int, ...] | None = None
) -> QuarterNet:
    torch.manual_seed(7)
    network = QuarterNet(channels, blocks, dilations).eval()
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


def test_in_training_it_is_not_clamped() -> None:
    network = random_network()
    torch.nn.init.normal_(network.tail.weight, std=1.0)
    image = torch.rand(1, 3, 16, 16)
    shown, learned = network(image), network.train()(image)
    assert learned.min() < 0
    assert learned.max() > 1
    assert torch.equal(shown, learned.clamp(0, 1))


@pytest.mark.parametrize("dilations", [None, (1,), (3,), (2, 4)])
def test_what_it_sees_ends_where_the_docstring_says(dilations: tuple[int, ...] | None) -> None:
    spread = dilations or (1,)
    network = random_network(blocks=len(spread), dilations=dilations).train()
    image = torch.rand(1, 3, 96, 96)
    changed = image.clone()
    changed[..., 0:4, 0:4] = 1 - changed[..., 0:4, 0:4]
    reach = 4 * (2 + len(spread) + sum(spread))
    with torch.inference_mode():
        difference = (network(image) - network(changed)).abs()
    assert difference[..., 4 + reach - 4 : 4 + reach, :].max() > 0
    assert difference[..., 4 + reach :, :].max() == 0


def test_dilations_cost_nothing_and_are_told() -> None:
    plain, wide = random_network(blocks=3), random_network(blocks=3, dilations=WIDE)
    assert [value.shape for value in plain.parameters()] == [v.shape for v in wide.parameters()]
    assert wide.architecture == "QuarterNet, 8 channels, 3 blocks, dilations 1 3 2"
    assert "dilations" not in plain.state_dict()
    assert random_network(blocks=3, dilations=(1, 1, 1)).state_dict().keys() == (
        plain.state_dict().keys()
    )
    assert wide.state_dict()["dilations"].tolist() == [1, 3, 2]


def test_without_blocks_it_has_a_name_too() -> None:
    assert QuarterNet(8, 0).architecture == "QuarterNet, 8 channels, 0 blocks"


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 1), (0, 1), (1, -2), (65, 1)])
def test_dilations_that_cannot_be_are_refused(dilations: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected 2 dilations, one a block, 1 to 64; found"):
        QuarterNet(8, 2, dilations)


@pytest.mark.parametrize("dilations", [None, WIDE])
def test_saved_weights_are_recognised(dilations: tuple[int, ...] | None, tmp_path: Path) -> None:
    network = random_network(blocks=3, dilations=dilations)
    path = tmp_path / "quarter.pth"
    torch.save(network.state_dict(), path)
    found = recognise(read_weights(path).tensors)
    assert found.family.name == "quarter"
    assert found.generator.architecture == network.architecture
    image = torch.rand(1, 3, 32, 48)
    assert torch.equal(found.generator(image), network(image))


@pytest.mark.parametrize(
    ("dilations", "says"),
    [
        (torch.tensor([1, 3]), "must be 3 whole numbers"),
        (torch.tensor([[1, 3, 2]]), "must be 3 whole numbers"),
        (torch.tensor([1.0, 3.0, 2.0]), "must be 3 whole numbers"),
        (torch.tensor([1, 3, 2], dtype=torch.uint8), "must be 3 whole numbers"),
        (torch.tensor([1j, 3, 2]), "must be 3 whole numbers"),
        (torch.tensor([1, 0, 2]), r"1 to 64; found \[1, 0, 2\]"),
        (torch.tensor([1, -1, 2]), r"1 to 64; found \[1, -1, 2\]"),
        (torch.tensor([1, 2**60, 2]), "1 to 64; found"),
        (torch.tensor([1, 3, 2], device="meta"), "no network has these shapes"),
    ],
)
def test_wrong_dilations_of_a_file_are_refused(dilations: torch.Tensor, says: str) -> None:
    state = random_network(blocks=3).state_dict() | {"dilations": dilations}
    with pytest.raises(ConversionError, match=f"quarter.*{says}"):
        recognise(state)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[QuarterNet, Path]:
    """A network with dilations and its file, exported once."""
    network = random_network(blocks=3, dilations=WIDE)
    path = tmp_path_factory.mktemp("wide") / "q.onnx"
    export_frame_model(network, Card(name="q", stride=4, architecture=network.architecture), path)
    return network, path


def test_dilations_survive_export(wide: tuple[QuarterNet, Path]) -> None:
    network, path = wide
    image = torch.rand(1, 3, 32, 48)
    model = FrameModel.read(path)
    for rebuilt in (QuarterNet.from_frame_model(path), rebuild(model)):
        assert rebuilt.architecture == network.architecture
        with torch.inference_mode():
            assert torch.equal(rebuilt(image), network(image))
    assert prove_same(rebuilt, model).passed


def test_dilations_of_an_exported_file_that_cannot_be_are_refused(
    wide: tuple[QuarterNet, Path], tmp_path: Path
) -> None:
    import onnx

    path = tmp_path / "q.onnx"
    model = onnx.load(str(wide[1]))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "dilations" and list(attribute.ints) == [3, 3]:
                attribute.ints[:] = [10**9, 10**9]
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="expected 3 dilations, one a block, 1 to 64; found"):
        QuarterNet.from_frame_model(path)


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
