"""nll_loss and its backward by hand: against the oracle and torch."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent import manual
from xent.conformance import oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)


def worst(got, right):
    dtype = str(got.dtype).rsplit(".", 1)[-1]
    got = np.asarray(got.to(torch.float64) if isinstance(got, torch.Tensor) else got, float)
    assert got.shape == np.shape(right)
    return np.max(oracle.ulp_error(got, right, dtype), initial=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    shape=st.sampled_from([(5,), (3, 4), (2, 3, 2), (2, 3, 2, 2), (0, 3)]),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    weighted=st.booleans(),
    ignore=st.sampled_from([-100, 1, 9]),
)
@settings(max_examples=120)
def test_the_oracle_and_torch_agree(seed, dtype, shape, reduction, weighted, ignore):
    rng = np.random.default_rng(seed)
    log_probs = (-rng.exponential(3, shape)).astype(dtype)
    classes, per_row = shape[min(1, len(shape) - 1)], shape[:1] * (len(shape) > 1) + shape[2:]
    target = np.asarray(rng.integers(0, classes, per_row))
    target = np.where(rng.random(per_row) < 0.3, ignore, target)
    weight = rng.uniform(0.5, 3, classes).astype(dtype) if weighted else None
    options = {"reduction": reduction, "ignore_index": ignore}
    right = oracle.nll_loss(log_probs, target, weight, **options)
    upstream = rng.normal(size=np.shape(right))[()]
    dright = oracle.nll_loss_vjp(log_probs, target, weight, upstream=upstream, **options)
    for array in (np.asarray, torch.asarray):
        ready = array(log_probs), array(target), None if weight is None else array(weight)
        loss = xent.nll_loss(*ready, **options)
        assert worst(loss, right) <= (3.5 if dtype == "float64" else 0.51)
        layer = manual.NLLLoss(ready[2], **options)
        assert worst(layer.forward(*ready[:2]), right) <= (3.5 if dtype == "float64" else 0.51)
        dlogs = layer.backward(array(np.asarray(upstream)))
        assert worst(dlogs, dright) <= (3.5 if dtype == "float64" else 0.51)
    if dtype != "float16":
        torch.testing.assert_close(loss, F.nll_loss(*ready, **options), equal_nan=True)


@LIBRARIES
@pytest.mark.parametrize(
    ("log_probs", "target", "weight", "options", "value"),
    [
        ([[-INF, 0.0]], [0], None, {}, INF),
        ([[-INF, 0.0]], [0], [0.0, 1.0], {"reduction": "sum"}, 0.0),
        ([[NAN, -1.0]], [1], None, {}, 1.0),
        ([[NAN, NAN], [-1.0, -2.0]], [-100, 1], None, {}, 2.0),
        ([[-1.0, -2.0]], [-100], None, {}, NAN),
        ([[-1.0, -2.0], [-3.0, -4.0]], [-100, 1], [NAN, 2.0], {}, 4.0),
        ([[-1.0, -2.0]], [-100], None, {"normalizer": 2.0}, 0.0),
        ([[-1.0, -2.0], [-3.0, -4.0]], [0, 1], [1.0, 3.0], {}, 3.25),
        ([[-1.0, -2.0], [-3.0, -4.0]], [0, 1], None, {"normalizer": 10}, 0.5),
        ([[-1.0, -2.0], [-3.0, -4.0]], [0, 1], None, {"axis": 0}, 2.5),
        ([0.25, 0.75], 1, None, {}, -0.75),
    ],
)
def test_cases(log_probs, target, weight, options, value, array):
    weight = None if weight is None else array(np.array(weight))
    ready = array(np.array(log_probs)), array(np.array(target))
    assert np.array_equal(float(xent.nll_loss(*ready, weight, **options)), value, equal_nan=True)
    layer = manual.NLLLoss(weight, **options)
    assert np.array_equal(float(layer.forward(*ready)), value, equal_nan=True)


@LIBRARIES
@pytest.mark.parametrize("weight", [None, [NAN, 1.0]])
def test_ignored_rows_have_gradient_zero(weight, array):
    layer = manual.NLLLoss(None if weight is None else array(np.array(weight)))
    layer.forward(array(np.array([[NAN, INF], [-1.0, -2.0]])), array(np.array([-100, 1])))
    np.testing.assert_array_equal(np.asarray(layer.backward()), [[0.0, 0.0], [0.0, -1.0]])


@LIBRARIES
def test_no_classes_and_no_rows(array):
    none = array(np.zeros((2, 0))), array(np.array([-100, -100]))
    assert math.isnan(float(xent.nll_loss(*none)))
    assert float(xent.nll_loss(*none, reduction="sum")) == 0
    empty = array(np.zeros((0, 3))), array(np.zeros(0, int))
    assert math.isnan(float(xent.nll_loss(*empty)))
    assert tuple(xent.nll_loss(*empty, reduction="none").shape) == (0,)


def test_the_chain_is_cross_entropy(rng):
    logits, target = rng.normal(0, 5, (20, 7)), rng.integers(0, 7, 20)
    chained = xent.nll_loss(xent.log_softmax(logits, 1), target, reduction="none")
    whole = xent.cross_entropy(logits, target, reduction="none")
    np.testing.assert_allclose(chained, whole, rtol=1e-15)
