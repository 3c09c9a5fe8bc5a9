"""The share of the roofline: its arithmetic, its probes, and what people see of it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made_case, made_result, made_round, with_rooflines
from rich.console import Console
from small_filters import linear_filter

from engines import FrameModel
from engines.graphs.work import Operator, Work
from tools.bench import plan, results, roofline
from tools.bench import run as run_module
from tools.bench.probe import probe_graph, probe_weights
from tools.bench.report import page
from tools.bench.roofline import Rooflines, best_ceilings, limit_s
from tools.bench.run import Bench, Screen
from tools.bench.sensors import sensors_here
from tools.bench.terminal import print_result
from tools.bench.worker import CaseError, Worker

SIZE = (64, 48)
WORK = Work(
    (
        Operator("a", "Conv", 4_000_000, 1000, 500, 1500),  # 12 kB in f32
        Operator("b", "Conv", 1_000, 100_000, 0, 100_000),  # 800 kB
        Operator("c", "InstanceNormalization", 0, 50_000, 0, 0),  # 200 kB
        Operator("d", "Conv", 8_000_000, 1000, 0, 1000, True, True),  # 2 kB
    ),
    frame_bytes=100_000,
)


def test_each_operator_takes_what_takes_longer() -> None:
    rates = {"f32": 1e9, "bf16": 2e9, "int8": 4e9, "memory": 1e9}
    least, arithmetic = limit_s(WORK, "f32", rates)
    assert arithmetic == pytest.approx(0.004 + 0.002)
    assert least == pytest.approx(0.004 + 0.0008 + 0.0002 + 0.002 + 0.0001)
    least, arithmetic = limit_s(WORK, "bf16", rates)
    assert arithmetic == pytest.approx(0.002 + 0.002)
    assert least == pytest.approx(0.002 + 0.0004 + 0.0001 + 0.002 + 0.0001)
    del rates["memory"]
    least, arithmetic = limit_s(WORK, "f32", rates)
    assert least == arithmetic == pytest.approx(0.004 + 1e-6 + 0.002), "arithmetic alone"
    with pytest.raises(KeyError):
        limit_s(WORK, "f16", rates)


def test_the_share_of_a_case() -> None:
    best = {"f32": (1e9, "a f32"), "int8": (4e9, "b f32"), "memory": (1e9, "a f32")}
    found = roofline.roofline(made_case("openvino", 40, 50, 60), WORK, "f32", best)
    assert found is not None
    assert found.limit_ms == pytest.approx(7.1)
    assert found.share == pytest.approx(0.0071 * 50)
    assert found.binds == "arithmetic"
    assert found.arithmetic_share == pytest.approx(6 / 7.1, abs=1e-3)
    assert (found.operations, found.bytes) == (12_001_000, 12_000 + 800_000 + 302_000)
    assert found.ceilings == {"f32": 1e9, "int8": 4e9, "memory": 1e9}
    assert "int8 4 GOP/s (b f32)" in found.basis
    slow = best | {"memory": (1e8, "a f32")}
    other = roofline.roofline(made_case("openvino", 50), WORK, "f32", slow)
    assert other is not None
    assert other.binds == "memory"
    assert roofline.roofline(made_case("openvino", 50), Work((), 0), "f32", best) is None


def test_a_ceiling_is_the_best_of_every_case_on_the_device() -> None:
    rounds = [made_round(50, ceilings={"f32": rate, "memory": 5.0}) for rate in (1.0, 3.0, 2.0)]
    other = [made_round(50, ceilings={"f32": 2.5, "bf16": 9.0, "memory": 7.0})]
    gpu = [made_round(50, ceilings={"f32": 100.0})]
    result = made_result(
        made_case("openvino", rounds=rounds),
        made_case("torch:cpu", rounds=other, device="cpu"),
        made_case("torch:cuda", rounds=gpu, device="cuda"),
    )
    assert best_ceilings(result) == {
        "cpu": {
            "f32": (3.0, "openvino f32"),
            "memory": (7.0, "torch:cpu f32"),
            "bf16": (9.0, "torch:cpu f32"),
        },
        "cuda:0": {"f32": (100.0, "torch:cuda f32")},
    }


class Quiet:
    """A screen that shows nothing and may end the bench."""

    def __init__(self, stop_at: str = "") -> None:
        self.stop_at, self.said = stop_at, list[str]()
        self.turns = self.expected = 0

    def begin(self, turns: int) -> None:
        self.expected = turns

    def now(self, what: str) -> None:
        self.said.append(what)
        if self.stop_at and self.stop_at in what:
            raise KeyboardInterrupt

    def turn(self) -> None:
        self.turns += 1

    def tick(self) -> None:
        """Nothing to draw."""


def tiny_filter(path: Path) -> FrameModel:
    """A network of 1x1 convolutions, 8 channels."""
    from engines.model import Card, write_frame_model

    write_frame_model(probe_graph(probe_weights(8), int8=False), Card(name=path.stem), path)
    return FrameModel.read(path)


def benched(
    folder: Path, model: FrameModel, screen: Screen, *backends: str, sizes: Any = (SIZE,)
) -> results.Result:
    groups = plan.groups([model], list(sizes), list(backends), ("f32",))
    settings = results.Settings(["tiny"], [], [], list(sizes), seconds=0.6, rounds=2, fps=60.0)
    sensors = sensors_here()
    result = run_module.new_result(settings, groups, sensors)
    try:
        Bench(groups, result, sensors, screen, folder).run()
    except KeyboardInterrupt:
        pass
    finally:
        sensors.close()
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a bench that compares no pictures, and whose probes are small."""
    ask = Worker.ask

    def small_probe(self: Worker, do: str, timeout_s: float, **words: Any) -> dict[str, Any]:
        if do == "probe":
            words["sides"] = dict.fromkeys(words["types"], 8)
        return ask(self, do, timeout_s, **words)

    monkeypatch.setattr(Worker, "ask", small_probe)
    monkeypatch.setattr(run_module, "REFERENCES", ())
    made = tmp_path / "bench"
    made.mkdir()
    return made


def test_a_bench_has_rooflines(tmp_path: Path, folder: Path) -> None:
    model = tiny_filter(tmp_path / "tiny.onnx")
    result = benched(folder, model, Quiet(), "openvino", "identity")
    openvino, identity = result.cases
    assert [case.status for case in result.cases] == ["measured"] * 2, result.cases
    found = openvino.roofline
    assert found is not None, openvino.no_roofline
    assert openvino.no_roofline == ""
    assert found.share > 0
    assert found.operations == (16 * 2 * 64 + 4 * 24) * 64 * 48
    assert found.ceilings.keys() == {"f32", "memory"}
    for item in openvino.rounds:
        assert item.ceilings.keys() == {"f32", "memory"}
        assert 0 < item.ceilings["f32"] <= found.ceilings["f32"]
    fps = np.median(openvino.values(lambda item: item.throughput.fps))
    assert found.share == pytest.approx(found.limit_ms / 1000 * fps, rel=0.01)
    assert identity.roofline is None
    assert "computes in uint8" in identity.no_roofline
    results.write(tmp_path / "a.json", result)
    assert results.read(tmp_path / "a.json").cases == result.cases


class NoProbe:
    """A process that refuses its probe."""

    def ask(self, do: str, timeout_s: float, **words: Any) -> dict[str, Any]:
        raise CaseError("it is too large")


@pytest.mark.parametrize(
    ("precision", "work", "said"),
    [
        ("f32", (WORK, ""), "the probe: it is too large"),
        ("uint8", (WORK, ""), "it computes in uint8"),
        ("f32", (None, "it has an If"), "its work cannot be counted: it has an If"),
    ],
)
def test_what_cannot_be_measured_is_said_and_no_failure(
    precision: str, work: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "count_work", lambda *_: work)
    model = tiny_filter(tmp_path / "tiny.onnx")
    case = made_case("openvino", 50)
    rooflines = Rooflines(made_result(case), tmp_path)
    worker: Any = NoProbe()
    rooflines.open(model, case, precision, worker)
    rooflines.measure(case, worker)
    rooflines.conclude()
    assert (case.status, case.roofline) == ("measured", None)
    assert case.no_roofline == said


def test_without_a_ceiling_of_memory_it_is_arithmetic_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gpu:
        def ask(self, do: str, timeout_s: float, **words: Any) -> dict[str, Any]:
            if do == "probe":
                return {"sides": {"f32": 64, "int8": 64}}
            return {"rates": {"f32": 1e9, "int8": 4e9}, "no_memory": "no PyTorch"}

    monkeypatch.setattr(roofline, "count_work", lambda *_: (WORK, ""))
    case = made_case("tensorrt", 50)
    rooflines = Rooflines(made_result(case), tmp_path)
    worker: Any = Gpu()
    rooflines.open(tiny_filter(tmp_path / "tiny.onnx"), case, "f32", worker)
    rooflines.new_round()
    rooflines.measure(case, worker)
    rooflines.conclude()
    assert case.roofline is not None
    assert case.roofline.limit_ms == pytest.approx(6.001)
    assert case.roofline.ceilings.keys() == {"f32", "int8"}
    assert case.no_roofline == "arithmetic only, without the memory's ceiling: no PyTorch"


@pytest.mark.parametrize("at", ["probe", "ceilings"])
def test_a_probe_that_kills_the_process_leaves_the_case_as_it_is(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    ask = Worker.ask

    def killed(self: Worker, do: str, timeout_s: float, **words: Any) -> dict[str, Any]:
        if do == at:
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, do, timeout_s, **words)

    monkeypatch.setattr(Worker, "ask", killed)
    screen = Quiet()
    (case,) = benched(folder, tiny_filter(tmp_path / "t.onnx"), screen, "openvino").cases
    assert (case.status, len(case.rounds)) == ("measured", 2)
    assert case.roofline is None
    assert "the probe: its process ended by SIGKILL" in case.no_roofline
    assert screen.turns == screen.expected == 2


def test_a_filter_without_products_is_bound_by_memory(tmp_path: Path, folder: Path) -> None:
    model = linear_filter(tmp_path / "linear.onnx", 0.5, 10)
    (case,) = benched(folder, model, Quiet(), "openvino").cases
    assert case.roofline is not None
    assert (case.roofline.operations, case.roofline.bytes) == (0, 6 * 64 * 48)
    assert case.roofline.binds == "memory"


def test_an_interrupted_bench_keeps_the_rooflines_until_then(tmp_path: Path, folder: Path) -> None:
    sizes = [SIZE, (128, 96)]
    screen = Quiet("128x96: openvino f32, round 2")
    result = benched(folder, tiny_filter(tmp_path / "t.onnx"), screen, "openvino", sizes=sizes)
    first, second = result.cases
    assert not result.finished
    assert first.roofline is not None
    assert (second.status, len(second.rounds), second.part) == ("measured", 1, "1 of 2 rounds")
    assert second.roofline is not None, "its probe had a round too"
    results.write(tmp_path / "a.json", result)
    assert results.read(tmp_path / "a.json") == result


def test_files_from_before_can_be_read(tmp_path: Path) -> None:
    results.write(tmp_path / "a.json", with_rooflines())
    raw = json.loads((tmp_path / "a.json").read_text())
    for case in raw["cases"]:
        del case["no_roofline"]
        case["roofline"] = {"share": 0.8, "basis": "bytes"}
        for item in case["rounds"]:
            del item["ceilings"]
    (tmp_path / "a.json").write_text(json.dumps(raw))
    found = results.read(tmp_path / "a.json").cases[0]
    assert found.roofline == results.Roofline(0.8, "bytes")
    assert (found.no_roofline, found.rounds[0].ceilings) == ("", {})


def test_the_terminal_shows_it() -> None:
    said = StringIO()
    print_result(with_rooflines(), Console(file=said, width=80))
    text = said.getvalue()
    assert "of the roofline" in text
    assert "83%" in text
    assert "arithmetic" in text
    assert "memory" in text
    assert "roofline of comic torch:cpu f32: the probe: it is too large" in text
    said = StringIO()
    print_result(made_result(made_case("openvino", 50)), Console(file=said, width=80))
    assert "roofline" not in said.getvalue()


@pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)
def test_the_page_shows_it() -> None:
    text = page(with_rooflines())
    for words in ("83 %", "16.6 ms, arithmetic", "12 ms, memory", "120 %", "f32 440 GOP/s",
                  "Roofline of comic torch:cpu f32</b>: the probe: it is too large"):  # fmt: skip
        assert words in text, words


def test_ceilings_are_numbers_above_zero(tmp_path: Path) -> None:
    results.write(tmp_path / "a.json", with_rooflines())
    raw = json.loads((tmp_path / "a.json").read_text())
    raw["cases"][0]["rounds"][0]["ceilings"]["f32"] = 0
    (tmp_path / "a.json").write_text(json.dumps(raw))
    with pytest.raises(Exception, match=r"cases\[0\].rounds\[0\].ceilings must be more than 0"):
        results.read(tmp_path / "a.json")
