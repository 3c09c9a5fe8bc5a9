"""The one place that imports TensorRT: the full one, or TensorRT for RTX, which has the same API.

Used here and the same in TensorRT 10.3 (JetPack 6), 10.x, 11.x and TensorRT for RTX 1.x: builder,
parser, profiles, progress monitor, runtime. What differs is in ``tensorrt_builder``: compute
capabilities as targets (RTX only), the timing cache (not RTX) and the flag for strongly typed
networks (11.x takes and ignores it: there all of them are).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import Any, Final

from engines.errors import EngineError

PACKAGES: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend -> Python package."""

KEPT_MESSAGES: Final = 1000
CONVERT_HERE: Final = "build it again on this machine (pix2live convert)"


def why_not(backend: str) -> str | None:
    """Return None when the package of ``backend`` is installed, else what to install.

    Says nothing of the GPU: TensorRT for RTX builds engines without one.
    """
    package = PACKAGES[backend]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        on_jetson = "; on a Jetson it comes with JetPack: use a venv with --system-site-packages"
        return (
            f"the package {package} is not installed (pip install 'pix2live[{backend}]')"
            f"{on_jetson if backend == 'tensorrt' else ''}"
        )
    return None


def load(backend: str) -> Any:
    """Import and return the package of ``backend`` (a key of `PACKAGES`).

    Raises:
        EngineError: it is not installed, or its libraries cannot be loaded.
    """
    reason = why_not(backend)
    if reason is not None:
        raise EngineError(f"the backend {backend!r} cannot run here: {reason}")
    try:
        return importlib.import_module(PACKAGES[backend])
    except (ImportError, OSError) as error:  # the bindings are there, the libraries are not
        raise EngineError(
            f"{PACKAGES[backend]} is installed, but cannot be loaded: {_one_line(str(error))};"
            f" install it again (pip install --force-reinstall 'pix2live[{backend}]')"
        ) from error


def version(backend: str) -> str:
    """Return the version of the package, for instance ``1.7.1.116``; raises as `load` does."""
    return str(load(backend).__version__)


class Messages:
    """Collects the warnings and errors of one package instead of printing them.

    ``logger`` is the ``ILogger`` to give to every builder, parser and runtime. A process has one
    for each package (`messages`): TensorRT keeps the first one that it sees. Any thread may log.
    """

    def __init__(self, module: Any) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, bool, str]] = deque(maxlen=KEPT_MESSAGES)
        self._count = 0
        severity = module.ILogger.Severity
        keep = self._keep

        class Logger(module.ILogger):  # type: ignore[misc]  # the base comes from the package
            def log(self, level: Any, message: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING):
                    keep(level != severity.WARNING, message)

        self.logger: Any = Logger()

    def _keep(self, is_error: bool, message: str) -> None:
        with self._lock:
            self._count += 1
            self._kept.append((self._count, is_error, message))

    def mark(self) -> int:
        """Return where the next message will be; `since` and `errors` take it."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> tuple[str, ...]:
        """Return the warnings and errors after ``mark``, oldest first."""
        with self._lock:
            return tuple(text for number, _, text in self._kept if number > mark)

    def errors(self, mark: int) -> tuple[str, ...]:
        """Return the errors after ``mark``, oldest first."""
        with self._lock:
            return tuple(text for number, error, text in self._kept if error and number > mark)

    def words(self, mark: int) -> str:
        """Return in one line why the call since ``mark`` failed, see `words_for`."""
        said = self.errors(mark) or self.since(mark)
        return words_for("\n".join(said)) if said else "it gave no reason"


@cache
def messages(backend: str) -> Messages:
    """Return the message collector of ``backend``, one a process; raises as `load` does."""
    return Messages(load(backend))


@contextlib.contextmanager
def interrupt_after() -> Iterator[threading.Event]:
    """Hold back Ctrl-C until the block is left; the event says that it was pressed.

    An exception that is raised inside a callback from C++ is printed and lost, so the signal's own
    handler runs only when no callback can be on the stack. Does nothing outside the main thread:
    Python delivers signals to the main thread alone.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not callable(before):  # ignored, or not Python's
        yield pressed
        return
    frame_then: list[FrameType | None] = []

    def hold_back(_: int, frame: FrameType | None) -> None:
        frame_then[:] = [frame]
        pressed.set()

    signal.signal(signal.SIGINT, hold_back)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            before(signal.SIGINT, frame_then[0])


def has_driver_library() -> bool:
    """Whether the library of the NVIDIA driver can be loaded; it says nothing of a GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


_OTHER_VERSION: Final = (
    f"the engine is of another version of TensorRT, or is no engine at all: {CONVERT_HERE}"
)
_OTHER_GPU: Final = (
    f"the engine was built for another GPU: {CONVERT_HERE}, or name this GPU with --gpu"
)
_UNKNOWN_GPU: Final = (
    "this version of TensorRT does not know this GPU: the other package may (tensorrt,"
    " tensorrt-rtx), or an older or newer version of this one"
)
_TOO_LITTLE_MEMORY: Final = (
    "the GPU has too little free memory: close other programs that use it, or take smaller frames"
)
_NO_GPU: Final = (
    "the NVIDIA driver shows no GPU: see whether nvidia-smi lists one; a container needs --gpus all"
)
_MIXED_DRIVER: Final = (
    "the NVIDIA driver and its libraries are of different versions: restart, or install the driver"
    " again"
)
_NO_DRIVER: Final = (
    "there is no NVIDIA driver here (libcuda.so.1 is missing): install one, or start the container"
    " with --gpus all"
)
_OLD_DRIVER: Final = (
    "the NVIDIA driver is too old for this version: update it (nvidia-smi shows what it has)"
)

_KNOWN: Final = {
    # What is wrong with a plan comes first: without a driver, complaints about CUDA follow it.
    "not compatible with this version|serialization version|version tag does not match"
    "|created with TensorRT-RTX version|magicTag": _OTHER_VERSION,
    r"header\.size == blobSize|empty memory buffer": f"the engine is cut off: {CONVERT_HERE}",
    "incompatible device|but got compute|current device is not compatible|cannot run on this GPU": (
        _OTHER_GPU
    ),
    "target GPU .*not supported|not supported by this TensorRT release|no kernel image"
    r"|cudaError 209\b": _UNKNOWN_GPU,
    "out ?of ?memory|requested amount of GPU memory|insufficient memory|could not be allocated"
    r"|cudaError 2\b": _TOO_LITTLE_MEMORY,
    r"no CUDA-capable device|cudaError 100\b|with error:? 100\b": _NO_GPU,
    r"cudaError 80[34]\b|with error:? 80[34]\b": _MIXED_DRIVER,
    r"driver version is insufficient|cudaError 35\b|with error:? 35\b": _OLD_DRIVER,
}
"""Pattern -> what it means, and what to do."""


def words_for(text: str) -> str:
    """Return in one line what an error of TensorRT or CUDA means, and what to do about it.

    Known: no driver, an old driver, no GPU, an engine of another version or for another GPU, a GPU
    that is unknown, too little memory. Of any other text, the first line without places in
    TensorRT's own source.
    """
    lines = text.splitlines()
    # Said after any error where there is no driver, whatever that error was.
    said = "\n".join(line for line in lines if "catchCudaError" not in line) or text
    for pattern, words in _KNOWN.items():
        if re.search(pattern, said, re.IGNORECASE) is None:
            continue
        if words == _OLD_DRIVER and not has_driver_library():  # the runtime says the same of both
            return _NO_DRIVER
        # TensorRT says first what this GPU has, then what the engine was built for.
        numbers = re.search(r"expecting compute (\d+\.\d+) got compute (\d+\.\d+)", said)
        if words == _OTHER_GPU and numbers is not None:
            return f"{words} (this GPU has {numbers[1]}, the engine is for {numbers[2]})"
        return words
    return _one_line(said) or "it gave no reason"


def _one_line(text: str) -> str:
    """Return the first line that says something, without places in TensorRT's source."""
    for line in text.splitlines():
        said = re.sub(r"\s*\bIn \S+ at \S+\.(?:cpp|h|cu):\d+", "", line)
        said = re.sub(r"^.*?Error Code \d+: ", "", said).strip()
        if said:
            return said
    return ""
