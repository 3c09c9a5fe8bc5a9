"""Export to the frame model contract, and the proof that it is the same picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export starts from PyTorch; install torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")

from engines.errors import ConversionError  # noqa: E402
from engines.export import FrameTranslator, export_frame_model  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.model import Card, FrameModel  # noqa: E402
from engines.proof import HIGHEST_PSNR_DB, Limits, compare, prove_frame_model  # noqa: E402


class Formula(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A generator that is one formula; has a parameter, as real ones do."""

    def __init__(self, formula: Callable[..., object]) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))
        self.formula = formula

    def forward(self, image: object) -> object:
        return self.formula(image * self.one)


def exported(generator: object, path: Path) -> Callable[..., np.ndarray]:
    export_frame_model(generator, Card(name="test"), path)
    return in_onnxruntime(path)


def in_onnxruntime(path: Path) -> Callable[..., np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda frame: session.run(["translated"], {"frame": frame[None]})[0][0]


def every_value(height: int = 24, width: int = 32) -> np.ndarray:
    return (np.arange(height * width * 3) % 256).astype(np.uint8).reshape(height, width, 3)


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> tuple[QuarterNet, Path]:
    """A network and its file, exported once."""
    network, path = QuarterNet(8, 1), tmp_path_factory.mktemp("quarter") / "q.onnx"
    torch.nn.init.normal_(network.tail.weight, std=0.05)
    export_frame_model(network, Card(name="q", stride=4, licence="Apache-2.0"), path)
    return network, path


def test_the_file_keeps_the_contract(quarter: tuple[QuarterNet, Path]) -> None:
    path = quarter[1]
    graph = onnx.load(str(path)).graph
    takes_frame = [node.op_type for node in graph.node if "frame" in node.input]
    assert takes_frame == ["Cast"]
    sides = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in sides] == [1, "H", "W", 3]
    model = FrameModel.read(path)
    assert model.fixed_size is None
    assert model.card.licence == "Apache-2.0"


def test_it_carries_no_paths_of_the_exporting_machine(quarter: tuple[QuarterNet, Path]) -> None:
    data = quarter[1].read_bytes()
    assert b".py" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


@pytest.mark.parametrize(("height", "width"), [(8, 8), (60, 80), (36, 64)])
def test_any_size_in_steps_of_the_stride(
    quarter: tuple[QuarterNet, Path], height: int, width: int
) -> None:
    network, path = quarter
    run = in_onnxruntime(path)
    frame = every_value(height, width)
    with torch.inference_mode():
        right = FrameTranslator(network)(torch.from_numpy(frame[None]))[0].numpy()
    assert compare(lambda _: right, run, [frame]).max_difference <= 1


def test_the_identity_gives_every_value_back(tmp_path: Path) -> None:
    run = exported(Formula(lambda image: image), tmp_path / "same.onnx")
    assert np.array_equal(run(every_value()), every_value())


def test_the_generator_sees_rgb_and_frames_are_bgr(tmp_path: Path) -> None:
    no_red = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1)
    found = exported(Formula(lambda image: image * no_red), tmp_path / "r.onnx")(every_value())
    assert not found[..., 2].any()
    assert np.array_equal(found[..., :2], every_value()[..., :2])


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    run = exported(Formula(lambda image: image * 2 - 0.25), tmp_path / "c.onnx")
    wide = every_value().astype(np.float64) * 2 - 0.25 * 255
    right = np.clip(np.round(wide), 0, 255)
    assert np.abs(run(every_value()) - right).max() <= 1
    assert run(every_value()).min() == 0
    assert run(every_value()).max() == 255


def test_export_leaves_the_generator_in_its_mode(tmp_path: Path) -> None:
    network = QuarterNet(8, 1).train()
    export_frame_model(network, Card(name="q", stride=4), tmp_path / "q.onnx")
    assert network.training


def test_a_generator_that_cannot_be_exported_says_so(tmp_path: Path) -> None:
    def depends_on_values(image: object) -> object:
        return image if float(image.sum()) > 0 else -image  # type: ignore[attr-defined, operator]

    with pytest.raises(ConversionError, match="cannot export"):
        export_frame_model(Formula(depends_on_values), Card(name="x"), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_the_same_picture_is_proved() -> None:
    proof = compare(lambda f: f, lambda f: f.copy(), [picture(1), picture(2)])
    assert proof.passed
    assert proof.problems == ()
    assert proof.frames == 2
    assert proof.psnr_db == HIGHEST_PSNR_DB
    assert proof.max_difference == proof.mean_difference == proof.broken_share == 0


def test_the_numbers_are_those_of_a_known_difference() -> None:
    frame = np.full((4, 5, 3), 100, np.uint8)
    frame[0, 0] = 90
    proof = compare(lambda f: f, lambda f: f + 2, [frame])
    assert proof.max_difference == proof.mean_difference == 2
    assert proof.psnr_db == pytest.approx(20 * np.log10(255 / 2))
    assert proof.for_card() == {
        "psnr_db": 42.11,
        "max_difference": 2.0,
        "mean_difference": 2.0,
        "frames": 1,
    }
    assert proof.problems == ("mean difference 2.00 of 255, expected 1 or less",)


def test_another_picture_is_refused() -> None:
    proof = compare(lambda f: f, lambda f: 255 - f, [picture(1)], Limits(psnr_db=30))
    assert not proof.passed
    assert "PSNR" in proof.problems[0]
    assert "30" in proof.problems[0]


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_black_and_not_finite_pictures_are_refused(broken: float) -> None:
    proof = compare(lambda f: f, lambda f: np.full(f.shape, broken), [picture(1)])
    assert proof.broken_share == 1
    assert "100% of the pictures" in proof.problems[0]


def test_a_picture_may_be_black_where_the_reference_is() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert compare(lambda f: f, lambda f: f, [black]).passed


def test_pictures_of_another_shape_and_no_frames_are_errors() -> None:
    with pytest.raises(ConversionError, match="shape"):
        compare(lambda f: f, lambda f: f[:-1], [picture(1)])
    with pytest.raises(ConversionError, match="no frames"):
        compare(lambda f: f, lambda f: f, [])


def test_a_frame_model_is_proved_against_its_generator(tmp_path: Path) -> None:
    network, other = QuarterNet(8, 1), QuarterNet(8, 1)
    torch.nn.init.normal_(other.tail.weight, std=0.05)
    path = tmp_path / "q.onnx"
    export_frame_model(network, Card(name="q", stride=4), path)
    proofs = prove_frame_model(path, network, [every_value(), every_value(8, 8)])
    assert proofs["onnxruntime/f32"].passed
    assert proofs["onnxruntime/f32"].frames == 1
    with pytest.raises(ConversionError, match="onnxruntime in f32 is not the same picture: PSNR"):
        prove_frame_model(path, other, [every_value()])
    with pytest.raises(ConversionError, match="no frames"):
        prove_frame_model(path, network, [])
