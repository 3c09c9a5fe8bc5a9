"""Switching filters while they run: order, rollback, fading, and who stands in meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from runs import linear, running, until

from engines import (
    EngineError,
    FrameModel,
    ModelError,
    Pixels,
    SettingsError,
    SinkError,
    Size,
    open_engine,
)
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline
from realtime.crossfade import Crossfade
from realtime.effects.base import Context, Effect
from realtime.sources.synthetic import read_code
from realtime.switching import same_backend

PATTERN = "test-pattern:128x96@200"
BAR = (72, 0)
"""(row, column) of the test pattern where only its first bar is."""
PLAIN, INVERTED = 235, 20
"""The bar, and the bar inverted."""


@pytest.fixture(scope="module")
def negative(tmp_path_factory: pytest.TempPathFactory) -> FrameModel:
    return linear(tmp_path_factory.mktemp("switching") / "negative.onnx", -1, 255)


class Seen:
    """A sink that keeps what tells the frames apart."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.codes: list[int | None] = []
        self.bars: list[int] = []

    def __call__(self, frame: Frame) -> None:
        self.indices.append(frame.index)
        self.bars.append(int(frame.pixels[BAR][0]))
        plain = frame.pixels if self.bars[-1] > 127 else 255 - frame.pixels
        code = read_code(plain)
        self.codes.append(None if code is None else code[0])


class Counting(Effect):
    """Counts its resets."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.resets: list[str] = []

    def process(self, frame: Frame, context: Context) -> Pixels:
        if context.label not in self.labels:
            self.labels.append(context.label)
        return frame.pixels

    def reset(self) -> None:
        self.resets.append("at " + str(len(self.labels)))


@pytest.mark.parametrize("crossfade_ms", [0.0, 30.0])
def test_no_frame_is_lost_or_shown_twice(negative: FrameModel, crossfade_ms: float) -> None:
    """In mode ``every``, with frames under way at each switch."""
    seen = Seen()
    pipeline = Pipeline(
        PATTERN, IdentityEngine(None), [seen], mode="every", crossfade_ms=crossfade_ms
    )
    with running(pipeline):
        for number in range(6):
            shown = len(seen.indices)
            until(lambda shown=shown: len(seen.indices) > shown + 20)  # type: ignore[misc]
            if number % 2:
                pipeline.switch(None, backend="identity", wait=True)
            else:
                pipeline.switch(negative, wait=True)
    assert pipeline.stats.switches == 6
    assert seen.indices == list(range(len(seen.indices)))
    assert sum(pipeline.stats.dropped().values()) == 0
    if not crossfade_ms:  # nobody can read a code that fades
        assert seen.codes == seen.indices
        assert set(seen.bars) == {PLAIN, INVERTED}


def test_a_live_run_stays_in_order(negative: FrameModel) -> None:
    seen = Seen()
    pipeline = Pipeline(PATTERN, negative, [seen])
    with running(pipeline):
        for _ in range(4):
            pipeline.switch(negative, wait=True)
            shown = len(seen.indices)
            until(lambda shown=shown: len(seen.indices) > shown + 3)  # type: ignore[misc]
    assert seen.indices == sorted(set(seen.indices))
    assert seen.codes == seen.indices


def test_what_cannot_be_opened_leaves_the_old_filter_running(
    negative: FrameModel, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    coarse = linear(tmp_path / "coarse.onnx", -1, 255, stride=64)
    seen = Seen()
    pipeline = Pipeline(PATTERN, negative, [seen])
    with running(pipeline):
        engine = pipeline.engine
        for model, backend, error, reason in (
            (broken, "auto", ModelError, "no ONNX file"),
            (coarse, "auto", EngineError, "the filter takes 128x64, not 128x96"),
            (negative, "nowhere", EngineError, "no backend 'nowhere'"),
        ):
            with pytest.raises(error, match=reason):
                pipeline.switch(model, backend=backend, wait=True)
            assert any(
                note.startswith("kept the filter") and reason in note
                for note in pipeline.all_notes()
            )
            shown = len(seen.indices)
            until(lambda shown=shown: len(seen.indices) > shown + 5)  # type: ignore[misc]
        assert pipeline.engine is engine
        assert engine.size == (128, 96)
    assert pipeline.stats.switches == 0
    assert set(seen.bars) == {INVERTED}


def test_a_fade_is_as_far_as_its_time(negative: FrameModel) -> None:
    old = open_engine(negative, (8, 8))
    fade = Crossfade()
    fade.start(old, 100.0)
    assert fade.engine is old
    captured = Frame(np.full((8, 8, 3), 55, np.uint8))
    shown = []
    for now_ms in (1000, 1025, 1050, 1099, 1100):  # it begins with its first frame
        new = Frame(np.zeros((8, 8, 3), np.uint8))
        fade.mix(captured, new, now_ms * 1_000_000)
        assert new.pixels.min() == new.pixels.max()
        shown.append(int(new.pixels[0, 0, 0]))
    assert shown == [200, 150, 100, 2, 0]
    assert fade.engine is None
    old.close()


def test_a_recording_fades_on_its_own_clock(negative: FrameModel) -> None:
    """20 frames a second of film: half a second is ten of them, however fast they are made."""
    seen = Seen()
    pipeline = Pipeline(
        "test-pattern:128x96@20", IdentityEngine(None), [seen], mode="every", crossfade_ms=500
    )
    with running(pipeline):
        until(lambda: len(seen.bars) > 1)
        pipeline.switch(negative, wait=True)
        until(lambda: seen.bars[-1] == INVERTED)
    assert len([bar for bar in seen.bars if bar not in {PLAIN, INVERTED}]) in {8, 9, 10}


def test_a_switch_fades_and_then_closes_the_old_engine(negative: FrameModel) -> None:
    old, seen = IdentityEngine(None), Seen()
    with running(Pipeline(PATTERN, old, [seen])) as pipeline:
        until(lambda: len(seen.bars) > 5)
        pipeline.switch(negative, crossfade_ms=2000, wait=True)
        until(lambda: bool(seen.bars) and seen.bars[-1] == INVERTED)
        until(lambda: old.size is None)
        assert pipeline.engine.size == (128, 96)
        assert pipeline.engine is not old
    assert seen.bars[0] == PLAIN
    assert seen.bars == sorted(seen.bars, reverse=True), "from the old picture to the new"
    assert set(seen.bars) - {PLAIN, INVERTED}, "frames of both were seen"


def test_both_compute_while_they_fade(negative: FrameModel) -> None:
    """The old engine is open until the fade is over, and not closed under its feet."""
    old = IdentityEngine(None)
    with running(Pipeline(PATTERN, old, ["null"])) as pipeline:
        pipeline.switch(negative, crossfade_ms=10_000, wait=True)
        shown = pipeline.stats.engine_out.count
        until(lambda: pipeline.stats.engine_out.count > shown + 10)
        assert old.size == (128, 96)
        pipeline.switch(None, backend="identity", crossfade_ms=0, wait=True)
        until(lambda: old.size is None)
    assert old.size is None


def test_effects_go_on_at_a_switch(negative: FrameModel) -> None:
    """The camera sees what it saw; that the filter is another one is in the context."""
    counting = Counting()
    pipeline = Pipeline(PATTERN, IdentityEngine(None), ["null"], effects=[counting])
    with running(pipeline):
        until(lambda: len(counting.labels) == 1)
        pipeline.switch(negative, wait=True)
        until(lambda: len(counting.labels) == 2)
    assert counting.resets == []
    assert counting.labels == ["identity", "negative"]


def test_another_filter_is_computed_as_the_one_before(negative: FrameModel) -> None:
    engine = open_engine(negative, backend="openvino", precision="f32")
    with running(Pipeline(PATTERN, engine, ["null"])) as pipeline:
        pipeline.switch(negative, wait=True)
        assert pipeline.engine is not engine
        assert (pipeline.engine.name, pipeline.engine.asked_precision) == ("openvino", "f32")
    assert same_backend(IdentityEngine(None)) == "auto"
    assert same_backend(Compiling(negative)) == "auto", "nobody can ask for it by name"
    assert same_backend(open_engine(negative, backend="openvino:CPU")) == "openvino:CPU"


class Compiling(IdentityEngine):
    """Copies, once it may open; as long to wait for as a TensorRT engine."""

    name = "compiling"

    def __init__(self, model: FrameModel, *, precision: str = "auto", device: str = "") -> None:
        super().__init__(model, precision=precision, device=device)
        self.may_open = threading.Event()
        self.refuses = False

    @classmethod
    def of(cls, model: FrameModel) -> Compiling:
        return cls(model)

    def _open(self, size: Size) -> None:
        assert self.may_open.wait(60)
        if self.refuses:
            raise EngineError("out of memory")
        super()._open(size)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.opening.STAND_IN_AFTER_S", 0.01)


@pytest.mark.usefixtures("at_once")
def test_another_backend_stands_in_until_the_engine_is_open(negative: FrameModel) -> None:
    engine, seen = Compiling.of(negative), Seen()
    pipeline = Pipeline(PATTERN, engine, [seen])
    with running(pipeline):
        until(lambda: len(seen.bars) > 5)
        assert pipeline.engine.name == "openvino"
        assert set(seen.bars) == {INVERTED}
        assert any("compiling compiles; until then openvino" in x for x in pipeline.all_notes())
        stand_in = pipeline.engine
        engine.may_open.set()
        until(lambda: seen.bars[-1] == PLAIN)
        until(lambda: pipeline.engine is engine)
        until(lambda: stand_in.size is None)
    assert seen.indices == sorted(set(seen.indices))
    assert seen.codes == seen.indices
    assert engine.size is None, "closed at the end"


@pytest.mark.usefixtures("at_once")
def test_one_switch_at_a_time(negative: FrameModel) -> None:
    engine = Compiling.of(negative)
    with running(Pipeline(PATTERN, engine, ["null"])) as pipeline:
        with pytest.raises(SettingsError, match="compiling still compiles negative"):
            pipeline.switch(negative)
        assert "switch when it runs" in pipeline.next_filter()
        engine.may_open.set()
        until(lambda: pipeline.engine is engine)
        until(lambda: pipeline.next_filter().startswith("opening "))


@pytest.mark.usefixtures("at_once")
def test_an_engine_that_cannot_be_opened_after_all_ends_the_run(negative: FrameModel) -> None:
    engine, seen = Compiling.of(negative), Seen()
    engine.refuses = True
    pipeline = Pipeline(PATTERN, engine, [seen])

    def run() -> None:
        with running(pipeline):
            until(lambda: len(seen.bars) > 5)
            engine.may_open.set()
            until(lambda: pipeline._control.failed)

    with pytest.raises(EngineError, match="out of memory"):
        run()
    assert pipeline.stats.switches == 0


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("refuses", [False, True])
def test_an_engine_that_opens_after_the_end_is_closed(negative: FrameModel, refuses: bool) -> None:
    engine, seen = Compiling.of(negative), Seen()
    engine.refuses = refuses  # building that was cancelled is no error of the run
    pipeline = Pipeline(PATTERN, engine, [seen])
    with running(pipeline):
        until(lambda: len(seen.bars) > 3)
        threading.Timer(1.0, engine.may_open.set).start()
    assert engine.may_open.wait(10)
    until(lambda: not [item for item in threading.enumerate() if "pix2live" in item.name])
    assert engine.size is None
    assert pipeline.stats.switches == 0
    assert not [note for note in pipeline.all_notes() if "switched" in note]


@pytest.mark.usefixtures("at_once")
def test_a_start_that_fails_leaves_no_engine_open(negative: FrameModel, tmp_path: Path) -> None:
    engine = Compiling.of(negative)
    pipeline = Pipeline(PATTERN, engine, [tmp_path / "missing" / "film.mp4"], mode="freshest")
    with pytest.raises(SinkError):
        pipeline.start()
    assert pipeline.engine.size is None, "who stood in is closed"
    engine.may_open.set()
    until(lambda: not [item for item in threading.enumerate() if "opening" in item.name])
    assert engine.size is None


@pytest.mark.usefixtures("at_once")
def test_a_stand_in_can_be_declined(negative: FrameModel) -> None:
    engine, seen = Compiling.of(negative), Seen()
    threading.Timer(0.2, engine.may_open.set).start()
    with running(Pipeline(PATTERN, engine, [seen], stand_in=False)) as pipeline:
        assert pipeline.engine is engine
        until(lambda: len(seen.bars) > 3)
    assert set(seen.bars) == {PLAIN}
