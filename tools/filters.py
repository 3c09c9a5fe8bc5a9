"""`pix2live filters`: the gallery with its cards, as a list and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import FrameModel, ModelError, SettingsError, SinkError, filter_names, load_filter
from engines.proof import HIGHEST_PSNR_DB
from engines.reduced_precision import HALF
from engines.twins import int8_twin, twin_path

SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
ROOM_FOR_ALL = 110
"""Columns of a terminal from which the list has room for architectures."""
INT8_WORDS: Final = {True: "yes", False: "no", None: "-"}
"""Of `int8_here`, for the list."""
TASK_WORDS: Final = {
    "paired": "paired (learned from pairs of pictures)",
    "unpaired": "unpaired (learned from two sets of pictures)",
    "style": "style (learned from a painting)",
}
MEASURES: Final = {
    "warping_error_1e3": ("warping error", "x 1e-3", "flicker of what moves"),
    "warping_ratio": ("warping error, ratio", "", "1 is as steady as the clip"),
    "still_difference": ("still areas", "of 255", "shimmer of what stands still"),
    "still_ratio": ("still areas, ratio", "", "1 is as steady as the clip"),
    "l1": ("L1", "of 255", "mean difference to the right pictures"),
    "psnr_db": ("PSNR", "dB", "to the right pictures, more is closer"),
    "ssim": ("SSIM (luma)", "", "to the right pictures, 1 is the same"),
    "perceptual": ("perceptual, not LPIPS", "", "to the right pictures, less is closer"),
    "cycle_l1": ("cycle error, L1", "of 255", "there and back, less is closer"),
    "cycle_psnr_db": ("cycle error, PSNR", "dB", "there and back, more is closer"),
    "kernel_distance": ("kernel distance, not KID", "", "to a set of pictures, less is closer"),
}
"""What `pix2live evaluate` puts onto a card: key -> name, unit, what it says."""
UNTRANSLATED: Final = "_untranslated"
PROOF_NUMBERS: Final = {
    "psnr_db": ("PSNR, dB", ".1f"),
    "max_difference": ("largest", ".4g"),
    "mean_difference": ("mean", ".3f"),
    "frames": ("frames", ".0f"),
}
FACTS: Final = ("against_original", "real_frames")
"""Numbers of a proof that are 0 or 1."""


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
    help="Write the cards, or that of NAME, as they are in the files; - is the standard output.",
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
    twins = [int8_here(model) for model in models]
    console.print(table_of(models, console.width, [taken for taken, _ in twins]))
    console.print()
    for line in int8_lines([model.path.stem for model in models], twins):
        console.print(Text(line), soft_wrap=True)
    console.print("pix2live filters NAME prints a card; pix2live run --filter NAME shows it live.")


def int8_here(model: FrameModel) -> tuple[bool | None, str]:
    """Return whether ``--precision auto`` takes the INT8 twin of ``model`` here, and why.

    Of a twin that is taken the reason is its proof. None: there is no twin.
    """
    from engines.registry import AUTO_FRAME_MODEL, why_not

    if not twin_path(model.path).exists():
        return None, ""
    backend = next((name for name in AUTO_FRAME_MODEL if why_not(name) is None), None)
    if backend != "openvino":
        return False, f"{backend or 'nothing'} runs it here, and takes none unasked"
    from engines.backends.openvino import import_openvino
    from engines.backends.openvino_precision import Choice
    from engines.backends.signal_stack import kept_signal_stack

    with kept_signal_stack():
        choice = Choice(import_openvino().Core(), "CPU", "auto")
        taken = choice.twin(model) is not None
    reason = "; ".join(choice.notes).partition(": ")[2]  # "int8, FILE: ", "not int8: "
    return taken, reason.partition(";")[0] if taken else reason


def int8_lines(names: Sequence[str], twins: Sequence[tuple[bool | None, str]]) -> Iterator[str]:
    """Yield what the column INT8 of the list means, and each reason against a twin once."""
    if taken := sum(bool(yes) for yes, _ in twins):
        yield (
            f"INT8: {taken} of {len(names)} run here as their INT8 twins, which is faster;"
            " --precision f32 is closer."
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
        cells = [model.path.stem, card.domains, *wide, _kilobytes(model.path), *twin, card.title]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def card_json(model: FrameModel) -> dict[str, Any]:
    """Return the card as it is in the file, with the file's name and checksum; the twin's too."""
    found = _as_in_the_file(model)
    if twin_path(model.path).exists():
        try:
            found["int8_twin"] = _as_in_the_file(int8_twin(model))
        except ModelError as error:
            found["int8_twin"] = {"error": str(error)}
    return found


def print_card(model: FrameModel, console: Console) -> None:
    """Print everything that the card says, in words and with units."""
    card = model.card
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    rows = {
        "name": card.name,
        "title": card.title,
        "translates": card.domains,
        "task": TASK_WORDS.get(card.task, card.task),
        "architecture": card.architecture,
        "stride": f"width and height are multiples of {card.stride} px",
        "size": "any" if model.fixed_size is None else "x".join(map(str, model.fixed_size)),
        "licence": card.licence,
        "origin": card.origin,
        "training": card.training,
        "weights": f"SHA-256 {card.weights_sha256}" if card.weights_sha256 else "",
        "file": f"{model.path}, {_kilobytes(model.path)} (SHA-256 {model.sha256})",
    }
    twin, proofs = None, dict(card.proofs)
    if twin_path(model.path).exists():
        try:
            twin = int8_twin(model)
        except ModelError as error:
            rows["INT8 twin"] = str(error)
    if twin is not None:
        taken, why = int8_here(model)
        rows["INT8 twin"] = (
            f"{twin.path.name}, {_kilobytes(twin.path)}; {'' if taken else 'not '}taken here: {why}"
        )
        proofs |= {f"INT8, {key}": proof for key, proof in twin.card.proofs.items()}
    for key, value in rows.items():
        if value:
            table.add_row(Text(key), Text(value))  # a card may hold [brackets]
    console.print(table)
    if card.measures:
        console.print()
        console.print(_measures_table(card.measures))
    if proofs:
        console.print()
        console.print(_proofs_table(proofs))
        console.print(
            f"PSNR: more is closer, {HIGHEST_PSNR_DB:g} is no difference."
            " Largest, mean: differences of 255.",
            style="dim",
            highlight=False,
        )
    if card.command:  # in one piece, so that it can be copied
        console.print("\nmade with:", style="bold")
        console.print(Text(card.command), soft_wrap=True)


def _measures_table(measures: Mapping[str, float]) -> Table:
    """Return a row for each number of `pix2live evaluate`; keys that it does not have as words."""
    table = _small_table("measured", "filter", "untranslated")
    table.add_column("unit")
    table.add_column("says", overflow="fold")
    for key, value in measures.items():
        if key.removesuffix(UNTRANSLATED) in measures and key.endswith(UNTRANSLATED):
            continue  # beside the filter's own
        name, unit, says = MEASURES.get(key, (key.replace("_", " "), "", ""))
        other = measures.get(key + UNTRANSLATED)
        numbers = [f"{value:.4g}", "" if other is None else f"{other:.4g}"]
        table.add_row(*map(Text, (name, *numbers, unit, says)))
    return table


def _proofs_table(proofs: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a row for each way to run the filter: how far its pictures are from the right ones."""
    table = _small_table("the same picture?", *(words for words, _ in PROOF_NUMBERS.values()))
    table.add_column("compared with", overflow="fold")
    for key, proof in proofs.items():
        numbers = [
            format(proof[name], how) if name in proof else "-"
            for name, (_, how) in PROOF_NUMBERS.items()
        ]
        if "real_frames" in proof:
            numbers[-1] += " real" if proof["real_frames"] else " made"
        original = key != HALF and proof.get("against_original", 1)
        words = ["the original network" if original else "the filter in f32"]
        words += [
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in proof.items()
            if name not in PROOF_NUMBERS and name not in FACTS
        ]
        table.add_row(*map(Text, (key.replace("/", " "), *numbers, ", ".join(words))))
    return table


def _small_table(title: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _as_in_the_file(model: FrameModel) -> dict[str, Any]:
    return {**asdict(model.card), "file": str(model.path), "sha256": model.sha256}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from tools.report import write_json

    if str(path) == "-":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    write_json(path, data)
    click.echo(f"written: {path}")


def _kilobytes(path: Path) -> str:
    return f"{path.stat().st_size / 1000:.0f} kB"


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
