"""The live path as a whole, with real sources, real threads and a real recording."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engines import (
    EngineError,
    ModelError,
    Pix2liveError,
    Pixels,
    SettingsError,
    SinkError,
    Size,
    SourceError,
)
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline, SinkInfo
from realtime.outlets import LEFT_KEPT
from realtime.run import Run
from realtime.sinks import NullSink
from realtime.sources.pictures import write_picture
from realtime.sources.synthetic import SyntheticSource, read_code

PATTERN = "test-pattern:128x96@200"


class SlowEngine(IdentityEngine):
    """Takes its time, as a network does."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(None)
        self.pause_s = pause_s

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        time.sleep(self.pause_s)
        super()._submit(frame_in, frame_out)


class BrokenEngine(IdentityEngine):
    """Fails on the fifth frame."""

    seen = 0

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        self.seen += 1
        if self.seen > 5:
            raise EngineError("it broke")
        super()._submit(frame_in, frame_out)


class BrokenSource(SyntheticSource):
    """Goes away after ten frames."""

    def read(self, frame: Frame) -> bool:
        if self._number >= 10:
            raise SourceError("it went away")
        return super().read(frame)


class Keep(NullSink):
    """Remembers what it was shown, and whether it was closed."""

    def __init__(self, pause_s: float = 0.0, fail_at: int | None = None) -> None:
        super().__init__()
        self.pause_s, self.fail_at = pause_s, fail_at
        self.indices: list[int] = []
        self.codes: list[int | None] = []
        self.ages_ms: list[float] = []
        self.info: SinkInfo | None = None
        self.closed = 0

    def open(self, info: SinkInfo) -> None:
        self.info = info

    def write(self, frame: Frame) -> None:
        self.ages_ms.append(frame.age_ns(time.monotonic_ns()) / 1e6)
        code = read_code(frame.pixels)
        self.indices.append(frame.index)
        self.codes.append(None if code is None else code[0])
        if self.fail_at is not None and len(self.indices) >= self.fail_at:
            raise SinkError("it is full")
        time.sleep(self.pause_s)

    def close(self) -> None:
        self.closed += 1


def identity() -> IdentityEngine:
    return IdentityEngine(None)


def test_every_loses_nothing_and_keeps_the_order() -> None:
    keep, slow = Keep(), Keep(pause_s=0.002)
    stats = Pipeline(PATTERN, identity(), [keep, slow], mode="every", frames=120).run()
    assert keep.indices == slow.indices == list(range(120))
    assert keep.codes == slow.codes == list(range(120))
    assert sum(stats.dropped().values()) == 0
    assert stats.engine_out.count == 120
    assert keep.closed == slow.closed == 1


def test_freshest_counts_every_frame_it_drops() -> None:
    keep = Keep()
    stats = Pipeline(PATTERN, SlowEngine(0.03), [keep], seconds=1.0).run()
    assert keep.indices == sorted(set(keep.indices)), "in order, none twice"
    assert all(code == index for code, index in zip(keep.codes, keep.indices))
    assert stats.engine_overwritten > 0
    published = stats.captured.count
    accounted = stats.engine_in.count + stats.engine_overwritten + stats.engine_too_old
    assert published == accounted
    shown = stats.sinks[0]
    assert stats.engine_out.count == shown.ages.count + shown.overwritten + shown.too_old


def test_every_frame_is_accounted_for_however_it_ends() -> None:
    for _ in range(5):
        stats = Pipeline(PATTERN, SlowEngine(0.02), ["null"], frames=4).run()
        accounted = stats.engine_in.count + stats.engine_overwritten + stats.engine_too_old
        assert stats.captured.count == accounted


def test_drops_of_sinks_with_one_name_are_kept_apart() -> None:
    slow = [Keep(pause_s=0.05), Keep()]
    stats = Pipeline(PATTERN, identity(), slow, seconds=0.5).run()
    assert [sink.name for sink in stats.sinks] == ["null", "null (2)"]
    assert stats.dropped()["null queue"] == stats.sinks[0].overwritten > 0


def test_every_with_a_limit_and_a_max_age_gives_that_many_frames() -> None:
    stats = Pipeline(
        PATTERN, SlowEngine(0.01), ["null"], mode="every", max_age_ms=5, frames=5, seconds=20
    ).run()
    assert stats.engine_out.count == 5


def test_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", np.zeros((32, 32, 3), np.uint8))
    for broken in ("0.png", "3.png"):
        (tmp_path / broken).write_bytes(b"broken")
    keep = Keep()
    stats = Pipeline(tmp_path, identity(), [keep], frames=3).run()
    assert len(keep.indices) == 3
    assert stats.source_dropped == 2
    assert keep.indices == [1, 2, 4], "a gap is a drop"


def test_a_picture_stays_in_a_display_until_it_is_stopped(tmp_path: Path) -> None:
    class Display(Keep):
        freshest = True

    write_picture(tmp_path / "one.png", np.zeros((32, 32, 3), np.uint8))
    display = Display()
    Pipeline(tmp_path / "one.png", identity(), [display], frames=5).run()
    assert display.indices
    once = Keep()
    Pipeline(tmp_path / "one.png", identity(), [once]).run()
    assert once.indices == [0]


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
    _until(lambda: pipeline.stats.engine_out.count > 3)
    pipeline.abort()
    with pytest.raises(Pix2liveError, match="sink hang did not end"):
        pipeline.wait()
    free.set()
    _until(lambda: not [item for item in threading.enumerate() if "pix2live" in item.name])


def test_stop_before_start_ends_at_once() -> None:
    pipeline = Pipeline(PATTERN, identity(), ["null"])
    pipeline.stop()
    assert pipeline.run().engine_out.count <= 1


def test_removed_sinks_hold_nothing() -> None:
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    waiter = threading.Thread(target=pipeline.run)
    waiter.start()
    _until(lambda: len(keep.indices) > 2)
    process = psutil.Process()
    handles = process.num_fds()
    first = pipeline.stats.sinks[0]
    for _ in range(LEFT_KEPT + 10):
        added = pipeline.add_sink(Keep())
        pipeline.remove_sink(added)
    _until(lambda: process.num_fds() <= handles)
    _until(lambda: len(pipeline.stats.sinks) == 1 + LEFT_KEPT)
    assert pipeline.stats.sinks[0] is first
    pipeline.stop()
    waiter.join()
    with pytest.raises(SettingsError):
        pipeline.add_sink("null")


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


def test_the_ages_grow_from_stage_to_stage() -> None:
    stats = Pipeline(PATTERN, SlowEngine(0.005), ["null"], frames=40).run()
    stages = [stats.captured, stats.engine_in, stats.engine_out, stats.sinks[0].ages]
    found = [ages.percentile_ms(50) for ages in stages]
    assert all(value is not None for value in found)
    assert found == sorted(found, key=lambda value: value or 0)
    assert (found[2] or 0) >= 5


def test_max_age_shows_nothing_older() -> None:
    late = Keep()
    pipeline = Pipeline(PATTERN, SlowEngine(0.05), [late], max_age_ms=30, seconds=1.0)
    stats = pipeline.run()
    assert late.indices == []
    assert stats.sinks[0].too_old + stats.engine_too_old > 0
    assert stats.engine_in.count == stats.engine_out.count == stats.sinks[0].too_old


def test_frames_and_seconds_end_the_run() -> None:
    keep = Keep()
    Pipeline(PATTERN, identity(), [keep], frames=7, mode="every").run()
    assert len(keep.indices) == 7
    stats = Pipeline(PATTERN, identity(), ["null"], frames=7).run()
    assert stats.engine_out.count == 7
    stats = Pipeline(PATTERN, identity(), ["null"], seconds=0.3).run()
    assert stats.engine_out.count > 0


def test_files_only_into_files_keep_every_frame(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    Pipeline(PATTERN, identity(), [clip], mode="every", frames=30).run()
    first = Pipeline(clip, identity(), [tmp_path / "out.mp4"])
    first.run()
    assert first.mode == "every"
    assert first.stats.engine_out.count == 30

    class Display(Keep):
        freshest = True

    second = Pipeline(clip, identity(), [Display()])
    second.run()
    assert second.mode == "freshest"


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


def test_a_file_is_cut_to_what_the_filter_takes_and_it_is_said(tmp_path: Path) -> None:
    class Stride8(IdentityEngine):
        def fit(self, size: Size) -> Size:
            return size[0] // 8 * 8, size[1] // 8 * 8

    pipeline = Pipeline("test-pattern:101x99@200", Stride8(None), ["null"], frames=3)
    pipeline.run()
    assert pipeline.size == (96, 96)
    assert any("101x99" in note and "96x96" in note for note in pipeline.all_notes())


def test_sinks_come_and_go_while_it_runs(tmp_path: Path) -> None:
    keep, later = Keep(), Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    pipeline.start()
    _until(lambda: len(keep.indices) > 5)
    pipeline.add_sink(later)
    recording = pipeline.add_sink(tmp_path / "later.mp4")
    _until(lambda: len(later.indices) > 5)
    pipeline.remove_sink(recording)
    pipeline.remove_sink(later)
    _until(lambda: later.closed == 1)
    seen = len(keep.indices)
    _until(lambda: len(keep.indices) > seen + 5)
    pipeline.close()
    assert Pipeline(tmp_path / "later.mp4", identity(), ["null"]).run().engine_out.count > 0


def test_recording_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    with pipeline:
        pipeline.start()
        _until(lambda: len(keep.indices) > 2)
        keep.actions["r"]()
        seen = len(keep.indices)
        _until(lambda: len(keep.indices) > seen + 20)
        keep.actions["r"]()
        _until(lambda: list(tmp_path.glob("pix2live-*.mp4")) != [])
    (recording,) = tmp_path.glob("pix2live-*.mp4")
    assert Pipeline(recording, identity(), ["null"]).run().engine_out.count > 10


def test_a_failing_switch_keeps_the_old_filter() -> None:
    keep = Keep()
    pipeline = Pipeline(PATTERN, identity(), [keep])
    with pipeline:
        pipeline.start()
        _until(lambda: len(keep.indices) > 2)
        with pytest.raises(ModelError):
            pipeline.switch("no-such-filter", wait=True)
        seen = len(keep.indices)
        _until(lambda: len(keep.indices) > seen + 5)
        assert any("kept the filter" in note for note in pipeline.all_notes())
    assert pipeline.stats.switches == 0


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


def test_split_view_shows_both(tmp_path: Path) -> None:
    class Invert(IdentityEngine):
        def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
            np.subtract(255, frame_in, out=frame_out)

    shown: list[Pixels] = []
    Pipeline(
        PATTERN,
        Invert(None),
        [lambda frame: shown.append(frame.pixels.copy())],
        mode="every",
        frames=3,
        view="split",
    ).run()
    plain: list[Pixels] = []
    Pipeline(
        PATTERN,
        identity(),
        [lambda frame: plain.append(frame.pixels.copy())],
        mode="every",
        frames=3,
    ).run()
    below = slice(60, None)  # the time code differs between runs
    assert np.array_equal(shown[2][below, :60], plain[2][below, :60])
    assert np.array_equal(shown[2][below, 68:], 255 - plain[2][below, 68:])


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


def _until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            pytest.fail("it did not come to that")
        time.sleep(0.01)


def test_it_leaves_no_files_in_the_working_folder(tmp_path: Path) -> None:
    before = set(Path().iterdir())
    Pipeline(PATTERN, identity(), [tmp_path / "x.mp4", f"{tmp_path}/frames/"], frames=5).run()
    assert set(Path().iterdir()) == before
    assert not list(tmp_path.glob(".*part*"))
