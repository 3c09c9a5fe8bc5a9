"""Pipeline: source -> engine -> sinks, a thread and a queue each.

source thread --inbox--> engine thread --outlet queue--> one thread a sink
                                       (a queue each: a slow sink delays nobody)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import Engine, FrameModel, Pix2liveError, SettingsError, Size, open_engine
from realtime.effects.views import check_view
from realtime.frame import Frame
from realtime.outlets import Look, Outlet, Outlets, refuse_shared_paths
from realtime.queues import FrameQueue, make_queue
from realtime.sinks import Sink, open_sink
from realtime.sources import Source, SourceInfo, open_source
from realtime.stages import Control, EngineStage, SourceStage, Stage
from realtime.stats import Stats
from realtime.switching import Switcher, filter_label, next_filter_name

if TYPE_CHECKING:
    from typing_extensions import Self

MODES = ("freshest", "every")
EVERY_DEPTH = 4
"""Frames under way in the engine where age does not matter."""
HANGS_AFTER_S = 5.0
"""Who has not ended so long after a failure will not."""
LIVE_TICK_S = 0.25


class Pipeline:
    """Runs one source through one engine into any number of sinks.

    Args:
        source: what `open_source` takes.
        engine: an `Engine` (open or not; closed at the end), or what `open_engine` takes as its
            model.
        sinks: what `open_sink` takes.
        mode: ``freshest`` (a live picture: old frames give way) or ``every`` (none is lost; a
            slow recorder slows the path). Default: ``every`` for recordings that only go into
            files, else ``freshest``.
        size: (width, height) to work at; default: the source's. Rounded to what the filter takes.
        max_age_ms: frames older than this are not shown; they are counted.
        view: ``filtered``, ``split``, ``side-by-side`` or ``original``.
        split_at: where the line of the split view is, as a part of the width.
        overlay: draw filter, fps and age on the picture; default: in windows only.
        seconds: stop after this time.
        frames: stop after this many translated frames.

    The first error anywhere stops everything, closes the sinks properly, and is raised by `run`
    or `wait`.
    """

    def __init__(
        self,
        source: str | int | os.PathLike[str] | Source,
        engine: Any,
        sinks: Sequence[str | os.PathLike[str] | Callable[[Frame], None] | Sink] = ("window",),
        *,
        mode: str | None = None,
        size: Size | None = None,
        max_age_ms: float | None = None,
        view: str = "filtered",
        split_at: float = 0.5,
        overlay: bool | None = None,
        seconds: float | None = None,
        frames: int | None = None,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise SettingsError(f"no mode {mode!r}; there are: {', '.join(MODES)}")
        for name, value in (("max_age_ms", max_age_ms), ("seconds", seconds), ("frames", frames)):
            if value is not None and value <= 0:
                raise SettingsError(f"{name} must be more than 0, found {value}")
        self.source = open_source(source)
        self.engine = engine if isinstance(engine, Engine) else open_engine(engine)
        self.sinks = [open_sink(sink) for sink in sinks]
        refuse_shared_paths(self.source, self.sinks)
        self.mode = mode or "freshest"
        self.size: Size | None = None
        """(width, height) that the engine works at; known once it runs."""
        self.info: SourceInfo | None = None
        self.stats = Stats()
        self.notes: list[str] = []
        """What the pipeline itself has to say; `all_notes` adds source, engine and sinks."""
        self._asked_mode = mode
        self._asked_size = size
        self._look = Look(check_view(view), split_at, overlay)
        self._seconds = seconds
        self._deadline_s = math.inf
        self._control = Control(self.stats, max_age_ms, frames, on_failure=self._unwind)
        self._inbox: FrameQueue | None = None
        self._source_stage: SourceStage | None = None
        self._engine_stage: EngineStage | None = None
        self._outlets: Outlets | None = None
        self._switcher: Switcher | None = None
        self._recorder: Sink | None = None
        self._stopping = False
        self._closed = False

    def run(self, on_tick: Callable[[], None] | None = None) -> Stats:
        """Start, wait for the end, and return the statistics.

        ``on_tick`` is called about four times a second from this thread. Ctrl-C ends the run as
        `stop` does (recordings are finished) and is raised again.
        """
        self.start()
        return self.wait(on_tick)

    def start(self) -> None:
        """Open source, engine and sinks, and start their threads.

        Raises:
            Pix2liveError: something cannot be opened; what was open is closed again.
        """
        if self.info is not None or self._closed:
            raise SettingsError("this pipeline has run already; make a new one")
        try:
            self._open()
            if self._control.failure is not None:  # aborted meanwhile
                raise self._control.failure
            now_ns = time.monotonic_ns()
            self.stats.started_ns = self.stats.ended_ns = now_ns
            if self._seconds is not None:
                self._deadline_s = now_ns / 1e9 + self._seconds
            for stage in self._threads():
                stage.start()
        except BaseException as error:
            self._control.fail(error)
            self._close_all()
            raise

    def wait(self, on_tick: Callable[[], None] | None = None) -> Stats:
        """Wait until the run has ended; windows live in this thread meanwhile.

        Ctrl-C ends the run as `stop` does, a second one as `abort` does.

        Raises:
            Pix2liveError: the first error of any stage, or that one does not end.
        """
        if self._outlets is None:
            raise SettingsError("start the pipeline before waiting for it")
        interrupt: KeyboardInterrupt | None = None
        next_tick_s = time.monotonic() + LIVE_TICK_S
        give_up_s = math.inf
        while not self._closed:
            try:
                if not self._running() or time.monotonic() > give_up_s:
                    self._close_all()
                    break
                self._serve_main_thread()
                if on_tick is not None and time.monotonic() >= next_tick_s:
                    next_tick_s = time.monotonic() + LIVE_TICK_S
                    on_tick()
            except KeyboardInterrupt as error:
                if self._stopping:
                    self._control.fail(error)
                interrupt = error
                self.stop()
            except BaseException as error:  # noqa: BLE001  (raised below, after the unwinding)
                self._control.fail(error)
            if self._control.failed and give_up_s == math.inf:
                give_up_s = time.monotonic() + HANGS_AFTER_S
        if self._control.failure is not None:
            raise self._control.failure
        if interrupt is not None:
            raise interrupt
        return self.stats

    def stop(self) -> None:
        """End the run soon: frames on their way are finished. Any thread, or a signal handler."""
        self._stopping = True
        self.source.cancel()

    def abort(self) -> None:
        """End the run now: recordings are closed, frames on their way may be lost. Any thread."""
        self.stop()
        self._control.fail(KeyboardInterrupt())

    def close(self) -> None:
        """Stop, wait and free everything; an error of the run becomes a note."""
        self.stop()
        if self._outlets is None or self._closed:
            return
        try:
            self.wait()
        except Exception as error:  # noqa: BLE001  (the caller may be handling another one)
            self.notes.append(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def all_notes(self) -> list[str]:
        """Return what a person should know: of the source, the engine, the sinks, the run."""
        sinks = [note for sink in self.sinks for note in sink.notes]
        return [*self.source.notes, *self.engine.notes, *sinks, *self.notes]

    def switch(self, model: Any, *, backend: str = "auto", wait: bool = False) -> None:
        """Change the filter: opened and warmed beside the running one, swapped between frames.

        A failure leaves the old filter running and becomes a note; with ``wait`` it is raised.
        """
        if self._switcher is None or self.engine.size is None:
            raise SettingsError("switch works while the pipeline runs")
        self._switcher.switch(model, backend=backend, wait=wait)

    def next_filter(self) -> str:
        """Switch to the next shipped filter; returns what to say to the person."""
        name = next_filter_name(self.engine)
        if name is None:
            return f"{filter_label(self.engine)} is the only filter"
        try:
            self.switch(name)
        except SettingsError as error:
            return str(error)
        return f"opening {name}"

    def add_sink(
        self,
        sink: str | os.PathLike[str] | Callable[[Frame], None] | Sink,
        *,
        view: str | None = None,
    ) -> Sink:
        """Open one more sink while the pipeline runs (not one that needs the main thread)."""
        if self._outlets is None or self._closed:
            raise SettingsError("add_sink works while the pipeline runs")
        opened = open_sink(sink)
        if opened.main_thread:
            raise SettingsError(f"{opened.name} needs the main thread: give it at the start")
        refuse_shared_paths(self.source, [*self.sinks, opened])
        self._open_outlet(opened, view).start()
        self.sinks.append(opened)
        return opened

    def remove_sink(self, sink: Sink) -> None:
        """Finish and close one sink while the pipeline runs."""
        if self._outlets is not None and sink in self.sinks:
            self._outlets.remove(sink)
            self.sinks.remove(sink)

    def toggle_recording(self, view: str | None = None) -> str:
        """Start recording into a new mp4 in the working folder, or finish it.

        ``view`` is how it is recorded; default: as the sinks of the start. Returns what to say to
        the person.
        """
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            self.remove_sink(recorder)
            said = f"recorded {recorder.path}"
        else:
            path = Path(f"pix2live-{datetime.now():%Y%m%d-%H%M%S}.mp4")
            try:
                self._recorder = self.add_sink(path, view=view)
                said = f"recording to {path}"
            except Pix2liveError as error:
                said = str(error)
        self.notes.append(said)
        return said

    def _open(self) -> None:
        self._choose_mode()
        self.info = self.source.open(self._asked_size, realtime=self.mode == "freshest")
        if self._stopping:  # asked before there was anything to cancel
            self.source.cancel()
        self._choose_mode()  # an HTTP address says only now whether it is live
        wanted = self._asked_size or self.info.size
        size = self.engine.size or self.engine.fit(wanted)
        if size != wanted:
            asked, found = ("x".join(map(str, item)) for item in (wanted, size))
            self.notes.append(f"working at {found}, not {asked}: {self._why_size()}")
        if self.mode == "every" and self.source.live:
            self.notes.append(
                "every frame of a live source: where the path is slower than the source, the"
                " driver or the network drops frames that nobody can count"
            )
        self.size = size
        if self.engine.size is None:
            self.engine.open(size, depth=EVERY_DEPTH if self.mode == "every" else 1)
        engine, control = self.engine, self._control
        # The diagram at the top of this file, wired:
        inbox = make_queue(self.mode, engine.depth, lambda: Frame(engine.slots(1)[0]))
        outlets = Outlets(engine, self.mode, self.info.fps, self._look, control)
        self._inbox, self._outlets = inbox, outlets
        self._source_stage = SourceStage(self.source, inbox, control)
        self._engine_stage = EngineStage(engine, inbox, outlets, control)
        for sink in self.sinks:
            self._open_outlet(sink)
        self._switcher = Switcher(self._engine_stage, self.notes, self._switched)

    def _open_outlet(self, sink: Sink, view: str | None = None) -> Outlet:
        assert self._outlets is not None
        outlet = self._outlets.open(sink, view)
        presenter = outlet.presenter
        sink.actions |= {
            "f": lambda: presenter.toggle("original"),
            "s": lambda: presenter.toggle("split"),
            "n": self.next_filter,
            "r": lambda: self.toggle_recording(presenter.view),
        }
        return outlet

    def _choose_mode(self) -> None:
        if self._asked_mode is None:
            shown = any(sink.freshest for sink in self.sinks)
            self.mode = "freshest" if self.source.live or shown else "every"

    def _why_size(self) -> str:
        model = self.engine.model
        if not isinstance(model, FrameModel):
            return f"{self.engine.name} takes no other"
        if model.fixed_size is not None:
            return "the filter takes no other"
        return f"the filter takes multiples of {model.card.stride}"

    def _switched(self, engine: Engine) -> None:
        self.engine = engine
        if self._outlets is not None:
            self._outlets.switched(engine)

    def _threads(self) -> list[Stage]:
        """Return the stages with a thread of their own."""
        assert self._source_stage is not None
        assert self._engine_stage is not None
        sinks = [outlet for outlet in self._outlets or () if not outlet.sink.main_thread]
        return [self._source_stage, self._engine_stage, *sinks]

    def _windows(self) -> list[Outlet]:
        return [outlet for outlet in self._outlets or () if outlet.sink.main_thread]

    def _running(self) -> list[str]:
        """Return the names of the stages that have not ended."""
        names = [stage.name for stage in self._threads() if not stage.join(0)]
        return names + [window.name for window in self._windows() if not window.ended]

    def _serve_main_thread(self) -> None:
        if time.monotonic() >= self._deadline_s:
            self.stop()
        assert self._engine_stage is not None
        assert self._outlets is not None
        if self._engine_stage.join(0):
            self.source.cancel()  # the engine has had its frames
        self._outlets.prune()
        self._engine_stage.close_engines()
        windows = self._windows()
        for window in windows:
            if window.inbox.finished or self._control.failed:
                window.finish()
                continue
            window.step(0.01 / len(windows))
            if not window.sink.idle():
                self.stop()
        if all(window.inbox.finished for window in windows):
            time.sleep(0.02)

    def _unwind(self) -> None:
        self.source.cancel()
        if self._inbox is not None:
            self._inbox.close()
        if self._outlets is not None:
            self._outlets.unwind()

    def _close_all(self) -> None:
        """Free everything, whatever fails; who hangs is named and left alone."""
        self._closed = True
        if self.stats.started_ns:
            self.stats.ended_ns = time.monotonic_ns()
            hanging = self._running()
            if hanging:
                self._control.failure = Pix2liveError(
                    f"the {' and the '.join(hanging)} did not end within {HANGS_AFTER_S:.0f} s"
                )
                return
        if self._switcher is not None:
            self._switcher.join(HANGS_AFTER_S)
        if self._inbox is not None:
            self.stats.engine_overwritten = self._inbox.dropped
        closers = self._outlets.closers() if self._outlets is not None else []
        closers += [self.source.close, self.engine.close]
        if (stage := self._engine_stage) is not None:
            closers.append(lambda: stage.close_engines(running=True))
        closers += [self._inbox.dispose] if self._inbox is not None else []
        for close in closers:
            try:
                close()
            except Exception as error:  # noqa: BLE001  (the others must be closed too)
                self._control.fail(error)
