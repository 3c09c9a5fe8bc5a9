"""Frame models: what is refused and why, the card, sizes, states, and writing in one step."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import (
    SYMBOLIC,
    counting_in_cells,
    graph,
    inverting,
    node,
    running_mean,
    value,
    with_alpha,
    written,
)

from engines import Card, FrameModel, ModelError, write_frame_model
from engines.model import CARD_KEY, TASKS

F32, U8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def _raw(model: onnx.ModelProto, path: Path, card: str | None = '{"name": "x"}') -> Path:
    """Write without any check, as a stranger would."""
    if card is not None:
        model.metadata_props.add(key=CARD_KEY, value=card)
    path.write_bytes(model.SerializeToString())
    return path


def _refused(model: onnx.ModelProto, path: Path, card: str | None = '{"name": "x"}') -> str:
    with pytest.raises(ModelError) as refusal:
        FrameModel.read(_raw(model, path, card))
    text = str(refusal.value)
    assert str(path) in text
    assert "pix2live convert" in text, "it says what to run or read"
    assert "\n" not in text
    return text


def _copy(inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    first_in = inputs[0].name if inputs else "nothing"
    nodes = [node("Identity", [first_in], item.name) for item in outputs]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, outputs))


def _pictures(before: Any, after: Any, kinds: tuple[int, int] = (U8, U8)) -> onnx.ModelProto:
    return _copy([value("frame", before, kinds[0])], [value("translated", after, kinds[1])])


HW3 = (1, "H", "W", 3)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_copy([value("image", HW3)], [value("translated", HW3)]), "no input 'frame', only ['im"),
        (_copy([value("frame", HW3)], [value("out", HW3)]), "no output 'translated', only ['out']"),
        (onnx.ModelProto(), "no input 'frame', only none"),
        (_pictures(HW3, HW3, (F32, U8)), "'frame' must be uint8 (1, H, W, 3), found float"),
        (_pictures(HW3, HW3, (U8, F32)), "'translated' must be uint8 (1, H, W, 3), found float"),
        (_pictures((1, 3, "H", "W"), HW3), "found uint8 (1, 3, 'H', 'W')"),
        (_pictures((1, "H", "W", 4), HW3), "found uint8 (1, 'H', 'W', 4)"),
        (_pictures(("N", "H", "W", 3), HW3), "found uint8 ('N', 'H', 'W', 3)"),
        (_pictures((2, "H", "W", 3), HW3), "found uint8 (2, 'H', 'W', 3)"),
        (_pictures(("H", "W", 3), HW3), "found uint8 ('H', 'W', 3)"),
        (_pictures(HW3, (1, "H", "W", 1)), "'translated' must be"),
        (_pictures((1, 4, 8, 3), (1, 8, 4, 3)), "'translated' is (8, 4), but 'frame' is (4, 8)"),
        (_pictures(HW3, (1, 8, 4, 3)), "'translated' is (8, 4), but 'frame' is ('H', 'W')"),
        (_pictures((1, 4, "W", 3), HW3), "both sides fixed or both symbolic, found (4, 'W')"),
        (
            _copy([value("frame", HW3), value("style", (1,))], [value("translated", HW3)]),
            "inputs that nobody feeds: ['style']",
        ),
        (
            _copy([value("frame", HW3)], [value("translated", HW3), value("alpha", HW3)]),
            "'alpha' must be uint8 (1, H, W, 1)",
        ),
        (
            _copy([value("frame", HW3), value("state_a", HW3)], [value("translated", HW3)]),
            "the states ['state_a'] have no outputs '<name>_out'",
        ),
    ],
)
def test_a_breach_is_refused_with_its_reason(
    model: onnx.ModelProto, reason: str, tmp_path: Path
) -> None:
    assert reason in _refused(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("before", "after", "kinds", "reason"),
    [
        ((1, "H", "W", 3), (1, "H", "W", 3), (F32, U8), "differ in shape or type"),
        ((1, 3), (1, 4), (F32, F32), "differ in shape or type"),
        ((1, 3), (1, 3, 1), (F32, F32), "differ in shape or type"),
        ((1, 3), (1, 3), (onnx.TensorProto.STRING,) * 2, "numbers that numpy knows"),
        ((1, 3), (1, 3), (onnx.TensorProto.BFLOAT16,) * 2, "numbers that numpy knows"),
        ((1, "N"), (1, "N"), (F32, F32), "the side 'N' of the state 'state_a' is neither"),
        ((1, "H*2"), (1, "H*2"), (F32, F32), "the side 'H*2'"),
        ((1, "H/0"), (1, "H/0"), (F32, F32), "the side 'H/0'"),
        ((1, None), (1, None), (F32, F32), "the side '?'"),
    ],
)
def test_a_state_that_cannot_be_fed_back_is_refused(
    before: Any, after: Any, kinds: Any, reason: str, tmp_path: Path
) -> None:
    model = _copy(
        [value("frame", HW3), value("state_a", before, kinds[0])],
        [value("translated", HW3), value("state_a_out", after, kinds[1])],
    )
    assert reason in _refused(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (None, "its metadata has no card ('pix2live.card')"),
        ("", "the card is no JSON"),
        ("{", "the card is no JSON"),
        ("[" * 100_000, "the card is no JSON"),
        ("[]", "a JSON object with a name"),
        ('{"title": "x"}', "a JSON object with a name"),
        ('{"name": 3}', "a JSON object with a name"),
        ('{"name": "x", "stride": "4"}', "the card's stride must be int, found '4'"),
        ('{"name": "x", "stride": true}', "the card's stride must be int, found True"),
        ('{"name": "x", "stride": 0}', "the card's stride must be 1 or more, found 0"),
        ('{"name": "x", "licence": null}', "the card's licence must be str, found None"),
        ('{"name": "x", "task": "magic"}', "the card's task must be one of"),
        ('{"name": "x", "proofs": []}', "the card's proofs must be dict"),
        ('{"name": "x", "proofs": {"a": 3}}', "the card's proof 'a' must be numbers"),
        ('{"name": "x", "proofs": {"a": {"psnr_db": "x"}}}', "the card's proof 'a' must be"),
        ('{"name": "x", "command": ["a"]}', "the card's command must be str, found ['a']"),
        ('{"name": "x", "measures": []}', "the card's measures must be dict, found []"),
        ('{"name": "x", "measures": {"a": "1"}}', "the card's measure 'a' must be a finite number"),
        ('{"name": "x", "measures": {"a": true}}', "a finite number, found True"),
        ('{"name": "x", "measures": {"a": null}}', "a finite number, found None"),
        ('{"name": "x", "measures": {"a": {"b": 1}}}', "a finite number, found {'b': 1}"),
        ('{"name": "x", "measures": {"a": 1e999}}', "a finite number, found inf"),
        ('{"name": "x", "measures": {"a": NaN}}', "a finite number, found nan"),
        ('{"name": "x", "measures": {"a": 1%s}}' % ("0" * 400), "a finite number, found 1000"),
    ],
)
def test_a_broken_card_is_refused(card: str | None, reason: str, tmp_path: Path) -> None:
    assert reason in _refused(inverting(), tmp_path / "m.onnx", card)


@pytest.mark.parametrize("data", [b"", b"not a model\n" * 50, bytes(range(256)) * 9, b"\x00"])
def test_a_file_that_is_no_onnx_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"is no (ONNX file|frame model).*pix2live convert"):
        FrameModel.read(path)


def test_half_a_model_is_refused(tmp_path: Path) -> None:
    path = _raw(inverting(), tmp_path / "m.onnx")
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            FrameModel.read(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file .*nothing\.onnx"):
        FrameModel.read(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match=r"cannot read .*directory"):
        FrameModel.read(tmp_path)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.dictionaries(TEXT, st.floats(allow_nan=False) | st.integers(-9, 9), max_size=3)
CARDS = st.builds(
    Card,
    name=TEXT,
    title=TEXT,
    task=st.sampled_from(TASKS),
    domains=TEXT,
    architecture=TEXT,
    stride=st.integers(1, 64),
    licence=TEXT,
    training=TEXT,
    proofs=st.dictionaries(TEXT, NUMBERS, max_size=3),
    command=TEXT,
    measures=st.dictionaries(
        TEXT, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), max_size=3
    ),
)


@given(CARDS)
def test_a_card_survives_its_json(card: Card) -> None:
    assert Card.from_json(card.to_json()) == card


@given(CARDS)
def test_a_card_survives_the_file(tmp_path_factory: pytest.TempPathFactory, card: Card) -> None:
    path = tmp_path_factory.getbasetemp() / "card.onnx"
    write_frame_model(inverting(), card, path)
    assert FrameModel.read(path).card == card


def test_a_newer_card_is_read() -> None:
    text = json.dumps({"version": 9, "name": "x", "stride": 2, "mood": {"happy": True}})
    assert Card.from_json(text) == Card(name="x", stride=2)


def test_an_older_card_is_read() -> None:
    """Cards of version 1 were written before there were commands and measures."""
    card = Card.from_json(json.dumps({"version": 1, "name": "x", "proofs": {}}))
    assert (card.command, card.measures) == ("", {})


def test_a_card_that_cannot_be_read_again_is_not_written(tmp_path: Path) -> None:
    for measures in ({"flicker": float("nan")}, {"flicker": "low"}):
        card = Card(name="m", measures=measures)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=r"not written, .*measure 'flicker'"):
            write_frame_model(inverting(), card, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_an_engine_needs_to_know(tmp_path: Path) -> None:
    plain = written(inverting(), tmp_path / "plain.onnx")
    assert (plain.name, plain.has_alpha, plain.states, plain.fixed_size) == (
        "plain",
        False,
        (),
        None,
    )
    assert len(plain.sha256) == 64
    carded = written(inverting(), tmp_path / "carded.onnx", licence="CC0")
    assert carded.sha256 != plain.sha256
    assert carded.graph_sha256 == plain.graph_sha256
    assert plain.sha256 != written(with_alpha(), tmp_path / "alpha.onnx").sha256
    assert FrameModel.read(tmp_path / "alpha.onnx").has_alpha
    assert written(inverting((48, 64)), tmp_path / "fixed.onnx").fixed_size == (64, 48)


def test_states(tmp_path: Path) -> None:
    model = written(running_mean(), tmp_path / "mean.onnx")
    assert model.states == ("state_count", "state_mean")
    assert model.state_types == ("int32", "float32")
    states = model.new_states((64, 48))
    assert {name: array.shape for name, array in states.items()} == {
        "state_count": (1,),
        "state_mean": (1, 48, 64, 3),
    }
    assert states["state_count"].dtype == np.int32
    assert not any(array.any() for array in states.values())


def test_a_state_may_be_a_part_of_the_frame(tmp_path: Path) -> None:
    model = written(counting_in_cells(), tmp_path / "cells.onnx", stride=4)
    assert model.state_shapes == ((1, 3, "H/4", "W/4"),)
    assert model.new_states((64, 48))["state_cells"].shape == (1, 3, 12, 16)


def test_the_frame_may_call_its_sides_as_it_likes(tmp_path: Path) -> None:
    model = written(running_mean(("rows", "4*columns")), tmp_path / "m.onnx")
    assert model.state_shapes[1] == (1, "H", "W", 3)


@given(
    stride=st.integers(1, 64),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_fit(stride: int, size: tuple[int, int]) -> None:
    model = FrameModel(Path("m"), Card(name="m", stride=stride), "")
    fitting = model.fit(size)
    assert model.fit(fitting) == fitting
    for found, asked in zip(fitting, size):
        assert found % stride == 0
        assert found >= stride
        assert found <= max(asked, stride)
        assert asked - found < stride


def test_a_fixed_size_fits_itself_only(tmp_path: Path) -> None:
    model = written(inverting((48, 64)), tmp_path / "m.onnx", stride=4)
    assert model.fit((1920, 1080)) == (64, 48)


def _fails(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "breaking",
    [
        lambda patch: patch.setattr("engines.artefact.os.replace", _fails),
        lambda patch: patch.setattr(Path, "open", _fails),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(
    breaking: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "m.onnx"
    write_frame_model(inverting(), Card(name="old"), path)
    breaking(monkeypatch)
    with pytest.raises(ModelError, match=r"cannot write .*m\.onnx: No space left"):
        write_frame_model(with_alpha(), Card(name="new"), path)
    monkeypatch.undo()
    assert FrameModel.read(path).name == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]


def test_a_write_that_is_interrupted_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write_frame_model(inverting(), Card(name="old"), path)

    class Half(io.FileIO):
        def writelines(self, parts: Iterable[Any]) -> None:
            data = b"".join(parts)
            self.write(data[: len(data) // 2])
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", lambda self, mode: Half(self, mode))  # noqa: PLW0108
    with pytest.raises(KeyboardInterrupt):
        write_frame_model(with_alpha(), Card(name="new"), path)
    monkeypatch.undo()
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]
    assert FrameModel.read(path).name == "old"


@pytest.mark.parametrize("place", ["nowhere/m.onnx", "file/m.onnx", "folder"])
def test_a_place_that_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot write"):
        write_frame_model(inverting(), Card(name="m"), tmp_path / place)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "folder"]


def test_a_model_that_breaks_the_contract_is_not_written(tmp_path: Path) -> None:
    half_fixed = inverting((48, "W"))
    with pytest.raises(ModelError, match="not written, it would be no frame model: 'frame' must"):
        write_frame_model(half_fixed, Card(name="m"), tmp_path / "m.onnx")
    invalid = graph([node("NoSuchOperator", ["frame"], "translated")], sides=SYMBOLIC)
    with pytest.raises(ModelError, match="not written, it is no valid ONNX graph"):
        write_frame_model(invalid, Card(name="m"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="stride must be 1 or more"):
        write_frame_model(inverting(), Card(name="m", stride=0), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_writing_again_replaces_the_card_and_keeps_other_metadata(tmp_path: Path) -> None:
    model = inverting()
    model.metadata_props.add(key="author", value="me")
    for name in ("first", "second"):
        write_frame_model(model, Card(name=name), tmp_path / "m.onnx")
    found = onnx.load(str(tmp_path / "m.onnx")).metadata_props
    assert sorted(item.key for item in found) == ["author", CARD_KEY]
    assert FrameModel.read(tmp_path / "m.onnx").name == "second"
