"""The edge table, docs/boards.md: `python -m benchmarks.boards`.

Made from the results of `pix2live bench` in benchmarks/results/boards/ alone, a file a board; a
test fails where it differs from them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import common
from benchmarks.markdown import row, table
from tools.bench import results
from tools.bench.results import SPREAD_LIMIT, Case, Result, Spread, flags
from tools.bench.terminal import dropped_share, machine_lines, psnr_words

BOARDS: Final = common.RESULTS / "boards"
PAGE: Final = common.RESULTS.parent.parent / "docs" / "boards.md"
HEADS: Final = (
    "engine fps (least to most)", "latency p50", "live fps", "age p50", "p95", "dropped",
    "of the roofline", "PSNR dB",
)  # fmt: skip

INTRODUCTION: Final = """\
# The edge table

Made by `python -m benchmarks.boards` from the files in `benchmarks/results/boards/`.
[CONTRIBUTING.md](../CONTRIBUTING.md) says how to add yours: one command, one file.
[bench.md](bench.md) says what the columns mean and how they are measured. All are
medians of the rounds, each of its own, but for *dropped*, which is of all frames, and
the least and the most beside the engine's fps. *same*: not one value differs from the
reference, which is ONNX Runtime in f32.
"""


def read_boards() -> dict[str, Result]:
    """Return every result by its board's name."""
    return {path.stem: results.read(path) for path in sorted(BOARDS.glob("*.json"))}


def page(boards: dict[str, Result]) -> str:
    """Return docs/boards.md."""
    lines = [INTRODUCTION]
    lines += ["| board | processors | filters | measured |", "|---|---|---|---|"]
    for name, result in boards.items():
        filters = ", ".join(
            f"`{item}`" for item in dict.fromkeys(x.filter for x in result.measured)
        )
        what = machine_lines(result)[0]
        lines.append(row(f"[{name}](#{name})", what, filters, result.taken[:10]))
    for name, result in boards.items():
        lines += ["", f"## {name}", "", *about(result)]
        for (filter_, size), cases in result.groups().items():
            measured = [case for case in cases if case in result.measured]
            if measured:
                head = f"`{filter_}`, {'x'.join(map(str, size))}"
                lines += ["", *table(head, *HEADS), *(figures(case) for case in measured)]
    return "\n".join([*lines, ""])


def about(result: Result) -> list[str]:
    """Return what a board is, and what to know of its figures."""
    packages = result.environment["packages"]
    known = ("openvino", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch")
    versions = ", ".join(f"{name} {packages[name]}" for name in known if name in packages)
    lines = [*(f"{line}  " for line in machine_lines(result)), f"{versions}  "]
    lines += [f"power of {name}: {watts}  " for name, watts in power(result)]
    if noisy := [case for case in result.measured if flags(case)]:
        lines.append(
            f"\\*: noisy, {len(noisy)} of {len(result.measured)} cases: the rounds differ by more"
            f" than {SPREAD_LIMIT:.0%}, or others used the processors (see the file); trust the"
            " ranges  "
        )
    lines += [f"throttled: {reason}  " for reason in result.throttled]
    return lines


def power(result: Result) -> Iterator[tuple[str, str]]:
    """Yield what drew how much power over the whole bench, where a sensor said so."""
    for key in dict.fromkeys(key for sample in result.samples for key in sample):
        if key.endswith("power_w"):
            watts = Spread.of([sample[key] for sample in result.samples if key in sample])
            what = key.removesuffix("_w").replace("_", " ")
            yield what, f"{watts.median:.1f} W ({watts.least:.1f} to {watts.most:.1f})"


def figures(case: Case) -> str:
    """Return a case as a row."""

    def median(values: list[float], unit: str = " ms") -> str:
        return f"{statistics.median(values):.1f}{unit}"

    fps = Spread.of(case.values(lambda item: item.throughput.fps))
    share = case.roofline.share if case.roofline is not None else None
    return row(
        case.label + (" \\*" if flags(case) else ""),
        f"{fps.median:.1f} ({fps.least:.1f} to {fps.most:.1f})",
        median(case.values(lambda item: item.latency.p50_ms)),
        median(case.values(lambda item: item.live.fps), ""),
        median(case.values(lambda item: item.live.p50_ms)),
        median(case.values(lambda item: item.live.p95_ms)),
        f"{dropped_share(case):.0%}",
        "" if share is None else f"{share:.0%}",
        psnr_words(case),
    )


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(read_boards()), encoding="utf-8")


if __name__ == "__main__":
    write()
