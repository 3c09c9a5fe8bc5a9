"""Engines, sources and sinks of pipelines under test: slow, broken, or with a memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from engines import EngineError, Pixels, SinkError, SourceError
from engines.backends.identity import IdentityEngine
from realtime import Frame, SinkInfo
from realtime.sinks import NullSink
from realtime.sources.synthetic import SyntheticSource, read_code

PATTERN = "test-pattern:128x96@200"


class SlowEngine(IdentityEngine):
    """Takes its time, as a network does."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(None)
        self.pause_s = pause_s

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        time.sleep(self.pause_s)
        super()._submit(frame_in, frame_out)


class BrokenEngine(IdentityEngine):
    """Fails on the fifth frame."""

    seen = 0

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        self.seen += 1
        if self.seen > 5:
            raise EngineError("it broke")
        super()._submit(frame_in, frame_out)


class BrokenSource(SyntheticSource):
    """Goes away after ten frames."""

    def read(self, frame: Frame) -> bool:
        if self._number >= 10:
            raise SourceError("it went away")
        return super().read(frame)


class Keep(NullSink):
    """Remembers what it was shown, and whether it was closed."""

    def __init__(self, pause_s: float = 0.0, fail_at: int | None = None) -> None:
        super().__init__()
        self.pause_s, self.fail_at = pause_s, fail_at
        self.indices: list[int] = []
        self.codes: list[int | None] = []
        self.ages_ms: list[float] = []
        self.info: SinkInfo | None = None
        self.closed = 0

    def open(self, info: SinkInfo) -> None:
        self.info = info

    def write(self, frame: Frame) -> None:
        self.ages_ms.append(frame.age_ns(time.monotonic_ns()) / 1e6)
        code = read_code(frame.pixels)
        self.indices.append(frame.index)
        self.codes.append(None if code is None else code[0])
        if self.fail_at is not None and len(self.indices) >= self.fail_at:
            raise SinkError("it is full")
        time.sleep(self.pause_s)

    def close(self) -> None:
        self.closed += 1


def identity() -> IdentityEngine:
    return IdentityEngine(None)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not come to that")
        time.sleep(0.01)
