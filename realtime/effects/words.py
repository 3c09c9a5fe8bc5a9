"""What follows the colon of an effect's spec: ``0,0,320,180;feather=12;invert``."""

from __future__ import annotations

from engines import SettingsError


class Words:
    """Words between semicolons, ``name=value`` or a value alone, taken one after the other.

    What nobody has taken at the end is an error: a word with a slip in it must not be ignored.

    Raises:
        SettingsError: a name is given twice.
    """

    def __init__(self, effect: str, text: str) -> None:
        self._effect = effect
        items = [word.strip() for word in text.split(";")] if text else []
        self._plain = [word for word in items if word and "=" not in word]
        self._named: dict[str, str] = {}
        for word in items:
            name, equals, value = word.partition("=")
            if equals and name in self._named:
                raise SettingsError(f"{effect}: {name} is given twice")
            if equals:
                self._named[name] = value

    def plain(self) -> str | None:
        """Take the next value without a name."""
        return self._plain.pop(0) if self._plain else None

    def flag(self, name: str) -> bool:
        """Take ``name`` where it stands alone."""
        if name not in self._plain:
            return False
        self._plain.remove(name)
        return True

    def text(self, name: str, default: str = "") -> str:
        """Take the value of ``name``."""
        return self._named.pop(name, default).strip()

    def number(self, name: str, default: float) -> float:
        """Take the value of ``name`` as a number.

        Raises:
            SettingsError: it is none.
        """
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
                f"{self._effect}: {name} must be a number, found {word!r}"
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
        left = [*self._plain, *self._named]
        if left:
            raise SettingsError(f"{self._effect} does not know {left[0]!r}")
