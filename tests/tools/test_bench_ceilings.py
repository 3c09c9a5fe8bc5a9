"""The probes of the bench: what they compute, on what, and that nobody gets away with less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Engine, EngineError, open_engine
from engines.graphs.work import count_work
from engines.registry import why_not
from tools.bench import ceilings
from tools.bench.ceilings import cache_bytes, device_key, open_probe
from tools.bench.probe import expected_levels, probe_graph, probe_weights


@pytest.mark.parametrize(
    ("backend", "device", "key"),
    [
        ("openvino", "CPU: A Processor", "cpu"),
        ("openvino:GPU", "GPU: Some Graphics (iGPU)", "openvino:gpu"),
        ("onnxruntime:cpu", "cpu", "cpu"),
        ("onnxruntime:cuda", "cuda", "cuda:0"),
        ("onnxruntime:coreml", "coreml", "onnxruntime:coreml"),
        ("torch:cpu", "cpu", "cpu"),
        ("torch:cuda:1", "cuda:1", "cuda:1"),
        ("tensorrt", "NVIDIA Card (compute capability 8.9)", "cuda:0"),
        ("tensorrt-rtx:2", "NVIDIA Card (compute capability 8.9)", "cuda:2"),
        ("identity", "CPU", "cpu"),
    ],
)
def test_one_device_under_all_its_names(backend: str, device: str, key: str) -> None:
    assert device_key(backend, device) == key


def test_the_last_caches_are_each_counted_once(tmp_path: Path) -> None:
    for cpu, (shared, size) in enumerate([("0-1", "4096K"), ("0-1", "4096K"), ("2", "2M")]):
        for level, (who, how_large) in ((1, (str(cpu), "32K")), (3, (shared, size))):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{level}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("shared_cpu_list", who), ("size", how_large)):
                (folder / name).write_text(f"{text}\n")
    assert cache_bytes(tmp_path) == 6 << 20
    assert cache_bytes(tmp_path / "nowhere") is None
    assert 0 < ceilings.copied_bytes() <= ceilings.MOST_BYTES


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("memory.max", "1073741824\n", 1 << 30),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "536870912\n", 1 << 29),
        ("elsewhere", "1\n", None),
    ],
)
def test_the_memory_of_a_container(file: str, text: str, found: int | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert ceilings.container_bytes(tmp_path) == found


def test_a_small_container_gets_a_small_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(str(64 << 20))
    monkeypatch.setattr(ceilings, "CGROUP", tmp_path)
    assert ceilings.copied_bytes() == 4 << 20


def test_a_copy_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "copied_bytes", lambda: 1 << 20)
    assert 1e6 < ceilings.memory_rate("cpu", 0.01) < 1e14
    with pytest.raises(EngineError, match="the memory of openvino:gpu cannot be measured"):
        ceilings.memory_rate("openvino:gpu", 0.01)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "CHANNELS", {True: 16, False: 16})
    monkeypatch.setattr(ceilings, "SIDES_PX", {True: (8, 16, 32), False: (8,)})
    monkeypatch.setattr(ceilings, "SEARCH_S", 0.001)


def opener(backend: str, opened: list[Engine]) -> Callable[[Any, int], Engine]:
    def make(model: Any, side: int) -> Engine:
        engine = open_engine(model, (side, side), backend=backend, precision="f32")
        opened.append(engine)
        return engine

    return make


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime:cpu", "torch:cpu"])
def test_every_backend_computes_the_probe(backend: str, int8: bool, tmp_path: Path) -> None:
    if why_not(backend.partition(":")[0]) is not None:
        pytest.skip(str(why_not(backend.partition(":")[0])))
    opened: list[Engine] = []
    words = {"backend": backend, "on_cpu": True, "int8": int8}
    if backend == "torch:cpu" and int8:
        with pytest.raises(EngineError, match="no INT8"):
            open_probe(opener(backend, opened), tmp_path, **words)
        return
    probe = open_probe(opener(backend, opened), tmp_path, **words)
    assert [engine for engine in opened if engine.size is not None] == [probe.engine]
    assert probe.engine.size == (probe.side_px, probe.side_px)
    assert probe.rate(0.01) > 0
    weights = probe_weights(16)
    right = expected_levels(probe.inputs[0], weights)
    found = probe.engine.infer(probe.inputs[0], probe.outputs[0])
    assert np.abs(found - right).mean() < (4 if int8 else 0.6)
    probe.engine.close()
    again = open_probe(opener(backend, opened), tmp_path, side_px=16, **words)
    assert again.side_px == 16
    again.engine.close()
    assert len(list(tmp_path.iterdir())) == (backend != "torch:cpu"), "one file, kept"


def test_the_work_of_the_probe_is_its_convolutions() -> None:
    weights = probe_weights(32)
    for int8 in (False, True):
        work, _ = count_work(probe_graph(weights, int8=int8), (7, 5))
        assert work is not None
        assert work.number_types("bf16") == ("int8" if int8 else "bf16",)
        inner = 16 * 2 * 32 * 32 * 35
        assert work.operations == inner + 2 * 2 * 3 * 32 * 35
    ends = 2 * 3 / (16 * 256)
    assert ends < 0.01, "of 256 channels, the ends are negligible"


@pytest.mark.usefixtures("small")
def test_a_backend_that_does_not_compute_has_no_ceiling(tmp_path: Path) -> None:
    opened: list[Engine] = []
    with pytest.raises(EngineError, match="does not compute it"):
        open_probe(
            opener("identity", opened),
            tmp_path, backend="identity", on_cpu=True, int8=False,
        )  # fmt: skip
    assert [engine for engine in opened if engine.size is not None] == []
