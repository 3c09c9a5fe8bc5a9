"""The logic of the benchmarks, on the smallest inputs; their numbers are not tested."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import conversion, engines, streams
from engines import Card, Engine, EngineError, FrameModel, Pixels, Size, load_filter, registry
from engines.backends.identity import IdentityEngine

ROOT = Path(__file__).parent.parent
SIZE = (64, 48)
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="the package torch is not installed")


class LateEngine(Engine):
    """Copies when it is asked for the frame, up to three frames late; fails when told to."""

    name = "late"
    deepest = 3
    fails_after: int | None = None

    @classmethod
    def why_not(cls) -> str | None:
        return None

    def fit(self, size: Size) -> Size:
        return size

    def _open(self, size: Size) -> None:
        self.depth = min(self.depth, self.deepest)
        self.device, self.precision = "CPU", "uint8"
        self.most_under_way = self.collected = 0
        self.left: list[tuple[Pixels, Pixels]] = []

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        self.left.append((frame_in, frame_out))
        self.most_under_way = max(self.most_under_way, len(self.left))

    def _collect(self, frame_out: Pixels) -> None:
        self.collected += 1
        if self.fails_after is not None and self.collected > self.fails_after:
            raise EngineError("the device went away")
        frame_in, own = self.left.pop(0)
        assert own is frame_out
        np.copyto(frame_out, frame_in)

    def _close(self) -> None:
        self.left = []


class FailingEngine(LateEngine):
    name = "failing"
    fails_after = 20


def _way(engine: Engine, depth: int) -> engines.Way:
    engine.open(SIZE, depth=depth)
    frames = [np.full((SIZE[1], SIZE[0], 3), value, np.uint8) for value in (10, 20, 30, 40)]
    return engines.Way(engine, frames, [np.zeros_like(frame) for frame in frames])


@pytest.mark.parametrize(("engine", "depth"), [(IdentityEngine(None), 1), (LateEngine(None), 3)])
def test_a_round_keeps_depth_frames_under_way_and_leaves_none(engine: Engine, depth: int) -> None:
    way = _way(engine, depth)
    way.run(0.0)
    assert engine.pending == 0
    if isinstance(engine, LateEngine):
        assert engine.most_under_way == depth
    found = way.to_json()
    assert found["frames"] == engines.FEWEST * depth
    assert len(found["fps of each round"]) == 1
    assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_pictures_are_in_the_order_of_the_frames() -> None:
    way = _way(LateEngine(None), 3)
    assert [int(picture.max()) for picture in way.pictures()] == [10, 20, 30, 40]


@pytest.fixture
def late_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (LateEngine, FailingEngine):
        monkeypatch.setitem(registry.BACKENDS, kind.name, f"{__name__}:{kind.__name__}")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[LateEngine.__module__])


@pytest.mark.usefixtures("late_backends")
def test_every_backend_is_a_row(tmp_path: Path) -> None:
    """Here, not here, and failed in the middle."""
    names = ("openvino", "openvino:NOWHERE", "late", "failing")
    bench = engines.Bench(names, rounds=2, seconds=0.0, folder=tmp_path)
    cell = bench.measure(engines.Network("comic", load_filter("comic"), (SIZE,)), SIZE)
    rows = {(row["backend"], row["precision"]): row for row in cell["rows"]}
    assert {name for name, _ in rows} == set(names)
    here = rows["openvino", "f32"]
    assert here["pictures"]["psnr_db"] > 45
    assert here["pictures"]["broken_share"] == 0
    assert "NOWHERE" in rows["openvino:NOWHERE", "f32"]["why not"]
    assert rows["failing", "auto"]["why not"] == "failed: the device went away"
    late = rows["late", "auto"]
    assert late["pipelined"]["depth"] == 3
    assert late["pictures"]["psnr_db"] < 45  # it copies: another picture than the filter's
    both = cell["ratios"]["serial"]
    assert {"openvino f32 / late auto", "late auto / openvino f32"} <= set(both)
    assert all(ratio > 0 for ratio in both.values())
    assert not any("failing" in name for name in both)
    json.dumps(cell)


def test_the_table_says_each_reason_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"backend": "far", "precision": x, "why not": "not here: too far"} for x in "ab"]
    engines.show({"network": "n", "architecture": "a", "size": [64, 48], "rows": rows})
    assert "far a, far b: not here: too far\n" in capsys.readouterr().out


def test_ratios_are_taken_within_each_round() -> None:
    def candidate(name: str, *rounds: list[float]) -> engines.Candidate:
        ways = [engines.Way(IdentityEngine(None), [], [], fps=fps) for fps in rounds]
        return engines.Candidate(name, "f32", ways)

    one, other = candidate("one", [10, 2, 30], [20, 4, 60]), candidate("other", [5, 1, 10])
    gone = engines.Candidate("gone", "f32", why_not="not here")
    found = engines.ratios([one, other, gone])
    assert found["serial"] == {"one f32 / other f32": 2, "other f32 / one f32": 0.5}
    assert found["best"]["one f32 / other f32"] == 4


def test_a_given_network_needs_a_name() -> None:
    with pytest.raises(SystemExit, match="NAME=FILE"):
        engines.given_networks(["comic.onnx"], [SIZE])
    (network,) = engines.given_networks(["mine=comic"], [(67, 50)])
    assert network.name == "mine"
    stride = network.model.card.stride
    assert network.sizes == ((67 // stride * stride, 50 // stride * stride),)


@needs_torch
def test_the_random_networks_are_the_public_ones() -> None:
    import torch

    from engines.generators.families import recognise

    tensors = conversion.resnet_tensors()
    assert sum(tensor.numel() for tensor in tensors.values()) == 11_378_179
    generator: Any = recognise(tensors).generator
    assert generator.architecture == "ResNet generator, 64 channels, 9 blocks"
    with torch.inference_mode():
        picture = conversion.random_style()(torch.rand(1, 3, 32, 32) * 255)
    assert 0 < float(picture.clamp(0, 255).mean()) < 255
    assert float(picture.clamp(0, 255).std()) > 10


def test_a_child_reports_its_own_memory_and_its_failure() -> None:
    """Asked from a small process, as the benchmark is: the kernel counts the parent's too."""
    code = (
        "from benchmarks.conversion import run_child\n"
        "for code in ('pass', 'print(len(bytes([1]) * 300_000_000))'):\n"
        "    child = run_child('-c', code)\n"
        "    print(child.peak_bytes, child.seconds, child.output or '-')\n"
        "run_child('-c', 'raise SystemExit(3)')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ended with 3" in done.stderr
    small, large = (line.split() for line in done.stdout.splitlines() if line)
    assert large[2] == "300000000"
    assert int(large[0]) > 300_000_000 > int(small[0])
    assert min(float(small[1]), float(large[1])) > 0


def test_a_claim_is_kept_by_the_worst_round() -> None:
    rounds = [
        {"seconds": seconds, "peak_bytes": 2e9, "engine_bytes": 27e6, "phases_s": {"all": seconds}}
        for seconds in (10.0, 61.0)
    ]
    found = conversion.summed_up(rounds)
    assert found["under 60 s"] is False
    assert found["under 4 GB"] is True
    assert found["phases_s"] == {"all": 35.5}
    assert conversion.summed_up(rounds[:1])["under 60 s"] is True


def test_the_result_says_what_it_was_taken_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    conversion.save("x", {"settings": {}}, path)
    found = json.loads(path.read_text())
    assert found["benchmark"] == "x"
    assert {"cpu", "packages", "gpus", "device_packages"} <= set(found["environment"])


@needs_torch
def test_an_exported_network_is_a_frame_model(tmp_path: Path) -> None:
    from engines.generators.quarter import QuarterNet

    generator = QuarterNet.from_frame_model(load_filter("comic").path)
    model = conversion.exported(generator, "again", tmp_path)
    assert isinstance(model, FrameModel)
    assert model.path == tmp_path / "again.onnx"
    assert isinstance(model.card, Card)
    assert model.card.stride == generator.stride


def test_streams_share_a_compiled_filter_or_have_their_own() -> None:
    found = streams.measured(SIZE, rounds=2, seconds=0.05, tries=3)
    assert found["same pictures"] is True
    assert set(found["sum of fps"]) == {
        "one stream",
        "two streams",
        "two streams, compiled apart",
        "four streams",
    }
    assert min(item["min"] for item in found["sum of fps"].values()) > 0
    assert found["ages_ms"]["one stream, live"]["frames"] >= 2
    json.dumps(found)


def test_a_stream_drops_what_it_has_no_time_for() -> None:
    class Slow(LateEngine):
        def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
            time.sleep(0.03)
            super()._submit(frame_in, frame_out)

    slow = [Slow(None), Slow(None)]
    for engine in slow:
        engine.open(SIZE)
    done = streams.run(slow, 0.3, live_fps=100)  # a frame every 10 ms, each takes 30
    assert len(done.fps) == 2
    assert done.dropped >= len(done.ages_ms)
    assert max(done.fps) < 40
    failing = FailingEngine(None)
    failing.open(SIZE)
    with pytest.raises(EngineError, match="the device went away"):
        streams.run([slow[0], failing], 0.1)


def test_the_second_engine_costs_less_than_one_of_its_own() -> None:
    shared, apart = (streams.opening_alone((256, 192), way) for way in ("shared", "apart"))
    assert len(shared) == len(apart) == streams.MOST
    assert streams.one_more(shared)["memory_mb"] < streams.one_more(apart)["memory_mb"] / 2


def test_the_quietest_rounds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    others_s = iter([0.0, 0.5, 0.5, 0.55, 0.55, 0.85, 0.85, 0.86, 9.0])
    seconds = itertools.count()
    monkeypatch.setattr(streams, "busy_s", lambda: (next(seconds), next(others_s)))
    numbers = itertools.count()

    def a_round() -> dict[str, streams.Together]:
        return {"x": streams.Together([next(numbers)], [], 0)}

    kept = streams.quietest(a_round, rounds=2, tries=9)
    assert [done["x"].fps for _, done in kept] == [[3], [1]], "then two were quiet"
    assert [round(others, 2) for others, _ in kept] == [0.01, 0.05]


def test_what_one_more_engine_took() -> None:
    rows = [{"opened_ms": took, "memory_mb": mb} for took, mb in ((200, 80), (3, 81), (2, 83))]
    assert streams.one_more([*rows, {"opened_ms": 9, "memory_mb": 86}]) == {
        "opened_ms": 3,
        "memory_mb": 2,
    }
