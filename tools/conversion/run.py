"""One conversion, from the words of a person to the files and the report."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from engines import (
    Card,
    ConversionError,
    FrameModel,
    Pix2liveError,
    Pixels,
    SinkError,
    Size,
    write_frame_model,
)
from engines.generators.families import FAMILIES
from engines.processor import has_vnni
from engines.registry import why_not
from engines.twins import ENOUGH_INT8_DB, twin_path
from realtime.sources.pictures import read_picture, write_picture
from tools.conversion.compiling import Job, compile_engine, default_targets
from tools.conversion.frames import proof_frames
from tools.conversion.original import Original, card_name
from tools.conversion.proving import REFUSED, Prover, RefusedError, Step
from tools.conversion.reading import read_original
from tools.conversion.report import (
    CONVERTED,
    INTERRUPTED,
    Report,
    show_in_terminal,
    three_panels,
)
from tools.conversion.request import (
    DEFAULT_SIZE,
    Request,
    check_products,
    check_request,
    fitting_size,
    out_path,
)
from tools.report import write_json

if TYPE_CHECKING:
    import onnx

DRAFTS: Final = ".convert."
CALIBRATION: Final = 3
"""How many frames INT8 is measured on for each one that it is proven on."""
CALIBRATION_SIDE_PX: Final = 320
LEFTOVER_AGE_S: Final = 24 * 60 * 60
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_conversion(request: Request, console: Console) -> Report:
    """Convert, prove, compile, write and report; nothing is written that was refused.

    Raises:
        RefusedError: a proof failed; the report and the picture of the worst frame are written.
        ConversionError: it cannot be converted at all.
    """
    check_request(request)
    original = read_original(request.words)
    card = _card(original, request)
    out = out_path(request, original)
    size = fitting_size(request, original)
    check_products(request, out, size)
    was_there, source = out.exists(), request.words.source
    in_place = source is not None and os.path.realpath(source) == os.path.realpath(out)
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
    if request.size is None and original.fixed_size is None and size != DEFAULT_SIZE:
        width, height = size
        report.notes.append(f"proven at {width}x{height}: it takes multiples of {card.stride}")
    try:
        with _interrupts() as interrupted, _drafts(out) as folder, _progress(console) as bar:
            conversion = _Conversion(
                request, original, card, size, report, folder, bar, interrupted
            )
            try:
                conversion.run(out)
            except Exception:
                if interrupted:  # what a library made of the Ctrl-C
                    raise _ending(interrupted[0]) from None
                raise
        report.verdict = CONVERTED
        if was_there:
            what = "the new proofs are on its card" if in_place else "the earlier one is replaced"
            report.notes.append(f"{out}: {what}")
    except RefusedError as error:
        report.verdict, report.why = REFUSED, str(error)
        _show_refusal(report, error.step, out, console)
        raise
    except Pix2liveError as error:
        report.why = str(error)
        raise
    except (KeyboardInterrupt, SystemExit):
        report.verdict, report.why = INTERRUPTED, "a signal"
        raise
    finally:
        if report.verdict != CONVERTED:
            report.engines.clear()  # they are gone with the drafts
        report.print(console)
        if request.report_path is not None:
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
    said: str = ""

    def run(self, out: Path) -> None:
        request, report = self.request, self.report
        chosen = proof_frames(request.frames, self.size, request.count)
        report.frames = chosen.description
        if not chosen.real:
            report.notes.append("no --frames were given: a clip of your own proves more")
        prover = Prover(
            self.original, chosen.frames, self._tick, chosen.real, report.steps, report.notes
        )
        prover.check_original()
        master = self._exported()
        draft = self.folder / out.name
        write_frame_model(master, self.card, draft)
        prover.prove_master(draft)
        half = None
        if request.precision == "f16":
            from engines.graphs.half import to_half

            typed = to_half(master)
            report.half_types, report.islands = typed.counts, typed.islands
            half = typed.model
            prover.prove_half(half, self.folder)
        prover.prove_backends(draft)
        # What was proven against the original network is worth more than against its own FP32.
        proofs = {**prover.card_proofs(), **self.card.proofs}
        write_frame_model(master, replace(self.card, proofs=proofs), draft)
        finished = []
        model = FrameModel.read(draft)
        # The twin first: what is compiled for OpenVINO is what `auto` runs.
        targets = request.targets or default_targets()
        for target in sorted(targets, key=lambda item: item != "onnx-int8"):
            if target == "onnx-int8":
                finished.append(self._quantise(model, master, prover))
            else:
                finished += self._compile(target, model, half or master, prover)
        worst = min(
            (step for step in report.steps if step.proof is not None),
            key=lambda step: step.proof.psnr_db if step.proof else 0.0,
            default=None,
        )
        if worst is not None:
            finished.append(_save_picture(worst, self.folder / f"{out.stem}.proof.png"))
            report.picture, report.shown = out.with_name(finished[-1].name), _shown(worst)
        try:
            for path in (*finished, draft):  # the model last: what is beside it belongs to it
                os.replace(path, out.with_name(path.name))
            out.with_name(f"{out.stem}.refused.png").unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write {out}: {error.strerror}") from error
        for place, engine in enumerate(report.engines):
            report.engines[place] = replace(engine, path=out.parent / engine.path.name)
        report.model, report.model_sha256 = out, model.sha256

    def _exported(self) -> onnx.ModelProto:
        """The FP32 graph for any size, or, where the network does not allow that, for this one."""
        self._tick("export", 0, 1)
        try:
            return self.original.graph(None)
        except ConversionError as error:
            if self.original.family in FAMILIES:
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
            proofs = {name: proof for name, proof in model.card.proofs.items() if name == "f16"}
            write_frame_model(graph, replace(model.card, proofs=proofs), path)
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
        self.report.notes += engine.notes
        what = f"{target} engine, {engine.precision}"
        if target.startswith("tensorrt") and why_not(target) is not None:
            self.report.notes.append(
                f"to run it, take {model.path.name} and {engine.path.name} together to the GPU"
            )
        inspected = prover.prove_engine(model.path, target, engine.precision, what)
        self.report.engines[-1] = replace(engine, inspected=inspected)
        return [engine.path]

    def _quantise(self, model: FrameModel, master: onnx.ModelProto, prover: Prover) -> Path:
        """Write the INT8 twin of the model, proven on frames that it was not measured on."""
        from engines.graphs.int8 import to_int8

        self._tick("INT8", 0, 1)
        count = len(prover.frames)
        small = _small(self.size, model)
        # The same places of the clip as those of the proof.
        seen = {frame.tobytes() for frame in self._frames(small, count)}
        chosen = self._frames(small, (1 + CALIBRATION) * count)
        unseen = [frame for frame in chosen if frame.tobytes() not in seen]
        if not unseen:
            self.report.notes.append("INT8 was measured on the frames of its own proof: give more")
        path = twin_path(model.path)
        graph = to_int8(master, unseen or chosen)
        card = replace(
            self.card,
            architecture=f"{self.card.architecture}, INT8",
            proofs={},
            measures={},
            quantised_from=model.graph_sha256,
            command=self._int8_command(),
        )
        write_frame_model(graph, card, path)
        proofs = prover.prove_int8(path)
        write_frame_model(graph, replace(card, proofs=proofs), path)
        least = min(  # `auto` runs it in OpenVINO only
            proof["psnr_db"] for key, proof in proofs.items() if key.startswith("openvino/")
        )
        self.report.notes.append(
            f"{path.name}: --precision int8 takes it"
            + (
                f", and so does auto on a processor with VNNI ({least:.1f} dB)"
                if least >= ENOUGH_INT8_DB
                else f"; not auto: {least:.1f} dB, {ENOUGH_INT8_DB:.0f} are needed"
            )
        )
        if not has_vnni():
            self.report.notes.append("proven on a processor that is not known to have VNNI")
        return path

    def _int8_command(self) -> str:
        request, (width, height) = self.request, self.size
        frames = request.frames.name if request.frames is not None else ""
        source = Path(request.words.source or self.card.name).name  # folders are nobody's business
        return (
            f"pix2live convert {shlex.quote(source)} --to onnx-int8 --frames {shlex.quote(frames)}"
            f" --count {request.count} --size {width}x{height}"
        )

    def _frames(self, size: Size, count: int) -> tuple[Pixels, ...]:
        return proof_frames(self.request.frames, size, count).frames

    def _tick(self, what: str, done: int, total: int) -> None:
        if self.interrupted:
            raise _ending(self.interrupted[0])
        if not self.bar.console.is_terminal and what != self.said:
            self.bar.console.print(f"  {what} ...", highlight=False, markup=False)
        self.said = what
        task = self.bar.task_ids[0]
        self.bar.update(task, description=what, completed=done, total=total)


def _small(size: Size, model: FrameModel) -> Size:
    """Return a size (width, height) to measure INT8 ranges at.

    In larger frames single values are further out, and the range that holds them is too coarse for
    all others: `matisse` got 37 dB from frames of 640x360, 42 from the same at half the size.
    """
    scale = max(1.0, max(size) / CALIBRATION_SIDE_PX)
    return model.fit((round(size[0] / scale), round(size[1] / scale)))


def _card(original: Original, request: Request) -> Card:
    card = original.card
    return replace(
        card,
        name=request.name or (card_name(request.out.stem) if request.out else card.name),
        title=request.title or card.title,
        domains=request.domains or card.domains,
        licence=request.licence or card.licence,
    )


@contextlib.contextmanager
def _drafts(out: Path) -> Iterator[Path]:
    """A folder beside the result, gone afterwards; renames finish the job."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=DRAFTS, suffix=".part", dir=out.parent))
    except OSError as error:
        raise SinkError(f"cannot write into {out.parent}: {error.strerror}") from error
    try:
        now_s = folder.stat().st_mtime
        for path in out.parent.glob(f"{DRAFTS}*.part"):  # of processes that were killed
            if path.stat().st_mtime < now_s - LEFTOVER_AGE_S:
                shutil.rmtree(path, ignore_errors=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ending(number: int) -> BaseException:
    """What ends the process as a signal asks: 130 for Ctrl-C, 143 for SIGTERM."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Remember a signal: PyTorch's exporter catches whatever is raised while it traces."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise _ending(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _shown(step: Step) -> str:
    assert step.proof is not None
    return f"{step.what}, {step.proof.psnr_db:.1f} dB over all frames"


def _show_refusal(report: Report, step: Step, out: Path, console: Console) -> None:
    report.picture = _save_picture(step, out.with_name(f"{out.stem}.refused.png"))
    report.shown = _shown(step)
    if console.is_terminal:
        show_in_terminal(read_picture(report.picture), console)
