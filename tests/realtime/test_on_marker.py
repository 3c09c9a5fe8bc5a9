"""OnMarker: pictures and videos lie on the marker's plane, exactly, and play at their own pace."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import BLUE, GREEN, RED, WHITE, corners, quadrants, write_clip
from rendered import SIZE, Pose, Scene, as_frame, edge_errors, still

from engines import Pixels, SettingsError, SourceError, open_engine
from realtime import Frame, Pipeline
from realtime.effects import Context, open_effect
from realtime.effects.on_marker import OnMarker
from realtime.effects.playing import Playing
from realtime.frame import Frame as OneFrame
from realtime.sources import Source, SourceInfo
from realtime.sources.pictures import list_pictures, read_picture, write_picture
from realtime.sources.synthetic import SyntheticSource, read_code
from realtime.sources.video import VideoSource

WHITE_PAPER = np.full((48, 48, 3), 255, np.uint8)
FACING = Scene(motion=lambda _: Pose((0, 0, 0.5)), steps=1)
"""A marker of about 100 pixels, straight ahead."""
MIDDLE = (240, 320)


def prepared(effect: OnMarker, *, live: bool = False) -> tuple[OnMarker, Context]:
    context = Context(size=SIZE, live=live)
    effect.prepare(SIZE, context)
    return effect, context


def drawn(effect: OnMarker, picture: Pixels, pixels: Pixels | None = None) -> Pixels:
    """Return what one frame becomes; on black where ``pixels`` is not given."""
    ready, context = prepared(effect)
    try:
        return ready.process(as_frame(picture, 0, pixels=pixels), context).copy()
    finally:
        ready.close()


@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_edges_in_motion_are_within_a_pixel_and_a_half(scale: float) -> None:
    scene = Scene()
    effect, context = prepared(OnMarker(7, WHITE_PAPER, scale=scale))
    found: list[float] = []
    for index in range(40):
        pixels = effect.process(as_frame(scene.frame(index), index), context)
        found += list(edge_errors(pixels[..., 0], scene.truth(index, 7, scale)))
    assert len(found) > 3000
    assert np.percentile(found, 95) <= 1.5


def test_a_picture_lies_as_the_marker_does() -> None:
    """Its top left is the marker's own, whichever way the marker is turned."""
    for degrees in (0, 90, 180, 270):
        turned = Scene(motion=lambda _, d=degrees: Pose((0, 0, 0.5), (0, 0, np.radians(d))))
        quad = turned.truth(0, 7)
        pixels = drawn(OnMarker(7, quadrants(80, 80)), turned.frame(0))
        for corner, colour in zip(quad, (RED, GREEN, WHITE, BLUE)):
            x, y = np.rint(corner + 0.25 * (quad.mean(axis=0) - corner)).astype(int)
            assert np.abs(pixels[y, x].astype(int) - colour).max() <= 6


def box_of(pixels: Pixels) -> tuple[int, int]:
    _, _, width, height = cv2.boundingRect((pixels.max(axis=2) > 127).astype(np.uint8))
    return width, height


def test_pictures_keep_their_aspect_ratio() -> None:
    picture = FACING.frame(0)
    side = np.linalg.norm(np.diff(FACING.truth(0, 7)[:2], axis=0))
    for width, height in ((120, 60), (60, 120)):
        wide = quadrants(width, height)
        inside = box_of(drawn(OnMarker(7, wide, scale=2, fit="fit"), picture))
        assert inside == pytest.approx((side * width / 60, side * height / 60), abs=2)
        filled = drawn(OnMarker(7, wide, scale=2), picture)
        assert box_of(filled) == pytest.approx((side * 2, side * 2), abs=2)
        left, top = (np.array(MIDDLE[::-1]) - side * 0.95).astype(int)
        part = filled[top : top + int(side * 1.9), left : left + int(side * 1.9)]
        assert np.abs(np.array(corners(part)) - (RED, GREEN, BLUE, WHITE)).max() <= 8


def test_only_its_own_place_is_changed() -> None:
    scene = Scene(motion=still, steps=1)
    captured = scene.frame(0)
    captured.flags.writeable = False
    before = np.random.default_rng(0).integers(0, 255, captured.shape, np.uint8)
    effect, context = prepared(OnMarker(7, WHITE_PAPER))
    frame = as_frame(captured, 0, pixels=before.copy())
    pixels = effect.process(frame, context)
    assert pixels is frame.pixels, "drawn in place"
    quad = scene.truth(0, 7)
    outside = np.full(captured.shape[:2], 255, np.uint8)
    cv2.fillConvexPoly(outside, np.rint(quad).astype(np.int32), (0,))
    outside = cv2.erode(outside, np.ones((7, 7), np.uint8))  # type: ignore[assignment]
    assert np.array_equal(pixels[outside > 0], before[outside > 0])
    inner = np.rint(quad.mean(axis=0)).astype(int)
    assert (pixels[inner[1] - 20 : inner[1] + 20, inner[0] - 20 : inner[0] + 20] == 255).all()


def test_the_translation_itself_on_the_captured_picture() -> None:
    captured = FACING.frame(0)
    captured.flags.writeable = False
    translated = quadrants(*SIZE)
    kept = translated.copy()
    pixels = drawn(OnMarker(7, over="captured", fit="fit"), captured, translated)
    assert np.array_equal(pixels[:100], captured[:100])
    assert np.array_equal(translated, kept), "the translation is left as it is"
    side = np.linalg.norm(np.diff(FACING.truth(0, 7)[:2], axis=0))
    height = side * 0.75
    top, left = (int(MIDDLE[0] - height / 2), int(MIDDLE[1] - side / 2))
    small = pixels[top : top + int(height), left : left + int(side)]
    assert np.abs(np.array(corners(small)) - (RED, GREEN, BLUE, WHITE)).max() <= 6


def test_over_the_translation_the_same_picture_is_source_and_target() -> None:
    pixels = drawn(OnMarker(7), FACING.frame(0), quadrants(*SIZE))
    assert np.array_equal(pixels[:150], quadrants(*SIZE)[:150])
    side = np.linalg.norm(np.diff(FACING.truth(0, 7)[:2], axis=0))
    top, left = int(MIDDLE[0] - side / 2), int(MIDDLE[1] - side / 2)
    small = pixels[top : top + int(side), left : left + int(side)]
    assert np.abs(np.array(corners(small)) - (RED, GREEN, BLUE, WHITE)).max() <= 6


def test_without_the_marker_the_frame_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    grey = np.full_like(pixels, 128)
    assert np.array_equal(drawn(OnMarker(7, WHITE_PAPER), grey, pixels.copy()), pixels)
    assert np.array_equal(drawn(OnMarker(7, over="captured"), grey, pixels), grey)


def test_fine_stripes_do_not_shimmer() -> None:
    """A picture much larger than its place is averaged, not sampled."""
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    effect, context = prepared(OnMarker(7, stripes))
    pixels = effect.process(as_frame(FACING.frame(0), 0), context)
    middle = pixels[200:280, 280:360].astype(float)
    assert middle.mean() == pytest.approx(127, abs=4)
    assert middle.std() < 6


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten pictures a second, each 20 levels brighter, for 0.8 s."""
    levels = [np.full((64, 64, 3), 40 + 20 * number, np.uint8) for number in range(8)]
    return write_clip(tmp_path / "clip.mp4", levels, fps=10)


def shown(effect: OnMarker, context: Context, index: int, picture: Pixels) -> int:
    """Return which picture of `clip` frame ``index`` shows, or -1."""
    pixels = effect.process(as_frame(picture, index), context)
    level = float(pixels[MIDDLE[0] - 8 : MIDDLE[0] + 8, MIDDLE[1] - 8 : MIDDLE[1] + 8].mean())
    return round((level - 40) / 20) if level else -1


def test_a_video_plays_at_its_own_pace_and_again(clip: Path) -> None:
    found = open_effect(f"marker:7={clip}")
    assert isinstance(found, OnMarker)
    effect, context = prepared(found)
    picture = FACING.frame(0)
    numbers = [shown(effect, context, index, picture) for index in range(60)]
    effect.close()
    # 30 frames a second: each picture three times, give or take the rounding of 1/30 s.
    expected = [int(index / 30 * 10 + 1e-6) % 8 for index in range(60)]
    assert numbers == expected
    assert not [item for item in threading.enumerate() if "on a marker" in item.name]


def test_a_video_goes_on_while_its_marker_is_hidden(clip: Path) -> None:
    effect, context = prepared(OnMarker(7, clip))
    picture, empty = FACING.frame(0), np.full_like(FACING.frame(0), 128)
    assert shown(effect, context, 0, picture) == 0
    for index in range(1, 15):
        shown(effect, context, index, empty)
    assert shown(effect, context, 15, picture) == 5
    effect.close()


def test_a_live_run_does_not_wait_and_time_that_goes_back_is_no_matter(clip: Path) -> None:
    playing = Playing(VideoSource(clip))
    playing.start(wait=False)
    try:
        first = None
        for _ in range(2000):
            first = playing.at(5_000_000_000)
            if first is not None:
                break
            threading.Event().wait(0.005)
        assert first is not None
        assert playing.at(1_000_000_000) is first
    finally:
        playing.close()
        playing.close()


def test_of_a_live_source_the_newest_picture_counts() -> None:
    playing = Playing(SyntheticSource((320, 240), 100))
    playing.start(wait=True)
    try:
        seen = []
        for _ in range(3):
            picture = playing.at(0)
            assert picture is not None
            code = read_code(picture)
            assert code is not None
            seen.append(code[0])
            threading.Event().wait(0.15)
        assert seen[0] < seen[1] < seen[2]
        assert seen[2] - seen[1] > 2, "those in between were passed over"
    finally:
        playing.close()


def test_a_still_picture_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3):
        write_picture(tmp_path / "many" / f"{number}.png", WHITE_PAPER // 4 * number)
    write_picture(tmp_path / "one.png", quadrants(40, 40))
    found = drawn(OnMarker(7, tmp_path / "one.png"), FACING.frame(0))
    assert found[MIDDLE[0] - 30, MIDDLE[1] - 30].tolist() == list(RED)
    effect, context = prepared(OnMarker(7, tmp_path / "many"))
    levels = {
        int(effect.process(as_frame(FACING.frame(0), index), context)[MIDDLE][0])
        for index in range(8)
    }
    effect.close()
    assert levels == {0, 63, 126}


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file: .*poster\.mp4"):
        open_effect(f"marker:7={tmp_path / 'poster.mp4'}")
    with pytest.raises(SourceError, match=r"no such file: .*poster\.png"):
        open_effect(f"marker:7={tmp_path / 'poster.png'}")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"broken\.png is no picture that can be read"):
        open_effect(f"marker:7={tmp_path / 'broken.png'}")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    broken = open_effect(f"marker:7={tmp_path / 'broken.mp4'}")
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        broken.prepare(SIZE, Context())
    broken.close()
    with pytest.raises(SettingsError, match=r"a picture is uint8 \(H, W, 3\), found float64"):
        OnMarker(7, np.zeros((4, 4, 3)))  # type: ignore[arg-type]


class Failing(Source):
    """Shows one picture, then the cable is out."""

    name = "failing"

    def open(self, size: tuple[int, int] | None, *, realtime: bool) -> SourceInfo:
        self.reads = 0
        return SourceInfo((32, 32), 30.0)

    def read(self, frame: OneFrame) -> bool:
        self.reads += 1
        if self.reads > 1:
            raise SourceError("the cable is out")
        frame.pixels[:], frame.pts_ns = 200, 0
        return True

    def close(self) -> None: ...


def test_a_source_that_fails_is_said() -> None:
    effect, context = prepared(OnMarker(7, Failing()))
    frame = as_frame(FACING.frame(0), 0)
    with pytest.raises(SourceError, match="the cable is out"):
        effect.process(frame, context)
    effect.close()


def test_in_a_pipeline_the_same_frames_give_the_same_pictures(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(6):
        write_picture(tmp_path / "in" / f"{index}.png", FACING.frame(index))
    runs: list[list[Pixels]] = []
    for _ in range(2):
        seen: list[Pixels] = []

        def keep(frame: Frame, seen: list[Pixels] = seen) -> None:
            seen.append(frame.pixels.copy())

        Pipeline(
            tmp_path / "in",
            open_engine(None, backend="identity"),
            [keep],
            mode="every",
            effects=[f"marker:7={clip};scale=1.5"],
        ).run()
        runs.append(seen)
    assert len(runs[0]) == 6
    assert np.array_equal(runs[0], runs[1])
    for index, path in enumerate(list_pictures(tmp_path / "in")):
        middle = runs[0][index][220:260, 300:340]
        assert abs(middle.mean() - (40 + 20 * int(index / 25 * 10 + 1e-6))) < 4, path.name
        assert np.array_equal(runs[0][index][:100], read_picture(path)[:100])
