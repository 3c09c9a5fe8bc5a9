"""The frames under way on a CUDA device: their buffers, streams and events.

Three streams, one for each engine of the device, so that a frame is computed while the next one
comes in and the last one goes out:

    upload      | frame 3 | frame 4 | frame 5 |
    compute               | frame 3 | frame 4 | frame 5 |
    download                        | frame 3 | frame 4 | frame 5 |

Within a stream, work is done in order. Between them, an event holds the computation of a frame back
until its upload is done, another one its download until it is computed, and `finish` waits for a
third one behind the download. Nothing else is ordered. A slot's buffers are written again only
after `finish` has waited: upload and computation of its earlier frame lie behind that too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.base import Pixels
from engines.errors import EngineError
from engines.model import STATE_OUT_SUFFIX, Size
from engines.nvidia.cuda import Cuda, DeviceMemory, Event, Stream, quietly

FRAME: Final = "frame"
TRANSLATED: Final = "translated"
ALPHA: Final = "alpha"

Enqueue = Callable[[Stream], None]
"""Queues the computation of one slot; raises EngineError when it cannot."""


@dataclass(slots=True)
class Slot:
    """What one frame under way needs."""

    memory: dict[str, DeviceMemory]
    """Name of an input or output of the model -> where it is on the device."""
    frame: Pixels
    """Page-locked (H, W, 3), for frames that come in ordinary memory."""
    translated: Pixels
    """The same for results."""
    alpha: Pixels | None
    """Page-locked (H, W, 1)."""
    uploaded: Event
    computed: Event
    downloaded: Event
    state_in: tuple[DeviceMemory, ...]
    enqueue: Enqueue | None = None

    @property
    def addresses(self) -> dict[str, int]:
        return {name: memory.address for name, memory in self.memory.items()}


class FrameRing:
    """Slots that are used in turn. Every method is called inside ``with cuda.current():``.

    States (name -> array of zeros) stay on the device: two slots take turns, each reads what the
    other one left. With states only one frame may be under way.
    """

    def __init__(
        self,
        cuda: Cuda,
        size: Size,
        depth: int,
        *,
        alpha: bool = False,
        states: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Allocate everything; nothing is allocated for a frame.

        Raises:
            EngineError: the device has not enough memory; nothing stays allocated.
        """
        self._cuda = cuda
        self._held = contextlib.ExitStack()
        self._started = self._finished = 0
        try:
            self.upload: Stream = self._hold(cuda.stream())
            self.compute: Stream = self._hold(cuda.stream())
            self.download: Stream = self._hold(cuda.stream())
            self.slots = self._new_slots(size, depth, alpha, dict(states or {}))
            self.reset()
        except BaseException:
            self.close()
            raise

    def start(self, frame_in: Pixels, frame_out: Pixels) -> None:
        """Queue a frame; the caller sees to it that there is a free slot.

        Raises:
            EngineError or pycuda's error: nothing of the frame is under way any more.
        """
        cuda, slot = self._cuda, self.slots[self._started % len(self.slots)]
        assert slot.enqueue is not None
        source = frame_in
        if not cuda.is_page_locked(frame_in):
            np.copyto(slot.frame, frame_in)
            source = slot.frame
        target = frame_out if cuda.is_page_locked(frame_out) else slot.translated
        try:
            cuda.upload(slot.memory[FRAME], source, self.upload)
            slot.uploaded.record(self.upload)
            self._wait_for_upload(slot)
            slot.enqueue(self.compute)
            slot.computed.record(self.compute)
            self._wait_for_compute(slot)
            cuda.download(target, slot.memory[TRANSLATED], self.download)
            if slot.alpha is not None:
                cuda.download(slot.alpha, slot.memory[ALPHA], self.download)
            slot.downloaded.record(self.download)
        except BaseException:
            self.drain()
            raise
        self._started += 1

    def finish(self, frame_out: Pixels) -> Pixels | None:
        """Wait for the oldest frame, put it into ``frame_out``, and return its alpha."""
        slot = self.slots[self._finished % len(self.slots)]
        self._finished += 1
        try:
            self._wait_for_download(slot)
        except BaseException:
            self.drain()
            raise
        if not self._cuda.is_page_locked(frame_out):
            np.copyto(frame_out, slot.translated)
        return slot.alpha

    def reset(self) -> None:
        """Let the next frame be the first one; nothing is under way."""
        for memory in self.slots[self._started % len(self.slots)].state_in:
            self._cuda.clear(memory, self.compute)

    def drain(self) -> None:
        """Wait until nothing is under way, as far as a failed device allows."""
        for name in ("upload", "compute", "download"):
            stream = getattr(self, name, None)
            if stream is not None:
                quietly(stream.synchronize)

    def close(self) -> None:
        """Free everything; what cannot be freed is no reason to stop."""
        self.drain()
        self.slots = []
        self._held.close()

    # --- what orders the streams ---------------------------------------------------------------

    def _wait_for_upload(self, slot: Slot) -> None:
        self.compute.wait(slot.uploaded)

    def _wait_for_compute(self, slot: Slot) -> None:
        self.download.wait(slot.computed)

    def _wait_for_download(self, slot: Slot) -> None:
        slot.downloaded.synchronize()

    # --- allocation ----------------------------------------------------------------------------

    def _hold(self, held: Any) -> Any:
        self._held.callback(quietly, held.free)
        return held

    def _new_slots(
        self, size: Size, depth: int, alpha: bool, states: dict[str, NDArray[Any]]
    ) -> list[Slot]:
        if states and depth > 1:
            raise EngineError("a model with states takes one frame at a time")
        width, height = size
        pairs = {
            name: [self._hold(self._cuda.allocate(zeros.nbytes)) for _ in range(2)]
            for name, zeros in states.items()
        }
        slots = []
        for index in range(2 if states else depth):
            read, written = index % 2, (index + 1) % 2
            pictures = {FRAME: 3, TRANSLATED: 3} | ({ALPHA: 1} if alpha else {})
            memory = {
                name: self._hold(self._cuda.allocate(height * width * channels))
                for name, channels in pictures.items()
            }
            for name, pair in pairs.items():
                memory[name] = pair[read]
                memory[name + STATE_OUT_SUFFIX] = pair[written]
            slots.append(
                Slot(
                    memory=memory,
                    frame=self._cuda.page_locked((height, width, 3)),
                    translated=self._cuda.page_locked((height, width, 3)),
                    alpha=self._cuda.page_locked((height, width, 1)) if alpha else None,
                    uploaded=self._hold(self._cuda.event()),
                    computed=self._hold(self._cuda.event()),
                    downloaded=self._hold(self._cuda.event()),
                    state_in=tuple(pair[read] for pair in pairs.values()),
                )
            )
        return slots
