"""What a person reads at the end of a run in which something did not come."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from engines import Pixels, SettingsError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline
from realtime.effects import Context
from realtime.sources.pictures import write_picture
from tools.report import (
    LiveStatus,
    age_table,
    counted,
    end_notes,
    nothing_shown,
    stats_json,
    where_it_was_stopped,
)
from tools.run import Settings, make_pipeline, run

PATTERN = "test-pattern:64x48@100"


class Slow(IdentityEngine):
    """Takes 30 ms a frame."""

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        time.sleep(0.03)
        super()._submit(frame_in, frame_out)


def slow(frame: Frame, context: Context) -> Pixels:
    time.sleep(0.03)
    return frame.pixels


def ran(engine: Any = None, sinks: Any = ("null",), **settings: Any) -> Pipeline:
    settings = {"frames": 4, "mode": "freshest", **settings}
    pipeline = Pipeline(PATTERN, engine or IdentityEngine(None), sinks, **settings)
    pipeline.run()
    return pipeline


def test_where_a_run_was_stopped(tmp_path: Path) -> None:
    for number in range(40):
        write_picture(tmp_path / f"{number:02}.png", np.full((48, 64, 3), number, np.uint8))

    def until_the_third(frame: Frame) -> None:
        if frame.index == 2:
            pipeline.stop()

    pipeline = Pipeline(tmp_path, IdentityEngine(None), [until_the_third], mode="every")
    pipeline.run()
    done = pipeline.stats.engine_out.count
    assert 3 <= done < 40
    assert where_it_was_stopped(pipeline) == (
        f"stopped after {done} of 40 frames; what was written ends there"
    )
    whole = Pipeline(tmp_path, IdentityEngine(None), ["null"], mode="every")
    whole.run()
    assert where_it_was_stopped(whole) == ""
    assert where_it_was_stopped(ran()) == "", "a source without an end"


def test_frames_that_are_all_too_old_at_the_sink() -> None:
    pipeline = ran(Slow(None), max_age_ms=20)
    (said,) = end_notes(pipeline, 20.0)
    count = pipeline.stats.sinks[0].too_old
    age_ms = pipeline.stats.engine_out.percentile_ms(50) or 0
    assert count > 0
    assert age_ms >= 30
    assert f" {count} at null (about {age_ms:.1f} ms)" in said
    assert said.startswith("nothing was shown: ")
    assert "all too old for --max-age 20: " in said
    assert said.endswith(", or a smaller --size or a lighter filter")
    enough = float(said.split("try --max-age ")[1].split(",")[0])
    assert enough > (pipeline.stats.engine_out.percentile_ms(95) or 0)


def test_frames_that_are_all_too_old_after_an_effect() -> None:
    pipeline = ran(max_age_ms=20, effects=[slow])
    (said,) = end_notes(pipeline, 20.0)
    assert f"{pipeline.stats.effects[0].too_old} after the effect slow (about " in said


def test_frames_that_come_too_old() -> None:
    """A source with half a second of delay."""
    pipeline = Pipeline(PATTERN, IdentityEngine(None), ["null"], max_age_ms=20, seconds=0.5)
    read = pipeline.source.read

    def late(frame: Frame) -> bool:
        more = read(frame)
        frame.captured_ns -= 500_000_000
        return more

    pipeline.source.read = late  # type: ignore[method-assign]
    pipeline.run()
    (said,) = end_notes(pipeline, 20.0)
    count = pipeline.stats.engine_too_old
    assert said.startswith(f"nothing was shown: {counted(count, 'frame')}, all too old")
    age_ms = pipeline.stats.captured.percentile_ms(50) or 0
    assert age_ms > 490  # within 1.1 %, as all percentiles
    assert f": {count} before the filter ({age_ms:.1f} ms at capture); try --max-age " in said
    assert said.endswith(", or a source with less delay")


def test_only_one_of_two_sinks_showed_nothing() -> None:
    pipeline = ran(sinks=[lambda frame: None, "null"], max_age_ms=5000)
    assert end_notes(pipeline, 5000.0) == []
    stats = pipeline.stats.sinks[1]
    stats.ages, stats.too_old = type(stats.ages)(), 1
    (said,) = end_notes(pipeline, 5000.0)
    assert said.startswith("null showed nothing: 1 frame, all too old for --max-age 5000: 1 at ")


def test_a_run_that_showed_something_says_nothing() -> None:
    assert nothing_shown(ran(max_age_ms=5000), 5000.0) == ""
    assert nothing_shown(ran(Slow(None)), None) == ""


def test_it_is_one_note_while_the_run_goes_on() -> None:
    pipeline = ran(Slow(None), max_age_ms=20)
    screen = io.StringIO()
    status = LiveStatus(pipeline, Console(file=screen, width=300), None, max_age_ms=20)
    pipeline.stats.started_ns = time.monotonic_ns()
    status.tick()
    assert "nothing was shown" not in screen.getvalue(), "too early"
    pipeline.stats.started_ns -= 4_000_000_000
    status.tick()
    pipeline.stats.sinks[0].too_old += 1  # the count goes on; the note does not
    status.tick()
    status.close()
    assert screen.getvalue().count("so far nothing was shown: ") == 1


def test_the_line_of_a_terminal_counts_what_is_dropped() -> None:
    pipeline = ran(Slow(None), max_age_ms=20)
    screen = io.StringIO()
    status = LiveStatus(pipeline, Console(file=screen, width=200, force_terminal=True), None)
    status.tick()
    status.close()
    dropped = sum(pipeline.stats.dropped().values())
    assert f"nothing shown yet  dropped {dropped}" in screen.getvalue()


def test_the_statistics_say_it_too() -> None:
    pipeline = ran(Slow(None), max_age_ms=20)
    said = stats_json(pipeline, {"max_age_ms": 20.0})["notes"]
    assert said[-1] == nothing_shown(pipeline, 20.0)


def invoke(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(run, [str(word) for word in words])


def test_the_command_says_it_after_the_table() -> None:
    words = ("--backend", "identity", "--sink", "null", "--seconds", 0.5, "--max-age", 0.001)
    result = invoke(PATTERN, *words)
    assert result.exit_code == 0, result.output
    assert "\nnothing was shown: " in result.stderr.split("Age of the frames")[1]


def test_an_effect_that_was_dropped_is_said_at_the_end() -> None:
    def failing(frame: Frame, context: Context) -> Pixels:
        if frame.index > 1:
            raise ZeroDivisionError("of mine")
        return frame.pixels

    pipeline = ran(effects=[failing], effect_errors="drop", mode="every")
    (said,) = end_notes(pipeline)
    assert said.startswith("failing was dropped after 2 frames: the effect failing (test_report.py")
    assert said.endswith("ZeroDivisionError: of mine")


def test_one_step_is_no_steps() -> None:
    pipeline = ran()
    pipeline.stats.working_size, pipeline.stats.size_steps_taken = (32, 24), 1
    assert age_table(pipeline).caption == "1 step of the working size, 32x24 at the end"
    pipeline.stats.size_steps_taken = 2
    assert str(age_table(pipeline).caption).startswith("2 steps ")


def test_a_marker_that_never_came_is_said(tmp_path: Any) -> None:
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    marker = cv2.aruco.generateImageMarker(dictionary, 7, 60)
    picture = np.full((120, 160, 3), 225, np.uint8)
    picture[30:90, 50:110] = marker[..., None]
    (tmp_path / "clip").mkdir()
    write_picture(tmp_path / "clip" / "0.png", picture)
    write_picture(tmp_path / "clip" / "1.png", picture)
    words = ("--backend", "identity", "--sink", "null", "--stats", tmp_path / "s.json")
    result = invoke(tmp_path / "clip", *words, "--effect", "markers:dictionary=april_36h11")
    assert result.exit_code == 0, result.output
    said = "no marker was in any of 2 frames (april_36h11)"
    assert result.stderr.count(said) == 1
    assert said in json.loads((tmp_path / "s.json").read_text())["notes"]


def test_keeping_a_rate_of_a_file_into_null_is_explained(tmp_path: Any) -> None:
    write_picture(tmp_path / "0.png", np.zeros((48, 64, 3), np.uint8))
    settings = Settings(str(tmp_path), "", ("null",), backend="identity", keep=True)
    with pytest.raises(SettingsError, match=r"file into files, or into null.*--mode freshest"):
        make_pipeline(settings).run()
    told = " ".join(invoke("--help").output.split())
    assert "A file into files or null needs --mode freshest with it." in told
