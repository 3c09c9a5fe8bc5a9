"""SizedEngine: one filter, open at several working sizes; frames keep theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engines.base import Engine, Pixels
from engines.errors import EngineError
from engines.model import Size

SHARES = (1.0, 0.83, 0.67, 0.5, 0.37)
"""Of the frame's sides: each size has about 0.6 of the pixels of the one before it."""
SAME_ASPECT = 0.03
"""Rounded sizes, such as 427x240 for 16:9, are off by less of their aspect ratio."""


@dataclass(slots=True)
class _Level:
    """One working size, with its engine and, where it is not the frames', its own pictures."""

    engine: Engine
    size: Size
    pictures: list[tuple[Pixels, Pixels]]
    """One (input, output) for each frame under way."""


class SizedEngine(Engine):
    """Translates frames of one size at a working size that may change between two of them.

    A captured frame is shrunk (mean of the area), translated, and enlarged again (bilinear). A
    change costs nothing, because `open` opens an engine for every size: as many times the memory
    and the time to open. At the frames' own size nothing is copied.

    Thread: `work_at` in the one that submits; the rest as `Engine`.

    Args:
        engine: not open yet; the engines of the other sizes are made as it was.
        sizes: (width, height) to work at, rounded to what the filter takes; larger ones than the
            frames are left out. Default: `SHARES` of the frames' sides.
    """

    def __init__(self, engine: Engine, sizes: Sequence[Size] = ()) -> None:
        if engine.size is not None or isinstance(engine, SizedEngine):
            raise EngineError(
                f"several working sizes need an engine that is not open yet, found {engine.name}"
                f" at {engine.size}"
            )
        super().__init__(engine.model, precision=engine.asked_precision, device=engine.asked_device)
        self.name = engine.name
        self.notes += engine.notes
        self.level = 0
        """Which of `sizes` is worked at."""
        self.sizes: tuple[Size, ...] = ()
        """(width, height), largest first; empty when closed."""
        self._first = engine
        self._asked_sizes = tuple(sizes)
        self._levels: list[_Level] = []
        self._started = self._finished = 0

    @classmethod
    def why_not(cls) -> str | None:
        return None  # the engines inside say it when they open

    def fit(self, size: Size) -> Size:
        return self._first.fit(size)

    @property
    def on_progress(self) -> Any:
        """Who hears how building the engines goes, where they have to be built."""
        return getattr(self._first, "on_progress", None)

    @on_progress.setter
    def on_progress(self, listener: Any) -> None:
        if hasattr(self._first, "on_progress"):
            self._first.on_progress = listener

    @property
    def working_size(self) -> Size:
        """Return the (width, height) at which the next frame is translated."""
        self._opened()
        return self.sizes[self.level]

    def work_at(self, level: int) -> None:
        """Translate at ``sizes[level]`` from the next frame on; nothing may be under way.

        A filter with a state starts anew there.
        """
        self._opened()
        if not 0 <= level < len(self.sizes):
            raise EngineError(f"there are {len(self.sizes)} working sizes, found place {level}")
        if self._pending:
            raise EngineError("frames are under way: collect them before the working size changes")
        self.level = level
        self._started = self._finished = 0
        engine = self._levels[level].engine
        engine.reset()
        self._say_what_runs(engine)

    def slots(self, count: int) -> list[Pixels]:
        width, height = self._opened()
        largest = self._levels[0]
        if largest.size == (width, height):
            return largest.engine.slots(count)
        return super().slots(count)

    def _open(self, size: Size) -> None:
        sizes = self._fitting(size)
        for place, working_size in enumerate(sizes):
            engine = self._first if place == 0 else self._another()
            engine.open(working_size, depth=self.depth)
            self.depth = min(self.depth, engine.depth)
            self._levels.append(_Level(engine, working_size, []))
            if working_size != size:
                slots = engine.slots(2 * self.depth)
                self._levels[-1].pictures = list(zip(slots[::2], slots[1::2], strict=True))
            self.notes += [note for note in engine.notes if note not in self.notes]
        self.level, self.sizes = 0, tuple(sizes)
        self._say_what_runs(self._first)
        self.engine_path = self._first.engine_path
        self.notes.append(f"working sizes: {', '.join(f'{w}x{h}' for w, h in sizes)}")
        self.notes += self._stretched(size)

    def _say_what_runs(self, engine: Engine) -> None:
        self.runs, self.device = engine.runs, engine.device
        self.precision, self.float_precision = engine.precision, engine.float_precision

    def _fitting(self, frame: Size) -> list[Size]:
        """Return the working sizes for frames of this size, largest first.

        Raises:
            EngineError: all are larger than the frame.
        """
        width, height = frame
        asked = self._asked_sizes or [(round(width * x), round(height * x)) for x in SHARES]
        fitted = {self.fit(item) for item in asked}
        kept = {item for item in fitted if item[0] <= width and item[1] <= height}
        if not kept:
            found = ", ".join(f"{w}x{h}" for w, h in asked)
            raise EngineError(f"no working size is within the frames' {width}x{height}: {found}")
        return sorted(kept, key=lambda item: item[0] * item[1], reverse=True)

    def _stretched(self, frame: Size) -> list[str]:
        """Return, in a note, which of the sizes asked for have another shape than the frame."""
        aspect = frame[0] / frame[1]
        other = [(w, h) for w, h in self._asked_sizes if abs(w / h / aspect - 1) > SAME_ASPECT]
        if not other:
            return []
        found = ", ".join(f"{w}x{h}" for w, h in other)
        fitting = (self.fit((w, max(1, round(w / aspect)))) for w, _ in other)
        instead = ", ".join(f"{w}x{h}" for w, h in fitting)
        said = (
            f"{found}: of another shape than the frames of {frame[0]}x{frame[1]}; the filter gets"
            f" them squeezed, and what it makes is stretched again; of the same shape: {instead}"
        )
        return [said]

    def _another(self) -> Engine:
        """Return another engine, made as the first one was."""
        first = self._first
        try:
            another = type(first)(
                first.model, precision=first.asked_precision, device=first.asked_device
            )
        except TypeError as error:  # somebody's engine that is made in another way
            raise EngineError(
                f"several working sizes need engines that are made of a model, a precision and a"
                f" device; {type(first).__name__} is not"
            ) from error
        if hasattr(another, "on_progress"):
            another.on_progress = self.on_progress
        return another

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        level = self._levels[self.level]
        if level.pictures:
            small_in, small_out = level.pictures[self._started % self.depth]
            cv2.resize(frame_in, level.size, dst=small_in, interpolation=cv2.INTER_AREA)
            level.engine.submit(small_in, small_out)
        else:
            level.engine.submit(frame_in, frame_out)
        self._started += 1

    def _collect(self, frame_out: Pixels) -> None:
        level = self._levels[self.level]
        level.engine.collect()
        self.alpha = level.engine.alpha
        if level.pictures:
            size = self._opened()
            small_out = level.pictures[self._finished % self.depth][1]
            cv2.resize(small_out, size, dst=frame_out, interpolation=cv2.INTER_LINEAR)
            if self.alpha is not None:
                alpha = cv2.resize(self.alpha, size, interpolation=cv2.INTER_LINEAR)
                self.alpha = np.asarray(alpha, np.uint8)[..., None]
        self._finished += 1

    def _reset(self) -> None:
        self._levels[self.level].engine.reset()

    def _close(self) -> None:
        levels, self._levels = self._levels, []
        self.level, self.sizes = 0, ()
        self._started = self._finished = 0
        errors: list[Exception] = []
        for level in levels:
            try:
                level.engine.close()
            except Exception as error:  # noqa: BLE001  (the others must be closed too)
                errors.append(error)
        if errors:
            raise errors[0]
