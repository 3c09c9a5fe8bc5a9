"""What is measured of an engine, and what is planned; no number is judged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_filters import linear_filter

from engines import Engine, EngineError, Pixels, Size
from engines.backends.identity import IdentityEngine
from engines.registry import why_not
from realtime import Frame
from tools.bench import measure, plan
from tools.bench.measure import FramesSource, TooFewError

ROOT = Path(__file__).parent.parent.parent
SIZE = (64, 48)


def frames(count: int = 6) -> list[Pixels]:
    return [np.full((SIZE[1], SIZE[0], 3), 10 * number, np.uint8) for number in range(count)]


class SlowEngine(Engine):
    """Copies, later; up to three frames under way."""

    name = "slow"

    @classmethod
    def why_not(cls) -> str | None:
        return None

    def fit(self, size: Size) -> Size:
        return size

    def _open(self, size: Size) -> None:
        self.depth = min(self.depth, 3)
        self.most = 0

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        self.most = max(self.most, self.pending + 1)
        np.copyto(frame_out, frame_in)

    def _collect(self, frame_out: Pixels) -> None:
        time.sleep(0.02)

    def _close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize("depth", [1, 3])
def test_bare_keeps_depth_frames_under_way(depth: int) -> None:
    engine = SlowEngine(None)
    engine.open(SIZE, depth=depth)
    found = measure.bare(engine, frames(), engine.slots(6), 0.0)
    assert engine.most == depth
    assert engine.pending == 0
    assert found.frames == 3 * depth
    assert found.p50_ms >= 20
    assert found.fps == pytest.approx(found.frames / found.seconds, rel=0.01)


def test_frames_a_second_over_a_round() -> None:
    times = [10.0 + 0.1 * (number + 1) for number in range(32)]
    assert measure._steps(10.0, times, 2) == pytest.approx([10.0] * 6, abs=0.01)
    together = [10.0 + 0.4 * (number // 4 + 1) for number in range(16)]  # four at a time
    assert measure._steps(10.0, together, 8) == pytest.approx([10.0] * 2, abs=0.01)
    assert measure._steps(10.0, [11.0], 2) == []


def test_a_live_round_counts_what_was_dropped() -> None:
    engine = SlowEngine(None)
    engine.open(SIZE)
    found = measure.live(engine, frames(), 200.0, 0.6)
    assert found.dropped > 0, "200 fps into an engine that makes 50"
    assert found.fps < 60
    assert found.ages_ms[0] >= 20
    assert engine.size is None, "closed"


def test_a_live_round_of_known_frames() -> None:
    shown = [(number, 10_000_000 * number, 5_000_000) for number in range(40) if number % 4]
    found = measure._live(shown, cpu_s=0.1, wall_s=0.4)
    kept = shown[round(0.15 * len(shown)) :]
    assert found.shown == len(kept)
    assert found.dropped == kept[-1][0] - kept[0][0] + 1 - len(kept)
    assert found.p50_ms == found.p99_ms == 5.0
    assert found.longest_gap_ms == 20.0
    assert found.jitter_ms > 0
    even = measure._live([(n, 10_000_000 * n, n * 1_000_000) for n in range(100)], 0, 1)
    assert (even.jitter_ms, even.dropped, even.fps) == (0, 0, 100)
    with pytest.raises(TooFewError, match="more --seconds"):
        measure._live(shown[:1], 0.0, 1.0)


def test_the_source_keeps_its_beat_and_repeats_its_frames() -> None:
    given = frames(3)
    source = FramesSource(given, 100.0)
    source.open(None, realtime=True)
    frame = Frame(np.empty_like(given[0]))
    times = []
    for number in range(5):
        assert source.read(frame)
        assert (frame.pixels == given[number % 3]).all()
        assert time.monotonic_ns() >= frame.captured_ns
        times.append(frame.captured_ns)
    assert np.diff(times).tolist() == [10_000_000] * 4
    source.cancel()
    assert not source.read(frame)


def test_pictures_begin_anew() -> None:
    engine = IdentityEngine(None)
    engine.open(SIZE)
    made = measure.translate(engine, frames(), engine.slots(6), 2)
    assert [picture.max() for picture in made] == [0, 10]


def test_memory_is_this_process_own() -> None:
    """Not that of the process that started it: getrusage would say that."""
    ballast = np.ones(150_000_000, np.uint8)
    code = "from tools.bench.measure import peak_memory_mb; print(peak_memory_mb())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = measure.peak_memory_mb()
    assert ballast.sum() == len(ballast)
    assert here > 150
    if sys.platform == "linux":
        assert float(found.stdout) < here


def test_the_plan_of_all_backends() -> None:
    devices = {
        "openvino": ["CPU", "GPU"],
        "onnxruntime": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    }
    found = plan.chosen_backends(["all"], devices, nvidia=True)
    for name in ("openvino", "openvino:GPU", "onnxruntime:cpu", "onnxruntime:cuda", "torch:cpu",
                 "torch:cuda", "tensorrt", "tensorrt-rtx"):  # fmt: skip
        assert found.count(name) == 1, found
    assert "identity" not in found
    alone = plan.chosen_backends(["all"], {}, nvidia=False)
    assert {"openvino", "torch:cpu"} <= set(alone)
    assert not {"torch:cuda", "openvino:GPU"} & set(alone)
    named = plan.chosen_backends(["torch", "all", "torch"], {}, nvidia=False)
    assert named[0] == "torch:cpu"
    assert named.count("torch:cpu") == 1
    with pytest.raises(EngineError, match="no backend 'tense:0'"):
        plan.chosen_backends(["tense:0"], {}, nvidia=True)


def test_the_plan_of_filters_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one = linear_filter(tmp_path / "x.onnx", 1, 0, stride=8)
    other = linear_filter(tmp_path / "a" / "x.onnx", 1, 0, sides=(48, 64))
    found = plan.groups([one, other], [(65, 50), (66, 51), (128, 96)], ["openvino"])
    sizes = [list(dict.fromkeys(case.size for _, case in group.cases)) for group in found]
    assert sizes == [[(64, 48)], [(128, 96)]], "the other filter has one size"
    assert {case.filter for _, case in found[0].cases} == {str(one.path), str(other.path)}
    labels = [case.label for _, case in found[0].cases[:4]]
    assert labels == ["openvino f32", "openvino bf16", "openvino f16", "openvino int8"]
    ((_, case),) = plan.groups([one], [SIZE], ["identity"])[0].cases
    assert case.label == "identity auto"
    models = [linear_filter(tmp_path / f"{number}.onnx", 1, 0) for number in range(5)]
    many = plan.groups(models, [SIZE], ["openvino", "identity", "tensorrt"], ("f32",))
    gone = 0 if why_not("tensorrt") is None else 5
    together = [sum(not case.reason for _, case in group.cases) for group in many]
    assert max(together) <= plan.MOST_TOGETHER
    assert sum(together) == 15 - gone
    assert len({case.key for group in many for _, case in group.cases}) == 15
    assert {len(plan.precisions(name)) for name in ("torch", "torch:cpu", "mine")} == {2, 1}
    assert len(plan.chosen_filters(["all", "comic"])) == len(plan.chosen_filters(["all"]))


def test_the_frames_are_the_same_every_time() -> None:
    one, other = plan.frames(SIZE), plan.frames(SIZE)
    assert len(one) == plan.FRAMES
    assert {frame.shape for frame in one} == {(48, 64, 3)}
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert plan.clip() == plan.clip()


def test_a_machine_without_the_clip_makes_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_clip", lambda: None)
    clip = plan.clip()
    assert not clip.real
    assert len(clip.sha256) == 64
    assert len(plan.frames(SIZE)) == plan.FRAMES
