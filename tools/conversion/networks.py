"""Networks whose PyTorch module is known: public families, and a person's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines import Card, ConversionError, Pix2liveError
from engines.proof import torch_reference
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
        translate=torch_reference(generator),
        graph=lambda size: frame_model_graph(generator, card.stride, size),
        family=family,
        notes=notes,
    )


def module_original(words: Words) -> Original:
    """A person's own network, from a Python file of theirs; weights are optional."""
    assert words.module is not None
    generator = _load_class(words.module, words.arguments)
    sha256 = ""
    notes: tuple[str, ...] = ()
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
    translate = torch_reference(generator)
    stride = words.stride or getattr(generator, "stride", None) or find_stride(translate)
    name = words.module.rpartition(":")[2]
    card = Card(
        name=card_name(Path(words.source).stem if words.source else name),
        architecture=getattr(generator, "architecture", name),
        stride=stride,
        origin=Path(words.source).name if words.source else words.module,
        weights_sha256=sha256,
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

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConversionError(f"--module: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbours, as `python file.py` has them
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        made = getattr(module, name)(**arguments)
    except Pix2liveError:
        raise
    except Exception as error:
        raise ConversionError(
            f"--module: {name} of {path} cannot be made: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(made, nn.Module):
        raise ConversionError(f"--module: {name} is no torch.nn.Module")
    return made
