"""PersonNet: its shapes, its frame model, and the one that ships."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import Card, EngineError, FrameModel, filter_names, open_engine
from engines.masks import PERSON
from engines.proof import MASTER_LIMITS, compare

ROOT = Path(__file__).parents[2]
README = ROOT / "engines" / "masks" / "README.md"
MOST_BYTES = 1_500_000


def scene(width: int, height: int) -> np.ndarray:
    """Return noise with a bright ball in it, so that no part is like another."""
    small = np.random.default_rng(4).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(picture, (width // 2, height // 2), height // 4, (240, 220, 250), -1)
    return np.asarray(picture, np.uint8)


def network(channels: tuple[int, ...] = (4, 4, 8, 8), blocks: int = 1):
    torch = pytest.importorskip("torch", reason="the network itself needs torch")
    from engines.generators.person import PersonNet

    torch.manual_seed(3)
    made = PersonNet(channels, blocks)
    for module in made.modules():  # as after training: normalisations that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    made.tail.weight.data *= 20  # masks that are nowhere flat
    return made


def test_logits_to_learn_from_and_a_picture_with_alpha_to_use() -> None:
    made = network()
    import torch

    image = torch.rand(2, 3, 32, 48)
    assert made.train()(image).shape == (2, 1, 32, 48)
    found = made.eval()(image).detach()
    assert found.shape == (2, 4, 32, 48)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    for channel in range(3):
        assert torch.equal(found[:, channel], found[:, 3])
    assert made.architecture == "PersonNet, channels 4 4 8 8, 1 blocks"


def test_the_whole_picture_counts() -> None:
    made = network().eval()
    import torch

    image = torch.rand(1, 3, 160, 160)
    other = image.clone()
    other[..., 144:, 144:] = 1 - other[..., 144:, 144:]
    with torch.inference_mode():
        change = (made(image) - made(other)).abs()[0, 3]
    assert float(change[:16, :16].max()) > 0


@pytest.mark.parametrize("channels", [(4, 4, 8), (4, 4, 8, 0), (1, 2, 3, 4, 5)])
def test_widths_that_do_not_fit(channels: tuple[int, ...]) -> None:
    pytest.importorskip("torch", reason="the network itself needs torch")
    from engines.generators.person import PersonNet

    with pytest.raises(ValueError, match="four widths"):
        PersonNet(channels)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """A network and its file, exported once."""
    pytest.importorskip("onnxscript", reason="export needs onnxscript")
    made = network()
    from engines.export import export_frame_model

    path = tmp_path_factory.mktemp("mask") / "mask.onnx"
    export_frame_model(made, Card("mask", stride=made.stride), path)
    return made, path


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_frame_model_gives_the_networks_mask_as_alpha(exported, backend: str) -> None:
    made, path = exported
    from engines.proof import picture_of, torch_levels

    model = FrameModel.read(path)
    assert model.has_alpha
    for size in ((64, 48), (96, 32)):  # H and W are symbolic
        frame = scene(*size)
        wanted = picture_of(torch_levels(made)(frame))
        try:
            engine = open_engine(path, size, backend=backend, precision="f32")
        except EngineError as error:
            pytest.skip(str(error))
        with engine:
            shown = engine.infer(frame)
            assert engine.alpha is not None
            assert engine.alpha.shape == (*size[::-1], 1)
            assert np.abs(shown.astype(int) - wanted).max() <= 1
            assert np.array_equal(engine.alpha[..., 0], shown[..., 1])
            assert engine.alpha.std() > 3, "a flat mask proves nothing"


needs_mask = pytest.mark.skipif(not PERSON.is_file(), reason="the mask was not trained yet")


@needs_mask
def test_the_shipped_mask_is_small_and_says_what_it_is() -> None:
    model = FrameModel.read(PERSON)
    card = model.card
    assert PERSON.stat().st_size < MOST_BYTES
    assert model.has_alpha
    assert card.stride == 16
    assert card.licence == "Apache-2.0"
    assert "distilled from an Apache-2.0 segmentation model" in card.origin
    assert "selfie_segmentation" in card.training
    assert card.command.startswith("pix2live train mask ")
    assert card.command in README.read_text(encoding="utf-8")
    assert card.measures["iou_with_teacher"] >= 0.90
    for name in ("openvino/f32", "onnxruntime/f32"):
        assert card.proofs[name]["psnr_db"] >= MASTER_LIMITS.psnr_db, name
    assert "person" not in filter_names(), "the gallery is of filters"


@needs_mask
def test_the_shipped_mask_is_the_same_on_another_backend() -> None:
    size = (128, 96)
    frame = scene(*size)
    try:
        reference = open_engine(PERSON, size, backend="onnxruntime")
    except EngineError as error:
        pytest.skip(str(error))
    with reference, open_engine(PERSON, size, backend="openvino", precision="f32") as engine:
        assert compare(reference.infer, engine.infer, [frame], MASTER_LIMITS).passed
        assert engine.alpha is not None
        assert reference.alpha is not None
        assert np.abs(engine.alpha.astype(int) - reference.alpha).max() <= 1
