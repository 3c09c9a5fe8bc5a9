"""What plays on a marker: it can be cancelled, is closed by who reads it, and says what it must."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from clips import quadrants, write_clip
from rendered import SIZE, Pose, Scene, as_frame, camera_matrix

from engines import SettingsError, SourceError
from realtime import Frame
from realtime.effects import Context, open_effect
from realtime.effects.calibration import Calibration
from realtime.effects.chain import Chain
from realtime.effects.on_marker import OnMarker
from realtime.outlets import refuse_shared_paths
from realtime.sinks import open_sink
from realtime.sources import Source, SourceInfo
from realtime.sources.pictures import write_picture
from realtime.sources.synthetic import SyntheticSource

FACING = Scene(motion=lambda _: Pose((0, 0, 0.5)), steps=1)
"""A marker of about 100 pixels, straight ahead."""
MIDDLE = (240, 320)
CAMERA = Calibration(camera_matrix(), np.zeros(5), SIZE)


def prepared(effect: OnMarker) -> tuple[OnMarker, Context]:
    context = Context(size=SIZE, live=False)
    effect.prepare(SIZE, context)
    return effect, context


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    levels = [np.full((64, 64, 3), 40 + 40 * number, np.uint8) for number in range(4)]
    return write_clip(tmp_path / "clip.mp4", levels, fps=10)


class Deaf(Source):
    """Shows ``pictures`` and then waits, whatever is cancelled, until ``go``; then it has ended."""

    name = "deaf"

    def __init__(self, pictures: int = 0, *, live: bool = False) -> None:
        super().__init__()
        self.pictures, self.live = pictures, live
        self.waits, self.go = threading.Event(), threading.Event()
        self.closed_by: list[str] = []

    def open(self, size: tuple[int, int] | None, *, realtime: bool) -> SourceInfo:
        self.left = self.pictures
        self._note("mode", "another mode was given")
        return SourceInfo((32, 32), 30.0)

    def read(self, frame: Frame) -> bool:
        if self.left:
            self.left -= 1
            frame.pixels[:], frame.pts_ns = 200, 0
            return True
        self.waits.set()
        assert self.go.wait(60)
        return False

    def close(self) -> None:
        self.closed_by.append(threading.current_thread().name)


def ended(name: str) -> None:
    for thread in threading.enumerate():
        if name in thread.name:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("live", [False, True])
def test_a_frame_that_waits_for_a_video_can_be_cancelled(live: bool) -> None:
    source = Deaf(live=live)
    effect, context = prepared(OnMarker(7, source))
    frame = as_frame(FACING.frame(0), 0)
    waiting = threading.Thread(target=lambda: effect.process(frame, context), daemon=True)
    waiting.start()
    assert source.waits.wait(60)
    effect.cancel()
    waiting.join(30)  # before the source gives up
    assert not waiting.is_alive(), "although the source is still waiting"
    source.go.set()
    effect.close()


def test_a_source_is_not_closed_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.effects.playing.JOIN_S", 0.01)
    source = Deaf()
    effect, context = prepared(OnMarker(7, source))
    assert source.waits.wait(60)
    for _ in range(2):
        effect.close()
        assert source.closed_by == []
    left_open = "marker 7: deaf does not answer: it is left open until its last read ends"
    assert effect.notes == ["marker 7: another mode was given", left_open]
    with pytest.raises(SourceError, match="deaf: still waits for its last read"):
        effect.prepare(SIZE, context)
    source.go.set()
    ended("deaf on a marker")
    assert source.closed_by == ["pix2live deaf on a marker"], "by the thread that read"
    effect.prepare(SIZE, context)
    assert effect.notes == ["marker 7: another mode was given"], "it is open again"
    effect.close()


def test_the_end_of_a_live_source_is_said_and_its_last_picture_stays() -> None:
    source = Deaf(1, live=True)
    effect, context = prepared(OnMarker(7, source))
    assert effect.notes == ["marker 7: another mode was given"]
    source.go.set()
    ended("deaf on a marker")
    for index in range(2):
        pixels = effect.process(as_frame(FACING.frame(0), index), context)
        assert pixels[MIDDLE].tolist() == [200, 200, 200]
        assert effect.notes[1:] == ["marker 7: deaf has ended; its last picture stays"]
    effect.close()


def test_a_recording_that_ends_is_no_note(clip: Path) -> None:
    effect, context = prepared(OnMarker(7, clip))
    picture = FACING.frame(0)
    for index in range(30):
        effect.process(as_frame(picture, index), context)
    effect.close()
    assert effect.notes == []


class Cut(Deaf):
    """Says at the end of its first round what was wrong; opening it again empties its notes."""

    rounds = 0

    def open(self, size: tuple[int, int] | None, *, realtime: bool) -> SourceInfo:
        self._noted.clear()
        self.notes.clear()
        self.rounds += 1
        return super().open(size, realtime=realtime)

    def read(self, frame: Frame) -> bool:
        if self.rounds == 1 and not self.left:
            self._note("end", "it is truncated")
            return False
        return super().read(frame)


def test_what_was_wrong_with_a_recording_is_still_said_when_it_plays_again() -> None:
    source = Cut(1)
    effect, context = prepared(OnMarker(7, source))
    assert source.waits.wait(60), "in the second round"
    effect.process(as_frame(FACING.frame(0), 0), context)
    assert effect.notes == ["marker 7: another mode was given", "marker 7: it is truncated"]
    source.go.set()
    effect.close()


def test_no_sink_writes_over_what_an_effect_reads(clip: Path, tmp_path: Path) -> None:
    CAMERA.save(tmp_path / "cam.json")
    write_picture(tmp_path / "logo.png", quadrants(8, 8))
    effects = [
        open_effect(spec)
        for spec in (
            "status",
            f"marker:7={clip}",
            f"marker:7={tmp_path / 'logo.png'}",
            f"picture:{tmp_path / 'logo.png'}",
            f"markers:calibration={tmp_path / 'cam.json'}",
            f"face:{tmp_path / 'yunet.onnx'}",
        )
    ]
    assert [[path.name for path in getattr(item, "paths", ())] for item in effects] == [
        [],
        ["clip.mp4"],
        ["logo.png"],
        ["logo.png"],
        ["cam.json"],
        ["yunet.onnx"],
    ]
    source = SyntheticSource((32, 32), 10)
    (tmp_path / "sub").mkdir()
    other = [open_sink(tmp_path / "other.mp4")]
    refuse_shared_paths(source, other, effects)
    same = open_sink(tmp_path / "sub" / ".." / "clip.mp4")
    refuse_shared_paths(source, [same])
    for given in (effects, [Chain(effects)]):
        with pytest.raises(
            SettingsError, match=r"clip\.mp4 is read by the effect marker; write to"
        ):
            refuse_shared_paths(source, [*other, same], given)
