"""Switching a filter while it runs: opened and warmed on the side, swapped between two frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engines import Engine, SettingsError, filter_names, open_engine
from realtime.stages import EngineStage


class Switcher:
    """Opens the next engine in a thread of its own. A failure leaves the old filter running."""

    def __init__(
        self, stage: EngineStage, notes: list[str], on_switched: Callable[[Engine], None]
    ) -> None:
        self._stage = stage
        self._notes = notes
        self._on_switched = on_switched
        self._thread: threading.Thread | None = None

    def switch(self, model: Any, *, backend: str = "auto", wait: bool = False) -> None:
        """Start switching to ``model`` (what `open_engine` takes).

        With ``wait`` it returns when the new engine was handed over, and raises what failed.
        """
        if self._thread is not None and self._thread.is_alive():
            raise SettingsError("a switch is under way already")
        errors: list[Exception] = []
        self._thread = threading.Thread(
            target=self._switch, args=(model, backend, errors), name="pix2live switch", daemon=True
        )
        self._thread.start()
        if wait:
            self._thread.join()
            if errors:
                raise errors[0]

    def join(self, timeout_s: float) -> None:
        """Wait for a switch that is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _switch(self, model: Any, backend: str, errors: list[Exception]) -> None:
        running = self._stage.engine
        try:
            size = running.size
            if size is None:
                raise SettingsError("the run has ended")
            engine = open_engine(model, size, backend=backend, depth=running.depth)
        except Exception as error:  # noqa: BLE001  (a plug-in's own: the old filter runs on)
            errors.append(error)
            self._notes.append(f"kept the filter: {error}")
            return
        self._stage.swap_in(engine)
        self._on_switched(engine)
        self._notes.append(f"switched to {filter_label(engine)}")


def filter_label(engine: Engine) -> str:
    """Return what to call the filter of ``engine`` on a screen."""
    return str(getattr(engine.model, "name", engine.name))


def next_filter_name(engine: Engine) -> str | None:
    """Return the shipped filter after the one that runs; None when there is no other."""
    names, current = filter_names(), filter_label(engine)
    if not names or names == [current]:
        return None
    return names[(names.index(current) + 1) % len(names)] if current in names else names[0]
