"""`pix2live latency` as people type it: simulated, on a real screen (Xvfb), and refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engines import SettingsError
from realtime import Pipeline
from realtime.coded_pattern import MIXED, NOT_FOUND, PROBLEMS
from realtime.glass_to_glass import LoopLog
from realtime.sinks.pattern_window import TITLE
from tools.latency import Measurement, Settings, advice, report, why_nothing

sys.path.append(str(Path(__file__).parents[1] / "realtime"))
from xvfb import Screen, virtual_screen

ROOT = Path(__file__).parent.parent.parent
IDENTITY = ("--backend", "identity")
TIMEOUT_S = 120
HELD = """
import json, sys, time
import numpy as np
from realtime.sources.screen import ScreenSource
from tools import latency

HOLD_MS = 150
took_ms, held_ms = [], []

class Late(ScreenSource):
    def read(self, frame):
        began = time.monotonic()
        if not super().read(frame):
            return False
        grabbed = time.monotonic()
        time.sleep(HOLD_MS / 1000)
        frame.captured_ns = time.monotonic_ns()
        took_ms.append(1000 * (grabbed - began))
        held_ms.append(1000 * (frame.captured_ns / 1e9 - grabbed))
        return True

latency.open_source = lambda _: Late(1, 20.0)
settings = latency.Settings(camera="screen", backend="identity", seconds=4.0, size=(520, 300))
result, _ = latency.measure(settings, latency.Console(stderr=True))
result["took_ms"] = float(np.percentile(took_ms, 95))
result["held_ms"] = [float(np.percentile(held_ms, share)) for share in (0, 50, 95)]
print(json.dumps(result, default=str))
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with virtual_screen(1040, 600) as found:
        yield found


def environment(display: Screen | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return {**(display.env if display else kept), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def latency(*words: str, cwd: Path, display: Screen | None = None) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "tools", "latency", *words],
        cwd=cwd,
        env=environment(display),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )


def test_a_simulated_camera_needs_neither_camera_nor_screen(tmp_path: Path) -> None:
    words = ("--simulate", "90", "--seconds", "4", "--size", "320x180", *IDENTITY)
    done = latency(*words, "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["schema"] == 1
    assert result["engine"]["backend"] == "identity"
    assert result["samples"] > 0
    assert result["simulated_camera_ms"] >= 90
    found_ms = result["ms"]["camera"]
    # Which frames were late differs between those that were read and those that were not.
    assert found_ms["min"] <= result["simulated_camera_ms"] + result["pattern_period_ms"]
    assert found_ms["p50"] >= 90 - result["pattern_period_ms"]
    assert result["settings"]["simulate"] == 90
    assert "glass to glass" in done.stderr
    assert "a number was read: measuring for 4 s" in done.stderr
    assert "the simulated camera's part was" in done.stderr
    assert "unreadable; each is right to" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_json_replaces_json_only(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("a film")
    done = latency("--simulate", *IDENTITY, "--json", "film.mp4", cwd=tmp_path)
    assert done.returncode == 1
    assert "film.mp4 exists already and is no .json; give another name" in done.stderr
    assert (tmp_path / "film.mp4").read_text() == "a film"


def test_json_on_the_standard_output(tmp_path: Path) -> None:
    done = latency(
        "--simulate", "--seconds", "4", "--size", "320x180", *IDENTITY, "--json", "-", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["settings"]["simulate"] == 60
    assert result["settings"]["json"] == "-"
    assert not list(tmp_path.iterdir())


def test_a_screen_that_films_itself(screen: Screen, tmp_path: Path) -> None:
    """A real window, really grabbed, and held back for a known time."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD],
        cwd=tmp_path,
        env=environment(screen),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        window = screen.find(TITLE)
        assert (window.width, window.height) == (1024, 576)
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["samples"] > 0, err
    assert result["unreadable"] == 0
    least_ms, _, most_ms = result["held_ms"]
    found_ms, slack_ms = result["ms"]["camera"]["p50"], 2 * result["pattern_period_ms"]
    assert found_ms >= least_ms - slack_ms
    assert found_ms <= most_ms + result["took_ms"] + slack_ms
    assert result["ms"]["display"]["min"] > 0


def test_a_camera_that_never_sees_it(screen: Screen, tmp_path: Path) -> None:
    done = latency(
        "--camera", "test-pattern", "--aim-seconds", "1", *IDENTITY, cwd=tmp_path, display=screen
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"pix2live: no number could be read: {PROBLEMS[NOT_FOUND]}"
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_prints_what_there_is(tmp_path: Path) -> None:
    words = ("--simulate", "--seconds", "600", "--size", "320x180", *IDENTITY, "--json", "out.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "tools", "latency", *words],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "measuring" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "glass to glass" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "out.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--camera", "0"), "cannot show the pattern: there is no screen here: DISPLAY is not set"),
        (("--simulate", "--camera", "0"), "--simulate stands alone: leave out --camera"),
        (("--simulate", "--filter", "nonsense"), "nonsense"),
    ],
)
def test_without_a_screen_and_other_refusals(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = latency(*words, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("pix2live: ")
    assert said in line


def test_no_camera_and_what_is_no_camera(screen: Screen, tmp_path: Path) -> None:
    done = latency("--camera", "77", *IDENTITY, cwd=tmp_path, display=screen)
    assert done.returncode == 1
    assert "there is no camera /dev/video77" in done.stderr.splitlines()[-1]
    Pipeline("test-pattern:64x48@30", _identity(), [tmp_path / "film.mp4"], frames=5).run()
    done = latency("--camera", "film.mp4", *IDENTITY, cwd=tmp_path, display=screen)
    assert done.returncode == 1
    assert "film.mp4 is no camera: a recording cannot film this screen" in done.stderr


def _identity() -> Any:
    from engines.backends.identity import IdentityEngine

    return IdentityEngine(None)


def summary(**more: Any) -> dict[str, Any]:
    found = LoopLog().summary() | {"pictures_read": 100, "samples": 90, "unit_px": 12.0}
    return found | more


def test_advice() -> None:
    assert advice(summary()) == []
    assert advice(summary(problems={MIXED: 10})) == []
    (said,) = advice(summary(problems={MIXED: 40}))
    assert said == f"40 % of the pictures: {PROBLEMS[MIXED]}"
    assert "more light" in said
    assert advice(summary(unit_px=4.0)) == [
        "the pattern is small in the picture: move the camera nearer"
    ]
    assert advice(summary(samples=3)) == ["3 samples are few: give it more --seconds"]


def test_why_there_is_nothing() -> None:
    nothing = LoopLog().summary() | {"advice": [], "run": {"frames": 0}}
    assert why_nothing(nothing) == "no frame came from the camera"
    some = nothing | {"run": {"frames": 9}}
    assert why_nothing(some | {"last_problem": MIXED}).endswith(PROBLEMS[MIXED])
    assert "--seconds" in why_nothing(some | {"pictures_read": 3})


def test_the_measurement_begins_when_a_number_was_read() -> None:
    from realtime.coded_pattern import Reading

    measurement = Measurement(Settings(simulate=60.0, backend="identity", seconds=2.0))
    log = measurement.log
    assert "point the camera at this window" in measurement.tick(100.0)
    log.last = Reading(problem=NOT_FOUND, markers=2)
    assert "2 of 4 corners seen: not found" in measurement.tick(101.0)
    assert not measurement.begun
    log.last = Reading((4, 4), unit_px=12.0, contrast=150.0)
    assert "measuring: 0 of 2 s; it is read: 12 px a unit" in measurement.tick(102.0)
    assert log.start_ns == 102_500_000_000
    measurement.tick(104.4)
    assert not measurement.source.cancelled
    measurement.tick(104.5)
    assert measurement.source.cancelled
    patient = Measurement(Settings(simulate=60.0, backend="identity", aim_seconds=5.0))
    patient.tick(10.0)
    patient.tick(14.9)
    assert not patient.source.cancelled
    patient.tick(15.0)
    assert patient.source.cancelled, "it gives up"
    with pytest.raises(SettingsError):
        Measurement(Settings(simulate=60.0, camera="0"))


def test_the_report_of_nothing() -> None:
    measurement = Measurement(Settings(simulate=60.0, backend="identity"))
    said = io.StringIO()
    report(measurement.result(), Console(file=said, width=100))
    assert "0 samples of 0 pictures" in said.getvalue()
    measurement.pipeline.close()
