"""What the processor can do, as far as the system tells."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})


def cpuinfo(key: str) -> str | None:
    """Return what Linux says of the first processor under ``key``; None where nobody says it."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


@functools.cache
def instructions() -> frozenset[str]:
    """Return the instruction sets of the first processor by Linux's names; empty elsewhere.

    Read once: a processor does not change.
    """
    return frozenset((cpuinfo("flags") or cpuinfo("Features") or "").split())  # x86, ARM


def is_x86() -> bool:
    """Whether it is one of Intel's kind, AMD's included."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def has_vnni() -> bool | None:
    """Whether it multiplies and adds INT8 at once, in sums of 32 bits; None where nobody says it.

    Without, INT8 is hardly faster than f32, and sums of 16 bits overflow: the pictures are others.
    """
    found = instructions()
    return bool(VNNI & found) if found else None
