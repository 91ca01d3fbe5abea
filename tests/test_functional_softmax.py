"""softmax, log_softmax and logsumexp: against the oracle, torch and SciPy."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent.conformance import exact, oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
ORACLE = {
    "softmax": oracle.softmax,
    "log_softmax": oracle.log_softmax,
    "logsumexp": oracle.logsumexp,
}
EACH = pytest.mark.parametrize("name", ORACLE)


def worst(got, right):
    dtype = str(got.dtype).rsplit(".", 1)[-1]
    got = np.asarray(got.to(torch.float64) if isinstance(got, torch.Tensor) else got, float)
    assert got.shape == np.shape(right)
    return np.max(oracle.ulp_error(got, right, dtype), initial=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    shape=st.sampled_from([(6,), (2, 5), (3, 2, 4), (2, 2, 2, 3), (3, 2), (0, 4)]),
    spread=st.sampled_from([0.01, 1.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, 1000.0, -3e4]),
    data=st.data(),
)
@settings(max_examples=80)
@pytest.mark.parametrize("name", ORACLE)
def test_to_the_last_digit(name, seed, dtype, shape, spread, offset, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1).filter(lambda a: shape[a] > 0))
    x = np.random.default_rng(seed).normal(0, 1, shape) * spread + offset
    x = np.clip(x, -6e4, 6e4).astype(dtype)
    right = ORACLE[name](x, axis)
    for array in (np.asarray, torch.asarray):
        result = getattr(xent, name)(array(x), axis)
        assert str(result.dtype).endswith(dtype)
        # The logarithm of a sum near 1 cancels: max + log1p(s) has the error of the maximum.
        near_zero = name == "logsumexp" and np.min(np.abs(np.asarray(right, float)), initial=9) < 1
        if not near_zero:
            native = name == "logsumexp" and dtype == "float32"  # a kernel's, where there is one
            assert worst(result, right) <= (3 if dtype == "float64" or native else 0.51)


def test_bfloat16(rng):
    x = torch.tensor(rng.normal(0, 5, (20, 9))).to(torch.bfloat16)
    for name, right in ORACLE.items():
        result = getattr(xent, name)(x)
        assert result.dtype == torch.bfloat16
        assert worst(result, right(x.double().numpy())) <= 0.51


@EACH
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_as_torch(rng, name, axis, dtype):
    x = torch.tensor(rng.normal(0, 3, (3, 4, 5)).astype(dtype))
    torch.testing.assert_close(getattr(xent, name)(x, axis), getattr(torch, name)(x, axis))


@EACH
def test_as_scipy(rng, name):
    x = rng.normal(0, 3, (4, 5))
    result = getattr(xent, name)(x)
    right = getattr(scipy.special, name)(x, axis=-1)
    np.testing.assert_allclose(result, right, rtol=1e-13, atol=1e-14)


# row: (softmax, log_softmax, logsumexp)
EDGES = {
    "-inf": ([0.0, -INF, 0.0], [0.5, 0.0, 0.5], [-math.log(2), -INF, -math.log(2)], math.log(2)),
    "all -inf": ([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF),
    "+inf": ([INF, 0.0], [NAN, NAN], [NAN, NAN], INF),
    "nan": ([NAN, INF, 0.0], [NAN, NAN, NAN], [NAN, NAN, NAN], NAN),
    "one": ([7.0], [1.0], [0.0], 7.0),
    "far apart": ([1e308, -1e308], [1.0, 0.0], [0.0, -INF], 1e308),
    "all but one": ([0.0, -40.0], None, [-math.exp(-40), -40.0], math.exp(-40)),
    "subnormal": ([0.0, -740.0], [1.0, math.exp(-740)], [-math.exp(-740), -740.0], None),
}


@LIBRARIES
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, array):
    x, *expected = EDGES[edge]
    for name, value in zip(ORACLE, expected, strict=True):
        if value is not None:
            result = np.asarray(getattr(xent, name)(array(np.array(x))))
            np.testing.assert_allclose(result, value, rtol=2e-16, atol=5e-324)


@LIBRARIES
@EACH
@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 1), ((0, 3), 0), ((2, 0), 1), ((2, 0, 3), 1)])
def test_empty(name, shape, axis, array):
    result = getattr(xent, name)(array(np.zeros(shape)), axis)
    if name == "logsumexp":
        left = shape[:axis] + shape[axis + 1 :]
        np.testing.assert_array_equal(np.asarray(result), np.full(left, -INF))
    else:
        assert tuple(result.shape) == shape


def test_logsumexp_of_a_row_is_a_number():
    assert type(xent.logsumexp(np.zeros(3))) is np.float64
    assert type(xent.logsumexp(np.zeros(3, np.float32))) is np.float32


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_dtype_is_cast_to_first(rng, name, wide):
    x = torch.tensor(rng.normal(0, 5, (4, 6))).to(torch.bfloat16)
    result = getattr(xent, name)(x, -1, wide)
    assert result.dtype == wide
    torch.testing.assert_close(result, getattr(torch, name)(x, -1, wide))
    integers = torch.tensor([[1, 2, 3]])
    assert worst(getattr(xent, name)(integers, dtype=wide), ORACLE[name]([[1, 2, 3]])) <= 3
    array = np.array([[1, 2, 3]])
    assert worst(getattr(xent, name)(array, dtype=np.float32), ORACLE[name](array)) <= 0.51


@pytest.mark.parametrize("name", ORACLE)
def test_gradients_through_autograd(rng, name):
    x, upstream = rng.normal(0, 3, (3, 5)), rng.normal(size=(3, 5))
    upstream = upstream[:, 0] if name == "logsumexp" else upstream
    leaf = torch.tensor(x, requires_grad=True)
    getattr(xent, name)(leaf).backward(torch.tensor(upstream))
    right = getattr(oracle, f"{name}_vjp")(x, upstream)
    np.testing.assert_allclose(leaf.grad, np.asarray(right, float), rtol=1e-13, atol=1e-15)
    slopes = exact.differences(lambda moved: ORACLE[name](moved), x, upstream)
    np.testing.assert_allclose(leaf.grad, np.asarray(slopes, float), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_results_lie_in_memory_as_the_input(rng, name, axis):
    x = rng.normal(size=(2, 3, 4))
    assert getattr(xent, name)(x, axis).strides == x.strides
    columns = np.asfortranarray(x[0])
    assert getattr(xent, name)(columns, axis % 2).strides == columns.strides
