"""What all recipes share on the command line, and the one way from words to a filter."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource
from filelock import FileLock, Timeout

from engines.errors import EngineError, Pix2liveError, SettingsError, SinkError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from tools.train.checkpoint import Checkpoint
    from tools.train.recipe import Recipe, Settings
    from tools.train.screen import Screen

Command = TypeVar("Command", bound=Callable[..., Any])
Preset = Mapping[str, Any]

FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
NEEDED: Final = {
    "torch": "torch",
    "lightning_fabric": "lightning-fabric",
    "onnxscript": "onnxscript",
}
NOT_OF_A_FILTER: Final = frozenset(
    {"resume", "overwrite", "export", "workers", "save_every", "sheet_every"}
)
"""Options that do not change what comes out: left out of the command on a card."""
EXIT_SIGNAL: Final = 128
SAY_AFTER_S: Final = 3.0
LOCK_NAME: Final = ".training.lock"


def shared_options(presets: Mapping[str, Preset]) -> Callable[[Command], Command]:
    """Add the options of every recipe; what is not given comes from the preset."""
    usual = presets["default"]

    def shown(text: str, name: str) -> str:
        return f"{text} [default: {usual[name]}]"

    options = [
        click.option(
            "--preset",
            type=click.Choice(list(presets)),
            default="default",
            show_default=True,
            help="tiny: to try, two minutes on a CPU; quality: hours on a GPU.",
        ),
        click.option(
            "--out",
            required=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder for the filter, checkpoint, curves and sample sheets.",
        ),
        click.option("--name", help="Name of the filter [default: the name of --out]."),
        click.option(
            "--validate",
            type=click.Path(exists=True, path_type=Path),
            help="Clip or folder for the sheets and the proof; never learned from.",
        ),
        click.option("--generator", help=shown("The network that learns.", "generator")),
        click.option("--start", help="A filter of the same network to start from: much faster."),
        click.option("--steps", type=int, help=shown("How long.", "steps")),
        click.option("--batch", type=int, help=shown("Crops a step and device.", "batch")),
        click.option(
            "--crop", "crop_px", type=int, help=shown("Side of the crops in pixels.", "crop_px")
        ),
        click.option("--learning-rate", type=float, help=shown("At its peak.", "learning_rate")),
        click.option("--seed", type=int, help="The same one repeats a run [default: 1]."),
        click.option("--accelerator", help="auto, cpu, cuda or mps [default: auto]."),
        click.option("--devices", type=int, help="How many GPUs (or CPU processes) [default: 1]."),
        click.option("--precision", help="auto, 32-true, bf16-mixed or 16-mixed [default: auto]."),
        click.option("--workers", type=int, help="Threads that cut crops ahead [default: 1]."),
        click.option("--save-every", type=int, help="Steps between checkpoints [default: 250]."),
        click.option(
            "--sheet-every", type=int, help="Steps between sample sheets [default: 1000]."
        ),
        click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out."),
        click.option("--overwrite", is_flag=True, help="Begin again over the checkpoint in --out."),
        click.option(
            "--export",
            is_flag=True,
            help="Train no further: make a filter of the checkpoint in --out as it is.",
        ),
        click.option("--title", help="For the card: a name for people."),
        click.option("--domains", help="For the card: 'photo -> comic'."),
        click.option("--licence", help="For the card: licence of the filter."),
        click.option("--origin", help="For the card: what it was trained on."),
    ]

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def run_recipe(
    recipe: str, settings: str, presets: Mapping[str, Preset], given: Mapping[str, Any]
) -> None:
    """Train the recipe of the click command that is running, and make its filters.

    Args:
        recipe: ``module:Class``, imported now: it needs torch.
        settings: the same for its settings.
        presets: of this recipe. What a person gave wins over the preset.
        given: the parameters of the click command; None or () is not given.
    """
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise EngineError(f"training needs {package}: pip install 'pix2live[train]'")
    words = {name: value for name, value in given.items() if value is not None}
    preset = presets[words.pop("preset")]
    words.setdefault("name", _name_of(words["out"]))
    command = command_line(click.get_current_context())
    chosen = {**presets["default"], **preset, "command": command, **words}
    train(_found(recipe), _found(settings)(**chosen))


def train(recipe_class: type[Recipe], settings: Settings) -> list[Path]:
    """Train, export and prove; return the frame models. Ends the process after a Ctrl-C.

    Raises:
        SettingsError: the settings cannot be used, or are those of another training than the
            checkpoint's; a checkpoint is there, and neither --resume nor --overwrite is given.
        Pix2liveError: see `tools.train.loop.fit` and `tools.train.export.export_filters`.
    """
    from tools.train.devices import in_our_words, make_fabric, quiet
    from tools.train.screen import Screen

    settings.check()
    _check_name(settings.name)
    _make_folder(settings.out)
    fabric, machine = make_fabric(settings)
    _check_start(settings)
    with quiet():
        fabric.launch()
    try:
        with Screen(loud=fabric.is_global_zero) as screen:
            recipe = recipe_class(settings, fabric)
            if not fabric.is_global_zero:
                return _trained(recipe, machine, screen)
            with _alone(settings.out):
                return _trained(recipe, machine, screen)
    except (Exception, KeyboardInterrupt) as error:
        failed = in_our_words(error, settings) if isinstance(error, Exception) else error
        if fabric.world_size > 1:
            _end_together(fabric, failed)
        if failed is error:
            raise
        raise failed from error


def _end_together(fabric: Fabric, error: BaseException) -> None:
    """Let one of several processes say why a training ends; the first one ends the others."""
    if not fabric.is_global_zero:
        if isinstance(error, Exception):
            # What fails in all of them the first one says, and ends this one meanwhile.
            time.sleep(SAY_AFTER_S)
        return
    others = getattr(fabric.strategy.launcher, "procs", ())
    if not isinstance(error, (Pix2liveError, KeyboardInterrupt)):  # a lost connection, perhaps
        until_s = time.monotonic() + SAY_AFTER_S
        while time.monotonic() < until_s and not any(process.poll() for process in others):
            time.sleep(0.05)
    codes = [code for process in others if (code := process.poll())]
    for process in others:
        process.kill()  # they would wait for this one
    if any(code > 0 for code in codes):
        sys.exit(1)  # that one said why
    if codes:
        raise EngineError(
            f"signal {-codes[0]} ended one of the {fabric.world_size} processes of this training;"
            " --resume goes on"
        ) from error


def _trained(recipe: Recipe, machine: str, screen: Screen) -> list[Path]:
    from tools.train.export import export_filters
    from tools.train.loop import fit, take_over

    settings = recipe.settings
    screen.say(machine)
    checkpoint = _checkpoint(settings, machine, screen)
    if settings.export:
        assert checkpoint is not None
        recipe.prepare(screen.preparing)
        take_over(recipe, checkpoint)
        step = checkpoint.step
    else:
        outcome = fit(recipe, screen, checkpoint, machine)
        if not recipe.fabric.is_global_zero:
            return []
        if outcome.ended_by is not None:
            screen.say(
                f"stopped after step {outcome.step} of {settings.steps}; it is saved. To go on: the"
                " same command with --resume. For a filter of what was learned: with --export."
            )
            sys.exit(EXIT_SIGNAL + outcome.ended_by)
        step = outcome.step
    if not recipe.fabric.is_global_zero:
        return []
    paths = export_filters(recipe, step, screen)
    for path in paths:
        screen.say(f"{path}  ({path.stat().st_size / 1000:.0f} kB)")
        screen.say(f"pix2live run --filter {shlex.quote(str(path))}")
    return paths


def _check_start(settings: Settings) -> None:
    """Refuse to begin over a checkpoint, or to export where there is none."""
    from tools.train.checkpoint import file_of

    path = file_of(settings.out)
    if settings.export and not path.exists():
        raise SettingsError(f"--export: there is no checkpoint {path} yet")
    if path.exists() and not (settings.resume or settings.overwrite or settings.export):
        raise SettingsError(
            f"there is a checkpoint already, {path}: --resume goes on from it, --overwrite begins"
            " again, --export makes a filter of it; or give another --out"
        )


def _checkpoint(settings: Settings, machine: str, screen: Screen) -> Checkpoint | None:
    from tools.train.checkpoint import check_same, file_of, read_checkpoint

    path = file_of(settings.out)
    if not (settings.resume or settings.export):
        return None
    if not path.exists():
        screen.say(f"there is no checkpoint {path} to resume: this begins at the first step")
        return None
    found = read_checkpoint(path)
    check_same(found, settings, path, _option)
    if settings.resume:
        screen.say(f"going on after step {found.step} of {settings.steps}")
        if found.machine != machine:
            screen.say(
                f"up to there it was {found.machine!r}: the numbers will not be quite those of an"
                " uninterrupted run"
            )
    return found


def command_line(context: click.Context) -> str:
    """Return what a person typed, for the card: without paths that name their home."""
    words = ["pix2live", *context.command_path.split()[1:]]
    for item in context.command.params:
        name = item.name or ""
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if name in NOT_OF_A_FILTER or not typed:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(item.opts[0] if value else item.secondary_opts[0])
        else:
            words += [item.opts[0], _shown_path(Path(value)) if _is_path(value) else str(value)]
    return shlex.join(words)


def _is_path(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute())


def _shown_path(path: Path) -> str:
    if not path.is_absolute():
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _option(setting: str) -> str:
    """What a person types for a setting."""
    context = click.get_current_context(silent=True)
    for item in context.command.params if context is not None else ():
        if item.name == setting:
            return item.opts[0]
    return f"--{setting.replace('_', '-')}"


def _found(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _name_of(out: Path) -> str:
    from tools.conversion.original import card_name

    return card_name(out.resolve().name)


def _check_name(name: str) -> None:
    from tools.conversion.original import card_name

    if card_name(name) != name:
        raise SettingsError(
            f"--name must be letters, digits, '.', '-' and '_', found {name!r}; for instance"
            f" {card_name(name)}"
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the folder {out}: {error.strerror or error}") from error


class _alone:  # noqa: N801  reads like a statement
    """Nobody else trains in this folder; a killed process holds it no longer."""

    def __init__(self, out: Path) -> None:
        self._out, self._lock = out, FileLock(out / LOCK_NAME)

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise SinkError(
                f"another training is running in {self._out}: wait for it, or give another --out"
            ) from None
        except OSError as error:
            raise SinkError(f"cannot write {self._out}: {error.strerror or error}") from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()
