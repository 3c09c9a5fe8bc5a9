"""Session: one pipeline whose pictures go to browsers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from engines import EngineError, FrameModel, SettingsError
from realtime.labels import filter_label
from realtime.pipeline import Pipeline
from realtime.sinks import Sink
from realtime.sinks.browser import DEFAULT_QUALITY, BrowserSink
from realtime.sources import Source
from realtime.sources.browser import BrowserSource
from realtime.stats import Ages
from realtime.web.broadcast import Broadcast, Subscription

LOCAL = "local"
"""The id of the session whose source is of this machine."""
STOPS_WITHIN_S = 20.0
QUIET_S = 2.0
"""After so long without a frame, nothing is a frame rate."""
NOTES_SHOWN = 20
COMPILING_LOOK_S = 0.05


class OvertakenError(SettingsError):
    """Another filter was asked for meanwhile."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """A filter that somebody wants to see."""

    model: FrameModel
    crossfade_ms: float
    done: asyncio.Future[None]


class Session:
    """One pipeline, its audience, and what is to be said of it.

    Thread: the loop's; the pipeline has a thread of its own that starts and ends it.
    """

    def __init__(
        self,
        id_: str,
        source: Source | str,
        make: Callable[[Source | str, Sink], Pipeline],
        *,
        number: int,
        workers: ThreadPoolExecutor,
        quality: int = DEFAULT_QUALITY,
    ) -> None:
        self.id = id_
        self.number = number
        """For logs and metrics: unlike the id it gives nobody the right to watch."""
        self._loop = asyncio.get_running_loop()
        self.browser = source if isinstance(source, BrowserSource) else None
        """Where the page's pictures go to; None where the source is of this machine."""
        tag = None if self.browser is None else self.browser.tag
        self._tag = tag
        self._filtered = Broadcast(self._loop)
        self._side_by_side: tuple[Broadcast, BrowserSink] | None = None
        self._views = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._sink = BrowserSink(self._filtered, quality=quality, tag=tag)
        self.pipeline = make(source, self._sink)
        self.round_trips = Ages()
        """From the camera's frame on the page to the translated one on it, as the page measured."""
        self.transport = "websocket"
        self.listeners: set[Callable[[dict[str, Any]], None]] = set()
        """Told of everything that all at this session should know."""
        self.on_end: Callable[[Session], object] = lambda _: None
        """Called with this session, on the loop, when the thread has freed everything."""
        self.ended = asyncio.Event()
        self.reason = ""
        """Why it has ended."""
        self.failure: BaseException | None = None
        self._workers = workers
        self._wish: _Wish | None = None
        self._switching: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] = self._loop.create_future()
        # A source that hangs must not keep the process alive; `end` waits for all others.
        self._thread = threading.Thread(
            target=self._run, name=f"pix2live session {number}", daemon=True
        )

    @property
    def kind(self) -> str:
        """``browser`` or ``local``."""
        return "local" if self.browser is None else "browser"

    @property
    def filter(self) -> str:
        """The filter that runs."""
        return filter_label(self.pipeline.engine)

    @property
    def watchers(self) -> int:
        """How many pages and streams look at it."""
        more = self._side_by_side[0].watchers if self._side_by_side is not None else 0
        return self._filtered.watchers + more

    @property
    def quality(self) -> int:
        """Of the JPEG pictures."""
        return self._sink.quality

    @quality.setter
    def quality(self, quality: int) -> None:
        self._sink.quality = quality
        if self._side_by_side is not None:
            self._side_by_side[1].quality = quality

    async def start(self) -> None:
        """Open source and engine, and run.

        Raises:
            Pix2liveError: one of them cannot be opened.
        """
        self._thread.start()
        await asyncio.shield(self._started)

    async def end(self, reason: str = "stopped") -> None:
        """Stop, and wait until everything is freed."""
        self.reason = self.reason or reason
        self.pipeline.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.ended.wait(), STOPS_WITHIN_S)

    async def switch(self, model: FrameModel, crossfade_ms: float = 0.0) -> None:
        """Change the filter; returns when it runs. Of several wishes the newest counts.

        Who stops waiting does not stop the switch.

        Raises:
            OvertakenError: another one was asked for meanwhile.
            Pix2liveError: it cannot be opened; the old one runs on.
        """
        wish = _Wish(model, crossfade_ms, self._loop.create_future())
        if self._wish is not None:
            _refuse(self._wish, OvertakenError("another filter was asked for meanwhile"))
        self._wish = wish
        if self._switching is None or self._switching.done():
            self._switching = self._loop.create_task(self._carry_out_wishes())
        await asyncio.shield(wish.done)

    async def _carry_out_wishes(self) -> None:
        while self._wish is not None:
            wish, self._wish = self._wish, None
            try:
                if wish.model.name != self.filter:
                    await self._loop.run_in_executor(self._workers, self._switch, wish)
            except Exception as error:  # noqa: BLE001  (told to who waits)
                _refuse(wish, error)
                continue
            wish.done.set_result(None)
            self.tell({"type": "switched", "filter": self.filter})

    def _switch(self, wish: _Wish) -> None:
        while self.pipeline.compiling and not self.ended.is_set():
            time.sleep(COMPILING_LOOK_S)  # another engine stands in; the first one comes first
        self.pipeline.switch(wish.model, crossfade_ms=wish.crossfade_ms, wait=True)

    @property
    def broadcast(self) -> Broadcast:
        """The translated pictures."""
        return self._filtered

    async def subscribe(self, view: str = "filtered") -> Subscription:
        """Join those who look at a view, ``filtered`` or ``side-by-side``, as JPEG.

        The second one is made as long as somebody looks at it; `tidy` ends it.

        Raises:
            SettingsError: there is no such view, or the session is over.
        """
        if view == "filtered":
            return self._filtered.subscribe()
        if view != "side-by-side":
            raise SettingsError(f"no view {view!r:.40}; there are: filtered, side-by-side")
        joining = self._loop.create_task(self._subscribe_both())
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            leaving = self._loop.create_task(self._leave_again(joining))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            raise

    async def _subscribe_both(self) -> Subscription:
        async with self._views:
            if self._side_by_side is None:
                audience = Broadcast(self._loop)
                sink = BrowserSink(audience, quality=self.quality, tag=self._tag)
                await self._loop.run_in_executor(self._workers, self._add_both, sink)
                self._side_by_side = audience, sink
            return self._side_by_side[0].subscribe()

    def _add_both(self, sink: BrowserSink) -> None:
        self.pipeline.add_sink(sink, view="side-by-side")

    async def _leave_again(self, joining: asyncio.Task[Subscription]) -> None:
        """Undo a joining whose asker has gone."""
        with contextlib.suppress(Exception):
            (await joining).close()
            await self.tidy()

    async def tidy(self) -> None:
        """Stop making a view that nobody looks at any more."""
        async with self._views:
            if self._side_by_side is None or self._side_by_side[0].watchers:
                return
            (audience, sink), self._side_by_side = self._side_by_side, None
            audience.close()
            self.pipeline.remove_sink(sink)

    def tell(self, message: dict[str, Any]) -> None:
        """Tell all who listen."""
        for listener in tuple(self.listeners):
            listener(message)

    def describe(self) -> dict[str, Any]:
        """Return what a page should know when it begins to look."""
        engine = self.pipeline.engine
        return {
            "session": self.id,
            "kind": self.kind,
            "filter": self.filter,
            "size": list(self.pipeline.size or ()),
            "label": f"{self.filter} on {engine.name}, {engine.precision}",
            "notes": self.pipeline.all_notes()[-NOTES_SHOWN:],
            "stream": f"/stream.mjpg?session={self.id}",
        }

    def short_stats(self) -> dict[str, Any]:
        """Return what a page shows all the time, as JSON types."""
        stats, engine = self.pipeline.stats, self.pipeline.engine
        ages = stats.sinks[0] if stats.sinks else None
        quiet = ages is None or ages.last_new_ns is None
        if ages is not None and ages.last_new_ns is not None:
            quiet = time.monotonic_ns() - ages.last_new_ns > QUIET_S * 1e9
        recent = None if quiet or ages is None else ages.ages.recent()
        dropped = stats.dropped()
        return {
            **self.describe(),
            "fps": round(recent[0], 1) if recent else 0.0,
            "age_ms": _recent_ms(ages.ages) if ages is not None and recent else None,
            "round_trip_ms": None if quiet else _recent_ms(self.round_trips),
            "dropped": {place: count for place, count in dropped.items() if count},
            "dropped_total": sum(dropped.values()),
            "device": engine.device,
            "precision": engine.precision,
            "backend": engine.name,
            "watchers": self.watchers,
            "seconds": round((time.monotonic_ns() - stats.started_ns) / 1e9, 1),
            "transport": self.transport,
            "quality": self.quality,
        }

    def stats(self) -> dict[str, Any]:
        """Return everything about the run, as JSON types."""
        return {
            **self.short_stats(),
            **self.pipeline.stats.to_dict(),
            "round_trip": self.round_trips.summary(),
            "notes": self.pipeline.all_notes(),
        }

    def _run(self) -> None:
        reason = "the source has ended"
        failure: BaseException | None = None
        try:
            self.pipeline.start()
            self._call(self._begun, None)
            self.pipeline.wait()
        except BaseException as error:  # noqa: BLE001  (told to whoever waits)
            failure = error
            if not isinstance(error, Exception) or isinstance(error, StopIteration):
                # It would end the loop, or break the future that tells it.
                failure = EngineError(f"{type(error).__name__} ended the session: {error}")
            reason = str(failure) or type(failure).__name__
            self._call(self._begun, failure)
        self._call(self._has_ended, reason, failure)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)

    def _begun(self, error: BaseException | None) -> None:
        if self._started.done():
            return
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)
            self._started.exception()  # looked at: `start` may have been cancelled

    def _has_ended(self, reason: str, failure: BaseException | None) -> None:
        self.reason = self.reason or reason
        self.failure = failure
        self._filtered.close()
        if self._side_by_side is not None:
            self._side_by_side[0].close()
        self.ended.set()
        self.on_end(self)
        self.tell({"type": "ended", "reason": self.reason})


def _refuse(wish: _Wish, error: Exception) -> None:
    wish.done.set_exception(error)
    wish.done.exception()  # looked at: who waited may have gone


def _recent_ms(ages: Ages) -> dict[str, float] | None:
    """Return the p50 and p95 of the latest ones."""
    if ages.recent() is None:
        return None
    return {f"p{percent}": round(ages.recent_ms(percent), 1) for percent in (50, 95)}
