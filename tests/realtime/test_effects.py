"""Effects: the contract, chains, words, and what happens when user code fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import Step, frame_of, raising

from engines import EffectError, Pixels, SettingsError, Size, open_engine
from realtime import Frame, Pipeline
from realtime.effects import Context, Effect, effect, open_effect
from realtime.effects.chain import Chain
from realtime.effects.specs import EFFECTS
from realtime.effects.words import Words
from realtime.stats import Stats

PATTERN = "test-pattern:64x64@200"


def run(effects: list[Any], frames: int = 5, **settings: Any) -> tuple[Pipeline, list[Pixels]]:
    seen: list[Pixels] = []
    pipeline = Pipeline(
        PATTERN,
        open_engine(None, backend="identity"),
        [lambda frame: seen.append(frame.pixels.copy())],
        frames=frames,
        effects=effects,
        **settings,
    )
    pipeline.run()
    return pipeline, seen


def test_a_chain_is_an_effect_and_keeps_the_order() -> None:
    diary: list[str] = []
    chain = Chain([Step(1, diary), Chain([Step(3, diary)])])
    chain.prepare((6, 4), Context())
    assert (chain.process(frame_of(5), Context()) == (5 * 2 + 1) * 2 + 3).all()
    chain.reset()
    chain.close()
    assert diary == [
        "prepare 1 (6, 4)",
        "prepare 3 (6, 4)",
        "process 1",
        "process 3",
        "reset 1",
        "reset 3",
        "close 1",
        "close 3",
    ]
    assert chain.latency_ms == 2 * Step.latency_ms


def test_effects_run_between_engine_and_sinks() -> None:
    captured: list[Pixels] = []

    def invert(frame: Frame, context: Context) -> Pixels:
        assert frame.source is not None
        assert not frame.source.flags.writeable
        assert context.size == (64, 64)
        assert context.age_ms > 0
        captured.append(frame.source.copy())
        np.subtract(255, frame.source, out=frame.pixels)
        return frame.pixels

    pipeline, seen = run([invert], mode="every")
    assert len(seen) == 5
    assert all((255 - one == other).all() for one, other in zip(captured, seen, strict=True))
    found = pipeline.stats.to_dict()["effects"]
    assert [item["name"] for item in found] == ["invert"]
    assert found[0]["time"]["frames"] == 5


def test_user_code_that_raises_is_named_with_file_and_line() -> None:
    line = raising.__code__.co_firstlineno + 1
    with pytest.raises(EffectError, match=rf"raising \(steps.py:{line}\): ZeroDivisionErr"):
        run([raising])


def test_an_effect_that_fails_can_be_dropped() -> None:
    pipeline, seen = run([raising, Step(1)], mode="every", effect_errors="drop")
    assert len(seen) == 5
    said = "goes on without it: the effect raising"
    assert [note for note in pipeline.all_notes() if said in note]
    stats = {item.name: item for item in pipeline.stats.effects}
    assert "ZeroDivisionError" in stats["raising"].error
    assert stats["raising"].times.count == 0
    assert stats["step"].times.count == 5


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "found NoneType .a return is missing"),
        (np.zeros((64, 64, 3), np.float32), "found float32"),
        (np.zeros((32, 64, 3), np.uint8), r"found uint8 \(32, 64, 3\)"),
        ([1], "found list"),
    ],
)
def test_what_is_no_picture_is_refused(result: Any, said: str) -> None:
    def wrong(frame: Frame, context: Context) -> Any:
        return result

    with pytest.raises(EffectError, match=rf"wrong \(test_effects.py:\d+\) must return.*{said}"):
        run([wrong])


def test_a_slow_effect_makes_no_frame_older_than_allowed() -> None:
    def slow(frame: Frame, context: Context) -> Pixels:
        time.sleep(0.03)
        return frame.pixels

    shown: list[int] = []
    pipeline = Pipeline(
        PATTERN,
        open_engine(None, backend="identity"),
        [lambda frame: shown.append(frame.index)],
        effects=[slow, Step(0)],
        max_age_ms=20,
        frames=4,
        mode="freshest",
    )
    pipeline.run()
    assert shown == []
    assert pipeline.stats.dropped()["slow too old"] == pipeline.stats.engine_out.count
    assert pipeline.stats.dropped()["step too old"] == 0


def test_what_was_prepared_is_closed_when_a_later_one_fails() -> None:
    class Missing(Step):
        def prepare(self, size: Size, context: Context) -> None:
            raise FileNotFoundError("model.onnx")

    diary: list[str] = []
    with pytest.raises(EffectError, match=r"cannot prepare the effect step .*model.onnx"):
        run([Step(1, diary), Missing(2, diary)])
    assert diary[:3] == ["prepare 1 (64, 64)", "close 1", "close 2"]


def test_effects_are_closed_at_the_end_of_a_run() -> None:
    diary: list[str] = []
    run([Step(1, diary)])
    assert diary[-1] == "close 1"


def test_a_function_becomes_an_effect() -> None:
    @effect
    def brighter(frame: Frame, context: Context) -> Pixels:
        return frame.pixels + 1

    assert brighter.name == "brighter"
    assert (brighter(frame_of(7), Context()) == 8).all()
    assert open_effect(brighter) is brighter
    assert isinstance(open_effect(lambda frame, context: frame.pixels), Effect)


def test_effects_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def darker(frame, context):\n    return frame.pixels // 2\n\nnothing = 3\n")
    assert (open_effect(f"{path}:darker").process(frame_of(8), Context()) == 4).all()
    for spec, said in (
        (f"{path}:lighter", "has no 'lighter'"),
        (f"{path}:nothing", "nothing is no effect"),
        (str(path), "say which effect"),
        (f"{tmp_path}/other.py:darker", "no file"),
        ("sparkle", "no effect 'sparkle'; .*here are: rectangle"),
    ):
        with pytest.raises(SettingsError, match=said):
            open_effect(spec)
    path.write_text("import nothing_like_that\n")
    with pytest.raises(EffectError, match=r"cannot load .*mine.py \(mine.py:1\): ModuleNotFound"):
        open_effect(f"{path}:darker")


@pytest.mark.parametrize("name", list(EFFECTS))
def test_words_that_mean_nothing_are_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        open_effect(f"{name}:nonsense=3;nonsense")


def test_words() -> None:
    words = Words("thing", "3,4; invert;size=2.5")
    assert words.plain() == "3,4"
    assert words.flag("invert")
    assert not words.flag("invert")
    assert words.number("size", 1.0) == 2.5
    assert words.number("width", 7.0) == 7.0
    assert words.numbers("3,4", "place", 2) == [3.0, 4.0]
    words.done()
    with pytest.raises(SettingsError, match="thing: place must be 2 numbers, found '3'"):
        words.numbers("3", "place", 2)
    with pytest.raises(SettingsError, match="thing: size must be a number, found 'big'"):
        Words("thing", "size=big").number("size", 1.0)
    with pytest.raises(SettingsError, match="thing does not know 'colour'"):
        Words("thing", "colour=red").done()
    with pytest.raises(SettingsError, match="thing: size is given twice"):
        Words("thing", "size=1;invert;size=2")


def test_effects_of_the_same_name_are_counted_apart() -> None:
    stats = Stats()
    Chain([Step(1), Step(2)], stats=stats)
    assert [item.name for item in stats.effects] == ["step", "step (2)"]


def test_settings_that_mean_nothing() -> None:
    with pytest.raises(SettingsError, match="found 'ignore'"):
        Pipeline(PATTERN, open_engine(None, backend="identity"), effect_errors="ignore")
    with pytest.raises(SettingsError, match="a cross-fade takes 0 to 10000 ms, found -1"):
        Pipeline(PATTERN, open_engine(None, backend="identity"), crossfade_ms=-1)
