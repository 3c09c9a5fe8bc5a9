"""`pix2live filters`: INT8 twins in the list, the card in words, and as it is in the file."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from engines import (
    FrameModel,
    ModelError,
    SinkError,
    filter_names,
    load_filter,
    processor,
    registry,
    write_frame_model,
)
from engines.backends import openvino, openvino_precision
from engines.backends.openvino import import_openvino
from engines.twins import twin_path
from tools.cards import MEASURES, int8_here, print_card
from tools.evaluation import on_clips, on_pictures
from tools.filters import filters, int8_lines

KINDS = ("f32", "bf16", "f16")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a GPU, whose processor has VNNI."""
    monkeypatch.setattr(registry, "why_not", lambda name: "no" if name != "openvino" else None)
    monkeypatch.setattr(openvino_precision, "fastest_float", lambda core, device: "f32")
    monkeypatch.setattr(processor, "instructions", lambda: frozenset({"avx512_vnni"}))


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., FrameModel]:
    """A filter with a twin: the graph of the shipped one, which is read and not run here."""

    def make(psnr_db: float | None = 45.0, **changed: Any) -> FrameModel:
        source = load_filter("comic")
        write_frame_model(source.graph(), source.card, tmp_path / "mine.onnx")
        model = FrameModel.read(tmp_path / "mine.onnx")
        numbers = {"psnr_db": psnr_db, "frames": 3, "against_original": 0}
        proofs = {} if psnr_db is None else {f"openvino/{kind}": numbers for kind in KINDS}
        card = replace(model.card, quantised_from=model.graph_sha256, proofs=proofs)
        write_frame_model(source.graph(), replace(card, **changed), twin_path(model.path))
        return model

    return make


def run(*words: object) -> str:
    result = CliRunner(env={"COLUMNS": "100"}).invoke(filters, [str(word) for word in words])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def card_of(model: FrameModel, width: int = 100) -> list[str]:
    out = io.StringIO()
    print_card(model, Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_proven_twin_is_taken(pair: Callable[..., FrameModel]) -> None:
    assert int8_here([pair()]) == [(True, "45.0 dB from the same filter in f32 (card)")]


@pytest.mark.parametrize(
    ("psnr_db", "changed", "why"),
    [
        (30.0, {}, "only 30.0 dB from the same filter in f32 (card), 38 are needed"),
        (None, {}, "its card has no proof under openvino/"),
        (45.0, {"quantised_from": "0" * 64}, "mine.int8.onnx was made of another mine.onnx"),
    ],
)
def test_a_twin_that_is_not_taken_has_its_reason(
    psnr_db: float | None, changed: dict[str, str], why: str, pair: Callable[..., FrameModel]
) -> None:
    ((taken, found),) = int8_here([pair(psnr_db, **changed)])
    assert taken is False
    assert found.startswith(why)


def test_without_a_twin_there_is_nothing_to_take(pair: Callable[..., FrameModel]) -> None:
    model = pair()
    twin_path(model.path).unlink()
    assert int8_here([model]) == [(None, "")]


@pytest.mark.parametrize("runs", ["onnxruntime", None])
def test_another_backend_takes_none(
    runs: str | None, pair: Callable[..., FrameModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "why_not", lambda name: None if name == runs else "not here")
    reason = f"{runs or 'nothing'} runs it here, and takes none unasked"
    assert int8_here([pair()]) == [(False, reason)]


def test_each_of_a_list_has_its_own_answer(
    pair: Callable[..., FrameModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And OpenVINO is started once for all of them."""
    model, started = pair(), []
    package = import_openvino()
    core = package.Core
    monkeypatch.setattr(package, "Core", lambda: started.append(1) or core())
    shutil.copy(model.path, tmp_path / "alone.onnx")
    alone = FrameModel.read(tmp_path / "alone.onnx")
    found = int8_here([alone, model, alone, model])
    assert [taken for taken, _ in found] == [None, True, None, True]
    assert started == [1]


def test_a_reason_with_colons_and_semicolons_is_whole(
    pair: Callable[..., FrameModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: FrameModel) -> FrameModel:
        raise ModelError("mine: cannot be read; make it again: so")

    monkeypatch.setattr(openvino_precision, "int8_twin", lost)
    assert int8_here([pair()]) == [(False, "mine: cannot be read; make it again: so")]


@pytest.mark.parametrize("kind", [ImportError, OSError, RuntimeError])
def test_an_openvino_that_does_not_load_is_a_reason(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise kind("libtbb.so.12:\n cannot open shared object file")

    monkeypatch.setattr(openvino, "import_openvino", broken)
    reason = "openvino does not load: libtbb.so.12: cannot open shared object file"
    assert f"INT8: no twin is taken here: {reason}." in run().splitlines()
    assert "INT8 twin" in run("comic")


@pytest.mark.parametrize(
    ("instructions", "word", "line"),
    [
        ({"avx_vnni"}, "yes", "{0} of {0} run here as their INT8 twins; "),
        ({"avx2"}, "no", "no twin is taken here: this processor has no VNNI."),
        (set(), "no", "no twin is taken here: nobody says here whether this processor has VNNI."),
    ],
)
def test_the_list_says_which_twins_run_here(
    instructions: set[str], word: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "instructions", lambda: frozenset(instructions))
    lines = run().splitlines()
    assert next(line.split() for line in lines if line.startswith("neon ")).count(word) == 1
    (said,) = (line for line in lines if line.startswith("INT8: "))
    assert said.startswith("INT8: " + line.format(len(filter_names())))


def test_each_reason_is_said_once_with_whom_it_hits() -> None:
    found = [(True, "45 dB"), (False, "too far"), (None, ""), (False, "too far"), (False, "old")]
    assert list(int8_lines(list("abcde"), found)) == [
        "INT8: 1 of 5 run here as their INT8 twins; another --precision is slower and closer.",
        "INT8: not of b, d here: too far.",
        "INT8: not of e here: old.",
    ]
    assert list(int8_lines(["a"], [(None, "")])) == []


def test_a_card_is_in_words_with_units(pair: Callable[..., FrameModel]) -> None:
    model = pair()
    measures = {"warping_error_1e3": 0.4557, "warping_error_1e3_untranslated": 0.06032,
                "cycle_psnr_db": 21.5, "lonely_untranslated": 3.0}  # fmt: skip
    proofs = {
        "openvino/bf16": {"psnr_db": 52.789, "max_difference": 12, "mean_difference": 0.3001,
                          "frames": 30, "real_frames": 0, "worst_pixel": 7},
        "f16": {"psnr_db": 99.0, "against_original": 1.0},
    }  # fmt: skip
    card = replace(model.card, measures=measures, proofs=proofs, task="style")
    lines = [line.split() for line in card_of(replace(model, card=card))]
    for words in (
        "task style (learned from a painting)",
        "measured filter untranslated unit says",
        "warping error 0.4557 0.06032 x 1e-3 flicker of what moves",
        "cycle error, PSNR 21.5 dB there and back, more is closer",
        "lonely untranslated 3",
        "the same picture? PSNR, dB largest mean frames compared with",
        "openvino bf16 52.8 12 0.300 30 made the original network, worst pixel 7",
        "f16 99.0 - - - the filter in f32",
        "INT8, openvino f32 45.0 - - 3 the filter in f32",
    ):
        assert words.split() in lines, words
    text = "\n".join(card_of(model))
    assert "mine.int8.onnx, " in text
    assert "; taken here: 45.0 dB" in text
    for raw in ("psnr_db", "max_difference", "against_original", "warping_error_1e3"):
        assert raw not in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_of_a_card_are_not_folded(width: int) -> None:
    lines = card_of(load_filter("comic"), width)
    assert max(map(len, lines)) <= width
    (head,) = (place for place, line in enumerate(lines) if line.startswith("the same picture?"))
    proofs = lines[head + 1 : head + 7]
    assert all(re.search(r"\d (real)? +the (filter in f32|original network)", it) for it in proofs)


def test_a_card_without_a_network_or_numbers(pair: Callable[..., FrameModel]) -> None:
    model = pair()
    twin_path(model.path).unlink()
    text = "\n".join(card_of(replace(model, card=replace(model.card, measures={}, proofs={}))))
    for absent in ("INT8", "measured", "the same picture?", "PSNR"):
        assert absent not in text


def test_a_twin_of_another_is_said_on_the_card(pair: Callable[..., FrameModel]) -> None:
    text = " ".join(" ".join(card_of(pair(quantised_from="0" * 64), 200)).split())
    assert "INT8 twin mine.int8.onnx was made of another mine.onnx" in text
    assert "INT8, openvino" not in text


def test_every_number_of_an_evaluation_has_words() -> None:
    """As `pix2live evaluate` calls it: a key that is new there is missed here."""
    keys = set()
    for module in (on_clips, on_pictures):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        found = re.findall(r'(?:Measure|_add)\(\s*"(\w+)",\s*"(.+?)"', text)
        assert found, module
        for key, name in found:
            assert MEASURES[key][0] == name
            keys.add(key)
    assert keys == set(MEASURES)


def test_json_is_the_card_as_it_is(pair: Callable[..., FrameModel], tmp_path: Path) -> None:
    model = pair()
    said = run(model.path, "--json", tmp_path / "card.json")
    assert said.strip() == f"written: {tmp_path / 'card.json'}"
    found = json.loads((tmp_path / "card.json").read_text())
    assert found["measures"] == model.card.measures
    assert found["proofs"] == model.card.proofs
    assert (found["file"], found["sha256"]) == (str(model.path), model.sha256)
    assert found["int8_twin"]["proofs"]["openvino/f32"]["psnr_db"] == 45.0
    assert "error" in json.loads(run(pair(quantised_from="0").path, "--json", "-"))["int8_twin"]


def test_json_replaces_older_json_only(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"an older recording")
    result = CliRunner().invoke(filters, ["comic", "--json", str(film)])
    assert isinstance(result.exception, SinkError), result.exception
    assert str(result.exception) == f"{film} exists already and is no .json; give another name"
    assert film.read_bytes() == b"an older recording"
    for _ in range(2):
        run("comic", "--json", tmp_path / "card.json")


def test_json_of_all_goes_to_the_standard_output() -> None:
    found = json.loads(run("--json", "-"))["filters"]
    assert [card["name"] for card in found] == filter_names()


def test_json_is_refused_where_it_cannot_be_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(filters, ["comic", "--json", str(tmp_path / "no" / "a.json")])
    assert isinstance(result.exception, SinkError)
    result = CliRunner().invoke(filters, ["--json", "-", "--sheet", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
