"""The commands of `pix2live train`, with their presets. Nothing here needs torch until it runs."""

from __future__ import annotations

from typing import Any, Final

import click

from tools.train.options import FILE, FOLDER, Preset, run_recipe, shared_options

TINY: Final[Preset] = {
    "generator": "quarter:32x2",
    "batch": 2,
    "crop_px": 128,
    "learning_rate": 2e-3,
    "save_every": 50,
    "sheet_every": 100,
}
"""Seen to end within two minutes on two CPU cores: for trying."""

STYLE_PRESETS: Final[dict[str, Preset]] = {
    "tiny": {
        **TINY,
        "steps": 400,
        "style_px": 256,
        "imitate": 8,
        "temporal_weight": 0.0,
        "adversarial_weight": 0.0,
    },
    "default": {
        "generator": "quarter:48x6:wide",
        "steps": 6000,
        "batch": 2,
        "crop_px": 256,
        "learning_rate": 1e-3,
    },
    "quality": {"generator": "quarter:64x4:wide", "steps": 30000, "batch": 8, "imitate": 400},
}
PAIRED_PRESETS: Final[dict[str, Preset]] = {
    "tiny": {**TINY, "steps": 600, "batch": 4, "adversarial_weight": 0.0, "variants": 1},
    "default": {
        "generator": "quarter:64x3",
        "steps": 12000,
        "batch": 8,
        "crop_px": 128,
        "learning_rate": 1e-3,
    },
    "quality": {"generator": "quarter:64x4:wide", "steps": 40000, "batch": 16, "crop_px": 192},
}
UNPAIRED_PRESETS: Final[dict[str, Preset]] = {
    "tiny": {**TINY, "steps": 200, "batch": 1, "discriminator_width": 16},
    "default": {
        "generator": "quarter:48x6:wide",
        "steps": 20000,
        "batch": 2,
        "crop_px": 128,
        "learning_rate": 5e-4,
    },
    "quality": {"generator": "quarter:64x4:wide", "steps": 80000, "batch": 8, "crop_px": 256},
}


@click.command()
@click.option("--content", type=FOLDER, required=True, help="Folder of photographs.")
@click.option("--style", type=FILE, required=True, help="The painting.")
@click.option("--features", type=FILE, help="VGG weights [default: torchvision's].")
@click.option(
    "--style-size", "style_px", type=int, help="Short side of the painting [default: 512]."
)
@click.option(
    "--imitate", type=int, help="Photographs to paint by optimisation first [default: 120]."
)
@click.option("--match-weight", type=float, help="Of what each place should become [default: 1].")
@click.option(
    "--style-weight", type=float, help="Of colours and strokes as a whole [default: 0.3]."
)
@click.option(
    "--content-weight", type=float, help="More keeps more of the photograph [default: 0]."
)
@click.option("--tv-weight", type=float, help="More is smoother [default: 0.2].")
@click.option(
    "--temporal-weight", type=float, help="More flickers less; 0 is faster [default: 20]."
)
@click.option(
    "--last-word", type=float, help="Of the feature net, a share of the steps [default: 0.1]."
)
@click.option(
    "--adversarial", "adversarial_weight", type=float, help="Weight of the critic [default: 0.1]."
)
@click.option("--discriminator-width", type=int, help="Channels of the critic [default: 32].")
@shared_options(STYLE_PRESETS)
def style(**given: Any) -> None:
    """Paint like a picture: photographs and one painting are enough."""
    run_recipe("tools.train.style:Style", "tools.train.style:StyleSettings", STYLE_PRESETS, given)


@click.command()
@click.option("--input", type=FOLDER, help="Folder of input pictures.")
@click.option("--target", type=FOLDER, help="Folder of their targets, with the same names.")
@click.option("--pairs", type=FOLDER, help="Folder of A|B pictures, side by side.")
@click.option("--teacher", help="module:function, a slow picture function to imitate.")
@click.option(
    "--variants", type=int, help="Lights and sizes of each picture for a teacher [default: 3]."
)
@click.option(
    "--l1", "l1_weight", type=float, help="Weight of the distance to the target [default: 1]."
)
@click.option(
    "--adversarial", "adversarial_weight", type=float, help="Weight of the critic [default: 0.01]."
)
@click.option(
    "--feature-matching", "feature_weight", type=float, help="Weight of its features [default: 0]."
)
@click.option("--scales", type=int, help="At how many sizes the critic looks [default: 1].")
@click.option("--discriminator-width", type=int, help="Channels of the critic [default: 64].")
@click.option(
    "--condition/--no-condition",
    default=None,
    help="Whether it sees the input too [default: --condition].",
)
@click.option(
    "--mirror/--no-mirror",
    default=None,
    help="Whether half of the crops are mirrored [default: --mirror].",
)
@click.option(
    "--damage/--no-damage",
    default=None,
    help="Inputs as a cheap camera sees them [default: --no-damage].",
)
@shared_options(PAIRED_PRESETS)
def paired(**given: Any) -> None:
    """From pairs of pictures, or from a slow function that makes the targets."""
    run_recipe(
        "tools.train.paired:Paired", "tools.train.paired:PairedSettings", PAIRED_PRESETS, given
    )


@click.command()
@click.option("--a", "a", type=FOLDER, required=True, help="Folder of one kind of pictures.")
@click.option("--b", "b", type=FOLDER, required=True, help="Folder of the other kind.")
@click.option(
    "--cycle", "cycle_weight", type=float, help="Weight of there and back again [default: 10]."
)
@click.option(
    "--identity", "identity_weight", type=float, help="Weight of leaving B as B [default: 5]."
)
@click.option("--temporal-weight", type=float, help="More flickers less; 0 is faster [default: 0].")
@click.option("--discriminator-width", type=int, help="Channels of the critics [default: 64].")
@click.option("--discriminator-rate", type=float, help="Their learning rate [default: 0.0002].")
@click.option(
    "--pool", type=int, help="How many earlier pictures the critics remember [default: 50]."
)
@click.option("--back-name", help="Name of the filter from B to A [default: NAME-back].")
@shared_options(UNPAIRED_PRESETS)
def unpaired(**given: Any) -> None:
    """From two folders without pairs: a filter in each direction."""
    run_recipe(
        "tools.train.unpaired:Unpaired",
        "tools.train.unpaired:UnpairedSettings",
        UNPAIRED_PRESETS,
        given,
    )
