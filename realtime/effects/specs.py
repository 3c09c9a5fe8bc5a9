"""From words to effects: ``person:invert``, ``stabilise:0.7``, ``my_effects.py:sparkle``."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Final

from engines import EffectError, Pix2liveError, SettingsError
from realtime.effects.base import Effect, FunctionEffect

EFFECTS: Final[dict[str, str]] = {
    "rectangle": "realtime.effects.regions:Rectangle",
    "polygon": "realtime.effects.regions:Polygon",
    "key": "realtime.effects.colour_key:ColourKey",
    "motion": "realtime.effects.motion_mask:MotionMask",
    "face": "realtime.effects.faces:FaceMask",
    "person": "realtime.effects.person:PersonMask",
    "markers": "realtime.effects.markers:Markers",
    "marker": "realtime.effects.on_marker:OnMarker",
    "inside-markers": "realtime.effects.inside_markers:InsideMarkers",
    "stabilise": "realtime.effects.stabiliser:Stabiliser",
    "picture": "realtime.effects.overlays:PictureOverlay",
    "text": "realtime.effects.overlays:TextOverlay",
    "status": "realtime.effects.overlays:StatusOverlay",
}
"""Name -> class; each has ``from_words(words: str) -> Effect``, given what follows the colon."""


def open_effect(spec: Any) -> Effect:
    """Return the effect that ``spec`` asks for; nothing is loaded but its module.

    Args:
        spec: an `Effect`; a function ``(frame, context) -> pixels``; or text: a name of `EFFECTS`
            with what it takes after a colon, or ``FILE.py:NAME``, an effect, effect class or
            function in a file of one's own.

    Raises:
        SettingsError: there is no such effect, or its words do not fit.
        EffectError: a file of one's own cannot be loaded.
    """
    if isinstance(spec, Effect):
        return spec
    if callable(spec):
        return _from_object(spec, getattr(spec, "__name__", "function"))
    name, _, words = str(spec).partition(":")
    if name.endswith(".py"):
        return _from_file(Path(name), words)
    if name not in EFFECTS:
        raise SettingsError(
            f"no effect {name!r}; there are: {', '.join(EFFECTS)}, and FILE.py:NAME"
        )
    module, _, class_name = EFFECTS[name].partition(":")
    found: Effect = getattr(importlib.import_module(module), class_name).from_words(words)
    return found


def _from_file(path: Path, name: str) -> Effect:
    if not name:
        raise SettingsError(f"say which effect of {path}: {path}:NAME")
    if not path.is_file():
        raise SettingsError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Pix2liveError:
        raise
    except Exception as error:
        raise EffectError(f"cannot load {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        raise SettingsError(f"{path} has no {name!r}")
    return _from_object(found, name)


def _from_object(found: Any, name: str) -> Effect:
    if isinstance(found, Effect):
        return found
    if isinstance(found, type) and issubclass(found, Effect):
        return found()
    if callable(found):
        return FunctionEffect(found, name=name)
    raise SettingsError(f"{name} is no effect: a function (frame, context) -> pixels, or an Effect")
