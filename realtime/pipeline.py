"""Pipeline: source -> engine -> sinks, a thread and a queue each.

source thread --inbox--> engine thread --outlet queue--> one thread a sink
                                       (a queue each: a slow sink delays nobody)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import Engine, Pix2liveError, SettingsError, SinkError, Size, open_engine
from realtime.effects.views import Presenter, check_view, view_size
from realtime.frame import Frame
from realtime.queues import FrameQueue, make_queue
from realtime.sinks import Sink, SinkInfo, open_sink
from realtime.sources import Source, SourceInfo, open_source
from realtime.stages import Control, EngineStage, Outlet, SourceStage, Stage
from realtime.stats import Stats
from realtime.switching import Switcher, filter_label, next_filter_name

if TYPE_CHECKING:
    from typing_extensions import Self

MODES = ("freshest", "every")
EVERY_DEPTH = 4
"""Frames under way in the engine where age does not matter."""
DEFAULT_FPS = 30.0
JOIN_TIMEOUT_S = 15.0
LIVE_TICK_S = 0.25


class Pipeline:
    """Runs one source through one engine into any number of sinks.

    Args:
        source: what `open_source` takes.
        engine: an `Engine` (open or not), or what `open_engine` takes as its model.
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
        self._mode = mode
        self._size = size
        self._view = check_view(view)
        self._split_at = split_at
        self._overlay = overlay
        self._seconds = seconds
        self.stats = Stats()
        self.notes: list[str] = []
        """What the pipeline itself has to say; `all_notes` adds source, engine and sinks."""
        self.mode = mode or "freshest"
        self.size: Size | None = None
        """(width, height) that the engine works at; known once it runs."""
        self.info: SourceInfo | None = None
        self._control = Control(self.stats, max_age_ms, frames, on_failure=self._unwind)
        self._queues: list[FrameQueue] = []
        self._source_stage: SourceStage | None = None
        self._engine_stage: EngineStage | None = None
        self._outlets: list[Outlet] = []
        self._recorder: Sink | None = None
        self._switcher: Switcher | None = None
        self._stopping = False
        self._deadline_s: float | None = None
        _refuse_shared_paths(self.source, self.sinks)

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
        if self.info is not None:
            raise SettingsError("this pipeline has run already; make a new one")
        try:
            self._open()
        except BaseException:
            self._close_all()
            raise
        now_ns = time.monotonic_ns()
        self.stats.started_ns = self.stats.ended_ns = now_ns
        if self._seconds is not None:
            self._deadline_s = now_ns / 1e9 + self._seconds
        for stage in self._stages():
            if not (isinstance(stage, Outlet) and stage.sink.main_thread):
                stage.start()

    def wait(self, on_tick: Callable[[], None] | None = None) -> Stats:
        """Wait until the run has ended; windows live in this thread meanwhile.

        Raises:
            Pix2liveError: the first error of any stage.
        """
        interrupt: BaseException | None = None
        next_tick_s = time.monotonic() + LIVE_TICK_S
        while not self._ended():
            try:
                self._serve_main_thread()
                if on_tick is not None and time.monotonic() >= next_tick_s:
                    next_tick_s = time.monotonic() + LIVE_TICK_S
                    on_tick()
            except KeyboardInterrupt as error:
                if interrupt is not None:
                    self._control.fail(error)  # asked twice: do not wait for the queues
                interrupt = error
                self.stop()
            except BaseException as error:  # noqa: BLE001  (raised below, after the unwinding)
                self._control.fail(error)
        self.stats.ended_ns = time.monotonic_ns()
        self._close_all()
        if self._control.failure is not None:
            raise self._control.failure
        if interrupt is not None:
            raise interrupt
        return self.stats

    def stop(self) -> None:
        """End the run soon: frames on their way are finished. Any thread, or a signal handler."""
        self._stopping = True
        self.source.cancel()

    def close(self) -> None:
        """Stop, wait and free everything; errors of the run are not raised here."""
        self.stop()
        try:
            if self.info is not None:
                self.wait()
        except Pix2liveError as error:
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
        if self._engine_stage is None:
            raise SettingsError("add_sink works while the pipeline runs")
        opened = open_sink(sink)
        if opened.main_thread:
            raise SettingsError(f"{opened.name} needs the main thread: give it at the start")
        _refuse_shared_paths(self.source, [*self.sinks, opened])
        outlet = self._open_outlet(opened, view)
        outlet.start()
        self.sinks.append(opened)
        self._engine_stage.outlets = (*self._engine_stage.outlets, outlet)
        return opened

    def remove_sink(self, sink: Sink) -> None:
        """Finish and close one sink while the pipeline runs."""
        stage = self._engine_stage
        for outlet in self._outlets:
            if outlet.sink is sink and stage is not None:
                stage.outlets = tuple(item for item in stage.outlets if item is not outlet)
                outlet.inbox.close()
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
            except SinkError as error:
                said = str(error)
        self.notes.append(said)
        return said

    def _open(self) -> None:
        self._choose_mode()
        self.info = self.source.open(self._size, realtime=self.mode == "freshest")
        if self._stopping:  # asked before there was anything to cancel
            self.source.cancel()
        self._choose_mode()  # an HTTP address says only now whether it is live
        wanted = self._size or self.info.size
        size = self.engine.size or self.engine.fit(wanted)
        if size != wanted:
            self.notes.append(
                f"working at {size[0]}x{size[1]}, not {wanted[0]}x{wanted[1]}: the filter takes"
                " other sizes"
            )
        self.size = size
        if self.engine.size is None:
            self.engine.open(size, depth=EVERY_DEPTH if self.mode == "every" else 1)
        inbox = make_queue(self.mode, self.engine.depth, lambda: Frame(self.engine.slots(1)[0]))
        self._queues.append(inbox)
        # The diagram at the top of this file, wired:
        self._source_stage = SourceStage(self.source, inbox, self._control)
        self._engine_stage = EngineStage(self.engine, inbox, self._control)
        self._engine_stage.outlets = tuple(self._open_outlet(sink) for sink in self.sinks)
        self._switcher = Switcher(self._engine_stage, self.notes, self._switched)

    def _open_outlet(self, sink: Sink, view: str | None = None) -> Outlet:
        assert self.engine.size is not None
        assert self.info is not None
        overlay = sink.main_thread if self._overlay is None else self._overlay
        view = view or self._view
        presenter = Presenter(view, overlay=overlay, split_at=self._split_at)
        fps = self.info.fps or DEFAULT_FPS
        label = filter_label(self.engine)
        queue = make_queue(
            "freshest" if sink.freshest or sink.beat_fps is not None else self.mode,
            self.engine.depth,
            lambda: Frame(self.engine.slots(1)[0]),
        )
        self._queues.append(queue)
        sink.open(SinkInfo(view_size(view, self.engine.size), fps, f"pix2live: {label}"))
        outlet = Outlet(sink, queue, presenter, self._control, label)
        self._outlets.append(outlet)
        self.stats.sinks.append(outlet.stats)
        sink.actions |= {
            "f": lambda: _toggle(presenter, self._view, "original"),
            "s": lambda: _toggle(presenter, self._view, "split"),
            "n": self.next_filter,
            "r": lambda: self.toggle_recording(presenter.view),
        }
        return outlet

    def _choose_mode(self) -> None:
        if self._mode is None:
            shown = any(sink.freshest for sink in self.sinks)
            self.mode = "freshest" if self.source.live or shown else "every"

    def _switched(self, engine: Engine) -> None:
        self.engine = engine
        for outlet in self._outlets:
            outlet.label = filter_label(engine)

    def _stages(self) -> list[Stage]:
        stages: list[Stage | None] = [self._source_stage, self._engine_stage, *self._outlets]
        return [stage for stage in stages if stage is not None]

    def _serve_main_thread(self) -> None:
        if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            self.stop()
        assert self._engine_stage is not None
        if self._engine_stage.join(0):
            self.source.cancel()  # the engine has had its frames
        windows = [item for item in self._outlets if item.sink.main_thread]
        for outlet in windows:
            if outlet.inbox.finished or self._control.failed:
                outlet.finish()
                continue
            outlet.step(0.01 / len(windows))
            if not outlet.sink.idle():
                self.stop()
        if all(item.inbox.finished for item in windows):
            time.sleep(0.02)

    def _ended(self) -> bool:
        for stage in self._stages():
            if isinstance(stage, Outlet) and stage.sink.main_thread:
                if not stage.ended:
                    return False
            elif not stage.join(0):
                return False
        return True

    def _unwind(self) -> None:
        self.source.cancel()
        for queue in self._queues:
            queue.close()

    def _close_all(self) -> None:
        if self._switcher is not None:
            self._switcher.join(JOIN_TIMEOUT_S)
        sinks = [outlet.close_sink for outlet in self._outlets]
        for close in (*sinks, self.source.close, self.engine.close):
            try:
                close()
            except Exception as error:  # noqa: BLE001  (the others must be closed too)
                self._control.fail(error)
        for queue in self._queues:
            queue.dispose()
        self._queues.clear()


def _toggle(presenter: Presenter, at_first: str, view: str) -> str:
    """Change to ``view``, or from it back to the view of the start."""
    back = at_first if at_first != view else "filtered"
    presenter.view = back if presenter.view == view else view
    return f"view: {presenter.view}"


def _refuse_shared_paths(source: Source, sinks: Sequence[Sink]) -> None:
    """Two writers of one file, or a sink that overwrites the source, lose data."""
    taken: set[Path] = set()
    read = source.path.resolve() if source.path is not None else None
    for sink in sinks:
        if sink.path is None:
            continue
        path = sink.path.resolve()
        if path in taken:
            raise SettingsError(f"two sinks write to {sink.path}; give each its own")
        if path == read:
            raise SettingsError(f"{sink.path} is the source; write to another file")
        taken.add(path)
