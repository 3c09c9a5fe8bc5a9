"""The share of the roofline that each case reached: least time of a frame by measured time.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures" (2009), operator by operator: each takes at least as long as its arithmetic at the
best rate that was measured, and at least as long as moving its bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engines import EngineError, FrameModel, Size
from engines.graphs.work import ELEMENT_BYTES, Work, count_work
from tools.bench.ceilings import MEMORY, device_key
from tools.bench.results import Case, Result, Roofline, Round
from tools.bench.worker import OPEN_TIMEOUT_S, SPARE_S, CaseError, CrashError, Worker

WINDOW_S: Final = 0.3
"""Of each probe behind each turn, at most."""


@dataclass(slots=True)
class _Probed:
    """What is measured beside a case."""

    device: str
    work: Work
    precision: str
    """That the engine really computes in."""
    types: tuple[str, ...]


@dataclass(slots=True)
class Rooflines:
    """Asks the processes of the cases for their ceilings, and computes what follows."""

    result: Result
    folder: Path
    """For the probes' files."""
    _work: dict[tuple[str, Size], tuple[Work | None, str]] = field(default_factory=dict)
    _probed: dict[tuple[Any, ...], _Probed] = field(default_factory=dict)
    _sides: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
    """What an earlier search has found: the probe of a number type is the same for all filters."""
    _no_memory: dict[str, str] = field(default_factory=dict)
    """Device -> why its memory cannot be measured."""
    _copied: set[str] = field(default_factory=set)
    """Devices whose memory was measured in this round."""

    def open(self, model: FrameModel, case: Case, precision: str, worker: Worker) -> None:
        """Open the probes of a case that is open, or say in ``no_roofline`` why not.

        ``model`` is what the engine runs, ``precision`` what it computes in, but for INT8.

        Raises:
            CrashError: the process did not survive that.
        """
        key = model.sha256, case.size
        if key not in self._work:
            try:
                self._work[key] = count_work(model.graph(), case.size)
            except EngineError as error:  # the file is gone
                self._work[key] = None, str(error)
        work, reason = self._work[key]
        if work is None:
            case.no_roofline = f"its work cannot be counted: {reason}"
            return
        if precision not in ELEMENT_BYTES:
            case.no_roofline = f"it computes in {precision or 'nothing known'}"
            return
        types = work.number_types(precision)
        known = {kind: self._sides.get((case.backend, precision, kind, case.depth))
                 for kind in types}  # fmt: skip
        try:
            found = worker.ask(
                "probe", OPEN_TIMEOUT_S, types=list(types), sides=known, folder=str(self.folder)
            )
        except CrashError as error:
            case.no_roofline = f"the probe: {error}"
            raise
        except CaseError as error:
            case.no_roofline = f"the probe: {error}"
            return
        for kind, side in found["sides"].items():
            self._sides[case.backend, precision, kind, case.depth] = side
        device = device_key(case.backend, case.device)
        self._probed[case.key] = _Probed(device, work, precision, types)

    def new_round(self) -> None:
        """Each device's memory is measured once a round, by the first case on it."""
        self._copied.clear()

    def measure(self, case: Case, worker: Worker) -> None:
        """Measure the ceilings behind a turn of a case, and keep them in its last round.

        Raises:
            CrashError: the process did not survive that.
        """
        probed = self._probed.get(case.key)
        if probed is None or not case.rounds:
            return
        settings = self.result.settings
        seconds = min(WINDOW_S, settings.seconds / settings.rounds)
        copy = probed.device not in self._copied | self._no_memory.keys()
        try:
            found = worker.ask(
                "ceilings", SPARE_S, seconds=seconds, device=probed.device if copy else ""
            )
        except CaseError as error:
            del self._probed[case.key]
            case.no_roofline = f"the probe: {error}"
            if isinstance(error, CrashError):
                if copy:  # the copy was too much, perhaps: the next case need not try it
                    self._no_memory[probed.device] = str(error)
                raise
            return
        case.rounds[-1].ceilings = found["rates"]
        if MEMORY in found["rates"]:
            self._copied.add(probed.device)
        elif copy:
            self._no_memory[probed.device] = found["no_memory"]

    def conclude(self) -> None:
        """Give every measured case its share, by the best ceilings until now.

        Noise makes a probe slower and never faster: the best of all rounds is nearest to what the
        hardware can do, and no median could be a limit.
        """
        best = best_ceilings(self.result)
        for case in self.result.measured:
            probed = self._probed.get(case.key)
            if probed is None:
                continue
            ceilings = best.get(probed.device, {})
            wanted = {*probed.types, MEMORY} & ceilings.keys()
            if not set(probed.types) <= wanted or not wanted:
                case.no_roofline = "no ceiling was measured on its device"
                continue
            case.no_roofline = ""
            if MEMORY not in wanted:
                reason = self._no_memory.get(probed.device, "it was not measured")
                case.no_roofline = f"arithmetic only, without the memory's ceiling: {reason}"
            case.roofline = roofline(
                case, probed.work, probed.precision, {kind: ceilings[kind] for kind in wanted}
            )


Best = tuple[float, str]
"""A ceiling, and who reached it."""


def best_ceilings(result: Result) -> dict[str, dict[str, Best]]:
    """Return device -> number type or ``memory`` -> the best of all rounds of all cases."""
    found: dict[str, dict[str, Best]] = {}
    for case in result.cases:
        for item in case.rounds:
            for kind, rate in item.ceilings.items():
                of_device = found.setdefault(device_key(case.backend, case.device), {})
                of_device[kind] = max(of_device.get(kind, (0.0, "")), (rate, case.label))
    return found


def limit_s(work: Work, precision: str, ceilings: Mapping[str, float]) -> tuple[float, float]:
    """Return the least time of a frame in seconds, and how much of it arithmetic takes longer.

    Args:
        work: of a frame.
        precision: what operators compute in that are not INT8.
        ceilings: number type -> operations a second; ``memory`` -> bytes a second, where it is
            known.

    Raises:
        KeyError: a number type has no ceiling.
    """
    bandwidth = ceilings.get(MEMORY)
    whole = work.frame_bytes / bandwidth if bandwidth else 0.0
    arithmetic = 0.0
    for item in work.operators:
        moving_s = item.bytes(precision) / bandwidth if bandwidth else 0.0
        kind = item.number_type(precision)
        computing_s = item.operations / ceilings[kind] if item.operations else 0.0
        whole += max(moving_s, computing_s)
        if computing_s >= moving_s:
            arithmetic += computing_s
    return whole, arithmetic


def roofline(
    case: Case, work: Work, precision: str, ceilings: Mapping[str, Best]
) -> Roofline | None:
    """Return the share of a measured case; None where there is nothing to do in a frame."""
    rates = {kind: rate for kind, (rate, _) in ceilings.items()}
    least_s, arithmetic_s = limit_s(work, precision, rates)
    if not least_s:
        return None
    fps = statistics.median(case.values(_fps))
    return Roofline(
        share=round(least_s * fps, 4),
        basis="; ".join(_words(kind, *best) for kind, best in sorted(ceilings.items())),
        operations=work.operations,
        bytes=work.bytes(precision),
        limit_ms=round(1000 * least_s, 4),
        arithmetic_share=round(arithmetic_s / least_s, 4),
        ceilings=rates,
    )


def _words(kind: str, rate: float, label: str) -> str:
    if kind == MEMORY:
        return f"memory {rate / 1e9:.4g} GB/s (a copy, by the process of {label})"
    return f"{kind} {rate / 1e9:.4g} GOP/s ({label})"


def _fps(item: Round) -> float:
    return item.throughput.fps
