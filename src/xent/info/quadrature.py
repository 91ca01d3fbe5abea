"""Entropy, cross entropy and divergence of any densities on the line, by adaptive quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from xent.info import checks

Density = Callable[[float], Any]


def differential_entropy(
    density: Density,
    low: float,
    high: float,
    *,
    base: float | None = None,
    points: Sequence[float] = (),
    log: bool = False,
) -> float:
    """The differential entropy -integral p log p of a density between two limits; may be < 0.

    Args:
        density: maps a float to the density p there, >= 0. Its integral between the limits is 1.
        low: may be -inf.
        high: may be inf.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        points: between the limits, where the density jumps, peaks or turns: the range is split
            there. Without them a narrow peak in a wide range may be missed, which is an error,
            never a wrong result.
        log: density returns log p, -inf where p is 0.

    Returns:
        The integral, to about 8 digits or better. Where p is 0 the integrand is 0.

    Raises:
        ValueError: the density is negative, nan or inf somewhere, or does not integrate to 1, or
            an integral does not converge, or the limits or points are out of order.
        TypeError: density cannot be called.

    Source: Cover and Thomas, Elements of Information Theory (2006), section 8.1; QUADPACK, which
    `scipy.integrate.quad` calls.

    >>> round(differential_entropy(lambda x: 2 * x, 0, 1), 12)
    -0.19314718056
    """
    function = "differential_entropy"
    log_base = checks.log_base(function, base)
    pieces = checks.pieces(function, low, high, points)
    p = _logarithm(function, "density", density, log)
    _mass(function, "density", p, pieces)
    return _integral(function, "-p log p", lambda x: _product(p(x), -p(x)), pieces) / log_base


def differential_cross_entropy(
    p: Density,
    q: Density,
    low: float,
    high: float,
    *,
    base: float | None = None,
    points: Sequence[float] = (),
    log: bool = False,
) -> float:
    """The cross entropy -integral p log q of two densities between two limits.

    Args:
        p: maps a float to the density p there. Its integral between the limits is 1.
        q: the same for q, > 0 wherever p is.
        low: may be -inf.
        high: may be inf. The limits hold the whole mass of p and of q.
        base: as for `differential_entropy`.
        points: as for `differential_entropy`, for p and q.
        log: p and q return logarithms: a tail of q that underflows then stays exact.

    Returns:
        The integral, to about 8 digits or better. Where p is 0 the integrand is 0.

    Raises:
        ValueError: as for `differential_entropy`, or q is 0 somewhere where p is not.
        TypeError: p or q cannot be called.

    Source: as for `differential_entropy`.

    >>> round(differential_cross_entropy(lambda x: 1.0, lambda x: 2 * x, 0, 1), 12)
    0.30685281944
    """
    function = "differential_cross_entropy"
    log_base = checks.log_base(function, base)
    pieces = checks.pieces(function, low, high, points)
    log_p, log_q = _pair(function, p, q, log, pieces)
    return (
        _integral(function, "-p log q", lambda x: _product(log_p(x), -log_q(x)), pieces) / log_base
    )


def differential_kl_divergence(
    p: Density,
    q: Density,
    low: float,
    high: float,
    *,
    base: float | None = None,
    points: Sequence[float] = (),
    log: bool = False,
) -> float:
    """The divergence KL(p || q) = integral p log(p / q) of two densities between two limits.

    The integrand is p log(p / q) - p + q, which has the same integral and is never negative.

    Args:
        p: maps a float to the density p there. Its integral between the limits is 1.
        q: the same for q, > 0 wherever p is.
        low: may be -inf.
        high: may be inf. The limits hold the whole mass of p and of q.
        base: as for `differential_entropy`.
        points: as for `differential_entropy`, for p and q.
        log: p and q return logarithms: a tail of q that underflows then stays exact.

    Returns:
        The integral, >= 0, to about 8 digits or better. Where p is 0 its logarithm counts nothing.

    Raises:
        ValueError: as for `differential_cross_entropy`.
        TypeError: p or q cannot be called.

    Source: as for `differential_entropy`.

    >>> round(differential_kl_divergence(lambda x: 1.0, lambda x: 2 * x, 0, 1), 12)
    0.30685281944
    """
    function = "differential_kl_divergence"
    log_base = checks.log_base(function, base)
    pieces = checks.pieces(function, low, high, points)
    log_p, log_q = _pair(function, p, q, log, pieces)

    def integrand(x: float) -> float:
        at_p, at_q = log_p(x), log_q(x)
        if at_p == -math.inf:
            return math.exp(at_q)
        ratio = at_p - at_q
        if abs(ratio) < 1:  # cancels to 1e-16 of p where p and q agree: less than quad's error
            return max(math.exp(at_p) * (ratio + math.expm1(-ratio)), 0.0)
        return math.exp(at_p) * ratio - math.exp(at_p) + math.exp(at_q)

    return _integral(function, "p log(p / q) - p + q", integrand, pieces) / log_base


def _pair(
    function: str, p: Density, q: Density, log: bool, pieces: list[tuple[float, float]]
) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """log p and log q, both checked to be densities; log q also to be finite where p is not 0."""
    log_p, log_q = _logarithm(function, "p", p, log), _logarithm(function, "q", q, log)
    _mass(function, "p", log_p, pieces)
    _mass(function, "q", log_q, pieces)

    def covering(x: float) -> float:
        value = log_q(x)
        if value == -math.inf and log_p(x) > -math.inf:
            checks.not_covered(function, x, math.exp(log_p(x)))
        return value

    return log_p, covering


def _logarithm(function: str, name: str, density: Density, log: bool) -> Callable[[float], float]:
    """log density as a float, -inf where it is 0."""
    checks.callable_density(function, name, density)

    def logarithm(x: float) -> float:
        value = checks.density_value(function, name, x, density(x), log)
        if log:
            return value
        return math.log(value) if value > 0 else -math.inf

    return logarithm


def _mass(
    function: str, name: str, logarithm: Callable[[float], float], pieces: list[tuple[float, float]]
) -> None:
    mass = _integral(function, name, lambda x: math.exp(logarithm(x)), pieces)
    checks.unit_mass(function, name, mass, pieces[0][0], pieces[-1][1])


def _product(log_p: float, factor: float) -> float:
    """p times the factor; 0 where p is 0."""
    return 0.0 if log_p == -math.inf else math.exp(log_p) * factor


def _integral(
    function: str, what: str, integrand: Density, pieces: list[tuple[float, float]]
) -> float:
    """The sum of the integrals over the pieces, each of a small error estimate."""
    from scipy.integrate import quad

    total = 0.0
    for low, high in pieces:
        value, error, *_ = quad(
            integrand, low, high, epsabs=1e-12, epsrel=1e-12, limit=500, full_output=1
        )
        checks.converged(function, what, value, error, low, high)
        total += value
    return total
