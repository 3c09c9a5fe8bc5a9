"""`pix2live train`: one subcommand a recipe."""

from __future__ import annotations

import importlib
import importlib.util

import click

from engines.errors import EngineError

RECIPES = {"paired": ("tools.train.paired:paired", "From pairs, or from a slow teacher function.")}


class Recipes(click.Group):
    """Imports a recipe when it is called: they need torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(RECIPES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in RECIPES:
            return None
        if importlib.util.find_spec("torch") is None:
            raise EngineError("training needs torch: pip install 'pix2live[torch]'")
        module, _, attribute = RECIPES[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in RECIPES.items()])


@click.group(cls=Recipes)
def train() -> None:
    """Train a filter of your own."""
