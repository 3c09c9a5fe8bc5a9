"""Sessions: each a pipeline whose pictures go to browsers; they come and go on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engines import FrameModel, SettingsError, Size
from realtime.labels import filter_label
from realtime.pipeline import Pipeline
from realtime.sinks import Sink
from realtime.sinks.browser import DEFAULT_QUALITY, BrowserSink
from realtime.sources import Source
from realtime.sources.browser import BrowserSource
from realtime.stats import Ages
from realtime.web.broadcast import Broadcast

LOCAL = "local"
"""The id of the session whose source is of this machine."""
STOPS_WITHIN_S = 20.0
QUIET_S = 2.0
"""After so long without a frame, nothing is a frame rate."""
NOTES_SHOWN = 20

PipelineMaker = Callable[[Source | str, FrameModel, Sink], Pipeline]
"""Makes the pipeline of a session from source, filter and sink."""


class SessionError(SettingsError):
    """There is no such session."""


class FilterError(SettingsError):
    """There is no such filter."""


class FullError(SettingsError):
    """No more sessions fit."""


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
        quality: int = DEFAULT_QUALITY,
    ) -> None:
        self.id = id_
        self.number = 0
        """For logs and metrics: unlike the id it gives nobody the right to watch."""
        self._loop = asyncio.get_running_loop()
        self.browser = source if isinstance(source, BrowserSource) else None
        """Where the page's pictures go to; None where the source is of this machine."""
        tag = None if self.browser is None else self.browser.tag
        self._tag = tag
        self._filtered = Broadcast(self._loop)
        self._side_by_side: tuple[Broadcast, BrowserSink] | None = None
        self._views = asyncio.Lock()
        self._sink = BrowserSink(self._filtered, quality=quality, tag=tag)
        self.pipeline = make(source, self._sink)
        self.round_trips = Ages()
        """From the camera's frame on the page to the translated one on it, as the page measured."""
        self.transport = "websocket"
        self.listeners: set[Callable[[dict[str, Any]], None]] = set()
        """Told of everything that all at this session should know."""
        self.ended = asyncio.Event()
        self.reason = ""
        """Why it has ended."""
        self.failure: BaseException | None = None
        self._switching = asyncio.Lock()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name=f"pix2live session {id_[:4]}")

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
        """Change the filter; returns when it runs. Several wishes are carried out in turn.

        Raises:
            Pix2liveError: it cannot be opened; the old one runs on.
        """
        async with self._switching:
            if model.name == self.filter:
                return

            def switch() -> None:
                self.pipeline.switch(model, crossfade_ms=crossfade_ms, wait=True)

            await asyncio.to_thread(switch)
        self.tell({"type": "switched", "filter": self.filter})

    async def broadcast(self, view: str = "filtered") -> Broadcast:
        """Return the pictures in a view, ``filtered`` or ``side-by-side``.

        The second one is made as long as somebody looks at it.

        Raises:
            SettingsError: there is no such view, or the session is over.
        """
        if view == "filtered":
            return self._filtered
        if view != "side-by-side":
            raise SettingsError(f"no view {view!r}; there are: filtered, side-by-side")
        async with self._views:
            if self._side_by_side is None:
                audience = Broadcast(self._loop)
                sink = BrowserSink(audience, quality=self.quality, tag=self._tag)
                await asyncio.to_thread(self.pipeline.add_sink, sink, view=view)
                self._side_by_side = audience, sink
            return self._side_by_side[0]

    async def tidy(self) -> None:
        """Stop making a view that nobody looks at any more."""
        async with self._views:
            if self._side_by_side is None or self._side_by_side[0].watchers:
                return
            (audience, sink), self._side_by_side = self._side_by_side, None
            audience.close()
            await asyncio.to_thread(self.pipeline.remove_sink, sink)

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
        reason, failure = "the source has ended", None
        try:
            self.pipeline.start()
            self._call(self._begun, None)
            self.pipeline.wait()
        except BaseException as error:  # noqa: BLE001  (told to whoever waits)
            reason, failure = str(error) or type(error).__name__, error
            self._call(self._begun, error)
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
        self.tell({"type": "ended", "reason": self.reason})


class Sessions:
    """All that run, and the filters that may be asked for.

    Args:
        make: makes a session's pipeline.
        filters: name -> frame model; the first one is the default.
        most: how many browsers may have their own camera translated at a time.
        max_size: the largest (width, height) of a page's pictures, either way round.
    """

    def __init__(
        self,
        make: PipelineMaker,
        filters: Mapping[str, FrameModel],
        *,
        most: int = 4,
        max_size: Size = (1920, 1080),
    ) -> None:
        self.filters = dict(filters)
        self.local: Session | None = None
        self.most = most
        self.max_size = max_size
        self.started = 0
        """How many were started, since the server was."""
        self._make = make
        self._running: dict[str, Session] = {}
        self._opening = 0

    @property
    def default_filter(self) -> str:
        """The filter of a page that asks for none."""
        return next(iter(self.filters))

    @property
    def running(self) -> int:
        """How many browsers have their own camera translated."""
        return self._opening + sum(session.kind == "browser" for session in self)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._running.values()))

    def model(self, name: object) -> FrameModel:
        """Return the filter ``name``.

        Raises:
            FilterError: there is none.
        """
        if not isinstance(name, str) or name not in self.filters:
            raise FilterError(f"no filter {str(name)[:80]!r}; there are: {', '.join(self.filters)}")
        return self.filters[name]

    def find(self, id_: str | None) -> Session:
        """Return the session with an id; None stands for the local one.

        Raises:
            SessionError: there is none.
        """
        session = self._running.get(LOCAL if id_ is None else id_)
        if session is None:
            here = "no camera of this machine is shown" if id_ in (None, LOCAL) else "it has ended"
            raise SessionError(f"there is no such session: {here}")
        return session

    async def start_browser(
        self, size: Size, filter_: str | None, *, quality: int = DEFAULT_QUALITY, strip: bool = True
    ) -> Session:
        """Start a session for a page's own camera.

        Raises:
            FullError: as many run as may.
            Pix2liveError: no such filter, an impossible size, or the engine cannot be opened.
        """
        model = self.model(filter_ if filter_ is not None else self.default_filter)
        self._check_size(size)
        if self.running >= self.most:
            raise FullError(f"{self.running} of {self.most} cameras are being translated already")
        source = BrowserSource(size, strip=strip)
        session = Session(
            secrets.token_urlsafe(12),
            source,
            lambda source, sink: self._make(source, model, sink),
            quality=quality,
        )
        self._opening += 1
        try:
            await self._start(session)
        finally:
            self._opening -= 1
        return session

    async def start_local(self, source: Source | str, *, quality: int = DEFAULT_QUALITY) -> Session:
        """Start the session whose source is of this machine.

        Raises:
            Pix2liveError: source or engine cannot be opened.
        """
        model = self.model(self.default_filter)
        session = Session(
            LOCAL, source, lambda source, sink: self._make(source, model, sink), quality=quality
        )
        await self._start(session)
        self.local = session
        return session

    async def end(self, session: Session, reason: str = "stopped") -> None:
        """End a session, and forget it."""
        await session.end(reason)
        self._running.pop(session.id, None)

    async def close(self) -> None:
        """End all."""
        await asyncio.gather(*(self.end(session, "the server stops") for session in self))

    async def _start(self, session: Session) -> None:
        try:
            await session.start()
        except asyncio.CancelledError:
            await session.end("its page has gone")
            raise
        self.started += 1
        session.number = self.started
        self._running[session.id] = session

    def _check_size(self, size: Size) -> None:
        largest = sorted(self.max_size)
        if min(size) < 16 or size[0] % 2 or size[1] % 2:
            raise SettingsError(
                f"a picture has even sides of 16 px or more, found {size[0]}x{size[1]}"
            )
        if any(side > limit for side, limit in zip(sorted(size), largest, strict=True)):
            raise SettingsError(
                f"a picture is {largest[1]}x{largest[0]} at most, found {size[0]}x{size[1]}"
            )


def _recent_ms(ages: Ages) -> dict[str, float] | None:
    """Return the p50 and p95 of the latest ones."""
    if ages.recent() is None:
        return None
    return {f"p{percent}": round(ages.recent_ms(percent), 1) for percent in (50, 95)}
