"""Results of a bench with known numbers, for the tests of its files, tables and pages."""

from __future__ import annotations

from typing import Any

from tools.bench.results import (
    MEASURED,
    NOT_HERE,
    Bare,
    Case,
    Clip,
    Difference,
    Live,
    Result,
    Roofline,
    Round,
    Settings,
)

SIZES = ((640, 360), (1280, 720))


def made_round(fps: float, at_s: float = 0.0, **changed: Any) -> Round:
    """A round of an engine that takes as long for every frame."""
    frame_ms = 1000 / fps
    bare = Bare(20, 2.0, fps, frame_ms, frame_ms, frame_ms, cpu_s=2.0, fps_steps=[fps] * 4)
    age_ms = frame_ms + 2
    ages = [age_ms + place / 50 for place in range(101)]
    live = Live(50, 10, 2.0, min(fps, 30.0), age_ms, age_ms, age_ms, 3.0, 60.0, 1.0, ages)
    return Round(at_s, bare, bare, live, **changed)


def made_case(
    backend: str = "openvino",
    *fps: float,
    size: tuple[int, int] = SIZES[0],
    precision: str = "f32",
    **changed: Any,
) -> Case:
    """A measured case, a round for each number of frames a second."""
    values: dict[str, Any] = {
        "filter": "comic",
        "filter_sha256": "a" * 64,
        "size": size,
        "backend": backend,
        "precision": precision,
        "status": MEASURED,
        "device": "CPU: A Processor",
        "open_s": 0.5,
        "memory_mb": 200.0,
        "difference": Difference("onnxruntime:cpu f32", 50.0, 3.0, 0.2, 0.0, 3),
        "rounds": [made_round(value, 10.0 * place) for place, value in enumerate(fps)],
    }
    return Case(**(values | changed))


def made_result(*cases: Case, **changed: Any) -> Result:
    """A finished result of these cases."""
    values: dict[str, Any] = {
        "taken": "2026-01-02T03:04:05+00:00",
        "pix2live": "1.2.3",
        "environment": {"cpu": "A Processor", "cpus": 4, "packages": {"openvino": "2026.1"}},
        "machine": {"gpus": [], "sensors": ["processor"], "no_sensor": [], "notes": []},
        "clip": Clip("made frames", "b" * 64, real=False),
        "settings": Settings(["comic"], ["all"], [], list(SIZES), 10.0, 5, 30.0),
        "cases": list(cases),
        "finished": True,
    }
    return Result(**(values | changed))


def full_result() -> Result:
    """Two sizes, two backends, one that is not here, and sensors."""
    cases = [
        made_case(backend, *(fps / (1 if size == SIZES[0] else 4) for fps in rounds), size=size)
        for size in SIZES
        for backend, rounds in (("openvino", (50, 52, 51)), ("torch:cpu", (20, 21, 30)))
    ]
    missing = Case("comic", "a" * 64, SIZES[0], "tensorrt", "f16", NOT_HERE, "no <driver> & no GPU")
    samples = [
        {"t_s": 5.0 * place, "cpu_temperature_c": 50.0 + place, "cpu_power_w": 15.0}
        for place in range(6)
    ]
    return made_result(*cases, missing, samples=samples)


def with_rooflines() -> Result:
    """Two cases that know their ceilings, and one whose probe could not run."""
    first = Roofline(
        0.83, "f32 440 GOP/s (openvino f32); memory 35 GB/s (a copy)", 7_962_624_000, 59_629_504,
        limit_ms=16.6, arithmetic_share=0.98, ceilings={"f32": 4.4e11, "memory": 3.5e10},
    )  # fmt: skip
    second = Roofline(
        1.2, "bf16 880 GOP/s (openvino bf16); memory 35 GB/s (a copy)", 7_962_624_000, 30_505_952,
        limit_ms=12.0, arithmetic_share=0.2, ceilings={"bf16": 8.8e11, "memory": 3.5e10},
    )  # fmt: skip
    rounds = [made_round(50, place, ceilings=first.ceilings) for place in range(3)]
    return made_result(
        made_case(rounds=rounds, roofline=first),
        made_case("openvino", 100, 101, 102, precision="bf16", roofline=second),
        made_case("torch:cpu", 20, 21, 22, no_roofline="the probe: it is too large"),
    )
