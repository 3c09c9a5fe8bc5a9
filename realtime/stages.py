"""The stages of the live path; each runs in a thread of its own and owns what it touches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engines import Engine, Pixels, SettingsError
from realtime.crossfade import Crossfade
from realtime.effects.running import Effects
from realtime.frame import Frame
from realtime.keeper import Keeper
from realtime.labels import filter_label
from realtime.pacing import too_old
from realtime.queues import FrameQueue, Mailbox
from realtime.sources.base import Source
from realtime.stats import Stats

SWAP_LOOK_S = 0.005
TICK_S = 0.1
"""How often a stage that waits looks whether it is still wanted."""


def check_limits(**limits: float | None) -> None:
    """Refuse a limit that lets nothing through.

    Raises:
        SettingsError: which one it is.
    """
    for name, value in limits.items():
        if value is not None and value <= 0:
            raise SettingsError(f"{name} must be more than 0, found {value}")


@dataclass(slots=True)
class Control:
    """What the stages of one run share. The first failure is kept and stops everything."""

    stats: Stats
    max_age_ms: float | None = None
    frames: int | None = None
    failure: BaseException | None = None
    failed: bool = False
    on_failure: Callable[[], None] = field(default=lambda: None)

    def fail(self, error: BaseException) -> None:
        """Keep the first error and unwind the run."""
        if self.failure is None:
            self.failure = error
        self.failed = True
        self.on_failure()

    def call_all(self, calls: Iterable[Callable[[], None]]) -> None:
        """Call one after the other, whatever fails; the run's first error is kept."""
        for call in calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001  (the others must be called too)
                self.fail(error)


class Stage:
    """A thread with one body, whose error ends the whole run."""

    def __init__(self, name: str, control: Control) -> None:
        self.name = name
        self.control = control
        self._thread = threading.Thread(target=self._guarded, name=f"pix2live {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; returns whether it has come."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self.body()
        except BaseException as error:  # noqa: BLE001  (the caller of the pipeline sees it)
            self.control.fail(error)
        finally:
            try:
                self.finish()
            except BaseException as error:  # noqa: BLE001
                self.control.fail(error)

    def body(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Runs in the same thread after the body, whatever happened."""


class SourceStage(Stage):
    """Reads the source into slots of the engine's queue."""

    def __init__(self, source: Source, outbox: FrameQueue, control: Control) -> None:
        super().__init__("source", control)
        self._source = source
        self._outbox = outbox
        drops = isinstance(outbox, Mailbox) or control.max_age_ms is not None
        self._limit = None if drops else control.frames
        """Where frames may be dropped on the way, the engine counts."""

    def body(self) -> None:
        stats = self.control.stats
        published = 0
        while not self.control.failed and (self._limit is None or published < self._limit):
            slot = self._outbox.reserve(TICK_S)
            if slot is None:
                if self._outbox.closed or self._source.cancelled:
                    return
                continue
            more = self._source.read(slot)
            stats.source_dropped = self._source.dropped
            if not more:
                return
            slot.index = published + self._source.dropped
            published += 1
            now_ns = time.monotonic_ns()
            stats.captured.add(slot.age_ns(now_ns), now_ns)
            self._outbox.publish()

    def finish(self) -> None:
        self._outbox.close()


class Receivers(Protocol):
    """Who gets the translated frames."""

    def offer(self, result: Frame, source: Frame) -> None:
        """Hand on a translated frame with the captured one; both are copied."""

    def finish(self) -> None:
        """No more frames will come."""


@dataclass(frozen=True, slots=True)
class Coming:
    """The next engine, open, with everything that the swap needs in memory of its own."""

    engine: Engine
    crossfade_ms: float
    results: list[Frame]
    inbox: list[Pixels]
    """For the slots of the inbox; empty where those there are as good."""


class EngineStage(Stage):
    """Takes captured frames, translates them, and hands each sink its copy.

    ``inbox_slots`` are all frames of ``inbox``: a next engine that reads other memory faster, such
    as page-locked memory, gives them new pictures. Each gets its own while the consumer holds it,
    when its frame has been translated: at no time both sides know one slot, and nobody waits.
    """

    def __init__(
        self,
        engine: Engine,
        inbox: FrameQueue,
        receivers: Receivers,
        control: Control,
        *,
        effects: Effects | None = None,
        inbox_slots: Sequence[Frame] = (),
    ) -> None:
        super().__init__("engine", control)
        self.engine = engine
        self._opened = [engine]
        self._inbox = inbox
        self._receivers = receivers
        self._effects = effects
        self.keeper: Keeper | None = None
        """Holds a frame rate, where one is to be kept; set before `start`."""
        self._fade = Crossfade()
        # A Mailbox gives one slot at a time: the frame under way must be finished first.
        self._one_by_one = isinstance(inbox, Mailbox)
        self._next: Coming | None = None
        self._inbox_slots = tuple(inbox_slots)
        self._renew: dict[int, Pixels] = {}
        """Of a slot that is in another engine's memory, its id -> what it is to have."""
        self._results = [Frame(pixels) for pixels in engine.slots(engine.depth)]
        self._under_way: list[tuple[Frame, Frame]] = []
        self._started = 0
        self._took_ns = 0
        self._pts_ns = 0

    def swap_in(self, engine: Engine, crossfade_ms: float = 0.0) -> bool:
        """Take over an opened engine; returns whether it runs: not where the run has ended.

        For ``crossfade_ms`` the old one computes on, and the pictures fade into each other; a fade
        that is still under way is waited for. An engine that comes too late is closed.

        Thread: the switching one, one switch at a time.

        Raises:
            EngineError: it has no memory for its pictures; it is closed, and the old one runs on.
        """
        try:
            coming = self._coming(engine, crossfade_ms)
        except BaseException:
            engine.close()
            raise
        self._opened.append(engine)
        self._next = coming
        while self.engine is not engine:
            if self.join(0) and self.engine is not engine:
                self._close_once(engine)
                return False
            time.sleep(SWAP_LOOK_S)
        return True

    def _coming(self, engine: Engine, crossfade_ms: float) -> Coming:
        """Allocate what ``engine`` needs, in the switching thread: no frame waits for it."""
        same = (engine.name, engine.device) == (self.engine.name, self.engine.device)
        results = [Frame(pixels) for pixels in engine.slots(engine.depth)]
        inbox = [] if same else engine.slots(len(self._inbox_slots))
        return Coming(engine, crossfade_ms, results, inbox)

    def close_engines(self, *, running: bool = False) -> None:
        """Close the engines that have left the run; with ``running`` all of them.

        Thread: the pipeline's.
        """
        waiting = None if (coming := self._next) is None else coming.engine
        for engine in tuple(self._opened):
            kept = (self.engine, waiting, self._opened[-1], self._fade.engine)
            if running or engine not in kept:
                self._close_once(engine)

    def _close_once(self, engine: Engine) -> None:
        try:
            self._opened.remove(engine)  # one step: the switching thread may close it, too
        except ValueError:
            return
        engine.close()

    def body(self) -> None:
        limit = self.control.frames
        while not self.control.failed and not self._inbox.finished:
            if limit is not None and self._started >= limit:
                break
            coming = self._next
            if coming is not None and self._may_swap(coming):
                self._swap(coming)
            frame = self._inbox.take(0.0 if self._under_way else TICK_S)
            if frame is not None:
                self._submit(frame)
            full = self._one_by_one or self.engine.pending >= self.engine.depth
            if self._under_way and (frame is None or full):
                self._collect()
        while self._under_way and not self.control.failed:
            self._collect()

    def finish(self) -> None:
        self._inbox.close()
        self._receivers.finish()

    def _submit(self, frame: Frame) -> None:
        stats = self.control.stats
        now_ns = time.monotonic_ns()
        if too_old(frame.captured_ns, now_ns, self.control.max_age_ms):
            stats.engine_too_old += 1
            while self._under_way:  # slots are given back in order
                self._collect()
            self._inbox.release()
            return
        stats.engine_in.add(frame.age_ns(now_ns), now_ns)
        self._took_ns = now_ns
        result = self._results[self._started % len(self._results)]
        self._started += 1
        self.engine.submit(frame.pixels, result.pixels)
        self._under_way.append((frame, result))

    def _collect(self) -> None:
        stats = self.control.stats
        frame, result = self._under_way.pop(0)
        self._pts_ns = frame.pts_ns
        self.engine.collect()
        now_ns = time.monotonic_ns()
        stats.engine_out.add(frame.age_ns(now_ns), now_ns)
        engine_ns, fading = now_ns - self._took_ns, self._fade.engine is not None
        if fading:
            self._fade.mix(frame, result, now_ns if self._one_by_one else frame.pts_ns)
        effects, alpha = self._effects, self.engine.alpha
        finished = result if effects is None else effects.apply(result, frame, alpha)
        now_ns = time.monotonic_ns()
        if stats.last_out_ns is not None:
            gap_ms = (now_ns - stats.last_out_ns) / 1e6
            stats.longest_gap_ms = max(stats.longest_gap_ms, gap_ms)
        stats.last_out_ns = now_ns
        if finished is not None:
            self._receivers.offer(finished, frame)
        if self._renew:
            frame.pixels = self._renew.pop(id(frame), frame.pixels)  # before it is given back
        self._inbox.release()
        if not self._inbox.closed:  # what is left in a closed one is still coming
            stats.engine_overwritten = self._inbox.dropped
        if self.keeper is not None and not fading:  # while two filters compute, nothing is usual
            now_ns = time.monotonic_ns()
            self.keeper.frame(self.engine, now_ns - self._took_ns, engine_ns, now_ns)

    def _may_swap(self, coming: Coming) -> bool:
        """Whether the picture would not jump; without a fade of its own it is meant to."""
        now_ns = time.monotonic_ns() if self._one_by_one else self._pts_ns
        return coming.crossfade_ms == 0 or not self._fade.busy(now_ns)

    def _swap(self, coming: Coming) -> None:
        while self._under_way:
            self._collect()
        engine, self._next = coming.engine, None
        self._fade.start(self.engine, coming.crossfade_ms)
        if self.keeper is not None:
            self.keeper.swapped(engine)
        self.engine = engine
        if self._effects is not None:
            self._effects.context.label = filter_label(engine)
        self._results = coming.results
        if coming.inbox:
            self._renew = dict(zip(map(id, self._inbox_slots), coming.inbox, strict=True))
        self.control.stats.switches += 1
