"""A folder of engine files: each is built once, whoever asks and however often."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines.artefact import (
    BUILD_AGAIN,
    PART_SUFFIX,
    SUFFIX,
    Artefact,
    ArtefactKey,
    canonical_json,
    read_artefact,
    read_key,
    write_artefact,
)
from engines.errors import EngineError

if TYPE_CHECKING:
    from filelock import FileLock

BESIDE: Final = (".kernels",)
"""Suffixes of what a backend keeps beside its engine: what was compiled for this GPU."""
DEFAULT_LIMIT_BYTES: Final = 4 << 30
LEFTOVER_AGE_S: Final = 24 * 60 * 60
NOWHERE: Final = Path(os.devnull) / "pix2live"
"""Nothing can be below a device: every attempt is an OSError, as on a disk that is full."""


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


class EngineCache:
    """A folder of engine files, each under the digest of its key.

    Safe for any number of threads and processes. Nothing is trusted that does not match, and
    nothing that fails here stops a build. Without ``folder`` it is the one in the home folder;
    without a home folder nothing is kept.
    """

    def __init__(
        self, folder: Path | None = None, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> None:
        self.why_nothing_is_kept = ""
        """Empty, or the reason in one line."""
        try:
            folder = folder or Path.home() / ".cache" / "pix2live" / "engines"
        except RuntimeError:  # no HOME, and a user without an entry (a container may have one)
            self.why_nothing_is_kept = "there is no home folder for it, set HOME"
            folder = NOWHERE
        self.folder = folder
        """Made when something is first written. Without a home folder, one that cannot be made."""
        self.limit_bytes = limit_bytes

    def path(self, key: ArtefactKey) -> Path:
        """Return where the engine of ``key`` is, or would be."""
        return self.folder / f"{key.digest()}{SUFFIX}"

    def get(self, key: ArtefactKey) -> Artefact | None:
        """Return the engine of ``key`` from the folder; None when there is none that is whole."""
        return self._kept(key)[0]

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
        if self.why_nothing_is_kept:
            return self._built(key, build, cannot_keep=self.why_nothing_is_kept)
        found = self.get(key)
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
                with contextlib.suppress(EngineError):
                    key = read_key(path)
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
            note = f"not kept, so it is built again next time: {cannot_keep}"
            note += "" if self.why_nothing_is_kept else f"; {advice}"
        return Artefact(key, payload, json.loads(canonical_json(facts)), built=True, note=note)

    def _tidy(self, just_written: Path) -> None:
        self.remove_oldest(self.limit_bytes)
        # What killed processes left. The file system's time: no clock is read here.
        with contextlib.suppress(OSError):
            now_s = just_written.stat().st_mtime
            for path in _listed(self.folder, PART_SUFFIX):
                if path.lstat().st_mtime < now_s - LEFTOVER_AGE_S:
                    path.unlink()


def _listed(folder: Path, suffix: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == suffix and not path.is_dir()]
    except OSError:
        return []
