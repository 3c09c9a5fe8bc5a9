"""`pix2live filters`: the gallery with its cards, as a list and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import FrameModel, SettingsError, SinkError, filter_names, load_filter
from tools.cards import card_json, int8_here, kilobytes, print_card

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
ROOM_FOR_ALL = 110
"""Columns of a terminal from which the list has room for architectures."""
INT8_WORDS: Final = {True: "yes", False: "no", None: "-"}
"""Of `int8_here`, for the list."""


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE.onnx]")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw all filters, or NAME alone, on the same frames (PNG or JPEG).",
)
@click.option(
    "--input",
    "input_",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The frames for --sheet: a picture, a folder of pictures or a clip."
    "  [default: the demo's film clip]",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the cards, or that of NAME, as they are in the files; - is the standard output. An"
    " older .json is replaced, no other file.",
)
def filters(
    name: str | None, sheet: Path | None, input_: Path | None, json_path: Path | None
) -> None:
    """List the shipped filters, or print the card of NAME (a filter or FILE.onnx)."""
    if sheet is not None and json_path is not None:
        raise click.UsageError("--sheet draws and --json writes the cards: give one of them")
    if sheet is not None:
        models = [load_filter(item) for item in ([name] if name else filter_names())]
        draw(models, sheet, input_)
        return
    if input_ is not None:
        raise click.UsageError("--input is for --sheet FILE.png")
    models = [load_filter(item) for item in ([name] if name else filter_names())]
    if json_path is not None:
        cards = [card_json(model) for model in models]
        _write_json(json_path, {"filters": cards} if name is None else cards[0])
        return
    console = Console()
    if name is not None:
        print_card(models[0], console)
        return
    twins = int8_here(models)
    console.print(table_of(models, console.width, [taken for taken, _ in twins]))
    console.print()
    for line in int8_lines([model.path.stem for model in models], twins):
        console.print(Text(line), soft_wrap=True)
    console.print("pix2live filters NAME prints a card; pix2live run --filter NAME shows it live.")


def int8_lines(names: Sequence[str], twins: Sequence[tuple[bool | None, str]]) -> Iterator[str]:
    """Yield what the column INT8 of the list means, and each reason against a twin once."""
    if taken := sum(bool(yes) for yes, _ in twins):
        yield (
            f"INT8: {taken} of {len(names)} run here as their INT8 twins;"
            " another --precision is slower and closer."
        )
    reasons: dict[str, list[str]] = {}
    for name, (yes, reason) in zip(names, twins, strict=True):
        if yes is False:
            reasons.setdefault(reason, []).append(name)
    for reason, whose in reasons.items():
        which = "no twin is taken" if len(whose) == len(names) else f"not of {', '.join(whose)}"
        yield f"INT8: {which} here: {reason}."


def table_of(
    models: Sequence[FrameModel], width: int, int8: Sequence[bool | None] | None = None
) -> Table:
    """Return the list of filters for a terminal of ``width`` columns: a narrow one gets less.

    ``int8`` is what `int8_here` says of each; without it that column is left out.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("translates", overflow="fold")
    if width >= ROOM_FOR_ALL:
        table.add_column("architecture", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    if int8 is not None:
        table.add_column("INT8", no_wrap=True)
    table.add_column("title", overflow="fold")
    for place, model in enumerate(models):
        card = model.card
        wide = [card.architecture] if width >= ROOM_FOR_ALL else []
        twin = [INT8_WORDS[int8[place]]] if int8 is not None else []
        cells = [model.path.stem, card.domains, *wide, kilobytes(model.path), *twin, card.title]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from tools.report import refuse_unlike_json, write_json

    if str(path) == "-":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    refuse_unlike_json(path, "give another name")
    write_json(path, data)
    click.echo(f"written: {path}")


def draw(models: Sequence[FrameModel], sheet: Path, source: Path | None) -> None:
    """Write ``sheet``: the ``models`` side by side on frames of ``source``.

    Raises:
        SettingsError: ``sheet`` is neither PNG nor JPEG, or would become a picture of ``source``.
        SourceError: there are no frames in ``source``.
        EngineError: a filter cannot be run here.
        SinkError: ``sheet`` cannot be written.
    """
    from realtime.sources.pictures import write_picture
    from tools.gallery import draw_sheet, gallery_frames, make_columns

    if sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise SettingsError(f"a sheet is a picture, FILE.png or FILE.jpg, found {sheet}")
    if not sheet.absolute().parent.is_dir():
        raise SinkError(f"the folder {sheet.parent} does not exist; mkdir it first")
    if source is not None and source.resolve() in (sheet.resolve(), sheet.resolve().parent):
        raise SettingsError(f"{sheet} would be one of the pictures of {source}; write it elsewhere")
    frames = gallery_frames(source)
    screen = Console(stderr=True)
    with screen.status("") as status:

        def tick(name: str, number: int, count: int) -> None:
            status.update(f"{name} ({number + 1} of {count})")

        columns, notes = make_columns(models, frames, tick)
    write_picture(sheet, draw_sheet(columns))
    for note in [f"frames: {frames.description}", *notes]:
        screen.print(Text(f"  {note}"), style="dim", soft_wrap=True)
    Console().print(Text(str(sheet)), soft_wrap=True)
