"""The command as people type it, in processes of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from engines.backends.identity import IdentityEngine
from engines.nvidia.tensorrt_builder import Progress
from realtime import Pipeline
from tools.report import BuildProgress

ROOT = Path(__file__).parent.parent.parent
QUICK = ["--backend", "identity", "--sink", "null"]
Answer = tuple[subprocess.CompletedProcess[str], bool]
"""With whether the command left nothing behind."""


def pix2live(
    *words: object, cwd: Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command without a screen, from a plain checkout."""
    return subprocess.run(
        [sys.executable, "-m", "tools", *map(str, words)],
        cwd=cwd,
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **more}


def test_a_build_is_said_once_and_can_be_cancelled() -> None:
    said = io.StringIO()
    answers = iter([False, False, True])
    build = BuildProgress(Console(file=said), lambda: next(answers))
    with build:
        assert build(Progress("Tactics", 1, 9))
        assert build(Progress("Tactics", 2, 9))
        assert not build(Progress("Tactics", 3, 9))
    assert said.getvalue().count("building an engine") == 1


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    Pipeline("test-pattern:128x96@30", IdentityEngine(None), [path], mode="every", frames=40).run()
    return path


def test_a_file_through_the_shipped_filter(clip: Path, tmp_path: Path) -> None:
    done = pix2live(
        "run", clip, "--sink", "out.mp4", "--sink", "frames/", "--stats", "s.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["frames"] == 40
    assert stats["mode"] == "every"
    assert stats["engine"]["filter"] == "comic"
    assert stats["engine"]["backend"] == "openvino"
    assert stats["engine"]["precision"] in ("int8", "bf16", "f16", "f32")
    assert stats["environment"]["cpu"]
    assert stats["environment"]["packages"]["openvino"]
    assert sum(stats["dropped"].values()) == 0
    assert stats["sinks"][0]["age"]["p99_ms"] > 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 40
    assert "Traceback" not in done.stderr
    again = Pipeline(tmp_path / "out.mp4", IdentityEngine(None), ["null"]).run()
    assert again.engine_out.count == 40


def test_without_a_screen_it_records_and_says_so(tmp_path: Path) -> None:
    done = pix2live("run", "test-pattern", "--backend", "identity", "--frames", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (recording,) = tmp_path.glob("pix2live-*.mp4")
    assert "no window" in done.stderr
    assert recording.name in done.stderr


BAD = {
    "missing file": (["nothere.mp4"], 1, "no such file: nothere.mp4"),
    "text named mp4": (["text.mp4"], 1, "no video that can be read"),
    "empty file": (["empty.mp4"], 1, "empty.mp4"),
    "no frame model": (["test-pattern", "--filter", "text.onnx"], 1, "no ONNX file"),
    "unknown filter": (["test-pattern", "--filter", "sepia"], 1, "shipped: comic"),
    "unknown backend": (["test-pattern", "--backend", "abacus"], 1, "there are: tensorrt"),
    "output folder missing": (["test-pattern", "--sink", "no/where.mp4"], 1, "does not exist"),
    "unknown sink": (["test-pattern", "--sink", "fax"], 1, "a sink is"),
    "two sinks, one file": (
        ["test-pattern", "--sink", "a.mp4", "--sink", "./a.mp4"],
        1,
        "two sinks write to",
    ),
    "no window": (["test-pattern", "--sink", "window"], 1, "DISPLAY is not set"),
    "no camera": (["/dev/video97"], 1, "no camera /dev/video97"),
    "no size": (["test-pattern", "--size", "big"], 2, "WIDTHxHEIGHT"),
    "no mode": (["test-pattern", "--mode", "some"], 2, "freshest"),
    "stats over the source": (["text.mp4", "--stats", "./text.mp4"], 1, "is the source or a sink"),
    "stats over a sink": (
        ["test-pattern", "--sink", "b.mp4", "--stats", "b.mp4"],
        1,
        "is the source or a sink",
    ),
    "stats folder missing": (["test-pattern", "--stats", "no/s.json"], 1, "does not exist"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Answer]]]:
    """What the command says to bad input, two at a time: most of it is starting Python."""

    def answer(case: str) -> Answer:
        folder = tmp_path_factory.mktemp("bad")
        (folder / "text.mp4").write_text("this is no film\n" * 100)
        (folder / "text.onnx").write_text("this is no network\n" * 100)
        (folder / "empty.mp4").touch()
        before = sorted(folder.iterdir())
        words = BAD[case][0]
        sink = [] if "--sink" in words else ["--sink", "null"]
        done = pix2live("run", *words, *sink, "--seconds", 5, cwd=folder)
        return done, before == sorted(folder.iterdir())

    with ThreadPoolExecutor(2) as pool:
        yield {case: pool.submit(answer, case) for case in BAD}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, answers: dict[str, Future[Answer]]) -> None:
    _, code, message = BAD[case]
    done, nothing_left = answers[case].result()
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert [line for line in done.stderr.splitlines() if line.startswith("pix2live: ")]
    assert nothing_left


def test_a_run_that_fails_while_its_engine_opens_ends_in_order(tmp_path: Path) -> None:
    """A process that ends while a library compiles aborts (exit 134)."""
    code = (
        "import realtime.opening as o; o.STAND_IN_AFTER_S = 0.0; from tools import cli;"
        " cli.main(['run', 'test-pattern', '--sink', 'no/where.mp4'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=_environment({}), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "does not exist" in done.stderr


def test_a_truncated_file_plays_and_says_so(clip: Path, tmp_path: Path) -> None:
    import av

    moved = tmp_path / "moved.mp4"
    with (
        av.open(str(clip)) as source,
        av.open(str(moved), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = moved.read_bytes()
    moved.write_bytes(data[: len(data) * 6 // 10])
    done = pix2live("run", moved, *QUICK, "--stats", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "truncated" in done.stderr
    assert 0 < json.loads((tmp_path / "s.json").read_text())["frames"] < 40


def test_a_size_off_the_stride_is_rounded_and_said(clip: Path, tmp_path: Path) -> None:
    done = pix2live("run", clip, "--size", "101x75", "--sink", "null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "working at 100x72, not 101x75" in done.stderr


def test_a_missing_backend_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    hook = "import sys; sys.modules['onnxruntime'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    done = pix2live(
        "run",
        "test-pattern",
        "--backend",
        "onnxruntime",
        "--sink",
        "null",
        "--frames",
        2,
        cwd=tmp_path,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert done.returncode == 1
    assert "onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("twice", [False, True])
def test_a_recording_is_finished_by_signals(twice: bool, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        ends = []
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            folder = tmp_path / str(code)
            folder.mkdir()
            ends.append(pool.submit(recorded_until, number, code, twice, folder))
        for end in ends:
            end.result()


def recorded_until(number: int, code: int, twice: bool, folder: Path) -> None:
    """Record into ``folder`` until a signal comes, and look at what is there then."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tools",
            "run",
            "test-pattern",
            "--backend",
            "identity",
            "--sink",
            "out.mp4",
            "--stats",
            "s.json",
        ],
        cwd=folder,
        env=_environment({}),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    part = folder / ".out.part.mp4"
    while not (part.exists() and part.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    if twice:
        time.sleep(0.03)
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert Pipeline(folder / "out.mp4", IdentityEngine(None), ["null"]).run().engine_out.count
    assert json.loads((folder / "s.json").read_text())["frames"] > 0
    assert not part.exists()


def test_filters_lists_and_prints_a_card(tmp_path: Path) -> None:
    listed = pix2live("filters", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "comic" in listed.stdout
    card = pix2live("filters", "comic", cwd=tmp_path)
    assert card.returncode == 0, card.stderr
    for word in ("licence", "training", "openvino bf16", "PSNR, dB", "SHA-256"):
        assert word in card.stdout
    assert pix2live("filters", "sepia", cwd=tmp_path).returncode == 1


def test_doctor_ends_with_what_to_do(tmp_path: Path) -> None:
    done = pix2live("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for topic in (
        "Machine",
        "Backends",
        "Conversion",
        "Extras",
        "Cameras",
        "Screen",
        "Virtual camera",
        "ffmpeg",
    ):
        assert topic in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Next: ")


def test_demo_shows_a_film_where_there_is_no_camera(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    from tools.demo import find_clip

    if find_clip() is None:
        pytest.skip("the demo clip is not installed: pip install 'pix2live[demo]'")
    if list(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    done = pix2live("demo", "--seconds", 1.5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "p99 ms" in done.stdout
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert Pipeline(tmp_path / "demo.mp4", IdentityEngine(None), ["null"]).run().engine_out.count


def test_help_and_version(tmp_path: Path) -> None:
    assert "doctor" in pix2live("--help", cwd=tmp_path).stdout
    assert "--max-age" in pix2live("run", "--help", cwd=tmp_path).stdout
    assert pix2live("--version", cwd=tmp_path).stdout.startswith("pix2live")
    assert pix2live("dance", cwd=tmp_path).returncode == 2


def test_the_ten_line_program(clip: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/webcam.py"), str(clip), "null", "out.mp4"],
        cwd=tmp_path,
        env=_environment({}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "fps, age p50" in done.stdout
    readme = (ROOT / "README.md").read_text()
    program = (ROOT / "examples/webcam.py").read_text().split('"""', 2)[2].strip()
    assert program in readme, "the README shows the program that was run"
