"""`pix2live bench` from the command to the file, on tiny frames; no number is judged."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_results import made_case, made_result
from small_filters import counting_filter, linear_filter

from engines import Pix2liveError, Pixels
from tools.bench import plan, results
from tools.bench import run as run_module
from tools.bench.cli import bench
from tools.bench.sensors import sensors_here
from tools.bench.worker import CaseError, CrashError, Worker

ROOT = Path(__file__).parent.parent.parent
SIZE = (64, 48)
TINY = ("--size", "64x48", "--seconds", "0.2", "--rounds", "2", "--fps", "60")
HAS_PLOTS = importlib.util.find_spec("matplotlib") is not None


def run(*words: object) -> Result:
    return CliRunner().invoke(bench, [str(word) for word in words])


def done(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def frames(count: int = 6) -> list[Pixels]:
    return [np.full((SIZE[1], SIZE[0], 3), 10 * number, np.uint8) for number in range(count)]


def test_a_bench_from_the_command_to_the_files(tmp_path: Path) -> None:
    linear = linear_filter(tmp_path / "linear.onnx", 0.5, 10)
    backends = ("--backend", "openvino", "--backend", "identity", "--backend", "tensorrt:99")
    pages = ("--html", tmp_path / "a.html") if HAS_PLOTS else ()
    words = ("--filter", linear.path, *backends, "--precision", "f32", *TINY)
    said = done(*words, "--json", tmp_path / "a.json", *pages)
    found = results.read(tmp_path / "a.json")
    assert found.finished
    assert found.settings.backends == ["openvino", "identity", "tensorrt:99"]
    openvino, identity, tensorrt = found.cases
    assert [case.status for case in found.cases[:2]] == ["measured"] * 2, found.cases
    assert tensorrt.status == "not here"
    assert tensorrt.reason in said.replace("\n", " ")
    for case in (openvino, identity):
        assert len(case.rounds) == 2
        assert case.size == SIZE
        assert case.filter == "linear"
        assert (case.open_s or 0) > 0
        assert (case.memory_mb or 0) >= (case.memory_before_mb or 0) > 10
        for item in case.rounds:
            assert item.latency.frames >= 3
            assert item.latency.p50_ms <= item.latency.p95_ms <= item.latency.p99_ms
            assert item.live.shown >= 2
            assert item.live.ages_ms == sorted(item.live.ages_ms)
    assert openvino.difference is not None
    assert openvino.difference.max <= 1
    assert identity.difference is not None
    assert identity.difference.psnr_db < 40
    assert found.samples
    assert "linear, 64x48" in said
    assert {path.name for path in tmp_path.iterdir()} >= {"linear.onnx", "a.json"}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    if HAS_PLOTS:
        assert "<svg" in (tmp_path / "a.html").read_text()
    assert "the same result" in done("--compare", tmp_path / "a.json", tmp_path / "a.json")
    assert "linear, 64x48" in done("--from", tmp_path / "a.json")


def test_a_filter_with_a_memory_is_the_same_on_every_backend(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = counting_filter(tmp_path / "counting.onnx")
    words = ("--filter", model.path, "--backend", "openvino", "--precision", "f32", *TINY)
    done(*words, "--json", tmp_path / "a.json")
    (case,) = results.read(tmp_path / "a.json").cases
    assert case.difference is not None
    assert case.difference.max == 0
    assert case.depth == 1


def test_a_precision_that_is_not_here_is_a_row(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    words = ("--backend", "onnxruntime", "--precision", "f16", *TINY)
    result = run(*words, "--json", tmp_path / "a.json")
    said = result.output
    assert (result.exit_code, said.splitlines()[-1]) == (1, "nothing was measured")
    (case,) = results.read(tmp_path / "a.json").cases
    assert case.status == "not here"
    assert "onnxruntime runs f32 only" in case.reason
    assert case.reason in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--backend", "opencv"), "no backend 'opencv'; there are: .*openvino.* all"),
        (("--filter", "wool"), "no filter 'wool'"),
        (("--json", "nowhere/a.json"), "nowhere does not exist; mkdir"),
        (("--json", "a", "--html", "a"), "would be one file"),
        (("--json", "-"), "--json writes a file, found -: name one, as in a.json"),
        (("--html", "-"), "--html writes a file, found -"),
        (("--from", "a.json", "--html", "-"), "--html writes a file, found -"),
        (("--compare", "a.json", "b.json"), "cannot read a.json"),
        (("--from", "a.json"), "cannot read a.json"),
    ],
)
def test_refused_before_anything_is_measured(
    words: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert isinstance(result.exception, Pix2liveError), result.output
    assert re.search(reason, str(result.exception))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--compare", "a", "b", "--json", "c"),
        ("--compare", "a", "b", "--html", "c"),
        ("--from", "a", "--rounds", "3"),
        ("--from", "a", "--compare", "a", "b"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "measures nothing: leave out --" in result.output


def test_a_comparison_is_shown(tmp_path: Path) -> None:
    for name, rounds in (("a", (50, 51, 52)), ("b", (80, 81, 82))):
        results.write(tmp_path / f"{name}.json", made_result(made_case("openvino", *rounds)))
    said = done("--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert "1.588" in said
    assert "better" in said


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGHUP])
def test_what_was_measured_until_the_end_is_written(tmp_path: Path, stop: signal.Signals) -> None:
    words = ["--backend", "openvino", "--backend", "identity", "--precision", "f32"]
    words += ["--size", "64x48", "--rounds", "1000", "--seconds", "300", "--json", "a.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tools", "bench", *words, *(["--html", "a.html"] * HAS_PLOTS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Under nohup it would be ignored, and the bench rightly leaves it at that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("the kernel does not list children")
    until(lambda: len(open_cases(children)) == 2)
    time.sleep(1)  # some rounds
    mine = children.read_text().split()
    process.send_signal(stop)
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + stop, said
    found = results.read(tmp_path / "a.json")
    assert not found.finished
    for case in found.cases:
        assert case.status == ("measured" if case.rounds else "not reached")
        assert case.rounds_missing == (1000 - len(case.rounds) if case.rounds else 0)
    assert "interrupted" in said
    assert "Traceback" not in said
    assert (tmp_path / "a.html").exists() == HAS_PLOTS
    until(lambda: not [pid for pid in mine if Path(f"/proc/{pid}").exists()])


class Interrupting:
    """A screen that is a person who presses Ctrl-C when ``words`` are shown."""

    def __init__(self, words: str) -> None:
        self.words = words

    def begin(self, turns: int) -> None:
        """Nothing to draw."""

    def now(self, what: str) -> None:
        if self.words in what:
            raise KeyboardInterrupt

    def turn(self) -> None:
        """Nothing to draw."""

    def tick(self) -> None:
        """Nothing to draw."""


def test_ctrl_c_keeps_every_finished_round(tmp_path: Path) -> None:
    model = linear_filter(tmp_path / "linear.onnx", 0.5, 10)
    sizes = [SIZE, (32, 24)]
    groups = plan.groups([model], sizes, ["openvino", "identity"], ("f32",))
    settings = results.Settings(["linear"], [], [], sizes, seconds=0.3, rounds=3, fps=60.0)
    sensors = sensors_here()
    result = run_module.new_result(settings, groups, sensors)
    screen = Interrupting("openvino f32, round 2")  # the second begins with the other case
    with pytest.raises(KeyboardInterrupt):
        run_module.Bench(groups, result, sensors, screen, tmp_path).run()
    sensors.close()
    openvino, identity, *later = result.cases
    assert [case.status for case in result.cases] == ["measured"] * 2 + ["not reached"] * 2
    assert (openvino.part, identity.part) == ("1 of 3 rounds", "2 of 3 rounds")
    assert [case.rounds_missing for case in later] == [0, 0]
    assert not result.finished
    results.write(tmp_path / "a.json", result)
    assert results.read(tmp_path / "a.json") == result
    said = done("--from", tmp_path / "a.json")
    assert "linear 64x48 openvino f32: 1 of 3 rounds" in said
    assert "linear 64x48 identity f32: 2 of 3 rounds" in said
    assert "linear 32x24 identity f32: not finished before it was interrupted" in said
    assert "linear 64x48 openvino f32: not finished" not in said
    assert "linear 64x48 openvino f32, linear" not in said


def test_a_pipe_that_breaks_after_the_measuring_does_not_taint_the_file(tmp_path: Path) -> None:
    linear = linear_filter(tmp_path / "linear.onnx", 0.5, 10)
    words = ["--filter", str(linear.path), "--backend", "identity", "--precision", "f32", *TINY]
    read, write = os.pipe()
    os.close(read)  # whoever read it is gone before the first line
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tools", "bench", *words, "--json", "a.json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(write)
    found = results.read(tmp_path / "a.json")
    assert found.finished, ended.stderr
    assert [len(case.rounds) for case in found.cases] == [2]
    assert "Traceback" not in ended.stderr


def test_a_size_that_the_filter_does_not_take_is_a_note(tmp_path: Path) -> None:
    linear = linear_filter(tmp_path / "linear.onnx", 0.5, 10, stride=8)
    words = ("--filter", linear.path, "--backend", "identity", *TINY[2:])
    said = done(*words, "--size", "64x50", "--size", "64x48").splitlines()
    notes = [line for line in said if line.startswith("note: 64x")]
    assert notes == ["note: 64x50 is measured as 64x48 (linear): the nearest that the filter takes"]
    assert plan.fitted([linear], [SIZE]) == ""


def open_cases(children: Path) -> list[str]:
    """The processes that have read their frames and loaded a backend."""
    return [
        pid
        for pid in children.read_text().split()
        if "tools.bench.child" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker()
    yield found
    found.close()


def test_a_process_that_crashes_says_how(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(CrashError, match="SIGSEGV"):
        worker.ask("devices", 60)


def test_a_process_that_hangs_is_ended(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(CrashError, match="no answer to 'devices' within 0 s"):
        worker.ask("devices", 0.3)


def test_a_folder_of_the_same_name_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise SystemExit('the wrong tools')")
    monkeypatch.chdir(tmp_path)
    found = Worker()
    try:
        assert "openvino" in found.ask("devices", 60)
    finally:
        found.close()


def test_an_error_is_an_answer(worker: Worker, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.stack(frames()))
    words = {"size": SIZE, "frames": str(tmp_path / "frames.npy"), "cache": str(tmp_path)}
    with pytest.raises(CaseError, match="no filter 'wool'"):
        worker.ask("open", 60, model="wool", backend="openvino", precision="f32", **words)
    assert "openvino" in worker.ask("devices", 60), "it lives"


class Killer:
    """A screen that kills the youngest process when its case has its second turn."""

    def __init__(self, label: str) -> None:
        self.label, self.turns = label, 0
        self.workers: list[Worker] = []

    def begin(self, turns: int) -> None:
        self.expected = turns

    def now(self, what: str) -> None:
        if f"{self.label}, round 2" in what:
            os.kill(self.workers[-1].pid, signal.SIGKILL)

    def turn(self) -> None:
        self.turns += 1

    def tick(self) -> None:
        """Nothing to draw."""


def test_a_case_that_crashes_half_way_is_a_row_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear_filter(tmp_path / "linear.onnx", 0.5, 10)
    groups = plan.groups([model], [SIZE], ["openvino", "identity"], ("f32",))
    settings = results.Settings(["linear"], [], [], [SIZE], seconds=0.3, rounds=3, fps=60.0)
    sensors = sensors_here()
    screen = Killer("identity f32")
    result = run_module.new_result(settings, groups, sensors)
    bench = run_module.Bench(groups, result, sensors, screen, tmp_path)

    class Remembered(Worker):
        def __init__(self, *words: Callable[[], None]) -> None:
            super().__init__(*words)
            screen.workers.append(self)

    monkeypatch.setattr(run_module, "Worker", Remembered)
    bench.run()
    sensors.close()
    openvino, identity = result.cases
    assert (openvino.status, len(openvino.rounds)) == ("measured", 3)
    assert (identity.status, len(identity.rounds)) == ("failed", 1)
    assert "SIGKILL" in identity.reason
    assert result.finished
    assert screen.turns == screen.expected == 6


def test_json_has_no_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    results.write(tmp_path / "a.json", made_result(made_case("openvino", 50)))
    text = (tmp_path / "a.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
