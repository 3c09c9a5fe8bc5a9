"""`pix2live convert`: anybody's weights -> a proven frame model -> compiled engines.

Also runnable as a script: ``python tools/convert.py latest_net_G.pth``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script: the checkout is where the imports are
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
from rich.console import Console
from rich.table import Table

from engines import Size
from engines.picture_format import COLOURS, LAYOUTS, RANGES
from realtime.sources import parse_size
from tools.option_types import SizeType

TARGETS = ("openvino", "tensorrt", "tensorrt-rtx", "onnx-f16", "onnx-int8")


class SizesType(click.ParamType[tuple[Size, Size]]):
    """WIDTHxHEIGHT..WIDTHxHEIGHT."""

    name = "WxH..WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Size, Size]:
        if isinstance(value, tuple):
            return value
        try:
            smallest, largest = (parse_size(part) for part in str(value).split(".."))
        except ValueError:
            self.fail(f"a range of sizes is 320x180..1280x720, found {value!r}", param, ctx)
        if smallest[0] > largest[0] or smallest[1] > largest[1]:
            self.fail(f"the range {value} must rise in width and height", param, ctx)
        return smallest, largest


class ArgumentsType(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "JSON"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.fail(
                f'arguments are a JSON object, {{"channels": 32}}, found {value!r}', param, ctx
            )
        return found


def _list_families(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from engines.generators.families import FAMILIES

    table = Table("family", "network", "told by", box=None, pad_edge=False)
    for family in FAMILIES.values():
        table.add_row(family.name, f"{family.title} ({family.paper})", family.told_by)
    console = Console()
    console.print(table, highlight=False)
    console.print(
        "\nAlso: ONNX files, TorchScript archives (both with --range), and networks of your own"
        " (--module FILE.py:CLASS).",
        highlight=False,
    )
    context.exit()


@click.command()
@click.argument("source", required=False)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_families,
    help="List the families that are recognised.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.onnx",
    help="The frame model.  [default: SOURCE's name, here]",
)
@click.option(
    "--to",
    "targets",
    type=click.Choice(TARGETS),
    multiple=True,
    help="Also compile; repeatable.  [default: for the device that is here]",
)
@click.option("--size", type=SizeType(), help="Prove and compile at this size.  [default: 640x360]")
@click.option(
    "--dynamic", type=SizesType(), help="TensorRT: every size of a range, best at --size."
)
@click.option(
    "--gpu", "gpus", metavar="8.6,8.9", help="tensorrt-rtx: compute capabilities to build for."
)
@click.option(
    "--precision",
    type=click.Choice(["f16", "f32"]),
    default="f16",
    show_default=True,
    help="f32: no FP16, neither derived nor proven.",
)
@click.option(
    "--frames",
    type=click.Path(path_type=Path),
    metavar="CLIP|FOLDER",
    help="Prove on these.  [default: made frames]",
)
@click.option(
    "--count", type=click.IntRange(1, 1000), default=16, show_default=True, help="How many frames."
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Write all numbers.",
)
@click.option("--entry", metavar="NAME", help="Which network of a file with several: G_A, netG.")
@click.option("--family", metavar="NAME", help="Take it for this family (see --list).")
@click.option(
    "--statistics",
    type=click.Choice(["running", "batch"]),
    help="U-Net batch normalisation: of the training (steady), or of each picture, as"
    " the authors test.  [default: running]",
)
@click.option("--module", metavar="FILE.py:CLASS", help="A network of your own; runs your code.")
@click.option("--arguments", type=ArgumentsType(), default="{}", help="For CLASS.")
@click.option("--range", "range_", metavar="LOW..HIGH", help=f"What it takes: {RANGES}.")
@click.option("--range-out", metavar="LOW..HIGH", help="What it gives.  [default: as --range]")
@click.option("--colour", type=click.Choice(list(COLOURS)), help="[default: rgb]")
@click.option("--colour-out", type=click.Choice(list(COLOURS)), help="[default: as --colour]")
@click.option("--layout", type=click.Choice(LAYOUTS), help="[default: told from the shape]")
@click.option("--input", "input_", metavar="NAME", help="Of an ONNX file with several inputs.")
@click.option("--output", metavar="NAME", help="Of an ONNX file with several outputs.")
@click.option(
    "--stride",
    type=click.IntRange(1, 1024),
    help="Sides must be multiples of it.  [default: found by trying]",
)
@click.option("--name", help="On the card.  [default: the file's name]")
@click.option("--title", default="", help="On the card.")
@click.option("--domains", default="", metavar="'photo -> comic'", help="On the card.")
@click.option("--licence", default="", help="Of the weights, on the card.")
def convert(source: str | None, **options: Any) -> None:
    """Turn SOURCE into a frame model and engines, and prove that the picture stays the same.

    SOURCE is a checkpoint (.pth, .pt, .safetensors), an ONNX file or a TorchScript archive.

    \b
    pix2live convert latest_net_G.pth                        recognised by itself
    pix2live convert latest_net_G.pth --to tensorrt-rtx      an FP16 engine, no GPU needed
    pix2live convert net.onnx --range -1..1                  somebody's ONNX
    pix2live convert net.pth --module net.py:Net --range 0..1
    """  # noqa: D301  (click reads \b as a control character)
    from tools.conversion.request import Request
    from tools.conversion.run import run_conversion

    console = Console(stderr=True)
    request = Request.of(source, options)
    run_conversion(request, console)


if __name__ == "__main__":
    from tools.cli import main

    main(["convert", *sys.argv[1:]])
