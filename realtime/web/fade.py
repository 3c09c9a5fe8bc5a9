"""The cross-fade that a wish to switch asks for, over the WebSocket and the JSON API alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines import SettingsError
from realtime.crossfade import check_crossfade


def read_crossfade(wish: Mapping[str, Any]) -> float:
    """Return ``crossfade_ms`` of what came as JSON; 0 where it is left out.

    Raises:
        SettingsError: it is no number, or none of a cross-fade.
    """
    milliseconds = wish.get("crossfade_ms", 0)
    if type(milliseconds) not in (int, float):  # true is a number to isinstance
        raise SettingsError("crossfade_ms must be a number")
    try:
        return check_crossfade(float(milliseconds))
    except OverflowError as error:
        raise SettingsError("crossfade_ms is too large") from error
