"""The closed forms against SciPy's distributions, mpmath and quadrature."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from xent import info

m = mpmath.mpf

# Each with SciPy's distribution and two others of the family.
FAMILIES = [
    (info.Normal, scipy.stats.norm, (0.3, 0.7), (1.0, 2.0), (-math.inf, math.inf)),
    (info.Uniform, lambda a, b: scipy.stats.uniform(a, b - a), (0.5, 1.5), (0.0, 2.0), (0.0, 2.0)),
    (info.Exponential, lambda r: scipy.stats.expon(scale=1 / r), (0.7,), (2.0,), (0.0, math.inf)),
    (info.Laplace, scipy.stats.laplace, (0.3, 0.7), (1.0, 2.0), (-math.inf, math.inf)),
    (info.Beta, scipy.stats.beta, (2.5, 3.5), (2.0, 6.0), (0.0, 1.0)),
    (
        info.Gamma,
        lambda a, r: scipy.stats.gamma(a, scale=1 / r),
        (2.5, 0.7),
        (1.5, 2.0),
        (0.0, math.inf),
    ),
]
each_family = pytest.mark.parametrize(
    ("family", "reference", "first", "second", "support"),
    FAMILIES,
    ids=[row[0].__name__ for row in FAMILIES],
)


@pytest.fixture(autouse=True, scope="module")
def precision():
    with mpmath.workprec(300):
        yield


def test_known_numbers():
    assert info.Normal(0, 1).entropy() == 1.4189385332046727
    for std in (2.5, 0.1):
        truth = mpmath.log(2 * mpmath.pi * mpmath.e * m(std) ** 2) / 2
        assert info.Normal(0, std).entropy() == pytest.approx(float(truth), rel=4e-16)
    assert round(float(info.Normal(0, 0.1).entropy()), 4) == -0.8836
    assert info.Uniform(0, 8).entropy(base=2) == 3
    for distribution in (info.Exponential(1), info.Laplace(0, 0.5), info.Gamma(1, 1)):
        assert distribution.entropy() == 1
    assert info.Beta(1, 1).entropy() == 0


@each_family
def test_entropy_and_density_are_scipys(family, reference, first, second, support):
    for values in (first, second):
        ours, theirs = family(*values), reference(*values)
        assert ours.entropy() == pytest.approx(float(theirs.entropy()), rel=1e-13)
        points = np.concatenate([theirs.rvs(20, random_state=1), [-1.0, -1e-3, 7.0]])
        np.testing.assert_allclose(ours.density(points), theirs.pdf(points), rtol=1e-12)
        np.testing.assert_allclose(ours.log_density(points), theirs.logpdf(points), rtol=1e-12)


@each_family
def test_divergence_and_cross_entropy_are_the_integrals(family, reference, first, second, support):
    p, q = family(*first), family(*second)
    corners = {info.Uniform: (0.5, 1.5), info.Laplace: (0.3, 1.0)}.get(family, ())
    options = {"points": corners, "log": True}
    arguments = (p.log_density, q.log_density, *support)
    kl = info.differential_kl_divergence(*arguments, **options)
    assert p.kl_divergence(q) == pytest.approx(kl, abs=1e-9)
    cross = info.differential_cross_entropy(*arguments, **options)
    assert p.cross_entropy(q) == pytest.approx(cross, abs=1e-9)
    entropy = info.differential_entropy(p.log_density, *support, **options)
    assert p.entropy() == pytest.approx(entropy, abs=1e-9)


@each_family
def test_identities_bases_and_arrays(family, reference, first, second, support):
    p, q = family(*first), family(*second)
    kl = p.kl_divergence(q)
    assert isinstance(kl, np.float64)
    assert p.kl_divergence(p) == 0
    assert kl > 0
    assert p.cross_entropy(q) == pytest.approx(p.entropy() + kl, rel=1e-14)
    for method in (p.kl_divergence, p.cross_entropy):
        assert method(q, base=2) == pytest.approx(method(q) / math.log(2), rel=1e-14)
    assert p.entropy(base=10) == pytest.approx(p.entropy() / math.log(10), rel=1e-14)
    both = family(*np.stack([first, second], axis=-1))
    np.testing.assert_array_equal(both.entropy(), [p.entropy(), q.entropy()])
    np.testing.assert_array_equal(both.kl_divergence(q), [kl, 0.0])


def near(values, size, rng):
    return [v * (1 + size * rng.uniform(-1, 1)) for v in values]


@pytest.mark.parametrize("size", [1.0, 0.3, 1e-3, 1e-8, 1e-12])
def test_near_distributions_do_not_cancel(size, rng):
    for _ in range(20):
        mean, std = rng.uniform(0.5, 2, 2)
        s, t = near([mean, std], size / 2, rng)
        truth = (m(std) / t) ** 2
        truth = (truth - 1 - mpmath.log(truth) + ((m(mean) - s) / t) ** 2) / 2
        check(info.Normal(mean, std).kl_divergence(info.Normal(s, t)), truth)
        truth = m(t) / std - 1 - mpmath.log(m(t) / std)
        check(info.Exponential(std).kl_divergence(info.Exponential(t)), truth)
        step = abs(m(mean) - s)
        truth = m(std) / t * mpmath.exp(-step / std) + step / t - 1 - mpmath.log(m(std) / t)
        check(info.Laplace(mean, std).kl_divergence(info.Laplace(s, t)), truth)
        truth = mpmath.log(m(t) / std)
        if t > std:
            check(info.Uniform(0, std).kl_divergence(info.Uniform(0, t)), truth)
        check(info.Gamma(mean, std).kl_divergence(info.Gamma(s, t)), gamma_kl(mean, std, s, t))
        check(info.Beta(mean, std).kl_divergence(info.Beta(s, t)), beta_kl(mean, std, s, t))


def check(value, truth):
    assert value >= 0
    assert abs(float(m(float(value)) - truth)) <= 1e-13 * float(truth)


def gamma_kl(a, r, c, s):
    a, r, c, s = map(m, (a, r, c, s))
    shapes = mpmath.loggamma(c) - mpmath.loggamma(a) + (a - c) * mpmath.digamma(a)
    return shapes + c * mpmath.log(r / s) + a * (s - r) / r


def beta_kl(a, b, c, d):
    a, b, c, d = map(m, (a, b, c, d))
    normalizer = mpmath.log(mpmath.beta(c, d)) - mpmath.log(mpmath.beta(a, b))
    sums = (c - a + d - b) * mpmath.digamma(a + b)
    return normalizer + (a - c) * mpmath.digamma(a) + (b - d) * mpmath.digamma(b) + sums


@pytest.mark.parametrize("a", [1e-3, 0.5, 3.0, 40.0, 1e4, 1e7])
@pytest.mark.parametrize("b", [0.1, 7.0, 1e6])
def test_entropy_of_large_and_small_parameters(a, b):
    x, y = m(a), m(b)
    truth = x - mpmath.log(y) + mpmath.loggamma(x) + (1 - x) * mpmath.digamma(x)
    assert abs(float(info.Gamma(a, b).entropy() - truth)) <= 3e-15 * (1 + abs(float(truth)))
    truth = mpmath.log(mpmath.beta(x, y)) - (x - 1) * mpmath.digamma(x)
    truth += (x + y - 2) * mpmath.digamma(x + y) - (y - 1) * mpmath.digamma(y)
    assert abs(float(info.Beta(a, b).entropy() - truth)) <= 3e-14 * (1 + abs(float(truth)))


def test_uniform_is_infinite_unless_covered():
    p = info.Uniform([0, 0, -1], 1)
    np.testing.assert_array_equal(
        p.kl_divergence(info.Uniform(0, [1, 2, 2])), [0.0, math.log(2), math.inf]
    )
    assert p.cross_entropy(info.Uniform(0.5, 2))[0] == math.inf


@pytest.mark.parametrize("size", [3.0, 1e-2, 1e-6, 1e-9])
def test_multivariate_normal(size, rng):
    def exact(matrix):
        return mpmath.matrix(matrix.tolist())

    root, mean = rng.normal(size=(3, 3)), rng.normal(size=3)
    covariance = root @ root.T + np.eye(3)
    change = rng.normal(size=(3, 3))
    other = covariance + size * (change @ change.T)
    other_mean = mean + size * rng.normal(size=3)
    p, q = info.MultivariateNormal(mean, covariance), info.MultivariateNormal(other_mean, other)
    theirs = scipy.stats.multivariate_normal(mean, covariance)
    assert p.entropy() == pytest.approx(float(theirs.entropy()), rel=1e-13)
    points = rng.normal(size=(4, 3))
    np.testing.assert_allclose(p.density(points), theirs.pdf(points), rtol=1e-12)
    inverse = exact(other) ** -1
    product, step = inverse * exact(covariance), exact((other_mean - mean)[:, None])
    step = mpmath.matrix([m(float(a)) - m(float(b)) for a, b in zip(other_mean, mean, strict=True)])
    trace = sum(product[i, i] for i in range(3))
    truth = (trace - 3 - mpmath.log(mpmath.det(product)) + (step.T * inverse * step)[0]) / 2
    assert abs(float((m(float(p.kl_divergence(q))) - truth) / truth)) < 1e-12
    assert p.kl_divergence(p) == 0


def test_multivariate_normal_of_extreme_scales_and_of_one_dimension():
    wide, narrow = (info.MultivariateNormal([0, 0], s * np.eye(2)) for s in (1.0, 1e-20))
    assert narrow.kl_divergence(wide) == pytest.approx(20 * math.log(10) - 1, rel=1e-14)
    one = info.MultivariateNormal([[0.0], [1.0]], [[4.0]])
    same = info.Normal([0.0, 1.0], 2.0)
    np.testing.assert_allclose(one.entropy(), same.entropy(), rtol=1e-15)
    target, its_target = info.MultivariateNormal([0.5], [[1.0]]), info.Normal(0.5, 1.0)
    np.testing.assert_allclose(
        one.kl_divergence(target), same.kl_divergence(its_target), rtol=1e-14
    )


def test_parameters_are_kept_frozen_and_shown():
    std = np.array([1.0, 2.0])
    normal = info.Normal(0, std)
    std[0] = 5
    assert repr(normal) == "Normal(mean=[0.0, 0.0], std=[1.0, 2.0])"
    with pytest.raises(ValueError, match="read-only"):
        normal.std[0] = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        normal.std = 3
    assert info.Normal(0, 1) == info.Normal(0.0, 1.0)
