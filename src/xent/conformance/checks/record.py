"""What a check is, and the list that each family's file adds its own to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

AGREES, BETTER = "agrees with torch", "better than torch"
SEVERITIES = {1: "wrong", 2: "serious", 3: "limited", 4: "minor"}

Run = Callable[[Any, Any], None]  # a Subject and a NumPy generator


@dataclass(frozen=True)
class Check:
    """One thing that a right implementation does.

    `run` returns where it is done, and raises `findings.Fault` or `findings.NotOffered`.
    """

    name: str  # family.what
    severity: int  # 1: wrong numbers silently ... 4: minor
    tier: str
    why: str  # it matters in training
    hint: str  # the likely mistake, where the numbers name none
    run: Run
    linear: bool  # of linear heads alone

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]


CHECKS: dict[str, Check] = {}


def check(
    name: str, severity: int, why: str, hint: str, tier: str = AGREES, linear: bool = False
) -> Callable[[Run], Run]:
    """Add a function to the list."""

    def add(run: Run) -> Run:
        CHECKS[name] = Check(name, severity, tier, why, hint, run, linear)
        return run

    return add
