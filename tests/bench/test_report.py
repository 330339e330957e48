from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from bench.common.report import Report, median, percentile, spread

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([5.0], 99, 5.0, id="one"),
        pytest.param([float(n) for n in range(100, 0, -1)], 50, 50.0, id="median-unsorted"),
        pytest.param([float(n) for n in range(1, 101)], 99, 99.0, id="nearest-rank"),
        pytest.param([1.0, 2.0], 99, 2.0, id="few"),
        pytest.param([1.0, 2.0, 3.0], 0, 1.0, id="least"),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_nothing_measured_is_no_number() -> None:
    assert math.isnan(percentile([], 50))
    assert math.isnan(median([]))
    assert spread([]) == "nan (nan-nan)"


def test_a_spread_has_the_median_and_both_ends() -> None:
    assert spread([1.0, 1.5, 1.04]) == "1.04 (1.00-1.50)"


def test_a_report_is_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("name", "A title")
    report.table(("a", "b"), [(1, 2)])
    report.say("A sentence.")
    report.figures["raw"] = [1.25]
    path = tmp_path / "figures.json"
    report.publish(path)
    out = capsys.readouterr().out
    assert out.startswith("## A title\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nA sentence.\n\n")
    assert "load average" in out
    figures = json.loads(path.read_text())
    assert (figures["name"], figures["raw"]) == ("name", [1.25])
    assert "load average" in figures["machine"]
