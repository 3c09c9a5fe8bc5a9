"""A real WebRTC peer in the place of a browser, and a server without an engine."""

from __future__ import annotations

import cv2  # isort: skip
import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

import av
import numpy as np
import pytest
from clips import quadrants

from engines import Pixels
from realtime.frame import Frame
from realtime.sinks.browser import BrowserSink
from realtime.sources.browser import BrowserSource
from realtime.web.broadcast import Broadcast
from realtime.web.rtc import Peer
from realtime.web.strip import HEIGHT_PX, draw_strip, read_strip

P = ParamSpec("P")
aiortc = pytest.importorskip("aiortc", reason="WebRTC is an extra")
WIDTH, HEIGHT = SIZE = 192, 96
LATE_S = 60.0
"""Nothing takes so long, on the busiest machine."""

with contextlib.suppress(ImportError):
    from aioice.ice import get_host_addresses

    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("no network but loopback, which aioice leaves out", allow_module_level=True)


def wire_picture(number: int) -> Pixels:
    picture = np.empty((HEIGHT + HEIGHT_PX, WIDTH, 3), np.uint8)
    picture[:HEIGHT] = quadrants(WIDTH, HEIGHT)
    draw_strip(picture[HEIGHT:], number)
    return picture


class Camera(aiortc.VideoStreamTrack):  # type: ignore[misc,name-defined]
    """A page's canvas: pictures with strips, 30 a second."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.size = (WIDTH, HEIGHT + HEIGHT_PX)
        self.full_range = False
        """As Chromium sends a canvas: BT.709 from 0 to 255; else BT.601 from 16 to 235."""

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = cv2.resize(wire_picture(self.number), self.size, interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(np.asarray(picture, np.uint8), format="bgr24").reformat(
            format="yuv420p",
            dst_colorspace="ITU709" if self.full_range else "ITU601",
            dst_color_range="JPEG" if self.full_range else "MPEG",
        )
        frame.pts, frame.time_base = pts, time_base
        self.number += 1
        return frame


class Page:
    """The browser's side."""

    def __init__(self) -> None:
        self.camera = Camera()
        self.connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.connection.addTrack(self.camera)
        self.connection.on("track", self._begin)
        self.came = asyncio.Event()
        self.newest: Pixels | None = None
        self.numbers: list[int | None] = []
        self.lags: list[int] = []
        """How many pictures were sent since that of each one that came back."""
        self._task: asyncio.Task[None] | None = None

    def _begin(self, track: Any) -> None:
        self._task = asyncio.ensure_future(self._receive(track))

    async def _receive(self, track: Any) -> None:
        with contextlib.suppress(aiortc.mediastreams.MediaStreamError):
            while True:
                frame = await track.recv()
                picture = frame.to_ndarray(format="bgr24", threads=1)
                assert picture.shape == (HEIGHT + HEIGHT_PX, WIDTH, 3)
                number = read_strip(picture[HEIGHT:])
                self.newest = picture
                self.numbers.append(number)
                if number is not None:
                    self.lags.append(self.camera.number - 1 - number)
                self.came.set()

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def connect(self, peer: Peer) -> None:
        answer = await peer.answer(await self.offer())
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    async def see(self, count: int) -> None:
        """Wait until so many more pictures are back."""
        wanted = len(self.numbers) + count
        while len(self.numbers) < wanted:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), LATE_S)

    async def close(self) -> None:
        connection = self.connection
        early = connection.connectionState in ("new", "connecting")
        await connection.close()
        if self._task is not None:
            self._task.cancel()  # a track that was never connected never ends
            await asyncio.gather(self._task, return_exceptions=True)
        if early:
            await asyncio.sleep(0.1)
            for receiver in connection.getReceivers():
                await receiver.transport.transport._connection.close()


class Server:
    """A source, a thread in the place of an engine that inverts, a sink, a broadcast."""

    def __init__(self) -> None:
        self.slow_s = 0.0
        self.source = BrowserSource(SIZE)
        self.broadcast = Broadcast(asyncio.get_running_loop())
        self.peers: list[Peer] = []
        self.gone: list[str] = []
        self.heard_of_it = asyncio.Event()
        self.newest: Pixels | None = None
        """What came, as the engine gets it."""
        self._sink = BrowserSink(self.broadcast, tag=self.source.tag)
        self._thread = threading.Thread(target=self._run)

    def peer(self) -> Peer:
        self.peers.append(
            Peer(self.source, lambda: self.broadcast.subscribe("pixels"), SIZE, on_gone=self.hear)
        )
        return self.peers[-1]

    def hear(self, reason: str) -> None:
        self.gone.append(reason)
        self.heard_of_it.set()

    def _run(self) -> None:
        frame = Frame(np.empty((HEIGHT, WIDTH, 3), np.uint8))
        while self.source.read(frame):
            frame.index += 1
            self.newest = frame.pixels.copy()
            time.sleep(self.slow_s)
            self._sink.write(Frame(255 - frame.pixels, None, frame.index, frame.captured_ns))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        self.source.open(None, realtime=True)
        self._thread.start()
        try:
            yield self
        finally:
            for peer in self.peers:
                await peer.close()
            self.broadcast.close()
            self.source.cancel()
            self._thread.join()


@contextlib.asynccontextmanager
async def meeting() -> AsyncIterator[tuple[Page, Peer, Server]]:
    """Make a page and the server's peer for it, not connected yet; the server is closed first."""
    page = Page()
    try:
        async with Server().running() as server:
            yield page, server.peer(), server
    finally:
        await page.close()


def on_a_loop(
    test: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Make a test that pytest can call of a coroutine function, by `run` (a decorator)."""

    @wraps(test)
    def called(*args: P.args, **options: P.kwargs) -> None:
        run(lambda: test(*args, **options))

    return called


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work``; whatever fails unseen in a task or callback, fails."""
    unseen: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        await work()
        for _ in range(20):
            await asyncio.sleep(0.01)
            if len(asyncio.all_tasks()) == 1:
                break
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks that nobody ends: {left}"
        gc.collect()  # a task that failed and was not looked at says so when it is freed
        await asyncio.sleep(0)

    asyncio.run(main())
    assert not unseen
    assert not [thread for thread in threading.enumerate() if "decoder" in thread.name]


def handles() -> int:
    gc.collect()
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@cache
def an_offer() -> str:
    """Return what a page offers."""
    found: list[str] = []

    async def make() -> None:
        page = Page()
        found.append(await page.offer())
        await page.close()

    asyncio.run(make())
    return found[0]
