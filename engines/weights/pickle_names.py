"""What a pickle names, read without importing any of it, and the words for what is refused."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from engines.errors import ConversionError

MOST_STEPS: Final = 500_000
ITEM_BYTES: Final = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
STORAGES: Final = {
    f"{module} {kind}": kind for module in ("torch", "torch.cuda") for kind in ITEM_BYTES
}
DTYPES: Final = {
    *("torch float64", "torch float32", "torch float16", "torch bfloat16", "torch bool"),
    *("torch int64", "torch int32", "torch int16", "torch int8", "torch uint8"),
}
CALLED: Final = {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"),
    *("torch._utils _rebuild_parameter", "torch Size", "torch device", "_codecs encode"),
    *("collections OrderedDict", "collections Counter", "builtins set", "__builtin__ set"),
}
ALLOWED: Final = CALLED | DTYPES | STORAGES.keys()
UNUSUAL: Final = (
    *(("_rebuild_sparse", "sparse"), ("torch.serialization _get_layout", "sparse")),
    *(("_rebuild_qtensor", "quantised"), ("torch QInt", "quantised"), ("torch QUInt", "quantised")),
    *(("_rebuild_meta", "meta"), ("_rebuild_nested", "nested"), ("torch Complex", "complex")),
    *((part, "unusual (float8 or unsigned)") for part in ("_rebuild_tensor_v3", "UntypedStorage")),
    *((part, "unusual (float8 or unsigned)") for part in ("torch float", "torch uint")),
)
"""Part of a name -> the kind of tensor that it makes, which no generator here has."""

TEXTS: Final = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
}
AGAIN: Final = "download it again"
TENSORFLOW: Final = "make an ONNX file of it with tf2onnx, and convert that"
COMPRESSED: Final = "unpack it first; expected the file with weights in it"
SAVE_THE_STATE: Final = (
    "in the program that made it, save the state dict: torch.save(net.state_dict(), 'weights.pth')"
)
Step = tuple[str, Any]


def shown(text: object, longest: int = 60) -> str:
    """Return a stranger's text as it can stand in one line: shortened, nothing but printable."""
    whole = str(text)
    clean = "".join(c if c.isprintable() else "?" for c in whole[:longest])
    return f"{clean}... ({len(whole):,} characters)" if len(whole) > longest else clean


def listed(items: Iterable[object], most: int = 8) -> str:
    """Return ``a, b, c and 5 more``, each as `shown`."""
    texts = [shown(item) for item in items]
    rest = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + rest


def named_globals(data: bytes) -> tuple[str, ...]:
    """Return every ``module name`` that a pickle would import, in order, as far as it can be read.

    Also those of a pickle that is damaged, or in a protocol that torch.load would not take.
    """
    return tuple(dict.fromkeys(names_in(steps_of(data, 0)[0])))


def refuse_names(names: Iterable[str]) -> None:
    """Raise a ConversionError that lists what a pickle names, ``module name``, and may not."""
    found = list(dict.fromkeys(name for name in names if name not in ALLOWED))
    if not found:
        return
    dotted = listed((name.replace(" ", ".") for name in found), 6)
    kinds = [kind for name in found for part, kind in UNUSUAL if part in name]
    if len(kinds) == len(found):
        raise ConversionError(f"it has {kinds[0]} tensors ({dotted}); expected plain ones")
    if any(name.startswith("torch.nn.modules.") for name in found):
        own = [name for name in found if not name.startswith(("torch", "collections"))] or found
        network = shown(own[0].replace(" ", "."))
        raise ConversionError(
            f"it is a whole pickled network ({network}), which needs its own code to run;"
            f" {SAVE_THE_STATE}"
        )
    if all(name.startswith("numpy") for name in found):
        raise ConversionError(
            f"it holds numpy values ({dotted}); expected tensors: turn each into one with"
            " torch.from_numpy and save them with torch.save, or save net.state_dict() alone"
        )
    python_2 = any(name.startswith(("copy_reg ", "__builtin__ ", "cStringIO ")) for name in found)
    raise ConversionError(
        f"it is no plain dictionary of tensors: it wants to run {dotted}; nothing was run."
        f"{' It was pickled with Python 2.' if python_2 else ''}"
        f" If you trust it, {SAVE_THE_STATE}"
    )


def steps_of(data: bytes, start: int) -> tuple[list[Step], int, str]:
    """Return the steps of a pickle's program, its end, and what stopped the reading early."""
    stream = io.BytesIO(data)
    stream.seek(start)
    steps: list[Step] = []
    try:
        for code, argument, _ in pickletools.genops(stream):
            steps.append((code.name, argument))
            if len(steps) > MOST_STEPS:
                return steps, start, f"more than {MOST_STEPS:,} steps"
    except Exception as error:  # noqa: BLE001  (pickletools raises whatever the bytes led to)
        return steps, start, str(error)
    return steps, stream.tell(), ""


def names_in(steps: Iterable[Step]) -> Iterator[str]:
    """Yield ``module name`` of all that the steps would import, followed through the memo."""
    memo: dict[Any, str] = {}
    texts: list[str] = ["?", "?"]
    for name, argument in steps:
        if name in TEXTS:
            texts.append(str(argument))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            texts.append(memo.get(argument, "?"))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = texts[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = texts[-1]
        elif name == "STACK_GLOBAL":
            yield f"{texts[-2]} {texts[-1]}"
        elif name in ("GLOBAL", "INST"):
            yield str(argument)
        elif name in ("EXT1", "EXT2", "EXT4"):
            yield f"copyreg extension_{argument}"
