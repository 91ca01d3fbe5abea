"""token_statistics against the oracle, with the gradients of its three real numbers."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent.conformance import exact, oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
REAL = ("log_prob", "entropy", "lse")


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    shape=st.sampled_from([(5,), (3, 4), (2, 3, 2), (2, 3, 2, 2), (0, 3), (4, 1)]),
    spread=st.sampled_from([0.1, 3.0, 50.0]),
    options=st.fixed_dictionaries(
        {}, optional={"softcap": st.just(5.0), "logit_scale": st.just(0.5)}
    ),
)
@settings(max_examples=120)
def test_as_the_oracle(seed, dtype, shape, spread, options):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, shape).astype(dtype)
    classes, per_row = shape[min(1, len(shape) - 1)], shape[:1] * (len(shape) > 1) + shape[2:]
    target = np.asarray(rng.integers(0, classes, per_row))
    right = oracle.token_statistics(logits, target, **options)
    for array in (np.asarray, torch.asarray):
        statistics = xent.token_statistics(array(logits), array(target), **options)
        for name in REAL:
            got = np.asarray(getattr(statistics, name))
            assert got.dtype == ("float64" if dtype == "float64" else "float32")
            assert got.shape == per_row
            rtol = 1e-13 if dtype == "float64" else 6.0e-8
            expected = np.asarray(getattr(right, name), float)
            np.testing.assert_allclose(got, expected, rtol=rtol, atol=2e-14)
        assert str(statistics.argmax.dtype).endswith("int64")
        np.testing.assert_array_equal(np.asarray(statistics.argmax), right.argmax)


@LIBRARIES
def test_ignored_rows_are_0_whatever_they_hold(array):
    logits = np.array([[0.0, 1.0], [NAN, INF], [3.0, 1.0]])
    statistics = xent.token_statistics(array(logits), array(np.array([1, -100, -100])))
    for name in (*REAL, "argmax"):
        np.testing.assert_array_equal(np.asarray(getattr(statistics, name))[1:], [0, 0])
    assert int(statistics.argmax[0]) == 1


@LIBRARIES
@pytest.mark.parametrize(
    ("row", "target", "expected"),
    [
        ([0.0, 0.0], 1, (-math.log(2), math.log(2), math.log(2), 0)),
        ([0.0, -INF], 0, (0.0, 0.0, 0.0, 0)),
        ([0.0, -INF], 1, (-INF, 0.0, 0.0, 0)),
        ([0.0, -40.0], 0, (-math.exp(-40), 41 * math.exp(-40), math.exp(-40), 0)),
        ([-INF, -INF], 0, (NAN, NAN, -INF, 0)),
        ([0.0, INF], 0, (NAN, NAN, INF, 1)),
        ([0.0, NAN], 0, (NAN, NAN, NAN, 1)),
        ([7.0], 0, (0.0, 0.0, 7.0, 0)),
    ],
)
def test_edges(row, target, expected, array):
    statistics = xent.token_statistics(array(np.array([row])), array(np.array([target])))
    for got, value in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(np.asarray(got), [value], rtol=1e-15)


def test_what_float32_cannot_hold_is_infinite_without_a_warning():
    statistics = xent.token_statistics(np.array([[3e38, -3e38]], np.float32), [1])
    assert statistics.log_prob == [-np.inf]


def test_one_row_gives_numbers():
    statistics = xent.token_statistics([0.0, 1.0], 1)
    assert [type(s) for s in statistics] == [np.float64, np.float64, np.float64, np.int64]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0, "logit_scale": 0.5}])
def test_gradients_through_autograd(rng, name, options):
    logits, target, upstream = rng.normal(0, 3, (4, 5)), rng.integers(0, 5, 4), rng.normal(size=4)
    target[2] = -100
    leaf = torch.tensor(logits, requires_grad=True)
    statistics = xent.token_statistics(leaf, torch.tensor(target), **options)
    getattr(statistics, name).backward(torch.tensor(upstream))
    right = oracle.token_statistics_vjp(logits, target, **{name: upstream}, **options)
    np.testing.assert_allclose(leaf.grad, np.asarray(right, float), rtol=1e-13, atol=1e-14)
    slopes = exact.differences(
        lambda moved: getattr(oracle.token_statistics(moved, target, **options), name),
        logits,
        upstream,
    )
    np.testing.assert_allclose(leaf.grad, np.asarray(slopes, float), rtol=1e-13, atol=1e-14)


def test_it_agrees_with_the_losses(rng):
    logits, target = rng.normal(0, 3, (6, 4, 2)), rng.integers(0, 4, (6, 2))
    statistics = xent.token_statistics(logits, target)
    losses = xent.cross_entropy(logits, target, reduction="none")
    np.testing.assert_allclose(statistics.log_prob, -losses, rtol=1e-15)
    np.testing.assert_allclose(statistics.lse, xent.logsumexp(logits, 1), rtol=1e-15)
    moved = xent.token_statistics(np.moveaxis(logits, 1, -1), target, axis=-1)
    for got, expected in zip(moved, statistics, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_argmax_sees_logits_that_a_softcap_makes_equal():
    logits = np.array([[74.9, 0.0, 75.07], [-80.0, -75.0, -90.0]])
    assert xent.token_statistics(logits, [0, 0], softcap=3.0).argmax.tolist() == [2, 1]
