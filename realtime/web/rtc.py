"""WebRTC by aiortc: one browser's camera comes in, the translated pictures go back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2  # isort: skip  (before PyAV)
import numpy as np

from engines import Pixels, Size
from realtime.sinks.browser import Picture
from realtime.sources.browser import BrowserSource
from realtime.web.broadcast import Subscription
from realtime.web.rtc_encoder import CLOCK_HZ, TIME_BASE, Vp8Encoder
from realtime.web.rtc_media import DecoderQueue, Reassembly, is_full_range
from realtime.web.rtc_offer import PeerError, check_offer, with_start_bitrate
from realtime.web.strip import HEIGHT_PX, draw_strip

if TYPE_CHECKING:
    import av
    from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpTransceiver

CONNECTS_WITHIN_S = 15.0
SILENT_S = 5.0
"""A browser says something each second, even when its camera is covered or its tab hidden."""
WATCH_EVERY_S = 0.5
CLOSES_WITHIN_S = 5.0
ICE_TICK_S = 0.02
LARGER = 2
"""A video may have so many times the pixels that were announced, and each side of them."""
NO_NUMBER_GREY = 128
"""Of the strip below a picture whose number is not known: nobody can read it."""

FULL_RANGE, BT709 = 2, 1
"""AVColorRange, AVColorSpace."""


def why_not() -> str | None:
    """Return why WebRTC cannot be had here; None where it can."""
    try:
        import aiortc  # noqa: F401
    except ImportError as error:
        return f"WebRTC needs aiortc: pip install 'pix2live[webrtc]' ({error})"
    return None


class Peer:
    """One browser's WebRTC connection: its camera into a source, the translated pictures back.

    Thread: the loop's. aiortc decodes in a thread of its own, and encodes in a worker of the loop.

    Args:
        source: takes the pictures that come.
        pictures: subscribes to the pictures that go back, with pixels; called once connected.
        size: (width, height) of the pictures both ways, without the strip.
        on_gone: told once, why, when the browser never came, left or fell silent, before this end
            is closed; not when `close` was called.
    """

    def __init__(
        self,
        source: BrowserSource,
        pictures: Callable[[], Subscription],
        size: Size,
        *,
        on_gone: Callable[[str], None] | None = None,
    ) -> None:
        self.notes: list[str] = []
        """What a person should know."""
        self.received = 0
        """Pictures that were decoded."""
        self._source = source
        self._outgoing = _Outgoing(pictures)
        self._largest = LARGER * size[0], LARGER * (size[1] + HEIGHT_PX)
        self._most_pixels = LARGER * size[0] * (size[1] + HEIGHT_PX)
        self._on_gone = on_gone
        self._connection: RTCPeerConnection | None = None
        self._encoder: Vp8Encoder | None = None
        self._full_range = False
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    @property
    def sent(self) -> int:
        """Pictures that were handed to the encoder."""
        return self._outgoing.sent

    @property
    def state(self) -> str:
        """``new``, ``connecting``, ``connected``, ``failed`` or ``closed``."""
        return "new" if self._connection is None else self._connection.connectionState

    async def answer(self, sdp: str) -> str:
        """Return the answer to a browser's offer, with all candidates (no trickle).

        Raises:
            PeerError: it is no offer of one video that is sent and received, in VP8; it is too
                long; this was called before; no address of this machine can be reached.
        """
        if self._connection is not None or self._closing is not None:
            raise PeerError("this WebRTC connection has had its offer: start again")
        check_offer(sdp)
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

        # No server of anybody's is asked for addresses: the page is on this or a near network.
        self._connection = connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("connectionstatechange", self._state_changed)
        try:
            transceiver = connection.addTransceiver(_video_track(self._outgoing), "sendrecv")
            transceiver.setCodecPreferences(_vp8())
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            self._replace_parts(transceiver)
            await connection.setLocalDescription()
        except Exception as error:  # noqa: BLE001  (aiortc raises many kinds for a bad offer)
            await self.close()
            reason = str(error) or type(error).__name__
            raise PeerError(f"expected a WebRTC offer of one VP8 video: {reason:.200}") from None
        answer = connection.localDescription.sdp
        if "a=candidate:" not in answer:
            await self.close()
            raise PeerError("WebRTC needs a network: this machine has its loopback address only")
        self._spawn(self._receive(transceiver.receiver.track))
        self._spawn(self._watch())
        return with_start_bitrate(answer)

    async def close(self) -> None:
        """End the connection, and wait until nothing of it is left. Safe to call twice."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._outgoing.close()
        for task in self._tasks:
            task.cancel()
        try:
            if self._connection is not None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._close_connection(), CLOSES_WITHIN_S)
        finally:
            # What aiortc leaves is freed by the garbage collector, whenever that comes by: until
            # then it must hold nothing that is large.
            tasks, self._tasks = self._tasks, []
            self._on_gone = None
            if self._encoder is not None:
                self._encoder.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close_connection(self) -> None:
        assert self._connection is not None
        connecting = self.state in ("new", "connecting")
        transports = [receiver.transport.transport for receiver in self._connection.getReceivers()]
        await self._connection.close()
        if not connecting:
            return
        # An aioice that is closed in the moment in which it connects begins to ask the other side
        # for its consent, for ever. It looks every 20 ms whether it has connected.
        await asyncio.sleep(3 * ICE_TICK_S)
        for transport in transports:
            await transport._connection.close()

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _receive(self, track: MediaStreamTrack) -> None:
        """Hand on what was decoded: never does a picture wait in the track's queue."""
        from aiortc.mediastreams import MediaStreamError

        with contextlib.suppress(MediaStreamError):  # it has ended
            while True:
                frame: Any = await track.recv()
                self.received += 1
                if frame.width * frame.height <= self._most_pixels:
                    self._set_colours(frame)
                    self._source.offer(frame, time.monotonic_ns())

    def _set_colours(self, frame: av.VideoFrame) -> None:
        """Note in ``frame`` how its colours are to be read: its codec does not tell."""
        (_, height), (_, wire_height) = self._source.size, self._source.wire_size
        if height < wire_height and frame.format.name == "yuv420p":
            found = is_full_range(frame, 1 - height / wire_height)
            self._full_range = self._full_range if found is None else found
        if self._full_range:
            frame.color_range, frame.colorspace = FULL_RANGE, BT709

    async def _watch(self) -> None:
        """Tell when the browser has not come, or has gone."""
        assert self._connection is not None
        waiters = asyncio.ensure_future(self._connected.wait())
        try:
            await asyncio.wait_for(waiters, CONNECTS_WITHIN_S)
        except asyncio.TimeoutError:
            self._gone(f"the browser did not connect within {CONNECTS_WITHIN_S:.0f} s")
            return
        heard, heard_s = -1, time.monotonic()
        while not self._lost.is_set():
            packets = await self._packets_received()
            if packets != heard:
                heard, heard_s = packets, time.monotonic()
            elif time.monotonic() - heard_s > SILENT_S:
                break
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._lost.wait(), WATCH_EVERY_S)
        if self._lost.is_set():
            self._gone(f"the WebRTC connection is {self.state}")
        else:
            self._gone(f"nothing came from the browser for {SILENT_S:.0f} s")

    async def _packets_received(self) -> int:
        assert self._connection is not None
        report = await self._connection.getStats()
        return sum(item.packetsReceived for item in report.values() if item.type == "transport")

    def _state_changed(self) -> None:
        state = self.state
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._lost.set()
            self._connected.set()

    def _gone(self, reason: str) -> None:
        if self._closing is not None:
            return
        if self._on_gone is not None:
            self._on_gone(reason)
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    def _replace_parts(self, transceiver: RTCRtpTransceiver) -> None:
        """Put our parts in the places of aiortc's, in this connection only.

        They are private there: an aiortc that keeps them elsewhere works on with its own.
        """
        from aiortc.codecs import get_encoder

        receiver, sender = transceiver.receiver, transceiver.sender
        failed = getattr(receiver, "_RTCRtpReceiver__decoder_error", None)
        waiting = DecoderQueue(
            failed.set if failed is not None else lambda: None,
            largest=self._largest,
            note=self.notes.append,
        )
        self._encoder = Vp8Encoder(get_encoder(transceiver._codecs[0]))
        parts = {
            "_RTCRtpReceiver__decoder_queue": (receiver, waiting),
            "_RTCRtpReceiver__jitter_buffer": (receiver, Reassembly(waiting.lost, waiting.early)),
            "_RTCRtpSender__encoder": (sender, self._encoder),
        }
        for name, (owner, part) in parts.items():
            if hasattr(owner, name):
                setattr(owner, name, part)
            else:
                self.notes.append(f"this aiortc has no {name}: WebRTC is slower than it could be")


class _Outgoing:
    """Makes video frames of the freshest pictures."""

    def __init__(self, pictures: Callable[[], Subscription]) -> None:
        self.sent = 0
        self._pictures: Callable[[], Subscription] | None = pictures
        self._subscription: Subscription | None = None
        self._first_ns: int | None = None
        self._pts = -1

    async def next(self) -> av.VideoFrame | None:
        """Wait for the freshest picture; None when there will be none any more."""
        if self._pictures is None:
            return None
        if self._subscription is None:
            self._subscription = self._pictures()
        picture = await self._subscription.next()
        if picture is None:
            return None
        frame = await asyncio.to_thread(_video_frame, picture)
        # The time of sending, not of capture: what differs between a browser's clock and these
        # stamps it takes for the network's jitter, and holds every picture back for as long.
        now_ns = time.monotonic_ns()
        if self._first_ns is None:
            self._first_ns = now_ns
        pts = (now_ns - self._first_ns) * CLOCK_HZ // 1_000_000_000
        self._pts = max(pts, self._pts + 1)
        frame.pts, frame.time_base = self._pts, TIME_BASE
        self.sent += 1
        return frame

    def close(self) -> None:
        self._pictures = None
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None


def _video_frame(picture: Picture) -> av.VideoFrame:
    """Return ``picture`` with its strip below it, as yuv420p (BT.601, as VP8 is taken to be)."""
    import av

    assert picture.pixels is not None
    height, width = (side // 2 * 2 for side in picture.pixels.shape[:2])
    wire: Pixels = np.empty((height + HEIGHT_PX, width, 3), np.uint8)
    wire[:height] = picture.pixels[:height, :width]
    if picture.tag is None:
        wire[height:] = NO_NUMBER_GREY
    else:
        draw_strip(wire[height:], picture.tag)
    # OpenCV's: the scaler behind PyAV's own conversion costs three times as much.
    planes: Any = cv2.cvtColor(wire, cv2.COLOR_BGR2YUV_I420)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def _video_track(outgoing: _Outgoing) -> MediaStreamTrack:
    track: MediaStreamTrack = _track_class()(outgoing)
    return track


@cache
def _track_class() -> Any:
    """Return the class, made once: each class is a cycle, for the garbage collector to free."""
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

    class Track(MediaStreamTrack):
        kind = "video"

        def __init__(self, outgoing: _Outgoing) -> None:
            super().__init__()
            self._outgoing = outgoing

        async def recv(self) -> av.VideoFrame:
            frame = await self._outgoing.next()
            if frame is None:
                raise MediaStreamError
            return frame

    return Track


def _vp8() -> list[Any]:
    """VP8 with retransmission: any browser has it, and it opens without a delay."""
    from aiortc import RTCRtpSender

    codecs = RTCRtpSender.getCapabilities("video").codecs
    return [codec for codec in codecs if codec.mimeType.lower() in ("video/vp8", "video/rtx")]
