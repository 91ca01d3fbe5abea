"""conformance/report: scores, exit status, words and JSON."""

from __future__ import annotations

import json

import pytest

from xent.conformance.report import Record, Report, text

AGREES, BETTER = "agrees with torch", "better than torch"


def record(name: str, status: str, tier: str = AGREES, **more: object) -> Record:
    return Record(name, tier, 1, status, "It matters.", "do it right", **more)


FAILED = record("value.mean", "failed", given="x", expected="1", obtained="2", flaws=("sign",))
PASSED = record("value.rows", "passed")
SHORT = record("accuracy.tiny_loss", "failed", BETTER, given="y", expected="3", obtained="0")
ABSENT = record("value.sum", "not offered", note="no reduction 'sum'")
LATE = record("value.sum", "not run", note="too many ends")


def report(*records: Record, **more: str) -> Report:
    return Report("a:b", "torch", "why", 7, {"xent": "1"}, records, ("weight",), **more)


@pytest.mark.parametrize(
    ("records", "status", "strict"),
    [
        ((PASSED,), 0, 0),
        ((PASSED, ABSENT), 0, 0),
        ((PASSED, SHORT), 0, 1),
        ((PASSED, FAILED), 1, 1),
        ((PASSED, LATE), 1, 1),
        ((ABSENT,), 2, 2),
        ((), 2, 2),
    ],
)
def test_status(records: tuple, status: int, strict: int) -> None:
    assert report(*records).status() == status
    assert report(*records).status(strict=True) == strict
    assert report(*records, trouble="no such file").status() == 2


def test_scores_and_causes() -> None:
    made = report(PASSED, FAILED, SHORT, ABSENT)
    assert made.score(AGREES) == (1, 2)
    assert made.score(BETTER) == (0, 1)
    assert made.lead is not None
    assert made.lead.name == "sign"
    assert report(PASSED).lead is None


def test_words() -> None:
    told = text(report(PASSED, SHORT, FAILED, ABSENT))
    assert told.index("value.mean (wrong, agrees") < told.index("accuracy.tiny_loss (wrong, better")
    for line in (
        "graded   a:b",
        "adapter  torch: why; takes weight",
        "seed     7",
        "agrees with torch  1 of 2",
        "not offered        1",
        "the sign is flipped: the loss is minus log p\n  explains value.mean",
        "  expected  1\n  obtained  2\n  why       It matters.\n  hint      do it right",
        "  value.sum: no reduction 'sum'",
    ):
        assert line in told
    assert "It could not be graded: no such file" in text(report(trouble="no such file"))


def test_json() -> None:
    made = json.loads(report(PASSED, FAILED).as_json())
    assert made["version"] == 1
    assert made["status"] == 1
    assert made["scores"] == {AGREES: [1, 2], BETTER: [0, 0]}
    assert made["causes"][0]["checks"] == ["value.mean"]
    assert made["records"][1]["expected"] == "1"
