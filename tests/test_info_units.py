"""Units, perplexity and bits per byte."""

from __future__ import annotations

import math

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch

from xent import info


def test_units(rng):
    nats = rng.uniform(0, 20, 50)
    bits = info.to_bits(nats)
    np.testing.assert_allclose(
        bits, [float(mpmath.mpf(v) / mpmath.log(2)) for v in nats], rtol=3e-16
    )
    np.testing.assert_allclose(info.to_nats(bits), nats, rtol=4e-16)
    assert info.to_bits(math.log(2)) == 1
    assert isinstance(info.to_nats(np.float32(3)), np.float32)


def test_perplexity():
    assert info.perplexity([0.0, 1.0, 10.0], base=2).tolist() == [1.0, 2.0, 1024.0]
    assert info.perplexity(2.5) == pytest.approx(float(mpmath.exp(2.5)), rel=3e-16)
    assert info.perplexity(info.entropy(np.full(7, 1 / 7))) == pytest.approx(7, rel=1e-15)
    assert info.perplexity([709.0, 710.0]).tolist() == [math.exp(709), math.inf]
    assert info.perplexity(np.float32(89)) == math.inf
    assert math.isnan(info.perplexity(math.nan))  # of the mean of no rows


def test_perplexity_of_the_truth_where_a_softmax_would_be_zero():
    nll = info.cross_entropy([0.0, 1.0], [120.0, 0.0], from_logits=(False, True))
    assert info.perplexity(nll) == pytest.approx(float(mpmath.exp(120)), rel=1e-14)


def test_bits_per_byte():
    assert info.bits_per_byte(math.log(2) * 30, 10) == 3
    sums, lengths = np.float32([8.0, 2.0]), np.array([4, 1])
    value = info.bits_per_byte(sums, lengths)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, [2 / math.log(2)] * 2, rtol=1e-7)
    tensor = info.bits_per_byte(torch.tensor([8.0, 2.0]), torch.tensor([4, 1]))
    np.testing.assert_array_equal(tensor.numpy(), value)


@pytest.mark.parametrize(
    "function",
    [info.to_bits, info.to_nats, info.perplexity, lambda x: info.bits_per_byte(x, 3)],
)
def test_libraries_and_derivatives(function, rng):
    values = rng.uniform(0, 5, 4)
    kept, expected = values.copy(), function(values)
    strict = function(array_api_strict.asarray(values))
    np.testing.assert_allclose(np.asarray(strict), expected, rtol=1e-15)
    tensor = torch.from_numpy(values).requires_grad_()
    assert torch.autograd.gradcheck(function, tensor)
    assert torch.autograd.gradgradcheck(function, tensor)
    assert function(tensor.half()).dtype == torch.float16
    np.testing.assert_array_equal(values, kept)
