"""What a measurement was taken on: versions, processor, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines.processor import cpuinfo, instructions

PACKAGES = (
    "numpy",
    "opencv-python",
    "av",
    "openvino",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
)
INTERESTING_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "bf16",
)


def describe() -> dict[str, Any]:
    """Return the facts of this machine and installation as JSON types."""
    from tools.cli import installed_version

    return {
        "pix2live": installed_version(),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "board": board(),
        "cpu": cpu_name(),
        "cpus": cpu_count(),
        "cpu_flags": cpu_flags(),
        "memory_gb": memory_gb(),
        "virtualisation": virtualisation(),
        "power_mode": power_mode(),
        "packages": {name: found for name in PACKAGES if (found := package_version(name))},
    }


def package_version(name: str) -> str | None:
    """Return the installed version; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the processor's marketing name."""
    return cpuinfo("model name") or cpuinfo("Model") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return the instruction sets that decide how fast a network runs (Linux)."""
    return [flag for flag in INTERESTING_FLAGS if flag in instructions()]


def cpu_count() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float | None:
    """Return the machine's memory in GB (10^9 bytes); None where it does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def board() -> str | None:
    """Return the name of the board or computer, as its firmware has it (Linux)."""
    for path in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        name = _file(path).strip("\0 \n")
        if name:
            return name
    return None


def virtualisation() -> str | None:
    """Return what this machine is a guest of, as far as it shows; None for bare metal (Linux)."""
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "container"
    if "hypervisor" in instructions():
        vendor = _file("/sys/class/dmi/id/sys_vendor").strip()
        return f"virtual machine, {vendor}" if vendor else "virtual machine"
    return None


def power_mode() -> dict[str, str]:
    """Return how fast this machine allows itself to run; empty where nothing says so (Linux).

    ``governor`` and ``preference`` of cpufreq (several where processors differ), ``quota`` of a
    container in processors, ``nvpmodel`` of a Jetson.
    """
    found = {}
    cpus = Path("/sys/devices/system/cpu")
    for name, file in (
        ("governor", "scaling_governor"),
        ("preference", "energy_performance_preference"),
    ):
        values = {_file(path).strip() for path in cpus.glob(f"cpu[0-9]*/cpufreq/{file}")} - {""}
        if values:
            found[name] = ", ".join(sorted(values))
    allowed, _, period = _file("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if allowed.isdigit() and period.isdigit():
        found["quota"] = f"{int(allowed) / int(period):g} processors"
    if program := shutil.which("nvpmodel"):
        try:
            done = subprocess.run(
                [program, "-q"], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            pass
        else:
            found["nvpmodel"] = nvpmodel_mode(done.stdout)
    return found


def nvpmodel_mode(text: str) -> str:
    """Return the mode from what ``nvpmodel -q`` prints: ``NV Power Mode: MAXN``, then a number."""
    _, _, mode = text.partition("NV Power Mode:")
    return " ".join(mode.split()) or " ".join(text.split())


def commit() -> str | None:
    """Return the commit of a plain checkout, with ``+`` when files were changed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def _file(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
