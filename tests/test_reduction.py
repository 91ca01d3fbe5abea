"""The weights of rows, the denominator, and the sums: against fractions and the oracle."""

from __future__ import annotations

import math
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
import torch

from xent import inputs, reduction
from xent.ops import exact
from xent.spec import Spec

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)


def total(terms):
    return exact.total(inputs.namespace(terms), terms)


def rows_of(array, target, weight=None, classes=3):
    target = np.asarray(target)
    shape = target.shape if target.dtype.kind == "f" else (len(target), classes)
    logits = array(np.zeros(shape))
    weight = None if weight is None else array(np.array(weight, np.float32))
    spec = Spec()
    return inputs.class_rows(logits, array(target), weight, spec).coded(spec)


def test_which_reductions_divide_and_which_keep_the_rows():
    assert [reduction.divides(how) for how in reduction.REDUCTIONS] == [False, False, True]
    assert [reduction.keeps_rows(how) for how in reduction.REDUCTIONS] == [True, False, False]


@LIBRARIES
@pytest.mark.parametrize(
    ("target", "weight", "expected"),
    [
        ([2, 0, -100], None, [1.0, 1.0, 0.0]),
        ([2, 0, -100], [0.5, 2.0, 4.0], [4.0, 0.5, 0.0]),
        ([-100, -100], [0.5, math.nan, math.inf], [0.0, 0.0]),
        ([[0.2, 0.3, 0.5]], [0.5, 2.0, 4.0], [1.0]),
    ],
)
def test_the_weight_of_a_row(target, weight, expected, array):
    rows = rows_of(array, target, weight)
    weights = reduction.row_weight(rows.xp, rows)
    assert tuple(weights.shape) == (len(expected), 1)
    assert str(weights.dtype).endswith("float64")
    np.testing.assert_array_equal(np.asarray(weights)[:, 0], expected)


@LIBRARIES
@pytest.mark.parametrize("weight", [None, np.zeros(0)])
def test_rows_without_classes_have_no_weight(weight, array):
    rows = rows_of(array, [-100, -100], weight, classes=0)
    np.testing.assert_array_equal(np.asarray(reduction.row_weight(rows.xp, rows)), [[0.0], [0.0]])


@LIBRARIES
@pytest.mark.parametrize(
    ("target", "weight", "how", "expected"),
    [
        ([2, 0, -100], None, "mean", 2.0),
        ([2, 0, -100], [0.5, 2.0, 4.0], "mean", 4.5),
        ([-100], None, "mean", 0.0),
        ([[0.2, 0.3, 0.5]] * 4, [0.5, 2.0, 4.0], "mean", 4.0),
        ([2, 0], None, "sum", None),
        ([2, 0], None, "none", None),
    ],
)
def test_the_denominator(target, weight, how, expected, array):
    rows = rows_of(array, target, weight)
    weights = reduction.row_weight(rows.xp, rows)
    divisor = reduction.denominator(rows, weights, how, None, total)
    assert divisor == expected if expected is None else float(divisor) == expected
    if how == "mean":
        assert reduction.denominator(rows, weights, how, 7.0, total) == 7.0


@LIBRARIES
def test_probabilities_without_classes_have_no_mean(array):
    rows = rows_of(array, np.zeros((2, 0)))
    weights = reduction.row_weight(rows.xp, rows)
    assert math.isnan(reduction.denominator(rows, weights, "mean", None, total))


@LIBRARIES
def test_sums_and_means(rng, array):
    losses = rng.normal(size=(7, 3))
    given = array(losses)
    xp = inputs.namespace(given)
    right = sum(map(Fraction, losses.ravel().tolist()))
    assert reduction.reduce(xp, given, None, "none", total) is given
    summed = reduction.reduce(xp, given, None, "sum", total)
    assert summed.shape == ()
    assert abs(Fraction(float(summed)) - right) <= Fraction(2) ** -48
    for divisor in (4.0, 4, array(np.array(4.0)), array(np.array(4))):
        mean = reduction.reduce(xp, given, divisor, "mean", total)
        assert float(mean) == float(summed) / 4


@LIBRARIES
@pytest.mark.parametrize(("losses", "expected"), [([0.0], math.nan), ([1.0], math.inf)])
def test_a_denominator_of_zero(losses, expected, array):
    given = array(np.array([losses]))
    xp = inputs.namespace(given)
    with np.errstate(all="ignore"):
        for zero in (0, 0.0, array(np.array(0.0))):
            value = float(reduction.reduce(xp, given, zero, "mean", total))
            assert np.array_equal(value, expected, equal_nan=True)


@LIBRARIES
def test_the_scale_of_a_row_is_its_derivative(rng, array):
    upstream = rng.normal(size=(5, 2))
    like = array(np.ones((5, 2)))
    xp = inputs.namespace(like)
    per_row = reduction.row_scale(xp, array(upstream), None, like)
    np.testing.assert_array_equal(np.asarray(per_row), upstream)
    one = reduction.row_scale(xp, array(np.array(3.0)), 4.0, like)
    np.testing.assert_array_equal(np.asarray(one), np.full((5, 2), 0.75))
