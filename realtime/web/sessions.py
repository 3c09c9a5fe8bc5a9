"""Sessions: those that run, the filters they may show, and who else still fits."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from engines import FrameModel, SettingsError, Size
from realtime.pipeline import Pipeline
from realtime.sinks import Sink
from realtime.sinks.browser import DEFAULT_QUALITY
from realtime.sources import Source
from realtime.sources.browser import BrowserSource
from realtime.web.session import LOCAL, Session

OPENING_AT_ONCE = 4
"""Threads that open filters: beside asyncio's own, which encode and decode video."""

PipelineMaker = Callable[[Source | str, FrameModel, Sink], Pipeline]
"""Makes the pipeline of a session from source, filter and sink."""


class SessionError(SettingsError):
    """There is no such session."""


class FilterError(SettingsError):
    """There is no such filter."""


class FullError(SettingsError):
    """No more sessions fit."""


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
        self.on_left: Callable[[], object] = lambda: None
        """Called on the loop when one has ended and freed everything, and when a page leaves it."""
        self._make = make
        self._running: dict[str, Session] = {}
        self._alive: set[Session] = set()
        """Those whose thread has not ended: opening, running, or still ending."""
        self._closing = False
        self._workers = ThreadPoolExecutor(OPENING_AT_ONCE, "pix2live opening")

    @property
    def default_filter(self) -> str:
        """The filter of a page that asks for none."""
        return next(iter(self.filters))

    @property
    def running(self) -> int:
        """How many browsers have their own camera translated."""
        return sum(session.kind == "browser" for session in self._alive)

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
            number=self._next_number(),
            workers=self._workers,
            quality=quality,
        )
        await self._start(session)
        return session

    async def start_local(self, source: Source | str, *, quality: int = DEFAULT_QUALITY) -> Session:
        """Start the session whose source is of this machine.

        Raises:
            Pix2liveError: source or engine cannot be opened.
        """
        model = self.model(self.default_filter)
        session = Session(
            LOCAL,
            source,
            lambda source, sink: self._make(source, model, sink),
            number=self._next_number(),
            workers=self._workers,
            quality=quality,
        )
        await self._start(session)
        self.local = session
        return session

    async def end(self, session: Session, reason: str = "stopped") -> None:
        """End a session, and forget it."""
        self._running.pop(session.id, None)
        await session.end(reason)

    async def close(self) -> None:
        """End all, and start none any more."""
        self._closing = True
        alive = tuple(self._alive)
        await asyncio.gather(*(self.end(session, "the server stops") for session in alive))
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _start(self, session: Session) -> None:
        if self._closing:
            raise SettingsError("the server stops")
        self._alive.add(session)
        session.on_end = self._has_ended  # it must not hold itself
        try:
            await session.start()
        except asyncio.CancelledError:
            # Not waited for: who cancels this may be in a hurry; until it has ended it counts.
            session.pipeline.stop()
            raise
        self._running[session.id] = session

    def _has_ended(self, session: Session) -> None:
        self._alive.discard(session)
        self.on_left()

    def _next_number(self) -> int:
        self.started += 1
        return self.started

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
