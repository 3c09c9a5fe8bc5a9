"""What a swap of engines leaves: on the screen no jump, in the queue no foreign memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from runs import linear, running, until

from engines import Engine, EngineError, FrameModel, Pixels, Size, open_engine
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline
from realtime.crossfade import Crossfade
from realtime.effects.base import Context, effect
from realtime.notes import NOTES_KEPT
from realtime.sources.synthetic import read_code

SIZE = (128, 96)
DARK, BRIGHT, MIDDLE = 20, 235, 60


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FrameModel]:
    """Filters that make a picture of one level."""
    folder = tmp_path_factory.mktemp("swaps")
    return {level: linear(folder / f"{level}.onnx", 0, level) for level in (DARK, BRIGHT, MIDDLE)}


def waiting(pipeline: Pipeline) -> bool:
    """Return whether an engine is open and waits for its swap."""
    assert pipeline._stages is not None
    return pipeline._stages.engine_stage._next is not None


class Held:
    """An effect that keeps the level of every frame, and holds the first brighter one up."""

    def __init__(self, above: int) -> None:
        self.levels: list[int] = []
        self.above = above
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, frame: Frame, context: Context) -> Pixels:
        self.levels.append(int(frame.pixels[0, 0, 0]))
        assert int(np.ptp(frame.pixels)) == 0
        if self.levels[-1] > self.above and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(30)
        return frame.pixels


@pytest.mark.parametrize("mode", ["every", "freshest"])
def test_a_switch_in_a_fade_goes_on_from_what_is_on_the_screen(
    plain: dict[int, FrameModel], mode: str
) -> None:
    held = Held(above=100)
    fade_ms, fps = (4000, 100) if mode == "every" else (600, 200)
    pipeline = Pipeline(
        f"test-pattern:{SIZE[0]}x{SIZE[1]}@{fps}",
        plain[DARK],
        ["null"],
        mode=mode,
        effects=[effect(held)],
        crossfade_ms=fade_ms,
    )
    with running(pipeline):
        until(lambda: len(held.levels) > 3)
        pipeline.switch(plain[BRIGHT], wait=True)
        until(held.reached.is_set)
        pipeline.switch(plain[MIDDLE])
        until(lambda: waiting(pipeline))
        held.go_on.set()
        until(lambda: pipeline.stats.switches == 2 and held.levels[-1] == MIDDLE)
    levels = held.levels
    assert pipeline.stats.switches == 2
    assert BRIGHT in levels, "the first fade has ended before the second began"
    top = levels.index(BRIGHT)
    assert levels[:top] == sorted(levels[:top])
    assert levels[top:] == sorted(levels[top:], reverse=True)
    if mode == "every":  # a live one is as far as its time, and the machine may have been busy
        most = (BRIGHT - DARK) / (fade_ms * fps / 1000)
        assert np.abs(np.diff(levels)).max() <= most + 1, "rounded, both of them"


def test_a_cut_in_a_fade_is_one(plain: dict[int, FrameModel]) -> None:
    held = Held(above=DARK)
    held.go_on.set()
    pipeline = Pipeline(
        "test-pattern:128x96@200", plain[DARK], ["null"], effects=[effect(held)], crossfade_ms=9000
    )
    with running(pipeline):
        until(lambda: len(held.levels) > 3)
        pipeline.switch(plain[BRIGHT], wait=True)
        until(held.reached.is_set)
        pipeline.switch(plain[MIDDLE], crossfade_ms=0, wait=True)
        until(lambda: held.levels[-1] == MIDDLE)
    assert BRIGHT not in held.levels


def test_a_fade_is_busy_from_its_first_frame_to_its_end(plain: dict[int, FrameModel]) -> None:
    with open_engine(plain[DARK], (8, 8)) as old:
        fade = Crossfade()
        assert not fade.busy(0)
        fade.start(old, 100.0)
        assert not fade.busy(5_000_000), "nobody has seen anything of it"
        fade.mix(_frame(), _frame(), 1_000_000)
        assert fade.busy(100_999_999)
        assert not fade.busy(101_000_000), "its time is over, whether or not a frame came"
        fade.mix(_frame(), _frame(), 200_000_000)
        assert fade.engine is None
        assert not fade.busy(1_000_000)


def test_a_filter_that_nobody_saw_does_not_fade_out(plain: dict[int, FrameModel]) -> None:
    with open_engine(plain[DARK], (8, 8)) as shown, open_engine(plain[BRIGHT], (8, 8)) as unseen:
        fade = Crossfade()
        fade.start(shown, 100.0)
        fade.start(unseen, 100.0)
        assert fade.engine is shown
        fade.start(unseen, 0.0)
        assert fade.engine is None


class Own(IdentityEngine):
    """Copies, and knows its own memory, as a device knows what is page-locked."""

    name = "own"

    def __init__(self) -> None:
        super().__init__(None)
        self.made: set[int] = set()
        self.makers: list[str] = []
        self.is_own: list[bool] = []
        self.memory_left = True

    def _open(self, size: Size) -> None:
        self.device, self.precision = "somewhere", "uint8"

    def slots(self, count: int) -> list[Pixels]:
        if not self.memory_left:
            raise EngineError("out of memory: page-locked")
        made = super().slots(count)
        self.makers += [threading.current_thread().name] * count
        self.made |= {picture.ctypes.data for picture in made}
        return made

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        self.is_own.append(frame_in.ctypes.data in self.made)
        super()._submit(frame_in, frame_out)


def opened(engine: Engine, depth: int = 1) -> Engine:
    engine.open(SIZE, depth=depth)
    return engine


@pytest.mark.parametrize(("mode", "depth", "slots"), [("freshest", 1, 4), ("every", 4, 6)])
def test_frames_come_in_the_memory_of_the_next_engine(mode: str, depth: int, slots: int) -> None:
    """And whichever slots are exchanged while frames come: each arrives once and whole."""
    codes: list[int | None] = []
    indices: list[int] = []

    def keep(frame: Frame) -> None:
        code = read_code(frame.pixels)
        codes.append(None if code is None else code[0])
        indices.append(frame.index)

    pipeline = Pipeline("test-pattern:128x96@300", IdentityEngine(None), [keep], mode=mode)
    engines = [Own(), Own(), IdentityEngine(None), Own()]
    with running(pipeline):
        assert pipeline._stages is not None
        for engine in engines:
            stage = pipeline._stages.engine_stage
            assert stage.swap_in(opened(engine, depth))
            shown = len(indices)
            until(lambda shown=shown: len(indices) > shown + 30)  # type: ignore[misc]
    assert indices == sorted(set(indices))
    assert codes == indices
    for number in (0, 3):
        engine = engines[number]
        assert isinstance(engine, Own)
        assert not engine.is_own[0]
        assert engine.is_own.count(False) <= slots, "each slot is exchanged when it is given back"
        assert engine.is_own.count(True) > 20
        assert len(engine.makers) == depth + slots
        assert not [name for name in engine.makers if "engine" in name], "no frame waits for it"
    same = engines[1]
    assert isinstance(same, Own)
    assert len(same.makers) == depth, "as good: what was there before stays"
    assert not any(same.is_own)


def test_no_memory_for_a_next_engine_leaves_the_old_one_running(
    plain: dict[int, FrameModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = Own()
    poor.memory_left = False
    monkeypatch.setattr("realtime.switching.open_engine", lambda *_, **__: poor)
    with running(Pipeline("test-pattern:128x96@200", plain[DARK], ["null"])) as pipeline:
        engine = pipeline.engine
        with pytest.raises(EngineError, match="out of memory: page-locked"):
            pipeline.switch(plain[BRIGHT], wait=True)
        assert poor.size is None, "closed"
        assert pipeline.engine is engine
        assert pipeline.notes[-1] == "kept the filter: out of memory: page-locked"
    assert pipeline.stats.switches == 0


def test_the_newest_notes_are_kept() -> None:
    pipeline = Pipeline("test-pattern", IdentityEngine(None), ["null"])
    for number in range(NOTES_KEPT + 50):
        pipeline.notes.append(f"switched to {number}")
    assert len(pipeline.notes) == NOTES_KEPT
    assert pipeline.notes[0] == "switched to 50"
    assert pipeline.notes[-2:] == [
        f"switched to {NOTES_KEPT + 48}",
        f"switched to {NOTES_KEPT + 49}",
    ]
    pipeline.notes.extend(["one more", "and another"])
    assert len(pipeline.notes) == NOTES_KEPT
    assert pipeline.all_notes()[-1] == "and another"


def _frame() -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8))
