"""A mask on people: by a small network in a thread of its own, with the picture's own edges."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import EffectError, Engine, Pixels, SettingsError, Size, open_engine
from engines.backends.openvino import OpenVinoEngine
from engines.filters import load_filter
from engines.masks import PERSON
from realtime.effects.background import Latest
from realtime.effects.base import Context
from realtime.effects.guided_filter import GuidedFilter
from realtime.effects.mask import Mask, check_ranges, mask_words
from realtime.effects.words import Words
from realtime.frame import Frame

if TYPE_CHECKING:
    from engines import FrameModel

Plane = NDArray[np.float32]

SHORT_SIDE_PX: Final = 144
"""Of the picture in which people are looked for: what the network was trained on."""
LONGEST_SIDE_PX: Final = 384
DECIDED: Final = 0.5
"""A change of the mask by this (of 1) is taken over at once: somebody moved."""
CERTAIN: Final = (0.1, 0.9)
"""Below and above these a refined mask is nobody and somebody."""
FLOW_SHARE: Final = 0.5
"""Of the small picture's sides: where motion is looked for."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """Where people are looked for, and in which run of frames."""

    small: Pixels
    generation: int


@dataclass(frozen=True, slots=True)
class _Found:
    mask: Plane
    """float32 (h, w), 0 to 1, smoothed over time."""
    picture: _Picture
    """What it is of."""


class PersonMask(Mask):
    """Shows the translation on people; with ``invert``, everywhere but on people.

    A small network (`engines.generators.person`) looks for people in a small picture: live, in a
    thread of its own, ``most_hz`` times a second on the newest frame; for a recording, on every
    frame. The mask is smoothed over time where it is undecided (what changes by half is taken over
    at once, so that nobody leaves a trail). A mask that is older than the frame is moved along the
    optical flow in between (DIS: T. Kroeger, R. Timofte, D. Dai and L. Van Gool, "Fast Optical Flow
    using Dense Inverse Search", 2016). A guided filter gives it the edges of the picture as it is
    now.

    Args:
        model: a frame model with the output ``alpha``; default: the one that ships.
        most_hz: how often people are looked for, at most, where the run is live.
        smooth: how much of small changes is held back, 0 (nothing) to 0.95.
        backend: which engine computes the network; see `engines.open_engine`. ``openvino`` is held
            to one thread, so that the filter keeps the other cores.
        feather_px: how wide the soft edge is, besides.
        invert: show the translation where nobody is.
    """

    name = "person"
    latency_ms = 3.0

    def __init__(
        self,
        model: str | os.PathLike[str] = PERSON,
        *,
        most_hz: float = 30.0,
        smooth: float = 0.6,
        backend: str = "openvino",
        feather_px: float = 2.0,
        invert: bool = False,
    ) -> None:
        super().__init__(feather_px=feather_px, invert=invert)
        if not 0 < most_hz <= 1000:
            raise SettingsError(f"person: hz must be more than 0, up to 1000, found {most_hz:g}")
        check_ranges(self.name, ("smooth", smooth, 0, 0.95))
        self.model, self.backend = model, backend
        self.paths = (Path(model),)
        self.most_hz, self.smooth = most_hz, smooth
        self._guided = GuidedFilter()
        self._motion: _Motion | None = None
        self._engine: Engine | None = None
        self._worker: Latest[_Picture, _Found] | None = None
        self._first: _Found | None = None
        self._small_size: Size = (0, 0)
        self._generation = 0
        # Of the thread that computes masks.
        self._before: _Found | None = None
        self._unused: Pixels | None = None

    @classmethod
    def from_words(cls, words: str) -> PersonMask:
        """``hz=``, ``smooth=``, ``backend=``, ``model=FILE``, ``feather=PX``, ``invert``."""
        taken = Words(cls.name, words)
        look = mask_words(taken, 2.0)
        hz, smooth = taken.number("hz", 30.0), taken.number("smooth", 0.6)
        backend, model = taken.text("backend", "openvino"), taken.text("model")
        taken.done()
        return cls(model or PERSON, most_hz=hz, smooth=smooth, backend=backend, **look)

    def prepare(self, size: Size, context: Context) -> None:
        self.close()
        model = load_filter(self.model)
        if not model.has_alpha:
            raise EffectError(
                f"person: {model.path.name} does not say where people are: it has no output 'alpha'"
            )
        engine = _modest_engine(model, self.backend)
        self._small_size = engine.fit(small_size(size))
        engine.open(self._small_size)
        self._engine = engine
        width, height = self._small_size
        self.notes[:] = [
            f"person: masks of {width}x{height} by {engine.name} in {engine.precision}"
        ]
        self._unused = np.empty((*self._small_size[::-1], 3), np.uint8)
        if context.live:
            self._motion = _Motion(self._small_size)
            self._worker = Latest(self._look, name=self.name, most_hz=self.most_hz)

    def find(self, frame: Frame, context: Context) -> Pixels:
        assert frame.source is not None
        small = _resized(frame.source, self._small_size)
        picture = _Picture(small, self._generation)
        found = self._found(picture)
        mask = found.mask
        if self._motion is not None and found.picture is not picture:
            mask = self._motion.carried(mask, found.picture.small, small)
        return levels(self._guided.refine(mask, small, frame.source))

    def _found(self, picture: _Picture) -> _Found:
        """Return the mask for ``picture``, or live the newest one."""
        if self._worker is None:
            return self._look(picture)
        if self._first is None:  # the worker has nothing to do yet: the engine is free
            self._first = self._look(picture)
            return self._first
        self._worker.offer(picture)
        # Also one from before a reset, for a frame or two: after a switch of filters the people
        # are still where they were, and no mask at all would be a flash.
        return self._worker.newest() or self._first

    def _look(self, picture: _Picture) -> _Found:
        """Compute a mask, in one thread at a time, and smooth it over time."""
        engine = self._engine
        assert engine is not None
        assert self._unused is not None
        engine.infer(picture.small, self._unused)
        assert engine.alpha is not None
        mask = engine.alpha[..., 0].astype(np.float32) * np.float32(1 / 255)
        before = self._before
        if before is not None and before.picture.generation == picture.generation:
            mask = steadied(before.mask, mask, self.smooth)
        self._before = _Found(mask, picture)
        return self._before

    def reset(self) -> None:
        self._generation += 1

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._engine is not None:
            self._engine.close()
        self._worker = self._engine = self._first = self._before = self._motion = None


def small_size(size: Size) -> Size:
    """Return (width, height) in which people of frames of ``size`` are looked for.

    Of about the same shape, the shorter side 144, or less where the longer one would be over 384.
    """
    scale = min(SHORT_SIDE_PX / min(size), LONGEST_SIDE_PX / max(size))
    width, height = (max(16, round(side * scale / 16) * 16) for side in size)
    return width, height


def steadied(before: Plane, now: Plane, smooth: float) -> Plane:
    """Return a mask between the last one and the new one, all float32 (h, w), 0 to 1.

    Of a small change ``smooth`` is held back; less of a larger one, and nothing from `DECIDED` on:
    what is left behind by somebody who moved is never more than a shimmer.
    """
    change = now - before
    held = np.maximum(0, 1 - np.abs(change) * np.float32(1 / DECIDED)) * np.float32(smooth)
    made: Plane = now - change * held
    return made


def levels(mask: Plane) -> Pixels:
    """Return a refined mask as uint8 (H, W), 0 to 255, with what is nearly 0 or 1 made so."""
    low, high = CERTAIN
    scale = 255 / (high - low)
    return cv2.addWeighted(mask, scale, mask, 0, -low * scale, dtype=cv2.CV_8U)  # type: ignore[return-value]


class _Motion:
    """Carries masks of one size, (width, height), from the picture that they are of to a later."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._flow_size = tuple(max(16, round(side * FLOW_SHARE)) for side in size)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        self._places = np.dstack([columns, rows]).astype(np.float32)
        self._scale = np.array(size, np.float32) / np.array(self._flow_size, np.float32)

    def carried(self, mask: Plane, then: Pixels, now: Pixels) -> Plane:
        """Return ``mask``, float32 (h, w), of ``then`` as it is on ``now``, uint8 (h, w, 3)."""
        flow = self._flow.calc(self._grey(now), self._grey(then), None)  # type: ignore[call-overload]
        where = self._places + cv2.resize(flow, self._size) * self._scale
        made = cv2.remap(mask, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        return np.asarray(made, np.float32)

    def _grey(self, picture: Pixels) -> Pixels:
        return _resized(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), self._flow_size)  # type: ignore[arg-type]


def _resized(picture: Pixels, size: Size) -> Pixels:
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


class _OneThread(OpenVinoEngine):
    """OpenVINO with one thread: a mask takes a few milliseconds, and the filter needs the rest."""

    def _read(self, size: Size) -> tuple[Any, Any]:
        core, network = super()._read(size)
        if self._device.startswith("CPU"):
            core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1})
        return core, network


def _modest_engine(model: FrameModel, backend: str) -> Engine:
    """Return the engine for masks, not open yet."""
    name, _, device = backend.partition(":")
    if name == OpenVinoEngine.name:
        return _OneThread(model, device=device)
    return open_engine(model, backend=backend)
