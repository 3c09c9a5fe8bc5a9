"""Shared: what several engines of one process use together, for as long as one of them does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class _Turn:
    """Those who ask for one key at this moment, one after the other."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0
    """How many hold the lock or wait for it."""


class Shared(Generic[Key, Value]):
    """Values that are made once and used by everybody who asks for the same key.

    Nothing is kept here: a value lives as long as somebody who got it, and goes with the last of
    them, also when that one was never closed but collected as garbage. A value must be something
    that weak references can point to.

    Thread: any. Other keys do not wait for one that takes long to make.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held for the two dictionaries only, never while a value is made."""
        self._values: WeakValueDictionary[Key, Value] = WeakValueDictionary()
        self._turns: dict[Key, _Turn] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of ``key`` that somebody uses, else a new one from ``make``.

        One thread makes; others that want the same wait for it. What ``make`` raises is raised here
        and not remembered: the next one in turn tries again. ``make`` must not ask for ``key``.
        """
        with self._lock:
            turn = self._turns.setdefault(key, _Turn())
            turn.threads += 1
        try:
            with turn.lock:
                with self._lock:
                    value = self._values.get(key)
                if value is None:
                    value = make()
                    with self._lock:
                        self._values[key] = value
                return value
        finally:
            with self._lock:
                turn.threads -= 1
                if not turn.threads:
                    del self._turns[key]

    def __len__(self) -> int:
        """Return how many values are in use."""
        with self._lock:
            return len(self._values)
