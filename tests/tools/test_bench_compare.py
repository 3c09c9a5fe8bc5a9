"""A bench beside itself, and shares of the roofline that cannot be."""

from __future__ import annotations

import copy
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_results import made_case, made_result, made_round, with_rooflines
from rich.console import Console

from tools.bench import results
from tools.bench.cli import bench
from tools.bench.compare import WHY_ABOVE, above_roofline, compare
from tools.bench.report import page
from tools.bench.results import Result, Roofline
from tools.bench.terminal import print_result


def said(result: Result, width: int = 80) -> list[str]:
    out = StringIO()
    print_result(result, Console(file=out, width=width))
    return out.getvalue().splitlines()


def with_share(share: float) -> Result:
    return made_result(made_case("openvino", 50, 51, 52, roofline=Roofline(share, "bytes")))


@pytest.mark.parametrize("again", ["a.json", "./a.json", "copy.json", "link.json", "spaced.json"])
def test_a_result_beside_itself_is_one_line(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results.write(Path("a.json"), with_rooflines())
    shutil.copy("a.json", "copy.json")
    Path("link.json").symlink_to("a.json")
    Path("spaced.json").write_text(json.dumps(json.loads(Path("a.json").read_text())))
    done = CliRunner().invoke(bench, ["--compare", "a.json", again])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "both are the same result, taken 2026-01-02T03:04:05+00:00: nothing to compare"
    ]


def test_results_that_differ_a_little_are_compared() -> None:
    before = with_rooflines()
    after = copy.deepcopy(before)
    assert compare(before, after).same
    after.cases[0].rounds[0] = made_round(50.001)
    found = compare(before, after)
    assert not found.same
    assert "figures changed" in found.summary()


def test_a_share_above_100_percent_is_marked_and_explained_once() -> None:
    lines = said(with_rooflines())
    (row,) = (line for line in lines if "120%" in line)
    assert "(!) 120%" in row
    (other,) = (line for line in lines if "83%" in line)
    assert "(!)" not in other
    assert lines.count(f"(!) more than 100 %: {WHY_ABOVE}") == 1


@pytest.mark.parametrize(("share", "marked"), [(0.99, False), (1.004, False), (1.006, True)])
def test_only_what_is_printed_as_more_is_marked(share: float, marked: bool) -> None:
    result = with_share(share)
    text = "\n".join(said(result))
    assert ("(!)" in text) == ("101%" in text) == marked
    assert bool(above_roofline(result.measured)) == marked


def test_a_comparison_warns_of_it_once() -> None:
    above = "comic 640x360 openvino f32"
    (warning,) = compare(with_share(0.9), with_share(1.2)).warnings
    assert warning == f"more than 100 % of the roofline: {above} in the second file: {WHY_ABOVE}"
    (warning,) = compare(with_share(1.3), with_share(1.2)).warnings
    assert f"{above} in the first file; {above} in the second file: " in warning
    assert compare(with_share(0.9), with_share(0.8)).warnings == []


def test_the_page_says_it_in_front() -> None:
    pytest.importorskip("matplotlib", reason="the page's plots need matplotlib")
    text = page(with_share(1.2))
    careful = text[text.index("Read with care") : text.index("<h2>")]
    assert "More than 100 % of the roofline: comic 640x360 openvino f32: " in careful
    assert "More than 100 % of the roofline" not in page(with_share(0.9))
