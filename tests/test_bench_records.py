"""bench/records.py: the statistics, and JSON there and back."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xent.bench import records

sys.path.insert(0, str(Path(__file__).parent))
import bench_report

# What version 1 has; a change of these is another version.
FIELDS = {
    records.Spread: "median min max",
    records.Check: "case peer threads quantity subject loss gradient passed first_seconds",
    records.Measurement: "case peer threads quantity rounds ratio floors seconds cpu_seconds calls "
    "waited",
    records.Memory: "case subject quantity logits",
    records.Omission: "peer case threads reason failed",
    records.Report: "date settings machine software allocator load checks measurements memory "
    "omissions version",
}


@pytest.mark.parametrize("record", FIELDS, ids=lambda record: record.__name__)
def test_version_1_has_these_fields(record: Any) -> None:
    assert records.VERSION == 1
    assert [field.name for field in dataclasses.fields(record)] == FIELDS[record].split()


def test_a_report_comes_back_from_its_json() -> None:
    report = bench_report.report()
    text = report.as_json()
    assert records.read(text) == report
    lines = text.splitlines()
    assert sum(line.startswith('  {"case"') for line in lines) == 6 + 6 + 3
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"version": 2}'])
def test_what_is_no_report_gives_none(text: str) -> None:
    assert records.read(text) is None


def test_processor_times_come_back() -> None:
    one = bench_report.timed("8x10-float32", "torch", "forward", 2.0, sum=1.0)
    one = dataclasses.replace(one, cpu_seconds={"xent": records.Spread(1.0, 1.0, 2.0)})
    assert records.made("measurements", json.loads(json.dumps(dataclasses.asdict(one)))) == one


def test_a_spread_is_the_median_and_the_ends(rng: np.random.Generator) -> None:
    for count in (1, 2, 7, 8):
        values = rng.lognormal(size=count)
        found = records.spread(values.tolist())
        expected = np.median(values), values.min(), values.max()
        np.testing.assert_allclose((found.median, found.min, found.max), expected, rtol=5.1e-4)


def test_ratios_are_of_the_same_round() -> None:
    """The machine slows in the second round, for both: the ratio stays."""
    assert records.ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == records.Spread(2.0, 2.0, 2.0)


def test_rounds_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        records.ratios([1.0, 2.0], [1.0])


def test_a_report_passes_where_nothing_failed() -> None:
    report = bench_report.report()
    assert not report.passed
    report.checks = [check for check in report.checks if check.passed]
    assert not report.passed
    report.omissions = [omission for omission in report.omissions if not omission.failed]
    assert report.omissions
    assert report.passed
