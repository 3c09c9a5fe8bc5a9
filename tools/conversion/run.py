"""One conversion, from the words of a person to the files and the report."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from engines import (
    Card,
    ConversionError,
    FrameModel,
    Size,
    write_frame_model,
)
from realtime.sources.pictures import read_picture, write_picture
from tools.conversion.compiling import Job, compile_engine, default_targets
from tools.conversion.frames import proof_frames
from tools.conversion.original import Original
from tools.conversion.proving import Prover, RefusedError, Step
from tools.conversion.reading import read_original
from tools.conversion.report import Report, show_in_terminal, three_panels
from tools.conversion.request import (
    Request,
    check_request,
    check_writable,
    fitting_size,
    out_path,
)
from tools.report import write_json

if TYPE_CHECKING:
    import onnx


def run_conversion(request: Request, console: Console) -> Report:
    """Convert, prove, compile, write and report; nothing is written that was not proven.

    Raises:
        RefusedError: a proof failed; the report and the picture of the worst frame are written.
        ConversionError: it cannot be converted at all.
    """
    check_request(request)
    original = read_original(request.words)
    card = _card(original, request)
    out = out_path(request, card)
    check_writable(out)
    if request.report_path is not None:
        check_writable(request.report_path)
    size = fitting_size(request, original)
    report = Report(
        source=request.words.source or request.words.module or "",
        family=original.family,
        architecture=card.architecture,
        stride=card.stride,
        origin_sha256=card.weights_sha256,
        notes=list(original.notes),
        size=size,
    )
    console.print(Text(f"{report.source}: {card.architecture}", "bold"), soft_wrap=True)
    try:
        with _drafts(out) as folder, _progress(console) as bar, _interrupts() as interrupted:
            conversion = _Conversion(
                request, original, card, size, report, folder, bar, interrupted
            )
            try:
                conversion.run(out)
            except Exception:
                if interrupted:  # what a library made of the Ctrl-C
                    raise KeyboardInterrupt from None
                raise
    except RefusedError as error:
        report.refused = str(error)
        _show_refusal(report, error.step, out, console)
        raise
    except BaseException as error:
        report.refused = str(error) or type(error).__name__
        raise
    finally:
        if report.refused:
            report.engines.clear()  # they are gone with the drafts
        report.print(console)
        if request.report_path is not None and (report.steps or report.refused):
            write_json(request.report_path, report.to_json())
    return report


@dataclass(slots=True)
class _Conversion:
    request: Request
    original: Original
    card: Card
    size: Size
    report: Report
    folder: Path
    bar: Progress
    interrupted: list[int]

    def run(self, out: Path) -> None:
        request, report = self.request, self.report
        chosen = proof_frames(request.frames, self.size, request.count)
        report.frames = chosen.description
        if not chosen.real:
            report.notes.append("no --frames were given: a clip of your own proves more")
        master = self._exported()
        draft = self.folder / out.name
        write_frame_model(master, self.card, draft)
        prover = Prover(self.original, chosen.frames, self._tick, report.steps)
        prover.prove_master(draft)
        half = None
        if request.precision == "f16":
            from engines.graphs.half import to_half

            typed = to_half(master)
            report.half_types, report.islands = typed.counts, typed.islands
            half = typed.model
            prover.prove_half(half, self.folder)
        prover.prove_backends(draft)
        write_frame_model(master, replace(self.card, proofs=prover.card_proofs()), draft)
        finished = [draft]
        model = FrameModel.read(draft)
        for target in request.targets or default_targets():
            finished += self._compile(target, model, half or master, prover)
        worst = min(
            (step for step in report.steps if step.proof is not None),
            key=lambda step: step.proof.psnr_db if step.proof else 0.0,
            default=None,
        )
        if worst is not None:
            finished.append(_save_picture(worst, self.folder / f"{out.stem}.proof.png"))
        for path in finished:
            os.replace(path, out.parent / path.name)
        report.picture = out.parent / finished[-1].name if worst is not None else None
        for place, engine in enumerate(report.engines):
            report.engines[place] = replace(engine, path=out.parent / engine.path.name)
        report.model, report.model_sha256 = out, model.sha256

    def _exported(self) -> onnx.ModelProto:
        """The FP32 graph for any size, or, where the network does not allow that, for this one."""
        self._tick("export", 0, 1)
        try:
            return self.original.graph(None)
        except ConversionError as error:
            if self.request.words.source is not None and self.original.family != "own module":
                raise
            width, height = self.size
            graph = self.original.graph(self.size)
            self.report.notes.append(f"takes {width}x{height} only: {error}")
            return graph

    def _compile(
        self, target: str, model: FrameModel, graph: onnx.ModelProto, prover: Prover
    ) -> list[Path]:
        if target == "onnx-f16":
            path = model.path.with_name(f"{model.path.stem}.f16.onnx")
            write_frame_model(graph, model.card, path)
            self.report.notes.append(f"{path.name}: the FP16 typed graph")
            return [path]
        smallest, largest = self.request.dynamic or (self.size, self.size)
        job = Job(
            backend=target,
            precision=self.request.precision,
            smallest=smallest,
            best=self.size,
            largest=largest,
            gpus=self.request.gpus,
        )
        began = time.perf_counter()
        engine = compile_engine(job, model, graph, self._tick)
        engine = replace(engine, seconds=time.perf_counter() - began)
        self.report.engines.append(engine)
        what = f"{target} engine, {engine.precision}"
        inspected = prover.prove_engine(model.path, target, engine.precision, what)
        self.report.engines[-1] = replace(engine, inspected=inspected)
        return [engine.path]

    def _tick(self, what: str, done: int, total: int) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        task = self.bar.task_ids[0]
        self.bar.update(task, description=what, completed=done, total=total)


def _card(original: Original, request: Request) -> Card:
    card = original.card
    name = request.name or (request.out.stem if request.out else card.name)
    return replace(
        card,
        name=name,
        title=request.title or card.title,
        domains=request.domains or card.domains,
        licence=request.licence or card.licence,
    )


@contextlib.contextmanager
def _drafts(out: Path) -> Iterator[Path]:
    """A folder beside the result, gone afterwards whatever happens: a rename finishes the job."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", suffix=".part", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Remember a Ctrl-C: PyTorch's exporter catches whatever is raised while it traces."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task("reading", total=None)
        yield bar


def _save_picture(step: Step, path: Path) -> Path:
    assert step.proof is not None
    assert step.proof.worst is not None
    write_picture(path, three_panels(step.proof.worst, step.what, step.against))
    return path


def _show_refusal(report: Report, step: Step, out: Path, console: Console) -> None:
    report.picture = _save_picture(step, out.with_name(f"{out.stem}.refused.png"))
    if console.is_terminal:
        show_in_terminal(read_picture(report.picture), console)
