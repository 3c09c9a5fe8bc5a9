"""`pix2live bench`: the honest table of this machine, as tables, JSON and a page to hand on."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from engines import Pix2liveError, SettingsError, SinkError, Size
from engines.base import PRECISIONS
from tools.option_types import size_and_seconds
from tools.run import DEFAULT_FILTER

if TYPE_CHECKING:
    from tools.bench.results import Result

DEFAULT_SIZES: tuple[Size, ...] = ((640, 360), (1280, 720))
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--filter",
    "filters",
    multiple=True,
    default=[DEFAULT_FILTER],
    show_default=True,
    metavar="NAME|FILE.onnx|all",
    help="What to measure; repeatable.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=["all"],
    show_default=True,
    metavar="NAME|all",
    help="openvino, torch:cuda, ...; repeatable. What cannot run here is a row with its reason.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Repeatable.  [default: every one that the backend has]",
)
@size_and_seconds(
    "Repeatable.  [default: 640x360 and 1280x720]",
    "Of each of the three measurements of a case, all rounds together.",
    seconds=10,
    range_s=(0.01, 3600),
    several_sizes=True,
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option(
    "--fps",
    type=click.FloatRange(0, 1000, min_open=True),
    default=30,
    show_default=True,
    help="Of the paced source.",
)
@click.option("--json", "json_", type=FILE, metavar="FILE.json", help="Write everything.")
@click.option("--html", type=FILE, metavar="FILE.html", help="Write a page with plots.")
@click.option(
    "--from",
    "from_",
    type=FILE,
    metavar="FILE.json",
    help="Measure nothing: show this result, and make its --html.",
)
@click.option(
    "--compare",
    type=FILE,
    nargs=2,
    metavar="A.json B.json",
    help="Measure nothing: say what changed from A to B beyond the noise.",
)
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure filters on every backend, size and precision that this machine has.

    \b
    pix2live bench                                   the default filter, some minutes
    pix2live bench --filter all --html bench.html    every filter, and a page to hand on
    pix2live bench --compare before.json after.json  what changed beyond the noise
    """  # noqa: D301  (click reads \b as a control character)
    console = Console()
    for name in ("json_", "html"):
        if str(options[name]) == "-":
            word = name.strip("_")
            raise SettingsError(f"--{word} writes a file, found -: name one, as in a.{word}")
    if options["compare"]:
        _refuse_others(context, "compare")
        before, after = options["compare"]
        _compare(before, after, console)
        return
    if options["from_"]:
        _refuse_others(context, "from_", "html")
        _show(options["from_"], options["html"], console)
        return
    sys.exit(_measure(options, console))


def _refuse_others(context: click.Context, *allowed: str) -> None:
    """Refuse options that would be ignored."""
    typed = click.core.ParameterSource.COMMANDLINE
    others = [
        item.opts[0]
        for item in context.command.params
        if item.name not in allowed and context.get_parameter_source(item.name or "") == typed
    ]
    if others:
        alone = "--" + allowed[0].strip("_")
        raise click.UsageError(f"{alone} measures nothing: leave out {', '.join(others)}")


def _compare(before: Path, after: Path, console: Console) -> None:
    from tools.bench.compare import compare
    from tools.bench.results import read
    from tools.bench.terminal import print_comparison

    print_comparison(compare(read(before), read(after)), console)


def _show(path: Path, html: Path | None, console: Console) -> None:
    from tools.bench.results import read
    from tools.bench.terminal import print_result

    result = read(path)
    files = _Files(result, None, html)
    print_result(result, console)
    files.report(console)


def _measure(options: dict[str, Any], console: Console) -> int:
    from tools.bench import machine, plan, run
    from tools.bench.plots import check_plots
    from tools.bench.results import Settings, check_place, write
    from tools.bench.sensors import sensors_here
    from tools.bench.terminal import Progressing, print_result

    json_, html = options["json_"], options["html"]
    for path in filter(None, (json_, html)):
        check_place(path)
    if json_ is not None and html is not None and json_.resolve() == html.resolve():
        raise SettingsError(f"--json and --html would be one file, {json_}")
    if html is not None:
        check_plots()
    sizes = options["sizes"] or DEFAULT_SIZES
    models = plan.chosen_filters(options["filters"])
    backends = plan.chosen_backends(options["backends"], run.devices(), nvidia=machine.has_nvidia())
    groups = plan.groups(models, sizes, backends, options["precisions"])
    if fitted := plan.fitted(models, sizes):
        console.print(f"note: {fitted}", style="dim", highlight=False, markup=False, soft_wrap=True)
    settings = Settings(
        filters=list(options["filters"]),
        backends=list(options["backends"]),
        precisions=list(options["precisions"]),
        sizes=list(sizes),
        seconds=options["seconds"],
        rounds=options["rounds"],
        fps=options["fps"],
    )
    screen = Progressing(Console(stderr=True))
    sensors = sensors_here()
    result = run.new_result(settings, groups, sensors)
    with tempfile.TemporaryDirectory(prefix="pix2live-bench-") as folder, _ends() as caught:

        def keep(found: Result) -> None:
            if json_ is not None:
                with suppress(SinkError):  # the last one says it, after the tables
                    write(json_, found)

        try:
            run.Bench(groups, result, sensors, screen, Path(folder), keep).run()
        except KeyboardInterrupt:
            if not caught:
                raise
        finally:
            screen.close()
            sensors.close()
        files = _Files(result, json_, html)
        print_result(result, console)
        files.report(console)
    if caught:
        return 128 + caught[0]
    if not result.measured:
        console.print("nothing was measured", highlight=False)
    return 0 if result.measured else 1


class _Files:
    """The files of a result: written before the tables, as nobody may read those (``| head``)."""

    def __init__(self, result: Result, json_: Path | None, html: Path | None) -> None:
        from tools.bench.report import write_page
        from tools.bench.results import write

        self._written: list[Path] = []
        self._problem: Pix2liveError | None = None
        try:
            if json_ is not None:
                write(json_, result)
                self._written.append(json_)
            if html is not None:
                write_page(html, result)
                self._written.append(html)
        except Pix2liveError as error:
            self._problem = error

    def report(self, console: Console) -> None:
        """Say what was written, after the tables.

        Raises:
            Pix2liveError: what could not be.
        """
        for path in self._written:
            console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
        if self._problem is not None:
            raise self._problem


@contextmanager
def _ends() -> Iterator[list[int]]:
    """Let the first signal end the measuring, and none the writing after it.

    Ctrl-C, SIGTERM, or a terminal that is closed. Yields the signals that came.
    """
    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not caught:
            caught.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield caught  # an embedding program has its own signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
