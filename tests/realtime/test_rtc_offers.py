"""Offers that are none, too much, or damaged: answered or refused in words, and nothing is left."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtc_peers import Page, Server, an_offer, run

from realtime.web.rtc_offer import PeerError, check_offer, with_start_bitrate


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


def test_the_bitrate_to_start_at_is_in_the_answer_for_vp8_only() -> None:
    lines = "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
    first, rest = lines.split("\r\n", 1)
    added = "a=fmtp:96 x-google-start-bitrate=1500"
    assert with_start_bitrate(lines) == "\r\n".join([first, added, rest])
