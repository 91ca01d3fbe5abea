"""Cross entropy as a formula of row statistics, and its partials as torch differentiates it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xent.inputs import namespace
from xent.ops.cross_entropy import op, partials, value
from xent.ops.stats import RowStats
from xent.spec import Spec

SPECS = [
    Spec(),
    Spec(label_smoothing=0.1),
    Spec(label_smoothing=1.0),
    Spec(z_loss=0.3),
    Spec(label_smoothing=0.25, z_loss=0.5),
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_partials_are_the_derivatives_of_the_value(rng, spec):
    numbers = torch.tensor(rng.normal(size=(3, 4, 2)), requires_grad=True)
    lse, nll, smooth = numbers.unbind()
    outputs = (lse, nll, smooth if spec.label_smoothing else None, None)
    weight = torch.tensor(rng.uniform(0.5, 2, (4, 2)))
    value(outputs, weight, spec).sum().backward()
    given = partials(namespace(numbers), outputs, weight, spec)
    assert given[3] is None
    for slope, right in zip(given[:3], numbers.grad, strict=True):
        expected = torch.zeros(4, 2, dtype=torch.float64) if slope is None else slope.detach()
        torch.testing.assert_close(right, expected)


@pytest.mark.parametrize("spec", SPECS)
def test_the_value(spec):
    lse, nll, smooth, weight = (np.array([[v]]) for v in (2.0, 3.0, 5.0, 4.0))
    e, z = spec.label_smoothing, spec.z_loss
    expected = (1 - e) * 3 + e * 5 + z * 4 * 2**2
    outputs = (lse, nll, smooth if e else None, None)
    assert value(outputs, weight, spec)[0, 0] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("spec", "nll", "smooth", "lse", "expected"),
    [
        (Spec(), 3.0, math.inf, -math.inf, 3.0),
        (Spec(label_smoothing=1.0), math.inf, 5.0, 1.0, 5.0),
        (Spec(label_smoothing=0.5), 3.0, 5.0, math.inf, 4.0),
    ],
)
def test_an_option_that_is_off_adds_nothing(spec, nll, smooth, lse, expected):
    outputs = (*(np.array([[v]]) for v in (lse, nll, smooth)), None)
    assert value(outputs, np.ones((1, 1)), spec) == expected


def test_the_op_has_the_options_of_the_logits():
    spec = Spec(logit_scale=0.5, softcap=3.0, label_smoothing=0.1)
    assert op(spec) == RowStats(0.5, 3.0, smooth=True)
    assert op(Spec()) == RowStats()
