"""Pictures for everything that is no page of ours: `/stream.mjpg` and `/frame.jpg`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import math
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from realtime.sinks.browser import Picture
from realtime.web.broadcast import Subscription
from realtime.web.keys import SESSIONS
from realtime.web.limits import client_of
from realtime.web.session import Session
from realtime.web.sessions import SessionError

STALLED_S: Final = 20.0
"""Who takes nothing for so long is sent away."""
FRAME_WITHIN_S: Final = 3.0
LOOK_S: Final = 0.5
"""How often somebody who waits for a picture looks whether the client is still there."""
SEND_BUFFER_BYTES: Final = 131_072
"""What waits in the kernel is old when it arrives: a few pictures at most."""
MOST_STREAMS: Final = 64
STREAMS_OF_CLIENT: Final = 8
FPS_LIMITS: Final = (0.1, 120.0)
BOUNDARY: Final = "pix2live-frame"
NEXT_PART: Final = f"\r\n--{BOUNDARY}\r\n".encode()
BARE_HEADERS: Final = b"Content-Type: image/jpeg\r\n\r\n"
_REFUSALS: Final[dict[int, Callable[..., web.HTTPException]]] = {
    400: web.HTTPBadRequest,
    404: web.HTTPNotFound,
    408: web.HTTPRequestTimeout,
    409: web.HTTPConflict,
    413: functools.partial(web.HTTPRequestEntityTooLarge, 0, 0),
    429: web.HTTPTooManyRequests,
    503: web.HTTPServiceUnavailable,
    504: web.HTTPGatewayTimeout,
}


def routes(
    *, stalled_s: float = STALLED_S, frame_within_s: float = FRAME_WITHIN_S
) -> list[web.RouteDef]:
    """Return the routes of `/stream.mjpg` and `/frame.jpg`, for one application.

    Args:
        stalled_s: after so long a reader that takes nothing is disconnected.
        frame_within_s: how long `/frame.jpg` waits for a picture.
    """
    streams = _Streams(stalled_s, frame_within_s)
    return [web.get("/stream.mjpg", streams.stream), web.get("/frame.jpg", streams.frame)]


def refusal(status: int, why: str) -> web.HTTPException:
    """Return the error to raise for ``{"error": why}`` with a ``status`` that this API uses."""
    return _REFUSALS[status](text=json.dumps({"error": why}), content_type="application/json")


def find_session(request: web.Request, id_: str | None = None) -> Session:
    """Return the session that is running under ``id_``, or else the one that the query names.

    Raises:
        web.HTTPNotFound: there is none, or it is over.
    """
    try:
        session = request.app[SESSIONS].find(request.query.get("session") if id_ is None else id_)
    except SessionError as error:
        raise refusal(404, str(error)) from error
    if session.ended.is_set():
        raise refusal(404, f"this session is over: {session.reason}")
    return session


class Places:
    """Places for responses without an end: so many in all, and so many of one client.

    Thread: the loop's.
    """

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, remote: str | None, most: int, of_client: int, what: str) -> Iterator[None]:
        """Have a place while the context lasts.

        Args:
            remote: the address of who wants it.
            most: how many there are.
            of_client: how many one client may have.
            what: what they are for, for a person.

        Raises:
            web.HTTPServiceUnavailable: all are taken.
            web.HTTPTooManyRequests: the client has as many as it may.
        """
        client = client_of(remote)
        if self._taken.total() >= most:
            raise refusal(503, f"{most} {what} run already; try again later")
        if self._taken[client] >= of_client and not may_have_all(client):
            raise refusal(429, f"{of_client} {what} go to this address already: close one of them")
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


def may_have_all(client: str) -> bool:
    """Return whether a client is this machine: a proxy on it speaks for many."""
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


class Reader:
    """The client of a response without an end: it may be slow, stuck or gone, and delays nobody.

    Nothing queues for it: `send` returns when all was handed to the kernel, whose own buffer is
    kept small. Thread: the loop's.
    """

    def __init__(
        self, request: web.Request, response: web.StreamResponse, stalled_s: float = STALLED_S
    ) -> None:
        self._request = request
        self._response = response
        self._stalled_s = stalled_s
        self._writer: AbstractStreamWriter | None = None

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def open(self) -> None:
        """Send the headers."""
        transport = self._request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=1)  # at 0 TLS would pause with nothing to send
            connection = transport.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):  # only older pictures without it
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._response.force_close()  # the connection is of no use to anybody after this
        self._writer = await self._response.prepare(self._request)

    async def send(self, data: bytes) -> bool:
        """Send ``data`` and wait until it has left; False when nobody takes it any more."""
        if self.gone:
            return False
        writing = asyncio.ensure_future(self._write(data))
        try:
            while True:
                unsent = self._unsent()
                # Not wait_for: the connection could not be waited for again after its cancelling.
                await asyncio.wait([writing], timeout=self._stalled_s)
                if writing.done():
                    break
                if self._unsent() >= unsent:
                    if self._request.transport is not None:
                        self._request.transport.abort()
                    return False
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        return not writing.cancelled() and writing.exception() is None

    async def close(self) -> None:
        """End the response, where somebody is there to see it."""
        if not self.gone:
            with contextlib.suppress(OSError):
                await self._response.write_eof()

    async def _write(self, data: bytes) -> None:
        await self._response.write(data)
        if self._writer is not None:
            await self._writer.drain()

    def _unsent(self) -> int:
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()


class _Streams:
    """The handlers of one application."""

    def __init__(self, stalled_s: float, frame_within_s: float) -> None:
        self._stalled_s = stalled_s
        self._frame_within_s = frame_within_s
        self._places = Places()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send each picture as a part: the freshest one when the one before has left.

        The boundary of the next part goes along with each. Chromium shows a picture only when it
        has the headers of the next part too, so browsers get these at once, and therefore without
        what is not known yet: length, time and age. All others get them.
        """
        session = find_session(request)
        gap_s = _gap_s(request)
        content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        response = web.StreamResponse(
            headers={"Content-Type": content_type, "Cache-Control": "no-store"}
        )
        if request.method == "HEAD":
            return response
        early = BARE_HEADERS if "Mozilla/" in request.headers.get("User-Agent", "") else b""
        with self._places.take(request.remote, MOST_STREAMS, STREAMS_OF_CLIENT, "streams"):
            subscription = session.broadcast.subscribe()
            reader = Reader(request, response, self._stalled_s)
            try:
                await reader.open()
                await _stream(reader, subscription, gap_s, early)
                await reader.close()
            except ConnectionError:
                pass  # it left while it was greeted
            finally:
                subscription.close()
        return response

    async def frame(self, request: web.Request) -> web.StreamResponse:
        """Send the next picture."""
        session = find_session(request)
        if request.method == "HEAD":
            return web.Response(content_type="image/jpeg", headers={"Cache-Control": "no-store"})
        subscription = session.broadcast.subscribe()
        try:
            picture = await asyncio.wait_for(subscription.next(), self._frame_within_s)
        except asyncio.TimeoutError as error:
            waited = f"no picture came within {self._frame_within_s:g} s"
            raise refusal(504, f"{waited}: the camera is slow or paused") from error
        finally:
            subscription.close()
        if picture is None or picture.jpeg is None:
            raise refusal(404, f"this session is over: {session.reason}")
        headers = {"Cache-Control": "no-store", **_stamps(picture)}
        return web.Response(body=picture.jpeg, content_type="image/jpeg", headers=headers)


async def _stream(
    reader: Reader, subscription: Subscription, gap_s: float, early_headers: bytes
) -> None:
    """Send parts until reader or session go; ``early_headers`` go out ahead of each picture."""
    behind = NEXT_PART + early_headers
    is_open = await reader.send(behind.lstrip())
    due_s = -math.inf
    while is_open:
        while (pause_s := due_s - time.monotonic()) > 0:
            if reader.gone:
                return
            await asyncio.sleep(min(pause_s, LOOK_S))
        picture = await _next(reader, subscription)
        if picture is None or picture.jpeg is None:
            return
        due_s = max(due_s + gap_s, time.monotonic())  # on the beat, without catching up
        headers = b"" if early_headers else _part_headers(picture)
        is_open = await reader.send(b"".join((headers, picture.jpeg, behind)))


async def _next(reader: Reader, subscription: Subscription) -> Picture | None:
    """Wait for a picture; None when there will be none, or the reader is gone."""
    waiting = asyncio.ensure_future(subscription.next())
    try:
        while not reader.gone:
            await asyncio.wait([waiting], timeout=LOOK_S)
            if waiting.done():
                return waiting.result()
    finally:
        waiting.cancel()
    return None


def _part_headers(picture: Picture) -> bytes:
    assert picture.jpeg is not None
    headers = {"Content-Type": "image/jpeg", "Content-Length": str(len(picture.jpeg))}
    headers |= _stamps(picture)
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def _stamps(picture: Picture) -> dict[str, str]:
    """Return when the picture was captured (seconds since 1970), and how old it is."""
    age_s = (time.monotonic_ns() - picture.captured_ns) / 1e9
    return {"X-Timestamp": f"{time.time() - age_s:.6f}", "X-Age-Ms": f"{age_s * 1e3:.1f}"}


def _gap_s(request: web.Request) -> float:
    """Return the least time between two parts, by ``?fps=``.

    Raises:
        web.HTTPBadRequest: it is no number, or out of range.
    """
    asked = request.query.get("fps")
    if asked is None:
        return 0.0
    lowest, highest = FPS_LIMITS
    try:
        fps = float(asked)
    except ValueError:
        fps = math.nan
    if not lowest <= fps <= highest:
        raise refusal(400, f"fps is a number from {lowest:g} to {highest:g}, found {asked[:40]!r}")
    return 1 / fps
