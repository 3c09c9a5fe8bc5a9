"""What `pix2live evaluate` is asked to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines import SettingsError

Tick = Callable[[str, int, int | None], None]
"""Called with what is done, the number of the picture or frame, and how many there are."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured: on ``input`` all that has something to compare with, and the clips."""

    filter: str
    input: Path | None = None
    target: Path | None = None
    against: Path | None = None
    cycle: str | None = None
    clips: tuple[Path, ...] = ()
    features: Path | None = None
    backend: str = "auto"
    precision: str = "auto"
    frames: int | None = None
    """Of each clip, at most."""

    def check(self) -> None:
        """Raise SettingsError when there is nothing to measure, or nothing to measure it on."""
        compared = {
            "--target": self.target,
            "--against": self.against,
            "--cycle": self.cycle,
        }
        given = [option for option, value in compared.items() if value is not None]
        if given and self.input is None:
            raise SettingsError(f"{given[0]} needs --input, the pictures that are translated")
        if self.input is not None and not given:
            raise SettingsError(
                "--input needs something to compare with: --target DIR, --against DIR or"
                " --cycle FILTER"
            )
        if not given and not self.clips:
            raise SettingsError(
                "nothing to measure: give --input with --target, --against or --cycle, or --clip"
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return str(value) if isinstance(value, Path) else value

        return {name: plain(value) for name, value in asdict(self).items()}
