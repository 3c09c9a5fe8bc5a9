"""The server of the page: routes, start and stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.resources import files

from aiohttp import WSCloseCode, web

from engines import SinkError
from realtime.web import api, streams
from realtime.web.addresses import Access
from realtime.web.connection import accept
from realtime.web.guard import MOST_BODY_BYTES, protect
from realtime.web.keys import SESSIONS, SOCKETS
from realtime.web.sessions import Sessions
from realtime.web.socket import handle

STOPS_WITHIN_S = 5.0
CONTENT_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


class WebServer:
    """Serves the page and everything behind it, on one event loop.

    Args:
        sessions: what runs; ended by `close`.
        access: who is let in, and the port; 0 takes any that is free.
        host: the address to listen at.
        tls: the certificate; None serves HTTP.

    Raises:
        SinkError: the address or port cannot be had.
    """

    def __init__(
        self, sessions: Sessions, access: Access, host: str, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._sockets = _listen(host, access.port)
        self.port = int(self._sockets[0].getsockname()[1])
        """Where it listens."""
        access = replace(access, port=self.port)
        self._sessions = sessions
        self._tls = tls
        app = web.Application(client_max_size=MOST_BODY_BYTES)
        protect(app, access)
        app[SESSIONS] = sessions
        app[SOCKETS] = set()
        app.on_shutdown.append(_close_sockets)
        app.add_routes([*_page_routes(), web.get("/ws", handle)])
        app.add_routes([*api.routes(), *streams.routes()])
        self._accepting: list[asyncio.Server] = []
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=STOPS_WITHIN_S, lingering_time=1.0
        )

    async def start(self) -> None:
        """Let people in."""
        await self._runner.setup()
        for item in self._sockets:
            self._accepting.append(await accept(self._runner, item, tls=self._tls))

    async def close(self) -> None:
        """Let everybody go, and end all sessions."""
        for item in self._accepting:
            item.close()
        await self._sessions.close()
        await self._runner.cleanup()
        for listening in self._sockets:
            listening.close()


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of ``host``, all with one port."""
    listening: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((item[0], item[4]) for item in found):
            if listening:
                address = (address[0], listening[0].getsockname()[1], *address[2:])  # noqa: PLW2901
            listening.append(socket.create_server(address[:2], family=family))
    except OSError as error:
        for item in listening:
            item.close()
        raise SinkError(
            f"cannot listen at {host} port {port}: {error.strerror or error}; another --port or"
            " --host may be free"
        ) from error
    return listening


async def _close_sockets(app: web.Application) -> None:
    sockets: set[web.WebSocketResponse] = app[SOCKETS]
    goodbyes = [
        item.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops") for item in sockets
    ]
    await asyncio.gather(*goodbyes, return_exceptions=True)


def _page_routes() -> list[web.RouteDef]:
    """Return a route for each file of the page: no name of a request ever reaches the disk."""
    routes = []
    for file in (files("realtime.web") / "page").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in CONTENT_TYPES:
            handler = _file_handler(file.read_bytes(), CONTENT_TYPES[suffix])
            routes.append(web.get(f"/page/{file.name}", handler))
            if file.name == "index.html":
                routes.append(web.get("/", handler))
    return routes


def _file_handler(
    body: bytes, content_type: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        charset = None if content_type == "image/svg+xml" else "utf-8"
        return web.Response(body=body, content_type=content_type, charset=charset)

    return handle
