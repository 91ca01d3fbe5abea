"""Quadrature of densities against closed forms, and what it refuses."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from xent import info

INF = math.inf


@pytest.mark.parametrize("std", [1.0, 2.5, 0.1])
def test_normal_densities(std):
    normal = info.Normal(0, std)
    value = info.differential_entropy(normal.density, -INF, INF)
    assert type(value) is float
    assert value == pytest.approx(float(normal.entropy()), abs=1e-10)
    on_a_grid_of_the_range = info.differential_entropy(normal.density, -10 * std, 10 * std)
    assert on_a_grid_of_the_range == pytest.approx(value, abs=1e-10)
    in_bits = info.differential_entropy(normal.density, -INF, INF, base=2)
    assert in_bits == pytest.approx(value / math.log(2), rel=1e-14)


def test_a_tail_that_underflows_needs_logarithms():
    p, q = info.Normal(0, 10), info.Normal(0, 1)
    with pytest.raises(ValueError, match=r"q has value 0\.0 at .*\(log=True if q underflows\)"):
        info.differential_kl_divergence(p.density, q.density, -INF, INF)
    value = info.differential_kl_divergence(p.log_density, q.log_density, -INF, INF, log=True)
    assert value == pytest.approx(float(p.kl_divergence(q)), rel=1e-9)


def test_regions_of_density_zero_add_nothing():
    p, q = info.Uniform(0, 1), info.Uniform(-1, 3)
    options = {"points": (0, 1)}
    assert info.differential_entropy(p.density, -1, 3, **options) == pytest.approx(0, abs=1e-12)
    arguments = (p.density, q.density, -1, 3)
    for measure in (info.differential_kl_divergence, info.differential_cross_entropy):
        assert measure(*arguments, **options) == pytest.approx(math.log(4), rel=1e-12)


def test_densities_that_are_infinite_at_a_limit():
    p, q = info.Beta(0.5, 0.5), info.Beta(1, 2)
    assert info.differential_entropy(p.density, 0, 1) == pytest.approx(float(p.entropy()), abs=1e-7)
    value = info.differential_kl_divergence(q.density, p.density, 0, 1)
    assert value == pytest.approx(float(q.kl_divergence(p)), abs=1e-7)


def test_a_missed_peak_is_an_error_and_points_find_it():
    narrow = info.Normal(100, 0.01)
    with pytest.raises(ValueError, match="density has integral 0 from -inf to inf, expected 1"):
        info.differential_entropy(narrow.density, -INF, INF)
    value = info.differential_entropy(narrow.density, -INF, INF, points=[99.9, 100, 100.1])
    assert value == pytest.approx(float(narrow.entropy()), abs=1e-9)


def test_both_densities_hold_their_mass_between_the_limits():
    p, q = info.Uniform(0, 1), info.Uniform(0, 4)
    for measure in (info.differential_kl_divergence, info.differential_cross_entropy):
        with pytest.raises(ValueError, match=r"q has integral 0\.25 from 0 to 1, expected 1"):
            measure(p.density, q.density, 0, 1)


def test_an_integral_that_does_not_converge_is_an_error():
    def heavy(x):  # integrates to 1, its entropy diverges
        return 1 / ((x + math.e) * math.log(x + math.e) ** 2)

    text = r"differential_entropy: .* has integral .*, expected"
    with pytest.raises(ValueError, match=text):
        info.differential_entropy(heavy, 0, INF)
    with pytest.raises(ValueError, match=text):
        info.differential_entropy(lambda x: 1 / x, 0, 1)


def test_near_densities_and_densities_of_ones_own():
    p, q = info.Normal(0, 1), info.Normal(1e-4, 1)
    value = info.differential_kl_divergence(p.density, q.density, -INF, INF)
    assert value == pytest.approx(5e-9, rel=1e-6)
    assert info.differential_kl_divergence(p.density, p.density, -INF, INF) == 0
    # A mixture has no closed form: mpmath integrates it.
    mixture = lambda x: (p.density(x - 2) + p.density(x + 2)) / 2  # noqa: E731

    def integrand(x):
        density = sum(mpmath.npdf(x, c, 1) for c in (-2, 2)) / 2
        return -density * mpmath.log(density)

    truth = mpmath.quad(integrand, [-12, -2, 0, 2, 12])
    value = info.differential_entropy(mixture, -INF, INF)
    assert value == pytest.approx(float(truth), abs=1e-10)
    uniform = np.vectorize(lambda x: 0.5)
    assert info.differential_entropy(uniform, 0, 2) == pytest.approx(math.log(2), rel=1e-14)
