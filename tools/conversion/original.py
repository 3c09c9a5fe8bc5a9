"""What is to be converted, able to translate frames the way it was meant to.

An `Original` is right by definition: every later step is compared with its pictures.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines import Card, ConversionError, FrameModel, SettingsError, Size
from engines.picture_format import PictureFormat
from engines.proof import Levels

if TYPE_CHECKING:
    import onnx

STRIDES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORTEST_TRIAL_PX: Final = 48
HOW_TO_SAY_RANGE: Final = (
    "a network does not say which values it takes: add --range 0..1, -1..1, 0..255 or imagenet"
    " (and --colour bgr or grey, where it is not RGB)"
)


@dataclass(frozen=True, slots=True)
class Words:
    """What a person said about the thing to convert; None where nothing was said."""

    source: str | None = None
    module: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    range: str | None = None
    range_out: str | None = None
    colour: str | None = None
    colour_out: str | None = None
    layout: str | None = None
    input: str | None = None
    output: str | None = None
    stride: int | None = None
    entry: str | None = None
    family: str | None = None
    statistics: str | None = None
    size: Size | None = None

    def pictures(self, guessed_layout: str = "nchw") -> tuple[PictureFormat, PictureFormat]:
        """Return what the network takes and gives.

        Raises:
            ConversionError: nobody said which values.
        """
        if self.range is None:
            raise ConversionError(HOW_TO_SAY_RANGE)
        layout = self.layout or guessed_layout
        colour = self.colour or "rgb"
        takes = PictureFormat.parse(self.range, colour, layout)
        given = self.range_out or ("0..1" if self.range == "imagenet" else self.range)
        return takes, PictureFormat.parse(given, self.colour_out or colour, layout)

    def refuse_others(self, kind: str, applying: Iterable[str]) -> None:
        """Refuse what was said and does not apply to ``kind``: nothing is silently left out.

        Raises:
            SettingsError: which option it is.
        """
        for item in fields(self):
            name = item.name
            said = getattr(self, name) not in (None, {})
            if name in ("source", "module", "size", *applying) or not said:
                continue
            raise SettingsError(f"--{name.replace('_', '-')} does not apply to {kind}")


@dataclass(frozen=True, slots=True)
class Original:
    """A network with everything that a conversion needs to know about it."""

    card: Card
    """With proofs only where it is a frame model already."""
    described: str
    """What right is: "PyTorch", "the ONNX file"."""
    levels: Levels | None
    """What the original makes of a frame; None for what is a frame model already."""
    graph: Callable[[Size | None], onnx.ModelProto]
    """Makes the FP32 frame model; with a size, for that size only."""
    fixed_size: Size | None = None
    family: str = ""
    notes: tuple[str, ...] = ()


def frame_model_original(model: FrameModel) -> Original:
    """Return a frame model: nothing is left to do but FP16, engines and their proofs."""
    return Original(
        card=model.card,
        described="FP32 ONNX",
        levels=None,
        graph=lambda _: model.graph(),
        fixed_size=model.fixed_size,
        notes=("it is a frame model already: its own FP32 pictures are the reference",),
    )


def find_stride(levels: Levels, size: Size | None) -> int:
    """Return the smallest power of two whose odd multiples come back in their own size.

    A network that takes no such size but ``size`` (width, height), which a person asked for, has a
    stride of 1: it is exported for this size alone.

    Raises:
        ConversionError: no such size, or the network fails on every frame.
    """
    reason, always_failed = "", True
    for stride in STRIDES:
        cells = max(3, -(-SHORTEST_TRIAL_PX // stride) | 1)
        frame = np.zeros((cells * stride, (cells + 2) * stride, 3), np.uint8)
        frame[::2] = 255
        try:
            found = levels(frame)
        except ConversionError as error:
            reason = str(error)
            continue
        if found.shape == frame.shape:
            return stride
        always_failed = False
        height, width = frame.shape[:2]
        reason = f"{width}x{height} comes back as {found.shape[1]}x{found.shape[0]}"
    if size is not None:
        frame = np.zeros((size[1], size[0], 3), np.uint8)
        with contextlib.suppress(ConversionError):
            if levels(frame).shape == frame.shape:
                return 1
    if always_failed:
        raise ConversionError(f"{reason} (a network for one size needs --size)")
    raise ConversionError(
        f"no size was found that the network gives back as it took it ({reason});"
        " --stride says of what the sides must be multiples"
    )


def card_name(text: str) -> str:
    """Return a name for the card, of letters and digits of any script, '.', '-' and '_'."""
    parts = re.findall(r"[\w.-]+", text)
    return "-".join(parts)[:80].strip("-.") or "filter"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
