"""Markers on rendered video: where they are, for how long they are held, and their pose."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rendered import (
    FOUR,
    FPS,
    SIZE,
    Pose,
    Printed,
    Scene,
    as_frame,
    by_hand,
    camera_matrix,
    still,
)

from engines import EffectError, Pixels, SettingsError
from realtime import Frame
from realtime.effects import Context, Effect, open_effect
from realtime.effects.calibration import Calibration
from realtime.effects.chain import Chain
from realtime.effects.inside_markers import InsideMarkers, between
from realtime.effects.marker_tracker import Marker, Tracker
from realtime.effects.markers import DICTIONARIES, Markers
from realtime.effects.on_marker import OnMarker

CAMERA = Calibration(camera_matrix(), np.zeros(5), SIZE)
HAND = Scene()


@cache
def by_hand_frames(count: int = 45) -> list[Pixels]:
    return [HAND.frame(index) for index in range(count)]


@cache
def four_markers(extra: int | None = None) -> Pixels:
    markers = (*FOUR, Printed(extra, (0.0, 0.0), 0.03)) if extra is not None else FOUR
    return Scene(markers, motion=still, steps=1).frame(0)


def prepared(effect: Effect | str, context: Context | None = None) -> tuple[Effect, Context]:
    found, context = open_effect(effect), context or Context(size=SIZE)
    found.prepare(SIZE, context)
    return found, context


def tracker_of(context: Context, dictionary: str = "4x4_50") -> Tracker:
    found = context.values[f"markers {dictionary}"]
    assert isinstance(found, Tracker)
    return found


def errors(marker: Marker, truth: Any) -> Any:
    return np.linalg.norm(marker.corners - truth, axis=1)


def test_corners_in_motion_are_within_a_pixel() -> None:
    markers, context = prepared(Markers())
    found = []
    for index, picture in enumerate(by_hand_frames()):
        frame = as_frame(picture, index)
        assert markers.process(frame, context) is frame.pixels
        marker = context.markers[7]
        assert marker.seen_ms_ago == 0, f"lost in frame {index}"
        assert marker.corners.dtype == np.float32
        assert marker.rotation is None, "without calibration there is no pose"
        found.append(errors(marker, HAND.truth(index, 7)))
    assert np.percentile(found, 95) <= 1.0
    moved = [np.abs(HAND.truth(index + 1, 7) - HAND.truth(index, 7)).max() for index in range(44)]
    assert np.median(moved) > 4, "pixels a frame, or it would be no test of motion"
    assert tracker_of(context).searches < 20, "most frames are searched where the marker was"


def test_a_marker_that_is_wanted_by_number_needs_one_search() -> None:
    effect, context = prepared("marker:7")
    for index, picture in enumerate(by_hand_frames()[:12]):
        effect.process(as_frame(picture, index), context)
    assert tracker_of(context).searches == 1


@pytest.mark.parametrize("name", ["4x4_50", "7x7_1000", "april_36h11", "april_16h5", "mip_36h12"])
def test_dictionaries(name: str) -> None:
    scene = Scene(motion=still, dictionary=getattr(cv2.aruco, DICTIONARIES[name]), steps=1)
    markers, context = prepared(f"markers:dictionary={name}")
    markers.process(as_frame(scene.frame(0), 0), context)
    assert errors(context.markers[7], scene.truth(0, 7)).max() < 1.0


def test_a_lost_marker_is_held_and_released_and_found_again() -> None:
    hidden = range(3, 20)
    scene = Scene(motion=still, hidden=lambda index: index in hidden, steps=1)
    pictures = {False: scene.frame(0), True: scene.frame(3)}
    effect, context = prepared("markers:hold=300")
    for index in range(24):
        frame = replace(as_frame(pictures[index in hidden], index), pts_ns=index * 40_000_000)
        effect.process(frame, context)
        ago_ms = max(0, (index - 2) * 40) if index in hidden else 0
        if ago_ms <= 300:
            assert context.markers[7].seen_ms_ago == ago_ms
            assert errors(context.markers[7], scene.truth(0, 7)).max() < 1.0
        else:
            assert 7 not in context.markers, f"{ago_ms} ms"


def test_each_effect_holds_as_long_as_it_was_told() -> None:
    scene = Scene(motion=still, steps=1)
    context = Context(size=SIZE)
    short, _ = prepared(OnMarker(7, np.full((8, 8, 3), 255, np.uint8), hold_ms=0), context)
    long, _ = prepared(OnMarker(7, np.full((8, 8, 3), 255, np.uint8), hold_ms=200), context)
    seen, empty = scene.frame(0), np.full_like(scene.frame(0), 128)
    for index, picture in enumerate((seen, empty)):
        drawn = [
            bool(item.process(as_frame(picture, index), context).any()) for item in (short, long)
        ]
        assert drawn == [index == 0, True]


def test_detection_runs_once_a_frame() -> None:
    context = Context(size=SIZE)
    effects = [open_effect(spec) for spec in ("markers", "marker:7", "inside-markers:1,2,3,7")]
    chain = Chain(effects)
    chain.prepare(SIZE, context)
    for index, picture in enumerate(by_hand_frames()[:4]):
        chain.process(as_frame(picture, index), context)
        assert tracker_of(context).frames == index + 1
    assert not effects[0].draws


def test_other_dictionaries_are_searched_for_themselves() -> None:
    context = Context(size=SIZE)
    for spec in ("markers", "markers:dictionary=5x5_50"):
        prepared(spec, context)
    assert tracker_of(context) is not tracker_of(context, "5x5_50")


def angle(rotation: Any, truth: Pose) -> float:
    """Degrees between a found rotation and the true one; a marker's y and z point the other way."""
    turn = cv2.Rodrigues(np.array(truth.rotation))[0] @ np.diag([1.0, -1, -1])
    between = turn.T @ cv2.Rodrigues(rotation)[0]
    return float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))))


def test_pose_in_metres() -> None:
    markers, context = prepared(Markers(size_m=0.08, calibration=CAMERA))
    off_m, off_degrees = [], []
    for index, picture in enumerate(by_hand_frames()):
        markers.process(as_frame(picture, index), context)
        marker, truth = context.markers[7], HAND.pose(index)
        off_m.append(np.linalg.norm(marker.translation - np.array(truth.translation)))
        off_degrees.append(angle(marker.rotation, truth))
    assert np.percentile(off_m, 95) < 0.01, "at half a metre"
    assert np.percentile(off_degrees, 95) < 4
    assert max(off_degrees) < 12, "it does not flip over"


def test_a_pose_needs_size_and_calibration(tmp_path: Path) -> None:
    CAMERA.save(tmp_path / "cam.json")
    for words in ("size=0.08", f"calibration={tmp_path / 'cam.json'}"):
        markers, context = prepared(f"markers:{words}")
        markers.process(as_frame(by_hand_frames()[0], 0), context)
        assert context.markers[7].translation is None
    context = Context(size=SIZE)
    prepared(f"markers:calibration={tmp_path / 'cam.json'}", context)
    on_marker, _ = prepared("marker:7;size=0.16", context)
    on_marker.process(as_frame(by_hand_frames()[0], 0), context)
    distance_m = context.markers[7].translation[2]
    assert distance_m == pytest.approx(2 * HAND.pose(0).translation[2], rel=0.02), "twice as large"


def test_calibrations_of_other_sizes() -> None:
    half = CAMERA.at_size((320, 240))
    markers, context = prepared(Markers(size_m=0.08, calibration=half))
    assert markers.notes == ["markers: the calibration of 320x240 was scaled to 640x480"]
    markers.prepare(SIZE, context)
    assert len(markers.notes) == 1
    markers.process(as_frame(by_hand_frames()[0], 0), context)
    found, truth = context.markers[7].translation, HAND.pose(0).translation
    assert np.linalg.norm(found - np.array(truth)) < 0.01
    wide = Calibration(camera_matrix(), np.zeros(5), (640, 360))
    with pytest.raises(SettingsError, match="for 640x360, the frames are 640x480: another aspect"):
        prepared(Markers(calibration=wide))


def test_effects_that_contradict_each_other() -> None:
    context = Context(size=SIZE)
    prepared(OnMarker(7, size_m=0.08, calibration=CAMERA), context)
    prepared(OnMarker(8, size_m=0.05, calibration=CAMERA), context)
    with pytest.raises(SettingsError, match="different sizes for one marker"):
        prepared(OnMarker(7, size_m=0.05), context)
    other = Calibration(camera_matrix() + np.eye(3) * (1, 1, 0), np.zeros(5), SIZE)
    with pytest.raises(SettingsError, match="different calibrations"):
        prepared(Markers(calibration=other), context)


def test_of_two_equal_markers_the_one_that_was_followed() -> None:
    both = Scene((Printed(7, (-0.08, 0)), Printed(7, (0.08, 0), 0.13)), motion=still, steps=1)
    left = Scene((both.markers[0],), motion=still, steps=1)
    truth = both.pose(0).project(both.markers[0].corners_m())
    markers, context = prepared("markers")
    for index in range(3):
        markers.process(as_frame((left if index == 0 else both).frame(0), index), context)
        assert errors(context.markers[7], truth).max() < 1.5, f"frame {index}"
    markers.reset()
    markers.process(as_frame(both.frame(0), 3), context)
    assert errors(context.markers[7], truth).max() > 50, "a new one: the larger"


def test_a_marker_that_was_forgotten_leaves_no_ghost() -> None:
    markers, context = prepared("markers:hold=60000")
    context.markers[3] = mine = object()
    for index in (0, 2):
        markers.process(as_frame(by_hand_frames()[0], index), context)
        assert context.markers.keys() == {3, 7}
        markers.reset()
        if index:
            markers.prepare((320, 240), context)
        markers.process(as_frame(np.full_like(by_hand_frames()[0], 128), index + 1), context)
        assert context.markers == {3: mine}, "what others put there stays"


def test_a_marker_that_is_put_elsewhere_does_not_glide_there() -> None:
    here = Scene(motion=lambda _: Pose((-0.15, 0, 0.6)), steps=1)
    there = Scene(motion=lambda _: Pose((0.15, 0.05, 0.6)), steps=1)
    markers, context = prepared("markers")
    for index, scene in enumerate((here, here, there)):
        markers.process(as_frame(scene.frame(0), index), context)
        assert errors(context.markers[7], scene.truth(0, 7)).max() < 1.0


def test_time_that_goes_back_and_another_size_start_anew() -> None:
    markers, context = prepared("markers")
    markers.process(as_frame(by_hand_frames()[30], 30), context)
    markers.process(replace(as_frame(by_hand_frames()[0], 31), pts_ns=0), context)
    assert errors(context.markers[7], HAND.truth(0, 7)).max() < 1.0
    small = cv2.resize(by_hand_frames()[0], (320, 240), interpolation=cv2.INTER_AREA)
    markers.prepare((320, 240), context)
    assert not context.markers
    markers.process(Frame(np.zeros_like(small), small, index=32), context)
    truth = (HAND.truth(0, 7) + 0.5) / 2 - 0.5
    assert errors(context.markers[7], truth).max() < 1.0


def test_large_frames_are_searched_smaller_and_looked_at_closely() -> None:
    large = (1920, 1440)
    scene = Scene(motion=still, size=large, steps=1)
    markers, context = open_effect("markers"), Context()
    markers.prepare(large, context)
    markers.process(as_frame(scene.frame(0), 0), context)
    assert errors(context.markers[7], scene.truth(0, 7)).max() < 1.0


def test_frames_without_a_number_are_each_looked_at() -> None:
    markers, context = prepared("markers")
    for picture in (by_hand_frames()[0], by_hand_frames()[20]):
        markers.process(Frame(np.zeros_like(picture), picture), context)
    assert tracker_of(context).frames == 2


def test_noise_is_no_marker() -> None:
    markers, context = prepared("markers")
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    for index in range(3):
        markers.process(as_frame(noise, index), context)
    assert not context.markers


def inner_truth() -> Any:
    scene = Scene(FOUR, motion=still, steps=1)
    return np.array([scene.truth(0, 1 + n)[(n + 2) % 4] for n in range(4)], np.float32)


def white_inside(words: str, picture: Pixels) -> Any:
    """Return uint8 (H, W): where the translation (white) is shown over the captured (black)."""
    effect, context = prepared(f"inside-markers:{words}")
    frame = as_frame(picture, 0, pixels=np.full_like(picture, 255))
    frame.source = picture // 2
    mask = effect.process(frame, context)
    assert context.mask is not None
    return np.where(mask[..., 0] > 200, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("ids", ["1,2,3,4", "3,1,4,2", "4, 3, 2, 1"])
@pytest.mark.parametrize("extra", [None, 9])
def test_the_filter_is_between_the_four(ids: str, extra: int | None) -> None:
    found = white_inside(f"{ids};feather=0", four_markers(extra)) > 0
    truth = np.zeros(found.shape, np.uint8)
    cv2.fillConvexPoly(truth, np.rint(inner_truth()).astype(np.int32), (1,))
    assert (found & (truth > 0)).sum() / (found | (truth > 0)).sum() > 0.98


def test_inverted_and_at_other_corners() -> None:
    picture = four_markers()
    areas = {
        place: (white_inside(f"1,2,3,4;feather=0;at={place}", picture) > 0).sum()
        for place in ("inner", "centre", "outer")
    }
    assert areas["inner"] < 0.75 * areas["centre"]
    assert areas["centre"] < 0.75 * areas["outer"]
    inside = white_inside("1,2,3,4;feather=0", picture) > 0
    outside = white_inside("1,2,3,4;feather=0;invert", picture) > 0
    assert not (inside & outside).any()
    assert (inside | outside).mean() > 0.99


def test_while_one_is_missing_there_is_nothing() -> None:
    assert not white_inside("1,2,3,5", four_markers()).any()


def test_between_goes_around_the_middle() -> None:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    centres = ((10, 0), (0, 10), (0, 0), (10, 10))
    markers = [Marker(n, square + np.array(at, np.float32)) for n, at in enumerate(centres)]
    assert between(markers, "inner").tolist() == [[1, 1], [9, 1], [9, 9], [1, 9]]
    assert between(markers, "outer").tolist() == [[-1, -1], [11, -1], [11, 11], [-1, 11]]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("inside-markers:1,2,3,4,5", "takes four different markers, .* found 5: 1, 2, 3, 4, 5"),
        ("inside-markers:1,2,3", "takes four different markers, .* found 3"),
        ("inside-markers:1,2,3,3", "takes four different markers, .* found 4: 1, 2, 3, 3"),
        ("inside-markers:", "takes four different markers, .* found 0"),
        ("inside-markers:1,2,3,x", "a marker is a whole number from 0, found 'x'"),
        ("inside-markers:1,2,3,99", "4x4_50 has the markers 0 to 49, found 99"),
        ("inside-markers:1,2,3,4;at=middle", "at is one of inner, centre, outer, found 'middle'"),
        ("inside-markers:1,2,3,4;feather=-1", "feather must be 0 to 200"),
        ("inside-markers:1,2,3,4;blue", "does not know 'blue'"),
        ("marker:", "a marker is a whole number from 0, found ''"),
        ("marker:x", "a marker is a whole number from 0, found 'x'"),
        ("marker:-1", "a marker is a whole number"),
        ("marker:50", "4x4_50 has the markers 0 to 49, found 50"),
        ("marker:7;dictionary=9x9", "no marker dictionary '9x9'; there are: 4x4_50, "),
        ("marker:7;size=-1", "size is a marker's side in metres"),
        ("marker:7;size=wide", "size must be a number, found 'wide'"),
        ("marker:7;hold=-5", "hold is 0 to 60000 ms, found -5"),
        ("marker:7;hold=nan", "hold is 0 to 60000 ms, found nan"),
        ("marker:7;scale=0", "scale is a number up to 100, found 0"),
        ("marker:7;fit=wide", "fit is one of fill, fit, found 'wide'"),
        ("marker:7;over=all", "over is one of translated, captured, found 'all'"),
        ("marker:7;calibration=none.json", "cannot read the calibration none.json"),
        ("markers:7", "markers does not know '7'"),
    ],
)
def test_words_that_do_not_fit(spec: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        open_effect(spec)
    assert "\n" not in str(caught.value)


def test_words_that_fit(tmp_path: Path) -> None:
    CAMERA.save(tmp_path / "cam.json")
    found = open_effect(
        "marker:7=translated;dictionary=APRILTAG-36h11;size=0.08;scale=1.5;hold=500;fit=fit;"
        f"over=captured;calibration={tmp_path / 'cam.json'}"
    )
    assert isinstance(found, OnMarker)
    assert (found.id, found.scale, found.fit, found.over) == (7, 1.5, "fit", "captured")
    options = found.options
    assert (options.dictionary_name, options.size_m) == ("april_36h11", 0.08)
    assert (options.hold_ms, options.calibration) == (500, CAMERA)
    inside = open_effect("inside-markers:1,2,3,4;feather=5;invert;at=outer;hold=100")
    assert isinstance(inside, InsideMarkers)
    assert (inside.feather_px, inside.invert, inside.place) == (5, True, "outer")
    assert inside.options.hold_ms == 100


def test_an_effect_that_was_not_prepared_says_so() -> None:
    with pytest.raises(EffectError, match="markers was not prepared"):
        Markers().process(as_frame(four_markers(), 0), Context())


def test_the_hand_is_a_real_test() -> None:
    speeds = [
        np.linalg.norm(HAND.truth(n + 1, 7) - HAND.truth(n, 7), axis=1).max() * FPS
        for n in range(60)
    ]
    assert max(speeds) > 250
    tilts = [np.linalg.norm(by_hand(n / FPS).rotation[:2]) for n in range(60)]
    assert max(tilts) > np.radians(30)
