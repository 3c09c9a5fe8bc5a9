"""What the tests of the web API share: its routes alone, with real sessions, and a reader."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from aiohttp import web
from loopback import PATIENCE_S, AppServer, wait_for

from engines import Engine, FrameModel, Pixels, load_filter
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.web.keys import SESSIONS
from realtime.web.session import Session
from realtime.web.sessions import Sessions


def identity(_: FrameModel | None) -> Engine:
    return IdentityEngine(None)


class Server(AppServer):
    """Routes and real sessions, without a guard."""

    run = AppServer.call

    def __init__(
        self,
        routes: Iterable[web.RouteDef],
        *,
        filters: Mapping[str, FrameModel] | None = None,
        engine: Callable[[FrameModel | None], Any] = identity,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        def make(source: Source | str, model: FrameModel | None, sink: Sink) -> Pipeline:
            return Pipeline(source, engine(model), [sink], mode="freshest")

        self._routes = routes
        self.sessions = Sessions(make, filters or {"comic": load_filter("comic")})
        super().__init__(tls=tls, access_log=None, shutdown_timeout=5.0, lingering_time=0.5)
        self.tasks_before = len(self.tasks())

    def _application(self) -> web.Application:
        app = web.Application()
        app[SESSIONS] = self.sessions
        app.add_routes(self._routes)
        return app

    async def _end(self) -> None:
        await self.sessions.close()
        await super()._end()

    def request(
        self, path: str, body: bytes | None = None, method: str = "", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask once; returns the response and its whole body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def listen(
        self, path: str, *, receive_buffer: int | None = None, version: str = "1.0", **headers: str
    ) -> Listener:
        """Ask for something that does not end."""
        lines = [f"GET {path} HTTP/{version}", "Host: 127.0.0.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        listener = Listener(self.port, receive_buffer, self.tls is not None)
        listener.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        return listener

    def start_camera(self, size: tuple[int, int]) -> Session:
        """Start a session whose pictures a test hands over by `show`."""
        return self.run(self.sessions.start_browser(size, None, strip=False))


class Listener:
    """Reads a response without an end. By HTTP/1.0, because there what comes is what was sent."""

    def __init__(self, port: int, receive_buffer: int | None, is_tls: bool) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:  # before it connects, or it does not count
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        if is_tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.read_bytes = 0
        self._rest = b""

    def until(self, end: bytes) -> bytes:
        """Return what comes up to ``end``, with it; EOFError where the response ends before."""
        while end not in self._rest:
            self._more()
        found, _, self._rest = self._rest.partition(end)
        return found + end

    def exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def to_the_end(self) -> bytes:
        try:
            while True:
                self._more()
        except (EOFError, ConnectionError):
            found, self._rest = self._rest, b""
            return found

    def close(self) -> None:
        self.socket.close()

    def _more(self) -> None:
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise EOFError
        self.read_bytes += len(chunk)
        self._rest += chunk


def show(session: Session, pixels: Pixels) -> None:
    """Hand a picture to a session as its page would; returns when it was translated."""
    assert session.browser is not None
    before = session.pipeline.stats.engine_out.count
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    session.browser.offer(encoded.tobytes(), time.monotonic_ns())
    wait_for(lambda: session.pipeline.stats.engine_out.count > before, "it was not translated")


def numbered(number: int, size: tuple[int, int], seed: int = 0) -> Pixels:
    """Return noise, which makes large JPEGs, with ``number`` (0 to 63) as the grey of a corner."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture[:32, :32] = number * 4
    return picture


def number_of(jpeg: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return round(float(picture[4:28, 4:28].mean()) / 4)
