"""`pix2live filters`: the gallery with its cards."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from engines import FrameModel, filter_names, load_filter


@click.command()
@click.argument("name", required=False)
def filters(name: str | None) -> None:
    """List the shipped filters, or print the card of NAME (a filter or FILE.onnx)."""
    console = Console()
    if name is not None:
        print_card(load_filter(name), console)
        return
    table = Table("name", "translates", "architecture", "size", "title", box=None, pad_edge=False)
    for item in filter_names():
        model = load_filter(item)
        kilobytes = f"{model.path.stat().st_size / 1000:.0f} kB"
        card = model.card
        table.add_row(item, card.domains, card.architecture, kilobytes, card.title)
    console.print(table)
    console.print(
        "\npix2live filters NAME prints a card; pix2live run --filter NAME shows it live."
    )


def print_card(model: FrameModel, console: Console) -> None:
    """Print everything that the card says."""
    card = model.card
    table = Table(show_header=False, box=None, pad_edge=False)
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
    }
    for backend, proof in card.proofs.items():
        found = ", ".join(f"{name} {value:.4g}" for name, value in proof.items())
        rows[f"proof {backend}"] = found
    for key, value in rows.items():
        if value:
            table.add_row(f"[bold]{key}[/bold]", value)
    console.print(table)
