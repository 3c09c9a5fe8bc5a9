"""Which precision the openvino backend takes: as asked, or the fastest one that is proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from engines.errors import EngineError, ModelError
from engines.model import Card, FrameModel
from engines.reduced_precision import judged, proven_db
from engines.twins import (
    ENOUGH_INT8_DB,
    INT8,
    int8_twin,
    proven_from,
    twin_by_name,
    twin_path,
    twin_proof,
    why_not_int8,
)

ENOUGH_PSNR_DB: Final = 30.0
"""bf16 or f16 must come this close to f32; below it, `auto` takes f32."""


@dataclass
class Choice:
    """What to run on ``device``; the notes say why."""

    core: Any
    device: str
    asked: str
    notes: list[str] = field(default_factory=list)

    def twin(self, model: FrameModel) -> FrameModel | None:
        """Return the INT8 twin of ``model`` where that is what to run; None where it is not.

        Raises:
            EngineError: INT8 was asked for, and there is none.
        """
        if self.asked == INT8:
            if INT8.upper() not in _able(self.core, self.device):
                raise EngineError(f"{self.device} has no INT8 here")
            found, note = twin_by_name(model, self._key())
            self.notes.append(note)
            if self._on_a_cpu() and (lacks := why_not_int8()):
                self.notes.append(f"{lacks}: the picture may be another")
            return found
        path = twin_path(model.path)
        if self.asked != "auto" or not self._on_a_cpu() or not path.exists():
            return None
        twin, reason = self.proven_twin(model)
        if twin is None:
            self.notes.append(f"not {INT8}: {reason}")
            return None
        fast = fastest_float(self.core, self.device)
        self.notes.append(
            f"{INT8}, {twin.path.name}: {reason}; --precision {fast} is slower and closer"
        )
        return twin

    def proven_twin(self, model: FrameModel) -> tuple[FrameModel | None, str]:
        """Return the twin of ``model`` that ``auto`` takes on this processor, and its proof.

        None: it takes none, and why. Says nothing in the notes.
        """
        if lacks := why_not_int8():
            return None, lacks
        try:
            found = int8_twin(model)
        except ModelError as error:
            return None, str(error)
        psnr_db, where = twin_proof(found, self._key())
        if psnr_db is None:
            return None, where
        if psnr_db < ENOUGH_INT8_DB:
            return None, f"only {psnr_db:.1f} dB {where}, {ENOUGH_INT8_DB:.0f} are needed"
        return found, f"{psnr_db:.1f} dB {where}"

    def _key(self) -> str:
        """Under which a twin's card has its proof: of what is not in INT8."""
        return f"openvino/{fastest_float(self.core, self.device)}"

    def _on_a_cpu(self) -> bool:
        return self.device.startswith("CPU")

    def floating_point(self, card: Card, measure: Callable[[str], float]) -> str:
        """Return the precision to run in; ``measure`` gives the PSNR of one against f32.

        Raises:
            EngineError: the device does not have the one that was asked for.
        """
        fast = fastest_float(self.core, self.device)
        if self.asked not in ("auto", "f32", fast):
            able = " and ".join(sorted({fast, "f32"}))
            more = (
                ", and int8 for filters with a twin"
                if INT8.upper() in _able(self.core, self.device)
                else ""
            )
            raise EngineError(f"{self.device} has no {self.asked} here, only {able}{more}")
        if self.asked != "auto":
            return self.asked
        if fast == "f32":
            self.notes.append(f"f32: {self.device} has no bf16 or f16 arithmetic")
            return fast
        key = f"openvino/{fast}"
        psnr_db, where = proven_db(card, key), proven_from(card, key)
        if psnr_db is None:
            psnr_db, where = measure(fast), "from f32 (measured now)"
        precision, note = judged(fast, psnr_db, ENOUGH_PSNR_DB, where)
        self.notes.append(
            f"convolutions in int8, the rest in {note}" if card.quantised_from else note
        )
        return precision


def fastest_float(core: Any, device: str) -> str:
    """Return the fastest floating point of ``device``: ``bf16``, ``f16`` or ``f32``."""
    able = _able(core, device)
    return "bf16" if "BF16" in able else "f16" if "FP16" in able else "f32"


def _able(core: Any, device: str) -> list[str]:
    found: list[str] = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return found
