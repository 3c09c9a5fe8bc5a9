"""The bench itself: opens the cases of a group, lets them take turns, keeps every round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from engines import ConversionError, FrameModel, ModelError, Pixels, Size
from engines.proof import compare
from tools import environment
from tools.bench import machine, plan, results, schema
from tools.bench.plan import COMPARED, REFERENCES, Group
from tools.bench.results import Case, Difference, Result, Round
from tools.bench.roofline import Rooflines
from tools.bench.sensors import Sensors
from tools.bench.worker import OPEN_TIMEOUT_S, SPARE_S, CaseError, CrashError, Worker

PACKAGES: Final = ("nvidia-ml-py", "matplotlib", "cuda-bindings")
MEASUREMENTS: Final = 3
"""Latency, throughput, live."""
DEVICES_TIMEOUT_S: Final = 120.0


class Screen(Protocol):
    """Who shows how far the bench is."""

    def begin(self, turns: int) -> None:
        """There will be so many turns."""

    def now(self, what: str) -> None:
        """Say what is being done."""

    def turn(self) -> None:
        """One turn is over, or will not come."""

    def tick(self) -> None:
        """Called a few times a second."""


@dataclass(slots=True)
class Open:
    """A case with its process."""

    model: FrameModel
    case: Case
    worker: Worker
    runs: FrameModel
    """What the engine really computes: the model or its INT8 twin."""
    float_precision: str
    """That it really computes in; of a twin, what is not in INT8."""


@dataclass(slots=True)
class Bench:
    """One run of the bench. ``result`` is true to what was measured at any moment."""

    groups: Sequence[Group]
    result: Result
    sensors: Sensors
    screen: Screen
    folder: Path
    """For frames, pictures and engines; somebody else removes it."""
    keep: Callable[[Result], None] = lambda _: None
    """Called after every group: a power cut costs one group only."""
    _frames: dict[Size, Path] = field(default_factory=dict)
    _rooflines: Rooflines = field(init=False)

    def __post_init__(self) -> None:
        self._rooflines = Rooflines(self.result, self.folder)

    def run(self) -> None:
        """Measure everything. Ctrl-C leaves what was measured until then in ``result``."""
        rounds = self.result.settings.rounds
        waiting = [case for group in self.groups for _, case in group.cases if not case.reason]
        self.screen.begin(len(waiting) * rounds)
        try:
            for group in self.groups:
                self._group(group)
                self._rooflines.conclude()
                self.keep(self.result)
            self.result.finished = True
        finally:
            self.result.keep_parts()
            self._rooflines.conclude()
            self.result.ended_s = round(self.sensors.now_s(), 2)
            self.result.samples = self.sensors.samples
            self.result.throttled = list(self.sensors.throttled)

    def _group(self, group: Group) -> None:
        right: dict[tuple[str, Size], tuple[str, list[Pixels]] | None] = {}
        opened = []
        with ExitStack() as workers:
            for model, case in group.cases:
                if case.reason:
                    continue
                key = case.filter, case.size
                if key not in right:
                    right[key] = self._reference(model, case)
                item = self._opened(model, case, right[key], workers)
                if item is not None:
                    opened.append(item)
                    with self._survived(item, workers):
                        self._now(case, f"the ceilings of {case.label}")
                        self._rooflines.open(item.runs, case, item.float_precision, item.worker)
            rounds = self.result.settings.rounds
            for number in range(rounds):
                # Another one begins each time: who comes after a slow one is not always the same.
                first = number % len(opened) if opened else 0
                self._rooflines.new_round()
                for item in [*opened[first:], *opened[:first]]:
                    if item.case.reason:
                        continue
                    self._now(item.case, f"{item.case.label}, round {number + 1} of {rounds}")
                    with self._reason(item.case, rounds - number):
                        item.case.rounds.append(self._round(item))
                        if len(item.case.rounds) == rounds:
                            item.case.status = results.MEASURED
                        self.screen.turn()
                        with self._survived(item, workers):
                            self._rooflines.measure(item.case, item.worker)

    @contextmanager
    def _survived(self, item: Open, workers: ExitStack) -> Iterator[None]:
        """A probe may be too much for a small machine: then the case goes on without."""
        try:
            yield
        except CrashError:
            case = item.case
            if len(case.rounds) == self.result.settings.rounds:
                return
            item.worker = self._worker(workers)
            with self._reason(case, self.result.settings.rounds - len(case.rounds)):
                self._ask_open(item.worker, item.model, case.size, case.backend, case.precision)
                item.worker.ask("deepen", OPEN_TIMEOUT_S)

    def _reference(self, model: FrameModel, case: Case) -> tuple[str, list[Pixels]] | None:
        """Return who is right by definition, and its pictures; None where nobody can run it."""
        for backend in REFERENCES:
            with ExitStack() as ends:
                try:
                    self._now(case, f"the pictures of {backend} f32, to compare with")
                    worker = self._worker(ends)
                    self._ask_open(worker, model, case.size, backend, "f32")
                    return f"{backend} f32", self._pictures(worker)
                except CaseError:
                    continue
        return None

    def _opened(
        self,
        model: FrameModel,
        case: Case,
        right: tuple[str, list[Pixels]] | None,
        workers: ExitStack,
    ) -> Open | None:
        """Open one case and compare its pictures; None where it has got a reason instead."""
        self._now(case, f"opening {case.label}")
        before_mb = self.sensors.latest("gpu_memory_mb")
        with self._reason(case, self.result.settings.rounds):
            worker = self._worker(workers)
            found = self._ask_open(worker, model, case.size, case.backend, case.precision)
            case.device, case.notes = found["device"], found["notes"]
            case.open_s, case.memory_mb = found["open_s"], found["memory_mb"]
            case.memory_before_mb = found["memory_before_mb"]
            after_mb = self.sensors.latest("gpu_memory_mb")
            if before_mb is not None and after_mb is not None:
                case.gpu_memory_mb = round(after_mb - before_mb, 1)
            if right is not None:
                case.difference = self._difference(case.size, *right, self._pictures(worker))
            deep = worker.ask("deepen", OPEN_TIMEOUT_S)
            case.depth = deep["depth"]
            case.notes += deep["notes"]
            try:
                runs = FrameModel.read(Path(found["runs"]))
            except ModelError as error:  # somebody has removed it meanwhile
                raise CaseError(str(error)) from error
            return Open(model, case, worker, runs, found["float_precision"])
        return None

    def _round(self, item: Open) -> Round:
        settings = self.result.settings
        before = machine.Ticks.now()
        own_s = machine.process_seconds(item.worker.pid) + time.process_time()
        at_s = round(self.sensors.now_s(), 2)
        seconds = settings.seconds / settings.rounds
        timeout_s = SPARE_S + 20 * MEASUREMENTS * seconds
        found = item.worker.ask("round", timeout_s, seconds=seconds, fps=settings.fps)
        own_s = machine.process_seconds(item.worker.pid) + time.process_time() - own_s
        shares = machine.shares(before, machine.Ticks.now(), own_s)
        others, steal = (round(share, 4) for share in shares) if shares else (None, None)
        round_ = {"at_s": at_s, **found, "others_share": others, "steal_share": steal}
        return schema.from_json(Round, round_)

    def _worker(self, ends: ExitStack) -> Worker:
        worker = Worker(self._tick)
        # Ctrl-C must not wait for who is in the middle of a round.
        ends.push(lambda kind, *_: worker.kill() if kind is KeyboardInterrupt else None)
        ends.callback(worker.close)
        return worker

    def _ask_open(
        self, worker: Worker, model: FrameModel, size: Size, backend: str, precision: str
    ) -> dict[str, Any]:
        return worker.ask(
            "open",
            OPEN_TIMEOUT_S,
            model=str(model.path.absolute()),
            backend=backend,
            precision=precision,
            size=list(size),
            frames=str(self._frames_of(size)),
            cache=str(self.folder / "engines"),
        )

    def _frames_of(self, size: Size) -> Path:
        if size not in self._frames:
            path = self.folder / f"frames-{size[0]}x{size[1]}.npy"
            np.save(path, np.stack(plan.frames(size)))
            self._frames[size] = path
        return self._frames[size]

    def _pictures(self, worker: Worker) -> list[Pixels]:
        path = self.folder / "pictures.npy"
        worker.ask("pictures", OPEN_TIMEOUT_S, to=str(path), count=COMPARED)
        return list(np.load(path))

    def _difference(
        self, size: Size, reference: str, right: list[Pixels], found: list[Pixels]
    ) -> Difference:
        frames = list(np.load(self._frames_of(size))[:COMPARED])
        places = {id(frame): place for place, frame in enumerate(frames)}
        try:
            proof = compare(lambda x: right[places[id(x)]], lambda x: found[places[id(x)]], frames)
        except ConversionError as error:
            raise CaseError(str(error)) from error
        return Difference(
            reference=reference,
            psnr_db=round(proof.psnr_db, 2),
            max=proof.max_difference,
            mean=round(proof.mean_difference, 4),
            broken_share=round(proof.broken_share, 4),
            frames=proof.frames,
        )

    @contextmanager
    def _reason(self, case: Case, turns: int) -> Iterator[None]:
        """One case that fails is a row with its reason, and ``turns`` that will not come."""
        try:
            yield
        except CaseError as error:
            gone = isinstance(error, CrashError) or case.open_s is not None
            case.status = results.FAILED if gone else results.NOT_HERE
            case.reason = str(error)
            for _ in range(turns):
                self.screen.turn()

    def _now(self, case: Case, what: str) -> None:
        width, height = case.size
        self.screen.now(f"{case.filter} at {width}x{height}: {what}")

    def _tick(self) -> None:
        self.sensors.tick()
        self.screen.tick()


def devices() -> dict[str, list[str]]:
    """Return the devices of backends, asked in a process of its own; empty where that fails."""
    worker = Worker()
    try:
        return worker.ask("devices", DEVICES_TIMEOUT_S)
    except CaseError:
        return {}
    finally:
        worker.close()


def new_result(settings: results.Settings, groups: Sequence[Group], sensors: Sensors) -> Result:
    """Return the result that a bench fills in: the machine as it is now, no case reached."""
    facts = environment.describe()
    for name in PACKAGES:
        if version := environment.package_version(name):
            facts["packages"][name] = version
    around = machine.facts()
    names = [sensor.name for sensor in sensors.found]
    return Result(
        taken=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        pix2live=facts["pix2live"],
        environment=facts,
        machine={**around, "gpus": sensors.gpus, "sensors": names, "no_sensor": sensors.problems},
        clip=plan.clip(),
        settings=settings,
        cases=[case for group in groups for _, case in group.cases],
    )
