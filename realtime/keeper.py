"""The deadline keeper: which working size holds a frame rate on a machine that gets slower.

`Controller` decides, from measured times only; it reads no clock and can be simulated. `Keeper` is
what a run drives: it measures, makes the steps and says them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines import Engine, SettingsError, Size
from engines.sized import SizedEngine
from realtime.labels import filter_label
from realtime.stats import SizeStep, Stats

WINDOW_S = 0.35
FEWEST_FRAMES = 4
"""What is judged: the mean of the last frames without the slowest of them, because one frame may
be held up by anything."""
APART_S = 0.5
"""Between two steps: at most two a second."""
FULL = 0.95
"""Of the period: frames that take more on average are too slow."""
SPARED = 0.85
"""Of the period: what a faster frame spares beyond it makes up for no slower one, because the next
frame is not there yet."""
SLACK_DOWN, SLACK_UP = 1.2, 1.3
"""How many times slower than promised the frames of a smaller and of a larger size may be."""
CALM_S = 1.5
"""A step up needs its promise for so long, or longer."""
LONGEST_CALM_S = 600.0
TRIAL_S = 3.0
"""A step up that is taken back within this time, and twice the calm before it, has failed."""
LIGHTER = 0.75
"""Of the time a pixel took when a step up failed: the load is another one."""
NOTES_KEPT = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frame took."""

    spent_s: float
    """Of the engine's thread, effects and all."""
    engine_s: float
    """The part that grows with the working size."""

    def scaled(self, pixels: float) -> float:
        """Return how long it would take with ``pixels`` times the pixels."""
        return self.spent_s + self.engine_s * (pixels - 1)


class Controller:
    """Steps through working sizes, largest first, to hold ``fps``. Pure: time is an argument.

    Down at once when frames take longer than the period, by as many sizes as are needed; up one
    size when that promised to fit for a while. The promise is the engine's time scaled by the
    pixels. A step up that fails doubles the while before the next one, unless the load is
    clearly another one: under a constant load the steps become rarer and rarer.
    """

    def __init__(self, sizes: Sequence[Size], fps: float, level: int = 0) -> None:
        self.level = min(level, len(sizes) - 1)
        """The place of the working size in the list."""
        self.period_s = 1 / fps
        self.too_slow = False
        """Whether frames take longer than the period at the smallest size."""
        self.judged = Cost(0.0, 0.0)
        """The mean that the last decision was made of."""
        self._pixels = [width * height for width, height in sizes]
        self._window: deque[tuple[float, Cost]] = deque()
        self._since_s: float | None = None
        self._stepped_s: float | None = None
        self._calm_s = self._light_s = CALM_S
        self._calm_since_s: float | None = None
        self._light_since_s: float | None = None
        self._tried_s: float | None = None
        self._tried_from = 0
        self._tried_light = False
        self._tried_rate = 0.0
        self._failed_rate = 0.0
        """Seconds a pixel before the last step up that failed."""
        self._failed_to = -1
        """The level that did not hold; no step there, or above it, before the wait is over."""

    def add(self, now_s: float, spent_s: float, engine_s: float) -> int | None:
        """Take the times of a frame; return the level to work at from now on, if it changes."""
        self._window.append((now_s, Cost(spent_s, engine_s)))
        if self._since_s is None:
            self._since_s = now_s
        while len(self._window) > FEWEST_FRAMES and self._window[0][0] < now_s - WINDOW_S:
            self._window.popleft()
        early = self._stepped_s is not None and now_s - self._stepped_s < APART_S
        if len(self._window) < FEWEST_FRAMES or early or now_s - self._since_s < WINDOW_S:
            return None
        costs = sorted((cost for _, cost in self._window), key=lambda cost: cost.spent_s)[:-1]
        self.judged = Cost(
            sum(cost.spent_s for cost in costs) / len(costs),
            sum(cost.engine_s for cost in costs) / len(costs),
        )
        if self._tried_s is not None and now_s - self._tried_s > TRIAL_S + 2 * self._calm_s:
            if self._tried_from - 1 <= self._failed_to:  # and this time it has held
                self._calm_s, self._light_s, self._failed_to = CALM_S, CALM_S, -1
            self._tried_s = None
        down = self._down(now_s, costs)
        return self._up(now_s, costs) if down is None else down

    def _fits(self, costs: Sequence[Cost], level: int, slack: float) -> bool:
        """Return whether frames like these would come in time at ``level``, ``slack`` as slow."""
        larger = self._pixels[level] / self._pixels[self.level]
        least_s = SPARED * self.period_s
        taken_s = sum(max(cost.scaled(larger) * slack, least_s) for cost in costs)
        return taken_s <= FULL * self.period_s * len(costs)

    def _down(self, now_s: float, costs: Sequence[Cost]) -> int | None:
        smaller = range(self.level + 1, len(self._pixels))
        fits = self._fits(costs, self.level, 1.0)
        self.too_slow = not smaller and not fits
        if fits or not smaller:
            return None
        if self._tried_s is not None:  # the last step up has not held
            self._calm_s = min(2 * self._calm_s, LONGEST_CALM_S)
            if self._tried_light:
                self._light_s = min(2 * self._light_s, LONGEST_CALM_S)
            self._failed_rate, self._failed_to = self._tried_rate, self._tried_from - 1
            self._tried_s = None
            return self._step(now_s, max(self._tried_from, self.level + 1))
        fitting = (level for level in smaller if self._fits(costs, level, SLACK_DOWN))
        return self._step(now_s, next(fitting, smaller[-1]))

    def _up(self, now_s: float, costs: Sequence[Cost]) -> int | None:
        if self.level == 0 or not self._fits(costs, self.level - 1, SLACK_UP):
            self._calm_since_s = self._light_since_s = None
            return None
        rate = self.judged.engine_s / self._pixels[self.level]
        at_ease = self.level <= self._failed_to  # where it was too slow
        if not at_ease and rate > LIGHTER * self._failed_rate:
            self._light_since_s = None
        elif self._light_since_s is None:
            self._light_since_s = now_s
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        calm_s = self._calm_s if self.level - 1 <= self._failed_to else CALM_S
        calm = now_s - self._calm_since_s >= calm_s
        light = self._light_since_s is not None and now_s - self._light_since_s >= self._light_s
        if not calm and not light:
            return None
        self._tried_s, self._tried_from = now_s, self.level
        self._tried_light, self._tried_rate = not calm, rate
        return self._step(now_s, self.level - 1)

    def _step(self, now_s: float, level: int) -> int:
        self.level = level
        self._stepped_s = self._since_s = now_s
        self._calm_since_s = self._light_since_s = None
        self._window.clear()
        return level


class Labelled(Protocol):
    """Something that shows what runs."""

    label: str


class Keeper:
    """Holds the frame rate of one run. Thread: the engine's, but for `wrap` and `start`.

    Args:
        fps: frames a second to hold; a source that gives fewer is held at what it gives.
        sizes: (width, height) to work at; default: `engines.sized.SHARES` of the frames' sides.
    """

    def __init__(self, fps: float, sizes: Sequence[Size] = ()) -> None:
        if not 0 < fps <= 1000:
            raise SettingsError(f"a frame rate to hold is above 0 and up to 1000, found {fps:g}")
        self.fps = fps
        self.notes: deque[str] = deque(maxlen=NOTES_KEPT)
        """The latest steps, in words."""
        self._sizes = tuple(sizes)
        self._controller: Controller | None = None
        self._stats = Stats()
        self._screens: Iterable[Labelled] = ()
        self._label = ""
        self._said_too_slow = False

    def wrap(self, engine: Engine, mode: str = "freshest") -> Engine:
        """Return ``engine``, not open yet, as one that can change its working size.

        Raises:
            SettingsError: the mode has no deadline.
            EngineError: the engine is open already.
        """
        if mode != "freshest":
            raise SettingsError(
                "keeping a frame rate (--keep) is for live runs only: a file into files, or into"
                " null, takes every frame and its time; add --mode freshest to play it live"
            )
        return SizedEngine(engine, self._sizes)

    def start(
        self,
        screens: Iterable[Labelled],
        engine: Engine,
        source_fps: float | None,
        stats: Stats,
    ) -> None:
        """Begin with ``engine``, which is open; the working size is shown on ``screens``."""
        if source_fps is not None and source_fps < self.fps:
            self.notes.append(f"the source gives {source_fps:g} fps: that is what is kept")
            self.fps = source_fps
        self._stats, self._screens = stats, screens
        self.swapped(engine)

    def swapped(self, engine: Engine) -> None:
        """Another filter runs from the next frame on, at the working size of the last one."""
        level = self._controller.level if self._controller is not None else 0
        self._controller, self._said_too_slow = None, False
        if not isinstance(engine, SizedEngine):  # it stands in for one that still compiles
            self._label = filter_label(engine)
            return
        self._controller = Controller(engine.sizes, self.fps, level)
        engine.work_at(self._controller.level)
        self._works_at(engine)
        if len(engine.sizes) == 1:
            why = "one size was given" if self._sizes else f"{filter_label(engine)} takes one only"
            self.notes.append(f"nothing to step to: {why}")

    def frame(self, engine: Engine, spent_ns: int, engine_ns: int, now_ns: int) -> None:
        """Take the times of a frame, with nothing under way in ``engine``; step when it is due.

        Args:
            engine: that runs now.
            spent_ns: how long the engine's thread worked on the frame.
            engine_ns: how long the engine did.
            now_ns: monotonic clock.
        """
        for screen in self._screens:
            screen.label = self._label
        controller = self._controller
        if controller is None or not isinstance(engine, SizedEngine):
            return
        before = engine.working_size
        level = controller.add(now_ns / 1e9, spent_ns / 1e9, engine_ns / 1e9)
        if level is None:
            self._say_too_slow(controller, before)
            return
        engine.work_at(level)
        step = SizeStep(
            at_s=round((now_ns - self._stats.started_ns) / 1e9, 3),
            before=before,
            after=engine.working_size,
            frame_ms=round(controller.judged.spent_s * 1e3, 1),
        )
        self._stats.size_steps.append(step)
        self._stats.size_steps_taken += 1
        self.notes.append(f"{step.words()} of {controller.period_s * 1e3:.0f} ms")
        self._works_at(engine)

    def _works_at(self, engine: SizedEngine) -> None:
        width, height = self._stats.working_size = engine.working_size
        self._label = f"{filter_label(engine)} {width}x{height}"

    def _say_too_slow(self, controller: Controller, size: Size) -> None:
        if self._said_too_slow or not controller.too_slow:
            return
        self._said_too_slow = True
        self.notes.append(
            f"{self.fps:g} fps cannot be kept even at {size[0]}x{size[1]}: a frame takes"
            f" {controller.judged.spent_s * 1e3:.0f} ms"
        )
