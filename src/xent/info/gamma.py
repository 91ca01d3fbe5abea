"""The gamma function without cancellation: what the beta and gamma families are made of."""

from __future__ import annotations

from typing import Any

import numpy as np


def stirling(a: Any) -> tuple[Any, Any]:
    """R(a) = log Gamma(a) - (a - 1/2) log a + a - log(2 pi) / 2 and T(a) = log a - psi(a).

    Both vanish as a grows, where the functions they are made of do not; from 16 on they are their
    asymptotic series (Abramowitz and Stegun 6.1.40, 6.3.18).
    """
    from scipy.special import bernoulli, gammaln, psi

    a = np.asarray(a)
    small, large = np.minimum(a, 16.0), np.maximum(a, 16.0)
    k = np.arange(2, 16, 2)
    powers = bernoulli(14)[2::2] / k * large[..., None] ** -k.astype(float)
    remainder = np.sum(powers / (k - 1), axis=-1) * large
    slope = np.sum(powers, axis=-1) + 1 / (2 * large)
    direct = gammaln(small) - ((small - 0.5) * np.log(small) - small + np.log(2 * np.pi) / 2)
    return (
        np.where(a < 16, direct, remainder),
        np.where(a < 16, np.log(small) - psi(small), slope),
    )


def log_gamma_excess(a: Any, b: Any, step: Any) -> Any:
    """log Gamma(b) - log Gamma(a) - psi(a) (b - a) >= 0, given b - a as step.

    Where b is near a it is the integral of psi'(a + t step) step^2 (1 - t) over t in [0, 1], by
    Gauss-Legendre, as the difference would cancel.
    """
    from scipy.special import gammaln, polygamma, psi

    step = np.asarray(step)
    near = np.abs(step) < a / 2
    nodes, weights = np.polynomial.legendre.leggauss(16)
    t = (nodes + 1) / 2
    path = np.asarray(a)[..., None] + t * np.where(near, step, 0.0)[..., None]
    integral = step * step * np.sum(weights / 2 * (1 - t) * polygamma(1, path), axis=-1)
    return np.where(near, integral, gammaln(b) - gammaln(a) - psi(a) * step)
