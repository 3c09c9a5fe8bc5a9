"""WebRTC with a real peer at the other end: pictures there and back, and ends of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import quadrants
from rtc_peers import HEIGHT, LATE_S, SIZE, WIDTH, Page, Server, handles, meeting, on_a_loop

from realtime.sinks.browser import Picture
from realtime.web import rtc
from realtime.web.rtc_encoder import TIME_BASE, Vp8Encoder
from realtime.web.rtc_media import DecoderQueue, Reassembly
from realtime.web.rtc_offer import PeerError
from realtime.web.strip import HEIGHT_PX, read_strip


@on_a_loop
async def test_pictures_go_there_and_back_with_their_numbers() -> None:
    async with meeting() as (page, peer, server):
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
    numbers = [number for number in page.numbers if number is not None]
    assert len(numbers) == len(page.numbers), "each strip can be read"
    assert numbers == sorted(set(numbers)), "none twice, none out of order"
    assert page.newest is not None
    inverted = 255.0 - quadrants(WIDTH, HEIGHT)
    away = np.abs(page.newest[:HEIGHT] - inverted)
    assert away.mean() < 6, "the translated picture, in its colours"


@on_a_loop
async def test_our_parts_are_in_their_places() -> None:
    """Else they are private to this aiortc, and it is slow without a word."""
    async with meeting() as (page, peer, _):
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


@on_a_loop
async def test_a_slow_engine_makes_nothing_pile_up() -> None:
    async with meeting() as (page, peer, server):
        await page.connect(peer)
        await page.see(20)
        server.slow_s = 0.2
        await page.see(15)  # in which 90 are sent
        slow = page.lags[-5:]
        server.slow_s = 0.0
        await page.see(30)
        after = page.lags[-5:]
    assert max(slow) < 45, "each picture is as old as two that the engine makes, and no older"
    assert max(after) < 15
    assert sorted(slow)[2] > sorted(after)[2], "it was slow"


@pytest.mark.parametrize("full_range", [False, True])
@on_a_loop
async def test_colours_are_as_the_page_drew_them(full_range: bool) -> None:
    async with meeting() as (page, peer, server):
        page.camera.full_range = full_range
        await page.connect(peer)
        await page.see(10)
        assert server.newest is not None
        away = np.abs(server.newest - quadrants(WIDTH, HEIGHT).astype(float))
        assert np.median(away, axis=(0, 1)).max() <= 4
        assert away.mean() < 4


@on_a_loop
async def test_a_browser_may_send_a_smaller_or_a_larger_video() -> None:
    """Chromium shrinks it when the line or the processor is slow."""
    async with meeting() as (page, peer, _):
        await page.connect(peer)
        for width in (WIDTH, 160, 224):
            page.camera.size = width, round(width * (HEIGHT + HEIGHT_PX) / WIDTH)
            await page.see(15)
            assert page.numbers[-5:] == sorted(n for n in page.numbers[-5:] if n is not None)
        page.camera.size = 2 * WIDTH, 2 * (HEIGHT + HEIGHT_PX)
        received = peer.received
        while peer.received < received + 20:
            await asyncio.sleep(0.01)
        passed = len(page.numbers)
        while peer.received < received + 40:
            await asyncio.sleep(0.01)
        assert len(page.numbers) == passed, "nobody announced such large ones"
        assert not peer.notes
        page.camera.size = 4 * WIDTH, 4 * (HEIGHT + HEIGHT_PX)
        while not peer.notes:  # these are not even decoded
            await asyncio.sleep(0.01)
        page.camera.size = WIDTH, HEIGHT + HEIGHT_PX
        await page.see(15)
        (note,) = peer.notes
        assert f"found {4 * WIDTH}x{4 * (HEIGHT + HEIGHT_PX)}" in note


@on_a_loop
async def test_lost_packets_make_gaps_and_nothing_else() -> None:
    choice = random.Random(6)
    async with meeting() as (page, peer, server):
        await page.connect(peer)
        await page.see(5)
        transport = page.connection.getSenders()[0].transport.transport
        send = transport._send
        lost = 0

        async def lossy(data: bytes) -> None:
            nonlocal lost
            if len(data) > 200 and choice.random() < 0.1:
                lost += 1
            else:
                await send(data)

        transport._send = lossy
        await page.see(90)
        transport._send = send
        await page.see(20)
        assert lost > 5
        numbers = [number for number in page.numbers if number is not None]
        assert numbers == sorted(set(numbers))
        assert max(page.lags) < 60, "nothing waits for seconds"
        assert sorted(page.lags[-15:])[7] < 15
        assert server.gone == []


@on_a_loop
async def test_a_page_that_says_goodbye_is_gone_at_once() -> None:
    async with meeting() as (page, peer, server):
        await page.connect(peer)
        await page.see(3)
        await page.close()
        await asyncio.wait_for(server.heard_of_it.wait(), LATE_S)
        assert server.gone == ["the WebRTC connection is closed"]
        await peer.close()
        assert server.gone == ["the WebRTC connection is closed"], "told once"
        assert not server.broadcast.wants("pixels")


VANISHING = """
import asyncio, sys
sys.path[:0] = {path!r}
from rtc_peers import Page, aiortc

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


@on_a_loop
async def test_a_page_that_vanishes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "SILENT_S", 2.5)
    here = Path(__file__).resolve()
    code = VANISHING.format(path=[str(here.parents[2]), str(here.parent)])
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


@on_a_loop
async def test_a_page_that_never_connects_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "CONNECTS_WITHIN_S", 0.3)
    async with meeting() as (page, peer, server):
        await peer.answer(await page.offer())
        await asyncio.wait_for(server.heard_of_it.wait(), LATE_S)
        assert server.gone == ["the browser did not connect within 0 s"]
        await peer.close()
        assert peer.state == "closed"


@on_a_loop
async def test_the_end_of_the_pictures_is_no_end_of_the_world() -> None:
    async with meeting() as (page, peer, server):
        await page.connect(peer)
        await page.see(3)
        server.broadcast.close()
        received = peer.received
        while peer.received < received + 5:
            await asyncio.sleep(0.01)
        assert server.gone == [], "its owner knows why"


@on_a_loop
async def test_closing_at_any_moment() -> None:
    """Before the offer, while it connects, in the midst of pictures, twice, all at once."""
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


@on_a_loop
async def test_closing_frees_what_is_ours_whatever_fails() -> None:
    async with meeting() as (page, peer, server):
        await page.connect(peer)
        await page.see(3)
        assert (encoder := peer._encoder) is not None
        close = peer._close_connection

        async def stumble() -> None:
            await close()
            raise RuntimeError("in a library")

        peer._close_connection = stumble  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="in a library"):
            await peer.close()
        assert encoder._codec is None
        frame = rtc._video_frame(Picture(0, None, 0, SIZE, None, quadrants(WIDTH, HEIGHT)))
        frame.pts, frame.time_base = 0, TIME_BASE
        assert encoder.encode(frame)[0], "who is at it when it is closed ends well"
        assert encoder._codec is None
        assert (peer._tasks, peer._on_gone) == ([], None)
        server.peers.clear()


@on_a_loop
async def test_connects_and_disconnects_leave_nothing() -> None:
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


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rtc.why_not() is None
    monkeypatch.setitem(sys.modules, "aiortc", None)
    assert "pip install 'pix2live[webrtc]'" in (rtc.why_not() or "")


def test_a_picture_whose_number_is_not_known_has_none() -> None:
    pixels = quadrants(WIDTH, HEIGHT)
    before = pixels.copy()
    for tag in (None, 0, 65535):
        frame = rtc._video_frame(Picture(0, tag, 0, SIZE, None, pixels))
        picture: Any = frame.to_ndarray(format="bgr24", threads=1)
        assert picture.shape == (HEIGHT + HEIGHT_PX, WIDTH, 3)
        assert read_strip(picture[HEIGHT:]) == tag
        assert np.abs(picture[:HEIGHT] - pixels.astype(float)).mean() < 5
        assert np.array_equal(pixels, before), "it is everybody's"
