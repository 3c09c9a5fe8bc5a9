"""WebRTC with a real peer at the other end: pictures there and back, ends of all kinds, garbage."""

from __future__ import annotations

import cv2  # isort: skip
import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import quadrants
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import Pixels
from realtime.frame import Frame
from realtime.sinks.browser import BrowserSink
from realtime.sources.browser import BrowserSource
from realtime.web import rtc
from realtime.web.broadcast import Broadcast
from realtime.web.rtc import Peer, PeerError, check_offer
from realtime.web.rtc_media import DecoderQueue, Reassembly, Vp8Encoder
from realtime.web.strip import HEIGHT_PX, draw_strip, read_strip

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

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        planes: Any = cv2.cvtColor(wire_picture(self.number), cv2.COLOR_BGR2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
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


def test_pictures_go_there_and_back_with_their_numbers() -> None:
    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            assert peer.state == "new"
            await page.connect(peer)
            await page.see(40)
            assert peer.state == "connected"
            assert peer.received >= 40
            assert peer.sent >= 40
            assert server.broadcast.wants("pixels")
            assert not server.broadcast.wants("jpeg")
            await peer.close()
            assert peer.state == "closed"
            assert not server.broadcast.wants("pixels")
            assert server.gone == [], "who closes needs not be told"
        await page.close()
        numbers = [number for number in page.numbers if number is not None]
        assert len(numbers) == len(page.numbers), "each strip can be read"
        assert numbers == sorted(set(numbers)), "none twice, none out of order"
        assert page.newest is not None
        inverted = 255.0 - quadrants(WIDTH, HEIGHT)
        away = np.abs(page.newest[:HEIGHT] - inverted)
        assert away.mean() < 6, "the translated picture, in its colours"

    run(work)


def test_our_parts_are_in_their_places() -> None:
    """Else they are private to this aiortc, and it is slow without a word."""

    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            await page.connect(peer)
            assert peer.notes == []
            assert peer._connection is not None
            receiver = peer._connection.getReceivers()[0]
            sender = peer._connection.getSenders()[0]
            await page.see(3)
            assert isinstance(vars(receiver)["_RTCRtpReceiver__decoder_queue"], DecoderQueue)
            assert isinstance(vars(receiver)["_RTCRtpReceiver__jitter_buffer"], Reassembly)
            encoder = vars(sender)["_RTCRtpSender__encoder"]
            assert isinstance(encoder, Vp8Encoder)
            assert encoder.opened == 1
        await page.close()

    run(work)


def test_a_slow_engine_makes_nothing_pile_up() -> None:
    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            await page.connect(server.peer())
            await page.see(20)
            server.slow_s = 0.2
            await page.see(15)  # in which 90 are sent
            slow = page.lags[-5:]
            server.slow_s = 0.0
            await page.see(30)
            after = page.lags[-5:]
        await page.close()
        assert max(slow) < 45, "each picture is as old as two that the engine makes, and no older"
        assert max(after) < 15
        assert sorted(slow)[2] > sorted(after)[2], "it was slow"

    run(work)


def test_a_page_that_says_goodbye_is_gone_at_once() -> None:
    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            await page.connect(peer)
            await page.see(3)
            await page.close()
            await asyncio.wait_for(server.heard_of_it.wait(), LATE_S)
            assert server.gone == ["the WebRTC connection is closed"]
            await peer.close()
            assert server.gone == ["the WebRTC connection is closed"], "told once"
            assert not server.broadcast.wants("pixels")

    run(work)


VANISHING = """
import asyncio, sys
sys.path[:0] = {path!r}
from test_rtc import Page, aiortc

async def main():
    page = Page()
    print((await page.offer()).replace("\\r\\n", "|"), flush=True)
    answer = sys.stdin.readline().strip().replace("|", "\\r\\n")
    await page.connection.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    await page.see(5)
    print("seen", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_page_that_vanishes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "SILENT_S", 2.5)
    here = Path(__file__).resolve()
    code = VANISHING.format(path=[str(here.parents[2]), str(here.parent)])

    async def work() -> None:
        browser = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )
        assert browser.stdout is not None
        assert browser.stdin is not None
        try:
            async with Server().running() as server:
                offer = (await browser.stdout.readline()).decode().strip().replace("|", "\r\n")
                answer = await server.peer().answer(offer)
                browser.stdin.write(answer.replace("\r\n", "|").encode() + b"\n")
                assert (await browser.stdout.readline()).strip() == b"seen"
                assert server.gone == []
                browser.kill()
                await asyncio.wait_for(server.heard_of_it.wait(), LATE_S)
                assert server.gone == ["nothing came from the browser for 2 s"]
        finally:
            with contextlib.suppress(ProcessLookupError):
                browser.kill()
            browser.stdin.close()
            await browser.wait()
            with contextlib.suppress(ConnectionError):
                await browser.stdin.wait_closed()

    run(work)


def test_a_page_that_never_connects_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "CONNECTS_WITHIN_S", 0.3)

    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            await peer.answer(await page.offer())
            await asyncio.wait_for(server.heard_of_it.wait(), LATE_S)
            assert server.gone == ["the browser did not connect within 0 s"]
            await peer.close()
            assert peer.state == "closed"
        await page.close()

    run(work)


def test_the_end_of_the_pictures_is_no_end_of_the_world() -> None:
    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            await page.connect(peer)
            await page.see(3)
            server.broadcast.close()
            received = peer.received
            while peer.received < received + 5:
                await asyncio.sleep(0.01)
            assert server.gone == [], "its owner knows why"
        await page.close()

    run(work)


def test_closing_at_any_moment() -> None:
    """Before the offer, while it connects, in the midst of pictures, twice, all at once."""

    async def work() -> None:
        async with Server().running() as server:
            peer = server.peer()
            await peer.close()
            await peer.close()
            with pytest.raises(PeerError, match="start again"):
                await peer.answer("")
            for wait_s in (0.0, 0.01, 0.05, 0.1, 0.2):
                page, peer = Page(), server.peer()
                await page.connect(peer)
                await asyncio.sleep(wait_s)
                await asyncio.gather(peer.close(), peer.close(), page.close())
            page, peer = Page(), server.peer()
            offer = await page.offer()
            answering = asyncio.ensure_future(peer.answer(offer))
            await asyncio.sleep(0)
            await peer.close()
            await asyncio.gather(answering, return_exceptions=True)
            await page.close()

    run(work)


def test_connects_and_disconnects_leave_nothing() -> None:
    async def work() -> None:
        async with Server().running() as server:
            before = 0
            for count in range(20):
                page, peer = Page(), server.peer()
                await page.connect(peer)
                await page.see(2)
                await (page if count % 2 else peer).close()
                await (peer if count % 2 else page).close()
                server.peers.clear()
                if count == 4:
                    before = handles()
            assert handles() <= before
            assert server.broadcast.watchers == 0
            decoders = [thread for thread in threading.enumerate() if "decoder" in thread.name]
            assert not decoders

    run(work)


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


def refusal(sdp: str) -> str:
    """Return why ``sdp`` is refused."""
    found: list[str] = []

    async def work() -> None:
        async with Server().running() as server:
            with pytest.raises(PeerError) as caught:
                await server.peer().answer(sdp)
            found.append(str(caught.value))
            assert server.gone == []

    run(work)
    assert "\n" not in found[0]
    return found[0]


def test_what_is_no_offer_of_one_video() -> None:
    offer = an_offer()
    head, video = offer.split("m=video", 1)
    audio = video.replace("VP8", "opus")
    one_video = "expected an offer of one video and nothing else"
    assert refusal(head) == f"{one_video}, found none"
    assert refusal(offer + "m=audio" + audio) == f"{one_video}, found video, audio"
    assert refusal(offer + "m=video" + video) == f"{one_video}, found video, video"
    assert refusal(offer + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n").startswith(
        one_video
    )
    assert "a=sendrecv" in refusal(offer.replace("sendrecv", "recvonly"))
    assert "one VP8 video" in refusal(offer.replace("VP8", "VP9").replace("H264", "AV1"))
    assert "one VP8 video" in refusal(offer.replace("a=rtcp-mux", "a=rtcp-nothing"))
    assert "one VP8 video" in refusal(offer.replace("a=setup:actpass", "a=setup:passing"))
    assert "one VP8 video" in refusal(offer.replace("a=mid:0\r\n", "").replace("ice-ufrag", "x"))


def test_what_is_too_much() -> None:
    offer = an_offer()
    candidate = next(line for line in offer.splitlines() if line.startswith("a=candidate"))
    assert "65536 characters" in refusal("v=0\r\n" + "a" * 65_536)
    assert "found 1004 in 502" in refusal("a\n" * 502)
    assert "found 0" in refusal("")
    assert "at most 32 candidates" in refusal(offer + f"{candidate}\r\n" * 32)
    for word in ("abc", "a" * 257, "with space", "ünïcöde"):
        changed = "\r\n".join(
            f"a=ice-pwd:{word}" if line.startswith("a=ice-pwd") else line
            for line in offer.splitlines()
        )
        assert "ICE credentials" in refusal(changed)


def test_a_second_offer() -> None:
    async def work() -> None:
        page = Page()
        async with Server().running() as server:
            peer = server.peer()
            await page.connect(peer)
            with pytest.raises(PeerError, match="has had its offer"):
                await peer.answer(an_offer_of_now)
            await page.see(2)
        await page.close()

    an_offer_of_now = an_offer()
    run(work)


def answer_or_refuse(sdps: list[str]) -> None:
    async def work() -> None:
        async with Server().running() as server:
            for sdp in sdps:
                peer = server.peer()
                with contextlib.suppress(PeerError):
                    assert "a=candidate:" in await peer.answer(sdp)
                await peer.close()

    run(work)


@settings(max_examples=100)
@given(text=st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(PeerError):
        check_offer(text)


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_offer_is_answered_or_refused(data: st.DataObject) -> None:
    lines = an_offer().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        line = lines[place]
        kind = data.draw(st.sampled_from(["drop", "double", "move", "cut", "replace", "insert"]))
        if kind == "drop":
            lines[place] = ""
        elif kind == "double":
            lines.insert(place, line)
        elif kind == "move":
            lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(place))
        elif kind == "cut":
            lines[place] = line[: data.draw(st.integers(0, len(line)))]
        elif kind == "replace":
            part = data.draw(st.integers(0, len(line)))
            new = data.draw(st.text("0123456789:/ -=abcé\x00", max_size=12))
            lines[place] = line[:part] + new + line[part + len(new) :]
        else:
            kinds = ["candidate", "rtpmap", "fmtp", "ssrc", "group", "extmap", "rtcp-fb", "msid"]
            name = data.draw(st.sampled_from(kinds))
            lines.insert(place, f"a={name}:{data.draw(st.text(max_size=30))}")
    answer_or_refuse(["\r\n".join(lines) + "\r\n"])


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rtc.why_not() is None
    monkeypatch.setitem(sys.modules, "aiortc", None)
    assert "pip install 'pix2live[webrtc]'" in (rtc.why_not() or "")


def test_a_picture_whose_number_is_not_known_has_none() -> None:
    from realtime.sinks.browser import Picture

    pixels = quadrants(WIDTH, HEIGHT)
    before = pixels.copy()
    for tag in (None, 0, 65535):
        frame = rtc._video_frame(Picture(0, tag, 0, SIZE, None, pixels))
        picture: Any = frame.to_ndarray(format="bgr24", threads=1)
        assert picture.shape == (HEIGHT + HEIGHT_PX, WIDTH, 3)
        assert read_strip(picture[HEIGHT:]) == tag
        assert np.abs(picture[:HEIGHT] - pixels.astype(float)).mean() < 5
        assert np.array_equal(pixels, before), "it is everybody's"
