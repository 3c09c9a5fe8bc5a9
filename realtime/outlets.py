"""Outlets: each sink with its queue, its view and its thread; they may come and go."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines import Engine, Pixels, SettingsError
from realtime.effects.base import Effect
from realtime.effects.views import Presenter, view_size
from realtime.frame import Frame
from realtime.labels import filter_label
from realtime.pacing import Beat, too_old
from realtime.queues import FrameQueue, make_queue
from realtime.sinks import Sink, SinkInfo
from realtime.sources import Source
from realtime.stages import TICK_S, Control, Stage
from realtime.stats import SinkStats

DEFAULT_FPS = 30.0
LEFT_KEPT = 50
"""Sinks that have left whose figures stay in the statistics; each has 20 kB."""


class Outlet(Stage):
    """One sink with its queue, its view and its thread (or the main thread, by `step`)."""

    def __init__(
        self, sink: Sink, inbox: FrameQueue, presenter: Presenter, control: Control, label: str
    ) -> None:
        super().__init__(f"sink {sink.name}", control)
        self.sink = sink
        self.inbox = inbox
        self.presenter = presenter
        self.stats = SinkStats(control.stats.free_name(sink.name))
        self.label = label
        self._shown = Frame(np.empty((0, 0, 3), np.uint8))
        self.ended = False
        self._captured: dict[int, Pixels] = {}
        self._lent: dict[str, Callable[[], str]] = {}

    def lend(self, actions: dict[str, Callable[[], str]]) -> None:
        """Add what the sink's keys do, until `free`."""
        self._lent = actions
        self.sink.actions |= actions

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
        self._count_dropped()
        return True

    def finish(self) -> None:
        self.inbox.close()
        self.close_sink()

    def _count_dropped(self) -> None:
        if not self.inbox.closed:  # what is left in a closed one is still coming
            self.stats.overwritten = self.inbox.dropped

    def close_sink(self) -> None:
        """Close the sink once; the error of closing belongs to whoever came first."""
        if not self.ended:
            self.ended = True
            self.sink.close()

    def free(self) -> None:
        """Close the sink if nobody has, take back what was lent to it, and free the queue."""
        self.stats.overwritten = self.inbox.dropped
        for key, action in self._lent.items():
            if self.sink.actions.get(key) is action:  # not one that was put in its place since
                del self.sink.actions[key]
        self._lent = {}
        try:
            self.close_sink()
        finally:
            self.inbox.dispose()

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
            self._count_dropped()

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
        self.stats.shown(frame.age_ns(now_ns), now_ns, again=again)

    def _text(self, age_ms: float) -> str:
        recent = self.stats.ages.recent()
        fps = f"{recent[0]:5.1f} fps" if recent else "  --.- fps"
        return f"{self.label}  {fps}  age {age_ms:3.0f} ms"


@dataclass(frozen=True, slots=True)
class Look:
    """How the sinks of a run show their frames."""

    view: str
    split_at: float
    overlay: bool | None
    """None: on windows only."""


class Outlets:
    """All outlets of a run. The engine thread reads `active` once for each frame."""

    def __init__(self, engine: Engine, mode: str, fps: float | None, look: Look, control: Control):
        self.engine = engine
        """The one that runs now; it allocates the slots."""
        self.active: tuple[Outlet, ...] = ()
        self._all: list[Outlet] = []
        self._left: deque[SinkStats] = deque()
        self._mode = mode
        self._fps = fps or DEFAULT_FPS
        self._look = look
        self._control = control
        self._ended = False

    def __iter__(self) -> Iterator[Outlet]:
        return iter(tuple(self._all))

    def open(self, sink: Sink, view: str | None = None) -> Outlet:
        """Open ``sink`` and add it; its thread is not started yet.

        Raises:
            SinkError: it cannot be opened.
        """
        size = self.engine.size
        assert size is not None
        view = view or self._look.view
        overlay = sink.main_thread if self._look.overlay is None else self._look.overlay
        presenter = Presenter(view, overlay=overlay, split_at=self._look.split_at)
        label = filter_label(self.engine)
        queue = make_queue(
            "freshest" if sink.freshest or sink.beat_fps is not None else self._mode,
            self.engine.depth,
            lambda: Frame(self.engine.slots(1)[0]),
        )
        try:
            sink.open(SinkInfo(view_size(view, size), self._fps, f"pix2live: {label}"))
        except BaseException:
            queue.dispose()
            raise
        outlet = Outlet(sink, queue, presenter, self._control, label)
        self._control.stats.sinks.append(outlet.stats)
        self._all.append(outlet)
        self.active = (*self.active, outlet)
        if self._ended:  # the engine has left already, and would not close it
            queue.close()
        return outlet

    def remove(self, sink: Sink) -> None:
        """Finish and close one sink; its figures stay in the statistics (`LEFT_KEPT` of them)."""
        for outlet in self.active:
            if outlet.sink is sink:
                self.active = tuple(item for item in self.active if item is not outlet)
                outlet.stats.left = True
                outlet.inbox.close()

    def offer(self, result: Frame, source: Frame) -> None:
        """Copy a translated frame into every queue (engine thread)."""
        for outlet in self.active:
            outlet.offer(result, source)

    def finish(self) -> None:
        """No more frames will come: let the sinks finish (engine thread)."""
        self._ended = True
        for outlet in self.active:
            outlet.inbox.close()

    def switched(self, engine: Engine) -> None:
        """Show the name of the new filter."""
        self.engine = engine
        for outlet in self._all:
            outlet.label = filter_label(engine)

    def unwind(self) -> None:
        """Wake everybody who waits: the run has failed."""
        for outlet in self._all:
            outlet.inbox.close()

    def prune(self) -> None:
        """Free what removed sinks held, so that recordings may come and go for days."""
        for outlet in tuple(self._all):
            if outlet not in self.active and outlet.join(0):
                self._all.remove(outlet)
                outlet.free()
                self._left.append(outlet.stats)
                if len(self._left) > LEFT_KEPT:
                    self._control.stats.sinks.remove(self._left.popleft())

    def closers(self) -> list[Callable[[], None]]:
        """Return what frees everything, one call an outlet (all threads have ended)."""
        return [outlet.free for outlet in self._all]


def refuse_shared_paths(
    source: Source, sinks: Sequence[Sink], effects: Sequence[Effect] = ()
) -> None:
    """Refuse two writers of one file, and a sink that overwrites what the run reads: data would
    be lost.

    Args:
        source: its `path`.
        sinks: theirs.
        effects: what each reads: ``effect.paths``, where it has that.

    Raises:
        SettingsError: which path it is.
    """
    taken: set[Path] = set()
    read = Path(os.path.realpath(source.path)) if source.path is not None else None
    readers = {Path(os.path.realpath(path)): item.name for item, path in _paths_read(effects)}
    for sink in sinks:
        if sink.path is None:
            continue
        path = Path(os.path.realpath(sink.path))
        if path in taken:
            raise SettingsError(f"two sinks write to {sink.path}; give each its own")
        if path == read:
            raise SettingsError(f"{sink.path} is the source; write to another file")
        if path in readers:
            raise SettingsError(
                f"{sink.path} is read by the effect {readers[path]}; write to another file"
            )
        taken.add(path)


def _paths_read(effects: Iterable[Effect]) -> Iterator[tuple[Effect, Path]]:
    for item in effects:
        for path in getattr(item, "paths", ()):
            yield item, path
        yield from _paths_read(getattr(item, "effects", ()))  # of a chain as one effect
