"""The pictures of a folder at the size of frames, kept in memory as far as a budget goes.

Real folders hold broken, cut off, tiny and enormous files: those are left out, named and counted.
"""

from __future__ import annotations

import abc
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol, TypeVar, overload

from engines.errors import SettingsError, SourceError
from tools.train.checked_pictures import read_checked, reduced
from tools.train.pairs import Picture, picture_files
from tools.train.recipe import Report

SHORT_SIDE_PX: Final = 400
MEMORY_BYTES: Final = 2 * 10**9
READERS: Final = 8  # more would hold too many large pictures at once
SHOWN: Final = 5
FEW: Final = 3
FEW_SHARE: Final = 0.1


class MismatchError(SourceError):
    """One item of a data set does not fit the others: a few are skipped, many are a mistake."""


class TooSmallError(SourceError):
    """A picture is smaller than the crops; it has the short side."""

    def __init__(self, width: int, height: int, smallest_px: int) -> None:
        super().__init__(f"{width}x{height}, smaller than the crop of {smallest_px}")
        self.short_side_px = min(width, height)


class Sized(Protocol):
    """What can be kept: it knows how much memory it takes."""

    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


class Named(Sequence[Item]):
    """Items with names: of each, the path below its folder without the suffix."""

    names: list[str]

    @abc.abstractmethod
    def item(self, number: int) -> Item:
        """Return one item; any thread may ask. ``number`` is 0 or more."""

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        found = range(len(self.names))[index]
        if isinstance(found, int):
            return self.item(found)
        return [self.item(number) for number in found]


class Shelf(Named[Item]):
    """Items that are read once and kept up to a budget; above it those not asked for longest go.

    Attributes:
        skipped: what was left out, with the reason: ``"a.jpg (truncated)"``.
        found: how many items there were, with those left out.
    """

    def __init__(self, what: str, skipped: Sequence[str] = (), memory_bytes: int = MEMORY_BYTES):
        self.names: list[str] = []
        self.skipped = list(skipped)
        self.found = len(self.skipped)
        self._what, self._memory_bytes = what, memory_bytes
        self._readers: list[tuple[Path, Callable[[], Item]]] = []
        self._kept: OrderedDict[int, Item] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    @property
    def note(self) -> str:
        """One line for a person about what was left out; empty when nothing was."""
        if not self.skipped:
            return ""
        shown = ", ".join(self.skipped[:SHOWN])
        more = f" and {len(self.skipped) - SHOWN} more" if len(self.skipped) > SHOWN else ""
        return f"{len(self.skipped)} of {self.found} {self._what} skipped: {shown}{more}"

    def fill(self, readers: Mapping[str, Callable[[], Item]], folder: Path, report: Report) -> None:
        """Read everything once; ``readers`` are by the path below ``folder``.

        Raises:
            SettingsError: all are smaller than the crops, or many do not fit.
            SourceError: nothing can be read.
        """
        largest_px, misfits = 0, list(self.skipped)
        self.found += len(readers)
        pool = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1), "pictures")
        try:
            tries = pool.map(_tried, readers.values())
            for count, (name, found) in enumerate(zip(readers, tries), 1):
                if isinstance(found, SourceError):
                    self.skipped.append(f"{shown_name(name)} ({found})")
                    if isinstance(found, MismatchError):
                        misfits.append(self.skipped[-1])
                    elif isinstance(found, TooSmallError):
                        largest_px = max(largest_px, found.short_side_px)
                else:
                    self.names.append(str(PurePosixPath(name).with_suffix("")))
                    self._readers.append((folder / name, readers[name]))
                    self._keep(len(self._readers) - 1, found)
                report("reading", count / len(readers))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest of a folder
        if len(misfits) > max(FEW, FEW_SHARE * self.found):
            raise SettingsError(self._refused("do not fit", folder, misfits))
        if self._readers:
            return
        if largest_px:
            raise SettingsError(
                f"all {self._what} of {folder} are smaller than the crop; the largest allows"
                f" --crop {largest_px // 8 * 8 or largest_px}"
            )
        if misfits:
            raise SettingsError(self._refused("do not fit", folder, misfits))
        raise SourceError(self._refused("cannot be read", folder, self.skipped))

    def _refused(self, why: str, folder: Path, names: list[str]) -> str:
        shown = ", ".join(names[:SHOWN])
        return f"{len(names)} of {self.found} {self._what} of {folder} {why}: {shown}"

    def item(self, number: int) -> Item:
        """Return one item, read again where it was let go.

        Raises:
            SourceError: its file is gone by now.
        """
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        path, read = self._readers[number]
        try:
            item = read()  # outside the lock: the others go on meanwhile
        except SourceError as error:
            raise SourceError(f"{path} was fine before, and now: {error}") from error
        self._keep(number, item)
        return item

    def _keep(self, number: int, item: Item) -> None:
        with self._lock:
            if number in self._kept:
                return
            self._kept[number] = item
            self._kept_bytes += item.nbytes
            while self._kept_bytes > self._memory_bytes:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes


class Library(Shelf[Picture]):
    """Pictures, uint8 (H, W, 3) BGR, whose short side is at most 400 px (or ``smallest_px``)."""

    @classmethod
    def read(
        cls, folder: Path, *, smallest_px: int, report: Report, memory_bytes: int = MEMORY_BYTES
    ) -> Library:
        """Read all pictures below ``folder`` whose short side is at least ``smallest_px``.

        Raises:
            SourceError: there is no such folder, no picture in it, or none that can be read.
            SettingsError: all are smaller than ``smallest_px``.
        """
        side_px = max(SHORT_SIDE_PX, smallest_px)
        library = cls("pictures", memory_bytes=memory_bytes)
        readers = {
            name: partial(_read_reduced, path, smallest_px, side_px)
            for name, path in named_pictures(folder).items()
        }
        library.fill(readers, folder, report)
        return library


def named_pictures(folder: Path) -> dict[str, Path]:
    """Return the pictures below a folder by their path there, with ``/``; hidden ones left out.

    Raises:
        SourceError: it is no folder, cannot be read, or has none.
    """
    try:
        with os.scandir(folder):
            files = picture_files(folder)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"cannot read the folder {folder}: {error.strerror}") from error
    return {path.relative_to(folder).as_posix(): path for path in files}


def shown_name(name: str) -> str:
    """Return a file's name as a terminal can take it: names may be any bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def check_size(picture: Picture, smallest_px: int) -> None:
    """Raise TooSmallError for a picture that no crop fits into."""
    height, width = picture.shape[:2]
    if min(height, width) < smallest_px:
        raise TooSmallError(width, height, smallest_px)


def _read_reduced(path: Path, smallest_px: int, side_px: int) -> Picture:
    picture = read_checked(path)
    check_size(picture, smallest_px)
    return reduced(picture, side_px)


def _tried(read: Callable[[], Item]) -> Item | SourceError:
    try:
        return read()
    except SourceError as error:
        return error
