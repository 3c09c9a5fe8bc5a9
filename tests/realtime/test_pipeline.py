"""The live path as a whole, with real sources and threads: which frames are shown, and how old."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pipelines import PATTERN, Keep, SlowEngine, identity

from engines import (
    Pixels,
    Size,
)
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sources.pictures import write_picture


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


def test_a_file_is_cut_to_what_the_filter_takes_and_it_is_said(tmp_path: Path) -> None:
    class Stride8(IdentityEngine):
        def fit(self, size: Size) -> Size:
            return size[0] // 8 * 8, size[1] // 8 * 8

    pipeline = Pipeline("test-pattern:101x99@200", Stride8(None), ["null"], frames=3)
    pipeline.run()
    assert pipeline.size == (96, 96)
    assert any("101x99" in note and "96x96" in note for note in pipeline.all_notes())


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
