"""From words to effects: ``person:invert``, ``stabilise:0.7``, ``my_effects.py:sparkle``."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from engines import EffectError, Pix2liveError, SettingsError
from realtime.effects.base import Effect, FunctionEffect, function_name
from realtime.effects.chain import user_place
from realtime.effects.words import ALIKE

EFFECTS: Final[dict[str, str]] = {
    "rectangle": "realtime.effects.regions:Rectangle",
    "polygon": "realtime.effects.regions:Polygon",
    "key": "realtime.effects.colour_key:ColourKey",
    "motion": "realtime.effects.motion_mask:MotionMask",
    "face": "realtime.effects.faces:FaceMask",
    "person": "realtime.effects.person:PersonMask",
    "alpha": "realtime.effects.alpha:AlphaMask",
    "markers": "realtime.effects.markers:Markers",
    "marker": "realtime.effects.on_marker:OnMarker",
    "inside-markers": "realtime.effects.inside_markers:InsideMarkers",
    "stabilise": "realtime.effects.stabiliser:Stabiliser",
    "picture": "realtime.effects.overlays:PictureOverlay",
    "text": "realtime.effects.overlays:TextOverlay",
    "status": "realtime.effects.overlays:StatusOverlay",
}
"""Name -> class; each has ``from_words(words: str) -> Effect``, given what follows the colon."""

_loads = itertools.count()


def open_effect(spec: Any) -> Effect:
    """Return the effect that ``spec`` asks for; nothing is loaded but its module.

    Args:
        spec: an `Effect`; a function ``(frame, context) -> pixels``; or text: a name of `EFFECTS`
            with what it takes after a colon, or ``FILE.py:NAME``, an effect, effect class or
            function in a file of one's own.

    Raises:
        SettingsError: there is no such effect, or its words do not fit.
        EffectError: a file of one's own cannot be loaded, or a class of one's own cannot be made.
    """
    if isinstance(spec, Effect):
        return spec
    if callable(spec):
        return _from_object(spec, function_name(spec))
    name, _, words = str(spec).partition(":")
    if name.endswith(".py"):
        return _from_file(Path(name), words)
    if name not in EFFECTS:
        raise SettingsError(_no_effect(str(spec)))
    module, _, class_name = EFFECTS[name].partition(":")
    found: Effect = getattr(importlib.import_module(module), class_name).from_words(words)
    return found


def _no_effect(spec: str) -> str:
    """Return that there is no such effect, and what may have been meant."""
    name, words = re.match(r"([\w./\\-]*)\W*(.*)", spec, re.DOTALL).groups()  # type: ignore[union-attr]
    close = [name] if name in EFFECTS else get_close_matches(name.lower(), EFFECTS, 1, ALIKE)
    if name.endswith(".py"):
        return f"no effect {spec!r}; did you mean {name}:{words or 'NAME'}?"
    known = f"there are: {', '.join(EFFECTS)}, and FILE.py:NAME"
    if not close:
        return f"no effect {spec!r}; {known}"
    meant = f"{close[0]}:{words}" if words else close[0]
    return f"no effect {spec!r}; did you mean {meant!r}? {known[0].upper()}{known[1:]}"


def _from_file(path: Path, name: str) -> Effect:
    if not name:
        raise SettingsError(f"say which effect of {path}: {path}:NAME")
    if not path.is_file():
        raise SettingsError(f"no file {path}")
    # Registered like any module, as dataclasses and pickle want it; each load under its own name.
    private = f"_pix2live_{next(_loads)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(private, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        if found is None:
            raise SettingsError(_no_name(path, name, module))
        return _from_object(found, name)
    except BaseException as error:
        sys.modules.pop(private, None)
        if isinstance(error, (Pix2liveError, KeyboardInterrupt)):
            raise
        raise EffectError(_failed(f"cannot load {path}", error) + _imported(path, error)) from error


def _no_name(path: Path, name: str, module: ModuleType) -> str:
    """Return that a file has no such effect, and which it may have."""
    own = [
        key
        for key, value in vars(module).items()
        if isinstance(value, Effect)
        or (callable(value) and getattr(value, "__module__", "") == module.__name__)
    ]
    close = get_close_matches(name, own, 1, ALIKE)
    if close:
        return f"{path} has no {name!r}; did you mean {close[0]}?"
    return f"{path} has no {name!r}" + (f"; it has: {', '.join(own)}" if own else "")


def _imported(path: Path, error: BaseException) -> str:
    """Return a hint where a program was given as a file of effects."""
    program = isinstance(error, SystemExit)
    if not program and not isinstance(error, SyntaxError):
        program = "sys.argv" in path.read_text(encoding="utf-8", errors="replace")
    if not program:
        return ""
    return (
        "; to get an effect the file is imported, not run as a program: what it does as a program"
        ' belongs under if __name__ == "__main__":'
    )


def _from_object(found: Any, name: str) -> Effect:
    if isinstance(found, Effect):
        return found
    if isinstance(found, type) and issubclass(found, Effect):
        try:
            return found()
        except Pix2liveError:
            raise
        except (Exception, SystemExit) as error:
            raise EffectError(_failed(f"cannot make the effect {name}", error)) from error
    if callable(found):
        return FunctionEffect(found, name=name)
    raise SettingsError(f"{name} is no effect: a function (frame, context) -> pixels, or an Effect")


def _failed(what: str, error: BaseException) -> str:
    """Return in one line what failed, where in the user's code, and why."""
    place, message = user_place(error.__traceback__), str(error)
    if isinstance(error, SyntaxError):  # not yet code: it has no traceback there
        place, message = f"{Path(error.filename or '').name}:{error.lineno}", error.msg
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        kind = "it ends the program by sys.exit"
    said = f"{kind}: {message.strip()}".splitlines()[0].removesuffix(": ")
    return f"{what} ({place}): {said}" if place else f"{what}: {said}"
