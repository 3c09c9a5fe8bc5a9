"""The curves of a training: every step as a line of JSON, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from engines.artefact import replace_file
from engines.errors import SinkError
from tools.train.pairs import Picture

FILE_NAME: Final = "curves.jsonl"
FOLDER: Final = "tensorboard"
FLUSH_EVERY_S: Final = 30


class Curves:
    """Writes ``OUT/curves.jsonl`` and ``OUT/tensorboard``.

    A line is ``{"step": 12, "loss": 0.5, ...}``; steps count from 1. Lines after ``first_step``,
    of a run that was killed after its last checkpoint, are taken away: they come again.

    Raises:
        SinkError: here and in every method: it cannot be written.
    """

    def __init__(self, out: Path, first_step: int) -> None:
        self.path = out / FILE_NAME
        self._board: Any = None
        try:
            replace_file(
                self.path, (line for line in _lines(self.path) if _is_kept(line, first_step))
            )
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error
        if importlib.util.find_spec("tensorboard") is None:
            self.note = f"curves: {self.path} (for TensorBoard: pip install tensorboard)"
            return
        from torch.utils.tensorboard import SummaryWriter

        folder = out / FOLDER
        self._board = SummaryWriter(
            str(folder), purge_step=first_step + 1, flush_secs=FLUSH_EVERY_S
        )
        self.note = f"curves: {self.path}, tensorboard --logdir {folder}"

    def add(self, step: int, values: dict[str, float]) -> None:
        """Take the values after ``step`` steps."""
        try:
            self._file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
            if self._board is not None:
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise self._refused(error) from error

    def picture(self, name: str, step: int, picture: Picture) -> None:
        """Show a picture, uint8 (H, W, 3) BGR, in TensorBoard."""
        if self._board is not None:
            try:
                rgb = np.ascontiguousarray(picture[..., ::-1])
                self._board.add_image(name, rgb, step, dataformats="HWC")
            except OSError as error:
                raise self._refused(error) from error

    def flush(self) -> None:
        """Hand everything to the operating system."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Write the rest, as far as that is possible."""
        try:
            self._file.close()
            if self._board is not None:
                self._board.close()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> SinkError:
        return SinkError(f"cannot write {self.path}: {error.strerror or error}")


def read_curves(path: Path) -> list[dict[str, float]]:
    """Return the whole lines of a curve file, in order."""
    found = (_parsed(line) for line in _lines(path))
    return [line for line in found if line is not None]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def _is_kept(line: bytes, first_step: int) -> bool:
    found = _parsed(line)
    return found is not None and found["step"] <= first_step


def _parsed(line: bytes) -> dict[str, float] | None:
    """What a line says; None for one that was cut off."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and "step" in found else None
