"""What to measure: filters, sizes, and every backend and precision that could be here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engines import EngineError, FrameModel, Pixels, Size, backend_names, filter_names, load_filter
from engines.registry import why_not
from tools.bench.results import NOT_HERE, NOT_REACHED, Case, Clip
from tools.conversion.frames import proof_frames
from tools.demo import CLIP_CREDIT, find_clip

ALL: Final = "all"
PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "openvino": ("f32", "bf16", "f16", "int8"),
    "onnxruntime:cpu": ("f32", "int8"),
    "onnxruntime": ("f32",),
    "torch:cpu": ("f32",),
    "torch": ("f32", "f16"),
    "tensorrt": ("f32", "f16"),
    "tensorrt-rtx": ("f32", "f16"),
}
"""What to try of a backend with its device, or of a backend; others take what they take alone."""
ON_THE_CPU: Final = {"torch": "torch:cpu", "onnxruntime": "onnxruntime:cpu"}
"""These take whatever device is there when none is named; here a name means one thing."""
REFERENCES: Final = ("onnxruntime:cpu", "openvino", "torch:cpu")
"""In f32; the first that can run a filter is right by definition."""
PROVIDERS: Final = {
    "CUDAExecutionProvider": "onnxruntime:cuda",
    "CoreMLExecutionProvider": "onnxruntime:coreml",
    "DmlExecutionProvider": "onnxruntime:directml",
}
FRAMES: Final = 6
"""Of the clip; more than any backend has under way."""
COMPARED: Final = 3
MOST_TOGETHER: Final = 8
"""Cases that take turns, each in a process that keeps its memory."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that take turns, each with its filter."""

    cases: list[tuple[FrameModel, Case]]


def chosen_filters(names: Sequence[str]) -> list[FrameModel]:
    """Return the filters; ``all`` are those that ship.

    Raises:
        ModelError: one is neither shipped nor a frame model file.
    """
    wanted = [item for name in names for item in (filter_names() if name == ALL else [name])]
    return [load_filter(name) for name in dict.fromkeys(wanted)]


def chosen_backends(
    names: Sequence[str], devices: Mapping[str, Sequence[str]], *, nvidia: bool
) -> list[str]:
    """Return backends with their devices; ``all`` are those that could run here or say why not.

    Args:
        names: as people type them: ``openvino``, ``openvino:GPU``, ``all``.
        devices: what `tools.bench.child.devices` found.
        nvidia: whether there is an NVIDIA GPU.

    Raises:
        EngineError: no backend has such a name.
    """
    known = backend_names()
    unknown = [name for name in names if name != ALL and name.partition(":")[0] not in known]
    if unknown:
        raise EngineError(f"no backend {unknown[0]!r}; there are: {', '.join([*known, ALL])}")
    wanted = []
    for name in names:
        wanted += _every_backend(devices, nvidia) if name == ALL else [ON_THE_CPU.get(name, name)]
    return list(dict.fromkeys(wanted))


def precisions(backend: str, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Return those to try of a backend; ``asked`` for, where somebody did."""
    able = PRECISIONS.get(backend) or PRECISIONS.get(backend.partition(":")[0], ("auto",))
    return tuple(asked) or able


def groups(
    models: Sequence[FrameModel],
    sizes: Sequence[Size],
    backends: Sequence[str],
    asked: Sequence[str] = (),
) -> list[Group]:
    """Return every filter at every size that it takes, with a case a backend and precision.

    Filters take turns at one size as long as there are no more than `MOST_TOGETHER` cases: two
    versions of a filter are measured side by side. Where a backend is not installed or has no
    device, its cases say so already.
    """
    reasons = {name: why_not(name.partition(":")[0]) or "" for name in backends}
    stems = [model.path.stem for model in models]
    found: list[Group] = []
    known: set[tuple[str, Size]] = set()
    for asked_size in dict.fromkeys(sizes):
        group = Group([])
        for model, stem in zip(models, stems, strict=True):
            name = stem if stems.count(stem) == 1 else str(model.path)
            size = model.fit(asked_size)
            if (name, size) in known:
                continue
            known.add((name, size))
            cases = [
                (model, Case(name, model.sha256, size, backend, precision, *_outlook(reason)))
                for backend, reason in reasons.items()
                for precision in precisions(backend, asked)
            ]
            if group.cases and _waiting(group.cases + cases) > MOST_TOGETHER:
                found.append(group)
                group = Group([])
            group.cases.extend(cases)
        if group.cases:
            found.append(group)
    return found


def fitted(models: Sequence[FrameModel], sizes: Sequence[Size]) -> str:
    """Return in one line which sizes are measured as another; empty where none is."""
    found: dict[str, dict[str, None]] = {}
    for asked in sizes:
        for model in models:
            if (size := model.fit(asked)) != asked:
                words = f"{asked[0]}x{asked[1]} is measured as {size[0]}x{size[1]}"
                found.setdefault(words, {})[model.path.stem] = None
    said = [f"{words} ({', '.join(names)})" for words, names in found.items()]
    return f"{'; '.join(said)}: the nearest that the filter takes" if said else ""


def frames(size: Size) -> list[Pixels]:
    """Return `FRAMES` frames of the clip, or made ones, uint8 (H, W, 3) BGR of ``size``."""
    found = list(proof_frames(find_clip(), size, FRAMES).frames)
    return [found[number % len(found)] for number in range(FRAMES)]


def clip() -> Clip:
    """Return what the frames are of."""
    path = find_clip()
    if path is None:
        made = hashlib.sha256(np.stack(frames((64, 48))).tobytes()).hexdigest()
        return Clip("made frames (dead leaves model)", made, real=False)
    return Clip(CLIP_CREDIT, hashlib.sha256(Path(path).read_bytes()).hexdigest(), real=True)


def _waiting(cases: Sequence[tuple[FrameModel, Case]]) -> int:
    return sum(not case.reason for _, case in cases)


def _outlook(reason: str) -> tuple[str, str]:
    return (NOT_HERE, reason) if reason else (NOT_REACHED, "")


def _every_backend(devices: Mapping[str, Sequence[str]], nvidia: bool) -> list[str]:
    found = []
    for name in backend_names():
        if name == "identity":
            continue
        if name == "openvino":
            others = [device for device in devices.get(name, []) if device != "CPU"]
            found += [name, *(f"openvino:{device}" for device in others)]
        else:
            found.append(ON_THE_CPU.get(name, name))
        if name == "onnxruntime":
            listed = devices.get(name, [])
            found += [PROVIDERS[provider] for provider in listed if provider in PROVIDERS]
        elif name == "torch" and nvidia:
            found.append("torch:cuda")
    return found
