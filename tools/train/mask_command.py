"""`pix2live train mask`: a network that says where people are."""

from __future__ import annotations

from typing import Any, Final

import click

from tools.train.options import FILE, FOLDER, Preset, run_recipe, shared_options

MASK_PRESETS: Final[dict[str, Preset]] = {
    "tiny": {"steps": 300, "batch": 4, "crop_px": 96, "save_every": 50, "sheet_every": 100},
    "default": {
        "generator": "person",
        "steps": 12000,
        "batch": 8,
        "crop_px": 144,
        "learning_rate": 2e-3,
    },
    "quality": {"steps": 40000, "batch": 16},
}


@click.command()
@click.option("--people", type=FOLDER, required=True, help="Folder of clips and pictures with.")
@click.option("--backgrounds", type=FOLDER, required=True, help="Folder of pictures without.")
@click.option("--teacher", type=FILE, required=True, help="A segmentation network, in ONNX.")
@click.option(
    "--overlap", "overlap_weight", type=float, help="Weight of the overlap [default: 0.5]."
)
@shared_options(MASK_PRESETS)
def mask(**given: Any) -> None:
    """Where the people are: distilled from a larger segmentation network."""
    run_recipe("tools.train.mask:Mask", "tools.train.mask:MaskSettings", MASK_PRESETS, given)
