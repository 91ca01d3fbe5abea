"""The one form of every error text: `<function>: <argument> has <what> <got>, expected <expected>`.

TypeError for a type or dtype, ValueError for a shape or an option, IndexError for a target out of
range. Raised where options are checked (spec.py), where arrays are checked (inputs.py) and where
distributions are checked (info/checks.py), and nowhere else.
"""

from __future__ import annotations

from typing import TypeVar

Error = TypeVar("Error", bound=Exception)


def bad(kind: type[Error], function: str, argument: str, has: str, expected: str) -> Error:
    """The exception that tells what `argument` is and what it should have been.

    >>> str(bad(ValueError, "cross_entropy", "reduction", "value 'avg'", "'none', 'sum' or 'mean'"))
    "cross_entropy: reduction has value 'avg', expected 'none', 'sum' or 'mean'"
    """
    return kind(f"{function}: {argument} has {has}, expected {expected}")
