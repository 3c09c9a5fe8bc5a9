"""A real server behind the guard, with handlers of its own: a page, an API, a stream, a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from aiohttp import web
from attacks import Answer, request, send

from realtime.web.connection import accept
from realtime.web.guard import Access, addresses_of, protect

STARTS_WITHIN_S = 20.0
TOKEN = "correct-horse-battery-staple"
LOGIN = f"Authorization: Bearer {TOKEN}"
LINK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
"""What a browser says when a link of another site is followed."""


@dataclass
class Guarded:
    """The server, as seen from a test."""

    access: Access
    tls: ssl.SSLContext | None = None
    wait_s: float = 30.0
    now_s: float | None = None
    """What the guard takes for the time; None: a clock."""
    port: int = 0
    entered: list[str] = field(default_factory=list)
    """What came through to a handler."""

    def send(self, text: str, login: str = "X-No: token", source: str = "127.0.0.1") -> Answer:
        return send(self.port, text, login, source)

    def get(self, path: str, *headers: str, login: str = "X-No: token") -> Answer:
        return self.send(request(f"GET {path}", *headers, "Connection: close"), login)

    def wait(self, seconds: float = 3600.0) -> None:
        """Let time pass: what was counted is forgiven."""
        self.now_s = (self.now_s or 0.0) + seconds

    def clock(self) -> float:
        return time.monotonic() if self.now_s is None else self.now_s

    async def _answer(self, asked: web.Request) -> web.StreamResponse:
        self.entered.append(asked.path)
        if asked.path == "/api/boom":
            raise RuntimeError("a secret of /realtime/")
        if asked.path.endswith("/picky"):
            raise web.HTTPConflict(text="the filter <b>cannot</b> be opened")
        if asked.path == "/api/own":
            raise web.HTTPConflict(text='{"error": "own"}', content_type="application/json")
        if asked.path == "/api/moved":
            raise web.HTTPFound("/")
        if asked.path == "/api/kept":
            return web.Response(text="{}", headers={"Cache-Control": "max-age=60"})
        if asked.method == "POST":
            return web.json_response(await asked.json())
        return web.json_response({"path": asked.path})

    async def _stream(self, asked: web.Request) -> web.StreamResponse:
        self.entered.append(asked.path)
        response = web.StreamResponse()
        await response.prepare(asked)
        await response.write(b"picture")
        if asked.path == "/api/half":
            raise RuntimeError("the camera went away")
        return response

    async def _socket(self, asked: web.Request) -> web.StreamResponse:
        page = web.WebSocketResponse()
        await page.prepare(asked)
        self.entered.append(asked.path)
        await page.close()
        return page

    async def run(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        app = web.Application(client_max_size=65_536)
        protect(app, replace(self.access, port=self.port), clock=self.clock)
        gets = ("/", "/page/style.css", "/page/picky", "/api/state", "/api/boom", "/api/picky",
                "/api/own", "/api/moved", "/api/kept", "/frame.jpg", "/metrics")  # fmt: skip
        app.add_routes([web.get(path, self._answer) for path in gets])
        app.add_routes([web.get(path, self._stream) for path in ("/stream.mjpg", "/api/half")])
        app.add_routes([web.post("/api/switch", self._answer), web.get("/ws", self._socket)])
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        server = await accept(runner, listening, tls=self.tls, wait_s=self.wait_s)
        started.set()
        await self._stop.wait()
        server.close()
        await runner.cleanup()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)


@contextlib.contextmanager
def guarding(
    token: str | None = None,
    *,
    port: int = 0,
    hosts: frozenset[str] = addresses_of("127.0.0.1"),
    tls: ssl.SSLContext | None = None,
    wait_s: float = 30.0,
) -> Iterator[Guarded]:
    """Run a server in a thread of its own."""
    served = Guarded(Access(hosts, 0, token, tls is not None), tls, wait_s, port=port)
    started = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(served.run(started)), daemon=True)
    thread.start()
    try:
        assert started.wait(STARTS_WITHIN_S)
        yield served
    finally:
        served.stop()
        thread.join(STARTS_WITHIN_S)
        assert not thread.is_alive()
