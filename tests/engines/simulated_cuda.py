"""A CUDA device for tests: `engines.nvidia.cuda.Cuda` with streams that run at random.

What is queued runs later, in any order that CUDA allows: first in, first out within a stream,
waits for events respected, and nothing else. A seed decides. Memory that was freed or never
written, copies from memory that is not page-locked, calls without a current context, and work
that lies in a capture are errors of the test. Any call can be made to fail.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.nvidia.cuda_words import in_words

Step = Callable[[], None]


class DeviceFailure(Exception):  # noqa: N818  (pycuda's is called Error)
    """What pycuda would raise."""


class WrongUseError(AssertionError):
    """The backend did what no CUDA program may do."""


class Stream:
    def __init__(self, cuda: SimulatedCuda, number: int) -> None:
        self.cuda, self.handle = cuda, number
        self.queue: deque[tuple[str, Any]] = deque()
        self.captured: list[Step] | None = None

    def push(self, step: Step) -> None:
        if self.captured is not None:
            self.captured.append(step)
        else:
            self.queue.append(("run", step))

    def wait(self, event: Event) -> None:
        self.cuda.call("wait")
        # As CUDA has it: the last record counts, and without one there is nothing to wait for.
        self.queue.append(("wait", (event, event.recorded)))
        self.cuda.perhaps_run()

    def synchronize(self) -> None:
        self.cuda.call("stream.synchronize")
        self.cuda.run_until(lambda: not self.queue)

    def free(self) -> None:
        self.cuda.forget(self)


class Event:
    def __init__(self, cuda: SimulatedCuda) -> None:
        self.cuda, self.recorded, self.reached = cuda, 0, 0

    def record(self, stream: Stream) -> None:
        self.cuda.call("record")
        self.recorded += 1
        stream.queue.append(("record", (self, self.recorded)))
        self.cuda.perhaps_run()

    def synchronize(self) -> None:
        self.cuda.call("event.synchronize")
        wanted = self.recorded
        self.cuda.run_until(lambda: self.reached >= wanted)

    def free(self) -> None:
        self.cuda.forget(self)


class DeviceMemory:
    def __init__(self, cuda: SimulatedCuda, address: int, nbytes: int) -> None:
        self.cuda, self.address, self.nbytes = cuda, address, nbytes
        self.content = np.full(nbytes, 0xAB, np.uint8)
        self.written = self.freed = False

    def free(self) -> None:
        self.freed = True
        self.cuda.forget(self)

    def read(self) -> NDArray[np.uint8]:
        if self.freed:
            self.cuda.wrong_use("device memory is read after it was freed")
        if not self.written:
            self.cuda.wrong_use("device memory is read before anything was written")
        return self.content

    def write(self, content: NDArray[Any] | int) -> None:
        if self.freed:
            self.cuda.wrong_use("device memory is written after it was freed")
        self.content[:] = content
        self.written = True


class Graph:
    def __init__(self, cuda: SimulatedCuda, steps: list[Step]) -> None:
        self.cuda, self.steps = cuda, steps

    def launch(self, stream: Stream) -> None:
        self.cuda.call("graph.launch")
        if self not in self.cuda.held:
            self.cuda.wrong_use("a graph is launched after it was freed")

        def run() -> None:
            for step in self.steps:
                step()

        stream.push(run)
        self.cuda.perhaps_run()

    def free(self) -> None:
        self.cuda.forget(self)


class SimulatedCuda:
    name, compute_capability, driver_version = "Simulated GPU", (8, 6), "CUDA 13.0, driver 580.1"

    def __init__(
        self,
        seed: int = 0,
        *,
        graphs: bool = False,
        fail_at: int | None = None,
        eager: float = 0.5,
    ) -> None:
        self.random = random.Random(seed)
        self.graphs = graphs
        self.fail_at = fail_at
        self.failed = ""
        """Name of the call that was made to fail."""
        self.eager = eager
        """How often the device gets on with its work by itself, 0 to 1."""
        self.calls: Counter[str] = Counter()
        self.held: list[Any] = []
        """Everything that was allocated and not freed."""
        self.wrong: list[str] = []
        """What was done that no CUDA program may do; must be empty at the end of a test."""
        self.locked: dict[int, int] = {}
        self.timeline: list[str] = []
        """Names of the steps in the order in which they ran, where they have one."""
        self._threads: Counter[int] = Counter()
        self._addresses = 0

    # --- the interface of engines.nvidia.cuda.Cuda ---

    def current(self) -> Current:
        return Current(self)

    def stream(self) -> Stream:
        self.call("stream")
        return self._hold(Stream(self, 1000 + self.calls["stream"]))

    def event(self) -> Event:
        self.call("event")
        return self._hold(Event(self))

    def allocate(self, nbytes: int) -> DeviceMemory:
        self.call("allocate")
        assert nbytes > 0
        self._addresses += (nbytes + 511) // 256 * 256
        return self._hold(DeviceMemory(self, self._addresses, nbytes))

    def page_locked(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.call("page_locked")
        count = int(np.prod(shape))
        raw = np.zeros(count + 4096, np.uint8)
        start = -raw.ctypes.data % 4096
        array = raw[start : start + count].reshape(shape)
        self.locked[array.ctypes.data] = count
        weakref.finalize(raw, self.locked.pop, array.ctypes.data)
        return array

    def is_page_locked(self, array: NDArray[Any]) -> bool:
        return self.locked.get(array.ctypes.data, -1) >= array.nbytes

    def upload(self, memory: DeviceMemory, array: NDArray[Any], stream: Stream) -> None:
        self.call("upload")
        self._check_copy(memory, array)
        number = self.calls["upload"]
        self._queue(stream, lambda: memory.write(array.reshape(-1)), f"upload {number}")

    def download(self, array: NDArray[Any], memory: DeviceMemory, stream: Stream) -> None:
        self.call("download")
        self._check_copy(memory, array)
        number = self.calls["download"]

        def copy() -> None:
            array.reshape(-1)[:] = memory.read()

        self._queue(stream, copy, f"download {number}")

    def clear(self, memory: DeviceMemory, stream: Stream) -> None:
        self.call("clear")
        self._queue(stream, lambda: memory.write(0), "")

    def why_no_graphs(self) -> str | None:
        return None if self.graphs else "the test wants none"

    def capture(self, stream: Stream, work: Callable[[Stream], None]) -> Graph:
        try:
            self.call("capture.begin")
            stream.captured = steps = []
            work(stream)
            self.call("capture.end")
        except DeviceFailure as error:
            raise EngineError(in_words(str(error))) from error
        finally:
            stream.captured = None
        return self._hold(Graph(self, steps))

    # --- the device ----------------------------------------------------------------------------

    def compute(self, handle: int, step: Step) -> None:
        """Queue a kernel, as a library does that was given a stream's handle."""
        self.call("enqueue")
        stream = next(x for x in self.held if isinstance(x, Stream) and x.handle == handle)
        self._queue(stream, step, f"compute {self.calls['enqueue']}")

    def memory_at(self, address: int) -> DeviceMemory:
        found = [x for x in self.held if isinstance(x, DeviceMemory) and x.address == address]
        if not found:
            self.wrong_use(f"no memory at address {address}, or it was freed")
        return found[0]

    def call(self, name: str) -> None:
        self.calls[name] += 1
        if not self._threads[threading.get_ident()]:
            self.wrong_use(f"{name} without a current context")
        self.may_fail(name)

    def may_fail(self, name: str) -> None:
        self.calls["all"] += 1
        if self.calls["all"] == self.fail_at:
            self.failed = name
            raise DeviceFailure(f"{name} failed: out of memory")

    def perhaps_run(self) -> None:
        while self.random.random() < self.eager and self._step():
            pass

    def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            if not self._step():
                self.wrong_use("the host waits for what never happens")

    def _step(self) -> bool:
        """Run the head of a stream that may go on; False when there is none."""
        streams = [x for x in self.held if isinstance(x, Stream) and x.queue]
        self.random.shuffle(streams)
        for stream in streams:
            kind, what = stream.queue[0]
            if kind == "wait" and what[0].reached < what[1]:
                continue
            stream.queue.popleft()
            if kind == "run":
                what()
            elif kind == "record":
                what[0].reached = max(what[0].reached, what[1])
            return True
        return False

    def _queue(self, stream: Stream, step: Step, name: str) -> None:
        def run() -> None:
            step()
            if name:
                self.timeline.append(name)

        stream.push(run)
        self.perhaps_run()

    def _check_copy(self, memory: DeviceMemory, array: NDArray[Any]) -> None:
        if not self.is_page_locked(array):
            self.wrong_use("an asynchronous copy of memory that is not page-locked")
        if memory.nbytes != array.nbytes:
            self.wrong_use(f"a copy of {array.nbytes} bytes to or from {memory.nbytes}")

    def _hold(self, made: Any) -> Any:
        self.held.append(made)
        return made

    def forget(self, freed: Any) -> None:
        if freed not in self.held:
            self.wrong_use(f"{type(freed).__name__} is freed twice")
        if isinstance(freed, Stream) and freed.queue:
            self.wrong_use("a stream is freed while work is under way")
        self.held.remove(freed)
        self.call("free")

    def wrong_use(self, text: str) -> NoReturn:
        """Note and raise what no CUDA program may do; a clean-up may suppress the raising."""
        self.wrong.append(text)
        raise WrongUseError(text)

    # --- contexts ------------------------------------------------------------------------------

    def enter(self) -> None:
        self.may_fail("context.push")
        self._threads[threading.get_ident()] += 1

    def leave(self) -> None:
        self._threads[threading.get_ident()] -= 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count the calls of a block."""
        before, counted = self.calls.copy(), Counter[str]()
        yield counted
        counted.update(self.calls - before)


class Current:
    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda

    def __enter__(self) -> None:
        try:
            self._cuda.enter()
        except DeviceFailure as error:
            raise EngineError(in_words(str(error))) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._cuda.leave()
        if isinstance(error, DeviceFailure):
            raise EngineError(in_words(str(error))) from error
