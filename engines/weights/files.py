"""The files that weights come in: which kind it is, and whether its layout is sound.

Everything is checked before torch or safetensors sees the file: sizes and offsets in it are a
stranger's claims until they have been held against the length of the file.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from engines.errors import ConversionError
from engines.weights.pickle_names import (
    AGAIN,
    COMPRESSED,
    TENSORFLOW,
    listed,
    named_globals,
    refuse_names,
    shown,
)
from engines.weights.pickles import LARGEST_PICKLE_BYTES, LEGACY_MAGIC, MOST_AXES

HEAD_BYTES: Final = 512
LARGEST_HEADER_BYTES: Final = 4 << 20

FIRST_BYTES: Final = (
    (0, b"version https://git-lfs", "it is a Git LFS pointer, not the file: run git lfs pull"),
    (0, b"\x89HDF", f"it is an HDF5 file (Keras): {TENSORFLOW}"),
    (4, b"TFL3", f"it is a TensorFlow Lite model: {TENSORFLOW}"),
    (0, b"\x08\x01\x12", f"it is a TensorFlow SavedModel: {TENSORFLOW}"),
    (0, b"\x93NUMPY", "it is a numpy array; expected a dictionary of named tensors"),
    (0, b"GGUF", "it is a GGUF file, for language models; expected a generator of pictures"),
    (0, b"\x03\0\0\0\x01\0\0\0", "it is a Torch7 (Lua) file; look for a PyTorch version of it"),
    (0, b"\x04\0\0\0\x01\0\0\0", "it is a Torch7 (Lua) file; look for a PyTorch version of it"),
    (0, b"\x1f\x8b", f"it is compressed with gzip: {COMPRESSED}"),
    (0, b"7z\xbc\xaf", f"it is a 7-Zip archive: {COMPRESSED}"),
    (0, b"Rar!", f"it is a RAR archive: {COMPRESSED}"),
    (257, b"ustar", f"it is a tar archive: {COMPRESSED}"),
    (0, b"\x89PNG", "it is a picture; expected weights"),
    (0, b"\xff\xd8\xff", "it is a picture; expected weights"),
)
"""(offset, bytes, what to say) of files that people take for weights."""

ONNX_SECOND_FIELDS: Final = b"\x12\x1a\x22\x28\x32\x3a\x42"
PAGE_STARTS: Final = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b'{"')
OLD_PICKLE_STARTS: Final = (b"(dp", b"(lp", b"(i", b"ccopy_reg\n", b"cnumpy", b"}q", b"]q")

FLOAT_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
INTEGER_BYTES: Final = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class _NoDescriptor(io.BufferedReader):
    """Without a file descriptor torch does not try whether a legacy file is a tar archive."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; anything else is a ConversionError."""
    try:
        if path.is_dir():
            inside = sorted(item.name for item in path.iterdir() if item.is_file())
            if "saved_model.pb" in inside:
                raise ConversionError(f"it is a TensorFlow SavedModel: {TENSORFLOW}")
            raise ConversionError(
                f"it is a folder; name one file of it: {listed(inside) or 'it has none'}"
            )
        if path.exists() and not path.is_file():
            raise ConversionError("it is no regular file; expected a file with weights")
        file = _NoDescriptor(io.FileIO(path))
    except FileNotFoundError as error:
        raise ConversionError("there is no such file; check the name") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConversionError(f"it cannot be opened: {shown(reason)}") from error
    with file:
        yield file


def kind_of(file: IO[bytes], name: str) -> str:
    """Return ``safetensors``, ``zip pickle`` or ``legacy pickle`` by the first bytes.

    Raises:
        ConversionError: it is something else; the message says what, and what to do with it.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    suffix = name.lower().rpartition(".")[2]
    if not head:
        raise ConversionError(f"it is empty (0 bytes); {AGAIN}")
    if head.startswith(b"PK\x03\x04"):
        return "zip pickle"
    if head[:1] == b"\x80" and LEGACY_MAGIC in head[:32]:
        return "legacy pickle"
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 40:
        return "safetensors"
    for offset, start, advice in FIRST_BYTES:
        if head[offset : offset + len(start)] == start:
            raise ConversionError(advice)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower().startswith(PAGE_STARTS):
        raise ConversionError(
            "it is a web page or an error message under the name of a file, so the download"
            f" failed: {AGAIN}, in a browser if need be"
        )
    if suffix == "onnx" or (
        head[0] == 8 and 3 <= head[1:2][0] < 32 and head[2:3] in ONNX_SECOND_FIELDS
    ):
        raise ConversionError("it is an ONNX model: give the .onnx file to convert directly")
    if ".ckpt" in name or suffix in ("pb", "meta", "index", "keras", "h5"):
        raise ConversionError(f"it looks like a file of TensorFlow: {TENSORFLOW}")
    if suffix == "safetensors":
        raise ConversionError(f"it has no header of safetensors: it is damaged; {AGAIN}")
    if head[:1] == b"\x80" or head.startswith(OLD_PICKLE_STARTS) or suffix in ("pkl", "pickle"):
        file.seek(0)
        names = named_globals(file.read(LARGEST_PICKLE_BYTES))
        refuse_names(names)
        raise ConversionError("it is a pickle, but none of torch.save: it has no tensors")
    raise ConversionError(
        "it is no file of weights: expected .safetensors or a file of torch.save, found the"
        f" first bytes {head[:8].hex(' ')}"
    )


def check_safetensors(file: IO[bytes]) -> None:
    """Check the header of a file of safetensors: shapes, kinds, and that no byte has two owners.

    Raises:
        ConversionError: it is damaged, claims what it has not, or has tensors of unusual kinds.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, LARGEST_HEADER_BYTES):
        raise ConversionError(
            f"its header claims {length:,} bytes, the file has {size:,}: it is damaged; {AGAIN}"
        )
    try:
        header = json.loads(file.read(length), object_pairs_hook=_without_twins)
    except ConversionError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"its header of safetensors is damaged; {AGAIN}") from error
    if not isinstance(header, dict):
        raise ConversionError(f"its header of safetensors is no dictionary; {AGAIN}")
    header.pop("__metadata__", None)
    spans = sorted(_safetensor_span(name, found) for name, found in header.items())
    free = 0
    for start, end, name in spans:
        if start != free:
            raise ConversionError(f"tensor {shown(name)} overlaps another, or leaves a hole")
        free = end
    if free != size - 8 - length:
        raise ConversionError(
            f"its tensors take {free:,} bytes, the file has {size - 8 - length:,} for them: it is"
            f" damaged; {AGAIN}"
        )


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ConversionError("its header of safetensors has one name twice")
    return found


def _safetensor_span(name: str, found: Any) -> tuple[int, int, str]:
    entry = found if isinstance(found, dict) else {}
    kind: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    bytes_each = {**FLOAT_BYTES, **INTEGER_BYTES}.get(kind) if isinstance(kind, str) else None
    if isinstance(kind, str) and bytes_each is None:
        raise ConversionError(
            f"tensor {shown(name)} is of kind {shown(kind)}; expected {listed(FLOAT_BYTES)} or"
            " whole numbers"
        )
    numbers = [*shape, *span] if isinstance(shape, list) and isinstance(span, list) else [None]
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers) or len(span) != 2:
        raise ConversionError(f"tensor {shown(name)} has no usable shape or place; {AGAIN}")
    axes = shape[: MOST_AXES + 1]
    # An axis without items must not hide a long one.
    fits = len(axes) <= MOST_AXES and math.prod(max(length, 1) for length in axes) < 1 << 48
    if not fits or math.prod(axes) * (bytes_each or 0) != span[1] - span[0]:
        raise ConversionError(
            f"tensor {shown(name)} of shape {shown(shape)} does not fit into its"
            f" {span[1] - span[0]:,} bytes: it is damaged; {AGAIN}"
        )
    return span[0], span[1], name
