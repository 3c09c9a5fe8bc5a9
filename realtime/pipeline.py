"""Pipeline: source -> engine -> effects -> sinks; what people start, steer and stop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engines import Engine, Pix2liveError, SettingsError, Size, open_engine
from realtime.crossfade import check_crossfade
from realtime.effects.base import Context
from realtime.effects.chain import Chain
from realtime.effects.running import Effects
from realtime.effects.specs import open_effect
from realtime.effects.views import check_view
from realtime.frame import Frame
from realtime.keeper import Keeper
from realtime.labels import EVERY_OF_LIVE, filter_label, why_size
from realtime.notes import Notes
from realtime.opening import Opening, stand_in_for
from realtime.outlets import DEFAULT_FPS, Look, Outlet, refuse_shared_paths
from realtime.recorder import Recorder
from realtime.run import Run
from realtime.sinks import Sink, open_sink
from realtime.sinks.window import WindowSink
from realtime.sources import Source, SourceInfo, open_source
from realtime.stages import Control, check_limits
from realtime.stats import Stats
from realtime.switching import Switcher, switch_to_next

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
        view: one of `realtime.effects.views.VIEWS`.
        split_at: where the line of the split view is, as a part of the width.
        overlay: draw filter, fps and age on the picture; default: in windows only.
        effects: what `realtime.effects.open_effect` takes, in the order in which they work.
        effect_errors: when an effect fails on a frame, ``stop``, or ``drop`` it and go on.
        stand_in: live: another backend shows the picture while this one compiles.
        crossfade_ms: how long a switch of filters takes to fade.
        keep_fps: frames a second to hold, in a live run: a slower machine works at a smaller size.
        keep_sizes: (width, height) to work at then; default: `engines.sized.SHARES` of the frames.
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
        effects: Sequence[Any] = (),
        effect_errors: str = "stop",
        stand_in: bool = True,
        crossfade_ms: float = 0.0,
        keep_fps: float | None = None,
        keep_sizes: Sequence[Size] = (),
        seconds: float | None = None,
        frames: int | None = None,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise SettingsError(f"no mode {mode!r}; there are: {', '.join(MODES)}")
        check_limits(max_age_ms=max_age_ms, seconds=seconds, frames=frames)
        self.source = open_source(source)
        self.engine = engine if isinstance(engine, Engine) else open_engine(engine)
        self.sinks = [open_sink(sink) for sink in sinks]
        self.mode = mode or "freshest"
        self.size: Size | None = None
        """(width, height) that the engine works at; known once it runs."""
        self.info: SourceInfo | None = None
        self.stats = Stats()
        self.notes: list[str] = Notes()
        """Of the pipeline itself, the newest ones; `all_notes` adds source, engine and sinks."""
        self._asked_mode = mode
        self._asked_size = size
        self._look = Look(check_view(view), split_at, overlay)
        self._stand_in = stand_in
        self._opening: Opening | None = None
        self._crossfade_ms = check_crossfade(crossfade_ms)
        self._chain = Chain(
            [open_effect(item) for item in effects],
            on_error=effect_errors,
            max_age_ms=max_age_ms,
            stats=self.stats,
        )
        refuse_shared_paths(self.source, self.sinks, self._chain.effects)
        self._effects: Effects | None = None
        self._keeper = None if keep_fps is None else Keeper(keep_fps, keep_sizes)
        self._seconds = seconds
        self._deadline_s = math.inf
        self._control = Control(self.stats, max_age_ms, frames, on_failure=self._unwind)
        self._stages: Run | None = None
        self._switcher: Switcher | None = None
        self._recorder = Recorder()
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
            assert self._stages is not None
            for stage in self._stages.threads():
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
        if (run := self._stages) is None:
            raise SettingsError("start the pipeline before waiting for it")
        interrupt: KeyboardInterrupt | None = None
        next_tick_s = time.monotonic() + LIVE_TICK_S
        give_up_s = math.inf
        while not self._closed:
            try:
                if not run.running() or time.monotonic() > give_up_s:
                    self._close_all()
                    break
                if time.monotonic() >= self._deadline_s or not run.serve():
                    self.stop()
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
        self._chain.cancel()

    def abort(self) -> None:
        """End the run now: recordings are closed, frames on their way may be lost. Any thread."""
        self.stop()
        self._control.fail(KeyboardInterrupt())

    def close(self) -> None:
        """Stop, wait and free everything; an error of the run becomes a note."""
        self.stop()
        if self._stages is None or self._closed:
            return
        try:
            self.wait()
        except Exception as error:  # noqa: BLE001  (the caller may be handling another one)
            self.notes.append(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def compiling(self) -> bool:
        """Whether the engine that was asked for is not open yet, and another one stands in."""
        return self._opening is not None and not self._opening.wait(0)

    def all_notes(self) -> list[str]:
        """Return what a person should know: of the source, the engine, the sinks, the run."""
        sinks = [note for sink in self.sinks for note in sink.notes]
        effects = self._chain.all_notes()
        steps = tuple(self._keeper.notes) if self._keeper is not None else ()
        return [*self.source.notes, *self.engine.notes, *effects, *sinks, *self.notes, *steps]

    def switch(
        self,
        model: Any,
        *,
        backend: str = "",
        crossfade_ms: float | None = None,
        wait: bool = False,
    ) -> None:
        """Change the filter: opened and warmed beside the running one, swapped between frames.

        Both compute while they fade into each other, for ``crossfade_ms`` (default: the
        pipeline's), after a fade that is still under way; 0 cuts. Without ``backend`` the same one
        computes it. A failure leaves the old filter running and becomes a note; with ``wait`` it
        is raised.
        """
        if (switcher := self._switcher) is None or self.engine.size is None:
            raise SettingsError("switch works while the pipeline runs")
        fade = self._crossfade_ms if crossfade_ms is None else check_crossfade(crossfade_ms)
        switcher.switch(model, backend=backend, crossfade_ms=fade, wait=wait)

    def next_filter(self) -> str:
        """Switch to the next shipped filter; returns what to say to the person."""
        return switch_to_next(self.engine, self.switch)

    def add_sink(
        self,
        sink: str | os.PathLike[str] | Callable[[Frame], None] | Sink,
        *,
        view: str | None = None,
    ) -> Sink:
        """Open one more sink while the pipeline runs (not one that needs the main thread)."""
        if self._stages is None or self._closed:
            raise SettingsError("add_sink works while the pipeline runs")
        if (opened := open_sink(sink)).main_thread:
            raise SettingsError(f"{opened.name} needs the main thread: give it at the start")
        refuse_shared_paths(self.source, [*self.sinks, opened], self._chain.effects)
        self._open_outlet(opened, view).start()
        self.sinks.append(opened)
        return opened

    def remove_sink(self, sink: Sink) -> None:
        """Finish and close one sink while the pipeline runs."""
        if self._stages is not None and sink in self.sinks:
            self._stages.remove(sink)
            self.sinks.remove(sink)

    def toggle_recording(self, view: str | None = None) -> str:
        """Start recording into a new mp4 in the working folder, or finish it.

        ``view`` is how it is recorded; default: as the sinks of the start. Returns what to say to
        the person.
        """
        self.notes.append(said := self._recorder.toggle(self, view))
        return said

    def _open(self) -> None:
        self._choose_mode()
        self.info = self.source.open(self._asked_size, realtime=self.mode == "freshest")
        if self._stopping:  # asked before there was anything to cancel
            self.source.cancel()
        self._choose_mode()  # an HTTP address says only now whether it is live
        if self._keeper is not None:
            self.engine = self._keeper.wrap(self.engine, self.mode)
        wanted = self._asked_size or self.info.size
        size = self.engine.size or self.engine.fit(wanted)
        if size != wanted:
            asked, found = ("x".join(map(str, item)) for item in (wanted, size))
            self.notes.append(f"working at {found}, not {asked}: {why_size(self.engine)}")
        if self.mode == "every" and self.source.live:
            self.notes.append(EVERY_OF_LIVE)
        self.size = size
        live = self.mode == "freshest"
        if self._chain.effects:  # before the engine, which may compile for minutes
            fps, label = self.info.fps or DEFAULT_FPS, filter_label(self.engine)
            self._effects = Effects(self._chain, Context(size, live, fps, label), self.stats)
        if self.engine.size is None:
            depth = 1 if live else EVERY_DEPTH
            other = stand_in_for(self.engine) if self._stand_in and live else None
            if other is None:
                self.engine.open(size, depth=depth)
            else:
                self._opening = Opening(self.engine, size, depth)
                self.engine = self._opening.meanwhile(other)
        self._stages = Run(
            self.source,
            self.engine,
            self._control,
            mode=self.mode,
            fps=self.info.fps,
            look=self._look,
            effects=self._effects,
        )
        for sink in self.sinks:
            self._open_outlet(sink)
        if self._keeper is not None:
            self._keeper.start(self._stages.outlets, self.engine, self.info.fps, self.stats)
            self._stages.engine_stage.keeper = self._keeper
        self._switcher = Switcher(self._stages.engine_stage, self.notes, self._switched)
        if self._opening is not None and self._opening.owns(self._opening.engine):
            # Who stops a run may have cancelled the building: then its error is none.
            fail = self._control.fail
            self._switcher.take_over(self._opening, lambda error: self._stopping or fail(error))

    def _open_outlet(self, sink: Sink, view: str | None = None) -> Outlet:
        assert self._stages is not None
        outlet = self._stages.outlets.open(sink, view)
        presenter = outlet.presenter
        ours = {"n": self.next_filter, "r": lambda: self.toggle_recording(presenter.view)}
        outlet.lend(presenter.actions() | ours)
        if isinstance(sink, WindowSink):
            sink.on_drag = presenter.drag
        return outlet

    def _choose_mode(self) -> None:
        if self._asked_mode is None:
            shown = any(sink.freshest for sink in self.sinks)
            self.mode = "freshest" if self.source.live or shown else "every"

    def _switched(self, engine: Engine) -> None:
        self.engine = engine
        assert self._stages is not None
        self._stages.outlets.switched(engine)

    def _unwind(self) -> None:
        self.source.cancel()
        self._chain.cancel()
        if self._stages is not None:
            self._stages.unwind()

    def _close_all(self) -> None:
        """Free everything, whatever fails; who hangs is named and left alone."""
        if self._closed:  # by another thread
            return
        self._closed = True
        run, switcher = self._stages, self._switcher
        if run is not None and self.stats.started_ns:
            self.stats.ended_ns = time.monotonic_ns()
            if hanging := run.running():
                self._control.failure = Pix2liveError(
                    f"the {' and the '.join(hanging)} did not end within {HANGS_AFTER_S:.0f} s"
                )
                return
        if switcher is not None:
            switcher.join(HANGS_AFTER_S)
        if run is not None:
            self.stats.engine_overwritten = run.inbox.dropped
        closers = [*(run.outlets.closers() if run is not None else []), self.source.close]
        if self._opening is not None:
            closers.append(partial(self._opening.abandon, HANGS_AFTER_S))
        if self._opening is None or not self._opening.owns(self.engine):
            closers.append(self.engine.close)
        closers.append(self._chain.close)
        closers += run.closers() if run is not None else []
        self._control.call_all(closers)
        # What points back here goes, as the sinks' actions have: the garbage collector alone would
        # free the frames, minutes later, because it counts objects and not bytes.
        self._control.on_failure, self._switcher = lambda: None, None
