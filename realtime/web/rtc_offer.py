"""A browser's WebRTC offer, before and after aiortc has it: SDP (RFC 8866), as text."""

from __future__ import annotations

import re

from engines import Pix2liveError

MAX_SDP = 65_536
"""Characters; an offer of Chromium has 8,000."""
MAX_LINES = 500
"""Some lists are searched for each line of another one."""
MAX_CANDIDATES = 32
"""Each makes this machine send a few packets to an address that the page chose."""
ICE_WORD = re.compile(r"[A-Za-z0-9+/]{4,256}\Z")
"""A user name or password (RFC 8839, section 5.4)."""


class PeerError(Pix2liveError, ValueError):
    """An offer cannot be answered."""


def check_offer(sdp: str) -> None:
    """Refuse what is no offer of one video, before any of it is taken apart.

    Raises:
        PeerError: too long, more than a video, credentials that are none, too many candidates.
    """
    lines = sdp.splitlines() if len(sdp) <= MAX_SDP else []
    if not 0 < len(lines) <= MAX_LINES:
        raise PeerError(
            f"expected an offer of at most {MAX_SDP} characters in {MAX_LINES} lines,"
            f" found {len(sdp)}" + (f" in {len(lines)}" if lines else "")
        )
    media = [line.split(" ", 1)[0][2:] for line in lines if line.startswith("m=")]
    if media != ["video"]:
        found = ", ".join(f"{kind:.20}" for kind in media[:5]) or "none"
        raise PeerError(f"expected an offer of one video and nothing else, found {found}")
    if "a=sendrecv" not in lines:
        raise PeerError("expected a video that is sent and received (a=sendrecv)")
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    if candidates > MAX_CANDIDATES:
        raise PeerError(f"expected at most {MAX_CANDIDATES} candidates, found {candidates}")
    words = [line for line in lines if line.startswith(("a=ice-ufrag:", "a=ice-pwd:"))]
    if not all(ICE_WORD.match(line.partition(":")[2]) for line in words):
        raise PeerError("expected ICE credentials of 4 to 256 letters and digits")


def with_start_bitrate(sdp: str) -> str:
    """Let Chromium start near what it will need; it would climb there for half a minute."""
    return re.sub(
        r"(a=rtpmap:(\d+) VP8/90000\r?\n)",
        r"\1a=fmtp:\2 x-google-start-bitrate=1500\r\n",
        sdp,
        flags=re.IGNORECASE,
    )
