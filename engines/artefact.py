"""Engine files: what an engine was built for, whole or refused.

An artefact is one file: a line with the format and the SHA-256 of the next line, a line of JSON
(key, facts, length and SHA-256 of the payload), and the payload. It is data: nothing in it is
ever executed or unpickled here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.model import Size

MAGIC: Final = b"pix2live engine"
FORMAT: Final = 1
SUFFIX: Final = ".engine"
PART_SUFFIX: Final = ".part"
LONGEST_HEADER: Final = 1 << 20
BUILD_AGAIN: Final = "build it again here (pix2live convert)"


@dataclass(frozen=True, slots=True)
class ArtefactKey:
    """Everything that decides what an engine is. Sizes are (width, height) in pixels."""

    model_sha256: str
    smallest: Size
    best: Size
    largest: Size
    precision: str
    backend: str
    backend_version: str
    device: str | tuple[str, ...]
    """The name of the device, or the compute capabilities that the engine was built for."""
    driver: str = ""
    """Empty when the engine does not depend on it."""
    options: str = ""
    """What else was asked of the builder, in words of the backend."""

    def to_json(self) -> str:
        """Return the canonical form: the same text for the same key, everywhere."""
        return canonical_json(asdict(self))

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ArtefactKey:
        """Read what `to_json` wrote, parsed.

        Raises:
            TypeError: a field is missing, unknown or of another type.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in dict(raw).items()
        }
        sizes = [values.pop(name, ()) for name in ("smallest", "best", "largest")]
        device = values.pop("device", None)
        names = [device] if isinstance(device, str) else device
        if [[type(side) for side in size] for size in sizes] != [[int, int]] * 3 or not all(
            isinstance(text, str) for text in (*values.values(), *names)
        ):
            raise TypeError(f"an engine cannot have the key {raw}")
        return cls(smallest=sizes[0], best=sizes[1], largest=sizes[2], device=device, **values)

    def differences(self, found: ArtefactKey) -> str:
        """Return in words what is another in ``found`` than here; empty when nothing is."""
        here, there = asdict(self), asdict(found)
        words = {"model_sha256": "model", "backend_version": f"{self.backend} version"}
        return "; ".join(
            f"{words.get(name, name)} {_words(there[name])}, here {_words(here[name])}"
            for name in here
            if here[name] != there[name]
        )


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled engine, checked."""

    key: ArtefactKey
    payload: bytes = field(repr=False)
    facts: dict[str, Any]
    """JSON: what a person should know, such as layers and proofs."""
    built: bool = False
    """Whether it was built just now."""
    note: str = ""
    """One line: why an earlier one was not taken, or why this one was not kept."""


def engine_file(model: Path, backend: str, size: Size | None = None) -> Path:
    """Return where `pix2live convert` puts the engine of a model.

    ``comic.onnx`` -> ``comic.640x360.tensorrt.engine``; without ``size``, for an engine that takes
    a range of sizes, ``comic.tensorrt.engine``.
    """
    sides = f".{size[0]}x{size[1]}" if size is not None else ""
    return model.with_name(f"{model.stem}{sides}.{backend}{SUFFIX}")


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write ``parts`` beside ``path`` and put them in its place in one step.

    Raises:
        OSError: nothing was changed.
    """
    writer = f"{os.getpid()}.{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}{PART_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # after the replacement there is none
            temporary.unlink()


def write_artefact(path: Path, key: ArtefactKey, payload: bytes, facts: dict[str, Any]) -> None:
    """Write an engine file; it is there whole or not at all.

    Raises:
        EngineError: it cannot be written there, or ``facts`` are no JSON.
    """
    try:
        header = canonical_json(
            {
                "key": asdict(key),
                "facts": facts,
                "payload_bytes": len(payload),
                "payload_sha256": hashlib.sha256(payload).hexdigest(),
            }
        ).encode()
    except (TypeError, ValueError) as error:
        raise EngineError(f"the facts of an engine must be JSON: {error}") from error
    magic = b"%s %d %s\n" % (MAGIC, FORMAT, hashlib.sha256(header).hexdigest().encode())
    try:
        replace_file(path, (magic, header, b"\n", payload))
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror or error}") from error


def read_artefact(path: Path, expected: ArtefactKey | None = None) -> Artefact:
    """Read and check an engine file.

    Args:
        path: the file.
        expected: what it has to be built for; None takes any.

    Raises:
        EngineError: there is none, it is none of pix2live's, of another version of the format, cut
            off, damaged, or built for something else.
    """
    with _opened(path) as file:
        header = _read_header(path, file)
        key, length = header.key, header.payload_bytes
        if expected is not None and key != expected:
            raise EngineError(
                f"{path} was built for something else: {expected.differences(key)}; {BUILD_AGAIN}"
            )
        found = os.fstat(file.fileno()).st_size - file.tell()
        if found < length:
            raise EngineError(
                f"{path} is cut off: {length} bytes of engine expected, {found} found;"
                f" {BUILD_AGAIN}"
            )
        payload = file.read(length)
    if found != length or hashlib.sha256(payload).hexdigest() != header.payload_sha256:
        raise EngineError(f"{path} is damaged: its checksum is another; {BUILD_AGAIN}")
    return Artefact(key, payload, header.facts)


def read_key(path: Path) -> ArtefactKey:
    """Return what an engine file was built for, without reading the engine.

    Raises:
        EngineError: as `read_artefact`, as far as the header tells.
    """
    with _opened(path) as file:
        return _read_header(path, file).key


class _Header(NamedTuple):
    key: ArtefactKey
    facts: dict[str, Any]
    payload_bytes: int
    payload_sha256: str


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise EngineError(f"no engine file {path}")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror or error}") from error


def _read_header(path: Path, file: BinaryIO) -> _Header:
    """Return the checked header; the payload comes next in ``file``."""
    words = re.fullmatch(rb"%s (\d+) (.*)\n" % MAGIC, file.readline(len(MAGIC) + 100))
    if words is None:
        raise EngineError(f"{path} is no engine file of pix2live")
    if int(words[1]) != FORMAT:
        raise EngineError(
            f"{path} has version {int(words[1])} of the format, this pix2live reads {FORMAT};"
            f" {BUILD_AGAIN}"
        )
    line = file.readline(LONGEST_HEADER)
    text = line.removesuffix(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != words[2] or text == line:
        raise EngineError(f"{path} is cut off or damaged in its header; {BUILD_AGAIN}")
    try:
        header = json.loads(text)
        return _Header(
            ArtefactKey.from_dict(header["key"]),
            dict(header["facts"]),
            int(header["payload_bytes"]),
            str(header["payload_sha256"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(f"{path} has a header that says too little; {BUILD_AGAIN}") from error


def canonical_json(value: Any) -> str:
    """Return the same text for the same data, everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _words(value: Any) -> str:
    if isinstance(value, str) and value:
        return f"{value[:12]}..." if len(value) == 64 else repr(value)
    return ("x" if value and isinstance(value[0], int) else ", ").join(map(str, value)) or "none"
