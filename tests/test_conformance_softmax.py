"""The exact softmax and its kin against torch in float64 and against finite differences."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from xent.conformance import exact, softmax

INF, NAN = math.inf, math.nan


def as_float(values):
    return np.asarray(values, dtype=float)


def assert_same(got, expected, tolerance=1e-25):
    assert np.shape(got) == np.shape(expected)
    for a, b in zip(np.ravel(got), np.ravel(expected), strict=True):
        assert mpmath.almosteq(a, b, rel_eps=tolerance, abs_eps=tolerance), (a, b)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_and_its_kin(rng, name, axis):
    logits = torch.from_numpy(rng.normal(0, 3, (3, 2, 4))).requires_grad_()
    result = getattr(torch, name)(logits, axis)
    upstream = rng.normal(size=result.shape)
    result.backward(torch.from_numpy(upstream))
    array = logits.detach().numpy()
    function, vjp = getattr(softmax, name), getattr(softmax, f"{name}_vjp")
    close = {"rtol": 1e-12, "atol": 1e-14}  # torch's own log loses digits near 0
    np.testing.assert_allclose(as_float(function(array, axis)), result.detach(), **close)
    dlogits = vjp(array, upstream, axis)
    np.testing.assert_allclose(as_float(dlogits), logits.grad, **close)
    assert_same(dlogits, exact.differences(lambda x: function(x, axis), array, upstream))


@pytest.mark.parametrize("row", [[INF, 0.0], [-INF, -INF], [NAN, INF], [-INF, 0.0]])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_and_its_kin_at_infinity_are_those_of_torch(name, row):
    logits = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    result = getattr(torch, name)(logits, -1)
    result.backward(torch.ones_like(result))
    np.testing.assert_array_equal(as_float(getattr(softmax, name)(row)), result.detach())
    dlogits = getattr(softmax, f"{name}_vjp")(row, np.ones(result.shape))
    np.testing.assert_array_equal(as_float(dlogits), logits.grad)


def test_logsumexp_of_nothing():
    assert softmax.logsumexp([]) == -mpmath.inf
    assert softmax.softmax(np.zeros((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "logit_scale": 0.5}])
def test_token_statistics(rng, options):
    logits, target = rng.normal(0, 3, (4, 5, 2)), rng.choice([0, 4, -100], (4, 2))
    got = softmax.token_statistics(logits, target, **options)
    scaled = torch.from_numpy(logits) * options.get("logit_scale", 1.0)
    z = 2 * torch.tanh(scaled / 2) if options else scaled
    by_torch = torch.distributions.Categorical(logits=z.movedim(1, -1))
    kept = torch.from_numpy(target != -100)
    expected = (
        by_torch.log_prob(torch.from_numpy(target).clamp(0)) * kept,
        by_torch.entropy() * kept,
        torch.logsumexp(z, 1) * kept,
    )
    for value, right in zip(got, expected, strict=False):
        np.testing.assert_allclose(as_float(value), right, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(got.argmax, logits.argmax(1) * (target != -100))

    cotangents = {name: rng.normal(size=(4, 2)) for name in ("log_prob", "entropy", "lse")}
    dlogits = softmax.token_statistics_vjp(logits, target, **cotangents, **options)
    upstream = np.stack(list(cotangents.values()))

    def stacked(x):
        return np.stack(softmax.token_statistics(x, target, **options)[:3])

    assert_same(dlogits, exact.differences(stacked, logits, upstream))


def test_the_entropy_of_a_masked_class_and_of_a_sure_one():
    statistics = softmax.token_statistics([[0.0, 0.0, -INF], [1e6, 0.0, 0.0]], [0, 0])
    assert as_float(statistics.entropy).tolist() == [math.log(2), 0.0]
    dlogits = softmax.token_statistics_vjp([0.0, 0.0, -INF], 0, entropy=1)
    assert as_float(dlogits).tolist() == [0.0, 0.0, 0.0]


def test_ignored_rows_are_zero_whatever_they_hold():
    logits, target = [[0.0, 0.0], [math.nan, 0.0], [-INF, -INF]], [1, -100, -100]
    statistics = softmax.token_statistics(logits, target)
    for value, right in zip(statistics, (-math.log(2), math.log(2), math.log(2)), strict=False):
        assert as_float(value).tolist() == [right, 0.0, 0.0]
    dlogits = softmax.token_statistics_vjp(logits, target, log_prob=1, entropy=1, lse=1)
    assert as_float(dlogits).tolist() == [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
