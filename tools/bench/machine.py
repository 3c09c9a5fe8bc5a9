"""The machine that is measured: its GPUs, and what else it was busy with meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools import environment

CALM_LOAD: Final = 0.25
"""Waiting programs for each processor: above it, something else is running."""
SHORTEST_S: Final = 0.3
"""The kernel counts in hundredths of a second: shares of less time say nothing."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """What the processors that this process may use have done since the machine started."""

    busy_s: float
    steal_s: float
    at_s: float
    """Monotonic."""

    @classmethod
    def now(cls) -> Ticks | None:
        """Return the counters; None where there are none (not Linux)."""
        try:
            text = Path("/proc/stat").read_text()
            cpus, tick = os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError, ValueError):
            return None
        busy, steal = parse_stat(text, cpus)
        return cls(busy / tick, steal / tick, time.monotonic())


def parse_stat(text: str, cpus: set[int]) -> tuple[int, int]:
    """Return (busy, stolen) ticks of ``cpus`` from the text of ``/proc/stat``.

    Waiting for disks is not busy; time of guests is counted in that of users already.
    """
    busy = steal = 0
    for line in text.splitlines():
        name, *words = line.split()
        if not name.startswith("cpu") or not name[3:].isdigit() or int(name[3:]) not in cpus:
            continue
        user, nice, system, _, _, irq, softirq, *more = map(int, words)
        busy += user + nice + system + irq + softirq
        steal += more[0] if more else 0
    return busy, steal


def shares(before: Ticks | None, after: Ticks | None, own_s: float) -> tuple[float, float] | None:
    """Return which shares of the processors other programs and the host took in between.

    ``own_s`` is the processor time of the bench itself. None where it cannot be known.
    """
    if before is None or after is None or after.at_s - before.at_s < SHORTEST_S:
        return None
    all_s = (after.at_s - before.at_s) * environment.cpu_count()
    others = (after.busy_s - before.busy_s - own_s) / all_s
    steal = (after.steal_s - before.steal_s) / all_s
    return min(max(others, 0.0), 1.0), min(max(steal, 0.0), 1.0)


def process_seconds(pid: int) -> float:
    """Return the processor time of a process with its threads; 0 where nobody can know."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def has_nvidia() -> bool:
    """Whether this machine shows an NVIDIA GPU: the driver's device files, or a Jetson's."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu"))


def facts() -> dict[str, Any]:
    """Return what `tools.environment` does not know, as JSON types.

    ``load``: the load average at the start; ``notes``: what a reader should know of it.
    """
    found: dict[str, Any] = {"load_average": None, "notes": []}
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        found["load_average"] = round(load, 2)
        if load > CALM_LOAD * environment.cpu_count():
            found["notes"].append(
                f"the machine was busy when the bench began: load average {load:.1f} on"
                f" {environment.cpu_count()} processors"
            )
    power = environment.power_mode()
    governors = power.get("governor", "")
    if governors and "performance" not in governors:
        found["notes"].append(
            f"the processor's clock follows its load (governor {governors}): short rounds may be"
            " slower than long ones"
        )
    if environment.virtualisation():
        found["notes"].append(
            f"virtual machine or container ({environment.virtualisation()}): the host's other"
            " guests share the hardware"
        )
    return found
