"""Sums, differences and products: against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent.inputs import namespace
from xent.ops.exact import difference, product, row_sum, take_last, total, working_dtype

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
FLOATS = st.floats(-1e150, 1e150, allow_subnormal=False)


def exact_sum(values):
    return sum(map(Fraction, np.ravel(values).tolist()), Fraction(0))


@LIBRARIES
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 8, 13, 127, 128, 129, 1000])
def test_a_sum_by_halves_loses_one_rounding_a_level(rng, length, array):
    terms = rng.normal(0, 1, (4, length)) * 10.0 ** rng.integers(-8, 8, (4, length))
    given = array(terms)
    sums = np.asarray(row_sum(namespace(given), given))
    assert sums.shape == (4,)
    levels = math.ceil(math.log2(max(length, 1))) + 1
    for row, got in zip(terms, sums, strict=True):
        away = abs(Fraction(float(got)) - exact_sum(row))
        assert away <= levels * Fraction(2) ** -53 * exact_sum(np.abs(row))


@LIBRARIES
@pytest.mark.parametrize("length", range(20))
def test_every_term_is_counted_once(length, array):
    given = array(2.0 ** np.arange(length)[None])
    assert np.asarray(row_sum(namespace(given), given)).tolist() == [2.0**length - 1]


def test_the_order_of_a_sum_depends_on_its_length_alone(rng):
    terms = rng.normal(size=(300, 77))
    together = row_sum(np, terms)
    columns = row_sum(np, np.asfortranarray(terms))
    alone = [float(row_sum(np, row[None])[0]) for row in terms]
    assert together.tolist() == columns.tolist() == alone


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_what_is_not_finite_is_not_lost(bad, place):
    terms = np.ones((2, 7))
    terms[0, place] = bad
    np.testing.assert_array_equal(row_sum(np, terms), [bad, 7.0])


def test_a_sum_of_nothing_stays_in_autograds_graph():
    terms = torch.zeros((3, 0), requires_grad=True)
    sums = row_sum(namespace(terms), terms)
    assert sums.tolist() == [0.0, 0.0, 0.0]
    assert sums.requires_grad


@LIBRARIES
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4), (0, 3)])
def test_the_total_of_all_elements(rng, shape, array):
    terms = rng.integers(-(2**40), 2**40, shape).astype(float)
    given = array(terms)
    result = total(namespace(given), given)
    assert tuple(result.shape) == ()
    assert Fraction(float(result)) == exact_sum(terms)


@given(FLOATS, FLOATS)
def test_a_difference_and_what_it_lost_are_exact(left, right):
    high, low = difference(np, np.array([left]), np.array([right]))
    assert high[0] == left - right
    assert Fraction(float(high[0])) + Fraction(float(low[0])) == Fraction(left) - Fraction(right)


@LIBRARIES
def test_an_infinite_difference_lost_nothing(array):
    left = array(np.array([math.inf, -math.inf, math.inf, math.nan, 1.7e308]))
    right = array(np.array([1.0, 1.0, math.inf, 1.0, -1.7e308]))
    with np.errstate(all="ignore"):
        high, low = difference(namespace(left), left, right)
    expected = [math.inf, -math.inf, math.nan, math.nan, math.inf]
    np.testing.assert_array_equal(np.asarray(high), expected)
    np.testing.assert_array_equal(np.asarray(low), np.zeros(5))


@given(
    st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) > 1e-100),
    st.floats(1e-100, 1e100),
)
def test_a_product_and_what_it_lost_are_exact(left, right):
    high, low = product(np, np.array([left]), right)
    assert high[0] == left * right
    assert Fraction(float(high[0])) + Fraction(float(low[0])) == Fraction(left) * Fraction(right)


@LIBRARIES
def test_a_product_near_overflow_lost_nothing_that_counts(array):
    left = array(np.array([1e308, -math.inf, 1e307]))
    with np.errstate(all="ignore"):
        high, low = product(namespace(left), left, 3.0)
    np.testing.assert_array_equal(np.asarray(high), [math.inf, -math.inf, 3e307])
    np.testing.assert_array_equal(np.asarray(low), np.zeros(3))


def test_a_float32_product_keeps_no_rest():
    high, low = product(np, np.array([0.1], np.float32), 3.0)
    assert high.dtype == low.dtype == np.float32
    assert low.tolist() == [0.0]


@LIBRARIES
def test_one_element_of_each_row(rng, array):
    values, index = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    given = array(values)
    taken = take_last(namespace(given), given, array(index))
    np.testing.assert_array_equal(np.asarray(taken), values[np.arange(6), index])


@LIBRARIES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_is_computed_in_float64(array, dtype):
    given = array(np.zeros(1, dtype))
    assert working_dtype(namespace(given), given) == namespace(given).float64


def test_a_device_without_float64_computes_in_float32():
    class Array:
        device = "mps:0"

    assert working_dtype(np, Array()) == np.float32
