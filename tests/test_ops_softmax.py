"""Softmax and log-softmax as an op: its vjp and jvp against the oracle."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xent.conformance import exact, oracle
from xent.inputs import namespace
from xent.ops.blocks import Blocks
from xent.ops.softmax import Softmax

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
LOG = pytest.mark.parametrize("log", [False, True])
BLOCKS = [Blocks(None), Blocks(1), Blocks(90, write=True)]
FORWARD = {False: oracle.softmax, True: oracle.log_softmax}
VJP = {False: oracle.softmax_vjp, True: oracle.log_softmax_vjp}


@LIBRARIES
@LOG
@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
def test_forward_vjp_and_jvp_are_the_oracles(rng, spread, log, array):
    x, upstream, tangent = rng.normal(0, spread, (2, 3, 5)), *rng.normal(size=(2, 2, 3, 5))
    dx = np.asarray(VJP[log](x, upstream), float)
    moved = math.fsum(np.ravel(dx * tangent))
    op, given = Softmax(log), (array(x),)
    xp = namespace(given[0])
    for blocks in BLOCKS:
        (y,), residuals = op.forward(xp, given, blocks)
        assert np.max(oracle.ulp_error(np.asarray(y), FORWARD[log](x), "float64")) <= 4
        (got,) = op.vjp(xp, given, residuals, (array(upstream),), (True,), blocks)
        np.testing.assert_allclose(np.asarray(got), dx, rtol=1e-13, atol=1e-15)
        (dy,) = op.jvp(xp, given, residuals, (array(tangent),), blocks)
        again = math.fsum(np.ravel(np.asarray(dy) * upstream))
        assert again == pytest.approx(moved, rel=1e-12, abs=1e-13)


@LOG
def test_the_vjp_is_finite_differences_of_the_oracle(rng, log):
    x, upstream = rng.normal(0, 2, (1, 2, 4)), rng.normal(size=(1, 2, 4))
    residuals = Softmax(log).forward(np, (x,), Blocks()).residuals
    (dx,) = Softmax(log).vjp(np, (x,), residuals, (upstream,), (True,), Blocks())
    slopes = np.asarray(exact.differences(FORWARD[log], x, upstream), float)
    np.testing.assert_allclose(dx, slopes, rtol=1e-13, atol=1e-15)


@given(gap=st.floats(0, 700), offset=st.sampled_from([0.0, 5000.0]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
@pytest.mark.parametrize("log", [False, True])
def test_an_almost_certain_row_keeps_the_digits_of_its_gradient(log, gap, offset, seed):
    # Signs are chosen so that the exact gradient has no cancellation of its own.
    upstream = np.abs(np.random.default_rng(seed).normal(size=(1, 1, 2))) * (
        [1, 1] if log else [1, -1]
    )
    x = np.array([[[offset + gap, offset]]])
    residuals = Softmax(log).forward(np, (x,), Blocks()).residuals
    (dx,) = Softmax(log).vjp(np, (x,), residuals, (upstream,), (True,), Blocks())
    right = VJP[log](x, upstream)
    scale = 1e-15 * float(np.max(np.abs(upstream))) if log else 0.0
    errors = oracle.ulp_error(dx, right, "float64")
    apart = np.abs(dx - np.asarray(right, float))
    assert np.all((errors <= 8) | (apart <= scale * np.minimum(1, np.exp(-gap))) | (apart < 3e-308))


@LOG
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_small_types_are_rounded_once(rng, log, dtype):
    x = rng.normal(0, 4, (4, 1, 6)).astype(dtype)
    upstream = rng.uniform(0.5, 2, (4, 1, 6)).astype(dtype)
    (y,), residuals = Softmax(log).forward(np, (x,), Blocks())
    assert np.max(oracle.ulp_error(y, FORWARD[log](x), dtype)) <= 0.51
    (dx,) = Softmax(log).vjp(np, (x,), residuals, (upstream,), (True,), Blocks())
    assert dx.dtype == dtype
    right = VJP[log](x, upstream)
    apart = np.abs(dx - np.asarray(right, float))
    assert np.all((oracle.ulp_error(dx, right, dtype) <= 0.51) | (apart < 1e-15))


@LIBRARIES
@LOG
def test_no_classes(array, log):
    x = array(np.zeros((2, 3, 0)))
    xp, op = namespace(x), Softmax(log)
    (y,), residuals = op.forward(xp, (x,), Blocks())
    assert tuple(y.shape) == (2, 3, 0)
    assert tuple(op.vjp(xp, (x,), residuals, (y,), (True,), Blocks())[0].shape) == (2, 3, 0)
    assert tuple(op.jvp(xp, (x,), residuals, (y,), Blocks())[0].shape) == (2, 3, 0)


@LIBRARIES
@LOG
def test_masked_classes_have_no_probability_and_take_no_gradient(array, log):
    x, upstream = np.array([[[1.0, -math.inf, 2.0]]]), np.array([[[1.0, 2.0, -1.0]]])
    xp, op, given = namespace(array(x)), Softmax(log), (array(x),)
    with np.errstate(all="ignore"):
        residuals = op.forward(xp, given, Blocks()).residuals
        (dx,) = op.vjp(xp, given, residuals, (array(upstream),), (True,), Blocks())
        (dy,) = op.jvp(xp, given, residuals, (array(upstream),), Blocks())
    np.testing.assert_allclose(np.asarray(dx)[0, 0, 1], 2.0 if log else 0.0)
    assert np.isfinite(np.asarray(dx)).all()
    assert np.isfinite(np.asarray(dy)).all()


@pytest.mark.parametrize("gap", [5.0, 20.0, 40.0, 300.0])
def test_log_softmax_of_a_sure_row_keeps_the_gradient_of_its_largest_entry(gap):
    x, upstream = np.array([[[gap, 0.0, -1.0]]]), np.array([[[1.0, 0.0, 0.0]]])
    rest = math.fsum([math.exp(-gap), math.exp(-gap - 1)])
    op = Softmax(log=True)
    residuals = op.forward(np, (x,), Blocks()).residuals
    (dx,) = op.vjp(np, (x,), residuals, (upstream,), (True,), Blocks())
    assert dx[0, 0, 0] == pytest.approx(rest / (1 + rest), rel=2e-15, abs=0)
