"""What a bench found: the schema of its JSON, the file, and the figures that people read.

Every round is kept as it was measured. What is printed is the median of the rounds, with the least
and the most beside it; it is computed here and nowhere else.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engines import SettingsError, SinkError
from tools.bench import schema
from tools.report import write_json

SCHEMA: Final = 1
KIND: Final = "pix2live bench"
MEASURED, NOT_HERE, FAILED, NOT_REACHED = "measured", "not here", "failed", "not reached"
STATUSES: Final = (MEASURED, NOT_HERE, FAILED, NOT_REACHED)

SPREAD_LIMIT: Final = 0.10
"""Most minus least of the rounds, as a share of their median: above it a case is noisy."""
OTHERS_LIMIT: Final = 0.05
"""What other programs took of the processors meanwhile."""
STEAL_LIMIT: Final = 0.02
"""What the host of a virtual machine kept from it."""
QUANTILES: Final = 101
"""Of the ages of a round: the least, every percent, the most."""


@dataclass(slots=True)
class Bare:
    """Frames through the engine alone, copies included."""

    frames: int
    seconds: float
    fps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """From submit to the end of collect."""
    cpu_s: float
    """Processor time of the whole process, all threads."""
    fps_steps: list[float] = field(default_factory=list)
    """Frames a second over the round, in groups of as many frames."""


@dataclass(slots=True)
class Live:
    """A paced source through the whole path into a sink that shows nothing."""

    shown: int
    dropped: int
    """Gaps in the numbers of the shown frames."""
    seconds: float
    fps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Age of the frames when the sink had them."""
    jitter_ms: float
    """Standard deviation of the time between two shown frames."""
    longest_gap_ms: float
    cpu_s: float
    ages_ms: list[float] = field(default_factory=list)
    """Quantiles of the ages: 0 %, 1 %, ... 100 %."""


@dataclass(slots=True)
class Round:
    """One turn of one case."""

    at_s: float
    """Since the start of the bench."""
    latency: Bare
    """One frame at a time."""
    throughput: Bare
    """As many under way as the backend takes, up to `EVERY_DEPTH`."""
    live: Live
    others_share: float | None = None
    """Of the processors, taken by other programs meanwhile; None where nobody can know."""
    steal_share: float | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    """What the probes did behind this turn: operations a second by number type (``f32``, ``bf16``,
    ``f16``, ``int8``), and ``memory``: bytes a second."""


@dataclass(slots=True)
class Difference:
    """How far the pictures are from the reference's."""

    reference: str
    psnr_db: float
    max: float
    mean: float
    broken_share: float
    frames: int


@dataclass(slots=True)
class Roofline:
    """Share of what the hardware could do at most."""

    share: float
    """Limit to measured time of a frame at throughput; 1 is as fast as the ceilings allow."""
    basis: str
    """Which ceilings, and who reached them."""
    operations: int = 0
    """Of a frame: multiplications and additions."""
    bytes: int = 0
    """That a frame's operators have to move, each tensor once; with the frame itself."""
    limit_ms: float = 0.0
    """Least time of a frame: operator by operator what takes longer, arithmetic or memory."""
    arithmetic_share: float = 0.0
    """Of the limit, where arithmetic is what takes longer."""
    ceilings: dict[str, float] = field(default_factory=dict)
    """As in `Round`: the best of all rounds of this run on the same device."""

    @property
    def binds(self) -> str:
        """Return what most of the limit is: ``arithmetic`` or ``memory``."""
        return "arithmetic" if self.arithmetic_share >= 0.5 else "memory"


@dataclass(slots=True)
class Case:
    """A filter at a size on a backend in a precision, and what was found."""

    filter: str
    filter_sha256: str
    size: tuple[int, int]
    """(width, height) in pixels."""
    backend: str
    precision: str
    """As asked for."""
    status: str = NOT_REACHED
    reason: str = ""
    """Why it was not measured."""
    device: str = ""
    depth: int = 1
    """Frames under way where throughput was measured."""
    notes: list[str] = field(default_factory=list)
    open_s: float | None = None
    """Import, compile and warm up in a fresh process."""
    memory_mb: float | None = None
    """Most memory of the process until it could translate, one frame at a time."""
    memory_before_mb: float | None = None
    """The same before the engine was opened."""
    gpu_memory_mb: float | None = None
    difference: Difference | None = None
    rounds: list[Round] = field(default_factory=list)
    rounds_missing: int = 0
    """Of a measured case: those that an interrupted bench did not reach."""
    roofline: Roofline | None = None
    no_roofline: str = ""
    """Why there is none, or what is missing in it."""

    @property
    def key(self) -> tuple[str, tuple[int, int], str, str]:
        """Return what makes it the same case in another file."""
        return self.filter, self.size, self.backend, self.precision

    @property
    def label(self) -> str:
        """Return backend and precision, as in the tables."""
        return f"{self.backend} {self.precision}"

    @property
    def part(self) -> str:
        """Return ``2 of 5 rounds`` where the bench was interrupted; empty for a whole case."""
        count = len(self.rounds)
        return f"{count} of {count + self.rounds_missing} rounds" if self.rounds_missing else ""

    def values(self, figure: Callable[[Round], float]) -> list[float]:
        """Return one figure of every round."""
        return [figure(item) for item in self.rounds]


@dataclass(slots=True)
class Clip:
    """The frames that everything was measured on."""

    description: str
    sha256: str
    """Of the file; of the frames where they were made."""
    real: bool


@dataclass(slots=True)
class Settings:
    """What was asked for."""

    filters: list[str]
    backends: list[str]
    """As asked for: ``all`` is one."""
    precisions: list[str]
    """As asked for; empty: every one that a backend has."""
    sizes: list[tuple[int, int]]
    seconds: float
    """Of each of the three measurements of a case, all rounds together."""
    rounds: int
    fps: float
    """Of the paced source."""


@dataclass(slots=True)
class Result:
    """Everything about one bench."""

    taken: str
    """ISO 8601, UTC."""
    pix2live: str
    environment: dict[str, Any]
    machine: dict[str, Any]
    clip: Clip
    settings: Settings
    cases: list[Case] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    """Sensors over time: ``t_s`` since the start, and what could be read."""
    throttled: list[str] = field(default_factory=list)
    """Why the device lowered its clocks meanwhile, in its own words."""
    finished: bool = False
    ended_s: float = 0.0

    @property
    def measured(self) -> list[Case]:
        return [case for case in self.cases if case.status == MEASURED]

    def keep_parts(self) -> None:
        """Count as measured what has a round and waits for others that will not come."""
        for case in self.cases:
            if case.status == NOT_REACHED and case.rounds:
                case.status = MEASURED
                case.rounds_missing = max(0, self.settings.rounds - len(case.rounds))

    def groups(self) -> dict[tuple[str, tuple[int, int]], list[Case]]:
        """Return the cases that took turns: filter and size -> cases."""
        found: dict[tuple[str, tuple[int, int]], list[Case]] = {}
        for case in self.cases:
            found.setdefault((case.filter, case.size), []).append(case)
        return found


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of the rounds with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    @property
    def share(self) -> float:
        """Return most minus least as a share of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0


def name_of(case: Case) -> str:
    """Return filter, size, backend and precision, as people read them."""
    return f"{case.filter} {case.size[0]}x{case.size[1]} {case.label}"


def flags(case: Case) -> list[str]:
    """Return why a case is not to be trusted blindly; empty where nothing was seen."""
    if not case.rounds:
        return []
    found = [case.part] if case.part else []
    for name, values in (
        ("latency", case.values(lambda item: item.latency.p50_ms)),
        ("throughput", case.values(lambda item: item.throughput.fps)),
    ):
        share = Spread.of(values).share
        if share > SPREAD_LIMIT:
            found.append(f"the rounds differ by {share:.0%} in {name}")
    for words, limit, shares in (
        ("other programs took", OTHERS_LIMIT, [item.others_share for item in case.rounds]),
        ("the host took", STEAL_LIMIT, [item.steal_share for item in case.rounds]),
    ):
        known = [share for share in shares if share is not None]
        if known and statistics.median(known) > limit:
            found.append(f"{words} {statistics.median(known):.0%} of the processors")
    if case.difference is not None and case.difference.broken_share:
        found.append(f"{case.difference.broken_share:.0%} of the pictures are broken")
    return found


def mark(case: Case) -> str:
    """Return the one word for what `flags` found: ``noisy``, ``in part``, or nothing."""
    found = flags(case)
    return ("in part" if found == [case.part] else "noisy") if found else ""


def write(path: Path, result: Result) -> None:
    """Write the file, whole or not at all.

    Raises:
        SinkError: it cannot be written.
    """
    data = {"schema": SCHEMA, "kind": KIND, **schema.to_json(result)}
    write_json(path, data)


def read(path: Path) -> Result:
    """Read and check a file that `write` wrote.

    Raises:
        SettingsError: it cannot be read, is none of these, of another schema, or damaged; the
            message names the place.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is no JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise SettingsError(f"{path} is no result of pix2live bench")
    if raw.get("schema") != SCHEMA:
        raise SettingsError(
            f"{path} has schema {raw.get('schema')!r}, this pix2live reads {SCHEMA};"
            " measure again, or read it with the version that wrote it"
        )
    try:
        result = schema.from_json(Result, raw)
        _check(result)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return result


def check_place(path: Path) -> None:
    """Refuse, before minutes of measuring, a place where nothing can be written.

    Raises:
        SinkError: what is wrong with it.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SinkError(f"the folder {path.parent} does not exist; mkdir it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise SinkError(f"cannot write {path}: it is a folder, or in one that is read-only")


def _check(result: Result) -> None:
    """Refuse what the types allow and the figures cannot take."""
    for place, case in enumerate(result.cases):
        if case.status not in STATUSES:
            raise SettingsError(
                f"cases[{place}].status must be one of {', '.join(STATUSES)}, found {case.status!r}"
            )
        if (case.status == MEASURED) and not case.rounds:
            raise SettingsError(f"cases[{place}] was measured, and has no rounds")
        if case.rounds_missing < 0:
            raise SettingsError(f"cases[{place}].rounds_missing must be 0 or more")
        for number, item in enumerate(case.rounds):
            where = f"cases[{place}].rounds[{number}]"
            positive = [item.latency.fps, item.latency.p50_ms, item.throughput.fps]
            positive += [item.live.seconds, item.throughput.seconds, *item.throughput.fps_steps]
            if min(positive) <= 0:
                raise SettingsError(f"{where}: figures must be more than 0")
            if min(item.ceilings.values(), default=1) <= 0:
                raise SettingsError(f"{where}.ceilings must be more than 0")
            if len(item.live.ages_ms) not in (0, QUANTILES):
                raise SettingsError(
                    f"{where}.live.ages_ms must have {QUANTILES} quantiles, found"
                    f" {len(item.live.ages_ms)}"
                )
    keys = [case.key for case in result.cases]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise SettingsError(f"there are two cases of {twice[0]} {twice[1]} {twice[2]} {twice[3]}")
