"""The alpha mask: what shows is what the filter itself says of each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from masking import noise, write_mask_model

from engines import EffectError, Pixels, SettingsError, open_engine
from engines.sized import SizedEngine
from realtime import Frame, Pipeline
from realtime.effects import Context, open_effect
from realtime.effects.alpha import AlphaMask
from realtime.effects.mask import feathered

SIZE = (64, 48)
FRAMES = 6


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_mask_model(tmp_path / "blue.onnx")


@pytest.fixture
def captured(tmp_path: Path) -> list[Pixels]:
    """Noise, in a folder: every alpha, and no frame like another."""
    pictures = [noise(seed, (SIZE[1], SIZE[0], 3)) for seed in range(FRAMES)]
    (tmp_path / "captured").mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(f"{tmp_path}/captured/{number}.png", picture)
    return pictures


def translate(
    folder: Path, engine: Any, spec: str = "alpha", **settings: Any
) -> tuple[Pipeline, list[Pixels]]:
    shown: list[Pixels] = []
    pipeline = Pipeline(
        folder / "captured",
        engine,
        [lambda frame: shown.append(frame.pixels.copy())],
        mode="every",
        effects=[spec],
        **settings,
    )
    pipeline.run()
    return pipeline, shown


def mixed(picture: Pixels, mask: Pixels) -> Any:
    """Return the negative where the mask is, the picture elsewhere, exactly."""
    share = mask[..., None] / 255
    return (255.0 - picture) * share + picture * (1 - share)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_each_frame_shows_where_its_own_alpha_says(
    model: Path, captured: list[Pixels], backend: str
) -> None:
    if backend != "openvino":
        pytest.importorskip(backend)
    _, shown = translate(model.parent, open_engine(model, backend=backend))
    assert len(shown) == FRAMES
    for before, after in zip(captured, shown, strict=True):
        assert np.abs(after - mixed(before, before[..., 0])).max() <= 0.5


def test_it_is_inverted_and_feathered_as_other_masks(model: Path, captured: list[Pixels]) -> None:
    _, shown = translate(model.parent, model, "alpha:invert;feather=6")
    for before, after in zip(captured, shown, strict=True):
        mask = 255 - feathered(np.ascontiguousarray(before[..., 0]), 6)
        assert np.abs(after - mixed(before, mask)).max() <= 0.5


def test_at_a_smaller_working_size_the_mask_is_as_large_as_the_frame(
    model: Path, captured: list[Pixels]
) -> None:
    sizes: list[tuple[int, ...]] = []

    def looks(frame: Frame, context: Context) -> Pixels:
        assert context.alpha is not None
        sizes.append(context.alpha.shape)
        return frame.pixels

    half = SizedEngine(open_engine(model), [(32, 16)])
    found = Pipeline(model.parent / "captured", half, ["null"], effects=[looks, "alpha"])
    found.run()
    assert set(sizes) == {(SIZE[1], SIZE[0], 1)}


def test_a_filter_without_alpha_is_named(tmp_path: Path, captured: list[Pixels]) -> None:
    plain = write_mask_model(tmp_path / "plain.onnx", alpha=False)
    with pytest.raises(EffectError, match="alpha: the filter plain does not say where it shows"):
        translate(tmp_path, plain)
    pipeline, shown = translate(tmp_path, plain, effect_errors="drop")
    said = "goes on without it: the effect alpha: the filter"
    assert [note for note in pipeline.all_notes() if said in note]
    assert all((255 - one == other).all() for one, other in zip(captured, shown, strict=True))


def test_a_switch_to_a_filter_without_alpha_is_named(model: Path) -> None:
    pipeline = Pipeline("test-pattern:64x48@100", model, ["null"], effects=["alpha"])
    pipeline.start()
    pipeline.switch(None, backend="identity", wait=True)
    with pytest.raises(EffectError, match="the filter identity does not say"):
        pipeline.wait()


def test_words() -> None:
    plain, other = open_effect("alpha"), open_effect("alpha:feather=4;invert")
    assert isinstance(plain, AlphaMask)
    assert isinstance(other, AlphaMask)
    assert (plain.feather_px, plain.invert) == (0, False)
    assert (other.feather_px, other.invert) == (4, True)
    for words in ("inverted", "feather=900", "feather=wide"):
        with pytest.raises(SettingsError):
            open_effect(f"alpha:{words}")
