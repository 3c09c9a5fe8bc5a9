"""From glass to glass with a simulated camera: the delay that was there is found."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engines import SourceError
from engines.backends.identity import IdentityEngine
from realtime import Frame, Pipeline
from realtime.coded_pattern import MIXED, NOT_FOUND, NUMBERS, Reading, read_pattern
from realtime.effects.base import Context
from realtime.glass_to_glass import EARLY_NS, LoopLog, Shows, percentiles
from realtime.pattern_reader import PatternReader
from realtime.sinks import SinkInfo
from realtime.sinks.pattern_window import PatternWindow
from realtime.sources.filmed import FilmedSource, Lens, film

MS = 1_000_000
SIZE = (320, 180)
NEAR = ((0.06, 0.06), (0.93, 0.04), (0.95, 0.95), (0.05, 0.92))


def shows(*times_ms: float) -> Shows:
    found = Shows()
    for time_ms in times_ms:
        found.add(round(time_ms * MS))
    return found


def steady(count: int, period_ms: float = 16.7, jitter_ms: float = 4.0, first: int = 0) -> Shows:
    """A window that shows numbers at about this rate; ``first`` were shown long before."""
    rng = np.random.default_rng(1)
    jitter = rng.uniform(0, jitter_ms, count + first)
    return shows(*(np.arange(-first, count) * period_ms + jitter))


def test_when_a_number_was_shown() -> None:
    found = shows(0, 10, 25, 40)
    assert found.next_number == 4
    assert found.find(1, 100 * MS) == (10 * MS, 25 * MS)
    assert found.find(1, 20 * MS) == (10 * MS, 20 * MS), "it was still there at the capture"
    assert found.find(2, 24 * MS) == (25 * MS, 25 * MS), "stamped at the start of the exposure"
    assert found.find(3, 100 * MS) is None, "nobody knows for how long"
    assert found.find(9, 100 * MS) is None, "never shown"
    assert found.find(2, 25 * MS - EARLY_NS - 1) is None
    assert Shows().find(0, 5) is None


def test_the_last_of_equal_numbers_is_meant() -> None:
    found = shows(*range(0, 20 * (NUMBERS + 10), 20))
    assert found.find(3, 10**15) == ((NUMBERS + 3) * 20 * MS, (NUMBERS + 4) * 20 * MS)
    assert found.find(3, 20 * (NUMBERS - 50) * MS) == (60 * MS, 80 * MS)


def test_what_was_shown_during_an_exposure() -> None:
    found = shows(0, 10, 25, 40)
    assert found.during(12 * MS, 22 * MS) == [(1, 12 * MS, 22 * MS)]
    assert found.during(5 * MS, 30 * MS) == [
        (0, 5 * MS, 10 * MS),
        (1, 10 * MS, 25 * MS),
        (2, 25 * MS, 30 * MS),
    ]
    assert found.during(50 * MS, 60 * MS) == [(3, 50 * MS, 60 * MS)]
    assert found.during(-20 * MS, -10 * MS) == []
    assert found.during(-20 * MS, 5 * MS) == [(0, 0, 5 * MS)]


def go_round(delay_ms: float, lens: Lens, window: Shows, frames: int = 40) -> LoopLog:
    """Film, read and show on a simulated clock: engine 20 ms, display 3 ms."""
    log = LoopLog()
    log.shows = window
    log.start_ns = 0
    for index in range(frames):
        captured_ns = round((delay_ms + 100 + index * 31.3) * MS)
        middle_ns = captured_ns - round(delay_ms * MS)
        half_ns = round((lens.exposure_ms + lens.readout_ms) / 2 * MS)
        shown = window.during(middle_ns - half_ns, middle_ns + half_ns)
        reading = read_pattern(film(shown, middle_ns, SIZE, lens, index))
        log.translated(index, captured_ns + 20 * MS)
        log.displayed(index, captured_ns + 23 * MS)
        log.read(index, captured_ns, reading, 5 * MS)
    return log


@pytest.mark.parametrize("delay_ms", [20.0, 60.0, 155.0, 900.0])
@pytest.mark.parametrize(
    ("exposure_ms", "readout_ms"), [(2.0, 1.0), (16.0, 10.0), (33.0, 5.0), (8.0, 30.0)]
)
def test_the_known_delay_is_found(delay_ms: float, exposure_ms: float, readout_ms: float) -> None:
    lens = Lens(corners=NEAR, exposure_ms=exposure_ms, readout_ms=readout_ms)
    log = go_round(delay_ms, lens, steady(240))
    samples = log.samples()
    assert len(samples) == 40
    off_ms = np.array([sample.camera_ms for sample in samples]) - delay_ms
    within_ms = np.array([sample.within_ms for sample in samples])
    # Cells are 1.4 units high of 14: a rolling shutter passes a copy in a third of its time.
    assert (np.abs(off_ms) <= within_ms + 2.0 + readout_ms / 6).all()
    assert abs(np.median(off_ms)) < 16.7 / 4
    assert within_ms.max() < 16.7 / 2 + 4
    assert {sample.engine_ms for sample in samples} == {20.0}
    assert {sample.display_ms for sample in samples} == {3.0}
    assert samples[0].total_ms == pytest.approx(samples[0].camera_ms + 23)
    summary = log.summary()
    assert summary["samples"] == summary["pictures_read"] == 40
    assert summary["unreadable_share"] == 0
    assert summary["ms"]["total"]["p50"] == pytest.approx(delay_ms + 23, abs=16.7 / 4)
    assert summary["pattern_period_ms"] == pytest.approx(16.7, abs=2)


def test_numbers_may_go_round_meanwhile() -> None:
    log = go_round(300.0, Lens(corners=NEAR), steady(140, first=NUMBERS - 20))
    off_ms = [sample.camera_ms - 300 for sample in log.samples()]
    assert len(off_ms) == 40
    assert np.abs(off_ms).max() < 16.7


def test_a_slow_pattern_says_how_uncertain_it_is() -> None:
    log = go_round(60.0, Lens(corners=NEAR), steady(40, period_ms=100.0))
    summary = log.summary()
    assert summary["plus_or_minus_ms"] > 25
    for sample in log.samples():
        assert abs(sample.camera_ms - 60) <= sample.within_ms + 3


def test_what_counts_and_what_does_not() -> None:
    log = LoopLog()
    log.shows = shows(*range(0, 1000, 20))
    good = Reading((5, 6), unit_px=12.0)
    for index in range(6):
        log.translated(index, (200 + index) * MS)
    for index in (0, 1, 2, 4):
        log.displayed(index, (210 + index) * MS)
    log.read(0, 180 * MS, good, MS)
    assert log.last is good
    assert log.summary()["pictures_read"] == 0, "nothing counts before the start"
    log.start_ns = 181 * MS
    log.read(0, 180 * MS, good, MS)
    log.read(1, 181 * MS, good, MS)
    log.read(2, 182 * MS, Reading(problem=MIXED), 3 * MS)
    log.read(3, 183 * MS, good, MS)  # a fresher one came before the window took it
    log.read(4, 184 * MS, Reading((5, 900)), MS)  # nobody has shown that
    log.read(5, 185 * MS, Reading(problem=MIXED), 2 * MS)
    (sample,) = log.samples()
    assert sample.index == 1
    assert sample.camera_ms == pytest.approx(181 - (100 + 120 + 120 + 140) / 4)
    assert sample.engine_ms == pytest.approx(20)
    assert sample.display_ms == pytest.approx(10)
    assert sample.within_ms == pytest.approx(10)
    summary = log.summary()
    assert summary["samples"] == 1
    assert summary["pictures_read"] == 5
    assert summary["unreadable"] == 2
    assert summary["unreadable_share"] == 0.4
    assert summary["problems"] == {MIXED: 2}
    assert summary["last_problem"] == MIXED
    assert summary["reading_ms"] == 1.0


def test_nothing_measured() -> None:
    summary = LoopLog().summary()
    assert summary["samples"] == 0
    assert summary["unreadable_share"] is None
    assert summary["last_problem"] is None
    assert summary["ms"]["total"] == dict.fromkeys(("p50", "p95", "min", "max"))
    assert percentiles([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": 2.9, "min": 1.0, "max": 3.0}


def test_the_window_shows_numbers_at_its_rate_and_with_every_frame() -> None:
    now_ns = [1000 * MS]
    log = LoopLog()
    window = PatternWindow(log, lambda: now_ns[0], rate=50, blind=True)
    window.open(SinkInfo((64, 48), 30.0))
    assert window.idle()
    now_ns[0] += 14 * MS
    assert window.idle()
    assert log.shows.times_ns == [1000 * MS]
    now_ns[0] += 11 * MS
    assert window.idle()
    now_ns[0] += 5 * MS
    window.write(Frame(np.zeros((48, 64, 3), np.uint8), index=7))
    now_ns[0] += 14 * MS
    assert window.idle()
    assert log.shows.times_ns == [1000 * MS, 1025 * MS, 1030 * MS], "the beat begins anew"
    for _ in range(5000):
        now_ns[0] += MS
        window.idle()
    periods_ms = np.diff(log.shows.times_ns[3:]) / MS
    assert np.mean(periods_ms) == pytest.approx(20, abs=1)
    assert np.std(periods_ms) > 2, "uneven: no camera shall be in step with it"
    window.close()
    assert not window.idle()


def test_the_picture_of_the_window_is_readable_and_says_what_to_do() -> None:
    log = LoopLog()
    log.shows = shows(*range(341))
    window = PatternWindow(log, lambda: 0, blind=True)
    window.lines = ("point the camera at this window", "far " * 40)
    picture = window.picture()
    assert picture.shape == (576, 1024, 3)
    assert read_pattern(picture).numbers == (341, 341)
    assert picture[460:, :700].min() == 0, "black text"
    window.lines = ()
    assert window.picture()[460:, :700].min() == 128, "and none"


def test_a_reader_reads_some_and_notes_all() -> None:
    now_ns = [0]
    log = LoopLog()
    log.start_ns = 0
    read = threading.Event()
    record = log.read

    def told(*words: object) -> None:
        record(*words)  # type: ignore[arg-type]
        read.set()

    log.read = told  # type: ignore[method-assign]
    reader = PatternReader(log, lambda: now_ns[0], reads_per_s=10)
    context = Context(size=SIZE)
    reader.prepare(SIZE, context)
    captured = film([(9, 0, 10**10)], 10**9, SIZE, Lens(corners=NEAR))
    result = np.zeros_like(captured)
    for index, at_ms in enumerate((1000, 1050, 1099, 1100)):
        now_ns[0] = at_ms * MS
        frame = Frame(result, captured.copy(), index=index, captured_ns=(at_ms - 30) * MS)
        assert reader.process(frame, context) is result
        assert frame.source is not None
        frame.source[:] = 0  # the slot is used again
        if index in (0, 3):
            assert read.wait(30)
            read.clear()
    reader.close()
    reader.close()
    log.shows = shows(*range(0, 200, 10))
    for index in range(4):
        log.displayed(index, 2000 * MS)
    assert [sample.index for sample in log.samples()] == [0, 3], "ten a second"
    assert log.samples()[0].engine_ms == pytest.approx(30)
    assert log.summary()["problems"] == {}


def test_a_reader_before_a_mirror() -> None:
    log = LoopLog()
    captured = film([(9, 0, 10**10)], 10**9, SIZE, Lens(corners=NEAR))
    for mirrored, picture in ((True, captured[:, ::-1].copy()), (False, captured[:, ::-1].copy())):
        reader = PatternReader(log, lambda: 10**9, mirrored=mirrored)
        reader.prepare(SIZE, Context(size=SIZE))
        reader.process(Frame(captured, picture, index=0), Context(size=SIZE))
        reader.close()  # what was begun is read
        assert log.last is not None
        assert log.last.numbers == ((9, 9) if mirrored else None)


def test_a_reader_that_fails_ends_the_run() -> None:
    log = LoopLog()
    reader = PatternReader(log, lambda: 10**9)
    context = Context(size=(32, 24))
    reader.prepare((32, 24), context)

    def broken(*_: object) -> None:
        raise RuntimeError("no more")

    log.read = broken  # type: ignore[method-assign]
    picture = np.zeros((24, 32, 3), np.uint8)
    frame = Frame(picture, picture.copy(), index=0)
    reader.process(frame, context)
    reader.close()  # the thread has ended
    with pytest.raises(RuntimeError, match="no more"):
        reader.process(frame, context)
    reader.prepare((32, 24), context)
    assert reader.process(frame, context) is picture, "a new run"
    reader.close()


def test_the_whole_loop_with_a_simulated_camera() -> None:
    """The real pipeline on the real clock; how late a frame was on this machine is known."""
    import time

    log = LoopLog()
    source = FilmedSource(log.shows, 70.0, SIZE, lens=Lens(corners=NEAR))
    window = PatternWindow(log, time.monotonic_ns, blind=True)
    pipeline = Pipeline(
        source,
        IdentityEngine(None),
        [window],
        mode="freshest",
        effects=[PatternReader(log, time.monotonic_ns)],
    )

    def tick() -> None:
        if log.start_ns is None and log.last is not None and log.last.numbers is not None:
            log.start_ns = time.monotonic_ns()
        if len(log.samples()) >= 12:
            pipeline.stop()

    stats = pipeline.run(tick)
    summary = log.summary()
    period_ms = summary["pattern_period_ms"]
    true_ms = np.array(source.true_ms)
    assert true_ms.min() >= 70
    assert summary["unreadable"] == 0
    for sample in log.samples():
        # Frame by frame: dropped ones leave a gap in the index.
        nearest = np.abs(true_ms - sample.camera_ms).min()
        assert nearest <= sample.within_ms + 10
        assert sample.engine_ms > 0
        assert sample.display_ms > 0
    assert summary["ms"]["camera"]["p50"] >= 70 - period_ms
    assert summary["ms"]["camera"]["p50"] <= np.percentile(true_ms, 90) + period_ms
    assert stats.sinks[0].ages.count >= 12


def test_the_simulated_camera_is_never_faster_than_light() -> None:
    source = FilmedSource(Shows(), 0.0, SIZE, lens=Lens(exposure_ms=20, readout_ms=10))
    assert source.delay_ms == 15
    frame = Frame(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    source.open(None, realtime=True)
    assert source.read(frame)
    assert read_pattern(frame.pixels).problem == NOT_FOUND, "nothing was shown yet"
    source.cancel()
    assert not source.read(frame)
    source.close()
    with pytest.raises(SourceError, match="impossible size"):
        FilmedSource(Shows(), 50.0, (0, 5)).open(None, realtime=True)
