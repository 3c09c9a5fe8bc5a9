"""What a measurement was taken on: versions, processor, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "opencv-python",
    "av",
    "openvino",
    "onnx",
    "onnxruntime",
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
        "cpu": cpu_name(),
        "cpus": cpu_count(),
        "cpu_flags": cpu_flags(),
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
    return _cpuinfo("model name") or _cpuinfo("Model") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return the instruction sets that decide how fast a network runs (Linux)."""
    found = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return [flag for flag in INTERESTING_FLAGS if flag in found]


def cpu_count() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def _cpuinfo(key: str) -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
