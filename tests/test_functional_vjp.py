"""The hand-derived backward: against the oracle, finite differences, and at the edges."""

from __future__ import annotations

import math
import tracemalloc

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent import Plan
from xent.conformance import exact, oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 0.1},
    {"softcap": 3.0, "logit_scale": 0.5},
    {"label_smoothing": 0.3, "z_loss": 0.2, "softcap": 4.0, "logit_scale": 2.0},
]


def as_float(values):
    return np.asarray(values, dtype=float)


def problem(rng, soft, shape=(3, 4)):
    logits = rng.normal(0, 2, shape)
    per_row = shape[:1] + shape[2:]
    target = rng.random(shape) if soft else rng.integers(0, shape[1], per_row)
    if not soft:
        target[0] = -100
    return logits, target, rng.uniform(0.5, 2, shape[1])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("soft", [False, True])
def test_finite_differences_of_the_oracle(rng, soft, reduction, options):
    logits, target, weight = problem(rng, soft)
    options = {**options, "reduction": reduction}
    upstream = rng.normal(size=3) if reduction == "none" else rng.normal()
    slopes = exact.differences(
        lambda moved: oracle.cross_entropy(moved, target, weight, **options), logits, upstream
    )
    _, vjp = xent.cross_entropy_vjp(logits, target, weight, **options)
    np.testing.assert_allclose(vjp(upstream), as_float(slopes), rtol=1e-12, atol=1e-14)


@LIBRARIES
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (2, 3, 2, 2)])
def test_an_upstream_per_row(rng, shape, array):
    logits, target, weight = problem(rng, False, shape)
    loss, vjp = xent.cross_entropy_vjp(
        array(logits), array(target), array(weight), reduction="none"
    )
    upstream = rng.normal(size=loss.shape)
    dlogits = vjp(array(upstream))
    right = oracle.cross_entropy_grad(logits, target, weight, upstream=upstream, reduction="none")
    np.testing.assert_allclose(np.asarray(dlogits), as_float(right.dlogits), rtol=1e-14)
    assert dlogits.shape == logits.shape


@LIBRARIES
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_an_upstream_of_one_number(rng, reduction, array):
    logits, target, _ = problem(rng, False)
    _, vjp = xent.cross_entropy_vjp(array(logits), array(target), reduction=reduction)
    right = oracle.cross_entropy_grad(logits, target, upstream=-2.5, reduction=reduction).dlogits
    for upstream in (-2.5, array(np.array(-2.5)), array(np.array(-2.5, np.float32))):
        np.testing.assert_allclose(np.asarray(vjp(upstream)), as_float(right), rtol=1e-14)
    np.testing.assert_array_equal(np.asarray(vjp()), np.asarray(vjp(1)))


def test_an_upstream_as_a_list_and_of_integers():
    _, vjp = xent.cross_entropy_vjp([[1.0, 2.0], [3.0, 4.0]], [0, 1], reduction="none")
    np.testing.assert_array_equal(vjp([1, -2]), vjp(np.array([1.0, -2.0])))
    np.testing.assert_array_equal(vjp([1.0, -2.0]), vjp(np.array([1, -2])))


@given(
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    upstream=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_gradients_of_small_types_are_rounded_once(dtype, reduction, upstream, seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 4, (4, 6))).to(getattr(torch, dtype))
    target = rng.integers(0, 6, 4)
    _, vjp = xent.cross_entropy_vjp(logits, torch.tensor(target), reduction=reduction)
    wide = logits.double().numpy()
    right = oracle.cross_entropy_grad(wide, target, upstream=upstream, reduction=reduction)
    dlogits = vjp(upstream)
    assert dlogits.dtype == logits.dtype
    errors = oracle.ulp_error(dlogits.double().numpy(), right.dlogits, dtype)
    assert np.max(errors) <= (4 if dtype == "float32" else 0.51)


def test_vjp_is_linear_and_can_be_called_again(rng):
    logits, target, weight = problem(rng, False)
    _, vjp = xent.cross_entropy_vjp(logits, target, weight)
    first = vjp(1.0).copy()
    vjp(7.0)[:] = NAN  # what it gave is the caller's
    np.testing.assert_array_equal(vjp(1.0), first)
    np.testing.assert_array_equal(vjp(-4.0), -4 * first)


def test_rows_of_a_gradient_sum_to_zero(rng):
    logits = rng.normal(0, 20, (50, 8))
    _, vjp = xent.cross_entropy_vjp(logits, rng.integers(0, 8, 50), reduction="sum")
    np.testing.assert_allclose(vjp(1.0).sum(axis=1), 0, atol=1e-15)


# Layout, dtype and library of the gradient.

LAYOUTS = {
    "rows": lambda x: x,
    "columns": np.asfortranarray,
    "classes last in memory": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).swapaxes(1, -1),
}


@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 4)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, None])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dlogits_lie_in_memory_as_the_logits(rng, dtype, size, layout, shape):
    logits = LAYOUTS[layout](rng.normal(size=shape).astype(dtype))
    target = rng.integers(0, 5, shape[:1] + shape[2:])
    plan = Plan(chunk_bytes=size)
    dlogits = xent.cross_entropy_vjp(logits, target, plan=plan)[1](1.0)
    assert (dlogits.dtype, dlogits.shape) == (logits.dtype, logits.shape)
    assert dlogits.strides == logits.strides
    tensor = torch.asarray(logits)
    dlogits = xent.cross_entropy_vjp(tensor, torch.asarray(target), plan=plan)[1](1.0)
    assert (dlogits.dtype, dlogits.stride()) == (tensor.dtype, tensor.stride())


def test_torch_results_are_outside_autograd(rng):
    logits = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    loss, vjp = xent.cross_entropy_vjp(logits, torch.tensor([0, 1, 2]))
    upstream = torch.tensor(2.0, requires_grad=True)
    assert not loss.requires_grad
    assert not vjp(upstream).requires_grad


# Rows that are ignored, not finite, or out of range.


@LIBRARIES
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("holds", [NAN, INF, -INF])
def test_an_ignored_row_has_gradient_zero_whatever_it_holds(holds, reduction, options, array):
    logits = np.array([[1.0, 2.0, 3.0], [holds, 0.0, holds], [0.5, -1.0, 2.0]])
    target = np.array([2, -100, 0])
    kept = np.array([0, 2])
    loss, vjp = xent.cross_entropy_vjp(array(logits), array(target), reduction=reduction, **options)
    expected, kept_vjp = xent.cross_entropy_vjp(
        array(logits[kept]), array(target[kept]), reduction=reduction, **options
    )
    dlogits = np.asarray(vjp(1.0))
    np.testing.assert_array_equal(dlogits[1], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(dlogits[kept], np.asarray(kept_vjp(1.0)))
    if reduction == "none":
        assert float(loss[1]) == 0
        upstream = array(np.array([1.0, NAN, 1.0]))
        np.testing.assert_array_equal(np.asarray(vjp(upstream)), dlogits)
    else:
        assert float(loss) == float(expected)


@LIBRARIES
@pytest.mark.parametrize("options", OPTIONS)
def test_all_ignored_is_a_mean_of_nan_with_gradient_zero(options, array):
    logits, target = array(np.ones((2, 3))), array(np.array([-100, -100]))
    loss, vjp = xent.cross_entropy_vjp(logits, target, **options)
    assert math.isnan(float(loss))
    np.testing.assert_array_equal(np.asarray(vjp(1.0)), np.zeros((2, 3)))


@LIBRARIES
@pytest.mark.parametrize("row", [[INF, 0.0, 1.0], [0.0, INF, INF], [NAN, 0.0, 0.0], [-INF] * 3])
@pytest.mark.parametrize("target", [[0, 0], [2, 0]])
def test_a_row_without_a_softmax_is_nan_alone(row, target, array):
    logits = np.array([row, [1.0, 2.0, 3.0]])
    loss, vjp = xent.cross_entropy_vjp(array(logits), array(np.array(target)), reduction="none")
    dlogits = np.asarray(vjp(1.0))
    np.testing.assert_array_equal(np.isnan(np.asarray(loss)), [True, False])
    np.testing.assert_array_equal(np.isnan(dlogits), [[True] * 3, [False] * 3])


@LIBRARIES
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("bad", [-1, 3, 10**6])
def test_an_unchecked_target_out_of_range_is_nan_alone(bad, options, array):
    logits, target = np.ones((3, 3)), np.array([0, bad, -100])
    plan = Plan(check_targets=False)
    loss, vjp = xent.cross_entropy_vjp(
        array(logits), array(target), reduction="none", plan=plan, **options
    )
    dlogits = np.asarray(vjp(1.0))
    np.testing.assert_array_equal(np.isnan(np.asarray(loss)), [False, True, False])
    np.testing.assert_array_equal(np.isnan(dlogits).all(axis=1), [False, True, False])
    assert not np.isnan(dlogits[[0, 2]]).any()
    mean = xent.cross_entropy(array(logits), array(target), plan=plan, **options)
    assert math.isnan(float(mean))


@LIBRARIES
@pytest.mark.parametrize(
    ("shape", "per_row"), [((0, 3), (0,)), ((2, 3, 0), (2, 0)), ((2, 0), (2,)), ((2, 1), (2,))]
)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("soft", [False, True])
def test_empty_and_single_classes_have_gradient_zero(shape, per_row, reduction, soft, array):
    ignored = np.full(per_row, -100 if shape[1] == 0 else 0)
    target = np.full(shape, 0.5) if soft else ignored
    loss, vjp = xent.cross_entropy_vjp(array(np.ones(shape)), array(target), reduction=reduction)
    assert tuple(loss.shape) == (per_row if reduction == "none" else ())
    np.testing.assert_array_equal(np.asarray(vjp(1.0)), np.zeros(shape))


# Small results keep their digits.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gap", [16.0, 20.0, 30.0, 87.0])
@pytest.mark.parametrize("offset", [0.0, 4096.0])
def test_a_certain_row_keeps_the_digits_of_its_gradient(gap, offset, dtype):
    logits = np.array([[offset + gap, offset]], dtype)
    loss, vjp = xent.cross_entropy_vjp(logits, [0])
    tail = math.exp(-gap)
    np.testing.assert_allclose(loss, math.log1p(tail), rtol=6e-8 if dtype == "float32" else 4e-16)
    expected = [[-tail / (1 + tail), tail / (1 + tail)]]
    np.testing.assert_allclose(vjp(1.0), expected, rtol=6e-8 if dtype == "float32" else 1e-15)


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_one_hot_probabilities_have_the_digits_of_class_indices(rng, spread):
    logits, target = rng.normal(0, spread, (5, 40)), rng.integers(0, 40, 5)
    target[:2] = logits[:2].argmax(axis=1)
    right = oracle.cross_entropy_grad(logits, target, reduction="sum").dlogits
    for either in (target, np.eye(40)[target]):
        dlogits = xent.cross_entropy_vjp(logits, either, reduction="sum")[1](1.0)
        assert np.max(oracle.ulp_error(dlogits, right, "float64")) <= 4


@pytest.mark.parametrize("smoothing", [1e-10, 1e-3])
def test_a_smoothed_certain_row_keeps_its_digits(smoothing):
    logits = np.array([[35.0, 1.0, 0.0]])
    loss, vjp = xent.cross_entropy_vjp(logits, [0], label_smoothing=smoothing)
    right = oracle.cross_entropy(logits, [0], label_smoothing=smoothing)
    np.testing.assert_allclose(loss, float(right), rtol=1e-15)
    dlogits = oracle.cross_entropy_grad(logits, [0], label_smoothing=smoothing).dlogits
    np.testing.assert_allclose(vjp(1.0), np.asarray(dlogits, float), rtol=3e-15)


@pytest.mark.parametrize(("soft", "limit"), [(False, 1.3), (True, 1.4)])
def test_the_peak_of_memory_is_one_gradient(rng, soft, limit):
    logits = rng.normal(size=(2000, 5000)).astype(np.float32)
    target = np.abs(logits) if soft else rng.integers(0, 5000, 2000)
    tracemalloc.start()
    try:
        plan = xent.Plan(gradient="recompute")
        _, vjp = xent.cross_entropy_vjp(logits, target, plan=plan)
        _, forward = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        dlogits = vjp(1.0)
        _, backward = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert forward < 0.4 * dlogits.nbytes
    assert backward < limit * dlogits.nbytes
    del dlogits
    tracemalloc.start()
    try:
        _, vjp = xent.cross_entropy_vjp(logits, target)
        dlogits = vjp(1.0)
        _, both = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert both < limit * dlogits.nbytes
