"""Checkpoints: whole or not at all, never a bad one over a good one, only for the same training."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from engines.artefact import replace_file
from engines.errors import Pix2liveError, SettingsError, SinkError
from tools.train.recipe import Settings

FILE_NAME: Final = "checkpoint.pt"
FORMAT: Final = 1
MAY_CHANGE: Final = frozenset(
    {
        *("out", "name", "resume", "overwrite", "export", "validate", "workers"),
        *("save_every", "sheet_every", "title", "domains", "licence", "origin", "command"),
        *("precision", "accelerator", "devices"),  # these are noted, see `Checkpoint.machine`
    }
)
"""Settings that a resumed run may have otherwise."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after ``step`` steps."""

    step: int
    recipe: dict[str, Any]
    """What `Recipe.state` gave."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What must be the same to go on: see `fingerprint`."""
    machine: str = ""
    """Device and precision: the numbers depend on them, but one may go on elsewhere."""
    precision: dict[str, Any] = field(default_factory=dict)
    """The scale of FP16 losses, where there is one."""


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file in one step: a crash or a full disk leaves the earlier one as it was.

    Raises:
        Pix2liveError: a value is infinite or not a number; nothing is written.
        SinkError: it cannot be written.
    """
    content = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    _check_finite(checkpoint)
    # Into memory first: torch's own writer ends a full disk with a crash of its destructor.
    data = io.BytesIO()
    torch.save({"format": FORMAT, **content}, data)
    try:
        replace_file(path, [data.getvalue()])
    except OSError as error:
        raise SinkError(
            f"cannot write {path}: {error.strerror or error}; {_what_is_there(path)}"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed. Tensors are on the CPU.

    Raises:
        SettingsError: it cannot be read, is damaged, none of ours, or of a newer version.
    """
    again = "start again without --resume, with --overwrite"
    try:
        data = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        found = torch.load(data, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever its zip reader and unpickler met
        raise SettingsError(f"{path} is damaged or no checkpoint; {again}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise SettingsError(
            f"{path} is no checkpoint of this version: expected format {FORMAT}, found"
            f" {kind}; {again}"
        )
    try:
        return Checkpoint(**{item.name: found[item.name] for item in fields(Checkpoint)})
    except KeyError as error:
        raise SettingsError(f"{path} is damaged: it has no {error}; {again}") from error


def fingerprint(settings: Settings) -> dict[str, Any]:
    """Return what decides the numbers of a training: files and folders by what is in them."""
    found: dict[str, Any] = {}
    for item in fields(settings):
        if item.name in MAY_CHANGE:
            continue
        value = getattr(settings, item.name)
        found[item.name] = _content(value) if isinstance(value, Path) else value
    return found


def check_same(
    checkpoint: Checkpoint, settings: Settings, path: Path, option: Callable[[str], str]
) -> None:
    """Refuse to go on with another training than the checkpoint's.

    Args:
        checkpoint: what was read from ``path``.
        settings: those of now.
        path: for the message.
        option: from the name of a setting to what a person types.

    Raises:
        SettingsError: what differs.
    """
    before, now = checkpoint.settings, fingerprint(settings)
    differences = [
        f"{option(name)} was {_words(before.get(name))}, is {_words(now.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise SettingsError(
            f"{path} is of another training: {'; '.join(differences)}. Give the same again, another"
            " --out, or --overwrite to start afresh"
        )


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process left half-written; nobody else may be training there."""
    for path in out.glob(f".{FILE_NAME}.*.part"):
        with contextlib.suppress(OSError):
            path.unlink()


def tensors_of(state: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of everything inside nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors_of(value, f"{name}.{key}".removeprefix("."))
    elif isinstance(state, (list, tuple)):
        for number, value in enumerate(state):
            yield from tensors_of(value, f"{name}.{number}".removeprefix("."))


def _check_finite(checkpoint: Checkpoint) -> None:
    found = [(n, t) for n, t in tensors_of(checkpoint.recipe) if t.is_floating_point()]
    for name, tensor in found:
        if not bool(tensor.isfinite().all()):
            raise Pix2liveError(
                f"{name} became infinite or not a number before step {checkpoint.step}: this is not"
                " saved"
            )


def _what_is_there(path: Path) -> str:
    if path.exists():
        return "the earlier checkpoint is whole: make room, then go on with --resume"
    return "there is no earlier checkpoint"


def _content(path: Path) -> str:
    """A file or folder in a few words that change when what is in it does."""
    digest = hashlib.sha256()
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
            return f"a file with SHA-256 {digest.hexdigest()[:12]}"
        count = 0
        for item in sorted(path.rglob("*")):
            name = item.relative_to(path)
            if item.is_file() and not any(part.startswith(".") for part in name.parts):
                digest.update(f"{name.as_posix()} {item.stat().st_size}\n".encode())
                count += 1
        return f"{count} files ({digest.hexdigest()[:12]})"
    except OSError:
        return "not readable"


def _words(value: object) -> str:
    return "not given" if value is None or value == "" else str(value)


def file_of(out: Path) -> Path:
    """Where the checkpoint of a training is."""
    return out / FILE_NAME
