"""How a check ends when it does not pass: by one of these two exceptions."""

from __future__ import annotations

from typing import Any


class NotOffered(Exception):
    """The implementation has not got what the check is about."""


class Fault(Exception):
    """The implementation is wrong: on which input, what was expected, what came, and why."""

    def __init__(
        self,
        given: str,
        expected: str,
        obtained: str,
        flaws: tuple[str, ...] = (),
        note: str = "",
    ) -> None:
        super().__init__(f"{given}: expected {expected}, obtained {obtained}")
        self.given, self.expected, self.obtained = given, expected, obtained
        self.flaws, self.note = flaws, note


def raised(error: BaseException) -> str:
    """An exception in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SystemExit):
        return f"sys.exit({first})"
    return f"{type(error).__name__}: {first}"[:300] if first else type(error).__name__


def decline(what: str) -> Any:
    raise NotOffered(what)
