"""Cards of filters for people and programs: what `pix2live filters NAME` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import FrameModel, ModelError
from engines.proof import HIGHEST_PSNR_DB
from engines.reduced_precision import HALF
from engines.twins import int8_twin, twin_path

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


def int8_here(models: Sequence[FrameModel]) -> list[tuple[bool | None, str]]:
    """Return of each of ``models`` whether ``--precision auto`` takes its INT8 twin here, and why.

    Of a twin that is taken the reason is its proof. None: there is no twin.
    """
    from engines.registry import AUTO_FRAME_MODEL, why_not

    twins = [twin_path(model.path).exists() for model in models]
    paired = [model for model, twin in zip(models, twins) if twin]
    if not paired:
        return [(None, "")] * len(models)
    backend = next((name for name in AUTO_FRAME_MODEL if why_not(name) is None), None)
    if backend == "openvino":
        found = iter(_int8_on_openvino(paired))
    else:
        reason = f"{backend or 'nothing'} runs it here, and takes none unasked"
        found = iter([(False, reason)] * len(paired))
    return [next(found) if twin else (None, "") for twin in twins]


def _int8_on_openvino(models: Sequence[FrameModel]) -> list[tuple[bool, str]]:
    from engines.backends.openvino import import_openvino
    from engines.backends.openvino_precision import Choice
    from engines.backends.signal_stack import kept_signal_stack

    try:
        with kept_signal_stack():
            choice = Choice(import_openvino().Core(), "CPU", "auto")
            found = [choice.proven_twin(model) for model in models]
    except (ImportError, OSError, RuntimeError) as error:  # a wheel that is damaged or foreign
        why = " ".join(f"openvino does not load: {error}".split())
        return [(False, why)] * len(models)
    return [(twin is not None, reason) for twin, reason in found]


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
        "file": f"{model.path}, {kilobytes(model.path)} (SHA-256 {model.sha256})",
    }
    twin, proofs = None, dict(card.proofs)
    if twin_path(model.path).exists():
        try:
            twin = int8_twin(model)
        except ModelError as error:
            rows["INT8 twin"] = str(error)
    if twin is not None:
        ((taken, why),) = int8_here([model])
        rows["INT8 twin"] = (
            f"{twin.path.name}, {kilobytes(twin.path)}; {'' if taken else 'not '}taken here: {why}"
        )
        proofs |= {f"INT8, {key}": proof for key, proof in twin.card.proofs.items()}
    for key, value in rows.items():
        if value:
            table.add_row(Text(key), Text(value))  # a card may hold [brackets]
    console.print(table)
    if card.measures:
        console.print()
        console.print(_measures_table(card.measures))
        if twin is not None and not card.quantised_from:
            console.print("Measured in floating point, not of the INT8 twin.", style="dim")
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


def kilobytes(path: Path) -> str:
    """Return the size of a file in words."""
    return f"{path.stat().st_size / 1000:.0f} kB"
