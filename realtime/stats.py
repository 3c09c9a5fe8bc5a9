"""Ages and counters: p50, p95, p99 over the whole run in constant memory."""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_BINS_PER_OCTAVE = 64
_SCALE = _BINS_PER_OCTAVE / math.log(2)
_BINS = 40 * _BINS_PER_OCTAVE
"""From 1 microsecond to 2**40 of them (12 days)."""

STEPS_KEPT = 1000
RECENT = 120
"""How many frames the live figures look back."""


class Ages:
    """A histogram with logarithmic bins, 1.1 % wide: any percentile of any number of ages.

    Written by one thread, read by any (a reader may miss the newest frames).
    """

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BINS))
        self.count = 0
        self.max_ns = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT)

    def add(self, age_ns: int, now_ns: int) -> None:
        """Record one age; ``now_ns`` is when it was taken."""
        microseconds = age_ns / 1000
        place = int(math.log(microseconds) * _SCALE) if microseconds > 1 else 0
        self._counts[min(place, _BINS - 1)] += 1
        self.count += 1
        self.max_ns = max(self.max_ns, age_ns)
        self._recent.append((now_ns, age_ns))

    def percentile_ms(self, percent: float) -> float | None:
        """Return the age in ms that ``percent`` of the frames stay under; None without frames."""
        return self.percentiles_ms(percent)[0]

    def percentiles_ms(self, *percents: float) -> list[float | None]:
        """Return `percentile_ms` of each of ``percents``, all of the same frames.

        One pass over the histogram, in numpy: the server of the page asks for dozens at a time.
        """
        seen = np.cumsum(np.frombuffer(self._counts, np.uint64), dtype=np.int64)
        total = int(seen[-1])
        if not total:
            return [None] * len(percents)
        wanted = [max(percent * total / 100, 1.0) for percent in percents]
        places = np.searchsorted(seen, wanted).tolist()
        return [self._middle_ms(place) for place in places]

    def recent(self) -> tuple[float, float] | None:
        """Return (fps, median age in ms) of the last frames; None before the second frame."""
        items = self._recent.copy()  # in one step, while the writer goes on
        if len(items) < 2 or items[-1][0] <= items[0][0]:
            return None
        fps = (len(items) - 1) * 1e9 / (items[-1][0] - items[0][0])
        ages = sorted(age for _, age in items)
        return fps, ages[len(ages) // 2] / 1e6

    def recent_ms(self, percent: float) -> float:
        """Return the age in ms that ``percent`` of the last frames stay under; 0 without any."""
        ages = sorted(age for _, age in self._recent.copy())
        return ages[min(int(len(ages) * percent / 100), len(ages) - 1)] / 1e6 if ages else 0.0

    def summary(self) -> dict[str, float | int | None]:
        """Return count, p50, p95, p99 and max in ms."""
        found: dict[str, float | int | None] = {"frames": self.count}
        percents = (50, 95, 99)
        for percent, value in zip(percents, self.percentiles_ms(*percents), strict=True):
            found[f"p{percent}_ms"] = None if value is None else round(value, 3)
        found["max_ms"] = round(self.max_ns / 1e6, 3) if self.count else None
        return found

    def _middle_ms(self, place: int) -> float:
        if place >= _BINS:
            return self.max_ns / 1e6
        return min(math.exp((place + 0.5) / _SCALE) / 1000, self.max_ns / 1e6)


@dataclass(slots=True)
class SinkStats:
    """What one sink showed, and what it did not."""

    name: str
    ages: Ages = field(default_factory=Ages)
    """Age of each frame when the sink had shown, sent or encoded it."""
    overwritten: int = 0
    """A fresher frame came before the sink took this one."""
    too_old: int = 0
    repeated: int = 0
    """A paced sink sent the newest frame again, because none was newer."""
    longest_gap_ms: float = 0.0
    """Between two new frames that it had shown, sent or encoded."""
    last_new_ns: int | None = None
    left: bool = False
    """It was removed while the run went on."""

    def shown(self, age_ns: int, now_ns: int, *, again: bool = False) -> None:
        """Record a frame that was shown at ``now_ns``."""
        self.ages.add(age_ns, now_ns)
        if again:
            return
        if self.last_new_ns is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now_ns - self.last_new_ns) / 1e6)
        self.last_new_ns = now_ns


@dataclass(slots=True)
class EffectStats:
    """What one effect cost, and what it lost."""

    name: str
    declared_ms: float = 0.0
    """What it says that it adds to a frame's age."""
    times: Ages = field(default_factory=Ages)
    """How long it worked on each frame."""
    too_old: int = 0
    """Frames that were too old to be shown after it."""
    error: str = ""
    """Why the run went on without it."""


@dataclass(frozen=True, slots=True)
class SizeStep:
    """A change of the working size."""

    at_s: float
    """Since the start of the run."""
    before: tuple[int, int]
    after: tuple[int, int]
    """(width, height)."""
    frame_ms: float
    """What a frame took before it."""

    def words(self) -> str:
        """Return it for a person."""
        after, before = ("x".join(map(str, size)) for size in (self.after, self.before))
        return (
            f"{self.at_s:.1f} s: working at {after}, not {before}: a frame took"
            f" {self.frame_ms:.0f} ms"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        after, before = list(self.after), list(self.before)
        return {"at_s": self.at_s, "before": before, "after": after, "frame_ms": self.frame_ms}


@dataclass(slots=True)
class Stats:
    """Everything a run knows about its frames. Each field has one writer."""

    captured: Ages = field(default_factory=Ages)
    """Age when the source handed the frame over."""
    engine_in: Ages = field(default_factory=Ages)
    """Age when the engine took the frame."""
    engine_out: Ages = field(default_factory=Ages)
    """Age when the translated picture was there."""
    sinks: list[SinkStats] = field(default_factory=list)
    effects: list[EffectStats] = field(default_factory=list)
    source_dropped: int = 0
    """Frames that the source could not hand over in time."""
    engine_overwritten: int = 0
    """A fresher frame came before the engine took this one."""
    engine_too_old: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    switches: int = 0
    last_out_ns: int | None = None
    """When the newest frame came out of the engine."""
    longest_gap_ms: float = 0.0
    """Between two frames out of the engine."""
    working_size: tuple[int, int] | None = None
    """(width, height) that the deadline keeper works at; None without one."""
    size_steps: deque[SizeStep] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))
    """The latest changes of the working size."""
    size_steps_taken: int = 0

    def free_name(self, name: str) -> str:
        """Return ``name``, numbered where another sink has it: drops are counted by name."""
        return _free(name, {sink.name for sink in self.sinks})

    def free_effect_name(self, name: str) -> str:
        """Return ``name``, numbered where another effect has it."""
        return _free(name, {item.name for item in self.effects})

    def dropped(self, *, left: bool = True) -> dict[str, int]:
        """Return every place where frames were dropped, and how many.

        Args:
            left: sinks that were removed count too.
        """
        places = {
            "source": self.source_dropped,
            "engine queue": self.engine_overwritten,
            "engine too old": self.engine_too_old,
        }
        for item in self.effects:
            places[f"{item.name} too old"] = item.too_old
        for sink in self.sinks:
            if left or not sink.left:
                places[f"{sink.name} queue"] = sink.overwritten
                places[f"{sink.name} too old"] = sink.too_old
        return places

    def active_seconds(self) -> float:
        """Return the time from the start to the last translated frame."""
        return ((self.last_out_ns or self.started_ns) - self.started_ns) / 1e9

    def fps(self) -> float:
        """Return translated frames a second of the active time."""
        seconds = self.active_seconds()
        return self.engine_out.count / seconds if seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "seconds": round((self.ended_ns - self.started_ns) / 1e9, 3),
            "active_seconds": round(self.active_seconds(), 3),
            "frames": self.engine_out.count,
            "fps": round(self.fps(), 2),
            "age": {
                "captured": self.captured.summary(),
                "engine_in": self.engine_in.summary(),
                "engine_out": self.engine_out.summary(),
            },
            "sinks": [
                {
                    "name": sink.name,
                    "age": sink.ages.summary(),
                    "overwritten": sink.overwritten,
                    "too_old": sink.too_old,
                    "repeated": sink.repeated,
                    "longest_gap_ms": round(sink.longest_gap_ms, 3),
                }
                for sink in self.sinks
            ],
            "effects": [
                {
                    "name": item.name,
                    "declared_ms": item.declared_ms,
                    "time": item.times.summary(),
                    "too_old": item.too_old,
                    "error": item.error,
                }
                for item in self.effects
            ],
            "dropped": self.dropped(),
            "switches": self.switches,
            "longest_gap_ms": round(self.longest_gap_ms, 3),
            "working_size": list(self.working_size) if self.working_size is not None else None,
            "size_steps_taken": self.size_steps_taken,
            "size_steps": [step.to_dict() for step in tuple(self.size_steps)],
        }


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
