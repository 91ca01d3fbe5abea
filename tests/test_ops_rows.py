"""A block of rows, transformed and shifted: exact differences, the tail, -log p."""

from __future__ import annotations

import math
from fractions import Fraction

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xent.conformance import oracle
from xent.inputs import namespace
from xent.ops.rows import magnitude, shift, surprisal, surprisal_at, tail_of, weighted

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
TRANSFORMS = [{}, {"logit_scale": 0.3}, {"softcap": 4.0}, {"softcap": 4.0, "logit_scale": 3.0}]


NORMAL = st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)


@given(st.lists(NORMAL, min_size=1, max_size=6), st.sampled_from([1.0, 0.3]))
@settings(max_examples=200)
def test_float64_differences_are_kept_exactly(logits, scale):
    row = shift(np, np.array([logits]), logit_scale=scale)
    top = max(map(Fraction, logits))
    high, low = row.high[0], row.low[0]
    for x, first, second in zip(logits, high.tolist(), low.tolist(), strict=True):
        exact = (Fraction(x) - top) * Fraction(scale)
        assert abs(Fraction(first) + Fraction(second) - exact) <= abs(exact) * Fraction(2) ** -104


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrower_logits_need_no_second_number(rng, dtype):
    logits = (rng.normal(0, 1, (5, 9)) * 1000).astype(dtype)
    row = shift(np, logits)
    assert row.low is None
    assert row.high.dtype == np.float64
    for n in range(5):
        top = max(map(Fraction, logits[n].tolist()))
        exact = [Fraction(x) - top for x in logits[n].tolist()]
        assert [Fraction(x) for x in row.high[n].tolist()] == exact


@LIBRARIES
@pytest.mark.parametrize("options", TRANSFORMS)
def test_the_transform_its_top_and_its_slope(rng, options, array):
    logits = rng.normal(0, 3, (4, 6))
    given = array(logits)
    row = shift(namespace(given), given, **options)
    scale, cap = options.get("logit_scale", 1.0), options.get("softcap")
    u = scale * logits if cap is None else cap * np.tanh(scale * logits / cap)
    slope = scale if cap is None else scale / np.cosh(scale * logits / cap) ** 2
    np.testing.assert_array_equal(np.asarray(row.k), np.argmax(logits, axis=1))
    np.testing.assert_array_equal(np.asarray(row.at_k), np.eye(6, dtype=bool)[np.argmax(u, axis=1)])
    np.testing.assert_allclose(np.asarray(row.top), u.max(axis=1), rtol=1e-14)
    shifted = np.asarray(row.high) + np.asarray(row.low)
    np.testing.assert_allclose(shifted, u - u.max(axis=1)[:, None], atol=1e-14)
    np.testing.assert_allclose(np.asarray(row.slope), slope, rtol=1e-13)


@pytest.mark.parametrize("x", [0.0, 1.0, 50.0, 700.0, -700.0])
def test_the_slope_of_a_saturated_cap_keeps_its_digits(x):
    row = shift(np, np.array([[x]]), softcap=2.0)
    with mpmath.workprec(4000):
        exact = mpmath.sech(mpmath.mpf(x) / 2) ** 2
    assert oracle.ulp_error(row.slope[0, 0], exact, "float64") <= 8


@LIBRARIES
@pytest.mark.parametrize("spread", [0.1, 5.0, 300.0])
def test_probabilities_and_surprisal_are_the_oracles(rng, spread, array):
    logits = rng.normal(0, spread, (5, 7))
    given = array(logits)
    xp = namespace(given)
    row = shift(xp, given)
    tail = tail_of(xp, row)
    p, s = row.probabilities(xp, tail), surprisal(xp, row, tail)
    assert np.max(oracle.ulp_error(np.asarray(p), oracle.softmax(logits), "float64")) <= 4
    right = -oracle.log_softmax(logits)
    assert np.max(oracle.ulp_error(np.asarray(s), right, "float64")) <= 3.5
    with mpmath.workprec(5000):
        lone = np.asarray(1 / oracle.softmax(logits).max(axis=1) - 1, float)
    np.testing.assert_allclose(np.asarray(tail), lone, rtol=2e-15)


def test_surprisal_far_from_the_top_is_rounded_once(rng):
    logits = rng.uniform(-1, 1, (200, 2)) + np.array([0.0, -60.0])
    row = shift(np, logits)
    tail = tail_of(np, row)
    right = -oracle.log_softmax(logits)[:, 1]
    for got in (surprisal(np, row, tail)[:, 1], surprisal_at(np, row, tail, np.full(200, 1))):
        assert np.max(oracle.ulp_error(got, right, "float64")) <= 0.51


def test_a_known_argmax_is_taken():
    row = shift(np, np.array([[3.0, 3.0, 1.0]]), np.array([1]))
    assert row.at_k.tolist() == [[False, True, False]]
    assert tail_of(np, row) == pytest.approx(1 + math.exp(-2), rel=1e-15)


@LIBRARIES
@pytest.mark.parametrize(
    ("logits", "tail"),
    [
        ([0.0, 0.0], 1.0),
        ([5.0], 0.0),
        ([0.0, -INF], 0.0),
        ([0.0, -800.0], 0.0),
        ([-INF, -INF], NAN),
        ([INF, 0.0], NAN),
        ([INF, INF], NAN),
        ([NAN, 0.0], NAN),
        ([0.0, NAN], NAN),
    ],
)
def test_the_tail_of_a_row(logits, tail, array):
    given = array(np.array([logits]))
    xp = namespace(given)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.asarray(tail_of(xp, shift(xp, given))), [tail])


@LIBRARIES
def test_a_measure_of_zero_counts_for_nothing(array):
    measure = array(np.array([0.0, 0.0, 0.0, 2.0, 2.0, -1.0]))
    given = array(np.array([INF, -INF, NAN, INF, 3.0, INF]))
    xp = namespace(given)
    expected = [0.0, 0.0, NAN, INF, 6.0, -INF]
    np.testing.assert_array_equal(np.asarray(weighted(xp, measure, given)), expected)


def test_a_magnitude_and_its_derivative_at_zero():
    values = torch.tensor([-2.0, 0.0, 3.0, -INF], requires_grad=True)
    result = magnitude(namespace(values), values)
    result.sum().backward()
    assert result.tolist() == [2.0, 0.0, 3.0, INF]
    assert values.grad.tolist() == [-1.0, -1.0, 1.0, -1.0]


def test_a_measure_of_zero_has_the_derivative_of_a_product():
    measure = torch.tensor([0.0, 2.0], requires_grad=True)
    values = torch.tensor([INF, 3.0], requires_grad=True)
    weighted(namespace(values), measure, values).sum().backward()
    assert measure.grad.tolist() == [0.0, 3.0]
    assert values.grad.tolist() == [0.0, 2.0]


def test_the_surprisal_of_one_entry_has_all_its_digits(rng):
    logits = rng.uniform(-700, 700, (200, 3)) * 10.0 ** rng.integers(-3, 1, (200, 1))
    index = rng.integers(0, 3, 200)
    row = shift(np, logits)
    got = surprisal_at(np, row, tail_of(np, row), index)
    right = oracle.cross_entropy(logits, index, reduction="none")
    assert np.max(oracle.ulp_error(got, right, "float64")) <= 3.5
