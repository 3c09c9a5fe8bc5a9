"""Weights that people have, read from the files they come in. Nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from engines.errors import ConversionError
from engines.weights.files import check_safetensors, kind_of, opened
from engines.weights.pickle_names import SAVE_THE_STATE, listed, shown
from engines.weights.pickles import DEEPEST
from engines.weights.torch_files import (
    inspect_legacy,
    inspect_zip,
    is_torchscript_archive,
    zip_records,
)

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_BYTES: Final = 2 * 10**9
"""Of the file, and of its tensors as float32. Real generators have 1 to 800 million bytes."""
LONGEST_NAME: Final = 300
CHUNK_BYTES: Final = 1 << 20

WRAPPERS: Final = (
    *("state_dict", "model_state_dict", "model", "params"),
    *("generator", "netG", "G", "net_G", "gen", "net"),
)
"""Keys under which people save a generator's state dict."""
PREFIXES: Final = ("module.", "_orig_mod.", "netG.", "generator.", "G.")
"""Taken off when all tensors have it. ``model.`` is not here: it is how many families begin."""
GENERATOR: Final = re.compile(
    r"(net_?)?(G|gen|generator)(_?[A-Z0-9][A-Za-z0-9]{0,3}|_[a-z0-9]{1,4})?|net|model"
)
"""A first part of names that is a generator where only a `COMPANION` lies beside it."""
COMPANION: Final = re.compile(
    r"(net_?)?D(_?[A-Z0-9][A-Za-z0-9]{0,3}|_[a-z0-9]{1,4})?|d(_[a-z0-9]{1,4})?"
    r"|(?i:.*(disc|vgg|loss|criterion|perceptual|lpips|inception|metric|optim).*)"
)
"""What only training needs."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of one network, and where they came from."""

    tensors: dict[str, Tensor]
    """On the CPU, contiguous, finite; floating ones float32, whole numbers as they were saved."""
    path: Path
    sha256: str
    """Of the file, hexadecimal."""
    format: str
    """``safetensors``, ``zip pickle`` or ``legacy pickle``."""
    entry: str = ""
    """Which part of a nested file was taken, dotted; empty for a flat one."""
    notes: tuple[str, ...] = ()
    """What a person should know: what was unwrapped, renamed, left out or changed in type."""


def read_weights(path: str | Path, *, entry: str | None = None) -> Weights:
    """Read the weights of one network.

    Args:
        path: .safetensors, or a file of ``torch.save`` with a dictionary of tensors, zip or legacy.
        entry: which part of a file with several networks: a key, a dotted path of keys, or the
            first part of the tensors' names. None finds the only generator.

    Raises:
        ConversionError: the file is something else, is damaged, wants to run code, claims sizes
            that it has not, holds several networks or none, or numbers that are not finite; or
            PyTorch (for .safetensors also safetensors) is missing.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            return _read(file, path, entry)
    except ConversionError as error:
        raise ConversionError(
            f"cannot read weights from {shown(str(path), 200)}: {error}"
        ) from error.__cause__
    except (OSError, MemoryError, RecursionError) as error:
        raise ConversionError(
            f"cannot read weights from {shown(str(path), 200)}: {_reason(error)}"
        ) from error


def is_torchscript(path: str | Path) -> bool:
    """Whether the file is a TorchScript archive. False too where it cannot be read."""
    try:
        with opened(Path(path)) as file:
            return is_torchscript_archive(zip_records(file))
    except (ConversionError, OSError):
        return False


def _read(file: IO[bytes], path: Path, entry: str | None) -> Weights:
    kind = kind_of(file, path.name)
    size = file.seek(0, 2)
    if size > LARGEST_BYTES:
        raise ConversionError(f"it has {size:,} bytes, the limit is {LARGEST_BYTES:,}")
    notes: list[str] = []
    saved: Any
    if kind == "safetensors":
        check_safetensors(file)
        saved = _load_safetensors(path)
    else:
        found = inspect_zip(file) if kind == "zip pickle" else inspect_legacy(file)
        if any(storage.location.startswith("cuda") for storage in found.storages.values()):
            notes.append("the tensors were saved on CUDA")
        saved = _torch_load(file)
    where, part = _part(saved, entry, notes)
    tensors = _ready(_named(part, where, notes), notes)
    return Weights(tensors, path, _sha256(file), kind, ".".join(where), tuple(notes))


def _reason(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0] or type(error).__name__, 200)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _missing(package: str) -> ConversionError:
    return ConversionError(f"{package} is not installed; run pip install 'pix2live[convert]'")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        import torch  # noqa: F401  (safetensors needs it, and says so less clearly)
    except ImportError as error:
        raise _missing("PyTorch") from error
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise _missing("safetensors") from error
    try:
        with safe_open(str(path), framework="pt", device="cpu") as found:
            # Copies, or the tensors would change with the file.
            return {name: found.get_tensor(name).clone() for name in found.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors and torch raise what they like
        raise ConversionError(f"safetensors cannot read it: {_reason(error)}") from error


def _torch_load(file: IO[bytes]) -> Any:
    try:
        import torch
    except ImportError as error:
        raise _missing("PyTorch") from error
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch and its unpickler raise what they like
        raise ConversionError(
            f"torch.load(weights_only=True) cannot read it: {_reason(error)}"
        ) from error


def _tensors_in(node: dict[Any, Any]) -> dict[str, Tensor]:
    import torch

    return {
        name: item
        for name, item in node.items()
        if isinstance(name, str) and isinstance(item, torch.Tensor)
    }


def _is_network(node: dict[Any, Any]) -> bool:
    """Whether some tensor right in it has an axis: single numbers are losses and counters."""
    return any(tensor.ndim for tensor in _tensors_in(node).values())


def _dictionaries(node: dict[Any, Any], seen: dict[int, bool]) -> dict[str, dict[Any, Any]]:
    """Return the dictionaries in ``node`` that have tensors somewhere; no optimisers."""
    return {
        key: child
        for key, child in node.items()
        if isinstance(key, str) and isinstance(child, dict) and _has_tensors(child, seen)
    }


def _has_tensors(node: dict[Any, Any], seen: dict[int, bool]) -> bool:
    if id(node) not in seen:
        seen[id(node)] = False  # should it hold itself
        optimiser = "param_groups" in node
        seen[id(node)] = not optimiser and (_is_network(node) or bool(_dictionaries(node, seen)))
    return seen[id(node)]


def _part(saved: Any, entry: str | None, notes: list[str]) -> tuple[list[str], dict[Any, Any]]:
    """Return the path to the dictionary of one network's tensors, and the dictionary."""
    if not isinstance(saved, dict):
        shape = getattr(saved, "shape", None)
        what = f"a {type(saved).__name__}" if shape is None else f"a single tensor {tuple(shape)}"
        raise ConversionError(f"it is {what}; expected a dictionary of tensors: {SAVE_THE_STATE}")
    if "param_groups" in saved:
        raise ConversionError(
            f"it is the state of an optimiser, not of a network; {SAVE_THE_STATE}"
        )
    seen: dict[int, bool] = {}
    if not _has_tensors(saved, seen):
        raise ConversionError(
            f"it is a dictionary without tensors; its keys: {listed(saved) or 'none'}"
        )
    path: list[str] = []
    node, left = saved, entry or ""
    while True:
        inner = _dictionaries(node, seen)
        fitting = [key for key in inner if f"{left}.".startswith(f"{key}.")]
        if left and fitting:
            key = max(fitting, key=len)
            left = left[len(key) + 1 :]
        elif left and any(name.startswith(f"{left}.") for name in _tensors_in(node)):
            return [*path, left], _under(left, node)
        elif (wrapper := _wrapper(node, inner, path, left)) is not None:
            key = wrapper
            beside = [name for name in inner if name != key]
            rest = f"; beside it, not taken: {listed(beside)}" if beside else ""
            notes.append(f"unwrapped {shown(key)!r}{rest}")
        else:
            break
        path.append(key)
        node = inner[key]
        if len(path) > DEEPEST or not _is_usable(key):
            raise ConversionError(f"its dictionaries cannot be named: {listed(path)}")
    if left:
        heads = dict.fromkeys(name.partition(".")[0] for name in _tensors_in(node))
        dotted = [".".join([*path, head]) for head in heads]
        raise ConversionError(f"it has no entry {shown(left)!r}; it has: {listed(dotted)}")
    return path, node


def _wrapper(
    node: dict[Any, Any], inner: dict[str, dict[Any, Any]], path: list[str], left: str
) -> str | None:
    """Return the key of the dictionary to go into, or None where the tensors lie right here."""
    averaged = [key for key in inner if key.endswith("_ema") and not COMPANION.fullmatch(key)]
    known = averaged if len(averaged) == 1 else [key for key in inner if key in WRAPPERS]
    if not known and _is_network(node):
        return None
    found = known or [key for key in inner if not COMPANION.fullmatch(key)] or list(inner)
    if len(found) > 1 or (left and not known):
        raise _several(path, inner, left)
    return found[0]


def _several(path: list[str], names: Iterable[str], left: str = "") -> ConversionError:
    dotted = [".".join([*path, name]) for name in names]
    what = f"it has no entry {shown(left)!r}" if left else "it holds several networks"
    return ConversionError(f"{what}: {listed(dotted)}; choose one with --entry {shown(dotted[0])}")


def _is_usable(name: str) -> bool:
    return name.isprintable() and 0 < len(name) <= LONGEST_NAME


def _under(head: str, tensors: dict[Any, Any]) -> dict[Any, Any]:
    start = f"{head}."
    return {
        name[len(start) :]: tensor
        for name, tensor in _tensors_in(tensors).items()
        if name.startswith(start)
    }


def _named(node: dict[Any, Any], path: list[str], notes: list[str]) -> dict[str, Tensor]:
    """Return the tensors under the names that the network itself gives them."""
    tensors = _tensors_in(node)
    others = [name for name in node if name not in tensors]
    if others:
        notes.append(f"left out what is no tensor: {listed(others)}")
    while True:
        for name in tensors:
            if not _is_usable(name):
                raise ConversionError(f"a tensor has no usable name: {shown(name)!r}")
        if not all("." in name for name in tensors):
            return tensors
        prefix = next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), "")
        if prefix:
            tensors = _under(prefix[:-1], tensors)
            notes.append(f"stripped prefix {prefix!r}")
            continue
        heads = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
        ours = [head for head in heads if GENERATOR.fullmatch(head)]
        beside = [head for head in heads if head not in ours]
        plain = set(ours) <= {"net", "model"} and (len(ours) > 1 or not beside)
        if not ours or plain or not all(COMPANION.fullmatch(head) for head in beside):
            return tensors
        if len(ours) > 1:
            raise _several(path, ours)
        path.append(ours[0])
        tensors = _under(ours[0], tensors)
        notes.append(f"took the tensors of {ours[0]!r}; beside it, not taken: {listed(beside)}")


def _ready(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Return float32 and whole-number tensors, contiguous, without gradients, all finite."""
    import torch

    for name, tensor in tensors.items():
        plain = tensor.layout is torch.strided and not tensor.is_quantized
        if not plain or tensor.is_complex() or tensor.device.type != "cpu":
            raise ConversionError(
                f"tensor {name} is sparse, quantised, complex or without numbers; expected a plain"
                " one"
            )
    total = sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())
        for tensor in tensors.values()
    )
    if total > LARGEST_BYTES:
        raise ConversionError(f"its tensors take {total:,} bytes, the limit is {LARGEST_BYTES:,}")
    ready = {}
    changed = set()
    for name, tensor in tensors.items():
        found = tensor.detach()
        if found.is_floating_point():
            if found.dtype is not torch.float32:
                changed.add(str(found.dtype).removeprefix("torch."))
            found = found.to(torch.float32)
            if not bool(torch.isfinite(found).all()):
                raise ConversionError(
                    f"tensor {name} has numbers that are NaN or infinite: the training went wrong,"
                    " or the file is damaged; take an earlier checkpoint"
                )
        ready[name] = found.contiguous()
    notes.extend(f"{dtype} -> float32" for dtype in sorted(changed))
    return ready
