"""Opening an engine beside the live path, and who stands in for it meanwhile."""

from __future__ import annotations

import threading

from engines import Engine, EngineError, FrameModel, Size, open_engine
from engines.registry import why_not

STAND_IN_AFTER_S = 1.0
"""An engine that opens faster needs nobody in its place."""
QUICK_BACKENDS = ("openvino", "onnxruntime", "torch")
"""Open within about a second, where others compile for minutes."""


class Opening:
    """Opens an engine in a thread of its own."""

    def __init__(self, engine: Engine, size: Size, depth: int) -> None:
        self.engine = engine
        self.error: Exception | None = None
        self._size, self._depth = size, depth
        self._thread = threading.Thread(target=self._open, name="pix2live opening", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is open or refused; returns whether that is so."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def result(self) -> Engine:
        """Return the open engine, once `wait` has said so.

        Raises:
            EngineError, ModelError: it could not be opened.
        """
        if self.error is not None:
            raise self.error
        return self.engine

    def _open(self) -> None:
        try:
            self.engine.open(self._size, depth=self._depth)
        except Exception as error:  # noqa: BLE001  (raised by `result`)
            self.error = error


def stand_in_for(engine: Engine) -> Engine | None:
    """Return an engine of another backend for the same model, not open yet; None without one."""
    if not isinstance(engine.model, FrameModel):
        return None
    for name in QUICK_BACKENDS:
        if name != engine.name and why_not(name) is None:
            try:
                return open_engine(engine.model, backend=name)
            except EngineError:
                continue
    return None


def open_beside(
    engine: Engine, size: Size, depth: int, *, stand_in: bool
) -> tuple[Engine, Opening | None]:
    """Open ``engine``, or another backend that stands in for it while it takes its time.

    Returns the engine that is open now and, where that is not the one asked for, the opening of
    that one. Nobody stands in where no other backend can, or ``stand_in`` is False.

    Raises:
        EngineError, ModelError: the engine cannot be opened.
    """
    other = stand_in_for(engine) if stand_in else None
    if other is None:
        engine.open(size, depth=depth)
        return engine, None
    opening = Opening(engine, size, depth)
    if opening.wait(STAND_IN_AFTER_S):
        return opening.result(), None
    try:
        other.open(size, depth=depth)
    except EngineError as error:
        opening.wait()
        engine.notes.append(f"nobody stood in while {engine.name} compiled: {error}")
        return opening.result(), None
    other.notes.append(f"{engine.name} compiles; until then {other.name} shows the picture")
    return other, opening
