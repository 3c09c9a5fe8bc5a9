"""`pix2live train`: one subcommand a recipe."""

from __future__ import annotations

import importlib
from typing import Final

import click

RECIPES: Final = {
    "style": ("commands", "Paint like a picture: photographs and one painting are enough."),
    "paired": ("commands", "From pairs of pictures, or from a slow teacher function."),
    "unpaired": ("commands", "From two folders without pairs: a filter in each direction."),
    "mask": ("mask_command", "Where the people are: for the effect `person`."),
}
"""Name -> (module beside this one, one line)."""


class Recipes(click.Group):
    """Imports the commands when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(RECIPES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in RECIPES:
            return None
        module = importlib.import_module(f"tools.train.{RECIPES[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in RECIPES.items()])


@click.group(cls=Recipes)
def train() -> None:
    """Train a filter of your own; every recipe ends with a file for `run --filter`."""
