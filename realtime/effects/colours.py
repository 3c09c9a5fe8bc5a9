"""Colours in words: one way to write them for all effects."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engines import SettingsError

RGB = tuple[int, int, int]


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
