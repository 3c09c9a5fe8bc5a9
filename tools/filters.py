"""`pix2live filters`: the gallery with its cards, as a list and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import FrameModel, ModelError, SettingsError, SinkError, filter_names, load_filter
from engines.twins import int8_twin, twin_path

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
ROOM_FOR_ALL = 110
"""Columns of a terminal from which the list has room for architectures."""


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
def filters(name: str | None, sheet: Path | None, input_: Path | None) -> None:
    """List the shipped filters, or print the card of NAME (a filter or FILE.onnx)."""
    if sheet is not None:
        models = [load_filter(item) for item in ([name] if name else filter_names())]
        draw(models, sheet, input_)
        return
    if input_ is not None:
        raise click.UsageError("--input is for --sheet FILE.png")
    console = Console()
    if name is not None:
        print_card(load_filter(name), console)
        return
    console.print(table_of([load_filter(item) for item in filter_names()], console.width))
    console.print(
        "\npix2live filters NAME prints a card; pix2live run --filter NAME shows it live."
    )


def table_of(models: Sequence[FrameModel], width: int) -> Table:
    """Return the list of filters for a terminal of ``width`` columns: a narrow one gets less."""
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("translates", overflow="fold")
    if width >= ROOM_FOR_ALL:
        table.add_column("architecture", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("title", overflow="fold")
    for model in models:
        card = model.card
        kilobytes = f"{model.path.stat().st_size / 1000:.0f} kB"
        wide = [card.architecture] if width >= ROOM_FOR_ALL else []
        cells = [model.path.stem, card.domains, *wide, kilobytes, card.title]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def print_card(model: FrameModel, console: Console) -> None:
    """Print everything that the card says."""
    card = model.card
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    rows = {
        "name": card.name,
        "title": card.title,
        "translates": card.domains,
        "task": card.task,
        "architecture": card.architecture,
        "stride": f"width and height are multiples of {card.stride} px",
        "size": "any" if model.fixed_size is None else "x".join(map(str, model.fixed_size)),
        "licence": card.licence,
        "origin": card.origin,
        "training": card.training,
        "weights": f"SHA-256 {card.weights_sha256}" if card.weights_sha256 else "",
        "file": f"{model.path} (SHA-256 {model.sha256})",
        "measured": _numbers(card.measures),
    }
    for backend, proof in card.proofs.items():
        rows[f"proof {backend}"] = _numbers(proof)
    rows |= _of_the_twin(model)
    for key, value in rows.items():
        if value:
            table.add_row(Text(key), Text(value))  # a card may hold [brackets]
    console.print(table)
    if card.command:  # in one piece, so that it can be copied
        console.print("\nmade with:", style="bold")
        console.print(Text(card.command), soft_wrap=True)


def _of_the_twin(model: FrameModel) -> dict[str, str]:
    """Return what the card of the INT8 twin beside the model proves, if there is one."""
    path = twin_path(model.path)
    if not path.exists():
        return {}
    try:
        proofs = int8_twin(model).card.proofs
    except ModelError as error:
        return {"INT8 twin": str(error)}
    return {"INT8 twin": path.name} | {
        f"proof {backend}, INT8": _numbers(proof) for backend, proof in proofs.items()
    }


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


def _numbers(named: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in named.items())
