"""Is it the same picture? Two ways to translate a frame, compared on real frames.

A conversion is believed only when its pictures are those of the original network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import ConversionError, EngineError

if TYPE_CHECKING:
    from torch import nn

Translate = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""uint8 (H, W, 3) BGR in, the same shape out; values 0 to 255."""

Levels = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (H, W, 3) BGR in; float32 (H, W, 3) BGR out, 0 to 255, neither rounded nor limited."""

PROVED: Final = (("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16"))
"""(backend, precision) that a new frame model has to pass, where this machine has them."""

HIGHEST_PSNR_DB: Final = 99.0
"""Stands for pictures without any difference, whose ratio would be infinite (no JSON)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What still counts as the same picture."""

    psnr_db: float = 35.0
    """At least; over all frames together."""
    mean_difference: float = 1.0
    """At most, of 255."""
    broken_share: float = 0.0
    """At most, 0 to 1."""
    max_difference: float = 255.0
    """At most, of 255, at any pixel."""


MASTER_LIMITS: Final = Limits(psnr_db=45.0, mean_difference=0.1, max_difference=1.0)
"""FP32 as another library computes it: at most the last digit may differ."""
HALF_LIMITS: Final = Limits(psnr_db=45.0)
"""FP16 where it belongs: nobody sees the difference."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """A frame and what both ways make of it. uint8 (H, W, 3) BGR."""

    frame: NDArray[np.uint8]
    reference: NDArray[Any]
    candidate: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """How far a candidate is from its reference. Differences are of 255."""

    frames: int
    psnr_db: float
    max_difference: float
    mean_difference: float
    broken_share: float
    """Share of the frames with NaN or infinity, or of one colour where the reference is not."""
    limits: Limits = Limits()
    worst: Pictures | None = field(default=None, repr=False, compare=False)
    """Of the frame with the largest difference."""

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it is not the same picture, one line a reason; empty when it is."""
        limits, found = self.limits, []
        if self.broken_share > limits.broken_share:
            found.append(f"{self.broken_share:.0%} of the pictures are one colour or not finite")
        if self.max_difference > limits.max_difference:
            found.append(
                f"a pixel differs by {self.max_difference:.0f} of 255,"
                f" expected {limits.max_difference:g} or less"
            )
        if self.psnr_db < limits.psnr_db:
            found.append(f"PSNR {self.psnr_db:.1f} dB, expected {limits.psnr_db:g} or more")
        if self.mean_difference > limits.mean_difference:
            found.append(
                f"mean difference {self.mean_difference:.2f} of 255,"
                f" expected {limits.mean_difference:g} or less"
            )
        return tuple(found)

    def for_card(self) -> dict[str, float]:
        """The numbers that a frame model's card carries."""
        return {
            "psnr_db": round(self.psnr_db, 2),
            "max_difference": round(self.max_difference, 2),
            "mean_difference": round(self.mean_difference, 4),
            "frames": self.frames,
        }


def compare(
    reference: Translate,
    candidate: Translate,
    frames: Iterable[NDArray[np.uint8]],
    limits: Limits | None = None,
) -> Proof:
    """Translate every frame both ways and measure the difference.

    Args:
        reference: the way that is right by definition, usually the PyTorch network.
        candidate: the way that has to prove itself.
        frames: uint8 (H, W, 3) BGR, real ones: a flat or random picture proves little.
        limits: what still counts as the same; None takes the defaults.

    Raises:
        ConversionError: there were no frames, or the two ways give pictures of different shapes.
    """
    count = broken = 0
    squares = differences = values = highest = 0.0
    worst, most = None, -1.0
    for frame in frames:
        shown, given = np.asarray(reference(frame)), np.asarray(candidate(frame))
        right, found = shown.astype(np.float64), given.astype(np.float64)
        if right.shape != found.shape:
            raise ConversionError(
                f"the pictures differ in shape: the reference gives {right.shape},"
                f" the candidate {found.shape}"
            )
        finite = bool(np.isfinite(found).all())
        broken += not finite or (is_flat(found) and not is_flat(right))
        # What is not finite counts as wrong by the whole range.
        difference = np.abs(np.where(np.isfinite(found), found - right, 255.0))
        squares += float(np.square(difference).sum())
        differences += float(difference.sum())
        highest = max(highest, float(difference.max()))
        values += difference.size
        count += 1
        if difference.mean() > most:
            # Copies: a backend may hand out the same memory again.
            most, worst = float(difference.mean()), Pictures(frame, shown.copy(), given.copy())
    if not count:
        raise ConversionError("nothing to compare: no frames were given")
    psnr_db = 10 * np.log10(255**2 * values / squares) if squares else HIGHEST_PSNR_DB
    return Proof(
        frames=count,
        psnr_db=min(float(psnr_db), HIGHEST_PSNR_DB),
        max_difference=highest,
        mean_difference=differences / values,
        broken_share=broken / count,
        limits=limits or Limits(),
        worst=worst,
    )


def torch_levels(generator: nn.Module) -> Levels:
    """Return the PyTorch network as a way to translate frames: right by definition.

    What it returns raises ConversionError for a network that fails on a frame, or gives no picture.
    """
    import torch

    from engines.export import FrameTranslator, as_bgr

    translator = FrameTranslator(generator).eval()

    def levels(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.ascontiguousarray(frame))[None]
        try:
            with torch.inference_mode():
                found = as_bgr(translator.levels(batch), translator.gives.colour)
        except ConversionError:
            raise
        except (Exception, SystemExit) as error:  # a network is somebody's own code
            lines = str(error).strip().splitlines() or [""]
            raise ConversionError(
                f"the network fails on a frame of {frame.shape[1]}x{frame.shape[0]}:"
                f" {type(error).__name__}: {lines[0]}"
            ) from error
        picture: NDArray[np.float32] = found[0].permute(1, 2, 0).cpu().numpy()
        return picture

    return levels


def picture_of(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return levels (H, W, 3) as a frame: rounded, and limited to 0 to 255."""
    picture: NDArray[np.uint8] = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    return picture


def remembered(translate: Translate, frames: Sequence[NDArray[np.uint8]]) -> Translate:
    """Return ``translate`` with its pictures of ``frames`` computed once, now.

    One reference is compared with several candidates, and it is the slowest of them.
    """
    pictures = {id(frame): translate(frame).copy() for frame in frames}
    return lambda frame: pictures[id(frame)]


def prove_frame_model(
    path: str | Path, generator: nn.Module, frames: Sequence[NDArray[np.uint8]]
) -> dict[str, Proof]:
    """Compare a frame model with its PyTorch generator on every backend that can run here.

    Args:
        path: the frame model.
        generator: what it was exported from; float32 (1, 3, H, W) RGB, 0 to 1, in and out.
        frames: real ones, whose sides are multiples of the model's stride. Those of the first
            one's size are used.

    Returns:
        ``backend/precision`` -> proof. A backend that is not installed, or a precision that
        this machine does not have, is left out: a card claims only what was tried.

    Raises:
        ConversionError: a backend gives another picture than PyTorch.
    """
    from engines.registry import open_engine

    if not frames:
        raise ConversionError("nothing to compare: no frames were given")
    height, width = frames[0].shape[:2]
    same_size = [frame for frame in frames if frame.shape == frames[0].shape]
    levels = torch_levels(generator)
    reference = remembered(lambda frame: picture_of(levels(frame)), same_size)
    proofs: dict[str, Proof] = {}
    for backend, precision in PROVED:
        try:
            engine = open_engine(path, (width, height), backend=backend, precision=precision)
        except EngineError:
            continue
        with engine:
            proof = compare(reference, engine.infer, same_size)
        if not proof.passed:
            reasons = "; ".join(proof.problems)
            raise ConversionError(f"{backend} in {precision} is not the same picture: {reasons}")
        proofs[f"{backend}/{precision}"] = proof
    return proofs


def is_flat(picture: NDArray[Any]) -> bool:
    """Whether a picture (H, W, C) is one colour all over."""
    return bool((picture == picture[:1, :1]).all())
