"""One filter at several working sizes: the same frames, in order, whatever the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from models import inverting, picture, running_mean, with_alpha, written

from engines import Engine, EngineError, Size, open_engine
from engines.backends.identity import IdentityEngine
from engines.sized import SHARES, SizedEngine

FRAME = (64, 48)
SIZES = [(64, 48), (32, 24), (16, 12)]


@pytest.fixture(scope="module")
def inverting_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(inverting(), tmp_path_factory.mktemp("sized") / "inverting.onnx")


def sized(model: Any, sizes: list[Size] = SIZES, *, frame: Size = FRAME, depth: int = 1) -> Any:
    engine = SizedEngine(open_engine(model, backend="openvino", precision="f32"), sizes)
    engine.open(frame, depth=depth)
    return engine


def smooth() -> Any:
    """Return a picture that survives shrinking."""
    return cv2.GaussianBlur(picture(FRAME), (0, 0), 9)


def test_the_largest_size_is_the_filter_itself(inverting_model: Any) -> None:
    with sized(inverting_model) as engine:
        frame = picture(FRAME)
        assert engine.working_size == engine.size == FRAME
        assert np.array_equal(engine.infer(frame), 255 - frame)


@pytest.mark.parametrize("level", [1, 2])
def test_a_smaller_size_translates_the_shrunk_picture(inverting_model: Any, level: int) -> None:
    with sized(inverting_model) as engine:
        engine.work_at(level)
        assert engine.working_size == SIZES[level]
        frame = smooth()
        small = cv2.resize(frame, SIZES[level], interpolation=cv2.INTER_AREA)
        expected = cv2.resize(255 - small, FRAME, interpolation=cv2.INTER_LINEAR)
        before = frame.copy()
        assert np.array_equal(engine.infer(frame), expected)
        assert np.array_equal(frame, before)
        assert np.abs(expected.astype(int) - (255 - frame.astype(int))).mean() < 3


def test_frames_under_way_come_back_in_order_at_every_size(inverting_model: Any) -> None:
    with sized(inverting_model, depth=3) as engine:
        for level in (0, 1, 2, 0):
            engine.work_at(level)
            frames = [np.full((48, 64, 3), value, np.uint8) for value in range(10, 100, 10)]
            results = [np.zeros_like(frame) for frame in frames]
            done: list[int] = []
            for frame, result in zip(frames, results, strict=True):
                if engine.pending == engine.depth:
                    done.append(int(engine.collect()[0, 0, 0]))
                engine.submit(frame, result)
            while engine.pending:
                done.append(int(engine.collect()[0, 0, 0]))
            assert done == [255 - value for value in range(10, 100, 10)]


def test_no_step_while_a_frame_is_under_way(inverting_model: Any) -> None:
    with sized(inverting_model) as engine:
        engine.submit(*engine.slots(2))
        with pytest.raises(EngineError, match="under way"):
            engine.work_at(1)
        engine.collect()
        engine.work_at(1)
        with pytest.raises(EngineError, match="3 working sizes"):
            engine.work_at(3)


def test_alpha_has_the_size_of_the_frames(tmp_path: Path) -> None:
    with sized(written(with_alpha(), tmp_path / "alpha.onnx")) as engine:
        frame = smooth()
        for level in range(3):
            engine.work_at(level)
            engine.infer(frame)
            assert engine.alpha.shape == (48, 64, 1)
            assert engine.alpha.dtype == np.uint8
            assert np.abs(engine.alpha.astype(int) - frame[..., :1]).mean() < 4


def test_a_state_begins_anew_at_another_size(tmp_path: Path) -> None:
    with sized(written(running_mean(), tmp_path / "mean.onnx")) as engine:
        bright, dark = (np.full((48, 64, 3), value, np.uint8) for value in (200, 100))
        engine.infer(bright)
        assert engine.infer(dark).max() == 150, "the mean of both"
        engine.work_at(1)
        assert engine.infer(dark).max() == 100
        engine.work_at(0)
        assert engine.infer(dark).max() == 100, "what it had seen before is long gone"
        engine.infer(bright)
        engine.reset()
        assert engine.infer(dark).max() == 100


def test_sizes_fit_the_filter_and_the_frames(tmp_path: Path) -> None:
    model = written(inverting(), tmp_path / "stride.onnx", stride=8)
    asked = [(640, 480), (63, 47), (60, 44), (33, 24), (64, 48)]
    with sized(model, asked) as engine:
        assert engine.sizes == ((64, 48), (56, 40), (32, 24))
        assert "working sizes: 64x48, 56x40, 32x24" in engine.notes
    with sized(model, [], frame=(640, 360)) as engine:
        assert len(engine.sizes) == len(SHARES)
        assert all(width % 8 == height % 8 == 0 for width, height in engine.sizes)
        for (width, height), share in zip(engine.sizes, SHARES, strict=True):
            assert abs(width / 640 - share) < 0.02
            assert abs(height / 360 - share) < 0.03
    with pytest.raises(EngineError, match="no working size is within the frames' 64x48: 640x480"):
        sized(model, [(640, 480)])


def test_the_frames_own_size_may_be_left_out(inverting_model: Any) -> None:
    with sized(inverting_model, [(32, 24)]) as engine:
        assert (engine.size, engine.working_size) == (FRAME, (32, 24))
        frame, result = engine.slots(2)
        assert frame.shape == (48, 64, 3)
        assert (engine.infer(frame, result) == 255).all()


def test_a_filter_of_one_size_has_one(tmp_path: Path) -> None:
    model = written(inverting((48, 64)), tmp_path / "fixed.onnx")
    with sized(model, []) as engine:
        assert engine.sizes == (FRAME,)


class Counted(IdentityEngine):
    """Counts who is open; the third one cannot be opened."""

    opened: list[Engine] = []  # noqa: RUF012  (of the class: twins are counted too)
    refuses = 99

    def _open(self, size: Size) -> None:
        if len(Counted.opened) >= Counted.refuses:
            raise EngineError("no more memory")
        super()._open(size)
        Counted.opened.append(self)

    def _close(self) -> None:
        if self in Counted.opened:
            Counted.opened.remove(self)


def test_what_was_open_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "opened", [])
    engine = SizedEngine(Counted(None), SIZES)
    for _ in range(2):
        engine.open(FRAME)
        assert len(Counted.opened) == 3
        engine.close()
        engine.close()
        assert Counted.opened == []
        assert engine.size is None
    monkeypatch.setattr(Counted, "refuses", 2)
    with pytest.raises(EngineError, match="no more memory"):
        engine.open(FRAME)
    assert Counted.opened == []
    assert engine.size is None
    monkeypatch.setattr(Counted, "refuses", 99)
    engine.open(FRAME)
    engine.close()


def test_engines_that_cannot_be_made_again_are_refused() -> None:
    class Special(IdentityEngine):
        def __init__(self, strength: float) -> None:
            super().__init__(None)

    with pytest.raises(EngineError, match="Special is not"):
        SizedEngine(Special(1.0), SIZES).open(FRAME)
    opened = IdentityEngine(None)
    opened.open(FRAME)
    with pytest.raises(EngineError, match="not open yet, found identity at"):
        SizedEngine(opened)


def test_who_listens_to_the_building_hears_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Built(Counted):
        on_progress: Any = None

    monkeypatch.setattr(Counted, "opened", [])
    engine = SizedEngine(Built(None), SIZES)
    engine.on_progress = print
    with engine:
        engine.open(FRAME)
        assert [item.on_progress for item in Counted.opened] == [print] * 3  # type: ignore[attr-defined]
    plain = SizedEngine(IdentityEngine(None), SIZES)
    plain.on_progress = print
    assert plain.on_progress is None


def test_sizes_of_another_shape_are_said(inverting_model: Any) -> None:
    with sized(inverting_model, [(64, 48), (32, 32), (48, 16)]) as engine:
        (said,) = [note for note in engine.notes if "another shape" in note]
    assert "32x32, 48x16: of another shape than the frames of 64x48" in said
    assert said.endswith("of the same shape: 32x24, 48x36")


def test_sizes_of_the_same_shape_need_no_word(inverting_model: Any) -> None:
    """Rounded ones, too; nor do those that nobody has asked for."""
    for sizes in ([(64, 48), (33, 25)], []):
        with sized(inverting_model, sizes) as engine:
            assert not [note for note in engine.notes if "shape" in note]
