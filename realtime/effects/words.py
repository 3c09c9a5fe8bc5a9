"""What follows the colon of an effect's spec: ``0,0,320,180;feather=12;invert``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from engines import SettingsError

ALIKE: Final = 0.7
"""How alike a word and a known one are (`difflib`), of 1, when one may be meant by the other."""


class Words:
    """Words between semicolons, ``name=value`` or a value alone, taken one after the other.

    What nobody has taken at the end is an error: a word with a slip in it must not be ignored.
    What was asked for until then is what the effect knows.

    Raises:
        SettingsError: a name is given twice.
    """

    def __init__(self, effect: str, text: str) -> None:
        self._effect = effect
        items = [word.strip() for word in text.split(";")] if text else []
        self._plain = [word for word in items if word and "=" not in word]
        self._named: dict[str, str] = {}
        self._flags: list[str] = []
        self._names: list[str] = []
        for word in items:
            name, equals, value = word.partition("=")
            name = name.strip()
            if equals and name in self._named:
                raise SettingsError(f"{effect}: {name} is given twice")
            if equals:
                self._named[name] = value

    def plain(self) -> str | None:
        """Take the next value without a name."""
        return self._plain.pop(0) if self._plain else None

    def flag(self, name: str) -> bool:
        """Take ``name`` where it stands alone."""
        self._flags.append(name)
        if name not in self._plain:
            return False
        self._plain.remove(name)
        return True

    def text(self, name: str, default: str = "") -> str:
        """Take the value of ``name``."""
        self._names.append(name)
        return self._named.pop(name, default).strip()

    def number(self, name: str, default: float) -> float:
        """Take the value of ``name`` as a number.

        Raises:
            SettingsError: it is none.
        """
        self._names.append(name)
        return self.as_number(self._named.pop(name), name) if name in self._named else default

    def as_number(self, word: str, name: str) -> float:
        """Return ``word`` as a number.

        Raises:
            SettingsError: it is none.
        """
        try:
            return float(word)
        except ValueError:
            raise SettingsError(
                f"{self._effect}: {name} must be a number, found {word!r}{self._guess(word)}"
            ) from None

    def numbers(self, word: str, name: str, count: int | None = None) -> list[float]:
        """Return ``word``, numbers between commas.

        Raises:
            SettingsError: something else stands there, or it is not ``count`` numbers.
        """
        found = [self.as_number(part, name) for part in word.split(",")]
        if count is not None and len(found) != count:
            raise SettingsError(f"{self._effect}: {name} must be {count} numbers, found {word!r}")
        return found

    def done(self) -> None:
        """Check that every word was taken.

        Raises:
            SettingsError: there is one that means nothing.
        """
        for word in self._plain:
            if word in self._flags:
                raise SettingsError(f"{self._effect}: {word} is given twice")
            if word in self._names:
                raise SettingsError(f"{self._effect}: {word} needs a value: {word}=...")
            raise SettingsError(self._unknown(word))
        for word, value in self._named.items():
            if word in self._flags:
                raise SettingsError(
                    f"{self._effect}: {word} stands alone, without a value; found {word}={value}"
                )
            raise SettingsError(self._unknown(word))

    def _unknown(self, word: str) -> str:
        known = [*self._flags, *(f"{name}=" for name in self._names)]
        knows = f"; it knows: {', '.join(known)}" if known else ""
        return f"{self._effect} does not know {word!r}{self._guess(word)}{knows}"

    def _guess(self, word: str) -> str:
        """Return what a word with a slip in it may have been, for an error."""
        forms = {name: name for name in self._flags} | {name: f"{name}=" for name in self._names}
        close = get_close_matches(word.lower(), forms, 1, ALIKE)
        return f" (did you mean {forms[close[0]]}?)" if close else ""
