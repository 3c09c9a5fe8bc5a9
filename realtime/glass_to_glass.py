"""What a camera that films our own screen says about delay; no clock is read in here.

The window shows a number, the camera films it, the picture is translated and goes to the same
window. A number that was shown at one time and came back in a frame that was shown at another one
has gone round the whole loop, and both times are of the same kind of event: a window that has taken
a picture. The screen's own delay is passed once on the way, so it is counted once, as it is for
somebody who looks at the screen (the idea of vDelay: Boyaci, Forte, Baset, Schulzrinne 2009).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from realtime.coded_pattern import NUMBERS, Reading
from realtime.pacing import NS_PER_MS

EARLY_NS: Final = 100 * NS_PER_MS
"""Drivers that stamp the beginning of an exposure stamp it before the number was shown."""
PARTS: Final = ("camera", "engine", "display", "total")
PERCENTILES: Final = {"p50": 50, "p95": 95, "min": 0, "max": 100}


class Shows:
    """When each number was shown; they are shown in order.

    Written by one thread, read by any.
    """

    def __init__(self) -> None:
        self.times_ns: list[int] = []

    @property
    def next_number(self) -> int:
        """The number that is shown next."""
        return len(self.times_ns) % NUMBERS

    def add(self, now_ns: int) -> None:
        """The next number was shown at ``now_ns``."""
        self.times_ns.append(now_ns)

    def find(self, number: int, captured_ns: int) -> tuple[int, int] | None:
        """Return from when to when ``number`` was shown, last before a picture of it was captured.

        It ends at the capture where the number was still shown then; None where it never began, or
        where nobody knows when it ended.
        """
        last = bisect_right(self.times_ns, captured_ns + EARLY_NS) - 1
        place = last - (last - number) % NUMBERS
        if place < 0 or place + 1 >= len(self.times_ns):
            return None
        start_ns, end_ns = self.times_ns[place : place + 2]
        return start_ns, min(end_ns, max(captured_ns, start_ns))

    def during(self, start_ns: int, end_ns: int) -> list[tuple[int, int, int]]:
        """Return (number, from, to) of what was shown between two times, cut at both."""
        times_ns = self.times_ns[:]
        first = max(0, bisect_right(times_ns, start_ns) - 1)
        last = bisect_right(times_ns, end_ns)
        ends = [*times_ns[first + 1 : last], end_ns]
        return [
            (place % NUMBERS, max(times_ns[place], start_ns), end)
            for place, end in zip(range(first, last), ends)
        ]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number that went round."""

    index: int
    """Of the frame."""
    camera_ms: float
    """Shown -> captured: the screen's own delay, exposure from its middle on, readout, transfer."""
    engine_ms: float
    """Captured -> translated: waiting for the engine, and its work."""
    display_ms: float
    """Translated -> the window had taken the picture."""
    within_ms: float
    """The camera's part is known to plus or minus this: a number is shown for a while."""

    @property
    def total_ms(self) -> float:
        """From glass to glass."""
        return self.camera_ms + self.engine_ms + self.display_ms


@dataclass(frozen=True, slots=True)
class _Read:
    index: int
    captured_ns: int
    reading: Reading
    took_ns: int


class LoopLog:
    """What happened to each frame. Each method has one thread that calls it."""

    def __init__(self) -> None:
        self.shows = Shows()
        self.start_ns: int | None = None
        """Frames captured from then on count; None: nothing counts yet."""
        self.last: Reading | None = None
        """The newest one."""
        self._translated_ns: dict[int, int] = {}
        self._displayed_ns: dict[int, int] = {}
        self._reads: list[_Read] = []

    def translated(self, index: int, now_ns: int) -> None:
        """Frame ``index`` came out of the engine."""
        self._translated_ns[index] = now_ns

    def displayed(self, index: int, now_ns: int) -> None:
        """The window had taken frame ``index``."""
        self._displayed_ns[index] = now_ns

    def read(self, index: int, captured_ns: int, reading: Reading, took_ns: int) -> None:
        """The captured picture of frame ``index`` was read."""
        self.last = reading
        if self.start_ns is not None and captured_ns >= self.start_ns:
            self._reads.append(_Read(index, captured_ns, reading, took_ns))

    def samples(self) -> list[Sample]:
        """Return every number that went all the way round, in order."""
        found = [self._sample(item) for item in tuple(self._reads)]
        return [item for item in found if item is not None]

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON types; times in ms."""
        reads, samples = tuple(self._reads), self.samples()
        problems = Counter(item.reading.problem for item in reads if item.reading.problem)
        times_ns = np.array(self.shows.times_ns[-NUMBERS:])
        return {
            "samples": len(samples),
            "pictures_read": len(reads),
            "unreadable": sum(problems.values()),
            "unreadable_share": round(sum(problems.values()) / len(reads), 4) if reads else None,
            "problems": dict(problems.most_common()),
            "last_problem": self.last.problem if self.last is not None else None,
            "plus_or_minus_ms": _median([item.within_ms for item in samples]),
            "pattern_period_ms": _median(np.diff(times_ns) / NS_PER_MS),
            "reading_ms": _median([item.took_ns / NS_PER_MS for item in reads]),
            "unit_px": _median([item.reading.unit_px for item in reads if item.reading.numbers]),
            "ms": {
                part: percentiles([getattr(item, f"{part}_ms") for item in samples])
                for part in PARTS
            },
        }

    def _sample(self, item: _Read) -> Sample | None:
        translated_ns = self._translated_ns.get(item.index)
        displayed_ns = self._displayed_ns.get(item.index)
        if item.reading.numbers is None or translated_ns is None or displayed_ns is None:
            return None  # a fresher frame came before the window took this one
        shown = [self.shows.find(number, item.captured_ns) for number in item.reading.numbers]
        spans = [span for span in shown if span is not None]
        if len(spans) < len(shown):
            return None
        # The middle of the picture lies between its upper and its lower copy of the code.
        middle_ns = sum(start + end for start, end in spans) / (2 * len(spans))
        within_ns = sum(end - start for start, end in spans) / (2 * len(spans))
        return Sample(
            item.index,
            (item.captured_ns - middle_ns) / NS_PER_MS,
            (translated_ns - item.captured_ns) / NS_PER_MS,
            (displayed_ns - translated_ns) / NS_PER_MS,
            within_ns / NS_PER_MS,
        )


def percentiles(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p95, least and most; all None without values."""
    if not values_ms:
        return dict.fromkeys(PERCENTILES)
    found = np.percentile(values_ms, tuple(PERCENTILES.values()))
    return {name: round(float(value), 2) for name, value in zip(PERCENTILES, found)}


def _median(values: Any) -> float | None:
    return round(float(np.median(values)), 2) if len(values) else None
