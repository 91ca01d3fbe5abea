"""What a right answer is, how far from it another one lies, and the grader: `grade`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`grade`, imported when it is asked for: the oracle alone needs none of it."""
    if name == "grade":
        from xent.conformance.grading import grade

        return grade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
