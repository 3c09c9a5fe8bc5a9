"""`pix2live evaluate`: picture metrics, feature distances, cycle error and flicker of a filter.

Also runnable as a module: ``python -m tools.evaluate comic --clip film.mp4``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines import SettingsError, SinkError
from tools.evaluation.table import write_measures
from tools.option_types import precision_option
from tools.report import refuse_unlike_json, write_json

EXISTING = click.Path(path_type=Path)


@click.command()
@click.argument("filter_", metavar="FILTER")
@click.option(
    "--input", "input_", type=EXISTING, metavar="PATH", help="Pictures that are translated."
)
@click.option(
    "--target",
    type=EXISTING,
    metavar="DIR",
    help="What they should become, same names: L1, PSNR, SSIM, perceptual distance.",
)
@click.option(
    "--against",
    type=EXISTING,
    metavar="DIR",
    help="Pictures that they should look like as a set: kernel distance.",
)
@click.option(
    "--cycle",
    metavar="FILTER",
    help="The filter that leads back: how much of the input comes back.",
)
@click.option(
    "--clip",
    "clips",
    type=EXISTING,
    multiple=True,
    metavar="PATH",
    help="A video, or a folder of videos or of numbered pictures: flicker; repeatable.",
)
@click.option(
    "--features",
    type=EXISTING,
    metavar="FILE",
    help="Weights of VGG-16 or VGG-19, the feature net.  [default: torchvision's]",
)
@click.option("--frames", type=click.IntRange(2), metavar="N", help="Of each clip.  [default: all]")
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="As for run.")
@precision_option("As for run.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write all numbers, those of every picture and clip too.",
)
@click.option(
    "--to-card", is_flag=True, help="Also write the numbers onto the card of the filter's file."
)
def evaluate(
    filter_: str, input_: Path | None, json_path: Path | None, to_card: bool, **options: Any
) -> None:
    """Measure FILTER (a shipped filter or FILE.onnx), run by an engine as it runs live.

    \b
    pix2live evaluate comic --clip film.mp4                           flicker
    pix2live evaluate my.onnx --input photos/ --target drawings/      held-out pairs
    pix2live evaluate a2b.onnx --input a/ --against b/ --cycle b2a.onnx
    """  # noqa: D301  (click reads \b as a control character)
    from tools.evaluation.measuring import evaluate as measure
    from tools.evaluation.settings import Settings

    settings = Settings(filter=filter_, input=input_, **options)
    try:
        settings.check()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise SinkError(f"cannot write {json_path}: there is no folder {json_path.parent}")
    if json_path is not None:
        refuse_unlike_json(json_path, "give another name")
    with _Screen() as screen:
        found = measure(settings, screen.show)
    errors = Console(stderr=True)
    for note in found.notes:
        errors.print(f"  {note}", style="dim", highlight=False, markup=False, soft_wrap=True)
    found.print(Console())
    if json_path is not None:
        write_json(json_path, found.to_json())
    if to_card:
        write_measures(found)


class _Screen:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int | None) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total)


if __name__ == "__main__":
    from tools import cli

    cli.main(["evaluate", *sys.argv[1:]])
