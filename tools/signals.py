"""Ctrl-C and SIGTERM end a live path well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from realtime import Pipeline


@contextmanager
def end_on_signals(pipeline: Pipeline) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM end the run well, and a second one end it at once.

    Afterwards both are ignored: the process is about to end, and an exception in the middle of
    a library's own ending can crash it. Yields the signals that came.
    """
    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:
            pipeline.stop()
        elif len(caught) == 2:
            pipeline.abort()

    if threading.current_thread() is not threading.main_thread():
        yield caught  # an embedding program has its own signals
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    try:
        yield caught
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
