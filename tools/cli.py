"""The `pix2live` command; each subcommand is a module beside this one, loaded when it is used."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

import click

COMMANDS = {
    "run": ("tools.run:run", "Translate a camera, file, stream or screen, live."),
    "serve": ("tools.serve:serve", "The page in a browser: its camera, or this machine's."),
    "convert": ("tools.convert:convert", "Weights -> a proven frame model and engines."),
    "demo": ("tools.demo:demo", "See it work: the camera, or a film clip, for ten seconds."),
    "filters": ("tools.filters:filters", "List the shipped filters, or print one card."),
    "latency": ("tools.latency:latency", "The delay from glass to glass: film this screen."),
    "doctor": ("tools.doctor:doctor", "What is here, what is missing, and what to do next."),
    "train": ("tools.train.cli:train", "Train a filter of your own."),
    "calibrate": ("tools.calibrate:calibrate", "Calibrate a camera by a printed board."),
    "markers": ("tools.markers:markers", "Draw markers to print."),
    "evaluate": ("tools.evaluate:evaluate", "Measure a filter: pairs, sets, cycle error, flicker."),
    "bench": ("tools.bench.cli:bench", "Measure filters, backends and sizes on this machine."),
}
"""Name -> (module:attribute, one line); modules are not imported for `--help`."""

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
SYSTEM_LIBRARIES = "libxcb1 libgl1 libglib2.0-0 libsm6"
"""What OpenCV's wheel expects from Debian and Ubuntu."""


def installed_version() -> str:
    """Return the version of the installed distribution, or ``0+checkout``."""
    try:
        return version("pix2live")
    except PackageNotFoundError:
        return "0+checkout"


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called: the rest starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(installed_version(), prog_name="pix2live")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Real-time image-to-image translation for video and AR, with the age of every frame."""
    context.obj = debug


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line on stderr.

    Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 Ctrl-C, 143 terminated.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        cli.main(words, prog_name="pix2live", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if debug:
            raise
        click.echo(f"pix2live: {_one_line(error)}", err=True)
        sys.exit(EXIT_FAILED)


def _one_line(error: Exception) -> str:
    from engines.errors import Pix2liveError

    if isinstance(error, Pix2liveError):
        return " ".join(str(error).split())
    if isinstance(error, ImportError) and ".so" in str(error):
        return (
            f"a system library is missing ({' '.join(str(error).split())}). On Debian and Ubuntu:"
            f" sudo apt-get install -y {SYSTEM_LIBRARIES}"
        )
    return (
        f"a fault in pix2live: {type(error).__name__}: {' '.join(str(error).split())}"
        " (pix2live --debug ... shows where; please report it)"
    )
