"""The gamma function's remainders against mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from xent.info.gamma import log_gamma_excess, stirling


@pytest.fixture(autouse=True, scope="module")
def precision():
    with mpmath.workprec(300):
        yield


@pytest.mark.parametrize("a", [1e-6, 0.3, 1.0, 4.7, 15.9, 16.0, 30.5, 1e3, 1e8])
def test_stirling(a):
    x = mpmath.mpf(a)
    remainder, slope = stirling(a)
    truth = mpmath.loggamma(x) - ((x - 0.5) * mpmath.log(x) - x + mpmath.log(2 * mpmath.pi) / 2)
    assert abs(float(remainder - truth)) <= 1e-14
    truth = mpmath.log(x) - mpmath.digamma(x)
    assert abs(float((slope - truth) / truth)) <= (1e-13 if a < 16 else 1e-15)


@pytest.mark.parametrize("a", [1e-3, 0.5, 1.0, 20.0, 1e6])
@pytest.mark.parametrize("step", [2.0, 0.6, 0.49, -0.49, -0.9, 1e-3, -1e-8, 1e-12, 0.0])
def test_log_gamma_excess(a, step):
    b = a + step * a
    x, y = mpmath.mpf(a), mpmath.mpf(b)
    truth = mpmath.loggamma(y) - mpmath.loggamma(x) - mpmath.digamma(x) * (y - x)
    value = log_gamma_excess(np.float64(a), np.float64(b), b - a)
    assert value >= 0
    allowed = 1e-14 * float(truth) if abs(step) < 0.5 else 1e-14 * a * (1 + abs(np.log(a))) * 3
    assert abs(float(value - truth)) <= allowed
