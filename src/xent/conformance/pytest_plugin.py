"""A pytest plugin: every check of an implementation becomes a test.

    # conftest.py
    pytest_plugins = ["xent.conformance.pytest_plugin"]

    # test_my_loss.py
    @pytest.mark.xent_grade("my_loss:cross_entropy")
    def test_my_loss(xent_check):
        xent_check()

The marker takes what `grade` takes; `better=True` has the checks that torch fails as tests too. A
test fails with what was found and why it matters, and is skipped where nothing is offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # a run without the marker imports none of the grader
    from xent.conformance.report import Record, Report

MARKER = "xent_grade"
_REPORTS = pytest.StashKey[dict[str, "Report"]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tell the marker, so that it is known where markers are strict."""
    told = "xent_grade(target, *, adapter, seed, checks, timeout, isolate, better): grade a loss"
    config.addinivalue_line("markers", told)
    config.stash[_REPORTS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each check."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if "xent_check" not in metafunc.fixturenames or marker is None:
        return
    from xent.conformance.checks import CHECKS
    from xent.conformance.grading import chosen
    from xent.conformance.report import TIERS

    names = [
        name
        for name in chosen(marker.kwargs.get("checks"))
        if marker.kwargs.get("better") or CHECKS[name].tier == TIERS[0]
    ]
    metafunc.parametrize("xent_check", names, indirect=True)


@pytest.fixture
def xent_check(request: pytest.FixtureRequest) -> Callable[[], Record]:
    """Call it, and the test passes, fails or is skipped as the check did."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None or not marker.args:
        raise pytest.UsageError("xent_check needs the marker xent_grade(target)")
    from xent.conformance.report import FAILED, PASSED

    report = _report(request.config, request.node, marker)
    name = request.param

    def check() -> Record:
        if report.trouble:
            pytest.fail(f"it could not be graded: {report.trouble}", pytrace=False)
        record = next((r for r in report.records if r.name == name), None)
        if record is None:
            pytest.skip("of linear heads alone")
        if record.status == FAILED:
            pytest.fail(_told(report, record), pytrace=False)
        if record.status != PASSED:
            pytest.skip(f"{record.status}: {record.note}")
        return record

    return check


def _told(report: Report, record: Record) -> str:
    cause = next(c for c in report.causes if record.name in c.checks)
    return f"{cause.text}\n{record.told()}\n  seed      {report.seed}"


def _report(config: pytest.Config, node: Any, marker: pytest.Mark) -> Report:
    """Graded once for all of its tests, whichever of them comes first."""
    from xent.conformance.grading import grade

    key = f"{node.nodeid.partition('[')[0]} {marker.args} {marker.kwargs}"
    reports = config.stash[_REPORTS]
    if key not in reports:
        options = {k: v for k, v in marker.kwargs.items() if k != "better"}
        reports[key] = grade(marker.args[0], **options)
    return reports[key]
