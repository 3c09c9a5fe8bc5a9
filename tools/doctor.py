"""`pix2live doctor`: what is here, what is missing, and what to do next."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import click
from rich.console import Console

from engines import EngineError, filter_names
from engines.registry import backend_names, why_not
from realtime.sinks.window import why_no_window
from realtime.sources.v4l2 import Device, list_devices
from tools import environment

CONVERSION_PACKAGES = ("torch", "onnxscript", "onnxruntime", "safetensors")


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
    parts = (_machine, _backends, _conversion, _cameras, _outputs, _filters)
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
