"""Does each recipe learn, and does each term matter: `python -m benchmarks.learning`.

Small sets whose right answer is known are made on the fly, and learned by the recipes as a person
has them. An ablation takes one term away and nothing else: the same set, seed and number of steps.
Five minutes on one core; `--only texture condition` runs some of it.

Claims: paired reaches 28 dB on pictures that were not learned from; a critic draws texture that L1
alone leaves out; without its condition the critic takes a wrong but plausible answer; unpaired is
6 dB nearer to the known mapping than leaving the picture alone, and is not without the cycle; the
style's distance falls to a tenth; the temporal loss takes 30 % of the flicker away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import learning_metrics as metrics
from benchmarks import learning_sets as sets
from benchmarks.common import RESULTS
from benchmarks.conversion import save
from benchmarks.learning_runs import Bench, Row
from benchmarks.learning_sets import Picture
from engines import Pix2liveError

ROOT: Final = Path(__file__).parent.parent
FEATURES: Final = ROOT.parent / "shared" / "assets" / "features" / "vgg_normalised_conv3_1.pth"
LEARNED: Final = range(200)
HELD_OUT: Final = range(1000, 1016)
STYLE_PX: Final = 128
CLIP_FRAMES: Final = 12


def known(bench: Bench) -> Row:
    """Other colours, blur and lines: one answer only."""
    learned, held, wanted = _pairs(bench, sets.shapes, sets.painted)
    way = bench.train("paired", steps=1200, discriminator_width=8, **learned)
    found = metrics.psnr(map(way.translate, held), wanted)
    return Row(
        recipe="paired",
        metric="PSNR of held-out pictures",
        unit="dB",
        found=found,
        without="training",
        other=metrics.psnr(held, wanted),
        claim="28 dB",
        kept=found >= 28,
        ways=[way],
    )


def texture(bench: Bench) -> Row:
    """Grass is a grain that the map does not foretell: its median, which L1 asks for, is flat."""
    learned, held, wanted = _pairs(bench, sets.fields, sets.grown)
    grass = [sets.is_grass(picture) for picture in held]
    ways = [
        bench.train(
            "paired", steps=900, adversarial_weight=weight, discriminator_width=16, **learned
        )
        for weight in (0.3, 0.0)
    ]
    there = metrics.energy(wanted, grass)
    found, flat = (metrics.energy(map(way.translate, held), grass) / there for way in ways)
    return Row(
        recipe="paired",
        metric="gradient energy of grass, share of the targets'",
        found=found,
        without="the adversarial term",
        other=flat,
        claim="3 times",
        kept=found >= 3 * flat,
        ways=ways,
    )


def condition(bench: Bench) -> Row:
    """Colours change places. The inputs look like targets: the identity is wrong but plausible."""
    learned, held, wanted = _pairs(bench, sets.balls, sets.exchanged)
    ways = [
        bench.train(
            "paired",
            steps=1200,
            condition=seen,
            l1_weight=0.0,
            adversarial_weight=1.0,
            discriminator_width=16,
            learning_rate=1e-3,
            **learned,
        )
        for seen in (True, False)
    ]
    found, blind = (metrics.right_colours(map(way.translate, held), wanted) for way in ways)
    return Row(
        recipe="paired without L1",
        metric="share of coloured pixels with the right colour",
        found=found,
        without="the condition",
        other=blind,
        claim="0.8, and under 0.4 without",
        kept=found >= 0.8 and blind < 0.4,
        ways=ways,
    )


def unpaired(bench: Bench) -> Row:
    """Days and other nights; how the same day looks at night is known to us alone."""
    count = len(LEARNED)
    others = range(count, 2 * count)
    days = sets.write_pictures(bench.folder("days"), map(sets.day, LEARNED))
    nights = sets.write_pictures(bench.folder("nights"), (sets.night(sets.day(n)) for n in others))
    ways = [
        bench.train(
            "unpaired",
            steps=600,
            batch=2,
            cycle_weight=weight,
            learning_rate=1e-3,
            discriminator_rate=1e-3,
            discriminator_width=8,
            a=days,
            b=nights,
        )
        for weight in (10.0, 0.0)
    ]
    held = [sets.day(number) for number in HELD_OUT]
    wanted = [sets.night(picture) for picture in held]
    found, blind = (
        metrics.psnr(map(way.translate, held), wanted) - metrics.psnr(held, wanted) for way in ways
    )
    return Row(
        recipe="unpaired",
        metric="PSNR above that of the picture as it is",
        unit="dB",
        found=found,
        without="the cycle loss",
        other=blind,
        claim="6 dB, and less without",
        kept=found >= 6 > blind,
        ways=ways,
    )


def style(bench: Bench) -> Row:
    """The statistics of a painting: Gram matrices, computed here and not by the trainer."""
    way = bench.train(
        "style",
        steps=2000,
        imitate=0,
        match_weight=0.0,
        style_weight=1.0,
        temporal_weight=0.0,
        adversarial_weight=0.0,
        **_painting(bench),
    )
    held = [sets.shapes(number) for number in HELD_OUT]
    apart = metrics.StyleDistance(FEATURES, sets.painting(), STYLE_PX)
    found, start = apart(map(way.translate, held)), apart(held)
    return Row(
        recipe="style, statistics alone",
        metric="squared distance of Gram matrices",
        found=found,
        without="training",
        other=start,
        claim="a tenth",
        kept=found <= start / 10,
        ways=[way],
    )


def temporal(bench: Bench) -> Row:
    """A noisy camera goes over a still scene; flicker is measured with optical flow."""
    from tools.evaluation.flicker import flicker

    learned = _painting(bench)
    ways = [
        bench.train("style", steps=600, imitate=0, adversarial_weight=0.0, **learned, **changes)
        for changes in ({}, {"temporal_weight": 0.0})
    ]
    frames = sets.noisy_pan(CLIP_FRAMES)
    calm, nervous = (flicker(way.translate, frames).warping_error for way in ways)
    # A filter that does nothing is calm too.
    apart = metrics.StyleDistance(FEATURES, sets.painting(), STYLE_PX)
    held = [sets.shapes(number) for number in HELD_OUT]
    distances = [apart(map(way.translate, held)) for way in ways]
    return Row(
        recipe="style without imitation",
        metric="warping error",
        found=calm,
        without="the temporal loss",
        other=nervous,
        claim="30 % less",
        kept=calm <= 0.7 * nervous,
        ways=ways,
        beside={"squared distance of Gram matrices": [*distances, apart(held)]},
    )


PARTS: Final = {
    part.__name__: part for part in (known, texture, condition, unpaired, style, temporal)
}
NEED_FEATURES: Final = ("style", "temporal")


def why_not(part: str, features: Path = FEATURES) -> str:
    """Why a part cannot run here; empty when it can."""
    if part in NEED_FEATURES and not features.exists():
        return f"no feature net {features.name} beside the checkout"
    return ""


def show(row: Row) -> None:
    """Print one line of the table."""
    seconds = " + ".join(f"{way.seconds:.0f}" for way in row.ways)
    print(
        f"{row.recipe}: {row.metric}: {row.found:.3g} {row.unit}; without {row.without}"
        f" {row.other:.3g} ({row.difference}); claim {row.claim}:"
        f" {'kept' if row.kept else 'NOT KEPT'}; {row.ways[0].steps} steps, {seconds} CPU s",
        flush=True,
    )
    for name, values in row.beside.items():
        print(f"    {name}: {', '.join(f'{value:.3g}' for value in values)}", flush=True)


def run(
    parts: Sequence[str], path: Path | None, *, quick: bool = False, seed: int = 1
) -> list[Row]:
    """Run the parts one after the other, print each, and write all of them."""
    rows, skipped = [], {}
    for part in parts:
        reason = why_not(part)
        if reason:
            skipped[part] = reason
            print(f"{part}: skipped: {reason}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(PARTS[part](Bench(Path(folder), quick=quick, seed=seed)))
        show(rows[-1])
    if path is not None:
        found = {"seed": seed, "rows": [row.to_json() for row in rows], "skipped": skipped}
        save("learning", found, path)
    return rows


def _pairs(
    bench: Bench, make: Callable[[int], Picture], mapping: sets.Mapping
) -> tuple[dict[str, Path], list[Picture], list[Picture]]:
    """Write a set to learn from; return its settings, held-out inputs and their targets."""
    inputs, targets = sets.write_pairs(bench.folder("pairs"), make, mapping, LEARNED)
    held = [make(number) for number in HELD_OUT]
    wanted = [mapping(x, sets.random_of(n)) for n, x in zip(HELD_OUT, held)]
    return {"input": inputs, "target": targets}, held, wanted


def _painting(bench: Bench) -> dict[str, Any]:
    """Write a painting and what is to be painted; return the settings."""
    path = bench.folder("painting.png")
    sets.write_picture(path, sets.painting())
    content = sets.write_pictures(bench.folder("content"), map(sets.shapes, LEARNED))
    return {"content": content, "style": path, "style_px": STYLE_PX, "features": FEATURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="does it run? a few steps each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="[default: all parts: results/]")
    given = parser.parse_args()
    whole = given.only == list(PARTS) and not given.quick and given.seed == 1
    path = given.json or (RESULTS / "learning.json" if whole else None)
    try:
        run(given.only, path, quick=given.quick, seed=given.seed)
    except Pix2liveError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
