"""What a person sees of a training: a bar with the time left, or plain lines without a terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

REDRAW_EVERY_S: Final = 0.2
LINE_EVERY_S: Final = 60.0
LINES: Final = 20
RATE_OVER_S: Final = 30.0


class Screen:
    """The only voice of a training. ``loud=False`` says nothing: for all devices but one."""

    def __init__(
        self,
        *,
        loud: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True, quiet=not loud)
        self._clock = clock
        # No thread that redraws: with one, a fork could happen while it holds a lock.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._drawn_s = -math.inf
        self._line_s, self._part = -math.inf, -1
        self._speed = Speed()

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.refresh()
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def preparing(self, what: str, share: float) -> None:
        """Show how much of ``what`` is done, 0 to 1."""
        self._show(what, share, "")

    def training(self, step: int, steps: int, loss: float) -> None:
        """Show that ``step`` of ``steps`` are done."""
        now_s = self._clock()
        self._speed.add(now_s, step)
        rate = self._speed.steps_per_s
        note = f"step {step}/{steps}"
        if rate > 0:
            note += f"  {rate:.3g} steps/s"
        note += f"  loss {loss:.4g}"
        if rate > 0 and step < steps:
            note += f"  {duration((steps - step) / rate)} left"
        self._show("training", step / steps, note)

    def _show(self, what: str, share: float, note: str) -> None:
        now_s, whole = self._clock(), share >= 1
        if self._console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._progress.add_task(what, total=1.0, note="")
            self._progress.update(self._tasks[what], completed=share, note=note)
            if whole or now_s - self._drawn_s >= REDRAW_EVERY_S:
                self._progress.refresh()
                self._drawn_s = now_s
            return
        if what not in self._tasks:
            self._tasks[what] = TaskID(len(self._tasks))
            self._part = -1
        late = now_s - self._line_s >= LINE_EVERY_S
        part = int(share * LINES + 1e-9)
        if whole or late or part > self._part:
            self.say(f"{what} {share:4.0%}  {note}".rstrip())
            self._part, self._line_s = part, now_s


class Speed:
    """Steps a second over the last half minute, so that a slow start does not spoil it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, step: int) -> None:
        """Take that ``step`` steps were done at ``now_s``."""
        self._seen.append((now_s, step))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - RATE_OVER_S:
            self._seen.popleft()

    @property
    def steps_per_s(self) -> float:
        """0 as long as that is not known."""
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
