"""The stages of the live path; each runs in a thread of its own and owns what it touches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engines import Engine, Pixels
from realtime.effects.views import Presenter
from realtime.frame import Frame
from realtime.pacing import Beat, too_old
from realtime.queues import FrameQueue, Mailbox
from realtime.sinks.base import Sink
from realtime.sources.base import Source
from realtime.stats import SinkStats, Stats

TICK_S = 0.1
"""How often a stage that waits looks whether it is still wanted."""


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
        self._limit = None if isinstance(outbox, Mailbox) else control.frames
        """A Mailbox may drop frames: there the engine counts."""

    def body(self) -> None:
        stats = self.control.stats
        index = 0
        while not self.control.failed and (self._limit is None or index < self._limit):
            slot = self._outbox.reserve(TICK_S)
            if slot is None:
                if self._outbox.closed or self._source.cancelled:
                    return
                continue
            lost_before = self._source.dropped
            more = self._source.read(slot)
            lost = self._source.dropped - lost_before
            stats.source_dropped += lost
            if not more:
                return
            index += lost
            slot.index = index
            index += 1
            now_ns = time.monotonic_ns()
            stats.captured.add(slot.age_ns(now_ns), now_ns)
            self._outbox.publish()

    def finish(self) -> None:
        self._outbox.close()


class Outlet(Stage):
    """One sink with its queue, its view and its thread (or the main thread, by `step`)."""

    def __init__(
        self, sink: Sink, inbox: FrameQueue, presenter: Presenter, control: Control, label: str
    ) -> None:
        super().__init__(f"sink {sink.name}", control)
        self.sink = sink
        self.inbox = inbox
        self.presenter = presenter
        self.stats = SinkStats(sink.name)
        self.label = label
        self._shown = Frame(np.empty((0, 0, 3), np.uint8))
        self.ended = False
        self._captured: dict[int, Pixels] = {}

    def offer(self, result: Frame, source: Frame) -> bool:
        """Copy a translated frame into the queue (engine thread); False when it is closed."""
        slot = self.inbox.reserve()
        while slot is None:  # a full Ring: this sink keeps every frame, so the path waits
            if self.inbox.closed or self.control.failed:
                return False
            slot = self.inbox.reserve(TICK_S)
        np.copyto(slot.pixels, result.pixels)
        slot.source = self._copy_captured(slot, source) if self.presenter.needs_source else None
        slot.stamp(source)
        self.inbox.publish()
        return True

    def _copy_captured(self, slot: Frame, source: Frame) -> Pixels:
        """Keep the picture as captured beside the translated one; allocated when first wanted."""
        kept = self._captured.get(id(slot))
        if kept is None:
            kept = self._captured[id(slot)] = np.empty_like(source.pixels)
        np.copyto(kept, source.pixels)
        return kept

    def body(self) -> None:
        if self.sink.beat_fps is not None:
            self._run_on_beat(Beat(self.sink.beat_fps))
            return
        while not self.inbox.finished and not self.control.failed:
            self.step(TICK_S)
        if not self.sink.freshest:  # after a failure elsewhere: keep what was translated before it
            while self.step(0.0):
                pass

    def step(self, timeout_s: float) -> bool:
        """Show the next frame, if one comes in time. Returns whether one came."""
        frame = self.inbox.take(timeout_s)
        if frame is None:
            return False
        self._show(frame)
        self.inbox.release()
        self.stats.overwritten = self.inbox.dropped
        return True

    def finish(self) -> None:
        self.inbox.close()
        self.stats.overwritten = self.inbox.dropped
        self.close_sink()

    def close_sink(self) -> None:
        """Close the sink once; the error of closing belongs to whoever came first."""
        if not self.ended:
            self.ended = True
            self.sink.close()

    def _run_on_beat(self, beat: Beat) -> None:
        newest: Frame | None = None
        while not self.control.failed:
            wait_s = (beat.next_ns(time.monotonic_ns()) - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                time.sleep(wait_s)
            fresh = self.inbox.take()
            if fresh is None and self.inbox.finished:
                return
            if newest is None and fresh is None:
                fresh = self.inbox.take(TICK_S)
            newest = fresh or newest
            if newest is not None:
                self._show(newest, again=fresh is None)
            self.stats.overwritten = self.inbox.dropped

    def _show(self, frame: Frame, *, again: bool = False) -> None:
        now_ns = time.monotonic_ns()
        if too_old(frame.captured_ns, now_ns, self.control.max_age_ms):
            self.stats.too_old += not again  # a frame that was shown before is no drop
            return
        self.stats.repeated += again
        text = self._text(frame.age_ns(now_ns) / 1e6) if self.presenter.overlay else ""
        self._shown.pixels = self.presenter.render(frame, text)
        self._shown.source = frame.source
        self._shown.stamp(frame)
        self.sink.write(self._shown)
        now_ns = time.monotonic_ns()
        self.stats.ages.add(frame.age_ns(now_ns), now_ns)

    def _text(self, age_ms: float) -> str:
        recent = self.stats.ages.recent()
        fps = f"{recent[0]:5.1f} fps" if recent else "  --.- fps"
        return f"{self.label}  {fps}  age {age_ms:3.0f} ms"


class EngineStage(Stage):
    """Takes captured frames, translates them, and hands each sink its copy."""

    def __init__(self, engine: Engine, inbox: FrameQueue, control: Control) -> None:
        super().__init__("engine", control)
        self.engine = engine
        self.outlets: tuple[Outlet, ...] = ()
        """Replaced as a whole by the pipeline; read once a frame."""
        self._inbox = inbox
        # A Mailbox gives one slot at a time: the frame under way must be finished first.
        self._one_by_one = isinstance(inbox, Mailbox)
        self._next: Engine | None = None
        self._results = [Frame(pixels) for pixels in engine.slots(engine.depth)]
        self._under_way: list[tuple[Frame, Frame]] = []
        self._started = 0
        self._finished = 0

    def swap_in(self, engine: Engine) -> None:
        """Take over an opened engine at the next frame boundary (any thread)."""
        self._next = engine

    def body(self) -> None:
        limit = self.control.frames
        while not self.control.failed and not self._inbox.finished:
            if limit is not None and self._started >= limit:
                break
            if self._next is not None:
                self._swap()
            frame = self._inbox.take(0.0 if self._under_way else TICK_S)
            if frame is not None:
                self._submit(frame)
            full = self._one_by_one or self.engine.pending >= self.engine.depth
            if self._under_way and (frame is None or full):
                self._collect()
        while self._under_way and not self.control.failed:
            self._collect()

    def finish(self) -> None:
        stats = self.control.stats
        self._inbox.close()
        stats.engine_overwritten = self._inbox.dropped
        for outlet in self.outlets:
            outlet.inbox.close()
        self.engine.close()
        if self._next is not None:
            self._next.close()

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
        result = self._results[self._started % len(self._results)]
        self._started += 1
        self.engine.submit(frame.pixels, result.pixels)
        self._under_way.append((frame, result))

    def _collect(self) -> None:
        stats = self.control.stats
        frame, result = self._under_way.pop(0)
        self.engine.collect()
        now_ns = time.monotonic_ns()
        stats.engine_out.add(frame.age_ns(now_ns), now_ns)
        if stats.last_out_ns is not None:
            stats.longest_gap_ms = max(stats.longest_gap_ms, (now_ns - stats.last_out_ns) / 1e6)
        stats.last_out_ns = now_ns
        for outlet in self.outlets:
            outlet.offer(result, frame)
        self._inbox.release()
        self._finished += 1
        stats.engine_overwritten = self._inbox.dropped

    def _swap(self) -> None:
        while self._under_way:
            self._collect()
        engine, self._next = self._next, None
        assert engine is not None
        old, self.engine = self.engine, engine
        while len(self._results) < engine.depth:
            self._results.append(Frame(engine.slots(1)[0]))
        self.control.stats.switches += 1
        old.close()
