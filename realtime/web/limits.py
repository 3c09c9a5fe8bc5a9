"""How often somebody may ask: token buckets, one per client, in bounded memory.

No clock is read here: the time is an argument, so that a test can be a whole day.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

CLIENTS = 1024
"""Clients that are remembered; whoever asked longest ago is forgotten first."""
GUESSES = 10
"""Wrong tokens that one client has free."""
GUESS_SECONDS = 60.0
"""The time in which the free guesses come back, one by one."""

T = TypeVar("T")


class Bucket:
    """A token bucket: `burst` requests at once, then `rate_per_s` a second.

    It starts full. Times are seconds of any steady clock; a time before the last one counts as
    the last one. One thread at a time.
    """

    __slots__ = ("_level", "_then_s", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._level = burst
        self._then_s: float | None = None

    def take(self, now_s: float, cost: float = 1.0) -> bool:
        """Take `cost` if it is there, and say whether it was. More than `burst` never is."""
        if cost > self._fill(now_s):
            return False
        self._level -= cost
        return True

    def wait_s(self, now_s: float, cost: float = 1.0) -> float:
        """Return the seconds until `cost` is there: 0 if it is now."""
        return max(0.0, cost - self._fill(now_s)) / self.rate_per_s

    def _fill(self, now_s: float) -> float:
        if self._then_s is None:
            self._then_s = now_s
        elif now_s > self._then_s:
            self._level = min(self.burst, self._level + (now_s - self._then_s) * self.rate_per_s)
            self._then_s = now_s
        return self._level


class Remembered(Generic[T]):
    """One thing of a kind per key, made when first asked for; `most` of them at a time."""

    def __init__(self, make: Callable[[], T], most: int = CLIENTS) -> None:
        self._make = make
        self._most = most
        self._things: OrderedDict[str, T] = OrderedDict()

    def __getitem__(self, key: str) -> T:
        if key not in self._things:
            self._things[key] = self._make()
            if len(self._things) > self._most:
                self._things.popitem(last=False)
        self._things.move_to_end(key)
        return self._things[key]

    def remember(self, key: str) -> None:
        """Make the thing of `key` if there is none, and count it as asked for."""
        self[key]

    def __contains__(self, key: str) -> bool:
        return key in self._things

    def __len__(self) -> int:
        return len(self._things)


class Guesses:
    """The wrong tokens of one client: `GUESSES` in `GUESS_SECONDS`, then none for a while.

    The same wrong token again is no new guess: a page left open from an earlier start knocks with
    its old cookie every second, and must not lock its owner out.
    """

    __slots__ = ("_bucket", "_had")

    def __init__(self) -> None:
        self._bucket = Bucket(GUESSES / GUESS_SECONDS, GUESSES)
        self._had: OrderedDict[bytes, None] = OrderedDict()

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next guess is looked at: 0 for now."""
        return self._bucket.wait_s(now_s)

    def wrong(self, now_s: float, digest: bytes) -> None:
        """Count a wrong token, by its digest."""
        if digest in self._had:
            self._had.move_to_end(digest)
            return
        self._had[digest] = None
        if len(self._had) > 2 * GUESSES:
            self._had.popitem(last=False)
        self._bucket.take(now_s)


def client_of(remote: str | None) -> str:
    """Return whose bucket an address is: itself, or the /64 that one household gets with IPv6.

    Link-local addresses stay whole, because all of them share one /64.
    """
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local or address.is_loopback:
        return str(address)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))
