"""Types of options: sizes and levels, as people type them."""

from __future__ import annotations

from typing import Any

import click

from engines import SettingsError, Size
from realtime.sources import parse_size
from realtime.sources.levels import Window


class SizeType(click.ParamType[Size]):
    """WIDTHxHEIGHT."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        try:
            return value if isinstance(value, tuple) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SizesType(click.ParamType[tuple[Size, ...]]):
    """WIDTHxHEIGHT,WIDTHxHEIGHT,..."""

    name = "WxH,WxH,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Size, ...]:
        try:
            if isinstance(value, tuple):
                return value
            return tuple(parse_size(item) for item in value.split(","))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WindowType(click.ParamType[Window]):
    """LOW:HIGH, levels of grey."""

    name = "LOW:HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Window:
        try:
            return value if isinstance(value, Window) else Window.parse(value)
        except SettingsError as error:
            self.fail(str(error), param, ctx)
