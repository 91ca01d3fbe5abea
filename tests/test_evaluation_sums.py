"""evaluation.sums: sums that lose nothing that a double could show, in any order."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from xent.evaluation.sums import Totals, block_rows

NUMBERS = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50)


@hypothesis.given(NUMBERS, st.integers(0, 50))
def test_a_sum_is_the_exact_one_rounded(values: list[float], cut: int) -> None:
    one, two = Totals(), Totals()
    for i, value in enumerate(values):
        (one if i < cut else two).add({"a": np.array([value, 1.0])})
    every = Totals()
    every.add_bytes(two.as_bytes())
    every.add_bytes(one.as_bytes())
    largest = max(map(abs, values))
    assert every["a"][0] == pytest.approx(math.fsum(values), rel=1e-15, abs=1e-25 * largest)
    assert every["a"][1] == len(values)


def test_places_are_added_to_or_put_into(rng: np.random.Generator) -> None:
    totals = Totals()
    totals.add_at("a", 5, np.array([1, 3]), np.array([1.0, 2.0]))
    totals.add_at("a", 5, np.array([3, 4]), np.array([1e-20, 5.0]))
    totals.put("b", 3, np.array([2]), np.array([7.0]))
    assert "a" in totals
    assert totals["a"].tolist() == [0, 1, 0, 2, 5]
    assert totals["b"].tolist() == [0, 0, 7]
    again = Totals()
    again.add_bytes(totals.as_bytes())
    assert again["b"].tolist() == [0, 0, 7]


def test_a_block_depends_on_the_number_of_classes_alone() -> None:
    assert [block_rows(v) for v in (1, 100, 1000, 32_000, 10**9)] == [65536, 65536, 8192, 256, 1]
