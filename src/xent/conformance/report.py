"""A Report: what every check found, the causes of what is wrong, a score for each tier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xent.conformance import causes
from xent.conformance.causes import Cause

PASSED, FAILED, NOT_OFFERED, NOT_RUN = "passed", "failed", "not offered", "not run"
TIERS = ("agrees with torch", "better than torch")
SEVERITIES = {1: "wrong", 2: "serious", 3: "limited", 4: "minor"}
VERSION = 1  # of the JSON


@dataclass(frozen=True)
class Record:
    """What one check found."""

    name: str
    tier: str
    severity: int
    status: str
    why: str
    hint: str
    given: str = ""  # the smallest input that shows it
    expected: str = ""
    obtained: str = ""
    note: str = ""
    flaws: tuple[str, ...] = ()
    seconds: float = 0.0

    def told(self) -> str:
        """The failure in words."""
        if self.status != FAILED:
            return f"{self.name}: {self.status}" + (f": {self.note}" if self.note else "")
        lines = [
            f"{self.name} ({SEVERITIES[self.severity]}, {self.tier})",
            f"  input     {self.given}",
            f"  expected  {self.expected}",
            f"  obtained  {self.obtained}" + (f" ({self.note})" if self.note else ""),
            f"  why       {self.why}",
            f"  hint      {self.hint}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What was graded, how it was called, and what was found."""

    target: str
    adapter: str
    adapter_why: str
    seed: int
    versions: dict[str, str]
    records: tuple[Record, ...]
    offered: tuple[str, ...] = ()
    trouble: str = ""  # why it could not be graded
    seconds: float = 0.0
    date: str = ""
    causes: tuple[Cause, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = causes.ranked(record for record in self.records if record.status == FAILED)
        object.__setattr__(self, "causes", tuple(found))

    def of(self, status: str, tier: str | None = None) -> list[Record]:
        """The records of a status."""
        return [r for r in self.records if r.status == status and tier in (None, r.tier)]

    def score(self, tier: str) -> tuple[int, int]:
        """Checks passed, of those that apply."""
        passed, failed = len(self.of(PASSED, tier)), len(self.of(FAILED, tier))
        return passed, passed + failed

    @property
    def lead(self) -> Cause | None:
        """The cause that explains most of what is wrong."""
        return self.causes[0] if self.causes else None

    def status(self, strict: bool = False) -> int:
        """0: passes, 1: falls short, 2: could not be graded. Strict: in the second tier too."""
        if self.trouble or not (self.of(PASSED) or self.of(FAILED)):
            return 2
        short = self.of(FAILED) if strict else self.of(FAILED, TIERS[0])
        return 1 if short or self.of(NOT_RUN) else 0

    def as_json(self) -> str:
        """One JSON object; its keys are the fields here."""
        made: dict[str, Any] = {"version": VERSION, **asdict(self)}
        made["scores"] = {tier: self.score(tier) for tier in TIERS}
        made["status"] = self.status()
        return json.dumps(made, indent=1, allow_nan=False)


def summary(report: Report) -> list[str]:
    """The head of a report: what, how, scores."""
    taken = ", ".join(report.offered) or "no option"
    lines = [f"graded   {report.target}"]
    if report.adapter:
        lines.append(f"adapter  {report.adapter}: {report.adapter_why}; takes {taken}")
    lines.append(f"seed     {report.seed}")
    named = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines.append(f"with     {named}")
    if report.trouble:
        return [*lines, "", f"It could not be graded: {report.trouble}"]
    return [*lines, "", *scores(report)]


def scores(report: Report) -> list[str]:
    """A line for each tier."""
    lines = []
    for tier in TIERS:
        passed, of = report.score(tier)
        lines.append(f"{tier}  {passed} of {of}")
    absent = len(report.of(NOT_OFFERED))
    if absent:
        lines.append(f"not offered        {absent}")
    if report.of(NOT_RUN):
        lines.append(f"not run            {len(report.of(NOT_RUN))}")
    return lines


def told_causes(found: Sequence[Cause]) -> list[str]:
    """Causes in words, each with the checks that it explains."""
    return [f"{cause.text}\n  explains {', '.join(cause.checks)}" for cause in found]


def text(report: Report) -> str:
    """The whole report, plain."""
    parts = ["\n".join(summary(report))]
    if report.causes:
        parts.append("Causes, the first explains most")
        parts += told_causes(report.causes)
        parts.append("Findings, for each the smallest input that shows it")
        order = sorted(report.of(FAILED), key=lambda r: (TIERS.index(r.tier), r.severity))
        parts += [record.told() for record in order]
    missing = [f"  {r.name}: {r.note}" for r in report.of(NOT_OFFERED) + report.of(NOT_RUN)]
    if missing:
        parts.append("Not offered, and no failure\n" + "\n".join(missing))
    return "\n\n".join(parts) + "\n"
