"""Frame: one picture with its number and its time of birth."""

from __future__ import annotations

from dataclasses import dataclass

from engines import Pixels


@dataclass(slots=True)
class Frame:
    """A picture on its way through the live path.

    Frames live in the slots of a queue: whoever took one may read it until it takes or releases
    the next, and copies what it wants to keep.
    """

    pixels: Pixels
    """uint8, (H, W, 3), BGR, C-contiguous; before the engine the picture as captured, after it
    the translated one."""
    source: Pixels | None = None
    """After the engine: the picture as captured, where a sink asked for it (split view)."""
    index: int = -1
    """Counts at the source, from 0, so that a gap is a drop."""
    captured_ns: int = 0
    """Monotonic clock, when the driver handed the picture over; for files the moment it was due."""
    pts_ns: int = 0
    """Presentation time since the first frame, on the source's own timeline."""

    def age_ns(self, now_ns: int) -> int:
        """Return how old the picture is at ``now_ns`` (monotonic clock)."""
        return now_ns - self.captured_ns

    def stamp(self, other: Frame) -> None:
        """Take over number and times of ``other``."""
        self.index = other.index
        self.captured_ns = other.captured_ns
        self.pts_ns = other.pts_ns
