"""evaluation.divergence: KL of rows against scipy's, and where a class has no probability."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import logsumexp, rel_entr, softmax

from xent.evaluation.divergence import divergence


def of(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return divergence(p, logsumexp(p, axis=1), q, logsumexp(q, axis=1))


def test_it_is_the_relative_entropy(rng: np.random.Generator) -> None:
    for width in (0.1, 1, 10):
        p, q = width * rng.standard_normal((2, 50, 9))
        expected = rel_entr(softmax(p, axis=1), softmax(q, axis=1)).sum(axis=1)
        assert of(p, q) == pytest.approx(expected, rel=1e-9, abs=1e-13)
        assert (of(p, p) == 0).all()
        assert (of(p, q) >= 0).all()


def test_a_class_without_probability() -> None:
    p = np.array([[0.0, 0.0, -np.inf]])
    q = np.array([[0.0, 0.0, 0.0]])
    assert of(p, q)[0] == pytest.approx(math.log(1.5))
    assert of(q, p)[0] == math.inf
    assert of(p, p)[0] == 0
