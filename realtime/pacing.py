"""When is a frame due? Pure functions and small objects of time; no clock is read in here."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

RESYNC_NS = 500 * NS_PER_MS
"""A file that plays this late starts a new timeline instead of running after the old one."""

LATE_NS = 100 * NS_PER_MS
"""A frame of a recording that is this late is left out: the next one is nearer to now."""

DRIFT_PER_S_NS = 200_000
"""How fast a sender's clock may fall behind ours (200 ppm; quartz is within 100)."""

PLAUSIBLE_WAIT_NS = 60 * NS_PER_S
"""A streamed frame that seems to have waited longer shows that the sender's clock jumped."""


@dataclass(slots=True)
class Timeline:
    """Maps presentation times of a recording to the monotonic clock, as a player would."""

    start_ns: int | None = None
    """Monotonic time at which presentation time 0 was, or is, due."""
    resyncs: int = 0

    def due_ns(self, pts_ns: int, now_ns: int) -> int:
        """Return when the frame at ``pts_ns`` is due, given that it is ``now_ns`` now.

        The first frame is due at once. A frame that is more than `RESYNC_NS` late is due at once
        too, and what follows is timed from it.
        """
        if self.start_ns is None:
            self.start_ns = now_ns - pts_ns
        due = self.start_ns + pts_ns
        if now_ns - due > RESYNC_NS:
            self.resyncs += 1
            self.start_ns = now_ns - pts_ns
            due = now_ns
        return due


@dataclass(slots=True)
class ArrivalClock:
    """Says when a streamed frame would have arrived, had nothing held it up.

    The sender's clock is not ours, but it is steady: the frame that came soonest after its own
    time stamp sets the distance of the two, and whoever comes later than that has waited, in the
    network or in a socket's buffer. So waiting counts as age.
    """

    _distance_ns: int | None = None
    _last_pts_ns: int = 0
    _last_captured_ns: int = 0

    def captured_ns(self, pts_ns: int, now_ns: int) -> int:
        """Return the moment of capture on our clock; ``pts_ns`` is the sender's time stamp."""
        distance_ns = now_ns - pts_ns
        if self._distance_ns is None or pts_ns <= self._last_pts_ns:
            self._distance_ns = distance_ns  # the first, or the sender began anew
        else:
            drift_ns = (pts_ns - self._last_pts_ns) * DRIFT_PER_S_NS // NS_PER_S
            self._distance_ns = min(self._distance_ns + drift_ns, distance_ns)
            if distance_ns - self._distance_ns > PLAUSIBLE_WAIT_NS:
                self._distance_ns = distance_ns
        self._last_pts_ns = pts_ns
        captured_ns = max(pts_ns + self._distance_ns, self._last_captured_ns)
        self._last_captured_ns = captured_ns
        return captured_ns


@dataclass(slots=True)
class Beat:
    """A steady beat for sinks with a clock (virtual camera)."""

    fps: float
    _next_ns: int | None = None

    def next_ns(self, now_ns: int) -> int:
        """Return the time of the next beat; beats that were missed are left out, not caught up."""
        period_ns = round(NS_PER_S / self.fps)
        if self._next_ns is None:
            self._next_ns = now_ns
            return now_ns
        self._next_ns += period_ns
        if self._next_ns <= now_ns - period_ns:
            missed = (now_ns - self._next_ns) // period_ns
            self._next_ns += missed * period_ns
        return self._next_ns


def too_old(captured_ns: int, now_ns: int, max_age_ms: float | None) -> bool:
    """Return whether a frame must not be shown any more."""
    return max_age_ms is not None and now_ns - captured_ns > max_age_ms * NS_PER_MS


def backoff_s(attempt: int, *, first_s: float = 0.25, limit_s: float = 5.0) -> float:
    """Return how long to wait before reconnect ``attempt`` (from 0): doubling, with a limit."""
    return min(limit_s, first_s * 2.0 ** min(attempt, 16))
