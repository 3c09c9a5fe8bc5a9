"""Write the numbers of the README and of docs/performance.md: `python -m benchmarks.performance`.

And docs/boards.md, see `benchmarks.boards`. All are made from the result files alone; a test fails
where they differ from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import boards, common
from benchmarks.markdown import row, table

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
BEGINS = "<!-- numbers: made by python -m benchmarks.performance -->"
ENDS = "<!-- end of the numbers -->"

Results = dict[str, Any]


def read_results() -> dict[str, Results]:
    """Return every result by the name of its benchmark."""
    paths = sorted(common.RESULTS.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def live(found: Results) -> list[str]:
    """Return the live path: ages and drops from a paced source."""
    rows = [
        ("`comic`", "live, comic"),
        ("no filter (identity): the path itself", "live, identity engine"),
    ]
    lines = table("live, 30 fps source, null sink, 20 s", "fps", "dropped", "age p50", "p95", "p99")
    for name, key in rows:
        run, age = found[key], found[key]["age"]
        ages = [f"{age[f'p{percent}_ms']:.1f} ms" for percent in (50, 95, 99)]
        lines.append(row(name, f"{run['fps']:.1f}", run["dropped"], *ages))
    return lines


def against_bare(found: Results) -> list[str]:
    """Return the whole path beside the bare engine."""
    lines = table("as fast as it goes, 640x360", "fps (least to most)", "pix2live / it")
    names = {"whole path": "pix2live, file to null sink", "bare loop": "bare OpenVINO, one request",
             "bare queue": "bare OpenVINO, its parallel queue"}  # fmt: skip
    for key, fps in found["fps"].items():
        way, _, precision = key.partition(", ")
        whole = f"whole path, {precision}" if precision else "whole path"
        share = found.get(f"{whole} / {key}")
        name = f"{names[way]}, {precision or found['precision']}"
        lines.append(row(name, spread(fps), "" if share is None else f"{share:.2f}"))
    return lines


def today(found: Results) -> list[str]:
    """Return what people use today, with the same weights on the same clip."""
    filters: dict[str, Results] = found["filters"]
    ways = list(dict.fromkeys(way for each in filters.values() for way in each["fps"]))
    lines = table("fps (least to most), 640x360", *ways)
    for name, each in filters.items():
        cells = [spread(each["fps"][way], 0) if way in each["fps"] else "" for way in ways]
        lines.append(row(f"`{name}`", *cells))
    pairs = list(dict.fromkeys(pair for each in filters.values() for pair in each["ratios"]))
    lines += ["", *table("ratios, medians of the rounds", *pairs)]
    for name, each in filters.items():
        cells = [f"{each['ratios'][pair]:.2f}" if pair in each["ratios"] else "" for pair in pairs]
        lines.append(row(f"`{name}`", *cells))
    return lines


def today_in_short(found: Results) -> list[str]:
    """Return the same of three filters: the default one, the fastest and one of the others."""
    filters: dict[str, Results] = found["filters"]
    shown = {name: filters[name] for name in ("comic", "neon", "wave") if name in filters}
    lines = table("640x360, the same weights, fps", *(f"`{name}`" for name in shown))
    ways = dict.fromkeys(way for each in shown.values() for way in each["fps"])
    for way in ways:
        cells = [f"{each['fps'][way]['median']:.0f}" if way in each["fps"] else ""
                 for each in shown.values()]  # fmt: skip
        lines.append(row(way, *cells))
    return lines


def scaling(found: Results) -> list[str]:
    """Return what pixels and channels cost."""
    pixels, width = found["by pixels"], found["by width"]
    lines = table(f"`{pixels['filter']}`, {pixels['precision']}", "ms a frame (least to most)",
                  "fps", "megapixels a second")  # fmt: skip
    for size, cost in pixels["sizes"].items():
        rate = f"{cost['megapixels a second']:.1f}"
        lines.append(row(size, spread(cost["ms"]), f"{cost['fps']:.1f}", rate))
    head = f"channels, {width['blocks']} blocks, {width['size']}, {width['precision']}"
    lines += ["", *table(head, "ms a frame (least to most)", "fps", "10⁹ multiply-adds a second")]
    for channels, cost in width["channels"].items():
        rate = cost["giga multiply-adds a second"]
        lines.append(row(channels, spread(cost["ms"]), f"{cost['fps']:.0f}", rate))
    return lines


def speed(found: Results) -> list[str]:
    """Return the bare engines that speed.md tells of."""
    lines = table("bare engine, one frame at a time", "ms a frame (least to most)", "fps")
    for name, ms in found["ms a frame"].items():
        lines.append(row(name, spread(ms, 2), f"{found['fps'][name]:.1f}"))
    lines += ["", *table("ratios of fps", "")]
    lines += [row(name, f"{ratio:.2f}") for name, ratio in found["ratios"].items()]
    return lines


def networks(found: Results) -> list[str]:
    """Return the bare engines: every network, size, backend and precision that ran."""
    ways: list[str] = []
    rows: dict[str, dict[str, float]] = {}
    for network in found["networks"]:
        name = f"{network['network']}, {'x'.join(map(str, network['size']))}"
        for item in network["rows"]:
            if "serial" in item:
                way = f"{item['backend']} {item['precision']}"
                ways += [] if way in ways else [way]
                rows.setdefault(name, {})[way] = item["serial"]["fps"]["median"]
    lines = table("bare engine, fps, one frame at a time, copies included", *ways)
    for name, fps in rows.items():
        lines.append(row(name, *(f"{fps[way]:.1f}" if way in fps else "" for way in ways)))
    return lines


def browser(found: Results) -> list[str]:
    """Return what the page measured."""
    head = "in Chromium on the same two cores, 640x360"
    lines = table(head, "fps shown", "camera to screen p50", "p95")
    for key, name in (("websocket", "WebSocket"), ("webrtc", "WebRTC")):
        trip = [
            f"{found[key][f'round_trip_{part}_ms']['median']:.0f} ms" for part in ("p50", "p95")
        ]
        lines.append(row(name, f"{found[key]['fps']['median']:.0f}", *trip))
    most = found["watcher_percent_of_a_core"]["max"]
    more = [f"In the worst round an added watcher took {most:.1f} % of a core."]
    if (visits := found.get("visits")) is not None:
        (before, after), (had, has) = visits["threads"], visits["handles"]
        more.append(
            f"After {visits['visits']} pages that came and went: {after} threads (before {before}),"
            f" {has} handles (before {had})."
        )
        curve = visits["memory_mb_after_visit"]
        numbers = ", ".join(f"{memory:.0f}" for memory in curve.values())
        more.append(f"The server's memory after {', '.join(curve)} of them: {numbers} MB.")
    if (memory := found.get("memory")) is not None:
        more.append(
            f"Memory over {memory['minutes']:.0f} minutes: {memory['first_third_mb']:.0f} MB in the"
            f" first third, {memory['last_third_mb']:.0f} MB in the last."
        )
    return [*lines, "", *more]


def queues(found: Results) -> list[str]:
    """Return what a hop costs."""
    lines = table("a queue hop, p50 of each round", "µs (least to most)")
    for name, figures in found["p50_us of each round"].items():
        lines.append(row(name, spread(figures, 1)))
    return lines


def streams(found: Results) -> list[str]:
    """Return several streams on one compiled filter."""
    lines = table("streams on one compiled filter", "sum of fps (least to most)", "of one stream")
    for name, fps in found["sum of fps"].items():
        ratio = found.get(f"{name} / one stream")
        lines.append(row(name, spread(fps), "" if ratio is None else f"{ratio:.2f}"))
    return lines


def switching(found: Results) -> list[str]:
    """Return the gaps of switches."""
    lines = table("100 switches at 30 fps", "longest gap", "out of order", "memory at 10, 100")
    for key, name in (("switch", "at once"), ("cross-fade", "with a cross-fade of 200 ms")):
        run, memory = found[key], found[key]["memory_mb"]
        held = f"{memory['after switch 10']:.0f}, {memory['after switch 100']:.0f} MB"
        gap = f"{run['longest_gap_ms']:.0f} ms"
        lines.append(row(name, gap, run["out of order or twice"], held))
    return lines


def conversion(found: Results) -> list[str]:
    """Return what conversion takes."""
    parameters = f"{found['parameters'] / 1e6:.0f} million parameters to TensorRT-RTX, no GPU"
    lines = table(parameters, "seconds", "peak memory")
    for key in ("build alone, 640x360", "pix2live convert, 256x256"):
        run = found[key]
        seconds, peak = run["seconds"]["median"], run["peak_gb"]["median"]
        lines.append(row(key, f"{seconds:.1f}", f"{peak:.1f} GB"))
    return lines


SECTIONS: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "overhead": ("The live path", live),
    "overhead ": ("The whole path and the bare engine", against_bare),
    "people_do_today": ("What people use today", today),
    "people_do_today ": ("", today_in_short),
    "speed": ("Near to the limit", speed),
    "scaling": ("Pixels and channels", scaling),
    "engines": ("Engines", networks),
    "browser": ("In the browser", browser),
    "streams": ("Several streams", streams),
    "switching": ("Switching", switching),
    "queues": ("Queues", queues),
    "conversion": ("Conversion", conversion),
}
"""Benchmark (with a space where one has two sections) -> title and what writes it; without a title
it is for the README only."""
IN_README = ("overhead", "overhead ", "people_do_today ", "engines", "browser")


def page(results: dict[str, Results]) -> str:
    """Return docs/performance.md."""
    lines = ["# Performance", ""]
    lines += ["Made by `python -m benchmarks.performance` from the files in `benchmarks/results/`;"]
    lines += ["[CONTRIBUTING.md](../CONTRIBUTING.md) says how to add the result of a board. Every"]
    lines += ["table is of one run; ratios are medians of the ratios of each round.", ""]
    for key, (title, write) in SECTIONS.items():
        if title and (found := results.get(key.strip())) is not None:
            lines += [f"## {title}", "", *write(found), "", taken(key.strip(), found), ""]
    return "\n".join(lines)


def numbers(results: dict[str, Results]) -> str:
    """Return the README's block, with its marks."""
    lines = [BEGINS, ""]
    for key in IN_README:
        if (found := results.get(key.strip())) is not None:
            lines += [*SECTIONS[key][1](found), ""]
    return "\n".join([*lines, ENDS])


def taken(name: str, found: Results) -> str:
    """Return when, and on what, a result was taken."""
    machine = found["environment"]
    packages = machine["packages"]
    return (
        f"`python -m benchmarks.{name}`, {found['taken'][:10]}, commit {machine['commit'][:12]},"
        f" {machine['cpus']} cores of {machine['cpu']}, OpenVINO {packages.get('openvino')},"
        f" ONNX Runtime {packages.get('onnxruntime')}, PyTorch {packages.get('torch')}."
    )


def replaced(readme: str, block: str) -> str:
    """Return the README with another block of numbers."""
    before, rest = readme.split(BEGINS)
    return before + block + rest.split(ENDS)[1]


def spread(figures: dict[str, float], digits: int = 1) -> str:
    """Return median, least and most."""
    middle, least, most = (f"{figures[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({least} to {most})"


def main() -> None:
    results = read_results()
    PAGE.write_text(page(results), encoding="utf-8")
    README.write_text(
        replaced(README.read_text(encoding="utf-8"), numbers(results)), encoding="utf-8"
    )
    boards.write()


if __name__ == "__main__":
    main()
