"""The colour key: what is keyed, what is not, and the spill."""

from __future__ import annotations

import numpy as np
import pytest
from masking import CONTEXT, noise, prepared, run

from engines import Pixels
from realtime.effects.colour_key import ColourKey
from realtime.effects.colours import KEY_COLOURS

SKIN, GREY, SCREEN = (120, 150, 200), (90, 90, 90), (70, 170, 60)
"""BGR; the screen is a real one, far less green than green."""


def patches(*colours: tuple[int, int, int]) -> Pixels:
    picture = np.empty((96, 128, 3), np.uint8)
    for number, colour in enumerate(colours):
        picture[:, number * 128 // len(colours) : (number + 1) * 128 // len(colours)] = colour
    return picture


@pytest.mark.parametrize("spec", ["key:green", "key", "key:#3caa46", "key:#3CAA46;spill=0"])
def test_a_key_shows_the_translation_on_the_screen_and_the_person_as_captured(spec: str) -> None:
    source, translated = patches(SCREEN, SKIN, SCREEN, GREY), noise(2)
    shown = run(prepared(spec), source, translated)
    for start, stop in ((4, 28), (68, 92)):
        assert (shown[:, start:stop] == translated[:, start:stop]).all()
    assert (shown[:, 36:60] == SKIN).all()
    assert (shown[:, 100:] == GREY).all()


def test_a_shadow_on_the_screen_is_screen_where_the_key_is_its_own_colour() -> None:
    shadow = (35, 85, 30)
    translated = noise(2)
    shown = run(prepared("key:#3caa46"), patches(SCREEN, shadow), translated)
    assert (shown == translated).all()


def test_an_inverted_key_translates_the_person() -> None:
    source, translated = patches(SCREEN, SKIN), patches(GREY, (200, 100, 220))
    shown = run(prepared("key:green;invert"), source, translated)
    assert (shown[:, 4:60] == SCREEN).all()
    assert (shown[:, 68:] == (200, 100, 220)).all()


@pytest.mark.parametrize("name", KEY_COLOURS)
def test_every_named_colour_is_keyed_and_its_opposite_is_not(name: str) -> None:
    red, green, blue = KEY_COLOURS[name]
    shown = run(
        prepared(f"key:{name}"),
        patches((blue, green, red), (255 - blue, 255 - green, 255 - red)),
        patches(GREY, GREY),
    )
    assert (shown[:, 4:60] == GREY).all()
    assert (shown[:, 68:] == (255 - blue, 255 - green, 255 - red)).all()


def luma(pixel: Pixels) -> float:
    return float(pixel @ np.array([0.114, 0.587, 0.299]))


def test_spill_is_removed_from_the_picture_beside_the_key() -> None:
    tinted = (100, 130, 100)  # grey hair with green light on it
    key = "key:#3caa46;tolerance=0.3"
    source = patches(SCREEN, tinted, SKIN)
    shown = run(prepared(key), source, noise(2))
    hair = shown[48, 64]
    assert hair.max() - hair.min() <= 4, "grey again"
    assert abs(luma(hair) - luma(np.array(tinted))) < 2, "as bright as before"
    assert (shown[:, 90:] == SKIN).all(), "what has nothing of the key's hue stays as it is"
    yellow = (60, 180, 190)  # 60 degrees away
    shown = run(prepared(key), patches(SCREEN, yellow), noise(2))[48, 96]
    assert np.abs(shown.astype(int) - yellow).max() <= 6
    half = run(prepared(key + ";spill=0.5"), source, noise(2))[48, 64]
    assert hair[1] + 5 < half[1] < 130 - 5
    assert (run(prepared(key + ";spill=0"), source, noise(2))[48, 64] == tinted).all()
    inverted = run(prepared(key + ";invert"), source, patches(GREY, tinted, SKIN))
    assert (inverted[48, 64] == hair).all(), "of the translation, where that is shown"
    assert (inverted[:, 4:38] == SCREEN).all()


def test_a_key_is_soft_between_tolerance_and_outer() -> None:
    """From green to grey, the matte falls from 255 to 0 between the two."""
    part = np.linspace(0, 1, 128)[None, :, None]
    source = np.rint((1 - part) * (0, 255, 0) + part * (150, 150, 150))
    source = np.repeat(source, 96, axis=0).astype(np.uint8)
    item = prepared(ColourKey("#00ff00", tolerance=0.4, outer=0.6, feather_px=0))
    run(item, source, noise(2))
    assert CONTEXT.mask is not None
    matte = CONTEXT.mask[0].astype(int)
    assert (np.diff(matte) <= 0).all()
    assert (matte[part[0, :, 0] < 0.38] == 255).all()
    assert (matte[part[0, :, 0] > 0.62] == 0).all()
    assert abs(matte[round(0.5 * 127)] - 128) < 20
