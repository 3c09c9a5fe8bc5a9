"""What is to be converted, able to translate frames the way it was meant to.

An `Original` is right by definition: every later step is compared with its pictures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines import Card, ConversionError, FrameModel, Size
from engines.picture_format import PictureFormat
from engines.proof import Translate

if TYPE_CHECKING:
    import onnx

STRIDES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORTEST_TRIAL_PX: Final = 48
SIZE_ERRORS: Final = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What networks say of a size that they cannot take."""
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
    colour: str = "rgb"
    colour_out: str | None = None
    layout: str | None = None
    input: str | None = None
    output: str | None = None
    stride: int | None = None
    entry: str | None = None
    family: str | None = None
    statistics: str | None = None

    def pictures(self, guessed_layout: str = "nchw") -> tuple[PictureFormat, PictureFormat]:
        """Return what the network takes and gives.

        Raises:
            ConversionError: nobody said which values.
        """
        if self.range is None:
            raise ConversionError(HOW_TO_SAY_RANGE)
        layout = self.layout or guessed_layout
        takes = PictureFormat.parse(self.range, self.colour, layout)
        given = self.range_out or ("0..1" if self.range == "imagenet" else self.range)
        return takes, PictureFormat.parse(given, self.colour_out or self.colour, layout)


@dataclass(frozen=True, slots=True)
class Original:
    """A network with everything that a conversion needs to know about it."""

    card: Card
    """Without proofs."""
    described: str
    """What right is: "PyTorch", "the ONNX file"."""
    translate: Translate | None
    """uint8 BGR to uint8 BGR, as the original does it; None for what is a frame model already."""
    graph: Callable[[Size | None], onnx.ModelProto]
    """Makes the FP32 frame model; with a size, for that size only."""
    fixed_size: Size | None = None
    family: str = ""
    notes: tuple[str, ...] = ()


def frame_model_original(model: FrameModel) -> Original:
    """Return a frame model: nothing is left to do but FP16, engines and their proofs."""

    def graph(_: Size | None) -> onnx.ModelProto:
        import onnx

        return onnx.load(str(model.path))

    return Original(
        card=replace(model.card, proofs={}),
        described="FP32 ONNX",
        translate=None,
        graph=graph,
        fixed_size=model.fixed_size,
        notes=("it is a frame model already: its own FP32 pictures are the reference",),
    )


def find_stride(translate: Translate) -> int:
    """Return the smallest power of two whose odd multiples come back in their own size."""
    reason = ""
    for stride in STRIDES:
        cells = max(3, -(-SHORTEST_TRIAL_PX // stride) | 1)
        frame = np.zeros((cells * stride, (cells + 2) * stride, 3), np.uint8)
        frame[::2] = 255
        try:
            found = translate(frame)
        except SIZE_ERRORS as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            continue
        if found.shape == frame.shape:
            return stride
        reason = (
            f"{frame.shape[1]}x{frame.shape[0]} comes back as {found.shape[1]}x{found.shape[0]}"
        )
    raise ConversionError(
        f"no size was found that the network gives back as it took it ({reason});"
        " --stride says of what the sides must be multiples"
    )


def card_name(text: str) -> str:
    """Return a name for the card, of letters, digits, '.', '-' and '_'."""
    parts = re.findall(r"[A-Za-z0-9._-]+", text)
    return "-".join(parts)[:80].strip("-.") or "filter"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
