"""The proofs of a conversion: each way to compute the network, compared on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines import ConversionError, EngineError, Pixels, open_engine
from engines.model import Card, write_frame_model
from engines.proof import (
    HALF_LIMITS,
    MASTER_LIMITS,
    Limits,
    Proof,
    Translate,
    compare,
    is_flat,
    picture_of,
    remembered,
)
from engines.registry import why_not
from engines.twins import INT8
from tools.conversion.original import Original

if TYPE_CHECKING:
    import onnx

PROVEN: Final = "proven"
REFUSED: Final = "refused"
NOTED: Final = "noted"
"""Measured and worse than wanted, where nothing depends on it."""
NOT_PROVEN: Final = "not proven"

MARGIN: Final = 8.0
"""Levels beyond 0 to 255 that are no sign of a wrong range: networks overshoot at edges."""
FEWEST_LEVELS: Final = 16
MIDDLE: Final = 96
"""A picture all above it, or all as far below white, is a sign of a wrong range."""
OFTEN: Final = 0.3
MOSTLY: Final = 0.9
"""Shares of what the original gives that lie outside: said, and refused."""
ROUNDED: Final = "FP16 graph, rounded"
ROUNDED_MEANS: Final = (
    "rounded: on this processor, with every FP16 tensor rounded as a GPU rounds it"
)
FAST_LIMITS: Final = Limits(psnr_db=30.0, mean_difference=255.0)
"""What a CPU's reduced precision needs, so that `auto` takes it."""

INT8_LIMITS: Final = Limits(psnr_db=35.0, mean_difference=255.0)
"""What INT8 needs to be written at all."""

Tick = Callable[[str, int, int], None]
"""Called with what is done, the frame's number and how many there are."""


@dataclass(frozen=True, slots=True)
class Step:
    """One comparison, or why there was none."""

    what: str
    against: str
    verdict: str
    why: str = ""
    proof: Proof | None = None
    key: str = ""
    """Under which the card keeps it (``openvino/bf16``); empty: not on the card."""


class RefusedError(ConversionError):
    """A proof failed; ``step`` has the pictures."""

    def __init__(self, message: str, step: Step) -> None:
        super().__init__(message)
        self.step = step


@dataclass(slots=True)
class Prover:
    """Compares candidates with the original, on the same frames, and keeps the steps."""

    original: Original
    frames: tuple[Pixels, ...]
    tick: Tick
    real: bool = True
    """Whether the frames are real ones; the card says so."""
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _master: Translate | None = None
    _master_backend: str = ""
    _pictures: dict[int, Pixels] = field(default_factory=dict)
    """What the original makes of each frame, by the frame's identity."""

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.frames[0].shape[:2]
        return width, height

    def check_original(self) -> None:
        """Compute what is right, and refuse an original that gives no pictures itself.

        Raises:
            ConversionError: NaN, one colour whatever comes in, or nearly nothing in its range.
        """
        if self.original.levels is None:
            return
        levels = self._ticking("the original", self.original.levels)
        outside = []
        for frame in self.frames:
            found = levels(frame)
            if not np.isfinite(found).all():
                raise ConversionError(
                    "the original itself gives NaN or infinity on a frame: the weights are"
                    " damaged, or its range is another (--range)"
                )
            outside.append(float(np.mean((found < -MARGIN) | (found > 255 + MARGIN))))
            self._pictures[id(frame)] = picture_of(found)
        share = float(np.mean(outside))
        if share > MOSTLY:
            raise ConversionError(
                f"{share:.0%} of what the original gives lies outside its range: the range must"
                " be another (--range, --range-out)"
            )
        if all(is_flat(picture) for picture in self._pictures.values()):
            raise ConversionError(
                "the original itself gives one colour whatever the frame: nothing can be proven"
                " of it; is the range right (--range)?"
            )
        darkest = min(int(picture.min()) for picture in self._pictures.values())
        lightest = max(int(picture.max()) for picture in self._pictures.values())
        used = f"the original uses the levels {darkest} to {lightest} of 0 to 255"
        if lightest - darkest < FEWEST_LEVELS <= max(int(np.ptp(frame)) for frame in self.frames):
            raise ConversionError(
                f"{used}: nothing can be proven of that; the range must be another (--range,"
                " --range-out)"
            )
        if darkest > MIDDLE or lightest < 255 - MIDDLE:
            self.notes.append(f"{used} on these frames: is the range right?")
        if share > OFTEN:
            self.notes.append(
                f"{share:.0%} of what the original gives lies outside its range and is cut off: is"
                " the range right?"
            )

    def prove_master(self, path: Path) -> None:
        """Compare the FP32 frame model at ``path`` with the original.

        Raises:
            RefusedError: it is not the same picture.
            ConversionError: nothing here can run it.
        """
        backend = "onnxruntime" if why_not("onnxruntime") is None else "openvino"
        with open_engine(path, self.size, backend=backend, precision="f32") as engine:
            pictures = remembered(self._ticking("FP32 model", engine.infer), self.frames)
        self._master, self._master_backend = pictures, backend
        if self.original.levels is not None:
            label = f"FP32 ONNX ({backend})"
            self._judge(label, pictures, MASTER_LIMITS, key=f"{backend}/f32")

    def prove_backends(self, path: Path) -> None:
        """Compare what OpenVINO makes of the frame model, in FP32 and in its fast precision."""
        if self._master_backend != "openvino":
            self._try_engine(path, "openvino", "f32", HALF_LIMITS, required=True)
        for precision in ("bf16", "f16"):
            self._try_engine(path, "openvino", precision, FAST_LIMITS, required=False)

    def prove_half(self, half: onnx.ModelProto, folder: Path) -> None:
        """Compare the FP16 typed graph with FP32, every FP16 tensor rounded as a GPU does.

        Raises:
            RefusedError: it overflows, or is another picture.
        """
        label, against = ROUNDED, "FP32 ONNX"
        reason = why_not("onnxruntime")
        if reason is not None:
            self.steps.append(Step(label, against, NOT_PROVEN, reason))
            return
        from engines.graphs.half import find_overflow, rounded_twin

        twin = folder / "rounded.onnx"
        write_frame_model(rounded_twin(half), Card(name="rounded"), twin)
        assert self._master is not None
        with open_engine(twin, self.size, backend="onnxruntime", precision="f32") as engine:
            step = Step(label, against, NOT_PROVEN, key="f16")
            step = self._measure(step, (self._master, engine.infer), HALF_LIMITS)
        twin.unlink()
        if step.verdict != REFUSED:
            self.steps.append(step)
            return
        assert step.proof is not None
        assert step.proof.worst is not None
        overflow = find_overflow(half, step.proof.worst.frame)
        why = f"{overflow}; {step.why}" if overflow else step.why
        why += " (--precision f32 converts without FP16)"
        self._append(replace(step, why=why))

    def prove_int8(self, path: Path) -> dict[str, dict[str, float]]:
        """Compare the INT8 frame model at ``path`` with the original.

        In OpenVINO it has to be close enough; what ONNX Runtime makes of it is measured.

        Returns:
            What its own card keeps.

        Raises:
            RefusedError: it is not close enough.
        """
        before = len(self.steps)
        for precision in ("f32", "bf16"):  # of what is not in INT8
            self._try_engine(
                path, "openvino", precision, INT8_LIMITS, required=True, of="INT8 model, "
            )
        if len(self.steps) == before:
            raise ConversionError("OpenVINO cannot run the INT8 model, so nothing is proven")
        on_a_cpu = "onnxruntime:cpu"
        self._try_engine(path, on_a_cpu, "f32", INT8_LIMITS, required=False, of="INT8 model, ")
        found = self.steps[before:]
        proofs = self.card_proofs(found)
        # The card of the master has FP32 under these keys.
        self.steps[before:] = [replace(step, key="") for step in found]
        return proofs

    def prove_engine(self, path: Path, backend: str, precision: str, what: str) -> dict[str, int]:
        """Compare a compiled engine with the original, where its device is there.

        Returns:
            What the device says of the engine's layers: kind -> how many; empty without it.

        Raises:
            RefusedError: it is not the same picture.
        """
        reason = why_not(backend)
        if reason is not None:
            self.steps.append(Step(what, self._against(), NOT_PROVEN, reason))
            return {}
        engine: Any = open_engine(path, backend=backend, precision=precision)
        if hasattr(engine, "build_if_missing"):
            engine.build_if_missing = False  # another engine than the file proves nothing of it
        try:
            engine.open(self.size)
        except EngineError as error:
            self.steps.append(Step(what, self._against(), NOT_PROVEN, str(error)))
            return {}
        with engine:
            if engine.engine_path is None:
                raise ConversionError(
                    f"the {backend} engine that was built cannot be used: {'; '.join(engine.notes)}"
                )
            limits = {"bf16": FAST_LIMITS, INT8: INT8_LIMITS}.get(precision, HALF_LIMITS)
            self._judge(what, engine.infer, limits)
            layers = getattr(engine, "layers", None)
            found: dict[str, int] = layers() if layers is not None else {}
            return found

    def card_proofs(self, steps: Sequence[Step] | None = None) -> dict[str, dict[str, float]]:
        """Return what the card keeps: every step that was measured and has a key.

        Of all steps so far, or of ``steps``.
        """
        facts = {
            "against_original": float(self.original.levels is not None),
            "real_frames": float(self.real),
        }
        chosen = self.steps if steps is None else steps
        measured = [step for step in chosen if step.key and step.proof is not None]
        return {step.key: {**step.proof.for_card(), **facts} for step in measured if step.proof}

    def _try_engine(
        self,
        path: Path,
        backend: str,
        precision: str,
        limits: Limits,
        *,
        required: bool,
        of: str = "",
    ) -> None:
        try:
            engine = open_engine(path, self.size, backend=backend, precision=precision)
        except EngineError:  # this machine does not have the precision: nothing to prove
            return
        name = backend.partition(":")[0]
        label, key = f"{of}{name} in {precision}", f"{name}/{precision}"
        with engine:
            self._judge(label, engine.infer, limits, key=key, required=required)

    def _against(self) -> str:
        return self.original.described

    def _judge(
        self,
        what: str,
        candidate: Translate,
        limits: Limits,
        *,
        key: str = "",
        required: bool = True,
    ) -> None:
        step = Step(what, self._against(), NOT_PROVEN, key=key)
        step = self._measure(step, (self._reference(), candidate), limits)
        if step.verdict == REFUSED and not required:
            step = replace(step, verdict=NOTED)
        self._append(step)

    def _append(self, step: Step) -> None:
        self.steps.append(step)
        if step.verdict == REFUSED:
            raise RefusedError(f"{step.what} is not the same picture: {step.why}", step)

    def _measure(self, step: Step, ways: tuple[Translate, Translate], limits: Limits) -> Step:
        """Return ``step`` with its verdict; the first way is right."""
        reference, candidate = ways
        proof = compare(reference, self._ticking(step.what, candidate), self.frames, limits)
        verdict = PROVEN if proof.passed else REFUSED
        return replace(step, verdict=verdict, why="; ".join(proof.problems), proof=proof)

    def _reference(self) -> Translate:
        if self.original.levels is None:
            assert self._master is not None
            return self._master
        return lambda frame: self._pictures[id(frame)]

    def _ticking(self, what: str, translate: Callable[[Pixels], Any]) -> Callable[[Pixels], Any]:
        """Return ``translate``, which says after each frame how far it is."""
        done = 0

        def translated(frame: Pixels) -> Any:
            nonlocal done
            self.tick(what, done, len(self.frames))
            picture = translate(frame)
            done += 1
            return picture

        return translated
