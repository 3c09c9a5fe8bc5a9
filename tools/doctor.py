"""`pix2live doctor`: what is here, what is missing, and what to do next."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires
from importlib.util import find_spec
from itertools import zip_longest
from typing import Final

import click
from rich.console import Console

from engines import EngineError, filter_names
from engines.registry import backend_names, why_not
from realtime.sinks.window import why_no_window
from realtime.sources.v4l2 import Device, list_devices
from tools import environment

CONVERSION_PACKAGES = ("torch", "onnxscript", "onnxruntime", "safetensors")
EXTRAS: Final = {
    "onnxruntime": "filters on ONNX Runtime",
    "torch": "PyTorch networks as they are",
    "convert": "pix2live convert",
    "int8": "pix2live convert --to onnx-int8",
    "train": "pix2live train",
    "medical": "DICOM files as sources",
    "cuda": "running TensorRT engines (pip compiles it with the CUDA toolkit)",
    "tensorrt": "building TensorRT engines, on a machine with a GPU; cuda runs them",
    "tensorrt-rtx": "building TensorRT for RTX engines, without a GPU too; cuda runs them",
    "screen": "the screen as a source",
    "web": "pix2live serve",
    "webrtc": "WebRTC in pix2live serve",
    "page": "web pages as sources; needs a Chromium as well",
    "bench": "plots of pix2live bench, sensors of NVIDIA GPUs",
    "demo": "the film clip of pix2live demo",
    "dev": "for work on pix2live: checks and packaging",
    "test": "for work on pix2live: the tests",
}
"""Name in pyproject.toml -> what it brings. What it consists of, the installation itself says."""
REQUIREMENT: Final = re.compile(r"([\w.-]+)(?:\[(.+?)\])?\s*([^;]*)(?:;(.*))?")
"""Name, extras, versions, markers."""
CLAUSE: Final = re.compile(r"([>=~]=)\s*([\d.]+)")
"""``>=4.10``, ``==1.1.11``; an upper bound is not looked at."""
FOR_DEVELOPERS: Final = ("dev", "test")
AGAIN: Final = "pip install -e ."


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    topic: str
    good: bool | None
    """None: neither good nor bad."""
    text: str


@click.command()
def doctor() -> None:
    """Say what this machine has, and end with one line on what to do next."""
    console = Console()
    findings = examine()
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            console.print(f"\n[bold]{topic}[/bold]")
        mark = {True: "[green]ok[/green]", False: "[yellow]--[/yellow]", None: "  "}[finding.good]
        console.print(f"  {mark}  ", end="")
        console.print(finding.text, highlight=False, markup=False, soft_wrap=True)
    console.print("\n[bold]Next[/bold]: ", end="")
    console.print(what_next(findings), highlight=False, markup=False, soft_wrap=True)


def examine() -> list[Finding]:
    """Return every finding, in the order of the report."""
    parts = (_machine, _backends, _conversion, _extras, _cameras, _outputs, _filters)
    return [finding for part in parts for finding in part()]


def what_next(findings: list[Finding]) -> str:
    """Return the one line that gets a person to a picture."""
    good = {finding.topic for finding in findings if finding.good}
    if "Backends" not in good:
        return "pip install openvino"
    if "Cameras" in good:
        return "pix2live run" if "Screen" in good else "pix2live run --sink out.mp4 --seconds 10"
    return "pix2live run test-pattern --seconds 10, or give a file: pix2live run FILM.mp4"


def _machine() -> list[Finding]:
    facts = environment.describe()
    flags = ", ".join(facts["cpu_flags"]) or "no wide vector units known"
    versions = ", ".join(f"{name} {found}" for name, found in facts["packages"].items())
    return [
        Finding("Machine", None, f"{facts['cpu']}, {facts['cpus']} processors; {flags}"),
        Finding("Machine", None, f"{facts['platform']}, Python {facts['python']}"),
        Finding("Machine", None, f"pix2live {facts['pix2live']}; {versions}"),
    ]


def _backends() -> list[Finding]:
    found = []
    for name in backend_names():
        reason = why_not(name)
        useful = reason is None and name != "identity"
        text = f"{name}: {reason or _devices(name)}"
        found.append(Finding("Backends", useful if reason or useful else None, text))
    return found


def _devices(name: str) -> str:
    if name == "openvino":
        from engines.backends.openvino import import_openvino
        from engines.backends.signal_stack import kept_signal_stack

        with kept_signal_stack():
            core = import_openvino().Core()
            return ", ".join(
                f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')}:"
                f" {' '.join(core.get_property(device, 'OPTIMIZATION_CAPABILITIES'))})"
                for device in core.available_devices
            )
    if name == "onnxruntime":
        import onnxruntime

        return ", ".join(onnxruntime.get_available_providers())
    if name == "torch":
        import torch

        return f"CUDA {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU"
    if name.startswith("tensorrt"):
        from engines.nvidia import tensorrt_api
        from engines.nvidia.cuda import Cuda

        try:
            gpu = Cuda("")
        except EngineError as error:
            return str(error)
        capability = "{}.{}".format(*gpu.compute_capability)
        return f"{gpu.name} (compute capability {capability}), {tensorrt_api.version(name)}"
    return "ready"


def _conversion() -> list[Finding]:
    """What `pix2live convert` can do here: that needs other packages than running."""
    from engines.nvidia import tensorrt_api

    missing = [name for name in CONVERSION_PACKAGES if find_spec(name) is None]
    text = "checkpoints: ready"
    if missing:
        text = f"checkpoints: {', '.join(missing)} missing (pip install 'pix2live[convert]')"
    reason = tensorrt_api.why_not("tensorrt-rtx")
    engines = f"TensorRT for RTX engines: {reason or 'can be built here, without a GPU too'}"
    return [
        Finding("Conversion", not missing, text),
        Finding("Conversion", reason is None, engines),
    ]


def _extras() -> list[Finding]:
    """What `pip install` can add: a line for each extra, with what of it is missing."""
    try:
        found = requires("pix2live") or []
        known = metadata("pix2live").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        text = f"not known for a plain checkout; to install it: {AGAIN}"
        return [Finding("Extras", None, text)]
    lines = []
    for name, brings in EXTRAS.items():
        text = f"{name}: {brings}"
        if name not in known:  # installed from an older pyproject.toml
            lines.append(Finding("Extras", None, f"{text}; not in this installation: {AGAIN}"))
            continue
        missing = missing_packages(name, found)
        if missing:
            text += f"; missing: {', '.join(missing)} (pip install 'pix2live[{name}]')"
        useless = bool(missing) and name in FOR_DEVELOPERS  # and nothing that a person lacks
        lines.append(Finding("Extras", None if useless else not missing, text))
    return lines


def missing_packages(extra: str, requirements: Sequence[str]) -> list[str]:
    """Return what ``extra`` lacks here, extras that it includes too.

    Args:
        extra: its name.
        requirements: of pix2live, as its installed metadata has them (PEP 508).
    """
    missing = []
    for name, versions in packages_of(extra, requirements):
        found = environment.package_version(name)
        # Another distribution may bring the same package: onnxruntime-gpu.
        spec = None if found else find_spec(name.replace("-", "_"))
        wanted = _wanted_instead(found, versions) if found else ""
        if wanted:
            missing.append(f"{name} {wanted}, found {found}")
        elif not found and (spec is None or spec.origin is None):  # None: a folder of that name
            missing.append(name)
    return list(dict.fromkeys(missing))


def packages_of(extra: str, requirements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (package, versions: ``>=4.10``) of what ``extra`` consists of on this system."""
    here = {"sys_platform": sys.platform, "platform_machine": platform.machine()}
    for line in requirements:
        parts = REQUIREMENT.fullmatch(line)
        assert parts is not None, line
        name, extras, versions, marker = (part or "" for part in parts.groups())
        conditions = dict(re.findall(r"""(\w+) == ["'](.+?)["']""", marker))
        if conditions.pop("extra", None) != extra:
            continue
        if any(here.get(key, value) != value for key, value in conditions.items()):
            continue
        if name == "pix2live":
            for part in extras.split(","):
                yield from packages_of(part, requirements)
        else:
            yield name, versions.strip()


def _wanted_instead(found: str, versions: str) -> str:
    """Return in words which version is wanted; nothing where ``found`` is one of ``versions``."""
    for sign, asked in CLAUSE.findall(versions):
        pairs = list(zip_longest(_numbers(found), _numbers(asked), fillvalue=0))  # 4.10 is 4.10.0
        here, there = zip(*pairs, strict=True)
        if sign == "==" and here != there:
            return str(asked)
        if here < there:
            return f"{asked} or newer"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers before what comes behind a version: ``2.6.0+cpu`` -> (2, 6, 0)."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def _cameras() -> list[Finding]:
    if not sys.platform.startswith("linux"):
        return [Finding("Cameras", None, "listed on Linux only; pix2live run 0 tries the first")]
    found = []
    for device in list_devices():
        if device.problem:
            text = f"{device.path} {device.name}: {device.problem}"
            found.append(Finding("Cameras", False, text))
        elif device.captures:
            found.append(Finding("Cameras", True, f"{device.path} {device.name} ({device.driver})"))
            found += [Finding("Cameras", None, f"  {line}") for line in _modes(device)]
    return found or [Finding("Cameras", False, "none (/dev/video* is empty)")]


def _modes(device: Device) -> list[str]:
    """Return a line a size, largest first: what the camera can do there."""
    sizes = sorted({(mode.width, mode.height) for mode in device.modes}, reverse=True)
    lines = []
    for size in sizes:
        here = [mode for mode in device.modes if (mode.width, mode.height) == size]
        rates = ", ".join(f"{mode.fourcc} {mode.fps:.4g} fps" for mode in here)
        lines.append(f"{size[0]}x{size[1]}: {rates}")
    return lines or ["no modes listed"]


def _outputs() -> list[Finding]:
    reason = why_no_window()
    found = [Finding("Screen", reason is None, reason or "a window can be opened")]
    found.append(_virtual_camera())
    ffmpeg = shutil.which("ffmpeg")
    text = "not installed (not needed: PyAV brings its own)"
    if ffmpeg:
        lines = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=False)
        text = lines.stdout.splitlines()[0] if lines.stdout else ffmpeg
    return [*found, Finding("ffmpeg", None, text)]


def _virtual_camera() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("Virtual camera", None, "found out when it is opened, on this system")
    from realtime.sinks.virtual_camera import INSTALL_HINTS

    loopbacks = [item for item in list_devices() if item.driver.startswith("v4l2 loopback")]
    if loopbacks:
        names = ", ".join(f"{item.path} {item.name}" for item in loopbacks)
        return Finding("Virtual camera", True, names)
    return Finding("Virtual camera", False, f"none; to get one: {INSTALL_HINTS['linux']}")


def _filters() -> list[Finding]:
    names = filter_names()
    return [Finding("Filters", bool(names), ", ".join(names) or "none shipped")]
