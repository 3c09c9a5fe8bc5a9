"""The stages of one run, wired: who feeds whom, who has ended, and what must be freed.

source thread --inbox--> engine thread --outlet queue--> one thread a sink
                                       (a queue each: a slow sink delays nobody)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engines import Engine
from realtime.effects.running import Effects
from realtime.frame import Frame
from realtime.outlets import Look, Outlet, Outlets
from realtime.queues import make_queue
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.stages import Control, EngineStage, SourceStage, Stage


class Run:
    """The queues and stages between one source, one engine and any number of sinks.

    Thread: the pipeline's.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine,
        control: Control,
        *,
        mode: str,
        fps: float | None,
        look: Look,
        effects: Effects | None,
    ) -> None:
        self._source = source
        self._control = control
        slots: list[Frame] = []

        def new_slot() -> Frame:
            slots.append(Frame(engine.slots(1)[0]))
            return slots[-1]

        self.inbox = make_queue(mode, engine.depth, new_slot)
        self.outlets = Outlets(engine, mode, fps, look, control)
        self._source_stage = SourceStage(source, self.inbox, control)
        self.engine_stage = EngineStage(
            engine, self.inbox, self.outlets, control, effects=effects, inbox_slots=slots
        )

    def threads(self) -> list[Stage]:
        """Return the stages with a thread of their own."""
        sinks = [outlet for outlet in self.outlets if not outlet.sink.main_thread]
        return [self._source_stage, self.engine_stage, *sinks]

    def windows(self) -> list[Outlet]:
        """Return the outlets that live in the main thread."""
        return [outlet for outlet in self.outlets if outlet.sink.main_thread]

    def running(self) -> list[str]:
        """Return the names of the stages that have not ended."""
        names = [stage.name for stage in self.threads() if not stage.join(0)]
        return names + [window.name for window in self.windows() if not window.ended]

    def serve(self) -> bool:
        """Do a turn of the main thread's work; returns whether the run is to go on.

        The person may end it, in a window.
        """
        wanted = True
        if self.engine_stage.join(0):
            self._source.cancel()  # the engine has had its frames
        self.outlets.prune()
        self.engine_stage.close_engines()
        windows = self.windows()
        for window in windows:
            if window.inbox.finished or self._control.failed:
                window.finish()
                continue
            window.step(0.01 / len(windows))
            if not window.sink.idle():
                wanted = False
        if all(window.inbox.finished for window in windows):
            time.sleep(0.02)
        return wanted

    def unwind(self) -> None:
        """Let every stage end soon."""
        self.inbox.close()
        self.outlets.unwind()

    def remove(self, sink: Sink) -> None:
        """Finish and close one sink."""
        self.outlets.remove(sink)

    def closers(self) -> list[Callable[[], None]]:
        """Return what frees the engines, and then the inbox; the sinks come before."""
        return [lambda: self.engine_stage.close_engines(running=True), self.inbox.dispose]
