"""Masks: mixing and feathering to the last bit, regions, and what all of them must do."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from clips import patient
from hypothesis import given
from hypothesis import strategies as st
from masking import BLANK, CONTEXT, SIZE, noise, prepared, run

from engines import Pixels, SettingsError
from realtime import Frame
from realtime.effects import Context, Effect, open_effect
from realtime.effects import mask as mask_module
from realtime.effects.chain import Chain
from realtime.effects.mask import Mask, blend, feathered
from realtime.effects.regions import Polygon, Rectangle


def hard(spec: Effect | str) -> Pixels:
    """Return the mask of a region."""
    run(prepared(spec), noise(1), noise(2))
    assert CONTEXT.mask is not None
    return CONTEXT.mask


def test_blend_is_rounded_exactly_for_every_weight_and_difference() -> None:
    weight, upper = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for lower in (0, 1, 100, 128, 255):
        inside, outside = cv2.merge([upper] * 3), np.full((256, 256, 3), lower, np.uint8)
        exact = (upper * 1.0 * weight + lower * (255.0 - weight)) / 255
        result = blend(inside, outside, weight, np.empty_like(inside))
        assert (result == result[..., :1]).all()
        assert np.abs(result[..., 0] - exact).max() <= 0.5
        assert (result[weight == 0] == lower).all()
        assert (result[weight == 255] == inside[weight == 255]).all()


@patient
@given(st.integers(0, 99), st.tuples(*[st.integers(0, 60)] * 4), st.integers(1, 2000))
def test_blend_is_right_wherever_the_mask_is(
    seed: int, place: tuple[int, int, int, int], band: int
) -> None:
    inside, outside = noise(seed, (64, 60, 3)), noise(seed + 100, (64, 60, 3))
    mask = np.zeros((64, 60), np.uint8)
    top, bottom, left, right = place
    mask[top:bottom, left:right] = noise(seed, mask[top:bottom, left:right].shape)
    exact = (inside * 1.0 * mask[..., None] + outside * (255.0 - mask[..., None])) / 255
    before = inside.copy(), outside.copy(), mask.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_module, "BAND_PIXELS", band)
        result = blend(inside, outside, mask, np.empty_like(inside))
        assert all((now == then).all() for now, then in zip((inside, outside, mask), before))
        assert np.abs(result - exact).max() <= 0.5
        for used in (inside.copy(), outside.copy()):  # the result may be one of the two
            pictures = (used, outside) if (used == inside).all() else (inside, used)
            assert (blend(*pictures, mask, used) == result).all()


@pytest.mark.parametrize("feather_px", [2, 5, 8, 30])
def test_feathering_a_part_is_feathering_the_whole_picture(feather_px: int) -> None:
    side = (2 * round(feather_px / 2) + 1,) * 2
    for box in ((0, 9, 0, 7), (40, 60, 50, 90), (80, 96, 100, 128), (0, 96, 0, 128), (5, 5, 5, 5)):
        mask = BLANK.copy()
        mask[box[0] : box[1], box[2] : box[3]] = 255
        whole = mask
        for _ in range(2):
            whole = cv2.blur(whole, side, borderType=cv2.BORDER_REPLICATE)
        before = mask.copy()
        assert (feathered(mask, feather_px) == whole).all()
        assert (mask == before).all()


@patient
@given(st.integers(0, 99), st.floats(0, 40))
def test_feathering_is_symmetrical(seed: int, feather_px: float) -> None:
    mask = (cv2.resize(noise(seed, (6, 6)), (48, 48)) > 128).astype(np.uint8) * np.uint8(255)
    soft = feathered(mask, feather_px)
    turned: list[Callable[[Pixels], Pixels]] = [np.flipud, np.fliplr, np.transpose]
    for turn in turned:
        same = feathered(np.ascontiguousarray(turn(mask)), feather_px)
        assert (same == turn(soft)).all()
    assert (feathered(~mask, feather_px) == ~soft).all()


def test_a_feathered_edge_is_as_wide_as_asked_and_whole_at_the_border() -> None:
    for feather_px in (4, 8, 16, 32):
        mask = np.zeros((20, 200), np.uint8)
        mask[:, 100:] = 255
        soft = feathered(mask, feather_px)
        assert (soft == soft[:1]).all(), "nothing fades at the borders that it touches"
        ramp = soft[0].astype(int)
        assert (np.diff(ramp) >= 0).all()
        assert abs(ramp[99] + ramp[100] - 255) <= 1
        half = feather_px // 2
        assert ramp[99 - half] < 0.15 * 255
        assert ramp[100 + half] > 0.85 * 255
        assert (ramp[: 100 - feather_px] == 0).all()
        assert (ramp[100 + feather_px :] == 255).all()
    assert (feathered(~BLANK, 8) == 255).all()
    assert feathered(mask, 0) is mask


@pytest.mark.parametrize("value", [-1, 201, float("nan")])
def test_a_feather_must_be_a_width(value: float) -> None:
    with pytest.raises(SettingsError, match="feather"):
        Rectangle(0, 0, 1, 1, feather_px=value)


def test_a_rectangle_is_exact_in_pixels_and_in_shares() -> None:
    expected = BLANK.copy()
    expected[20:50, 10:110] = 255
    assert (hard("rectangle:10,20,100,30;feather=0") == expected).all()
    assert (hard("rectangle:10,20,100,30;feather=0;invert") == ~expected).all()
    assert (hard(Rectangle(10 / 128, 20 / 96, 100 / 128, 30 / 96, feather_px=0)) == expected).all()
    assert (hard("rectangle:0,0,1,1;feather=0") == 255).all()
    assert (hard("rectangle:0,0,128,96") == 255).all(), "feathered, it stays whole at the borders"
    assert (hard("rectangle:0.3,0.3,0.7,0.7;feather=0")[29:, 38:] == 255).all()
    soft = hard("rectangle:10,20,100,30;feather=6")
    assert (soft == feathered(expected, 6)).all()


def test_a_region_shows_the_translation_inside_and_leaves_the_source_alone() -> None:
    source, translated = noise(1), noise(2)
    kept = source.copy()
    for invert in (False, True):
        item = prepared(Rectangle(10, 20, 100, 30, feather_px=8, invert=invert))
        for _ in range(2):  # the second frame uses what was kept from the first
            shown = run(item, source, translated)
            mask = CONTEXT.mask
            assert mask is not None
            assert (shown[mask == 255] == translated[mask == 255]).all()
            assert (shown[mask == 0] == kept[mask == 0]).all()
            assert mask[35, 60] == (0 if invert else 255)
            assert mask[90, 5] == (255 if invert else 0)
            assert ((mask > 0) & (mask < 255)).any()
    assert (source == kept).all()


def test_two_masks_show_the_translation_where_both_do() -> None:
    chain = Chain([open_effect("rectangle:0,0,64,96"), open_effect("rectangle:0,0,128,48;invert")])
    source, translated = noise(1), noise(2)
    frame = Frame(translated.copy(), source)
    chain.prepare(SIZE, Context())
    assert chain.apply(frame, Context())
    assert (frame.pixels[60:, :50] == translated[60:, :50]).all()
    assert (frame.pixels[:36] == source[:36]).all()
    assert (frame.pixels[:, 76:] == source[:, 76:]).all()


def test_a_polygon_covers_the_pixels_whose_middle_is_inside() -> None:
    same = hard("rectangle:10,20,100,30;feather=0")
    assert (hard("polygon:10,20,110,20,110,50,10,50;feather=0") == same).all()
    assert (hard("polygon:10,50,110,50,110,20,10,20;feather=0") == same).all(), "either way round"
    corners = [(3.2, 5.7), (120.5, 30.1), (40.9, 90.3)]
    y, x = np.mgrid[:96, :128] + 0.5
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]])
    ]
    assert ((hard(Polygon(corners, feather_px=0)) == 255) == np.all(sides, axis=0)).all()
    shares = [(px / 128, py / 96) for px, py in corners]
    assert ((hard(Polygon(shares, feather_px=0)) == 255) == np.all(sides, axis=0)).all()
    bow_tie = hard("polygon:0,0,1,1,1,0,0,1;feather=0")
    assert [bow_tie[48, 10], bow_tie[48, 118], bow_tie[10, 64], bow_tie[85, 64]] == [255, 255, 0, 0]
    star = Polygon([(64 + 45 * np.sin(a), 48 - 45 * np.cos(a)) for a in np.arange(5) * 0.8 * np.pi])
    assert hard(star)[48, 64] == 0, "crossed twice is outside"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rectangle:0,0,129,96", r"larger than the picture.*inside|128x96"),
        ("rectangle:10,10,200,100", "larger than the picture"),
        ("rectangle:-5,0,50,50", "out of the picture, 5 px left of it; it must lie inside"),
        ("rectangle:-5,50,50,50", "5 px left of it and 4 px below it"),
        ("rectangle:100,-2,50,50", "2 px above it and 22 px right of it"),
        ("rectangle:0.5,0,0.6,1", "12.8 px right of it"),
        ("rectangle:128,0,20,20", "outside of the picture"),
        ("rectangle:0,200,20,20", "outside of the picture"),
        ("rectangle:-50,0,20,20", "outside of the picture"),
        ("rectangle:10.1,10.1,0.2,20", "covers no pixel"),
        ("polygon:0,0,300,0,0,50", "larger than the picture"),
        ("polygon:200,0,300,0,200,50", "outside of the picture"),
        ("polygon:5,5,50,5,90,5", "covers no pixel"),
    ],
)
def test_a_region_that_does_not_fit_the_picture_is_refused(spec: str, said: str) -> None:
    item = open_effect(spec)
    with pytest.raises(SettingsError, match=said):
        item.prepare(SIZE, Context())


@pytest.mark.parametrize(
    "spec",
    [
        "rectangle",
        "rectangle:1,2,3",
        "rectangle:1,2,3,x",
        "rectangle:1,2,0,4",
        "rectangle:1,2,nan,4",
        "rectangle:nan,2,3,4",
        "rectangle:0,0,9,9;what",
        "rectangle:0,0,9,9;feather=wide",
        "polygon",
        "polygon:1,2,3,4",
        "polygon:1,2,3,4,5",
        "polygon:1,2,3,4,5,6,7",
        "polygon:1,2,3,4,5,inf",
        "key:mauve",
        "key:#12345",
        "key:#808080",
        "key:#000000",
        "key:green;tolerance=-1",
        "key:green;tolerance=0.9;outer=0.5",
        "key:green;spill=2",
        "key:green;spill=nan",
        "motion:learn_s=0",
        "motion:hold_ms=-1",
        "motion:threshold=nan",
        "motion:fast",
    ],
)
def test_words_that_do_not_fit_are_refused(spec: str) -> None:
    with pytest.raises(SettingsError):
        open_effect(spec)


def test_a_region_in_pixels_is_scaled_with_the_working_size() -> None:
    item = open_effect("rectangle:10,20,100,30;feather=0")
    assert isinstance(item, Mask)
    for size, box in ((SIZE, (10, 20, 100, 30)), ((64, 48), (5, 10, 50, 15)), (SIZE, None)):
        item.prepare(size, CONTEXT)
        blank = np.zeros((size[1], size[0], 3), np.uint8)
        item.process(Frame(blank.copy(), blank), CONTEXT)
        assert CONTEXT.mask is not None
        assert CONTEXT.mask.shape == size[::-1]
        assert cv2.boundingRect(CONTEXT.mask) == (box or (10, 20, 100, 30))
        assert np.count_nonzero(CONTEXT.mask) == (750 if size == (64, 48) else 3000)


@pytest.mark.parametrize("spec", ["key:green", "key:blue;invert", "motion", "polygon:0,0,1,0,1,1"])
def test_no_mask_changes_the_source(spec: str) -> None:
    item = prepared(spec)
    source = noise(1)
    kept = source.copy()
    for number in range(3):
        frame = Frame(noise(number), source, pts_ns=number * 33_000_000)
        shown = item.process(frame, CONTEXT)
        assert shown.shape == source.shape
        assert not np.shares_memory(shown, source)
        assert (source == kept).all()
    item.close()
    item.close()
