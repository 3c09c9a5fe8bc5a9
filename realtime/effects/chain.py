"""Several effects as one: in order, timed, with errors that name whose they are."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from engines import EffectError, Pix2liveError, Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect, FunctionEffect
from realtime.frame import Frame
from realtime.pacing import too_old
from realtime.stats import EffectStats, Stats

ON_ERROR: Final = ("stop", "drop")


class Chain(Effect):
    """Effects one after the other; itself an effect.

    Args:
        effects: in the order in which they work.
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
        self.effects = list(effects)
        self.latency_ms = sum(item.latency_ms for item in effects)
        self._on_error, self._max_age_ms = on_error, max_age_ms
        stats = stats or Stats()
        self._stats = []
        for item in self.effects:
            kept = EffectStats(stats.free_effect_name(item.name), item.latency_ms)
            stats.effects.append(kept)
            self._stats.append(kept)
        self._failed: set[int] = set()

    def prepare(self, size: Size, context: Context) -> None:
        context.size = size
        prepared: list[Effect] = []
        try:
            for item in self.effects:
                prepared.append(item)
                item.prepare(size, context)
        except BaseException as error:
            for item in prepared:
                item.close()
            if isinstance(error, Exception) and not isinstance(error, Pix2liveError):
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
        shape = frame.pixels.shape
        for place, (item, stats) in enumerate(zip(self.effects, self._stats, strict=True)):
            if place in self._failed:
                continue
            started_ns = time.monotonic_ns()
            try:
                made = item.process(frame, context)
                _check(item, made, shape)
            except Exception as error:  # noqa: BLE001  (whatever user code raises)
                self._fails(place, item, error)
                continue
            frame.pixels = made
            now_ns = time.monotonic_ns()
            stats.times.add(now_ns - started_ns, now_ns)
            if too_old(frame.captured_ns, now_ns, self._max_age_ms):
                stats.too_old += 1
                return False
        return True

    def reset(self) -> None:
        for item in self.effects:
            item.reset()

    def close(self) -> None:
        errors: list[Exception] = []
        for item in self.effects:
            try:
                item.close()
            except Exception as error:  # noqa: BLE001  (the others must be closed too)
                errors.append(error)
        if errors:
            raise errors[0]

    def all_notes(self) -> list[str]:
        """Return what the effects and the chain have to say."""
        return [note for item in self.effects for note in item.notes] + self.notes

    def _fails(self, place: int, item: Effect, error: Exception) -> None:
        said = str(error) if isinstance(error, Pix2liveError) else blame(item, error)
        self._stats[place].error = said
        if self._on_error == "stop":
            if isinstance(error, Pix2liveError):
                raise error
            raise EffectError(said) from error
        self._failed.add(place)
        self.notes.append(f"going on without {said}")


def blame(item: Effect, error: BaseException) -> str:
    """Return whose error this is, in one line: ``the effect sparkle (fun.py:12): ZeroDivision...``.

    The place is the deepest one outside of pix2live and the installed packages, where there is one.
    """
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"the effect {item.name} ({_place(item, error.__traceback__)}): {said}"


def _place(item: Effect, trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    code = getattr(_body(item), "__code__", None)
    own = [found for found in frames if code is not None and found.filename == code.co_filename]
    if own:
        return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else item.name


def _body(item: Effect) -> Callable[..., object]:
    return item.function if isinstance(item, FunctionEffect) else type(item).process


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
