"""Families of continuous distributions with closed forms of entropy, cross entropy and divergence.

The entropies are those of Cover and Thomas, Elements of Information Theory (2006), table 17.1, the
divergences those of Gil, Alajaji and Linder, Rényi divergence measures for commonly used univariate
continuous distributions (2013), arranged so that nothing cancels: near distributions, narrow ones
and large parameters keep their digits. In them e(s) = s - 1 - log s, which is >= 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from xent.info import checks, terms
from xent.info.gamma import log_gamma_excess, stirling

LOG_2PI = math.log(2 * math.pi)


class Family(ABC):
    """A family of distributions: the methods that all of them have.

    Parameters are numbers or NumPy arrays that broadcast, one distribution for each entry, and so
    are the results.

    >>> p, q = Normal(0, 1), Normal(1, 2)
    >>> p.entropy(base=2)
    np.float64(2.047095585180641)
    >>> p.kl_divergence(q)
    np.float64(0.4431471805599453)
    >>> p.cross_entropy(q)
    np.float64(1.862085713764618)
    >>> p.density([0.0, 1.0])
    array([0.39894228, 0.24197072])
    """

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value.tolist()}" for name, value in vars(self).items())
        return f"{type(self).__name__}({values})"

    def _keep(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            object.__setattr__(self, name, value)

    def entropy(self, *, base: float | None = None) -> Any:
        """The differential entropy -integral p log p, in nats or to the base given; may be < 0."""
        log_base = checks.log_base(f"{type(self).__name__}.entropy", base)
        return np.asarray(self._entropy() / log_base)[()]

    def kl_divergence(self, other: Any, *, base: float | None = None) -> Any:
        """KL(self || other) = integral p log(p / q) >= 0 from another one of the same family."""
        function = f"{type(self).__name__}.kl_divergence"
        log_base = checks.log_base(function, base)
        checks.same_family(function, self, other)
        return np.asarray(self._divergence(other) / log_base)[()]

    def cross_entropy(self, other: Any, *, base: float | None = None) -> Any:
        """H(self, other) = -integral p log q = entropy + KL divergence, within the same family."""
        function = f"{type(self).__name__}.cross_entropy"
        log_base = checks.log_base(function, base)
        checks.same_family(function, self, other)
        return np.asarray((self._entropy() + self._divergence(other)) / log_base)[()]

    def density(self, points: Any) -> Any:
        """The probability density at points; 0 outside the support."""
        return np.exp(self.log_density(points))

    def log_density(self, points: Any) -> Any:
        """The logarithm of the density at points; -inf outside the support."""
        points = checks.numpy_array(f"{type(self).__name__}.log_density", "points", points)
        return np.asarray(self._log_density(points))[()]

    @abstractmethod
    def _entropy(self) -> Any: ...

    @abstractmethod
    def _divergence(self, other: Any) -> Any: ...

    @abstractmethod
    def _log_density(self, points: np.ndarray) -> Any: ...


@dataclass(frozen=True, repr=False)
class Normal(Family):
    """The normal distribution of a mean and a standard deviation > 0.

    In nats::

        H = log std + (1 + log 2 pi) / 2
        KL = (e(std_p^2 / std_q^2) + ((mean_p - mean_q) / std_q)^2) / 2

    >>> Normal(0, 1).entropy()
    np.float64(1.4189385332046727)
    """

    mean: Any
    std: Any

    def __post_init__(self) -> None:
        self._keep(**checks.parameters("Normal", positive="std", mean=self.mean, std=self.std))

    def _entropy(self) -> Any:
        return (1 + LOG_2PI) / 2 + np.log(self.std)

    def _divergence(self, other: Normal) -> Any:
        gap = other.std - self.std
        ratio = 2 * terms.log_ratio(xp, other.std, self.std, gap)
        spread = terms.excess(xp, 1.0, ratio, gap / other.std * (1 + self.std / other.std))
        return (spread + np.square((self.mean - other.mean) / other.std)) / 2

    def _log_density(self, points: np.ndarray) -> Any:
        return -(np.square((points - self.mean) / self.std) + LOG_2PI) / 2 - np.log(self.std)


@dataclass(frozen=True, repr=False)
class MultivariateNormal(Family):
    """The normal distribution of a mean (..., D) and a covariance (..., D, D), positive definite.

    In nats::

        H = (D (1 + log 2 pi) + log det covariance) / 2
        KL = (sum e(s) + m^2) / 2 with the eigenvalues s of covariance_q^-1 covariance_p and the
        Mahalanobis distance m of the means under covariance_q

    >>> MultivariateNormal([0, 0], [[1, 0], [0, 1]]).entropy()
    np.float64(2.8378770664093453)
    """

    mean: Any
    covariance: Any

    def __post_init__(self) -> None:
        self._keep(**checks.normal_parameters("MultivariateNormal", self.mean, self.covariance))

    def _entropy(self) -> Any:
        return self.mean.shape[-1] * (1 + LOG_2PI) / 2 + self._log_volume()

    def _divergence(self, other: MultivariateNormal) -> Any:
        root = np.linalg.cholesky(other.covariance)
        half = np.linalg.solve(root, self.covariance - other.covariance)
        growth = np.linalg.eigvalsh(np.linalg.solve(root, np.swapaxes(half, -1, -2)))
        near = np.max(np.abs(growth), axis=-1) < 0.5  # else the determinants tell more
        small = np.where(near[..., None], growth, 0.0)
        volumes = self._log_volume() - other._log_volume()
        spread = np.where(
            near,
            np.sum(_e(np.ones_like(small), 1 + small, small), axis=-1),
            np.sum(growth, axis=-1) - 2 * volumes,
        )
        step = np.linalg.solve(root, (self.mean - other.mean)[..., None])[..., 0]
        return (spread + np.sum(np.square(step), axis=-1)) / 2

    def _log_density(self, points: np.ndarray) -> Any:
        root = np.linalg.cholesky(self.covariance)
        step = np.linalg.solve(root, (points - self.mean)[..., None])[..., 0]
        constant = self.mean.shape[-1] * LOG_2PI / 2
        return -np.sum(np.square(step), axis=-1) / 2 - constant - self._log_volume()

    def _log_volume(self) -> Any:
        """log det(covariance) / 2."""
        root = np.linalg.cholesky(self.covariance)
        return np.sum(np.log(np.diagonal(root, axis1=-2, axis2=-1)), axis=-1)


@dataclass(frozen=True, repr=False)
class Uniform(Family):
    """The uniform distribution between low and high.

    In nats::

        H = log(high - low)
        KL = log((high_q - low_q) / (high_p - low_p)), inf unless q covers p

    >>> Uniform(0, 8).entropy(base=2)
    np.float64(3.0)
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        self._keep(**checks.bounds("Uniform", self.low, self.high))

    def _entropy(self) -> Any:
        return np.log(self.high - self.low)

    def _divergence(self, other: Uniform) -> Any:
        covered = (other.low <= self.low) & (self.high <= other.high)
        width, other_width = self.high - self.low, other.high - other.low
        gap = (other.high - self.high) + (self.low - other.low)
        ratio = terms.log_ratio(xp, other_width, width, np.where(covered, gap, 0.0))
        return np.where(covered, ratio, math.inf)

    def _log_density(self, points: np.ndarray) -> Any:
        inside = (self.low <= points) & (points <= self.high)
        return np.where(inside, -np.log(self.high - self.low), -math.inf)


@dataclass(frozen=True, repr=False)
class Exponential(Family):
    """The exponential distribution of a rate > 0, the inverse of its mean.

    In nats::

        H = 1 - log rate
        KL = e(rate_q / rate_p)

    >>> Exponential(1).entropy()
    np.float64(1.0)
    """

    rate: Any

    def __post_init__(self) -> None:
        self._keep(**checks.parameters("Exponential", positive="rate", rate=self.rate))

    def _entropy(self) -> Any:
        return 1 - np.log(self.rate)

    def _divergence(self, other: Exponential) -> Any:
        return _e(self.rate, other.rate, other.rate - self.rate)

    def _log_density(self, points: np.ndarray) -> Any:
        return np.where(points >= 0, np.log(self.rate) - self.rate * points, -math.inf)


@dataclass(frozen=True, repr=False)
class Laplace(Family):
    """The Laplace distribution of a mean and a scale > 0.

    Its density is `exp(-|x - mean| / scale) / (2 scale)`. In nats::

        H = 1 + log 2 scale
        KL = e(s) + s (exp(-t) - 1 + t)
        with s = scale_p / scale_q and t = |mean_p - mean_q| / scale_p

    >>> Laplace(0, 0.5).entropy()
    np.float64(1.0)
    """

    mean: Any
    scale: Any

    def __post_init__(self) -> None:
        given = {"mean": self.mean, "scale": self.scale}
        self._keep(**checks.parameters("Laplace", positive="scale", **given))

    def _entropy(self) -> Any:
        return 1 + np.log(2 * self.scale)

    def _divergence(self, other: Laplace) -> Any:
        step = np.abs(self.mean - other.mean) / self.scale
        shift = self.scale / other.scale * terms.excess(xp, 1.0, step, -np.expm1(-step))
        return _e(other.scale, self.scale, self.scale - other.scale) + shift

    def _log_density(self, points: np.ndarray) -> Any:
        return -np.abs(points - self.mean) / self.scale - np.log(2 * self.scale)


@dataclass(frozen=True, repr=False)
class Gamma(Family):
    """The gamma distribution of a shape > 0 and a rate > 0.

    In nats::

        H = shape - log rate + log Gamma(shape) + (1 - shape) psi(shape)
        KL = log Gamma(shape_q) - log Gamma(shape_p) - psi(shape_p) (shape_q - shape_p)
             + shape_p e(rate_q / rate_p) + (shape_q - shape_p) log(rate_p / rate_q),
        of a relative error of about shape eps where shapes and rates differ in proportion

    >>> Gamma(1, 1).entropy()
    np.float64(1.0)
    """

    shape: Any
    rate: Any

    def __post_init__(self) -> None:
        given = {"shape": self.shape, "rate": self.rate}
        self._keep(**checks.parameters("Gamma", positive="shape rate", **given))

    def _entropy(self) -> Any:
        remainder, slope = stirling(self.shape)
        volume = (LOG_2PI + np.log(self.shape)) / 2 - np.log(self.rate)
        return volume + remainder + (self.shape - 1) * slope

    def _divergence(self, other: Gamma) -> Any:
        gap = other.rate - self.rate
        step = other.shape - self.shape
        shapes = log_gamma_excess(self.shape, other.shape, step)
        cross = step * terms.log_ratio(xp, self.rate, other.rate, -gap)
        return shapes + self.shape * _e(self.rate, other.rate, gap) + cross

    def _log_density(self, points: np.ndarray) -> Any:
        from scipy.special import gammaln, xlogy

        inside, a = np.maximum(points, 0.0), self.shape
        with terms.quiet(points):
            density = a * np.log(self.rate) - gammaln(a) + xlogy(a - 1, inside)
        return np.where(points >= 0, density - self.rate * inside, -math.inf)


@dataclass(frozen=True, repr=False)
class Beta(Family):
    """The beta distribution of a > 0 and b > 0: density x^(a-1) (1-x)^(b-1) / B(a, b) on [0, 1].

    In nats::

        H = log B(a, b) - (a - 1) psi(a) - (b - 1) psi(b) + (a + b - 2) psi(a + b)
        KL = g(a_p, a_q) + g(b_p, b_q) - g(a_p + b_p, a_q + b_q)
        with g(s, t) = log Gamma(t) - log Gamma(s) - psi(s) (t - s),
        of a relative error of about (a + b) eps where both parameters differ in proportion

    >>> Beta(1, 1).entropy()
    np.float64(0.0)
    """

    a: Any
    b: Any

    def __post_init__(self) -> None:
        self._keep(**checks.parameters("Beta", positive="a b", a=self.a, b=self.b))

    def _entropy(self) -> Any:
        entropy = (LOG_2PI + np.log(self.a) + np.log(self.b) - 3 * np.log(self.a + self.b)) / 2
        for sign, value, offset in ((1, self.a, 1), (1, self.b, 1), (-1, self.a + self.b, 2)):
            remainder, slope = stirling(value)
            entropy = entropy + sign * (remainder + (value - offset) * slope)
        return entropy

    def _divergence(self, other: Beta) -> Any:
        a, b = other.a - self.a, other.b - self.b
        parts = log_gamma_excess(self.a, other.a, a) + log_gamma_excess(self.b, other.b, b)
        return parts - log_gamma_excess(self.a + self.b, other.a + other.b, a + b)

    def _log_density(self, points: np.ndarray) -> Any:
        from scipy.special import betaln, xlog1py, xlogy

        inside = np.clip(points, 0.0, 1.0)
        with terms.quiet(points):
            density = xlogy(self.a - 1, inside) + xlog1py(self.b - 1, -inside)
        support = (points >= 0) & (points <= 1)
        return np.where(support, density - betaln(self.a, self.b), -math.inf)


def _e(a: Any, b: Any, gap: Any) -> Any:
    """e(b / a) = b / a - 1 - log(b / a), given b - a."""
    return terms.excess(xp, 1.0, terms.log_ratio(xp, a, b, -gap), -gap / a)
