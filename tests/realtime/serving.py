"""The real server, with real engines; and a page without a browser."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import cv2
import numpy as np
from loopback import PATIENCE_S, LoopThread

from engines import Engine, FrameModel, Pixels, filter_names, load_filter, open_engine
from realtime import Pipeline
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.web.addresses import Access, addresses_of
from realtime.web.server import WebServer
from realtime.web.sessions import Sessions
from realtime.web.strip import HEIGHT_PX, draw_strip

T = TypeVar("T")


class Serving(LoopThread):
    """A server at loopback; ``source`` is that of the local session."""

    def __init__(
        self,
        source: str | None,
        *,
        most: int,
        token: str | None,
        filters: Mapping[str, FrameModel],
        make: Any,
    ) -> None:
        super().__init__()
        try:
            self.call(self._begin(source, Sessions(make, filters, most=most), token))
        except BaseException:
            self._stop()
            raise
        self.port = self.server.port
        self.url = f"http://127.0.0.1:{self.port}"

    async def _begin(self, source: str | None, sessions: Sessions, token: str | None) -> None:
        self.sessions = sessions
        self.server = WebServer(sessions, Access(addresses_of("127.0.0.1"), 0, token), "127.0.0.1")
        if source is not None:
            await sessions.start_local(source)
        await self.server.start()

    async def _end(self) -> None:
        await self.server.close()


def pipeline(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
    engine: Engine = open_engine(model)
    return Pipeline(source, engine, [sink], mode="freshest", overlay=False)


def serving(
    source: str | None = None,
    *,
    most: int = 4,
    token: str | None = None,
    filters: Mapping[str, FrameModel] | None = None,
    make: Any = pipeline,
) -> Serving:
    """Serve until the block ends."""
    offered = filters or {name: load_filter(name) for name in filter_names()}
    return Serving(source, most=most, token=token, filters=offered, make=make)


class Page:
    """What a page does, without a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.size = (0, 0)
        self.sent: dict[int, Pixels] = {}

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """Return the next JSON message of one of ``kinds`` (default: any but stats)."""
        while True:
            message = await self.socket.receive(PATIENCE_S)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.TEXT:
                found: dict[str, Any] = json.loads(message.data)
                if found["type"] in kinds or (not kinds and found["type"] != "stats"):
                    return found

    async def start(self, size: tuple[int, int] = (96, 64), **more: Any) -> dict[str, Any]:
        self.size = size
        await self.say(type="start", width=size[0], height=size[1], **more)
        return await self.hear("started", "failed", "full")

    async def send(self, number: int, pixels: Pixels) -> None:
        """Send a picture with its strip."""
        wire = np.zeros((pixels.shape[0] + HEIGHT_PX, pixels.shape[1], 3), np.uint8)
        wire[: pixels.shape[0]] = pixels
        draw_strip(wire[pixels.shape[0] :], number)
        encoded = cv2.imencode(".jpg", wire, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        self.sent[number] = np.asarray(decoded[: pixels.shape[0]], np.uint8)
        await self.socket.send_bytes(encoded)

    async def picture(self, *, answer: bool = True) -> tuple[int, int, Pixels]:
        """Return index, number and pixels of the next picture."""
        while True:
            message = await self.socket.receive(PATIENCE_S)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.BINARY:
                break
        index, number, _, width, height = struct.unpack("<5I", message.data[:20])
        pixels = cv2.imdecode(np.frombuffer(message.data[20:], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (height, width, 3)
        if answer:
            await self.say(type="shown", index=index, round_trip_ms=1.0)
        return index, number, np.asarray(pixels, np.uint8)


@asynccontextmanager
async def opened(served: Serving, **options: Any) -> AsyncIterator[Page]:
    """Open a page."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{served.url}/ws", **options) as socket,
    ):
        yield Page(socket)


def moving(number: int, size: tuple[int, int] = (96, 64)) -> Pixels:
    """Return a soft picture that differs with its number."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [
        np.sin((x + 7 * number) / 11 + k) + np.cos((y - 3 * number) / 9 + 2 * k) for k in (0, 1, 2)
    ]
    return np.asarray(np.dstack(waves) * 60 + 128, np.uint8)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 90))


async def settled(served: Serving) -> None:
    """Wait until all that have gone are forgotten."""
    while served.sessions.running:
        await asyncio.sleep(0.02)
