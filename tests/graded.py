"""How tests grade: in this process, on as few checks as show a mistake.

A slow test grades every wrong loss on whole families of checks (test_conformance_grading.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from xent.conformance.checks import CHECKS
from xent.conformance.grading import grade
from xent.conformance.report import FAILED, NOT_OFFERED, PASSED, Record, Report, text

sys.path.insert(0, str(Path(__file__).parent))
from wrong_losses import WRONG, Wrong

BESIDE = {family: (family,) for family in ("value", "stable")}  # their mistakes are much alike
FEW = ("value.rows", "value.mean", "gradient.mean", "gradient.sum", "dtype.float32")


def of_family(family: str) -> pytest.MarkDecorator:
    """The wrong losses that a check of this family is written for."""
    own = [wrong for wrong in WRONG if wrong.check.startswith(f"{family}.")]
    assert own, family
    return pytest.mark.parametrize("wrong", own, ids=repr)


def examined(found: Any, *checks: str, seed: int, adapter: str | None = None) -> Report:
    return grade(found, adapter=adapter, seed=seed, checks=checks, isolate=False)


def record_of(report: Report, name: str) -> Record:
    return next(record for record in report.records if record.name == name)


def assert_caught(wrong: Wrong, seed: int, *more: str) -> None:
    """Its check fails, and the report leads with its cause."""
    checks = {wrong.check, *FEW, *BESIDE.get(wrong.check.partition(".")[0], ()), *more}
    report = examined(wrong.loss, *checks, seed=seed, adapter=wrong.adapter)
    record = record_of(report, wrong.check)
    assert record.status == FAILED, report.trouble or record.told()
    assert record.given
    assert record.expected
    assert record.obtained
    assert report.lead is not None
    assert report.lead.name == wrong.cause, text(report)
    assert wrong.check in report.lead.checks


def assert_passes(found: Any, *checks: str, seed: int, tier: str | None = None) -> None:
    report = examined(found, *checks, seed=seed)
    failed = [r.told() for r in report.of(FAILED) if tier in (None, r.tier)]
    assert not failed, "\n".join(failed)
    assert report.of(PASSED), report.trouble


assert CHECKS
assert NOT_OFFERED
