"""Opening an engine beside the live path, and who stands in for it meanwhile."""

from __future__ import annotations

import threading

from engines import Engine, EngineError, FrameModel, Pix2liveError, Size, open_engine
from engines.registry import why_not

STAND_IN_AFTER_S = 1.0
"""An engine that opens faster needs nobody in its place."""
QUICK_BACKENDS = ("openvino", "onnxruntime", "torch")
"""Open within about a second, where others compile for minutes."""


class Opening:
    """Opens an engine in a thread of its own. The engine is its own until `result` hands it on."""

    def __init__(self, engine: Engine, size: Size, depth: int) -> None:
        self.engine = engine
        self._size, self._depth = size, depth
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._opened = self._taken = self._abandoned = False
        self._thread = threading.Thread(target=self._open, name="pix2live opening", daemon=True)
        self._thread.start()

    def meanwhile(self, other: Engine) -> Engine:
        """Return the engine if it opens quickly, else ``other``, open, to stand in for it.

        Raises:
            EngineError, ModelError: the engine cannot be opened.
        """
        if self.wait(STAND_IN_AFTER_S):
            return self.result()
        try:
            other.open(self._size, depth=self._depth)
        except Pix2liveError as error:
            self.wait()
            self.engine.notes.append(f"nobody stood in while {self.engine.name} compiled: {error}")
            return self.result()
        other.notes.append(
            f"{self.engine.name} compiles; until then {other.name} shows the picture"
        )
        return other

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is open or refused; returns whether that is so."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def result(self) -> Engine:
        """Hand on the open engine, once `wait` has said so; the caller closes it.

        Raises:
            EngineError, ModelError: it could not be opened.
        """
        with self._lock:
            self._taken = True
        if self._error is not None:
            raise self._error
        return self.engine

    def owns(self, engine: Engine) -> bool:
        """Return whether ``engine`` is to be left to this: not handed on yet."""
        return engine is self.engine and not self._taken

    def abandon(self, wait_s: float = 0.0) -> None:
        """Nobody wants it any more: it is closed, now or when it is open. Handed on: nothing.

        Waits up to ``wait_s`` for it: a process that ends while a library compiles aborts.
        """
        with self._lock:
            close = self._opened and not self._taken and not self._abandoned
            self._abandoned = True
        if close:
            self.engine.close()
        self.wait(wait_s)

    def _open(self) -> None:
        try:
            self.engine.open(self._size, depth=self._depth)
        except BaseException as error:  # noqa: BLE001  (raised by `result`)
            if not isinstance(error, Exception):  # sys.exit in a plug-in
                error = EngineError(f"{type(error).__name__}: {error}")
            self._error = error
            return
        with self._lock:
            self._opened = True
            close = self._abandoned and not self._taken
        if close:
            self.engine.close()


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
