"""From finished networks to filters: frame models with cards, proven like any conversion."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from torch import nn

from engines import Card, ConversionError, Pix2liveError, SinkError, write_frame_model
from engines.export import frame_model_graph
from engines.proof import torch_levels
from tools.conversion.original import Original
from tools.conversion.proving import Prover, RefusedError
from tools.train.pairs import Picture
from tools.train.recipe import Recipe
from tools.train.screen import Screen

if TYPE_CHECKING:
    import onnx

MOST_FRAMES: Final = 12


def export_filters(recipe: Recipe, step: int, screen: Screen | None = None) -> list[Path]:
    """Write ``OUT/NAME.onnx`` for every generator of a recipe, all proven or none written.

    The networks move to the CPU: the recipe cannot train after that.

    Args:
        recipe: prepared, and trained or loaded.
        step: how many steps it has learned; the card says it where that is not all.
        screen: what is shown; None shows nothing.

    Raises:
        ConversionError: a network gives no pictures, or its frame model other ones.
        SinkError, ModelError: a file cannot be written.
    """
    screen = screen or Screen(loud=False)
    out = recipe.settings.out
    networks = recipe.finished()
    with _drafts(out) as folder:
        drafts = []
        for number, (name, network) in enumerate(networks.items()):
            screen.preparing("export and proof", number / len(networks))
            drafts.append(folder / f"{name}.onnx")
            card = _card(recipe, name, network, step, alone=len(networks) == 1)
            try:
                _prove(network.eval(), card, recipe.proof_frames(name), drafts[-1], screen)
            except ConversionError as error:
                raise ConversionError(f"{name} is not written: {error}") from error
        screen.preparing("export and proof", 1.0)
        paths = [out / draft.name for draft in drafts]
        try:
            for draft, path in zip(drafts, paths):
                os.replace(draft, path)
        except OSError as error:
            raise SinkError(f"cannot write {out}: {error.strerror or error}") from error
    return paths


def weights_sha256(network: nn.Module) -> str:
    """Of names and values, in hexadecimal; the network is on the CPU."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fitting_frames(frames: Sequence[Picture], stride: int) -> list[Picture]:
    """Return frames of one size that the network takes: as many as there are of the commonest.

    uint8 (H, W, 3) BGR; cut at the right and below, or enlarged where they are too small.
    """
    by_size: defaultdict[tuple[int, ...], list[Picture]] = defaultdict(list)
    for frame in frames:
        fitted = _fitting(frame, stride)
        by_size[fitted.shape].append(fitted)
    return max(by_size.values(), key=len, default=[])[:MOST_FRAMES]


def _fitting(frame: Picture, stride: int) -> Picture:
    height, width = frame.shape[:2]
    if min(height, width) < stride:
        scale = stride / min(height, width)
        size = [max(stride, round(side * scale)) for side in (width, height)]
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        height, width = frame.shape[:2]
    return np.ascontiguousarray(frame[: height // stride * stride, : width // stride * stride])


def _card(recipe: Recipe, name: str, network: Any, step: int, *, alone: bool) -> Card:
    settings = recipe.settings
    learned = recipe.summary()
    if step < settings.steps:
        learned += f"; stopped after {step} of these steps"
    title = settings.title or name
    return Card(
        name=name,
        title=title if alone or not settings.title else f"{title} ({name})",
        task=recipe.task,
        domains=recipe.domains_of(name),
        architecture=str(getattr(network, "architecture", type(network).__name__)),
        stride=int(getattr(network, "stride", 1)),
        licence=settings.licence,
        origin=settings.origin,
        weights_sha256=weights_sha256(network),
        training=learned,
        command=settings.command,
    )


def _prove(
    network: nn.Module, card: Card, frames: Sequence[Picture], path: Path, screen: Screen
) -> None:
    """Write the frame model with everything on its card that could be proven here."""
    from engines.graphs.half import to_half

    master = frame_model_graph(network, card.stride)
    original = Original(
        card=card,
        described="PyTorch",
        levels=torch_levels(network),
        graph=lambda _: master,
    )
    fitting = fitting_frames(frames, card.stride)
    if not fitting:
        raise ConversionError("there are no frames to prove it on")
    prover = Prover(original, tuple(fitting), _no_tick)
    try:
        prover.check_original()
    except ConversionError as error:
        reason = str(error).split(":")[0]
        raise ConversionError(
            f"what the network gives is no picture ({reason}); see the sample sheet"
        ) from error
    write_frame_model(master, card, path)
    prover.prove_master(path)
    try:
        half: onnx.ModelProto = to_half(master).model
        prover.prove_half(half, path.parent)
    except RefusedError as error:
        screen.say(f"{card.name}: will run in FP32, not in FP16: {error.step.why}")
    except ConversionError as error:
        screen.say(f"{card.name}: no proof of FP16: {error}")
    prover.prove_backends(path)
    for step in prover.steps:
        if step.proof is None:
            screen.say(f"{card.name}: {step.what}: {step.verdict}, {step.why}")
        else:
            screen.say(f"{card.name}: {step.what}: {step.verdict}, {step.proof.psnr_db:.1f} dB")
    write_frame_model(master, replace(card, proofs=prover.card_proofs()), path)


def _no_tick(what: str, done: int, total: int) -> None:
    """These networks are fast: the bar shows which of them it is."""


@contextlib.contextmanager
def _drafts(out: Path) -> Iterator[Path]:
    """A folder inside ``out``, gone afterwards."""
    try:
        with tempfile.TemporaryDirectory(prefix=".export.", suffix=".part", dir=out) as folder:
            yield Path(folder)
    except Pix2liveError:
        raise
    except OSError as error:
        raise SinkError(f"cannot write {out}: {error.strerror or error}") from error
