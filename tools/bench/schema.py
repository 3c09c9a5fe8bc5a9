"""Dataclasses to JSON and back, checked: a damaged or foreign file is refused by place and reason.

The dataclasses are the schema. A field without a default must be there; fields that nobody knows
are left out, so that a newer file of the same schema can be read.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from engines import SettingsError

Read = TypeVar("Read")

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def to_json(value: Any) -> Any:
    """Return dataclasses, lists and dictionaries as JSON types, numbers as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {item.name: to_json(getattr(value, item.name)) for item in fields}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[Read], raw: Any, where: str = "") -> Read:
    """Return ``raw`` (parsed JSON) as the dataclass ``kind``.

    Raises:
        SettingsError: the first thing that does not fit, with its place: ``cases[3].open_s``.
    """
    read: Read = _dataclass(kind, raw, where)
    return read


def _dataclass(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise _misfit(where, "an object", raw)
    kinds, values = typing.get_type_hints(kind), {}
    for item in dataclasses.fields(kind):
        place = f"{where}.{item.name}" if where else item.name
        if item.name in raw:
            values[item.name] = _value(kinds[item.name], raw[item.name], place)
        elif item.default is item.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{place} is missing")
    return kind(**values)


def _value(kind: Any, raw: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return raw
    if origin in (typing.Union, types.UnionType):  # only ever "something or None"
        (other,) = (item for item in inner if item is not type(None))
        return None if raw is None else _value(other, raw, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, raw, where)
    if origin is list:
        if not isinstance(raw, list):
            raise _misfit(where, "a list", raw)
        return [_value(inner[0], item, f"{where}[{place}]") for place, item in enumerate(raw)]
    if origin is tuple:
        if not isinstance(raw, list) or len(raw) != len(inner):
            raise _misfit(where, f"a list of {len(inner)}", raw)
        pairs = enumerate(zip(inner, raw, strict=True))
        return tuple(_value(item, value, f"{where}[{place}]") for place, (item, value) in pairs)
    if origin is dict:
        if not isinstance(raw, dict):
            raise _misfit(where, "an object", raw)
        return {key: _value(inner[1], item, f"{where}.{key}") for key, item in raw.items()}
    fits = isinstance(raw, (int, float) if kind is float else kind)
    if not fits or (isinstance(raw, bool) and kind is not bool):
        raise _misfit(where, NAMES[kind], raw)
    if kind is float and not math.isfinite(raw):
        raise _misfit(where, "a finite number", raw)
    return float(raw) if kind is float else raw


def _misfit(where: str, expected: str, found: Any) -> SettingsError:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return SettingsError(f"{where or 'the file'} must be {expected}, found {shown}")
