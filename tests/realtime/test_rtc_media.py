"""What stands in for parts of aiortc: packets to frames, frames to the decoder, the encoder."""

from __future__ import annotations

import cv2  # isort: skip
import random
import threading
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from clips import patient, quadrants
from hypothesis import given
from hypothesis import strategies as st

from realtime.web import rtc_encoder, rtc_media
from realtime.web.rtc_encoder import CLOCK_HZ, Vp8Encoder
from realtime.web.rtc_media import (
    PATIENCE_S,
    DecoderQueue,
    EncodedFrame,
    Reassembly,
    announced_size,
    is_whole,
)

STEP = CLOCK_HZ // 30
WHOLE = b"\x10\x00\x00\x9d\x01\x2a" + bytes(8)
PART = b"\x11" + bytes(13)


@dataclass
class Packet:
    """As aiortc parses it."""

    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes


def packets_of(sizes: list[int], first: int = 0, clock: int = 0, *, marked: bool = True) -> Any:
    """Return (packets, frames): one frame of so many packets each, at 30 fps."""
    packets, frames, number = [], [], first
    for place, size in enumerate(sizes):
        stamp = (clock + place * STEP) % 2**32
        parts = [f"{place}.{part} ".encode() for part in range(size)]
        frames.append((b"".join(parts), stamp))
        for part, data in enumerate(parts):
            last = int(marked and part == size - 1)
            packets.append(Packet(number % 2**16, stamp, last, data))
            number += 1
    return packets, frames


class Receiver:
    """Feeds a `Reassembly`, and keeps what comes out."""

    def __init__(self) -> None:
        self.losses = 0
        self.asked = 0
        self.frames: list[tuple[bytes, int]] = []
        self.reassembly = Reassembly(self.lost, self.keep)

    def lost(self) -> None:
        self.losses += 1

    def keep(self, frame: EncodedFrame) -> None:
        self.frames.append((frame.data, frame.timestamp))

    def feed(self, packets: list[Packet]) -> None:
        for packet in packets:
            ask, frame = self.reassembly.add(packet)  # type: ignore[arg-type]
            self.asked += ask
            if frame is not None:
                self.keep(frame)


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=30)


@patient
@given(sizes=sizes, first=st.integers(0, 65535), clock=st.integers(0, 2**32 - 1))
def test_a_frame_is_there_with_its_last_packet(sizes: list[int], first: int, clock: int) -> None:
    packets, frames = packets_of(sizes, first, clock)
    receiver = Receiver()
    place = 0
    for size, frame in zip(sizes, frames, strict=True):
        receiver.feed(packets[place : place + size])
        place += size
        assert receiver.frames[-1] == frame, "no later than with its own packets"
    assert receiver.frames == frames
    assert (receiver.losses, receiver.asked) == (0, 0)


@patient
@given(sizes=sizes, seed=st.integers(0, 1000), first=st.integers(65000, 65535))
def test_order_and_doubles_do_not_matter(sizes: list[int], seed: int, first: int) -> None:
    packets, frames = packets_of([1, *sizes], first)
    choice = random.Random(seed)
    mixed = sorted(enumerate(packets), key=lambda item: item[0] + choice.uniform(0, 5))
    mixed = [packets[0]] + [packet for place, packet in mixed if place]
    twice = [packet for packet in mixed for _ in range(choice.randint(1, 2))]
    receiver = Receiver()
    receiver.feed(twice)
    assert receiver.frames == frames, "all, with the last packet that came"
    assert receiver.losses == 0


@patient
@given(
    sizes=st.lists(st.integers(1, 6), min_size=20, max_size=60),
    gone=st.sets(st.integers(1, 60), max_size=5),
)
def test_what_never_comes_holds_up_nothing_for_long(sizes: list[int], gone: set[int]) -> None:
    packets, frames = packets_of(sizes)
    missing = {place for place in gone if place < len(packets)}
    patience = PATIENCE_S * CLOCK_HZ + 3 * STEP
    receiver = Receiver()
    here = [packet for place, packet in enumerate(packets) if place not in missing]
    for packet in here:
        receiver.feed([packet])
        shown = receiver.frames[-1][1] if receiver.frames else -STEP
        assert packet.timestamp - shown <= len(missing) * patience + 3 * STEP, "each once"
    stamps = [stamp for _, stamp in receiver.frames]
    assert all(before < after for before, after in pairwise(stamps))
    whole = set(frames)
    torn = [frame for frame in receiver.frames if frame not in whole]
    assert len(torn) <= receiver.losses, "after a gap the first one may lack its beginning"
    assert receiver.asked == receiver.losses
    if not missing:
        assert receiver.frames == frames


def test_after_a_gap_the_newest_goes_on() -> None:
    packets, frames = packets_of([2] * 40)
    receiver = Receiver()
    receiver.feed(packets[:10] + packets[11:])
    assert receiver.frames[:5] == frames[:5]
    assert receiver.losses == 1
    given_up = len(frames) - len(receiver.frames)
    assert PATIENCE_S * 30 <= given_up <= PATIENCE_S * 30 + 2
    assert receiver.frames[5:] == frames[5 + given_up :]


def test_a_sender_that_begins_anew() -> None:
    receiver = Receiver()
    receiver.feed(packets_of([2] * 5, 40_000)[0])
    again, frames = packets_of([2] * 5, 10_000, 77)
    receiver.feed(again)
    assert receiver.frames[5:] == frames
    assert receiver.losses == receiver.asked == 1


def test_padding_and_senders_that_mark_nothing() -> None:
    packets, frames = packets_of([3, 2, 1, 2], marked=False)
    padding = [Packet(packets[-1].sequence_number + 1, packets[-1].timestamp, 0, b"")]
    more = packets_of([1], packets[-1].sequence_number + 2, 10**6)
    receiver = Receiver()
    receiver.feed(packets + padding + more[0])
    assert receiver.frames == frames + more[1]


def test_a_flood_without_an_end_is_given_up() -> None:
    receiver = Receiver()
    receiver.feed([Packet(number % 2**16, 0, 0, b"x") for number in range(20_000)])
    assert receiver.frames == []
    assert len(receiver.reassembly._waiting) <= rtc_media.MOST_PACKETS + 1


def test_a_marked_packet_without_payload_is_no_frame() -> None:
    receiver = Receiver()
    receiver.feed([Packet(65_535, 0, 1, b""), Packet(0, STEP, 1, b"x"), Packet(1, STEP, 1, b"")])
    assert receiver.frames == [(b"x", STEP)]
    assert receiver.losses == 0


def test_what_waits_longest_is_the_lowest_number() -> None:
    """Also where it came last, and where the numbers turn over."""
    patience = int(PATIENCE_S * CLOCK_HZ)
    receiver = Receiver()
    receiver.feed([Packet(65_533, 0, 1, b"first")])
    late = [Packet(1, 1 + patience, 0, b"new"), Packet(65_535, 1, 1, b"old")]
    receiver.feed([late[0]])
    assert receiver.losses == 0
    receiver.feed([late[1], Packet(2, 2 + patience, 0, b"new")])
    assert receiver.losses == 1, "65535 has waited for 65534 too long"


def key_frame(width: int, height: int) -> bytes:
    """Return the beginning of one that is scaled up when it is shown: that is not its size."""
    sides = b"".join((side | 0xC000).to_bytes(2, "little") for side in (width, height))
    return WHOLE[:6] + sides + bytes(4)


def test_a_picture_larger_than_agreed_never_comes_to_the_decoder(clock: Clock) -> None:
    asked: list[int] = []
    notes: list[str] = []
    queue = DecoderQueue(lambda: asked.append(1), largest=(640, 784), note=notes.append)
    sizes = [(640, 784), (641, 784), (16_383, 16_383), (640, 785), (16, 16)]
    for number, size in enumerate(sizes):
        queue.put(frame(key_frame(*size), 2 * number))
        queue.put(frame(PART, 2 * number + 1))
    found = [item[1].timestamp for _, item in queue._items]
    assert found == [0, 1, 8, 9], "nor what builds on it"
    assert queue.dropped == 6
    assert len(asked) == 1
    assert notes == ["expected a video of 640x784 px at most, found 641x784: it is left out"]
    free = DecoderQueue(lambda: None)
    free.put(frame(key_frame(16_383, 16_383)))
    assert len(free._items) == 1


def test_the_announced_size_is_that_of_the_encoder() -> None:
    for size in ((320, 180), (162, 98), (640, 376)):
        payloads, _ = Vp8Encoder(Bytes()).encode(noisy(0, size))
        assert announced_size(payloads[0]) == size
    assert announced_size(WHOLE[:9]) is None
    assert announced_size(PART) is None


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rtc_media, "time", found)
    return found


def frame(data: bytes, number: int = 0) -> tuple[str, EncodedFrame]:
    return "VP8", EncodedFrame(data, number)


def test_what_waits_for_the_decoder_is_never_old(clock: Clock) -> None:
    """A decoder of 5 fps at 30: it gets whole pictures, each fresh."""
    asked: list[float] = []
    queue = DecoderQueue(lambda: asked.append(clock.now_s))
    came: dict[int, float] = {}
    decoded = []
    free_s = 0.0
    wants_whole = False
    for number in range(600):
        clock.now_s += 1 / 30
        whole = number == 0 or (wants_whole and asked[-1] < clock.now_s - 0.05)
        wants_whole = False if whole else wants_whole
        before = len(asked)
        queue.put(frame(WHOLE if whole else PART, number))
        wants_whole = wants_whole or len(asked) > before
        came[number] = clock.now_s
        if clock.now_s >= free_s and queue._items:
            item = queue.get()
            assert item is not None
            decoded.append((item[1].timestamp, item[1].data, clock.now_s))
            free_s = clock.now_s + 0.2
    assert len(decoded) > 50
    assert all(when - came[number] < 0.25 for number, _, when in decoded)
    for (before, _, _), (after, data, _) in pairwise(decoded):
        assert after == before + 1 or data == WHOLE, "no frame without its predecessor"
    assert queue.dropped + len(decoded) + len(queue._items) == 600


def test_a_burst_is_kept_where_the_decoder_is_quick(clock: Clock) -> None:
    queue = DecoderQueue(lambda: None)
    for number in range(20):
        queue.put(frame(PART if number else WHOLE, number))
    assert [queue.get()[1].timestamp for _ in range(20)] == list(range(20))  # type: ignore[index]
    assert queue.dropped == 0


def test_a_whole_picture_is_asked_for_again_and_again_but_not_all_the_time(clock: Clock) -> None:
    asked: list[int] = []
    queue = DecoderQueue(lambda: asked.append(1))
    for _ in range(60):
        queue.put(frame(PART))
    assert len(asked) == 60 / rtc_media.ASK_EVERY
    queue.put(frame(WHOLE, 7))
    queue.put(frame(PART, 8))
    assert [queue.get()[1].timestamp for _ in range(2)] == [7, 8]  # type: ignore[index]
    queue.lost()
    queue.put(frame(PART, 9))
    assert len(asked) == 60 / rtc_media.ASK_EVERY + 1, "at once"


def test_frames_that_come_at_once_keep_their_codec(clock: Clock) -> None:
    queue = DecoderQueue(lambda: None)
    queue.early(EncodedFrame(WHOLE, 0))
    assert not queue._items, "nothing says what it is"
    queue.put(frame(WHOLE, 1))
    queue.early(EncodedFrame(PART, 2))
    assert [queue.get() for _ in range(2)] == [frame(WHOLE, 1), frame(PART, 2)]


def test_the_end_waits_for_no_frame() -> None:
    queue = DecoderQueue(lambda: None)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(queue.get()))
    thread.start()
    queue.put(None)
    thread.join(10)
    assert found == [None]
    for number in range(5):
        queue.put(frame(WHOLE, number))
    queue.put(None)
    assert queue.get() is None


class Bytes:
    """In the place of aiortc's packer."""

    def pack(self, packet: av.Packet) -> tuple[list[bytes], int]:
        assert packet.pts is not None
        assert packet.time_base == Fraction(1, CLOCK_HZ)
        return [bytes(packet)], packet.pts


def noisy(number: int, size: tuple[int, int] = (320, 180)) -> av.VideoFrame:
    width, height = size
    noise = np.random.default_rng(number).integers(0, 40, (height, width, 3), np.uint8)
    picture = np.roll(quadrants(width, height), number * 2, axis=1) // 2 + noise
    planes: Any = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = number * STEP, Fraction(1, CLOCK_HZ)
    return frame


def test_each_picture_comes_out_at_once_and_only_the_first_is_whole() -> None:
    encoder = Vp8Encoder(Bytes())
    decoder = av.CodecContext.create("libvpx", "r")
    for number in range(20):
        payloads, timestamp = encoder.encode(noisy(number), number == 12)
        assert timestamp == number * STEP
        assert is_whole(payloads[0]) == (number in (0, 12)), "or when the other side asks"
        (out,) = decoder.decode(av.Packet(payloads[0]))
        difference = out.to_ndarray(format="gray") - noisy(number).to_ndarray(format="gray") * 1.0
        assert np.abs(difference).mean() < 16
    assert encoder.opened == 1


def test_the_bitrate_suits_the_picture_and_the_network() -> None:
    encoder = Vp8Encoder(Bytes())

    def rate(first: int, count: int = 60) -> float:
        found = [encoder.encode(noisy(first + place))[0] for place in range(count)]
        return sum(len(part) for parts in found for part in parts) * 8 * 30 / count

    wanted = 320 * 180 * 30 * rtc_encoder.BITS_PER_PIXEL
    assert 0.6 * wanted < rate(0) < 1.4 * wanted, "at once"
    encoder.target_bitrate = 10**9
    assert rate(60) < 1.4 * wanted, "not more than anybody sees"
    encoder.target_bitrate = int(wanted * 0.9)
    rate(120, 2)
    assert encoder.opened == 1, "each change costs a whole picture"
    encoder.target_bitrate = int(wanted / 2)
    assert rate(122) < 0.7 * wanted
    encoder.target_bitrate = 10**9
    rate(182, 40)
    assert encoder.opened == 3, "raised after a while, lowered at once"
    encoder.target_bitrate = 1
    assert encoder.target_bitrate == rtc_encoder.MIN_BITS_PER_S
    encoder.encode(noisy(300))
    assert encoder.opened == 4


def test_the_size_may_change() -> None:
    encoder = Vp8Encoder(Bytes())
    for number, size in enumerate([(320, 180), (160, 90), (160, 90), (640, 376)]):
        payloads, _ = encoder.encode(noisy(number, size))
        assert is_whole(payloads[0]) == (number != 2)


@given(data=st.binary(max_size=16))
def test_what_is_a_whole_picture(data: bytes) -> None:
    assert is_whole(data) == (len(data) > 6 and data[0] % 2 == 0 and data[3:6] == b"\x9d\x01\x2a")
