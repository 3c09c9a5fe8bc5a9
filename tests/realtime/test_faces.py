"""Faces: found on real clips, followed in between, held, smoothed, and never a thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import EffectError, Pixels, SettingsError
from realtime import Frame
from realtime.effects import Context, open_effect
from realtime.effects.faces import Face, FaceMask, Track, follow

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
MODEL = SHARED / "segmentation" / "yunet_s_dynamic.onnx"
CLIP = SHARED / "video" / "webcam" / "walk.mkv"
SIZE = (320, 240)
FPS = 30

real = pytest.mark.skipif(
    not (MODEL.is_file() and CLIP.is_file()),
    reason="shared/assets (YuNet and the webcam clips) are not here",
)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@cache
def clip() -> list[Pixels]:
    """Return the first pictures of a person who waves."""
    capture, pictures = cv2.VideoCapture(str(CLIP)), []
    while len(pictures) < 24:
        picture = cv2.resize(capture.read()[1], SIZE, interpolation=cv2.INTER_AREA)
        picture.flags.writeable = False
        pictures.append(picture)
    capture.release()
    return pictures  # type: ignore[return-value]


def play(
    item: FaceMask, pictures: list[Pixels], context: Context, first: int = 0
) -> list[tuple[list[Face], Pixels, Pixels]]:
    """Return (faces, mask, shown) of each picture; the translation is its negative."""
    made = []
    for number, picture in enumerate(pictures, first):
        frame = Frame(cv2.bitwise_not(picture), picture, number, pts_ns=number * 10**9 // FPS)  # type: ignore[arg-type]
        shown = item.process(frame, context).copy()
        assert context.mask is not None
        made.append((context.faces, context.mask.copy(), shown))
    return made


def opened(context: Context, **settings: float | str | bool) -> FaceMask:
    item = FaceMask(MODEL, width_px=160, **settings)  # type: ignore[arg-type]
    item.prepare(SIZE, context)
    return item


def overlap(one: Face, other: Face) -> float:
    left, top = np.maximum(one.box[:2], other.box[:2])
    right = min(one.box[0] + one.box[2], other.box[0] + other.box[2])
    bottom = min(one.box[1] + one.box[3], other.box[1] + other.box[3])
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / (one.box[2] * one.box[3] + other.box[2] * other.box[3] - shared)


def detected(picture: Pixels) -> Face:
    """What the detector itself says, at full size."""
    net = cv2.FaceDetectorYN.create(str(MODEL), "", SIZE, 0.7)
    row = net.detect(picture)[1][0]
    return Face(tuple(row[:4]), float(row[14]), row[4:14].reshape(5, 2))


@real
def test_a_recording_has_the_face_on_every_frame_in_pixels_of_the_frame() -> None:
    context = Context(live=False, fps=FPS)
    item = opened(context, feather_px=0)
    assert not any("face detector" in thread.name for thread in threading.enumerate())
    made = play(item, clip(), context)
    item.close()
    for number, (faces, mask, shown) in enumerate(made):
        assert len(faces) == 1
        face, picture = faces[0], clip()[number]
        assert overlap(face, detected(picture)) > 0.7
        left, top, width, height = face.box
        inside = [left < x < left + width and top < y < top + height for x, y in face.landmarks]
        assert all(inside)
        assert face.landmarks.shape == (5, 2)
        assert 0.7 <= face.score <= 1
        for x, y in face.landmarks.round().astype(int):
            assert mask[y, x] == 255
        assert (shown[mask == 255] == 255 - picture[mask == 255]).all()
        assert (shown[mask == 0] == picture[mask == 0]).all()
        area = np.pi / 4 * width * height * 1.5**2
        assert abs(np.count_nonzero(mask) / area - 1) < 0.05, "an ellipse with its margin"


@real
def test_a_recording_comes_out_the_same_twice_and_after_reset() -> None:
    context = Context(live=False, fps=FPS)
    item = opened(context)
    first = play(item, clip()[:8], context)
    item.reset()
    second = play(item, clip()[:8], context)
    item.close()
    for one, other in zip(first, second):
        assert (one[1] == other[1]).all()
        assert one[0][0].box == other[0][0].box


@real
def test_boxes_tremble_less_than_the_detector() -> None:
    def trembling(smooth_ms: float) -> float:
        context = Context(live=False, fps=FPS)
        item = opened(context, smooth_ms=smooth_ms)
        boxes = [faces[0].box for faces, _, _ in play(item, clip(), context)]
        item.close()
        return float(np.abs(np.diff(boxes, 2, axis=0)).mean())

    assert trembling(150) < 0.7 * trembling(0)


@real
def test_a_face_that_goes_is_held_for_the_stated_time() -> None:
    empty = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for hold_ms, frames in ((200, 6), (0, 0)):
        context = Context(live=False, fps=FPS)
        item = opened(context, hold_ms=hold_ms)
        assert play(item, clip()[:5], context)[-1][0]
        gone = play(item, [empty] * 12, context, 5)
        item.close()
        # Missed first on frame 5; frame 11 is 200 ms later.
        assert [len(faces) for faces, _, _ in gone] == [1] * frames + [0] * (12 - frames)
        assert [bool(mask.any()) for _, mask, _ in gone] == [bool(faces) for faces, _, _ in gone]
        assert (gone[-1][2] == empty).all()


@real
def test_a_face_that_was_seen_once_is_not_held() -> None:
    context = Context(live=False, fps=FPS)
    item = opened(context, hold_ms=1000)
    empty = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    made = play(item, [clip()[0], empty], context)
    item.close()
    assert [len(faces) for faces, _, _ in made] == [1, 0]


@real
def test_live_the_face_is_found_in_a_thread_and_followed_between() -> None:
    context = Context(live=True, fps=FPS)
    item = opened(context, most_hz=0.02)
    assert any("face detector" in thread.name for thread in threading.enumerate())
    deadline_s = time.monotonic() + 60
    while not play(item, clip()[:1], context)[0][0]:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    # The next detection would come after 50 s: all this is following, while the camera pans.
    wide = [cv2.copyMakeBorder(picture, 0, 0, 80, 80, cv2.BORDER_REPLICATE) for picture in clip()]
    panned = [np.ascontiguousarray(image[:, 80 - 3 * n :][:, :320]) for n, image in enumerate(wide)]
    assert item._worker is not None
    found = item._worker.newest()
    assert found is not None
    before = found.tracks[0].centre.copy()
    for number, (faces, _, _) in enumerate(play(item, panned, context)):
        assert len(faces) == 1
        assert overlap(faces[0], detected(panned[number])) > 0.6
    assert (found.tracks[0].centre == before).all(), "the worker's result is shared"
    assert overlap(faces[0], detected(panned[0])) < 0.3, "it has moved"
    item.reset()
    assert play(item, clip()[:3], context)[-1][0] == [], "found before the reset"
    item.close()
    item.close()


@real
def test_live_a_detection_that_comes_late_lies_where_the_face_is_now() -> None:
    """The picture moves on by 20 pixels while the first detection is under way."""
    context = Context(live=True, fps=FPS)
    item = opened(context, most_hz=0.02)
    wide = cv2.copyMakeBorder(clip()[0], 0, 0, 40, 40, cv2.BORDER_REPLICATE)
    pictures = [np.ascontiguousarray(wide[:, 40 - x : 360 - x]) for x in (0, 20)]
    play(item, [pictures[0]], context)
    worker = item._worker
    assert worker is not None
    deadline_s = time.monotonic() + 60
    while worker.newest() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    faces = play(item, [pictures[1]], context, 4)[0][0]
    item.close()
    assert overlap(faces[0], detected(pictures[1])) > 0.75
    assert overlap(faces[0], detected(pictures[0])) < 0.6


@real
def test_a_box_and_the_inverse_and_another_size() -> None:
    context = Context(live=False, fps=FPS)
    item = open_effect(f"face:{MODEL};box;margin=0;feather=0;invert;width=160")
    assert isinstance(item, FaceMask)
    for size in (SIZE, (256, 192)):
        item.prepare(size, context)
        picture = cv2.resize(clip()[0], size)
        faces, mask, _ = play(item, [picture], context)[0]  # type: ignore[list-item]
        left, top, right, bottom = (
            *np.round(faces[0].box[:2]).astype(int),
            *np.round(np.add(faces[0].box[:2], faces[0].box[2:])).astype(int),
        )
        expected = np.full(size[::-1], 255, np.uint8)
        expected[top:bottom, left:right] = 0
        assert (mask == expected).all()
    item.close()


@real
def test_another_network_is_refused_and_leaves_no_thread() -> None:
    other = SHARED / "segmentation" / "selfie_segmentation.onnx"
    item = FaceMask(other)
    with pytest.raises(EffectError, match=r"selfie_segmentation\.onnx is no YuNet"):
        item.prepare(SIZE, Context())
    item.close()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    for content in (b"", b"not a model", b"\x08\x07\x12\x07pytorch" + bytes(100)):
        broken.write_bytes(content)
        with pytest.raises(EffectError, match=r"broken\.onnx is no YuNet face detector") as caught:
            FaceMask(broken).prepare(SIZE, Context())
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"no file .*missing\.onnx"):
        FaceMask(tmp_path / "missing.onnx").prepare(SIZE, Context())


@pytest.mark.parametrize(
    "words",
    [
        "",
        "ellipse",
        "m.onnx;ellipse;box",
        "m.onnx;round",
        "m.onnx;margin=9",
        "m.onnx;score=0",
        "m.onnx;hold_ms=-1",
        "m.onnx;smooth_ms=nan",
        "m.onnx;width=8",
        "m.onnx;width=inf",
        "m.onnx;hz=0",
        "m.onnx;feather=-1",
    ],
)
def test_words_that_do_not_fit_are_refused(words: str) -> None:
    with pytest.raises(SettingsError, match="face"):
        open_effect(f"face:{words}")
    with pytest.raises(SettingsError, match="shape"):
        FaceMask("m.onnx", shape="round")


def textured(seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 256, (120, 160), np.uint8), (7, 7), 0)  # type: ignore[return-value]


def track() -> Track:
    landmarks = np.array([[70, 50], [90, 50], [80, 60], [72, 70], [88, 70]], np.float32)
    return Track(np.array([80, 60], np.float32), np.array([40, 48], np.float32), landmarks, 0.9)


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_a_face_is_followed_through_shift_and_growth(scale: float) -> None:
    before, item, start = textured(1), track(), track()
    # About the centre of the face, then by (7, -4).
    matrix = np.array([[scale, 0, 80 - 80 * scale + 7], [0, scale, 60 - 60 * scale - 4]])
    after = cv2.warpAffine(before, matrix, (160, 120), borderMode=cv2.BORDER_REFLECT)
    follow([item], before, after)  # type: ignore[arg-type]
    assert not item.adrift
    assert np.abs(item.centre - (87, 56)).max() < 0.5
    assert np.abs(item.size / start.size - scale).max() < 0.02
    there = (start.landmarks - start.centre) * scale + (87, 56)
    assert np.abs(item.landmarks - there).max() < 0.7


def test_a_face_whose_points_are_lost_stays_and_does_not_hold_up_the_others() -> None:
    before, after = textured(1), textured(2)
    lost, kept = track(), track()
    lost.centre[:], kept.centre[:] = (35, 60), (120, 60)
    after[:, 80:] = np.roll(before, 3, axis=1)[:, 80:]
    follow([lost, kept], before, after)
    assert lost.adrift
    assert tuple(lost.centre) == (35, 60)
    assert not kept.adrift
    assert np.abs(kept.centre - (123, 60)).max() < 0.5


def test_masks_of_faces_that_reach_out_of_the_picture_are_cut_off() -> None:
    for shape in ("box", "ellipse"):
        item = FaceMask("m.onnx", shape=shape, margin=0)
        item._mask = np.zeros((60, 80), np.uint8)
        places = [(-10.0, -20.0), (70.0, 50.0), (-200.0, 10.0), (30.0, 300.0), (20.0, 20.0)]
        seen = [
            item._draw([Face((x, y, 30, 30), 1, np.zeros((5, 2), np.float32))]).copy()
            for x, y in places
        ]
        assert not seen[2].any()
        assert not seen[3].any()
        assert np.count_nonzero(seen[0]) <= 20 * 10
        assert np.count_nonzero(seen[1]) <= 10 * 10
        assert np.count_nonzero(seen[4]) in (
            range(900, 901) if shape == "box" else range(690, 725)  # pi / 4 * 900 is 707
        )
        middle = seen[4][20:50, 20:50]
        assert (middle == middle[::-1]).all()
        assert (middle == middle[:, ::-1]).all()
