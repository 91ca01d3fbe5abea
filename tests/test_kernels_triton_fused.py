"""The Triton kernels of a whole loss, one by one: sums, codes, and when they do nothing."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from triton_cases import there

from xent.kernels import triton_fused, triton_loss
from xent.kernels.triton_rows import _launch


@pytest.fixture(autouse=True)
def running():
    with triton_cases.running():
        yield


def numbers_of(*values):
    return there(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 1000, 2500])
def test_a_sum_loses_next_to_nothing(rng, count):
    values = rng.lognormal(0, 20, count)
    out = numbers_of(0.0)
    triton_loss._sum(there(torch.from_numpy(values)), out, numbers_of(3.0), False)
    right = float(sum(map(Fraction, values.tolist())))
    assert abs(float(out) - right) <= 2 * math.ulp(right)
    triton_loss._sum(there(torch.from_numpy(values)), out, numbers_of(3.0), True)
    assert abs(float(out) - right / 3) <= 2 * math.ulp(right / 3)


@pytest.mark.parametrize("strange", [float("inf"), float("nan")])
def test_a_sum_of_what_is_not_finite(rng, strange):
    values = there(torch.from_numpy(rng.normal(size=2000)))
    values[1500] = strange
    out = numbers_of(0.0)
    triton_loss._sum(values, out, out, False)
    assert np.array_equal(float(out), strange, equal_nan=True)


@pytest.mark.parametrize("given", [2.0, 0.0, float("inf"), float("nan")])
def test_an_upstream_is_noted_and_expected_where_one_can_divide_by_it(given):
    numbers, expected = numbers_of(1, 1, 1, 1), numbers_of(5.0)
    _launch(triton_fused.heed, 1, 1, there(torch.tensor(given)), numbers, expected)
    assert np.array_equal(float(numbers[triton_loss.GIVEN]), given, equal_nan=True)
    assert float(expected) == (2 if given == 2 else 5)


@pytest.mark.parametrize("expected", [None, 7.0])
def test_the_shared_numbers(expected):
    target = there(torch.tensor([3, -100, 0, 9, -1]))
    codes, numbers = torch.zeros_like(target), numbers_of(0, 0, 0, 0)
    weight = numbers_of(0.5, 1, 1, 4)
    remembered = None if expected is None else numbers_of(expected)
    for count, w, divisor in ((True, weight, 4.5), (True, None, 2), (False, None, 2.5)):
        given = target, w, codes, numbers, numbers, remembered, 5, 1024, 4, -100
        bits = triton_loss._bits_of(2.5)
        _launch(triton_fused.prepare, 1, 4, *given, *bits, B=1024, COUNT=count)
        assert codes.tolist() == [3, -1, 0, -2, -2]
        assert float(numbers[0]) == divisor
        assert float(numbers[triton_loss.EXPECTED]) == (expected or 1)
        assert math.isnan(float(numbers[triton_loss.NEVER]))


def test_a_gradient_is_scaled_from_one_upstream_to_another(rng):
    found = there(torch.from_numpy(rng.normal(size=(3, 2, 5))))
    right = found / 4
    for made_for in (8.0, 2.0):  # the second is the given one: nothing is written
        numbers = numbers_of(1.0, made_for, math.nan, 2.0)
        triton_loss.rescale(triton_loss.Loss(*(None,) * 4, numbers, None), found)
        torch.testing.assert_close(found, right, rtol=1e-15, atol=0)
