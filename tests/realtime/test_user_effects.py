"""Effects of users: what they return, clean-up that fails, whose error it is, their files."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from steps import Step, frame_of, raising

from engines import EffectError, Pixels, Size
from realtime import Frame
from realtime.effects import Context, Effect, open_effect
from realtime.effects.chain import Chain
from realtime.effects.mask import Mask
from realtime.stats import Stats

# What effects return, and what the next one may do with it.

POSTER = np.full((64, 64, 3), 77, np.uint8)


def mirror(frame: Frame, context: Context) -> Pixels:
    return frame.pixels[:, ::-1]


def captured(frame: Frame, context: Context) -> Pixels:
    assert frame.source is not None
    return frame.source


def poster(frame: Frame, context: Context) -> Pixels:
    return POSTER


def assigned(frame: Frame, context: Context) -> Pixels:
    frame.pixels = POSTER
    return frame.pixels


class Poster(Effect):
    """Returns its own picture, as a class."""

    def process(self, frame: Frame, context: Context) -> Pixels:
        return POSTER


@pytest.mark.parametrize("first", [mirror, captured, poster, assigned, Poster()])
@pytest.mark.parametrize("second", ["status", "text:hello"])
def test_the_next_effect_may_draw_into_what_any_effect_returned(first: Any, second: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    slot, source = pixels.copy(), pixels // 2
    source.flags.writeable = False
    frame = Frame(slot, source=source, captured_ns=time.monotonic_ns())
    context = Context(label="filter")
    expected = {mirror: pixels[:, ::-1], captured: pixels // 2}.get(first, np.full_like(POSTER, 77))
    drawing = open_effect(second)
    drawing.prepare((64, 64), context)
    expected = np.ascontiguousarray(expected)
    expected = drawing.process(Frame(expected.copy()), context)

    chain = Chain([open_effect(first), open_effect(second)])
    chain.prepare((64, 64), context)
    assert (chain.process(frame, context) == expected).all()
    assert frame.pixels is slot
    assert (POSTER == 77).all()
    assert (source == pixels // 2).all()


def test_what_our_own_effects_return_is_not_copied() -> None:
    chain = Chain([open_effect("rectangle:0,0,4,2;feather=0")])
    frame = frame_of()
    chain.prepare((6, 4), Context())
    slot = frame.pixels
    assert chain.process(frame, Context()) is not slot


# Clean-up that fails.


class Stubborn(Step):
    """Fails where it is told to."""

    def __init__(self, amount: int, diary: list[str], *fails: str) -> None:
        super().__init__(amount, diary)
        self.name, self.fails = f"stubborn-{amount}", fails

    def prepare(self, size: Size, context: Context) -> None:
        if "prepare" in self.fails:
            raise ValueError("the real error")

    def reset(self) -> None:
        super().reset()
        if "reset" in self.fails:
            raise KeyError("reset")

    def close(self) -> None:
        super().close()
        if "close" in self.fails:
            raise OSError("busy")


def test_a_reset_that_raises_stops_the_run_or_drops_the_effect() -> None:
    diary: list[str] = []
    failing = Stubborn(1, diary, "reset")
    with pytest.raises(
        EffectError, match=r"the effect stubborn-1 \(test_user_effects.py:\d+\): KeyErr"
    ):
        Chain([failing]).reset()
    chain = Chain([failing, Step(2, diary)], on_error="drop")
    diary.clear()
    chain.reset()
    chain.reset()
    assert diary == ["reset 1", "reset 2", "reset 2"]
    assert (chain.process(frame_of(5), Context()) == 12).all()
    assert [
        note for note in chain.all_notes() if "goes on without it: the effect stubborn-1" in note
    ]


def test_a_close_that_raises_is_named_and_the_others_are_closed() -> None:
    diary: list[str] = []
    chain = Chain([Stubborn(1, diary, "close"), Stubborn(2, diary, "close"), Step(3, diary)])
    with pytest.raises(EffectError, match=r"cannot close the effect stubborn-1 \(.*OSError: busy"):
        chain.close()
    assert diary == ["close 1", "close 2", "close 3"]


def test_a_close_that_raises_does_not_hide_why_prepare_failed() -> None:
    diary: list[str] = []
    effects = [Stubborn(1, diary, "close"), Step(2, diary), Stubborn(3, diary, "prepare", "close")]
    with pytest.raises(EffectError, match=r"cannot prepare the effect stubborn-3 .*the real error"):
        Chain(effects).prepare((6, 4), Context())
    assert diary[1:] == ["close 1", "close 2", "close 3"]


# Whose error it is.


class Deep(Effect):
    """Fails in a helper of its own, and there in an installed package."""

    def process(self, frame: Frame, context: Context) -> Pixels:
        return helper(frame)


def helper(frame: Frame) -> Pixels:
    return np.concatenate([frame.pixels, np.zeros(3)])


class WrongMask(Mask):
    """A mask of a user: only `find`, and what it returns is no mask."""

    name = "wrong-mask"

    def find(self, frame: Frame, context: Context) -> Pixels:
        return np.zeros((4, 6), np.complex64)  # type: ignore[return-value]


class FailingMask(Mask):
    """A mask of a user that raises."""

    def find(self, frame: Frame, context: Context) -> Pixels:
        raise LookupError("nobody")


class Callable:
    """An object that is called."""

    def __call__(self, frame: Frame, context: Context) -> None:
        return None


def scaled(factor: int, frame: Frame, context: Context) -> None:
    return None


def resized(frame: Frame, context: Context) -> Any:
    return cv2.resize(frame.pixels, (-1, -1))


@pytest.mark.parametrize(
    ("made", "name", "line"),
    [
        (Deep(), "effect", helper.__code__.co_firstlineno + 1),
        (WrongMask(), "wrong-mask", WrongMask.find.__code__.co_firstlineno),
        (FailingMask(), "effect", FailingMask.find.__code__.co_firstlineno + 1),
        (Callable(), "Callable", Callable.__call__.__code__.co_firstlineno),
        (functools.partial(scaled, 2), "scaled", scaled.__code__.co_firstlineno),
        (functools.partial(resized), "resized", resized.__code__.co_firstlineno + 1),
    ],
)
def test_errors_are_placed_in_the_code_of_the_user(made: Any, name: str, line: int) -> None:
    chain = Chain([open_effect(made)])
    with pytest.raises(EffectError, match=rf"the effect {name} \(test_user_effects.py:{line}\)"):
        chain.process(frame_of(), Context())


def test_an_error_of_our_own_effect_is_placed_there() -> None:
    chain = Chain([open_effect("text:hello")])
    with pytest.raises(EffectError, match=r"the effect text \(overlays.py:\d+\): AssertionError"):
        chain.process(frame_of(), Context())  # not prepared


# What is left of an effect that was dropped.


def forgets_to_return(frame: Frame, context: Context) -> Any:
    frame.pixels = cv2.cvtColor(frame.pixels, cv2.COLOR_BGR2GRAY)  # type: ignore[assignment]


def test_a_dropped_effect_leaves_no_picture_and_nothing_found() -> None:
    seen: list[Any] = []

    def detects(frame: Frame, context: Context) -> Pixels:
        if context.values:
            raise LookupError("camera moved")
        context.values["seen"] = True
        context.mask, context.faces = frame.pixels[..., 0], ["face"]
        context.markers = {7: "marker"}
        return frame.pixels

    def looks(frame: Frame, context: Context) -> Pixels:
        seen.append((context.mask is None, context.faces, context.markers))
        return frame.pixels

    items = [open_effect(item) for item in (detects, forgets_to_return, Step(1), looks)]
    chain, context = Chain(items, on_error="drop"), Context()
    frame = frame_of(5)
    assert (chain.process(frame, context) == 11).all()
    assert frame.pixels.shape == (4, 6, 3)
    context.mask, context.faces, context.markers = frame.pixels[..., 0], ["face"], {7: "marker"}
    chain.process(frame_of(5), context)
    assert seen[1] == (True, [], {})


def test_a_chain_in_a_chain_is_taken_apart() -> None:
    stats = Stats()
    step = Step(1)
    step.notes.append("a note of the inner effect")
    inner = Chain([open_effect(raising), step], on_error="drop")
    chain = Chain([Step(0), Chain([inner])], stats=stats)
    assert (chain.process(frame_of(5), Context()) == 21).all()
    assert [item.name for item in stats.effects] == ["step", "raising", "step (2)"]
    assert "ZeroDivisionError" in stats.effects[1].error
    assert stats.effects[2].times.count == 1
    assert chain.all_notes()[0] == "a note of the inner effect"
    assert "goes on without it: the effect raising" in chain.all_notes()[1]


# Files of users.

DATA_CLASS = """from __future__ import annotations
import dataclasses
from typing import ClassVar
from realtime.effects import Effect

@dataclasses.dataclass
class Adds(Effect):
    amount: int = 3
    limit: ClassVar[int] = 9

    def process(self, frame, context):
        return frame.pixels + self.amount

class Needs(Effect):
    def __init__(self):
        self.model = open("no-such-file\\nat-all")

    def process(self, frame, context):
        return frame.pixels

class Half(Effect):
    pass
"""


def test_a_data_class_in_a_file_of_a_user(tmp_path: Path) -> None:
    path = tmp_path / "my.effects.py"
    path.write_text(DATA_CLASS)
    adds = open_effect(f"{path}:Adds")
    chain = Chain([adds])  # a data class calls no super().__init__()
    chain.prepare((6, 4), Context())
    assert (chain.process(frame_of(4), Context()) == 7).all()
    assert chain.all_notes() == []
    assert isinstance(adds, sys.modules[type(adds).__module__].Adds)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (DATA_CLASS, "Needs", r"the effect Needs \(mine.py:16\): FileNotFoundError: .*"),
        (DATA_CLASS, "Half", r"the effect Half: TypeError: .*abstract.*"),
        ("a = 1\nb = a / 0\n", "a", r".*mine.py \(mine.py:2\): ZeroDivisionError: .*"),
        ("a = 1\nb = = 2\n", "a", r".*mine.py \(mine.py:2\): SyntaxError: invalid syntax"),
        ("import sys\nsys.exit('bye')\n", "a", r".*mine.py \(mine.py:2\): .*exit: bye.*"),
        ("raise ValueError('one\\ntwo')\n", "a", r".*mine.py \(mine.py:1\): ValueError: one"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(
    tmp_path: Path, text: str, name: str, said: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    known = set(sys.modules)
    with pytest.raises(EffectError, match=rf"\Acannot (load|make) {said}\Z"):
        open_effect(f"{path}:{name}")
    assert not {module for module in set(sys.modules) - known if "pix2live" in module}


# What ends the program.


class Quits(Step):
    """Calls sys.exit where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__(1)
        self.where = where

    def prepare(self, size: Size, context: Context) -> None:
        self._quit("prepare")

    def process(self, frame: Frame, context: Context) -> Pixels:
        self._quit("process")
        return super().process(frame, context)

    def reset(self) -> None:
        self._quit("reset")

    def close(self) -> None:
        self._quit("close")

    def _quit(self, where: str) -> None:
        if where == self.where:
            sys.exit("enough\nof it")


QUITS = r"step \(test_user_effects.py:\d+\): it ends the program by sys.exit: enough$"


@pytest.mark.parametrize("where", ["prepare", "process", "reset", "close"])
def test_an_effect_that_ends_the_program_is_an_error_as_any_other(where: str) -> None:
    chain = Chain([Quits(where)])
    with pytest.raises(EffectError, match=QUITS):
        drive(chain)


def test_an_effect_that_ends_the_program_can_be_dropped() -> None:
    chain = Chain([Quits("process"), Step(2)], on_error="drop")
    assert (drive(chain) == 12).all()
    (note,) = chain.all_notes()
    assert note.startswith("an effect failed; the run goes on without it: the effect step (test_")


def drive(chain: Chain) -> Pixels:
    chain.prepare((6, 4), Context())
    found = chain.process(frame_of(5), Context())
    chain.reset()
    chain.close()
    return found
