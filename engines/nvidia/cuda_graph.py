"""CUDA graphs: work of a stream, captured once and launched in one call; by cuda-bindings.

pycuda has none. A stream is the same number for both.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError
from engines.nvidia.cuda_words import in_words

if TYPE_CHECKING:
    from engines.nvidia.cuda import Stream


def why_not() -> str | None:
    """Return None when graphs can be captured, else the reason in one line."""
    try:
        _bindings()
    except ImportError:
        return "the package cuda-bindings is not installed (pip install cuda-bindings)"
    return None


class Graph:
    """Captured work of a stream, launched in one call."""

    def __init__(self, bindings: Any, graph: Any) -> None:
        self._bindings = bindings
        self._executable = _checked(bindings.cuGraphInstantiate(graph, 0))

    def launch(self, stream: Stream) -> None:
        _checked(self._bindings.cuGraphLaunch(self._executable, stream.handle))

    def free(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None:
            _checked(self._bindings.cuGraphExecDestroy(executable))


def capture(stream: int, work: Callable[[], None]) -> Graph:
    """Return what ``work`` queues in the stream of this handle; nothing of it runs.

    Raises:
        EngineError: it cannot be captured; the stream can be used as before.
    """
    bindings = _bindings()
    # Only what this thread does counts: other engines may allocate meanwhile.
    mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(bindings.cuStreamBeginCapture(stream, mode))
    try:
        work()
    except BaseException:
        with contextlib.suppress(EngineError):  # it leaves the capture in any case
            bindings.cuGraphDestroy(_checked(bindings.cuStreamEndCapture(stream)))
        raise
    graph = _checked(bindings.cuStreamEndCapture(stream))
    try:
        return Graph(bindings, graph)
    finally:
        bindings.cuGraphDestroy(graph)


def _bindings() -> Any:
    return importlib.import_module("cuda.bindings.driver")


def _checked(answer: tuple[Any, ...]) -> Any:
    """Return the result of a call of cuda-bindings, which gives (error, result) or (error,)."""
    error, *results = answer
    if int(error) != 0:
        raise EngineError(in_words(f"graph: {getattr(error, 'name', error)}"))
    return results[0] if results else None
