"""Colours in words: one way to write them for all effects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from engines import SettingsError

RGB = tuple[int, int, int]

_ALWAYS: Final[dict[str, RGB]] = {
    "red": (255, 0, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "yellow": (255, 255, 0),
}
TEXT_COLOURS: Final[dict[str, RGB]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    **_ALWAYS,
}
"""What a text's colour may be called, as (R, G, B)."""
KEY_COLOURS: Final[dict[str, RGB]] = {"green": (0, 200, 48), "blue": (0, 40, 220), **_ALWAYS}
"""What a colour key may be called, as (R, G, B); green and blue lie between the paint of real
screens and the pure colour, so that the default tolerance takes both."""


def read_rgb(word: str, names: Mapping[str, RGB], effect: str) -> RGB:
    """Return (red, green, blue), 0 to 255 each, of a name or ``#rrggbb``.

    Args:
        word: large or small letters.
        names: what this effect calls colours: the green of a screen is not that of a letter.
        effect: whose colour it is, for the error.

    Raises:
        SettingsError: it is neither.
    """
    plain = word.strip().lower()
    if plain in names:
        return names[plain]
    if re.fullmatch(r"#[0-9a-f]{6}", plain) is None:
        known = ", ".join(names)
        raise SettingsError(f"{effect}: a colour is #rrggbb or one of {known}, found {word!r}")
    red, green, blue = bytes.fromhex(plain[1:])
    return red, green, blue
