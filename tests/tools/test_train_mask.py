"""`pix2live train mask`: people from a teacher, lessons made of them, a network that learns."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")
pytest.importorskip("onnxruntime", reason="the teacher needs onnxruntime")

import onnx
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from engines import FrameModel, open_engine
from engines.errors import SettingsError, SourceError
from tools.train.devices import make_fabric
from tools.train.mask import Mask, MaskSettings, on_green, overlap_loss, working_frame
from tools.train.mask_command import MASK_PRESETS
from tools.train.mask_command import mask as command
from tools.train.pairs import Picture
from tools.train.people import (
    SHAPES,
    Cutout,
    Lessons,
    cutout,
    lesson_size,
    placed,
    read_backgrounds,
    read_people,
)
from tools.train.recipe import translate
from tools.train.teachers.segmenter import Segmenter

RED = (30, 30, 220)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def somebody(number: int, size: tuple[int, int] = (96, 72)) -> Picture:
    """Return a room with a red figure in it: a head on a body down to the lower edge."""
    random = np.random.default_rng(number)
    width, height = size
    room = cv2.resize(random.integers(90, 160, (6, 8, 1), np.uint8), size)
    picture = cv2.merge([room, room, room])
    x = int(random.integers(width // 3, 2 * width // 3))
    cv2.circle(picture, (x, height // 3), height // 8, RED, -1)
    cv2.rectangle(picture, (x - width // 8, height // 2), (x + width // 8, height), RED, -1)
    return np.asarray(picture, np.uint8)


def is_red(picture: Picture) -> Any:
    values = picture.astype(int)
    return values[..., 2] - np.maximum(values[..., 0], values[..., 1]) > 60


def write_teacher(path: Path, channels_first: bool = False) -> Path:
    """Write a network to which red is a person: a convolution and a sigmoid."""
    sides = (36, 48)
    given, made = (
        ([1, 3, *sides], [1, 1, *sides])
        if channels_first
        else (
            [1, *sides, 3],
            [1, *sides, 1],
        )
    )
    weight = np.array([40, -20, -20], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["planes", "weight", "bias"], ["found"]),
        helper.make_node("Sigmoid", ["found"], ["mask"]),
    ]
    if channels_first:
        nodes[0].input[0], nodes[1].output[0] = "image", "result"
    else:
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["mask"], ["result"], perm=[0, 2, 3, 1]))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, made)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([-10], np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("people", "backgrounds"):
        (tmp_path / name).mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "people" / f"{number}.png"), somebody(number))
        random = np.random.default_rng(50 + number)
        grey = cv2.resize(random.integers(60, 200, (9, 9, 1), np.uint8), (100, 80))
        cv2.imwrite(str(tmp_path / "backgrounds" / f"{number}.png"), grey)
    write_teacher(tmp_path / "teacher.onnx")
    return tmp_path


def settings(data: Path, **changes: Any) -> MaskSettings:
    given: dict[str, Any] = {
        "out": data / "out",
        "name": "somebody",
        "people": data / "people",
        "backgrounds": data / "backgrounds",
        "teacher": data / "teacher.onnx",
        "steps": 60,
        "batch": 4,
        "crop_px": 32,
        "learning_rate": 5e-3,
        "workers": 0,
        "save_every": 10**6,
        "sheet_every": 10**6,
        "precision": "32-true",
        "accelerator": "cpu",
    }
    return MaskSettings(**{**given, **changes})


def recipe(data: Path, **changes: Any) -> Mask:
    chosen = settings(data, **changes)
    chosen.check()
    chosen.out.mkdir(exist_ok=True)
    made = Mask(chosen, make_fabric(chosen)[0])
    made.prepare(lambda *_: None)
    return made


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_teacher_in_either_layout(tmp_path: Path, channels_first: bool) -> None:
    teacher = Segmenter(write_teacher(tmp_path / "t.onnx", channels_first))
    assert teacher.size == (48, 36)
    frame = somebody(1, (192, 144))
    found = teacher(frame)
    assert found.shape == (144, 192)
    assert found.dtype == np.uint8
    wanted = is_red(frame)
    assert ((found > 127) & wanted).sum() / ((found > 127) | wanted).sum() > 0.9


def test_what_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(SettingsError, match=r"cannot read .*broken\.onnx as ONNX"):
        Segmenter(tmp_path / "broken.onnx")
    model = onnx.load(str(write_teacher(tmp_path / "t.onnx")))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 2
    model.graph.node[-1].attribute[0].ints[:] = [0, 2, 3, 1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(np.zeros(2, np.float32), "bias"),
        ]
    )
    onnx.save(model, str(tmp_path / "two.onnx"))
    with pytest.raises(SettingsError, match=r"expected a picture of a fixed size.*and one mask"):
        Segmenter(tmp_path / "two.onnx")


def test_people_are_read_with_their_masks_and_clothes(data: Path) -> None:
    cv2.imwrite(str(data / "people" / "empty.png"), np.full((72, 96, 3), 128, np.uint8))
    found = read_people(data / "people", Segmenter(data / "teacher.onnx"), lambda _: None)
    assert len(found) == 3, "the empty room is left out"
    for (item,) in found:
        rows = np.flatnonzero((item.mask > 127).any(1))
        assert not item.clothes[: rows[0] + 6].any(), "heads wear none"
        assert not (item.clothes > item.mask).any()
    with pytest.raises(SourceError, match="sees nobody"):
        read_people(data / "backgrounds", Segmenter(data / "teacher.onnx"), lambda _: None)


def test_skin_is_not_clothes() -> None:
    frame = np.full((60, 60, 3), (200, 60, 60), np.uint8)
    frame[30:60, 0:30] = (120, 150, 205)  # a light skin tone
    mask = np.full((60, 60), 255, np.uint8)
    clothes = cutout(frame, mask).clothes
    assert clothes[45, 45] == 255
    assert clothes[45, 12] < 30


def test_backgrounds_that_cannot_be_read_are_named(data: Path) -> None:
    (data / "backgrounds" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    skipped: list[str] = []
    found = read_backgrounds(data / "backgrounds", skipped, lambda _: None)
    assert [len(group) for group in found] == [3]
    assert len(skipped) == 1
    assert "cut.png" in skipped[0]
    (data / "none").mkdir()
    with pytest.raises(SourceError, match="no pictures"):
        read_backgrounds(data / "none", skipped, lambda _: None)


def test_lessons_repeat_and_have_people_where_their_masks_say(data: Path) -> None:
    people = read_people(data / "people", Segmenter(data / "teacher.onnx"), lambda _: None)
    grey = [[np.full((80, 100, 3), value, np.uint8)] for value in (90, 130, 170)]
    one, other = (Lessons(people, grey, 64, 4, seed=7) for _ in range(2))
    empty = 0
    for index in range(24):
        lesson = one[index]
        assert torch.equal(lesson, other[index])
        width, height = lesson_size(64, SHAPES[index // 4 % 2])
        assert lesson.shape == (4, height, width)
        assert lesson.dtype == torch.uint8
        empty += not lesson[3].any()
    assert 0 < empty < 12, "some lessons are of nobody"
    assert not torch.equal(one[0], Lessons(people, grey, 64, 4, seed=8)[0])


@pytest.mark.parametrize("smallest", [0.6, 0.95])
def test_no_body_ends_in_the_air(smallest: float) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        move = placed((72, 96), (128, 96), random, smallest=smallest, largest=1.8)
        below = np.full((72, 96), 255, np.uint8)
        made = cv2.warpAffine(below, move, (128, 96))
        columns = made[-1] > 0
        assert columns.any(), "the frame's lower edge is below the picture's"
        assert abs(np.linalg.det(move[:, :2])) == pytest.approx(
            np.linalg.norm(move[:, 0]) ** 2, rel=1e-6
        ), "nobody is squeezed"


def test_masks_move_with_their_people(data: Path) -> None:
    frame = somebody(2)
    item = Cutout(frame, is_red(frame).astype(np.uint8) * 255, np.zeros((72, 96), np.uint8))
    lessons = Lessons([[item]], [[np.full((90, 120, 3), 120, np.uint8)]], 64, 2, seed=3)
    for number in range(12):
        random = np.random.default_rng(number)
        picture, mask = lessons._pasted((96, 64), random)
        found, wanted = is_red(picture), mask > 127
        if wanted.sum() > 50 and not found.sum() < 10:
            assert (found & wanted).sum() / (found | wanted).sum() > 0.75


def test_overlap() -> None:
    nobody = torch.zeros(2, 1, 8, 8)
    somebody_ = nobody.clone()
    somebody_[..., :4] = 1
    assert float(overlap_loss(somebody_, somebody_)) == pytest.approx(0, abs=1e-6)
    assert float(overlap_loss(nobody, nobody)) == pytest.approx(0, abs=1e-6)
    assert float(overlap_loss(nobody, somebody_)) > 0.9
    assert float(overlap_loss(somebody_, nobody)) > 0.9


def test_working_frames_and_green() -> None:
    frame = somebody(1, (640, 360))
    assert working_frame(frame, 144).shape == (144, 256, 3)
    shown = on_green(frame, np.zeros((360, 640), np.uint8))
    assert (shown == (0, 200, 0)).all()
    assert np.array_equal(on_green(frame, np.full((360, 640), 255, np.uint8)), frame)


def test_it_learns_who_is_a_person(data: Path) -> None:
    made = recipe(data, steps=90)
    for step, batch in zip(range(90), made.batches(0)):
        found = made.learn(batch, step)
        assert {"loss", "entropy", "overlap"} == set(found)
    unseen = somebody(77, (64, 32))
    mask = translate(made.finished()["somebody"], unseen)[..., 0] > 127
    wanted = is_red(unseen)
    assert (mask & wanted).sum() / (mask | wanted).sum() > 0.6


def test_it_goes_on_to_the_same_numbers(data: Path) -> None:
    whole, first = recipe(data), recipe(data)
    for step, batch in zip(range(4), whole.batches(0)):
        whole.learn(batch, step)
    for step, batch in zip(range(2), first.batches(0)):
        first.learn(batch, step)
    second = recipe(data)
    second.load(first.state())
    for step, batch in zip(range(2, 4), second.batches(2)):
        second.learn(batch, step)
    left, right = whole.state(), second.state()
    for part in ("network", "average"):
        for name, value in left[part].items():
            assert torch.equal(value, right[part][name]), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"people": None}, "--people is missing"),
        ({"teacher": None}, "--teacher is missing"),
        ({"generator": "quarter:8x1"}, "by the generator person"),
        ({"start": "comic"}, "leave out --start"),
        ({"crop_px": 40}, "--crop must be a multiple of 16"),
        ({"overlap_weight": -1.0}, "--overlap"),
    ],
)
def test_settings_that_cannot_be(data: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(data, **changes).check()


def test_the_options_are_settings() -> None:
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0
    for word in ("--people", "--backgrounds", "--teacher", "--overlap", "[default: 144]"):
        assert word in shown.output
    known = {item.name for item in fields(MaskSettings)}
    assert {item.name for item in command.params} - {"preset"} <= known
    assert set(MASK_PRESETS) == {"tiny", "default", "quality"}
    for preset in MASK_PRESETS.values():
        assert set(preset) <= known


def test_the_command_makes_a_frame_model_with_alpha_and_proofs(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="export needs onnxscript")
    shutil.copytree(data / "people", data / "validate")
    monkeypatch.chdir(data)
    words = "--people people --backgrounds backgrounds --teacher teacher.onnx --out made"
    few = "--validate validate --steps 8 --batch 2 --crop 32 --workers 0 --precision 32-true"
    done = CliRunner().invoke(command, [*words.split(), *few.split()])
    assert done.exit_code == 0, done.output
    model = FrameModel.read(data / "made" / "made.onnx")
    assert model.has_alpha
    assert model.card.task == "other"
    assert model.card.stride == 16
    assert "teacher.onnx" in model.card.training
    assert "openvino/f32" in model.card.proofs
    assert "--people people" in model.card.command
    with open_engine(model, (64, 48), backend="openvino") as engine:
        engine.infer(somebody(5, (64, 48)))
        assert engine.alpha is not None
    assert (data / "made" / "sheet-000008.png").is_file()
