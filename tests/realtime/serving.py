"""A real server in a thread of its own, with real engines; and a page without a browser."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import aiohttp
import cv2
import numpy as np

from engines import Engine, FrameModel, Pixels, filter_names, load_filter, open_engine
from realtime import Pipeline
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.web.addresses import Access, addresses_of
from realtime.web.server import WebServer
from realtime.web.sessions import Sessions
from realtime.web.strip import HEIGHT_PX, draw_strip

T = TypeVar("T")
TIMEOUT_S = 60.0


class Serving:
    """A server at loopback, and its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sessions: Sessions, server: WebServer):
        self.loop, self.sessions, self.server = loop, sessions, server
        self.port = server.port
        self.url = f"http://127.0.0.1:{self.port}"

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT_S)


def pipeline(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
    engine: Engine = open_engine(model)
    return Pipeline(source, engine, [sink], mode="freshest", overlay=False)


@contextmanager
def serving(
    source: str | None = None,
    *,
    most: int = 4,
    token: str | None = None,
    filters: Mapping[str, FrameModel] | None = None,
    make: Any = pipeline,
) -> Iterator[Serving]:
    """Serve until the block ends; ``source`` is that of the local session."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="serving")
    thread.start()
    offered = filters or {name: load_filter(name) for name in filter_names()}

    async def begin() -> Serving:
        sessions = Sessions(make, offered, most=most)
        access = Access(addresses_of("127.0.0.1"), 0, token)
        server = WebServer(sessions, access, "127.0.0.1")
        if source is not None:
            await sessions.start_local(source)
        await server.start()
        return Serving(loop, sessions, server)

    try:
        served = asyncio.run_coroutine_threadsafe(begin(), loop).result(TIMEOUT_S)
        try:
            yield served
        finally:
            served.call(served.server.close())
            served.call(_cancel_all())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _cancel_all() -> None:
    """Cancel what lingers: connections that had not sent everything."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
            message = await self.socket.receive(TIMEOUT_S)
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
            message = await self.socket.receive(TIMEOUT_S)
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
