"""The file of a bench, its figures, and what changed between two."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import full_result, made_case, made_result, made_round

from engines import SettingsError, SinkError
from tools.bench import schema
from tools.bench.compare import BETTER, OTHER, WORSE, compare
from tools.bench.results import (
    FAILED,
    NOT_HERE,
    SCHEMA,
    Case,
    Difference,
    Result,
    Roofline,
    Spread,
    check_place,
    flags,
    read,
    write,
)
from tools.bench.terminal import reasons

BOARDS = Path(__file__).parent.parent.parent / "benchmarks" / "results" / "boards"


def test_a_file_is_what_was_written(tmp_path: Path) -> None:
    result = full_result()
    result.cases[0].roofline = Roofline(0.8, "bytes")
    write(tmp_path / "a.json", result)
    assert read(tmp_path / "a.json") == result
    raw = json.loads((tmp_path / "a.json").read_text())
    assert raw["schema"] == SCHEMA
    assert len(raw["cases"][0]["rounds"]) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def changed(tmp_path: Path, place: str, value: Any) -> str:
    """Write a result with one value changed (or removed); return what reading it says."""
    raw = json.loads(json.dumps({"schema": 1, "kind": "pix2live bench"}))
    raw |= schema.to_json(full_result())
    *way, last = [int(word) if word.isdigit() else word for word in place.split(".")]
    inner = raw
    for word in way:
        inner = inner[word]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(SettingsError) as caught:
        read(path)
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("cases.0.rounds_missing", -1, r"cases\[0\].rounds_missing must be 0 or more"),
        ("schema", 2, "schema 2, this pix2live reads 1"),
        ("kind", "a recipe", "no result of pix2live bench"),
        ("clip", KeyError, "clip is missing"),
        ("cases.1.size", [640], r"cases\[1\].size must be a list of 2, found \[640\]"),
        ("cases.1.size.0", "640", r"cases\[1\].size\[0\] must be a whole number, found '640'"),
        ("cases.0.open_s", True, r"cases\[0\].open_s must be a number, found True"),
        ("cases.0.rounds.2.live.fps", None, r"cases\[0\].rounds\[2\].live.fps must be a number"),
        ("cases.0.rounds.0.latency.p50_ms", float("nan"), "p50_ms must be a finite number"),
        ("cases.0.rounds.0.latency.p50_ms", 0, r"rounds\[0\]: figures must be more than 0"),
        ("cases.0.rounds.0.throughput.fps_steps", [5, 0], r"rounds\[0\]: figures must be more"),
        ("cases.0.rounds.0.live.ages_ms", [1.0], "must have 101 quantiles, found 1"),
        ("cases.0.rounds", [], r"cases\[0\] was measured, and has no rounds"),
        ("cases.0.rounds", {}, r"cases\[0\].rounds must be a list"),
        ("cases.0.status", "fine", "status must be one of measured"),
        ("cases.1.backend", "openvino", r"two cases of comic \(640, 360\) openvino f32"),
        ("cases.0", "nothing", r"cases\[0\] must be an object"),
        ("samples.0.t_s", "early", r"samples\[0\].t_s must be a number"),
        ("environment", [1], "environment must be an object"),
    ],
)
def test_a_damaged_file_is_refused_by_place_and_reason(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    import re

    found = changed(tmp_path, place, value)
    assert re.search(said, found), found


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(SettingsError, match=r"cannot read .*a\.json"):
        read(path)
    for text in ("", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(SettingsError, match="is no JSON"):
            read(path)
    path.write_text("[1, 2]")
    with pytest.raises(SettingsError, match="no result of pix2live bench"):
        read(path)


def test_fields_of_a_later_version_are_left_out() -> None:
    raw = schema.to_json(full_result()) | {"colour": "red"}
    raw["cases"][0]["mood"] = "good"
    assert schema.from_json(Result, raw) == full_result()


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=9))
def test_a_spread_holds_every_round(values: list[float]) -> None:
    found = Spread.of(values)
    assert found.least <= found.median <= found.most
    assert all(found.least <= value <= found.most for value in values)
    assert (found.share == 0) == (len(set(values)) == 1)


def test_noise_is_flagged() -> None:
    assert flags(made_case("openvino", 50, 52, 51)) == []
    (latency, throughput) = flags(made_case("openvino", 50, 52, 60))
    assert "differ by" in latency
    assert throughput == "the rounds differ by 19% in throughput"
    busy = [made_round(50, others_share=0.2, steal_share=0.1) for _ in range(3)]
    assert flags(made_case("openvino", rounds=busy)) == [
        "other programs took 20% of the processors",
        "the host took 10% of the processors",
    ]
    broken = Difference("onnxruntime:cpu f32", 3.0, 255.0, 99.0, 1.0, 3)
    assert flags(made_case("openvino", 50, difference=broken)) == [
        "100% of the pictures are broken"
    ]


def test_a_change_beyond_the_noise() -> None:
    before = made_result(made_case("openvino", 50, 51, 52, 50, 51))
    after = made_result(made_case("openvino", 60, 61, 62, 60, 61))
    found = compare(before, after)
    assert found.warnings == []
    changes = {item.figure: item for item in found.changes}
    assert changes["throughput, fps"].verdict == BETTER
    assert changes["throughput, fps"].ratio == pytest.approx(61 / 51)
    assert changes["latency p50, ms"].verdict == BETTER
    assert "live, fps" not in changes, "both show the source's 30"
    back = {item.figure: item.verdict for item in compare(after, before).changes}
    assert back["throughput, fps"] == back["age p50, ms"] == WORSE
    assert found.of_rounds == 6, "open, memory and PSNR are measured once"
    assert found.expected == pytest.approx(6 * 2 / 252)
    assert "(6 of the 9 are ranges of rounds; of those 0.0 would" in found.summary()
    assert found.summary().startswith(f"{len(found.changes)} figures changed")


def test_ranges_that_overlap_are_noise() -> None:
    before = made_result(made_case("openvino", 50, 51, 58))
    after = made_result(made_case("openvino", 57, 60, 61))
    found = compare(before, after)
    assert found.changes == []
    assert found.unchanged > 5
    assert "0 figures changed" in found.summary()


def test_what_is_measured_once_must_change_by_more() -> None:
    rounds = (50, 51, 52)
    before = made_result(made_case("openvino", *rounds))
    fatter = made_case("openvino", *rounds, memory_mb=300.0, open_s=0.52)
    fatter.difference = Difference("onnxruntime:cpu f32", 35.0, 9.0, 1.0, 0.0, 3)
    found = {item.figure: item.verdict for item in compare(before, made_result(fatter)).changes}
    assert found == {"memory, MB": WORSE, "PSNR, dB": OTHER}


@pytest.mark.parametrize(("then", "now"), [(1.0, 1.17), (1.0, 0.86), (1.0, 1.14), (1.0, 0.88)])
def test_what_is_measured_once_is_compared_alike_in_both_directions(
    then: float, now: float
) -> None:
    one, other = (made_result(made_case("openvino", 50, 51, open_s=it)) for it in (then, now))
    there = [item.verdict for item in compare(one, other).changes]
    back = [item.verdict for item in compare(other, one).changes]
    opposite = {BETTER: WORSE, WORSE: BETTER}
    assert back == [opposite[verdict] for verdict in there]
    assert bool(there) == (now in (1.17, 0.86)), "1 to 0.86 is as far as 0.86 to 1: 16 %"


def test_noisy_cases_are_said_before_the_comparison() -> None:
    quiet, noisy = made_case("openvino", 50, 51, 52), made_case("torch:cpu", 50, 52, 60)
    part = made_case("openvino", 50, 51, 52, rounds_missing=2)
    off = "their numbers may be off"
    warnings = compare(made_result(quiet, noisy), made_result(part, noisy)).warnings
    assert warnings == [
        "noisy: 1 of 2 cases in the first file, 1 of 2 cases in the second file: " + off,
        "in part: 1 of 2 cases in the second file: they were interrupted before their last round",
    ]


def test_what_cannot_run_here_is_in_one_list_only() -> None:
    never = Case("comic", "a" * 64, (64, 48), "openvino", "f16", NOT_HERE, "no f16")
    waits = Case("comic", "a" * 64, (32, 24), "openvino", "f16")
    other = Case("comic", "a" * 64, (32, 24), "openvino", "bf16")
    assert reasons(made_result(never, waits, other, finished=False)) == {
        "no f16": ["openvino f16"],
        "not finished before it was interrupted": ["comic 32x24 openvino bf16"],
    }


def test_files_that_cannot_be_compared_say_so() -> None:
    before = made_result(made_case("openvino", 50, 51), made_case("torch:cpu", 5, 5))
    after = made_result(made_case("openvino", 50, 51, filter_sha256="c" * 64))
    after.environment = {"cpu": "Another", "cpus": 4, "packages": {"openvino": "2027.0"}}
    after.clip = dataclasses.replace(after.clip, sha256="d" * 64)
    after.settings.seconds = 1.0
    after.finished = False
    after.throttled = ["GPU: power limit"]
    warnings = "\n".join(compare(before, after).warnings)
    for said in (
        "another processor: A Processor, then Another",
        "another openvino: 2026.1, then 2027.0",
        "another clip: bbbbbbbbbbbb, then dddddddddddd",
        "another --seconds: 10.0, then 1.0",
        "the second was interrupted",
        "the second was throttled: GPU: power limit",
        "the filter's file is another one",
        "measured in the first file only: comic 640x360 torch:cpu f32",
        "2 rounds are too few",
    ):
        assert said in warnings, said


def test_results_of_boards_can_be_read() -> None:
    """Those that people sent: CONTRIBUTING says where they go."""
    for path in sorted(BOARDS.glob("*.json")):
        result = read(path)
        assert result.measured, path
        assert result.finished, path


def test_nothing_in_common() -> None:
    found = compare(made_result(made_case("openvino", 50)), made_result())
    assert found.summary() == "no case is in both files"


def test_a_case_that_failed_half_way_has_no_figures() -> None:
    case = made_case("openvino", 50, status=FAILED, reason="it crashed")
    assert made_result(case).measured == []
    later = made_result(case, taken="2026-01-03T03:04:05+00:00")
    assert compare(made_result(case), later).summary() == "no case is in both files"


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    check_place(tmp_path / "a.json")
    with pytest.raises(SinkError, match="does not exist; mkdir"):
        check_place(tmp_path / "nowhere" / "a.json")
    with pytest.raises(SinkError, match="is a folder"):
        check_place(tmp_path)


def test_cases_are_the_same_by_what_was_asked_for() -> None:
    one, other = Case("a", "1", (1, 2), "x", "f32"), Case("a", "2", (1, 2), "x", "f32")
    assert one.key == other.key
