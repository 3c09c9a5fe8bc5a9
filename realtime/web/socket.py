"""The WebSocket of one page: its camera's pictures in, translated ones and news out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from engines import FrameModel, Pix2liveError, SettingsError
from realtime.sinks.browser import DEFAULT_QUALITY, Picture
from realtime.web.broadcast import Subscription
from realtime.web.fade import read_crossfade
from realtime.web.keys import SESSIONS, SOCKETS
from realtime.web.limits import Bucket
from realtime.web.session import OvertakenError, Session
from realtime.web.sessions import FullError, Sessions

if TYPE_CHECKING:
    from realtime.web.rtc import Peer

LOG = logging.getLogger("pix2live.web")
MAX_MESSAGE = 4 * 2**20
"""Bytes of one message: a JPEG of the largest picture is smaller."""
MAX_TEXT = 65_536
"""Characters of one JSON message: an offer is the longest."""
MESSAGES_PER_S, MESSAGES_AT_ONCE = 300.0, 600.0
"""Three times what a page sends that translates 100 frames a second."""
UNDER_WAY = 3
"""Pictures on their way to a page that it has not shown yet."""
NO_ANSWER_S = 2.0
"""A page that says nothing of a picture for so long has lost it."""
HEARTBEAT_S = 10.0
IDLE_S = 120.0
"""A camera that sends nothing for so long gives its place to others."""
STATS_EVERY_S = 0.5
HEADER = struct.Struct("<5I")
"""Of a picture: index, the page's number, age in us, width, height."""
NO_NUMBER = 0xFFFFFFFF

LEAVING = {
    "start": "its camera was started again",
    "watch": "its page watches another one",
    "stop": "its camera was stopped",
}
"""What those who watch are told when a page asks for something else."""
COMMANDS = frozenset({"start", "watch", "switch", "quality", "offer", "shown", "stop"})
"""What a page may ask for; `PageSocket` has a method for each."""
BAD_MESSAGE, TOO_MANY = 1008, 1013
"""Codes with which a socket is closed (RFC 6455, section 7.4)."""


async def handle(request: web.Request) -> web.WebSocketResponse:
    """Serve one page until it goes."""
    socket = web.WebSocketResponse(
        max_msg_size=MAX_MESSAGE, heartbeat=HEARTBEAT_S, compress=False, timeout=2.0
    )
    await socket.prepare(request)
    page = PageSocket(socket, request.app[SESSIONS])
    sockets = request.app[SOCKETS]
    sockets.add(socket)
    try:
        await page.run()
    finally:
        sockets.discard(socket)
        await asyncio.shield(page.close())
    return socket


class PageSocket:
    """What one page has asked for: to translate its camera, or to watch, or nothing yet."""

    def __init__(self, socket: web.WebSocketResponse, sessions: Sessions) -> None:
        self._socket = socket
        self._sessions = sessions
        self._session: Session | None = None
        self._owns = False
        self._subscription: Subscription | None = None
        self._peer: Peer | None = None
        self._joining: asyncio.Task[None] | None = None
        """Opening a filter may take a while, in which the page must be heard."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[int] = set()
        self._room = asyncio.Event()
        self._heard_s = time.monotonic()

    async def run(self) -> None:
        """Hear the page until it goes, or breaks the rules."""
        bucket = Bucket(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        async for message in self._socket:
            if not bucket.take(time.monotonic()):
                await self._socket.close(code=TOO_MANY, message=b"too many messages")
                return
            if message.type is WSMsgType.BINARY:
                session = self._session
                if session is not None and self._owns and session.browser is not None:
                    self._heard_s = time.monotonic()
                    session.browser.offer(message.data, time.monotonic_ns())
            elif message.type is WSMsgType.TEXT and not await self._hear(message.data):
                await self._socket.close(code=BAD_MESSAGE, message=b"not understood")
                return

    async def close(self) -> None:
        """Leave the session; the page's own one ends."""
        await self._give_up_joining()
        await self._leave("its page has gone")

    async def _hear(self, text: str) -> bool:
        """Do what a JSON message asks for; returns whether it was one."""
        try:
            message = json.loads(text) if len(text) <= MAX_TEXT else None
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if message is None or not isinstance(kind, str) or kind not in COMMANDS:
            await self._say(type="failed", what="message", error="a message that nobody knows")
            return False
        command: Callable[[dict[str, Any]], Awaitable[None]] = getattr(self, f"_{kind}")
        if kind in ("start", "watch", "stop"):
            # Here, not in the task: what leaves must not be cancelled half-way.
            await self._give_up_joining()
            await self._leave(LEAVING[kind])
        if kind in ("start", "watch"):
            self._joining = asyncio.create_task(self._carry_out(command, message))
        else:
            await self._carry_out(command, message)
        return True

    async def _give_up_joining(self) -> None:
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)

    async def _carry_out(
        self, command: Callable[[dict[str, Any]], Awaitable[None]], message: dict[str, Any]
    ) -> None:
        try:
            await command(message)
        except FullError as error:
            counts = {"running": self._sessions.running, "most": self._sessions.most}
            await self._say(type="full", error=str(error), **counts)
        except Pix2liveError as error:
            await self._say(type="failed", what=message["type"], error=str(error))
        except Exception:  # a plug-in's own, or ours
            LOG.exception("a page's %s failed", message["type"])
            said = "something failed here; the terminal of pix2live says more"
            await self._say(type="failed", what=message["type"], error=said)

    async def _start(self, message: dict[str, Any]) -> None:
        size = _integer(message, "width"), _integer(message, "height")
        transport = message.get("transport", "websocket")
        if transport not in ("websocket", "webrtc"):
            raise SettingsError(f"a transport is websocket or webrtc, found {transport!r:.40}")
        session = await self._sessions.start_browser(
            size,
            message.get("filter"),
            quality=_integer(message, "quality", DEFAULT_QUALITY),
            strip=message.get("strip") is not False,
        )
        session.transport = transport
        self._owns = True
        self._heard_s = time.monotonic()
        await self._join(session, "filtered", pictures=transport == "websocket")

    async def _watch(self, message: dict[str, Any]) -> None:
        id_ = message.get("session")
        session = self._sessions.find(id_ if isinstance(id_, str) else None)
        await self._join(session, str(message.get("view", "filtered")), pictures=True)

    async def _join(self, session: Session, view: str, *, pictures: bool) -> None:
        self._session = session
        session.listeners.add(self._tell)
        if pictures:
            self._subscription = await session.subscribe(view)
            self._spawn(self._send_pictures(self._subscription))
        self._spawn(self._send_stats(session))
        await self._say(type="started", **session.describe())
        if session.ended.is_set():
            await self._say(type="ended", reason=session.reason)

    async def _switch(self, message: dict[str, Any]) -> None:
        session = self._steered()
        model = self._sessions.model(message.get("filter"))
        self._spawn(self._switch_to(session, model, read_crossfade(message)))

    async def _switch_to(self, session: Session, model: FrameModel, fade_ms: float) -> None:
        """Wait for the switch beside hearing the page; one that was overtaken is none."""

        async def switch(_: dict[str, Any]) -> None:
            with contextlib.suppress(OvertakenError):
                await session.switch(model, fade_ms)

        await self._carry_out(switch, {"type": "switch"})

    async def _quality(self, message: dict[str, Any]) -> None:
        self._steered().quality = _integer(message, "quality")

    async def _offer(self, message: dict[str, Any]) -> None:
        from realtime.web.rtc import Peer, why_not

        session, sdp = self._joined(), message.get("sdp")
        if not self._owns or session.browser is None or not isinstance(sdp, str):
            raise SettingsError("an offer is for a page's own camera, and has an sdp")
        if (reason := why_not()) is not None:
            raise SettingsError(reason)
        if self._peer is not None:
            await self._peer.close()
        self._peer = Peer(
            session.browser,
            lambda: session.broadcast.subscribe("pixels"),
            session.pipeline.size or session.browser.size,
            on_gone=lambda reason: self._tell({"type": "failed", "what": "peer", "error": reason}),
        )
        answer = await self._peer.answer(sdp)
        await self._say(type="answer", sdp=answer)

    async def _shown(self, message: dict[str, Any]) -> None:
        index = _integer(message, "index")
        self._under_way = {item for item in self._under_way if item > index}
        self._room.set()
        round_trip_ms = message.get("round_trip_ms")
        if not isinstance(round_trip_ms, (int, float)) or not 0 <= round_trip_ms < 60_000:
            return
        if self._owns and self._session is not None:
            if self._session.transport == "webrtc":  # its pictures do not come this way
                self._heard_s = time.monotonic()
            self._session.round_trips.add(int(round_trip_ms * 1e6), time.monotonic_ns())

    async def _stop(self, message: dict[str, Any]) -> None:
        """Nothing: it has left already."""

    async def _leave(self, reason: str) -> None:
        session, owned, peer = self._session, self._owns, self._peer
        self._session, self._owns, self._peer = None, False, None
        if session is not None:
            session.listeners.discard(self._tell)
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        for task in tuple(self._tasks):
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._under_way.clear()
            if peer is not None:
                await peer.close()
        finally:
            if session is not None:
                ending = self._sessions.end(session, reason) if owned else session.tidy()
                await asyncio.shield(ending)
                if session.ended.is_set():  # what it left in a circle was held here until now
                    self._sessions.on_left()

    def _steered(self) -> Session:
        session = self._joined()
        if not self._owns and session.kind != "local":
            raise SettingsError("only the page whose camera it is may change anything")
        return session

    def _joined(self) -> Session:
        if self._session is None:
            raise SettingsError("start or watch first")
        return self._session

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_pictures(self, subscription: Subscription) -> None:
        with contextlib.suppress(ConnectionError):
            while not self._socket.closed:
                await self._wait_for_room()
                picture = await subscription.next()
                if picture is None:
                    return
                self._under_way.add(picture.index)
                await self._socket.send_bytes(packed(picture))

    async def _wait_for_room(self) -> None:
        while len(self._under_way) >= UNDER_WAY:
            self._room.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._room.wait(), NO_ANSWER_S)
                continue
            self._under_way.clear()

    async def _send_stats(self, session: Session) -> None:
        with contextlib.suppress(ConnectionError):
            while not session.ended.is_set():
                await asyncio.sleep(STATS_EVERY_S)
                await self._say(type="stats", **self._stats(session))
                if self._owns and time.monotonic() - self._heard_s > IDLE_S:
                    session.pipeline.stop()
                    session.reason = f"no picture came for {IDLE_S:.0f} s"

    def _stats(self, session: Session) -> dict[str, Any]:
        """Return the session's, with what this page alone was too slow for."""
        stats = session.short_stats()
        if self._subscription is not None and self._subscription.dropped:
            stats["dropped"]["this page"] = self._subscription.dropped
            stats["dropped_total"] += self._subscription.dropped
        return stats

    def _tell(self, message: dict[str, Any]) -> None:
        async def say() -> None:
            await self._say(**message)

        self._spawn(say())

    async def _say(self, **message: Any) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has gone
            await self._socket.send_str(json.dumps(message))


def packed(picture: Picture) -> bytes:
    """Return a picture as it goes to a page: `HEADER`, then the JPEG."""
    assert picture.jpeg is not None
    age_us = (time.monotonic_ns() - picture.captured_ns) // 1000
    number = NO_NUMBER if picture.tag is None else picture.tag
    header = HEADER.pack(picture.index, number, min(age_us, NO_NUMBER), *picture.size)
    return header + picture.jpeg


def _integer(message: dict[str, Any], key: str, default: int | None = None) -> int:
    value = message.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{key} is a whole number, found {value!r:.40}")
    return value
