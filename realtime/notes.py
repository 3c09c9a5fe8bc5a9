"""The notes of a run: what a person should know of it, for as long as it lasts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NOTES_KEPT: Final = 200


class Notes(list[str]):
    """The newest notes, oldest first: in weeks, a run says more than anybody wants to keep.

    Thread: any may add.
    """

    def append(self, note: str) -> None:
        super().append(note)
        del self[:-NOTES_KEPT]

    def extend(self, notes: Iterable[str]) -> None:
        super().extend(notes)
        del self[:-NOTES_KEPT]
