"""conformance/checks/record: there are enough checks, and each says what it is for."""

from __future__ import annotations

import re

from xent.conformance.causes import text_of
from xent.conformance.checks import AGREES, BETTER, CHECKS, SEVERITIES


def test_there_are_more_than_sixty() -> None:
    assert len(CHECKS) >= 60
    assert sum(c.linear for c in CHECKS.values()) >= 20


def test_each_says_what_it_is_for() -> None:
    for name, check in CHECKS.items():
        assert name == check.name
        assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", name)
        assert check.tier in (AGREES, BETTER)
        assert check.severity in SEVERITIES
        assert check.why.endswith("."), name
        assert check.hint


def test_causes_that_checks_name_have_words() -> None:
    from pathlib import Path

    import xent.conformance.checks as package

    quantities = {"loss", "dlogits", "dtarget", "hidden", "weight"}
    for path in Path(package.__file__).parent.glob("*.py"):
        for flaw in re.findall(r'\("([a-z_0-9]+)",\)', path.read_text()):
            assert flaw in quantities or text_of(flaw), (path.name, flaw)
