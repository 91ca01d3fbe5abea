"""Which rows, classes and languages can be told: everything here that raises an error."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from xent.errors import bad

LANGUAGES = ("en", "ko")


def language(lang: Any) -> str:
    """The language, if it is one of those that there are texts in."""
    if lang not in LANGUAGES:
        raise bad(ValueError, "explain", "lang", f"value {lang!r}", "'en' or 'ko'")
    return str(lang)


def count(name: str, value: Any) -> int:
    """How many rows or classes to show: at least one."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise bad(TypeError, "explain", name, f"type {type(value).__name__}", "an integer > 0")
    if value < 1:
        raise bad(ValueError, "explain", name, f"value {value}", "an integer > 0")
    return int(value)


def something(shape: tuple[int, ...]) -> None:
    """Raise where there is no row, or no class, to tell of."""
    if 0 in shape:
        raise bad(ValueError, "explain", "logits", f"shape {shape}", "a row and a class at least")


def known(name: str, names: tuple[str, ...]) -> None:
    """Raise where no step has a name."""
    if name not in names:
        raise KeyError(f"Explanation has no step {name!r}, but {', '.join(names)}")
