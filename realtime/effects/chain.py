"""Several effects as one: in order, timed, with errors that name whose they are."""

from __future__ import annotations

import inspect
import sysconfig
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final

import numpy as np

from engines import EffectError, Pix2liveError, Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect, FunctionEffect
from realtime.frame import Frame
from realtime.pacing import too_old
from realtime.stats import EffectStats, Stats

ON_ERROR: Final = ("stop", "drop")
_HOME: Final = Path(__file__).resolve().parents[2]
_NOT_OF_USERS: Final = (
    *(_HOME / package for package in ("realtime", "engines", "tools")),
    Path(sysconfig.get_path("stdlib")).resolve(),
)


class Chain(Effect):
    """Effects one after the other; itself an effect.

    Args:
        effects: in the order in which they work. A chain among them is taken apart: its effects
            are timed, blamed and dropped one by one.
        on_error: when an effect fails on a frame, ``stop`` raises `EffectError`; ``drop`` goes on
            without this effect, with a note that says so.
        max_age_ms: a frame that is older after an effect goes no further; see `apply`.
        stats: where each effect's times and losses are kept.
    """

    name = "effects"

    def __init__(
        self,
        effects: Sequence[Effect],
        *,
        on_error: str = "stop",
        max_age_ms: float | None = None,
        stats: Stats | None = None,
    ) -> None:
        super().__init__()
        if on_error not in ON_ERROR:
            raise SettingsError(
                f"what to do when an effect fails is one of {ON_ERROR}, found {on_error!r}"
            )
        self.effects: list[Effect] = []
        self._drops: list[bool] = []  # of each effect; those of a chain that drops are dropped
        for item in effects:
            inner = item if type(item) is Chain else None
            self.effects += inner.effects if inner else [item]
            drops = inner._drops if inner else [False]
            self._drops += [drop or on_error == "drop" for drop in drops]
        self.latency_ms = sum(item.latency_ms for item in self.effects)
        self._max_age_ms = max_age_ms
        self._context = Context()
        stats = stats or Stats()
        self._stats = []
        for item in self.effects:
            kept = EffectStats(stats.free_effect_name(item.name), item.latency_ms)
            stats.effects.append(kept)
            self._stats.append(kept)
        self._failed: set[int] = set()

    def prepare(self, size: Size, context: Context) -> None:
        context.size = size
        self._context = context
        prepared: list[Effect] = []
        try:
            for item in self.effects:
                prepared.append(item)
                item.prepare(size, context)
        except BaseException as error:
            _close(prepared)  # what fails there must not hide the error
            ends = isinstance(error, (Exception, SystemExit))
            if ends and not isinstance(error, Pix2liveError):
                raise EffectError(f"cannot prepare {blame(prepared[-1], error)}") from error
            raise

    def process(self, frame: Frame, context: Context) -> Pixels:
        self.apply(frame, context)
        return frame.pixels

    def apply(self, frame: Frame, context: Context) -> bool:
        """Run every effect on ``frame`` and put the result into ``frame.pixels``.

        Returns whether it may be shown: False when an effect took so long that it is older than
        ``max_age_ms``; that effect's statistics count it.

        Raises:
            EffectError: an effect failed, and the run is to stop then.
        """
        self._context = context
        slot = frame.pixels
        shape = slot.shape
        for place, (item, stats) in enumerate(zip(self.effects, self._stats, strict=True)):
            if place in self._failed:
                continue
            before = frame.pixels
            started_ns = time.monotonic_ns()
            try:
                made = item.process(frame, context)
                _check(item, made, shape)
            except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever user code raises)
                frame.pixels = before
                self._fails(place, item, error)
                continue
            if made is not before and not _may_be_drawn_into(item, made):
                if np.may_share_memory(slot, made):  # a view, such as a mirrored one
                    made = np.array(made, order="C")
                np.copyto(slot, made)
                made = slot
            frame.pixels = made
            now_ns = time.monotonic_ns()
            stats.times.add(now_ns - started_ns, now_ns)
            if too_old(frame.captured_ns, now_ns, self._max_age_ms):
                stats.too_old += 1
                return False
        return True

    def reset(self) -> None:
        for place, item in enumerate(self.effects):
            if place in self._failed:
                continue
            try:
                item.reset()
            except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever user code raises)
                self._fails(place, item, error)

    def cancel(self) -> None:
        for item in self.effects:
            item.cancel()

    def close(self) -> None:
        """Close all effects.

        Raises:
            EffectError: what the first one said that could not be closed; the others are.
        """
        failed = _close(self.effects)
        if failed:
            item, error = failed[0]
            if isinstance(error, Pix2liveError):
                raise error
            raise EffectError(f"cannot close {blame(item, error)}") from error

    def all_notes(self) -> list[str]:
        """Return what the effects and the chain have to say."""
        return [note for item in self.effects for note in _notes(item)] + self.notes

    def _fails(self, place: int, item: Effect, error: BaseException) -> None:
        said = str(error) if isinstance(error, Pix2liveError) else blame(item, error)
        self._stats[place].error = said
        if not self._drops[place]:
            if isinstance(error, Pix2liveError):
                raise error
            raise EffectError(said) from error
        self._failed.add(place)
        # Nobody may keep them up to date now; another effect that does fills them in again.
        self._context.mask, self._context.faces, self._context.markers = None, [], {}
        if not said.startswith("the effect "):
            said = f"the effect {item.name}: {said.removeprefix(f'{item.name}: ')}"
        self.notes.append(f"an effect failed; the run goes on without it: {said}")


def blame(item: Effect, error: BaseException) -> str:
    """Return whose error this is, in one line: ``the effect sparkle (fun.py:12): ZeroDivision...``.

    The place is `user_place`, or else where the effect's own code begins.
    """
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        kind = "it ends the program by sys.exit"
    said = f"{kind}: {error}".splitlines()[0].removesuffix(": ")
    return f"the effect {item.name} ({_place(item, error.__traceback__)}): {said}"


def user_place(trace: TracebackType | None) -> str:
    """Return ``file.py:12``, the deepest place outside of pix2live, the installed packages and
    Python's own library; empty where there is none.
    """
    for found in reversed(traceback.extract_tb(trace)):
        path = Path(found.filename).resolve()
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        ours = any(path.is_relative_to(folder) for folder in _NOT_OF_USERS)
        if not (installed or ours or path.name.startswith("<frozen")):
            return f"{path.name}:{found.lineno}"
    return ""


def _place(item: Effect, trace: TracebackType | None) -> str:
    place, code = user_place(trace), _code(item)
    if place or code is None:
        return place or item.name
    lines = [
        found.lineno for found in traceback.extract_tb(trace) if found.filename == code.co_filename
    ]
    return f"{Path(code.co_filename).name}:{lines[-1] if lines else code.co_firstlineno}"


def _code(item: Effect) -> CodeType | None:
    """Return the code that makes this effect what it is: its function, or what its class wrote."""
    if isinstance(item, FunctionEffect):
        found: Any = item.function
        while isinstance(found, partial):
            found = found.func
        found = inspect.unwrap(found)
        if not hasattr(found, "__code__"):
            found = type(found).__call__
        return getattr(found, "__code__", None)
    for cls in type(item).__mro__:  # a mask has only a `find`
        for name in ("process", "find"):
            code = getattr(vars(cls).get(name), "__code__", None)
            if code is not None:
                return code  # type: ignore[no-any-return]
    return None


def _may_be_drawn_into(item: Effect, made: Pixels) -> bool:
    """Return whether the next effect may change ``made``; a user's may be kept, or be a view."""
    of_ours = type(item).__module__.startswith("realtime.effects.")
    plain = made.flags.writeable and made.flags.c_contiguous
    return of_ours and plain and not isinstance(item, FunctionEffect)


def _close(effects: Sequence[Effect]) -> list[tuple[Effect, BaseException]]:
    """Close all of them; return which of them could not be closed, and why."""
    failed: list[tuple[Effect, BaseException]] = []
    for item in effects:
        try:
            item.close()
        except (Exception, SystemExit) as error:  # noqa: BLE001  (the others must be closed too)
            failed.append((item, error))
    return failed


def _notes(item: Effect) -> list[str]:
    return getattr(item, "notes", [])  # a user's class may have left out super().__init__()


def _check(item: Effect, made: object, shape: tuple[int, ...]) -> None:
    """Raise where an effect returned no picture."""
    if not isinstance(made, np.ndarray):
        found = type(made).__name__
        hint = " (a return is missing?)" if made is None else ""
    elif made.dtype != np.uint8 or made.shape != shape:
        found, hint = f"{made.dtype} {made.shape}", ""
    else:
        return
    raise EffectError(
        f"the effect {item.name} ({_place(item, None)}) must return uint8 {shape}, found"
        f" {found}{hint}"
    )
