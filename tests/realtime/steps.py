"""Effects for the tests of chains: one that counts and keeps a diary, one that raises."""

from __future__ import annotations

import time

import numpy as np

from engines import Pixels, Size
from realtime import Frame
from realtime.effects import Context, Effect


class Step(Effect):
    """Adds a number; keeps a diary."""

    name = "step"

    def __init__(self, amount: int, diary: list[str] | None = None) -> None:
        super().__init__()
        self.amount = amount
        self.diary = [] if diary is None else diary

    def prepare(self, size: Size, context: Context) -> None:
        self.diary.append(f"prepare {self.amount} {size}")

    def process(self, frame: Frame, context: Context) -> Pixels:
        self.diary.append(f"process {self.amount}")
        return (frame.pixels * 2 + self.amount).astype(np.uint8)

    def reset(self) -> None:
        self.diary.append(f"reset {self.amount}")

    def close(self) -> None:
        self.diary.append(f"close {self.amount}")


def frame_of(value: int = 1) -> Frame:
    pixels = np.full((4, 6, 3), value, np.uint8)
    return Frame(pixels, source=np.zeros_like(pixels), captured_ns=time.monotonic_ns())


def raising(frame: Frame, context: Context) -> Pixels:
    raise ZeroDivisionError("of mine")
