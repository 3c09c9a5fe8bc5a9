"""Compiled engines on disk: what they were built for, whole or refused, built once.

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
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from engines.errors import EngineError
from engines.model import Size

if TYPE_CHECKING:
    from filelock import FileLock

MAGIC: Final = b"pix2live engine"
FORMAT: Final = 1
SUFFIX: Final = ".engine"
PART_SUFFIX: Final = ".part"
BESIDE: Final = (".kernels",)
"""Suffixes of what a backend keeps beside its engine: what was compiled for this GPU."""
LONGEST_HEADER: Final = 1 << 20
DEFAULT_LIMIT_BYTES: Final = 4 << 30
LEFTOVER_AGE_S: Final = 24 * 60 * 60
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
        return _json(asdict(self))

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


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine of the cache."""

    path: Path
    size_bytes: int
    """With what its backend keeps beside it under the same name."""
    used_s: float
    """When it was used last, in seconds since 1970, as the file system has it."""
    key: ArtefactKey | None
    """None when the file cannot be read."""


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
        header = _json(
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


class EngineCache:
    """A folder of engine files, each under the digest of its key.

    Safe for any number of threads and processes. Nothing is trusted that does not match, and
    nothing that fails here stops a build.
    """

    def __init__(
        self, folder: Path | None = None, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> None:
        self.folder = folder or Path.home() / ".cache" / "pix2live" / "engines"
        """Made when something is first written."""
        self.limit_bytes = limit_bytes

    def path(self, key: ArtefactKey) -> Path:
        """Return where the engine of ``key`` is, or would be."""
        return self.folder / f"{key.digest()}{SUFFIX}"

    def get_or_build(
        self, key: ArtefactKey, build: Callable[[], tuple[bytes, dict[str, Any]]]
    ) -> Artefact:
        """Return the engine of ``key`` from the folder, or build it and keep it.

        One thread of one process builds; others that want the same engine wait for it. What
        ``build`` raises is raised here, and nothing is left behind. The oldest engines are removed
        when the folder grows beyond ``limit_bytes``.

        Raises:
            EngineError: ``build`` gave facts that are no JSON.
        """
        found, _ = self._kept(key)
        if found is not None:
            return found
        try:
            lock = self._locked(key)
        except (OSError, NotImplementedError) as error:  # a file system without locks
            return self._built(key, build, cannot_keep=f"no lock in {self.folder}: {error}")
        try:
            found, why_not = self._kept(key)  # another one may have built it
            return found or self._built(key, build, why_not=why_not)
        finally:
            lock.release()

    def entries(self) -> tuple[Entry, ...]:
        """Return what is in the folder, the most recently used first."""
        found = []
        for path in _listed(self.folder, SUFFIX):
            with contextlib.suppress(OSError):  # removed meanwhile
                size_bytes = sum(part.lstat().st_size for part in self._belonging(path))
                key = None
                with contextlib.suppress(EngineError), _opened(path) as file:
                    key = _read_header(path, file).key
                found.append(Entry(path, size_bytes, path.lstat().st_mtime, key))
        return tuple(sorted(found, key=lambda entry: (-entry.used_s, entry.path)))

    def remove_oldest(self, limit_bytes: int) -> tuple[Path, ...]:
        """Remove the engines used longest ago until the rest fits; return what was removed.

        The one used last stays whatever its size.
        """
        removed, total = [], 0
        for number, entry in enumerate(self.entries()):
            total += entry.size_bytes
            if number and total > limit_bytes:
                with contextlib.suppress(OSError):
                    for path in self._belonging(entry.path):
                        path.unlink()
                    removed.append(entry.path)
        return tuple(removed)

    def _belonging(self, engine: Path) -> list[Path]:
        """Return the engine and what is beside it; a lock may be somebody's, and is empty."""
        beside = [engine.with_suffix(suffix) for suffix in BESIDE]
        return [path for path in (*beside, engine) if path.exists() or path == engine]

    def _kept(self, key: ArtefactKey) -> tuple[Artefact | None, str]:
        """Return the engine, or why the one that is there cannot be taken ("" when none is)."""
        path = self.path(key)
        try:
            status = path.lstat()
        except OSError:
            return None, ""
        if not stat.S_ISREG(status.st_mode):
            return None, f"{path} is a link or no file"
        try:
            found = read_artefact(path, key)
        except EngineError as error:
            return None, str(error).removesuffix(f"; {BUILD_AGAIN}")
        with contextlib.suppress(OSError):  # a folder that only others may write
            os.utime(path)
        return found, ""

    def _locked(self, key: ArtefactKey) -> FileLock:
        """Wait for the lock of ``key``. A killed process leaves none: the kernel drops it."""
        from filelock import FileLock

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{key.digest()}.lock")
        lock.acquire()
        return lock

    def _built(
        self,
        key: ArtefactKey,
        build: Callable[[], tuple[bytes, dict[str, Any]]],
        *,
        why_not: str = "",
        cannot_keep: str = "",
    ) -> Artefact:
        payload, facts = build()
        note = f"built again: {why_not}" if why_not else ""
        path = self.path(key)
        if not cannot_keep:
            try:
                write_artefact(path, key, payload, facts)
            except EngineError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                cannot_keep = str(error)
            else:
                self._tidy(path)
        if cannot_keep:
            advice = "remove that folder" if path.is_dir() else "make room or make it writable"
            note = f"not kept, so it is built again next time: {cannot_keep}; {advice}"
        return Artefact(key, payload, json.loads(_json(facts)), built=True, note=note)

    def _tidy(self, just_written: Path) -> None:
        self.remove_oldest(self.limit_bytes)
        # What killed processes left. The file system's time: no clock is read here.
        with contextlib.suppress(OSError):
            now_s = just_written.stat().st_mtime
            for path in _listed(self.folder, PART_SUFFIX):
                if path.lstat().st_mtime < now_s - LEFTOVER_AGE_S:
                    path.unlink()


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


def _listed(folder: Path, suffix: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == suffix and not path.is_dir()]
    except OSError:
        return []


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _words(value: Any) -> str:
    if isinstance(value, str) and value:
        return f"{value[:12]}..." if len(value) == 64 else repr(value)
    return ("x" if value and isinstance(value[0], int) else ", ").join(map(str, value)) or "none"
