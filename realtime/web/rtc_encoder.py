"""VP8 for one WebRTC peer: quick, and at once at a bitrate that suits the picture.

aiortc's own encoder starts at 0.5 Mbit/s, gives 1.5 at most, and begins anew, with a whole picture,
whenever the estimate of the network moves by a tenth. Nothing here imports aiortc.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import av

CLOCK_HZ = 90_000
"""Of the time stamps of video in RTP (RFC 3551, section 5)."""
TIME_BASE = Fraction(1, CLOCK_HZ)
MIN_BITS_PER_S = 200_000
BITS_PER_PIXEL = 0.3
"""At 30 fps, where VP8 is hard to tell from the picture (41 dB); 2.2 Mbit/s at 640x376."""
MOST_BITS_PER_S = 8_000_000
RAISED_FROM, RAISED_AFTER_S = 1.3, 3.0
LOWERED_FROM = 0.8
"""Each change of the bitrate costs a whole picture, so not each word of the network is one."""


class Packer(Protocol):
    """What is used of an encoder of aiortc: it makes RTP payloads of a packet."""

    def pack(self, packet: Any) -> tuple[list[bytes], int]: ...


class Vp8Encoder:
    """VP8 for one peer: quick, and at once at a bitrate that suits the picture.

    Thread: `encode` in a worker's, one at a time; `target_bitrate` in the loop's. Stands in for
    aiortc's ``Vp8Encoder``.

    Args:
        packer: aiortc's.
    """

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._codec: av.VideoCodecContext | None = None
        self._closed = False
        self._network_bits_per_s = MOST_BITS_PER_S
        self._bits_per_s = 0
        self._opened_pts = 0
        self.opened = 0
        """How often it was begun anew: for another size or another bitrate."""

    @property
    def target_bitrate(self) -> int:
        """Bits per second that the network carries, as the other side estimates (REMB)."""
        return self._network_bits_per_s

    @target_bitrate.setter
    def target_bitrate(self, bits_per_s: int) -> None:
        self._network_bits_per_s = max(MIN_BITS_PER_S, bits_per_s)

    def encode(self, frame: av.VideoFrame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Return (RTP payloads, time stamp) of a yuv420p frame."""
        from av.video.frame import PictureType

        codec = self._codec
        if codec is None or self._must_reopen(codec, frame):
            codec = self._open(frame)
        frame.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        payloads, timestamp = list[bytes](), 0
        for packet in codec.encode(frame):
            found, timestamp = self._packer.pack(packet)
            payloads += found
        return payloads, timestamp

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        """Return (RTP payloads, time stamp) of what is encoded already."""
        return self._packer.pack(packet)

    def close(self) -> None:
        """Free the codec; one that encodes at this moment goes when it has done so."""
        self._closed = True
        self._codec = None

    def _must_reopen(self, codec: av.VideoCodecContext, frame: av.VideoFrame) -> bool:
        if (codec.width, codec.height) != (frame.width, frame.height):
            return True
        ratio = self._wanted_bits_per_s(frame) / self._bits_per_s
        quiet = (frame.pts or 0) - self._opened_pts > RAISED_AFTER_S * CLOCK_HZ
        return ratio < LOWERED_FROM or (ratio > RAISED_FROM and quiet)

    def _wanted_bits_per_s(self, frame: av.VideoFrame) -> int:
        enough = int(frame.width * frame.height * 30 * BITS_PER_PIXEL)
        return max(MIN_BITS_PER_S, min(enough, self._network_bits_per_s, MOST_BITS_PER_S))

    def _open(self, frame: av.VideoFrame) -> av.VideoCodecContext:
        import av

        rate = str(self._wanted_bits_per_s(frame))
        codec = av.CodecContext.create("libvpx", "w")
        assert isinstance(codec, av.VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "yuv420p"
        codec.time_base, codec.framerate = TIME_BASE, Fraction(30)
        codec.bit_rate = int(rate)
        codec.gop_size = 3000  # whole pictures when the other side asks
        codec.qmin, codec.qmax = 2, 56
        codec.thread_count = 1  # more of them spin while they wait for each other
        codec.options = {
            "deadline": "realtime",
            "cpu-used": "-10",
            "lag-in-frames": "0",
            "minrate": rate,
            "maxrate": rate,  # the three the same: a constant rate
            "bufsize": rate,
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "max-intra-rate": "600",
            "static-thresh": "1",
        }
        self._codec, self._bits_per_s = codec, int(rate)
        self._opened_pts = frame.pts or 0
        self.opened += 1
        if self._closed:  # meanwhile: looked at when it is stored, so that none stays
            self._codec = None
        return codec
