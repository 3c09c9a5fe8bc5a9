"""Reading other people's ONNX files: what is in them, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import COMIC, foreign_network
from models import blurring, constant, inverting, node, value
from onnx import TensorProto as T

from engines.errors import ConversionError
from engines.graphs.adapt import guess_layout, is_frame_model, load_onnx
from engines.graphs.foreign import inputs_of


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, "h", "w"), "nchw"),
        ((1, 256, 256, 3), "nhwc"),
        ((3, 64, 64), "nchw"),
        ((64, 64, 1), "nhwc"),
        (("n", 4, None, None), "nchw"),
        ((1, 1, 300, 3), "nhwc"),
    ],
)
def test_the_layout_is_where_the_channels_are(shape: tuple[Any, ...], layout: str) -> None:
    assert guess_layout(foreign_network(given=shape)) == layout


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 3), (1, 1, 64, 1), (1, "c", "h", "w"), (1, 64, 64, 8)]
)
def test_a_layout_that_the_shape_does_not_tell_is_asked_for(shape: tuple[Any, ...]) -> None:
    with pytest.raises(ConversionError, match="say --layout nchw or nhwc"):
        guess_layout(foreign_network(given=shape))


def test_the_layout_of_several_inputs() -> None:
    inner = foreign_network(
        inputs=[value("other", (1, 64, 64, 3), T.FLOAT), value("n", (1,), T.INT64)]
    )
    with pytest.raises(ConversionError, match="which input is the picture"):
        guess_layout(inner)
    assert guess_layout(inner, "other") == "nhwc"
    with pytest.raises(ConversionError, match=r"expected \(1, C, H, W\), found 'n' int64 \(1\)"):
        guess_layout(inner, "n")


def test_frame_models_are_known() -> None:
    assert is_frame_model(load_onnx(COMIC))
    assert is_frame_model(inverting())
    assert is_frame_model(blurring())
    assert not is_frame_model(foreign_network())


def saved_beside(folder: Path) -> Path:
    path = folder / "network.onnx"
    inner = foreign_network(
        node("Mul", ["image", "w"], "result"),
        constants=[constant("w", np.full((3, 8, 8), 0.5))],
        given=(1, 3, 8, 8),
        made=(1, 3, 8, 8),
    )
    onnx.save(inner, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    inner = load_onnx(saved_beside(tmp_path))
    assert [port.words for port in inputs_of(inner)] == ["'image' float (1, 3, 8, 8)"]
    weights = onnx.numpy_helper.to_array(inner.graph.initializer[0])
    assert np.array_equal(weights, np.full((3, 8, 8), 0.5))
    onnx.checker.check_model(inner, full_check=True)


def test_weights_that_are_missing_or_elsewhere_are_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = saved_beside(inside)
    model = onnx.load(str(path), load_external_data=False)
    places = [x for x in model.graph.initializer[0].external_data if x.key == "location"]
    (inside / "w.bin").rename(tmp_path / "w.bin")
    with pytest.raises(ConversionError, match=r"keeps weights in 'w\.bin' beside it, and there is"):
        load_onnx(path)
    places[0].value = "../w.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=r"weights beside .* cannot be read") as raised:
        load_onnx(path)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_onnx_are_refused(tmp_path: Path) -> None:
    cases = {"empty": b"", "text": b"not a network", "short": COMIC.read_bytes()[:999]}
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ConversionError, match=f"{name} is no ONNX file"):
            load_onnx(path)
    with pytest.raises(ConversionError, match="no file"):
        load_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ConversionError, match=r"cannot read .*: Is a directory"):
        load_onnx(tmp_path)
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(2**31 + 5)
    with pytest.raises(ConversionError, match=r"is 2\.0 GiB with its weights; networks up to 2"):
        load_onnx(large)
