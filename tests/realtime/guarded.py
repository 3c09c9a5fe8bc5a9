"""The guard before handlers of a test's own: a page, an API, a stream, a socket."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace

from aiohttp import web
from attacks import Answer, request, send
from loopback import AppServer

from realtime.web.guard import Access, addresses_of, protect

TOKEN = "correct-horse-battery-staple"
LOGIN = f"Authorization: Bearer {TOKEN}"
LINK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
"""What a browser says when a link of another site is followed."""


class Guarded(AppServer):
    """The server, as seen from a test."""

    def __init__(
        self, access: Access, tls: ssl.SSLContext | None, wait_s: float, *, port: int
    ) -> None:
        self.access = access
        self.now_s: float | None = None
        """What the guard takes for the time; None: a clock."""
        self.entered: list[str] = []
        """What came through to a handler."""
        super().__init__(port=port, tls=tls, wait_s=wait_s, shutdown_timeout=1.0)

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

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=65_536)
        protect(app, replace(self.access, port=self.port), clock=self.clock)
        gets = ("/", "/page/style.css", "/page/picky", "/api/state", "/api/boom", "/api/picky",
                "/api/own", "/api/moved", "/api/kept", "/frame.jpg", "/metrics")  # fmt: skip
        app.add_routes([web.get(path, self._answer) for path in gets])
        app.add_routes([web.get(path, self._stream) for path in ("/stream.mjpg", "/api/half")])
        app.add_routes([web.post("/api/switch", self._answer), web.get("/ws", self._socket)])
        return app


def guarding(
    token: str | None = None,
    *,
    port: int = 0,
    hosts: frozenset[str] = addresses_of("127.0.0.1"),
    tls: ssl.SSLContext | None = None,
    wait_s: float = 30.0,
) -> Guarded:
    """Serve until the block ends."""
    return Guarded(Access(hosts, 0, token, tls is not None), tls, wait_s, port=port)
