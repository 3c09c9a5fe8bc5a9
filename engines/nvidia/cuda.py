"""cuda: the little of CUDA that the NVIDIA backends need, by pycuda and cuda-bindings.

The device's primary context is used, the one that PyTorch and TensorRT use too. pycuda keeps a
stack of contexts for each thread and aborts the process when a thread ends with one on it: so
every use stands in ``with cuda.current():``, which pushes and pops, and turns pycuda's errors into
ours. That costs two calls of a microsecond and lets any thread use what another one has opened.

Nothing here waits for the whole device: streams and events can be waited for, and nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.nvidia import cuda_graph
from engines.nvidia.cuda_words import first_line, in_words

DRIVER_LIBRARY: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_DRIVER: Final = "no NVIDIA driver here"
NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the null stream, which others use."""

_PRIMARY: dict[int, Any] = {}
"""Device -> its retained primary context; kept until the process ends, as PyTorch does."""
_LOCKED: dict[int, int] = {}
"""Address -> bytes of every page-locked array that somebody holds."""


def why_not(extra: str = "cuda") -> str | None:
    """Return None when CUDA can be used here, else the reason in one line.

    ``extra`` is what to install of pix2live where pycuda is missing.
    """
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return NO_DRIVER
    try:
        driver = _pycuda()
    except ModuleNotFoundError:
        return f"the package pycuda is not installed (pip install 'pix2live[{extra}]')"
    except ImportError as error:
        return (
            "pycuda does not fit the driver or the CUDA libraries that are here"
            f" ({first_line(error)}); pip install --force-reinstall --no-binary pycuda pycuda"
        )
    try:
        driver.init()
        devices = driver.Device.count()
    except driver.Error as error:
        return f"the NVIDIA driver does not start ({first_line(error)}); nvidia-smi tells more"
    return None if devices else "there is an NVIDIA driver here, but no GPU"


class Stream:
    """A queue of work on the device: in order within, unordered with other streams."""

    def __init__(self, driver: Any) -> None:
        self._stream = driver.Stream(NON_BLOCKING)
        self.handle: int = self._stream.handle
        """CUstream as a number, as TensorRT and cuda-bindings take it."""

    def wait(self, event: Event) -> None:
        """Let what is queued from now on start after the last record of ``event``."""
        self._stream.wait_for_event(event.raw)

    def synchronize(self) -> None:
        """Let this thread wait until the stream is empty."""
        self._stream.synchronize()

    def free(self) -> None:
        self._stream = None

    @property
    def raw(self) -> Any:
        return self._stream


class Event:
    """A mark in a stream, for other streams and threads to wait for."""

    def __init__(self, driver: Any) -> None:
        flags = driver.event_flags
        # A waiting thread sleeps: spinning would take a core from capture and encoding.
        self._event = driver.Event(int(flags.BLOCKING_SYNC) | int(flags.DISABLE_TIMING))

    def record(self, stream: Stream) -> None:
        self._event.record(stream.raw)

    def synchronize(self) -> None:
        """Let this thread wait until the last record was reached."""
        self._event.synchronize()

    def free(self) -> None:
        self._event = None

    @property
    def raw(self) -> Any:
        return self._event


class DeviceMemory:
    """Memory on the device; addresses are multiples of 256 bytes, as TensorRT wants them."""

    def __init__(self, driver: Any, nbytes: int) -> None:
        self._allocation = driver.mem_alloc(nbytes)
        self.address = int(self._allocation)
        self.nbytes = nbytes

    def free(self) -> None:
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class Cuda:
    """One device. Everything but the attributes is called inside ``with cuda.current():``."""

    def __init__(self, device: str = "") -> None:
        """Retain the primary context of ``device``, a number from 0; empty for the first.

        Raises:
            EngineError: there is no such device, or its context cannot be had.
        """
        self._driver = driver = _pycuda()
        try:
            driver.init()
            count = driver.Device.count()
            if not re.fullmatch(r"\d*", device) or int(device or 0) >= count:
                raise EngineError(
                    f"there is no CUDA device {device!r} here: they are numbered 0 to {count - 1}"
                )
            index = int(device or 0)
            found = driver.Device(index)
            self.name: str = found.name()
            self.compute_capability: tuple[int, int] = found.compute_capability()
            self.driver_version = _driver_version(driver)
            if index not in _PRIMARY:
                _PRIMARY[index] = found.retain_primary_context()
        except driver.Error as error:
            raise EngineError(f"CUDA does not start: {first_line(error)}") from error
        self._context = _PRIMARY[index]

    def current(self) -> Current:
        """Return a context manager that makes the device current in this thread."""
        return Current(self._driver, self._context)

    def stream(self) -> Stream:
        return Stream(self._driver)

    def event(self) -> Event:
        return Event(self._driver)

    def allocate(self, nbytes: int) -> DeviceMemory:
        return DeviceMemory(self._driver, nbytes)

    def page_locked(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Allocate a zeroed uint8 array that the device reads and writes by itself.

        It outlives the engine: the memory goes when the last view of it does, in any thread.
        """
        raw = self._driver.pagelocked_empty(int(np.prod(shape)), np.uint8)
        raw.fill(0)
        address: int = raw.ctypes.data
        memory = _PageLocked(address, shape)
        _LOCKED[address] = raw.nbytes
        release = weakref.finalize(memory, _unlock, self.current, raw.base, address)
        release.atexit = False  # at the end of the process somebody may still look at it
        return np.asarray(memory)

    @staticmethod
    def is_page_locked(array: NDArray[Any]) -> bool:
        """Whether the device can read and write ``array`` without a copy by the processor."""
        address: int = array.__array_interface__["data"][0]
        return _LOCKED.get(address, -1) >= array.nbytes

    def upload(self, memory: DeviceMemory, array: NDArray[Any], stream: Stream) -> None:
        """Queue a copy of a page-locked array to the device."""
        self._driver.memcpy_htod_async(memory.address, array, stream.raw)

    def download(self, array: NDArray[Any], memory: DeviceMemory, stream: Stream) -> None:
        """Queue a copy from the device into a page-locked array."""
        self._driver.memcpy_dtoh_async(array, memory.address, stream.raw)

    def clear(self, memory: DeviceMemory, stream: Stream) -> None:
        """Queue writing zeros."""
        self._driver.memset_d8_async(memory.address, 0, memory.nbytes, stream.raw)

    def free_bytes(self) -> int:
        free, _ = self._driver.mem_get_info()
        return int(free)

    @staticmethod
    def why_no_graphs() -> str | None:
        """Return None when `capture` can be used, else the reason in one line."""
        return cuda_graph.why_not()

    def capture(self, stream: Stream, work: Callable[[Stream], None]) -> cuda_graph.Graph:
        """Return what ``work`` queues in ``stream`` as a graph; nothing of it runs.

        Raises:
            EngineError: it cannot be captured; the stream can be used as before.
        """
        return cuda_graph.capture(stream.handle, lambda: work(stream))


class Current:
    """Pushes the context for a block, and says in words what fails in it."""

    def __init__(self, driver: Any, context: Any) -> None:
        self._driver = driver
        self._context = context

    def __enter__(self) -> None:
        try:
            self._context.push()
        except self._driver.Error as error:
            raise EngineError(f"CUDA failed: {first_line(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(self._driver.Error):  # the first error is the one that counts
            self._driver.Context.pop()
        if isinstance(error, self._driver.Error):
            raise EngineError(in_words(str(error))) from error


def quietly(call: Callable[[], None]) -> None:
    """Free or wait; a device that has failed refuses both, and its first error was told."""
    with contextlib.suppress(Exception):
        call()


class _PageLocked:
    """Owns page-locked memory on behalf of the arrays that look at it."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": "|u1",
            "data": (address, False),
        }


def _unlock(current: Callable[[], Current], allocation: Any, address: int) -> None:
    _LOCKED.pop(address, None)
    with contextlib.suppress(EngineError), current():
        allocation.free()


def _pycuda() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of, the ImportError says too
        return importlib.import_module("pycuda.driver")


def _driver_version(driver: Any) -> str:
    """The newest CUDA that the driver knows and, where the system tells it, its own version."""
    number = driver.get_driver_version()
    text = f"CUDA {number // 1000}.{number % 1000 // 10}"
    with contextlib.suppress(OSError):
        told = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", told)
        text += f", driver {found[0]}" if found else ""
    return text


def _release() -> None:
    # Said here, or pycuda's destructor lets go in the way for other contexts, and complains.
    while _PRIMARY:
        quietly(_PRIMARY.popitem()[1].detach)


atexit.register(_release)
