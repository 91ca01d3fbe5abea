"""explanation.digits: numbers as they are shown."""

from __future__ import annotations

import numpy as np
import pytest

from xent.explanation import digits


def test_a_shown_number_is_near_its_own(rng: np.random.Generator) -> None:
    values = rng.standard_normal(300) * 10.0 ** rng.integers(-40, 40, 300)
    for value in values:
        shown = float(digits.computed(value))
        assert shown == pytest.approx(value, rel=6e-3, abs=5.1e-5 if abs(value) >= 1e-3 else 0)
        assert float(digits.given(value)) == pytest.approx(value, rel=5.1e-5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (-0.0, "0"),
        (2.0, "2"),
        (1e9, "1.00e+09"),
    ],
)
def test_numbers_that_are_told_as_they_are(value: float, shown: str) -> None:
    assert digits.computed(value) == shown


def test_shares() -> None:
    shown = [digits.percent(v) for v in (0.0, 1.0, 0.5, 0.9999, 0.00012, np.nan)]
    assert shown == ["0 %", "100 %", "50.0 %", "> 99.9 %", "0.012 %", "-"]


def test_a_row_of_cells() -> None:
    assert digits.cells([0.12345, 2.0]) == ("0.1235", "2")
    assert digits.cells([0.12345, 2.0], own=True) == ("0.12345", "2")
