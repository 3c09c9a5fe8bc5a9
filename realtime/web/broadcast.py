"""Broadcast: the freshest picture for any number of readers on the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from realtime.sinks.browser import Picture

MOST_PUBLISHED = 64
"""Pictures that a loop finds which did not come to them for seconds."""


class Subscription:
    """One reader's newest picture; an older one that it has not had gives way."""

    def __init__(self, broadcast: Broadcast, kind: str) -> None:
        self.kind = kind
        self.dropped = 0
        self._broadcast = broadcast
        self._newest: Picture | None = None
        self._came = asyncio.Event()
        self._over = False

    async def next(self) -> Picture | None:
        """Wait for a picture that was not had yet; None when there will be none any more."""
        while self._newest is None and not self._over:
            await self._came.wait()
            self._came.clear()
        picture, self._newest = self._newest, None
        return picture

    def close(self) -> None:
        """Leave. Safe to call twice."""
        self._broadcast.leave(self)
        self.end()

    def put(self, picture: Picture) -> None:
        """Take over ``picture``. Thread: the loop's."""
        if self._newest is not None:
            self.dropped += 1
        self._newest = picture
        self._came.set()

    def end(self) -> None:
        """Let `next` return None, after a picture that still waits."""
        self._over = True
        self._came.set()


class Broadcast:
    """Hands the pictures of one sink to all who look.

    Thread: `publish` and `wants` from any, the rest in the loop's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._subscriptions: set[Subscription] = set()
        self._wanted: Counter[str] = Counter()
        self._published: deque[Picture] = deque(maxlen=MOST_PUBLISHED)
        self._closed = False

    @property
    def watchers(self) -> int:
        """How many look."""
        return len(self._subscriptions)

    def subscribe(self, kind: str = "jpeg") -> Subscription:
        """Join those who look, at ``jpeg`` or ``pixels``."""
        subscription = Subscription(self, kind)
        if self._closed:
            subscription.end()
            return subscription
        self._subscriptions.add(subscription)
        self._wanted[kind] += 1
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Forget one that looked."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._wanted[subscription.kind] -= 1

    def wants(self, kind: str) -> bool:
        return self._wanted[kind] > 0

    def publish(self, picture: Picture) -> None:
        if self._closed:
            return
        self._published.append(picture)
        try:
            self._loop.call_soon_threadsafe(self._spread)
        except RuntimeError:  # the loop has ended
            self._closed = True

    def close(self) -> None:
        """End it for all."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _spread(self) -> None:
        while self._published:  # of several, who looks gets the newest, and counts the others
            picture = self._published.popleft()
            for subscription in self._subscriptions:
                if (picture.jpeg if subscription.kind == "jpeg" else picture.pixels) is not None:
                    subscription.put(picture)
