"""The numbers of README and docs/performance.md are those of the result files."""

from __future__ import annotations

import json

from benchmarks import boards, performance


def test_the_numbers_are_those_of_the_results() -> None:
    results = performance.read_results()
    again = "run: python -m benchmarks.performance"
    assert performance.PAGE.read_text(encoding="utf-8") == performance.page(results), again
    readme = performance.README.read_text(encoding="utf-8")
    assert readme == performance.replaced(readme, performance.numbers(results)), again


def test_the_edge_table_is_that_of_the_boards() -> None:
    found = boards.read_boards()
    assert found, "the table is empty"
    assert boards.PAGE.read_text(encoding="utf-8") == boards.page(found)
    for result in found.values():
        result.measured[0].rounds[0].throughput.fps += 1e3
    assert boards.PAGE.read_text(encoding="utf-8") != boards.page(found)


def test_other_results_are_other_numbers() -> None:
    results = performance.read_results()
    changed = json.loads(json.dumps(results))
    changed["overhead"]["live, comic"]["age"]["p95_ms"] += 7
    assert performance.page(changed) != performance.page(results)
    assert performance.numbers(changed) != performance.numbers(results)


def test_a_result_that_is_missing_is_left_out() -> None:
    results = performance.read_results()
    del results["queues"]
    assert "## Queues" not in performance.page(results)
    assert "## Engines" in performance.page(results)
