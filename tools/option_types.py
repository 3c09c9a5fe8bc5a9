"""Options as people type them: sizes, levels, the precision of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from engines import SettingsError, Size
from engines.base import PRECISIONS
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


def precision_option(help_: str) -> Callable[[Any], Any]:
    """Return the option ``--precision`` of a command that runs an engine (a decorator)."""
    return click.option(
        "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help=help_
    )


def size_and_seconds(
    size_help: str,
    seconds_help: str,
    *,
    seconds: float,
    range_s: tuple[float, float] = (1, 3600),
    several_sizes: bool = False,
) -> Callable[[Any], Any]:
    """Return ``--size`` and ``--seconds`` of a command that looks or measures (a decorator).

    Args:
        size_help: what a size is for.
        seconds_help: what takes that long.
        seconds: the default.
        range_s: from the shortest to the longest that can be asked for.
        several_sizes: ``--size`` is repeatable, and comes as ``sizes``, a tuple.
    """
    name = "sizes" if several_sizes else "size"
    size_option = click.option(
        "--size", name, type=SizeType(), multiple=several_sizes, help=size_help
    )
    seconds_option = click.option(
        "--seconds",
        type=click.FloatRange(*range_s),
        default=seconds,
        show_default=True,
        help=seconds_help,
    )
    return lambda command: size_option(seconds_option(command))
