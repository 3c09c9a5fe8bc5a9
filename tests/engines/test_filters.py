"""The filters that ship: small, with whole cards, and the same picture on every backend."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import EngineError, filter_names, load_filter, open_engine
from engines.proof import HALF_LIMITS, MASTER_LIMITS, Limits, compare

LARGEST_BYTES = 1_500_000
BEFORE_COMMANDS = {"comic"}
"""Made by an earlier trainer, whose command is no more."""
ROOT = Path(__file__).parents[2]


def shapes(width: int, height: int) -> NDArray[np.uint8]:
    """A picture with edges, ramps and texture. uint8 (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    discs = np.hypot(rows - height / 2, columns - width / 3) < height / 4
    texture = 20 * np.sin(rows / 2) * np.sin(columns / 3)
    planes = [
        255 * columns / width,
        np.where(discs, 210, 90) + texture,
        128 + 100 * np.sin(columns / 17) * np.cos(rows / 11),
    ]
    return np.clip(np.dstack(planes), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", filter_names())
def test_a_filter_is_small_and_its_card_is_whole(name: str) -> None:
    model = load_filter(name)
    card = model.card
    assert model.path.stat().st_size < LARGEST_BYTES
    assert card.name == name
    assert card.licence == "Apache-2.0"
    assert "->" in card.domains
    for text in (card.title, card.architecture, card.origin, card.weights_sha256, card.training):
        assert text
    assert model.fixed_size is None
    if name not in BEFORE_COMMANDS:
        assert shlex.split(card.command)[:3] == ["pix2live", "train", card.task]
    assert card.measures["warping_error_1e3"] > 0
    for backend, limits in (
        ("onnxruntime/f32", MASTER_LIMITS),
        ("openvino/f32", MASTER_LIMITS),
        ("openvino/bf16", Limits()),
        ("f16", HALF_LIMITS),
    ):
        assert card.proofs[backend]["psnr_db"] >= limits.psnr_db, backend
        assert card.proofs[backend]["max_difference"] <= limits.max_difference, backend
        assert card.proofs[backend]["frames"] >= 8


@pytest.mark.parametrize("name", filter_names())
def test_a_filter_is_the_same_picture_on_another_backend(name: str) -> None:
    size = (160, 96)
    try:
        reference = open_engine(name, size, backend="onnxruntime")
    except EngineError as error:
        pytest.skip(str(error))
    with reference, open_engine(name, size, backend="openvino", precision="f32") as engine:
        frame = shapes(*size)
        assert compare(reference.infer, engine.infer, [frame], MASTER_LIMITS).passed
        translated = engine.infer(frame)
    assert np.abs(translated.astype(int) - frame).mean() > 2, "it changes nothing"
    assert translated.std() > 10, "it paints everything grey"


@pytest.mark.parametrize("name", filter_names())
def test_the_document_of_the_gallery_has_every_command(name: str) -> None:
    text = (ROOT / "engines" / "filters" / "README.md").read_text(encoding="utf-8")
    assert f"## {name}\n" in text
    assert load_filter(name).card.command in text
