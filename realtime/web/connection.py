"""A connection before it has asked anything: how many there may be, how long, and garbage.

aiohttp answers what it cannot read before any middleware, with its version and a traceback in the
log for each; and it waits for ever for the first request of a connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from realtime.web.answers import CONTENT_SECURITY_POLICY, HEADERS, SAID
from realtime.web.limits import client_of

CONNECTIONS = 256
"""Of one client at a time. A browser has six, and one a WebSocket."""
FIRST_REQUEST_S = 15.0
KEEP_ALIVE_S = 60.0
LINGERS_S = 2.0
"""How long the rest of a request that was refused is read and thrown away."""
END_OF_HEADERS = b"\r\n\r\n"
log = logging.getLogger("pix2live.web")


class Connection(web.RequestHandler):
    """aiohttp's connection with limits, and with our own words for garbage."""

    __slots__ = ("_tail", "_timer", "_wait_s")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, wait_s: float) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # addresses may carry the token
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGERS_S,
        )
        self._wait_s = wait_s
        self._timer: asyncio.TimerHandle | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        stream = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, stream.abort)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._tail = self._tail[-3:] + data
            if END_OF_HEADERS in self._tail:
                self._stop_timer()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot read; errors of handlers are the guard's."""
        log.debug("%s sent what cannot be read", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        response = web.Response(status=status, text=SAID.get(status, SAID[400]), headers=HEADERS)
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.format(
            sockets="'self'"
        )
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        return response

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tail = b""


class _Counted(socket.socket):
    """An accepted socket that counts for its client from the first moment until it is closed.

    A connection is counted here and not in `Connection`, which begins after the TLS handshake:
    handshakes that never end would be free.
    """

    client: str | None = None
    of_clients: Counter[str]

    def close(self) -> None:
        if self.client is not None:
            self.of_clients[self.client] -= 1
            if self.of_clients[self.client] <= 0:
                del self.of_clients[self.client]
            self.client = None
        super().close()


class _Listening(socket.socket):
    """A listening socket that hangs up on whoever has `CONNECTIONS` already.

    The event loop accepts by this method, and takes ConnectionAbortedError for somebody who has
    left before.

    Args:
        listening: taken over; it is closed with this one.
    """

    def __init__(self, listening: socket.socket) -> None:
        kind = listening.family, listening.type, listening.proto
        super().__init__(*kind, fileno=listening.detach())
        self._of_clients: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        plain, address = super().accept()
        client = client_of(str(address[0]) if isinstance(address, tuple) else None)
        if self._of_clients[client] >= CONNECTIONS:
            plain.close()
            raise ConnectionAbortedError(f"{client} has {CONNECTIONS} connections")
        found = _Counted(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._of_clients[client] += 1
        found.of_clients, found.client = self._of_clients, client
        return found, address


async def accept(
    runner: web.AppRunner,
    listening: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    wait_s: float = FIRST_REQUEST_S,
) -> asyncio.Server:
    """Take connections of a listening socket for the application of `runner`, which is set up.

    In place of web.SockSite. Close what is returned before `runner.cleanup()`, which ends the
    connections. A client has `wait_s` for its first request, and for the TLS handshake. `listening`
    is taken over, and closed with what is returned.
    """
    server = runner.server
    assert server is not None, "runner.setup() comes first"
    loop = asyncio.get_running_loop()
    make: Callable[[], Connection] = lambda: Connection(server, loop, wait_s)  # noqa: E731
    handshake_s = None if tls is None else wait_s
    return await loop.create_server(
        make, sock=_Listening(listening), ssl=tls, ssl_handshake_timeout=handshake_s
    )
