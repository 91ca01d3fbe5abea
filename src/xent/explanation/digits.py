"""Numbers as they are shown: in four or three decimals, or with a power of ten for little ones."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def given(value: float) -> str:
    """A number of the caller's: as short as five digits allow.

    >>> given(2.0), given(0.1), given(float("-inf"))
    ('2', '0.1', '-inf')
    """
    return f"{float(value):.5g}"


def computed(value: float) -> str:
    """A number that was computed.

    >>> computed(1.41703), computed(3.72e-44), computed(0.0), computed(-200.0)
    ('1.4170', '3.72e-44', '0', '-200')
    """
    value = float(value)
    if not math.isfinite(value) or (value == round(value) and abs(value) < 1e6):
        return f"{value + 0.0:.0f}"  # -0 is 0
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3f}"


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.998), percent(1e-9), percent(0.99999), percent(float("nan"))
    ('99.8 %', '1e-07 %', '> 99.9 %', '-')
    """
    value = 100 * float(share)
    if value != value or value in (0, 100):
        return "-" if value != value else f"{value:.0f} %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.2g} %"


def signed(terms: Iterable[str]) -> str:
    """Terms as a sum.

    >>> signed(["1", "-2", "3"])
    '1 - 2 + 3'
    """
    return " + ".join(terms).replace("+ -", "- ")


def cells(values: Iterable[float], own: bool = False) -> tuple[str, ...]:
    """A row of a table; `own` where the numbers are the caller's."""
    return tuple((given if own else computed)(v) for v in np.asarray(values, dtype=np.float64))
