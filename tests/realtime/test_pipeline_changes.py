"""Sinks, recordings and filters that come and go while the pipeline runs."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest
from pipelines import PATTERN, Keep, identity, until

from engines import (
    ModelError,
    SettingsError,
)
from realtime import Pipeline
from realtime.outlets import LEFT_KEPT


def test_removed_sinks_hold_nothing() -> None:
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    waiter = threading.Thread(target=pipeline.run)
    waiter.start()
    until(lambda: len(keep.indices) > 2)
    process = psutil.Process()
    handles = process.num_fds()
    first = pipeline.stats.sinks[0]
    for _ in range(LEFT_KEPT + 10):
        added = pipeline.add_sink(Keep())
        pipeline.remove_sink(added)
    until(lambda: process.num_fds() <= handles)
    until(lambda: len(pipeline.stats.sinks) == 1 + LEFT_KEPT)
    assert pipeline.stats.sinks[0] is first
    pipeline.stop()
    waiter.join()
    with pytest.raises(SettingsError):
        pipeline.add_sink("null")


def test_sinks_come_and_go_while_it_runs(tmp_path: Path) -> None:
    keep, later = Keep(), Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    pipeline.start()
    until(lambda: len(keep.indices) > 5)
    pipeline.add_sink(later)
    recording = pipeline.add_sink(tmp_path / "later.mp4")
    recorded = pipeline.stats.sinks[-1]
    until(lambda: len(later.indices) > 5 and recorded.ages.count > 0)
    pipeline.remove_sink(recording)
    pipeline.remove_sink(later)
    until(lambda: later.closed == 1)
    seen = len(keep.indices)
    until(lambda: len(keep.indices) > seen + 5)
    pipeline.close()
    assert Pipeline(tmp_path / "later.mp4", identity(), ["null"]).run().engine_out.count > 0


def test_recording_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    with pipeline:
        pipeline.start()
        until(lambda: len(keep.indices) > 2)
        keep.actions["r"]()
        seen = len(keep.indices)
        until(lambda: len(keep.indices) > seen + 20)
        keep.actions["r"]()
        until(lambda: list(tmp_path.glob("pix2live-*.mp4")) != [])
    (recording,) = tmp_path.glob("pix2live-*.mp4")
    assert Pipeline(recording, identity(), ["null"]).run().engine_out.count > 10


def test_recordings_by_key_within_a_second_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of them: they take less than a second each, so that some share one."""
    monkeypatch.chdir(tmp_path)
    keep = Keep()
    said = []
    with Pipeline(PATTERN, identity(), [keep]) as pipeline:
        pipeline.start()
        for _ in range(10):
            said.append(keep.actions["r"]())
            recording = pipeline.stats.sinks[-1]
            until(lambda: recording.ages.count > 2)  # noqa: B023  (called here only)
            keep.actions["r"]()
    names = sorted(line.removeprefix("recording to ") for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(names) == 10


def test_a_failing_switch_keeps_the_old_filter() -> None:
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    with pipeline:
        pipeline.start()
        until(lambda: len(keep.indices) > 2)
        with pytest.raises(ModelError):
            pipeline.switch("no-such-filter", wait=True)
        seen = len(keep.indices)
        until(lambda: len(keep.indices) > seen + 5)
        assert any("kept the filter" in note for note in pipeline.all_notes())
    assert pipeline.stats.switches == 0
