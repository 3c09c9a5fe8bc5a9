"""Switching a filter while it runs: opened and warmed on the side, swapped between two frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engines import Engine, EngineError, SettingsError, backend_names, open_engine
from realtime.labels import filter_label, next_filter_name
from realtime.opening import Opening
from realtime.stages import EngineStage


def switch_to_next(engine: Engine, switch: Callable[[str], None]) -> str:
    """Switch from ``engine`` to the next shipped filter; returns what to say to the person."""
    name = next_filter_name(engine)
    if name is None:
        return f"{filter_label(engine)} is the only filter"
    try:
        switch(name)
    except SettingsError as error:
        return str(error)
    return f"opening {name}"


class Switcher:
    """Opens the next engine in a thread of its own. A failure leaves the old filter running."""

    def __init__(
        self, stage: EngineStage, notes: list[str], on_switched: Callable[[Engine], None]
    ) -> None:
        self._stage = stage
        self._notes = notes
        self._on_switched = on_switched
        self._thread: threading.Thread | None = None
        self._compiling: Engine | None = None

    def switch(
        self, model: Any, *, backend: str = "", crossfade_ms: float = 0.0, wait: bool = False
    ) -> None:
        """Start switching to ``model`` (what `open_engine` takes).

        Without ``backend`` it is computed as the running filter is: by the same backend, in the
        precision that was asked for. With ``wait`` it returns when the new engine was handed
        over, and raises what failed.
        """
        if self._thread is not None and self._thread.is_alive():
            if self._compiling is not None:
                raise SettingsError(
                    f"{self._compiling.name} still compiles {filter_label(self._compiling)}:"
                    " switch when it runs"
                )
            raise SettingsError("a switch is under way already")
        errors: list[Exception] = []
        self._thread = threading.Thread(
            target=self._switch,
            args=(model, backend, crossfade_ms, errors),
            name="pix2live switch",
            daemon=True,
        )
        self._thread.start()
        if wait:
            self._thread.join()
            if errors:
                raise errors[0]

    def take_over(self, opening: Opening, fail: Callable[[BaseException], object]) -> None:
        """Swap to an engine when it is open; ``fail`` gets the error of one that never is.

        The engine that runs until then only stood in for it: nobody asked for that one.
        """

        def swap() -> None:
            opening.wait()
            if self._stage.join(0):  # the run has ended: what went wrong since is no error of it
                opening.abandon()
                return
            try:
                self._hand_over(opening.result(), 0.0)
            except Exception as error:  # noqa: BLE001  (the run ends with it)
                fail(error)
            finally:
                self._compiling = None

        self._compiling = opening.engine
        self._thread = threading.Thread(target=swap, name="pix2live switch", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for a switch that is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _switch(
        self, model: Any, backend: str, crossfade_ms: float, errors: list[Exception]
    ) -> None:
        running = self._stage.engine
        try:
            size = running.size
            if size is None:
                raise SettingsError("the run has ended")
            chosen = backend or same_backend(running)
            precision = "auto" if backend else running.asked_precision
            engine = open_engine(model, backend=chosen, precision=precision)
            if self._stage.keeper is not None:
                engine = self._stage.keeper.wrap(engine)
            engine.open(size, depth=running.depth)
            self._hand_over(engine, crossfade_ms)
        except BaseException as error:  # noqa: BLE001  (a plug-in's own: the old filter runs on)
            if not isinstance(error, Exception):  # sys.exit in a plug-in
                error = EngineError(f"{type(error).__name__}: {error}")
            errors.append(error)
            self._notes.append(f"kept the filter: {error}")

    def _hand_over(self, engine: Engine, crossfade_ms: float) -> None:
        before = filter_label(self._stage.engine)
        if not self._stage.swap_in(engine, crossfade_ms):
            return
        self._on_switched(engine)
        label = filter_label(engine)
        self._notes.append(f"switched to {label if label != before else engine.name}")


def same_backend(engine: Engine) -> str:
    """Return what `open_engine` is to be told for another filter to be computed as ``engine`` is.

    ``auto`` for what computes nothing, and for engines that nobody can ask for by name.
    """
    if engine.name == "identity" or engine.name not in backend_names():
        return "auto"
    return f"{engine.name}:{engine.asked_device}" if engine.asked_device else engine.name
