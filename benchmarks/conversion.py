"""What a conversion costs, without a GPU: `python -m benchmarks.conversion`.

A CycleGAN generator (11.4 M parameters, random weights, saved by torch.save) becomes an FP16 engine
of TensorRT for RTX for compute capability 8.6: the build alone at 640x360, and the whole `pix2live
convert` with its proofs at 256x256. Claims: under 60 s of wall time, and under 4 GB of memory at
its peak. Each round is a process of its own, whose peak the kernel reports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from benchmarks.common import RESULTS, summary
from engines import Card, FrameModel
from engines.nvidia import tensorrt_api
from tools import environment
from tools.report import write_json

ROOT: Final = Path(__file__).resolve().parent.parent
CHILD: Final = ("-m", "benchmarks.conversion", "--child")
CHECKPOINT: Final = "latest_net_G.pth"
PREPARED: Final = "prepared"
BACKEND: Final = "tensorrt-rtx"
GPU: Final = "8.6"
BUILD_SIZE: Final = (640, 360)
CONVERT_SIZE: Final = (256, 256)
PROOF_FRAMES: Final = 4
MOST_SECONDS: Final = 60
MOST_BYTES: Final = 4e9
CONVERT_WORDS: Final = (
    *("--to", BACKEND, "--gpu", GPU, "--count", str(PROOF_FRAMES)),
    *("--size", f"{CONVERT_SIZE[0]}x{CONVERT_SIZE[1]}"),
)
PACKAGES: Final = ("tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")
"""Of devices; `environment.describe` has the others."""


@dataclass(frozen=True)
class Child:
    """A process that has ended."""

    seconds: float
    peak_bytes: int
    """Its largest resident memory."""
    output: str


def run_child(*words: str) -> Child:
    """Run Python with ``words`` in a process of its own.

    This process must stay small: Linux counts what the parent had at the moment of the start.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{text}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Child(seconds, usage.ru_maxrss * unit, text)


def resnet_tensors(channels: int = 64, blocks: int = 9) -> dict[str, Any]:
    """Return random weights of a CycleGAN generator under their public names."""
    import torch

    torch.manual_seed(0)
    narrow, wide, up = 2 * channels, 4 * channels, 10 + blocks
    shapes = {
        "model.1": (channels, 3, 7, 7),
        "model.4": (narrow, channels, 3, 3),
        "model.7": (wide, narrow, 3, 3),
    }
    for block in range(10, up):
        shapes |= {f"model.{block}.conv_block.{layer}": (wide, wide, 3, 3) for layer in (1, 5)}
    transposed = {f"model.{up}": (wide, narrow, 3, 3), f"model.{up + 3}": (narrow, channels, 3, 3)}
    shapes |= {**transposed, f"model.{up + 7}": (3, channels, 7, 7)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = torch.randn(shape) * 0.02  # as the authors begin
        tensors[f"{name}.bias"] = torch.zeros(shape[name in transposed])
    return tensors


def random_resnet() -> Any:
    """Return the generator of CycleGAN with 9 blocks and 64 channels, random weights."""
    from engines.generators.families import recognise

    return recognise(resnet_tensors()).generator


def random_style() -> Any:
    """Return the network of fast neural style with random weights, whose picture is not flat."""
    import torch

    from engines.generators.fast_neural_style import TransformerNet
    from engines.picture_format import BYTE_RGB

    torch.manual_seed(0)
    generator = TransformerNet((32, 64, 128, 64, 32), 5, BYTE_RGB, BYTE_RGB)
    with torch.no_grad():
        for name, values in generator.named_parameters():
            if ".in" in f".{name}":  # all ones and zeros, which the exporter would merge
                values.add_(torch.rand_like(values) * 0.5)
            elif name == "deconv3.conv2d.weight":  # it begins with -1 to 1 of 255: black
                values.mul_(150)
            elif name == "deconv3.conv2d.bias":
                values.add_(127)
    return generator


def exported(generator: Any, name: str, folder: Path) -> FrameModel:
    """Return the frame model of a generator, as the file NAME.onnx in ``folder``."""
    from engines.export import export_frame_model

    path = folder / f"{name}.onnx"
    card = Card(name=name, stride=generator.stride, architecture=generator.architecture)
    export_frame_model(generator, card, path)
    return FrameModel.read(path)


def prepare(folder: Path) -> None:
    """Write the checkpoint, and the frame model that the build alone begins with."""
    import torch

    tensors = resnet_tensors()
    torch.save(tensors, folder / CHECKPOINT)
    exported(random_resnet(), PREPARED, folder)
    print(sum(tensor.numel() for tensor in tensors.values()))


def build(folder: Path) -> None:
    """Type the graph for FP16, build the engine, and print the seconds and the size."""
    import onnx

    from engines.graphs.half import to_half
    from engines.nvidia.tensorrt_builder import build_plan

    master = onnx.load(str(folder / f"{PREPARED}.onnx"))
    size = BUILD_SIZE
    started = time.perf_counter()
    half = to_half(master).model
    typed = time.perf_counter()
    plan = build_plan(
        BACKEND, half, smallest=size, best=size, largest=size, compute_capabilities=(GPU,)
    )
    ended = time.perf_counter()
    phases = {"to_half": typed - started, "build_plan": ended - typed}
    print(json.dumps({"phases_s": phases, "bytes": len(plan.data)}))


def build_alone(folder: Path) -> dict[str, Any]:
    """Return seconds, memory and size of one build."""
    child = run_child(*CHILD, "build", "--folder", str(folder))
    found = json.loads(child.output.splitlines()[-1])
    phases = found["phases_s"]
    return {
        "seconds": sum(phases.values()),
        "peak_bytes": child.peak_bytes,
        "engine_bytes": found["bytes"],
        "phases_s": {**phases, "start of Python, reading": child.seconds - sum(phases.values())},
    }


def convert(folder: Path) -> dict[str, Any]:
    """Return the same of one `pix2live convert`, from its start to its end."""
    report, out = folder / "report.json", folder / "resnet.onnx"
    words = (*CONVERT_WORDS, "--out", str(out), "--report", str(report))
    child = run_child("-m", "tools", "convert", str(folder / CHECKPOINT), *words)
    said = json.loads(report.read_text())
    (engine,) = said["engines"]
    return {
        "seconds": child.seconds,
        "peak_bytes": child.peak_bytes,
        "engine_bytes": engine["bytes"],
        "phases_s": {
            "engine": engine["seconds"],
            "start of Python, reading, export, proofs": child.seconds - engine["seconds"],
        },
        "proofs": {
            step["step"]: step["numbers"]["psnr_db"] if step["numbers"] else step["verdict"]
            for step in said["steps"]
        },
    }


def summed_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rounds as summaries; the claims hold when the worst round keeps them."""
    seconds = [item["seconds"] for item in rounds]
    peaks = [item["peak_bytes"] for item in rounds]
    return {
        "seconds": summary(seconds),
        "peak_gb": summary([peak / 1e9 for peak in peaks]),
        "engine_mb": round(rounds[-1]["engine_bytes"] / 1e6, 2),
        "phases_s": {
            name: round(statistics.median(item["phases_s"][name] for item in rounds), 2)
            for name in rounds[0]["phases_s"]
        },
        **({"proofs": rounds[-1]["proofs"]} if "proofs" in rounds[-1] else {}),
        f"under {MOST_SECONDS} s": max(seconds) < MOST_SECONDS,
        f"under {MOST_BYTES / 1e9:.0f} GB": max(peaks) < MOST_BYTES,
        "rounds": rounds,
    }


def gpus() -> list[str]:
    """Return name, driver, power limit and clock of every NVIDIA GPU, in nvidia-smi's words."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = "--query-gpu=name,driver_version,power.limit,clocks.max.sm"
    found = subprocess.run([tool, query, "--format=csv,noheader"], capture_output=True, text=True)
    return found.stdout.strip().splitlines() if found.returncode == 0 else []


def save(name: str, result: dict[str, Any], path: Path) -> None:
    """Write the result with what it was taken on, as `benchmarks.common.save`, without a clip."""
    packages = {item: environment.package_version(item) for item in PACKAGES}
    data = {
        "benchmark": name,
        "taken": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment.describe()
        | {"gpus": gpus(), "device_packages": {key: x for key, x in packages.items() if x}},
        **result,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, data)


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the results as a table."""
    print(f"{'':28}  wall s  peak GB  engine MB  phases, s")
    for name, item in found.items():
        phases = ", ".join(f"{phase} {value}" for phase, value in item["phases_s"].items())
        seconds, peak = item["seconds"]["median"], item["peak_gb"]["max"]
        print(f"{name:28}{seconds:8.2f}{peak:9.2f}{item['engine_mb']:11.2f}  {phases}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "conversion.json", metavar="FILE")
    parser.add_argument("--child", choices=["prepare", "build"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        {"prepare": prepare, "build": build}[options.child](options.folder)
        return
    reason = tensorrt_api.why_not(BACKEND)
    if reason is not None:
        sys.exit(f"this benchmark needs {BACKEND}: {reason}")
    builds, conversions = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = int(run_child(*CHILD, "prepare", "--folder", name).output.splitlines()[-1])
        for _ in range(options.rounds):
            builds.append(build_alone(folder))
            conversions.append(convert(folder))
    width, height = BUILD_SIZE
    found = {
        f"build alone, {width}x{height}": summed_up(builds),
        "pix2live convert, {}x{}".format(*CONVERT_SIZE): summed_up(conversions),
    }
    show(found)
    settings = {"rounds": options.rounds, "gpu": GPU, "convert": " ".join(CONVERT_WORDS)}
    save("conversion", {"settings": settings, "parameters": parameters, **found}, options.json)


if __name__ == "__main__":
    main()
