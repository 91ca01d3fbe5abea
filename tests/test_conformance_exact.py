"""Distances in ULP against the neighbours that NumPy and torch name; exact arithmetic."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

from xent.conformance import exact

INF, NAN = math.inf, math.nan
NUMPY_FORMATS = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", NUMPY_FORMATS)
def test_ulp_error_of_neighbours(rng, dtype):
    info = np.finfo(dtype)
    drawn = rng.uniform(1, 1.999, 40) * 2.0 ** rng.integers(info.minexp, info.maxexp, 40)
    values = np.concatenate([drawn, -drawn, [1.0, info.tiny, info.smallest_subnormal, 0.0]])
    values = values.astype(dtype)
    above = np.nextafter(values, dtype(INF))
    np.testing.assert_array_equal(exact.ulp_error(values, values, dtype), 0.0)
    positive = values >= 0
    errors = exact.ulp_error(above, values, dtype)
    np.testing.assert_array_equal(errors[positive], 1.0)
    with mpmath.workprec(100):
        midway = (exact.exactly(values) + exact.exactly(above)) / 2
    np.testing.assert_array_equal(exact.ulp_error(above, midway, dtype)[positive], 0.5)
    assert exact.ulp_error(np.nextafter(dtype(1), dtype(0)), 1, dtype) == 0.5
    assert exact.ulp_error(info.smallest_subnormal, 0, np.dtype(dtype)) == 1.0
    assert exact.ulp_error(0.0, info.smallest_subnormal / mpf(4), dtype.__name__) == 0.25


def test_ulp_error_in_bfloat16(rng):
    values = torch.from_numpy(rng.normal(0, 1e-3, 50)).abs().bfloat16()
    above = torch.nextafter(values, torch.tensor(INF, dtype=torch.bfloat16))
    errors = exact.ulp_error(above.double().numpy(), values.double().numpy(), torch.bfloat16)
    np.testing.assert_array_equal(errors, 1.0)
    assert exact.ulp_error(2.0**-133, 0, "bfloat16") == 1.0


@pytest.mark.parametrize("dtype", NUMPY_FORMATS)
def test_ulp_error_beyond_the_numbers(dtype):
    info = np.finfo(dtype)
    largest = float(info.max)
    with mpmath.workprec(100):
        spacing = mpf(largest) - mpf(float(np.nextafter(info.max, dtype(0))))
        close, midway, beyond = (largest + k * spacing for k in (0.25, 0.5, 2.0**60))
    for got, right, error in [
        (INF, INF, 0.0),
        (-INF, INF, INF),
        (NAN, NAN, 0.0),
        (NAN, 1, INF),
        (1.0, NAN, INF),
        (1.0, INF, INF),
        (INF, 1, INF),
        (INF, midway, 0.0),
        (-INF, midway, INF),
        (-INF, -midway, 0.0),
        (INF, close, INF),
        (largest, close, 0.25),
        (largest, beyond, 2.0**60),
    ]:
        assert exact.ulp_error(got, right, dtype) == error, (got, right)
