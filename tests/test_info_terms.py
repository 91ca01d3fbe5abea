"""The accurate pieces, each against exact arithmetic over its whole range."""

from __future__ import annotations

import math

import array_api_compat.numpy as xp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xent.info import terms


@pytest.fixture(autouse=True, scope="module")
def precision():
    # exp(-700) beside 1 takes 1000 bits.
    with mpmath.workprec(1200):
        yield


def relative(value, truth):
    if truth == 0:
        return abs(float(value))
    return abs(float((mpmath.mpf(float(value)) - truth) / truth))


def number(value):
    return mpmath.mpf(float(value))


@given(st.floats(-250, 0), st.floats(-30, 30) | st.floats(-1e-3, 1e-3))
def test_log_ratio_and_excess(log_a, shift):
    a = np.asarray(10.0**log_a)
    b = a * np.exp(np.float64(shift) / 10)
    difference = a - b
    truth = mpmath.log(number(a) / number(b))
    ratio = terms.log_ratio(xp, a, b, difference)
    assert relative(ratio, truth) < 4e-16
    excess = terms.excess(xp, a, ratio, difference)
    assert relative(excess, number(a) * truth - number(a) + number(b)) < 3e-15
    assert excess >= 0


@pytest.mark.parametrize("b", [5e-324, 1e-310, 3e-308, 1e-300])
def test_log_ratio_where_the_quotient_overflows(b):
    one, small = np.asarray(1.0), np.asarray(b)
    truth = -mpmath.log(number(b))
    assert relative(terms.log_ratio(xp, one, small, one - small), truth) < 2e-16
    assert relative(terms.log_ratio(xp, small, one, small - one), -truth) < 2e-16
    assert terms.log_ratio(xp, one, np.asarray(0.0), one) == math.inf


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000, 4097])
def test_total_is_a_sum_in_twice_the_precision(size, rng):
    rows = rng.normal(size=(3, size)) * 10.0 ** rng.integers(-12, 12, (3, size))
    sums = terms.total(xp, rows)
    for row, value in zip(rows, sums, strict=True):
        truth, magnitude = math.fsum(row), math.fsum(abs(row))
        assert abs(value - truth) <= 1.2e-16 * abs(truth) + 1e-31 * size * magnitude


@given(
    st.lists(st.floats(-1e3, 1e3) | st.just(-math.inf), min_size=1, max_size=6).filter(
        lambda row: max(row) > -math.inf
    )
)
def test_logits(row):
    logits = terms.Logits.of(xp, np.array(row))
    # exp(x - max) to the last digit needs more than x - max: the low part.
    largest = max(row)
    weights = [mpmath.exp(number(v) - largest) if v > -math.inf else mpmath.mpf(0) for v in row]
    total = mpmath.fsum(weights)
    surprisal = logits.surprisal(np.ones(len(row), dtype=bool))
    for i, (x, weight) in enumerate(zip(row, weights, strict=True)):
        if x == -math.inf:
            assert logits.p[i] == 0
            assert surprisal[i] == math.inf
            continue
        p = weight / total
        if p > 1e-300:
            assert relative(logits.p[i], p) < 1e-15
        assert relative(surprisal[i], -mpmath.log(p)) < 4e-16 or -mpmath.log(p) < 1e-300


def test_surprisal_keeps_what_the_difference_of_logits_loses(rng):
    for high, low in rng.uniform(0, 1, (200, 2)) * [1, -1] + [0, -30]:
        surprisal = terms.Logits.of(xp, np.array([high, low])).surprisal(np.array([True, True]))[1]
        truth = mpmath.log(1 + mpmath.exp(number(high) - number(low)))
        assert abs(float(number(surprisal) - truth)) <= 0.51 * np.spacing(surprisal)
