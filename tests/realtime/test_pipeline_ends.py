"""How a run ends, well or with an error, and what it leaves behind: nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from pathlib import Path

import psutil
import pytest
from pipelines import PATTERN, BrokenEngine, BrokenSource, Keep, identity, until

from engines import EngineError, Pix2liveError, SettingsError, SinkError, SourceError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline
from realtime.run import Run
from realtime.switching import Switcher


def test_ctrl_c_at_any_moment_finishes_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("running", "serve"):
        recording = tmp_path / f"{place}.mp4"
        pipeline = Pipeline(PATTERN, identity(), [recording], mode="every")
        original, calls = getattr(Run, place), 0

        def interrupted(run, original=original) -> object:  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == 10:
                raise KeyboardInterrupt
            return original(run)

        monkeypatch.setattr(Run, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run()
        assert Pipeline(recording, identity(), ["null"]).run().engine_out.count > 0


def test_a_sink_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.pipeline.HANGS_AFTER_S", 0.3)
    free = threading.Event()

    def hang(_: Frame) -> None:
        free.wait(60)

    pipeline = Pipeline(PATTERN, identity(), [hang, "null"])
    pipeline.start()
    until(lambda: pipeline.stats.engine_out.count > 3)
    pipeline.abort()
    with pytest.raises(Pix2liveError, match="sink hang did not end"):
        pipeline.wait()
    free.set()
    until(lambda: not [item for item in threading.enumerate() if "pix2live" in item.name])


def test_stop_before_start_ends_at_once() -> None:
    pipeline = Pipeline(PATTERN, identity(), ["null"])
    pipeline.stop()
    assert pipeline.run().engine_out.count <= 1


def test_a_signal_after_a_run_finds_its_stack() -> None:
    program = """
import os, signal
from realtime import Pipeline
caught = []
signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
pipeline = Pipeline("test-pattern:64x64@200", "comic", ["null"], stand_in=False)
pipeline.start()
pipeline.switch("comic", wait=True)
for _ in range(20):
    pipeline._stages.serve()
pipeline.stop()
pipeline.wait()
assert pipeline.stats.switches == 1, pipeline.stats.switches
for _ in range(20):
    os.kill(os.getpid(), signal.SIGTERM)
print(len(caught))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["20"]


def test_closing_keeps_the_callers_own_error() -> None:
    def stumble(_: Frame) -> None:
        raise ValueError("of the sink")

    pipeline = Pipeline(PATTERN, identity(), [stumble])
    pipeline.start()
    with pytest.raises(KeyError), pipeline:
        raise KeyError("mine")


@pytest.mark.parametrize(
    ("source", "engine", "sink", "error"),
    [
        (BrokenSource((64, 64)), identity(), Keep(), SourceError),
        (PATTERN, BrokenEngine(None), Keep(), EngineError),
        (PATTERN, identity(), Keep(fail_at=5), SinkError),
    ],
    ids=["source", "engine", "sink"],
)
def test_the_first_error_unwinds_everything(
    source: object, engine: IdentityEngine, sink: Keep, error: type[Exception], tmp_path: Path
) -> None:
    recording = tmp_path / "kept.mp4"
    pipeline = Pipeline(source, engine, [sink, recording], mode="every")  # type: ignore[arg-type]
    with pytest.raises(error):
        pipeline.run()
    assert sink.closed == 1
    assert engine.size is None
    assert not [item for item in threading.enumerate() if "pix2live" in item.name]
    kept = Pipeline(recording, identity(), ["null"]).run()
    assert kept.engine_out.count > 0, "what was recorded before the error can be played"


def test_a_bug_in_user_code_is_raised_as_it_is() -> None:
    def stumble(_: Frame) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Pipeline(PATTERN, identity(), [stumble]).run()


def test_a_sink_that_does_not_open_closes_the_rest(tmp_path: Path) -> None:
    keep, engine = Keep(), identity()
    before = len(psutil.Process().open_files())
    with pytest.raises(SinkError, match="does not exist"):
        Pipeline(PATTERN, engine, [keep, tmp_path / "nowhere" / "x.mp4"]).run()
    assert keep.closed == 1
    assert engine.size is None
    assert len(psutil.Process().open_files()) == before


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    with pytest.raises(SettingsError, match="two sinks"):
        Pipeline(PATTERN, identity(), [clip, clip])
    Pipeline(PATTERN, identity(), [clip], mode="every", frames=5).run()
    content = clip.read_bytes()
    with pytest.raises(SettingsError, match="is the source"):
        Pipeline(clip, identity(), [clip])
    assert clip.read_bytes() == content


def test_a_sink_that_was_removed_just_before_holds_nothing(nobody_collects: None) -> None:
    kept = Keep()
    pipeline = Pipeline(PATTERN, identity(), ["null"])
    pipeline.start()
    pipeline.add_sink(kept)
    pipeline.remove_sink(kept)
    pipeline.stop()
    stages = pipeline._stages
    assert stages is not None
    until(lambda: not stages.running())  # so that closing finds it among the outlets still
    assert kept in [outlet.sink for outlet in stages.outlets]
    pipeline.close()
    gone = weakref.ref(pipeline)
    del pipeline
    assert gone() is None
    assert kept.actions == {}


def test_a_sink_keeps_the_actions_of_its_owner() -> None:
    def mine() -> str:
        return "done"

    first, second = Keep(), Keep()
    first.actions["x"] = mine
    pipeline = Pipeline(PATTERN, identity(), [first])
    pipeline.start()
    pipeline.add_sink(second)
    assert {"x", "n", "r"} < first.actions.keys()
    first.actions["n"] = second.actions["r"] = mine
    pipeline.remove_sink(second)
    pipeline.close()
    assert first.actions == {"x": mine, "n": mine}
    assert second.actions == {"r": mine}


def test_who_closes_first_closes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, closes = Pipeline(PATTERN, identity(), ["null"], frames=3), 0

    def closed() -> None:
        nonlocal closes
        closes += 1

    monkeypatch.setattr(pipeline._chain, "close", closed)
    monkeypatch.setattr(Switcher, "join", lambda *_: pipeline._close_all())  # another thread's
    pipeline.run()
    assert closes == 1


def test_threads_and_handles_return(tmp_path: Path) -> None:
    process = psutil.Process()

    def once() -> None:
        sinks = ["null", tmp_path / "x.mp4", Keep()]
        Pipeline(PATTERN, identity(), sinks, frames=10).run()  # type: ignore[arg-type]

    once()
    threads, handles = threading.active_count(), process.num_fds()
    for _ in range(5):
        once()
    assert threading.active_count() == threads
    assert process.num_fds() == handles


def test_bad_settings_are_refused() -> None:
    for wrong in ({"mode": "sometimes"}, {"view": "upside-down"}, {"seconds": 0}, {"frames": -1}):
        with pytest.raises(SettingsError):
            Pipeline(PATTERN, identity(), ["null"], **wrong)  # type: ignore[arg-type]
    pipeline = Pipeline(PATTERN, identity(), ["null"], frames=1)
    pipeline.run()
    with pytest.raises(SettingsError, match="run already"):
        pipeline.run()
    with pytest.raises(SettingsError):
        pipeline.switch("comic")


@pytest.mark.parametrize("engine", ["identity", "comic"])
def test_memory_is_flat_over_20000_frames(engine: str) -> None:
    process = psutil.Process()
    count = 0
    after_warm_up = 0

    def watch(_: Frame) -> None:
        nonlocal count, after_warm_up
        count += 1
        if count == 2000:
            after_warm_up = process.memory_info().rss

    model = identity() if engine == "identity" else engine
    Pipeline("test-pattern:64x64@1000", model, [watch], mode="every", frames=20_000).run()
    assert count == 20_000
    growth = process.memory_info().rss - after_warm_up
    assert growth < 5_000_000, f"{growth / 1e6:.1f} MB"


def test_it_leaves_no_files_in_the_working_folder(tmp_path: Path) -> None:
    before = set(Path().iterdir())
    Pipeline(PATTERN, identity(), [tmp_path / "x.mp4", f"{tmp_path}/frames/"], frames=5).run()
    assert set(Path().iterdir()) == before
    assert not list(tmp_path.glob(".*part*"))
