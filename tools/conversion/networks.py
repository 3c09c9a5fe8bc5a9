"""Networks whose PyTorch module is known: public families, and a person's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines import Card, ConversionError, Pix2liveError
from engines.proof import torch_levels
from tools.conversion.original import Original, Words, card_name, find_stride

if TYPE_CHECKING:
    from torch import nn

TASKS: Final = {
    "fast-neural-style": "style",
    "resnet": "unpaired",
    "unet": "paired",
    "pix2pixhd": "paired",
    "pix2pixhd-local": "paired",
    "animegan-v2": "unpaired",
    "cartoongan": "unpaired",
}
MODULE_WORDS: Final = (
    *("arguments", "range", "range_out", "colour", "colour_out", "layout"),
    *("stride", "entry"),
)
STATISTICS_NOTES: Final = {
    "running": "normalised with the statistics of the training",
    "batch": "normalised with each picture's own statistics, as the authors test",
}


def checkpoint_original(path: Path, words: Words) -> Original:
    """Return the network that a file of weights belongs to, told from its tensors.

    Raises:
        ConversionError: the file cannot be read, or the network is none that pix2live knows.
    """
    from engines.generators.families import recognise
    from engines.weights import read_weights

    words.refuse_others("weights of a known family", ("entry", "family", "statistics"))
    weights = read_weights(path, entry=words.entry)
    found = recognise(weights.tensors, family=words.family)
    generator: Any = found.generator
    notes = [*weights.notes, *found.notes]
    if words.statistics is not None:
        if not hasattr(generator, "statistics"):
            raise ConversionError(
                f"--statistics is for U-Nets with batch normalisation, not {generator.architecture}"
            )
        generator.statistics = words.statistics
        notes = [note for note in notes if "unless told otherwise" not in note]
        notes.append(STATISTICS_NOTES[words.statistics])
    card = Card(
        name=card_name(path.stem),
        task=TASKS.get(found.family.name, "other"),
        architecture=generator.architecture,
        stride=generator.stride,
        origin=path.name + (f", {weights.entry}" if weights.entry else ""),
        weights_sha256=weights.sha256,
        training="; ".join(notes),
    )
    return _from_torch(generator, card, found.family.name, tuple(notes))


def _from_torch(generator: nn.Module, card: Card, family: str, notes: tuple[str, ...]) -> Original:
    from engines.export import frame_model_graph

    return Original(
        card=card,
        described="PyTorch",
        levels=torch_levels(generator),
        graph=lambda size: frame_model_graph(generator, card.stride, size),
        family=family,
        notes=notes,
    )


def module_original(words: Words) -> Original:
    """A person's own network, from a Python file of theirs; weights are optional."""
    assert words.module is not None
    words.refuse_others("a network of your own", MODULE_WORDS)
    generator = _load_class(words.module, words.arguments)
    sha256 = ""
    notes: tuple[str, ...] = ("no weights were given: it has those that its class made",)
    if words.source is not None:
        from engines.weights import read_weights

        weights = read_weights(Path(words.source), entry=words.entry)
        try:
            generator.load_state_dict(weights.tensors)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            raise ConversionError(
                f"{words.source} does not fit {words.module}: {' '.join(lines[:3])}"
            ) from error
        sha256, notes = weights.sha256, weights.notes
    generator.eval().requires_grad_(False)
    said: Any = generator
    if words.range is not None or not hasattr(generator, "takes"):
        said.takes, said.gives = words.pictures()
    known = getattr(generator, "stride", None)  # of a convolution it is a pair
    stride = words.stride or (known if isinstance(known, int) else 0)
    stride = stride or find_stride(torch_levels(generator), words.size)
    name = words.module.rpartition(":")[2]
    card = Card(
        name=card_name(Path(words.source).stem if words.source else name),
        architecture=getattr(generator, "architecture", name),
        stride=stride,
        origin=Path(words.source).name if words.source else words.module,
        weights_sha256=sha256,
        training="; ".join(notes),
    )
    return _from_torch(generator, card, "own module", notes)


def _load_class(reference: str, arguments: dict[str, Any]) -> nn.Module:
    """Import ``file.py:Class`` and call it with ``arguments``. This runs the person's own code."""
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ConversionError(f"--module takes FILE.py:CLASS, found {reference!r}")
    if not path.is_file():
        raise ConversionError(f"--module: no file {path}")
    from torch import nn

    # Under a name of its own: a file may be called json.py. Its folder comes last in the path, and
    # stays there, since a network may import its neighbours when it runs.
    spec = importlib.util.spec_from_file_location(f"pix2live_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConversionError(f"--module: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        if not hasattr(module, name):
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise ConversionError(
                f"--module: {path} has no {name}, only {', '.join(sorted(classes)) or 'no class'}"
            )
        made = getattr(module, name)(**arguments)
    except Pix2liveError:
        raise
    except (Exception, SystemExit) as error:
        raise ConversionError(
            f"--module: {name} of {path} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConversionError(f"--module: {name} is no torch.nn.Module")
    return made
