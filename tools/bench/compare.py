"""What changed between two results, beyond the noise.

A figure has changed when the ranges of its rounds do not overlap: with five rounds on each side
that happens by chance once in 126 comparisons. What was measured once only (memory, time to open)
must change by more than `ONCE_LIMIT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import comb
from typing import Any, Final

from tools.bench.results import Case, Result, Round, Spread, mark, name_of

ONCE_LIMIT: Final = 0.15
PSNR_LIMIT_DB: Final = 0.5
FEWEST_ROUNDS: Final = 3
"""With fewer, ranges that do not overlap mean little."""
WITHIN: Final = "within the noise"
BETTER, WORSE, OTHER = "better", "worse", "another picture"
WHY_ABOVE: Final = (
    "the backend does less than was counted, or a ceiling was measured too low on a busy machine"
)
"""What a share of the roofline of more than 100 % comes from."""

FIGURES: Final[tuple[tuple[str, str, bool, Callable[[Round], float]], ...]] = (
    ("latency p50", "ms", False, lambda item: item.latency.p50_ms),
    ("latency p99", "ms", False, lambda item: item.latency.p99_ms),
    ("throughput", "fps", True, lambda item: item.throughput.fps),
    ("live", "fps", True, lambda item: item.live.fps),
    ("age p50", "ms", False, lambda item: item.live.p50_ms),
    ("age p95", "ms", False, lambda item: item.live.p95_ms),
)
"""Name, unit, whether more is better, and where it is."""
ONCE: Final[tuple[tuple[str, str, Callable[[Case], float | None]], ...]] = (
    ("open", "s", lambda case: case.open_s),
    ("memory", "MB", lambda case: case.memory_mb),
    ("GPU memory", "MB", lambda case: case.gpu_memory_mb),
)
"""Less is better."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one case, then and now."""

    case: str
    figure: str
    before: str
    after: str
    ratio: float | None
    """After to before."""
    verdict: str
    chance: float = 0.0
    """How often the two ranges of rounds lie apart though nothing changed; 0: measured once."""


@dataclass(slots=True)
class Comparison:
    """What `compare` found."""

    warnings: list[str] = field(default_factory=list)
    """Why the two may not be comparable."""
    changes: list[Change] = field(default_factory=list)
    """Beyond the noise."""
    unchanged: int = 0
    """Figures that did not."""
    same: str = ""
    """When the result was taken that both are; empty for two results."""
    of_rounds: int = 0
    """Figures that have a range of rounds, changed or not; the others were measured once."""
    expected: float = 0.0
    """How many of those change by chance alone."""

    def summary(self) -> str:
        """Return the last line for a person."""
        if self.same:
            return f"both are the same result, taken {self.same}: nothing to compare"
        if not self.changes and not self.unchanged:
            return "no case is in both files"
        count = len(self.changes)
        said = f"{count} {'figure' if count == 1 else 'figures'} changed beyond the noise"
        every = count + self.unchanged
        return (
            f"{said}, {self.unchanged} did not ({self.of_rounds} of the {every} are"
            f" ranges of rounds; of those {self.expected:.1f} would change by chance alone)"
        )


def compare(before: Result, after: Result) -> Comparison:
    """Return what changed from ``before`` to ``after``, case by case.

    A result beside itself has no changes and no warnings: `Comparison.same` says so.
    """
    if before == after:
        return Comparison(same=before.taken)
    found = Comparison(warnings=list(_warnings(before, after)))
    old = {case.key: case for case in before.measured}
    new = {case.key: case for case in after.measured}
    fewest = min((len(case.rounds) for case in (*old.values(), *new.values())), default=0)
    if 0 < fewest < FEWEST_ROUNDS:
        found.warnings.append(
            f"{fewest} round{'s are' if fewest > 1 else ' is'} too few to tell a change from"
            " noise: measure with --rounds 5"
        )
    for key in old.keys() & new.keys():
        if old[key].filter_sha256 != new[key].filter_sha256:
            found.warnings.append(f"{name_of(old[key])}: the filter's file is another one")
    for key in [key for key in old if key in new]:
        for change in _changes(old[key], new[key]):
            found.of_rounds += change.chance > 0
            found.expected += change.chance
            if change.verdict == WITHIN:
                found.unchanged += 1
            else:
                found.changes.append(change)
    for words, one, other in (("first", old, new), ("second", new, old)):
        only = [name_of(case) for key, case in one.items() if key not in other]
        if only:
            found.warnings.append(f"measured in the {words} file only: {', '.join(only)}")
    return found


def is_above(case: Case) -> bool:
    """Whether the share of the roofline is more than 100 %: faster than the ceilings allow."""
    return case.roofline is not None and round(100 * case.roofline.share) > 100


def above_roofline(cases: Iterable[Case]) -> list[str]:
    """Return the cases whose share of the roofline is more than 100 %, in words."""
    return [name_of(case) for case in cases if is_above(case)]


def _changes(old: Case, new: Case) -> Iterator[Change]:
    label = name_of(old)
    rounds = len(old.rounds), len(new.rounds)
    chance = 2 / comb(sum(rounds), rounds[0])
    for name, unit, more_is_better, figure in FIGURES:
        one, other = Spread.of(old.values(figure)), Spread.of(new.values(figure))
        ratio = other.median / one.median if one.median else None
        verdict = WITHIN
        if one.most < other.least or other.most < one.least:
            verdict = BETTER if (other.median > one.median) == more_is_better else WORSE
        yield Change(label, f"{name}, {unit}", _range(one), _range(other), ratio, verdict, chance)
    for name, unit, value in ONCE:
        then, now = value(old), value(new)
        if then is None or now is None or min(then, now) <= 0:
            continue
        verdict = WITHIN
        if max(now / then, then / now) - 1 > ONCE_LIMIT:  # the same from either side
            verdict = BETTER if now < then else WORSE
        yield Change(label, f"{name}, {unit}", f"{then:.4g}", f"{now:.4g}", now / then, verdict)
    if old.difference is not None and new.difference is not None:
        then, now = old.difference.psnr_db, new.difference.psnr_db
        verdict = OTHER if abs(now - then) > PSNR_LIMIT_DB else WITHIN
        yield Change(label, "PSNR, dB", f"{then:.1f}", f"{now:.1f}", None, verdict)


def _warnings(before: Result, after: Result) -> Iterator[str]:
    for name, words in (
        ("cpu", "processor"),
        ("board", "board"),
        ("cpus", "number of processors"),
        ("memory_gb", "memory in GB"),
        ("platform", "system"),
        ("python", "Python"),
        ("power_mode", "power mode"),
        ("virtualisation", "virtualisation"),
    ):
        yield from _differs(words, before.environment.get(name), after.environment.get(name))
    gpus = [
        [(gpu.get("name"), gpu.get("driver"), gpu.get("power_limit_w")) for gpu in gpus]
        for gpus in (before.machine.get("gpus", []), after.machine.get("gpus", []))
    ]
    yield from _differs("GPUs (name, driver, power limit)", *gpus)
    versions = [result.environment.get("packages", {}) for result in (before, after)]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        yield from _differs(name, versions[0].get(name), versions[1].get(name))
    yield from _differs("clip", before.clip.sha256[:12], after.clip.sha256[:12])
    for name in ("seconds", "rounds", "fps"):
        yield from _differs(
            f"--{name}", getattr(before.settings, name), getattr(after.settings, name)
        )
    for words, result in (("first", before), ("second", after)):
        if not result.finished:
            yield f"the {words} was interrupted"
        if result.throttled:
            yield f"the {words} was throttled: {', '.join(result.throttled)}"
    for kind, consequence in (
        ("noisy", "their numbers may be off"),
        ("in part", "they were interrupted before their last round"),
    ):
        found = [
            f"{count} of {len(result.measured)} cases in the {words} file"
            for words, result in (("first", before), ("second", after))
            if (count := sum(mark(case) == kind for case in result.measured))
        ]
        if found:
            yield f"{kind}: {', '.join(found)}: {consequence}"
    above = [
        f"{', '.join(labels)} in the {words} file"
        for words, result in (("first", before), ("second", after))
        if (labels := above_roofline(result.measured))
    ]
    if above:
        yield f"more than 100 % of the roofline: {'; '.join(above)}: {WHY_ABOVE}"


def _differs(words: str, one: Any, other: Any) -> Iterator[str]:
    if one != other:
        yield f"another {words}: {_words(one)}, then {_words(other)}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "unknown"
    return "none" if value in (None, "", []) else str(value)


def _range(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.least:.4g} to {spread.most:.4g})"
