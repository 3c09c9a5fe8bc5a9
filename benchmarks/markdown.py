"""Tables as Markdown."""

from __future__ import annotations


def table(*heads: str) -> list[str]:
    """Return the head of a table."""
    return [row(*heads), "|" + "---|" * len(heads)]


def row(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"
