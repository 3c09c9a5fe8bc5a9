"""Effect: the contract of what happens between the generator and the sinks.

    captured frame --engine--> translated frame --effect--> ... --effect--> sinks
          +------------------------------------+
                  effects see both of them

The engine's thread runs the effects of a frame one after the other. What takes longer than a frame
(a detector, a segmentation network) runs in a thread of the effect's own, and the frames are drawn
with what it found last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from engines import Pixels, Size
from realtime.frame import Frame

EffectFunction = Callable[[Frame, "Context"], Pixels]


@dataclass(slots=True)
class Context:
    """What the effects of one run know beside the frame, and tell each other.

    Owned by the engine's thread; effects write what later effects and user code may read.
    """

    size: Size = (0, 0)
    """(width, height) of every frame."""
    live: bool = True
    """Whether frames may be drawn with what was found on an earlier one. Otherwise (a recording
    into a file) each frame waits for its own: the same input gives the same output."""
    fps: float = 30.0
    """Of the source, or what is assumed where it does not say."""
    label: str = ""
    """The running filter's name."""
    alpha: Pixels | None = None
    """uint8 (H, W, 1) of this frame: where the filter says that it shows, 255 all of it. Read-only
    and valid until the next frame; None where the filter does not say."""
    age_ms: float = 0.0
    """Of this frame, when the first effect got it."""
    shown_fps: float | None = None
    """Translated frames a second, of late; None at the beginning."""
    markers: dict[int, Any] = field(default_factory=dict)
    """Marker id -> what the marker effects know of it: corners, rotation, translation."""
    faces: list[Any] = field(default_factory=list)
    """What a face mask found."""
    mask: Pixels | None = None
    """uint8 (H, W) of the last mask effect: 255 where the translation shows."""
    values: dict[str, Any] = field(default_factory=dict)
    """Anything that effects of users want to keep or hand on."""


class Effect(ABC):
    """Changes translated frames on their way to the sinks.

    Threads: `prepare` and `close` run in the pipeline's thread, `process` and `reset` in the
    engine's.
    """

    name: str = "effect"
    """What it is called in statistics and errors."""
    latency_ms: float = 1.0
    """How much it adds to a frame's age, declared: the median at 640x360 on two desktop cores.
    The statistics of a run say what it was."""
    draws: bool = True
    """Whether it changes the picture; detectors that only fill the context do not."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """What a person should know."""
        self.paths: tuple[Path, ...] = ()
        """Files that it reads: no sink may write over them."""

    def prepare(self, size: Size, context: Context) -> None:
        """Get ready for frames of ``size`` (width, height): load, allocate, check. Called again
        when the size changes.

        Raises:
            EffectError, SettingsError: what it needs is missing, or does not fit the size.
        """

    @abstractmethod
    def process(self, frame: Frame, context: Context) -> Pixels:
        """Return the picture that goes on.

        Args:
            frame: ``pixels``, the translation so far, may be changed in place and returned;
                ``source``, the picture as captured, is read-only. Both uint8 (H, W, 3) BGR, and
                only valid during this call.
            context: of the run.

        Returns:
            uint8 (H, W, 3) BGR of the same size; valid until the next call. A view, a read-only
            picture or one that is kept will do: the chain copies it for the next effect.
        """

    def reset(self) -> None:
        """Forget earlier frames: what comes next has nothing to do with them."""

    def cancel(self) -> None:
        """The run is ending: wait for nothing any more. Any thread."""

    def close(self) -> None:
        """Free everything. Also after a `prepare` that failed; more than once is no error."""


class FunctionEffect(Effect):
    """A plain function ``(frame, context) -> pixels`` as an effect; see `effect`."""

    def __init__(self, function: EffectFunction, *, name: str = "", latency_ms: float = 1.0):
        super().__init__()
        self.function = function
        self.name = name or function_name(function)
        self.latency_ms = latency_ms

    def process(self, frame: Frame, context: Context) -> Pixels:
        return self.function(frame, context)

    def __call__(self, frame: Frame, context: Context) -> Pixels:
        return self.function(frame, context)


def function_name(function: Any) -> str:
    """Return what to call ``function``, which may be a `functools.partial` or an object."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def effect(function: EffectFunction) -> FunctionEffect:
    """Make an effect of a function ``(frame, context) -> pixels`` (a decorator).

    ``frame.pixels`` is the translation, ``frame.source`` the picture as captured (read-only); both
    uint8 (H, W, 3) BGR. Return uint8 pixels of the same shape: ``frame.pixels`` changed in place,
    or another array.
    """
    return FunctionEffect(function)
