"""Binary cross entropy with logits, and the backward by hand: against the oracle and torch."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent import manual
from xent.conformance import exact, oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
bce = xent.binary_cross_entropy_with_logits


def worst(got, right):
    dtype = str(got.dtype).rsplit(".", 1)[-1]
    got = np.asarray(got.to(torch.float64) if isinstance(got, torch.Tensor) else got, float)
    assert got.shape == np.shape(right)
    return np.max(oracle.ulp_error(got, right, dtype), initial=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    shape=st.sampled_from([(), (5,), (2, 3), (2, 2, 3), (0, 3)]),
    spread=st.sampled_from([0.1, 3.0, 50.0, 1e4]),
    reduction=st.sampled_from(["none", "sum", "mean"]),
    hard=st.booleans(),
    weights=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=150)
def test_to_the_last_digit(seed, dtype, shape, spread, reduction, hard, weights):
    rng = np.random.default_rng(seed)
    logits = np.asarray(rng.normal(0, spread, shape)).astype(dtype)
    target = np.asarray(rng.random(shape)).astype(dtype)
    target = (target > 0.5).astype(dtype) if hard else target
    last = shape[-1:]
    weight, pos_weight = (
        rng.uniform(0.5, 3, last).astype(dtype) if given else None for given in weights
    )
    given = {"weight": weight, "pos_weight": pos_weight}
    ones = {name: 1 if value is None else value for name, value in given.items()}
    right = oracle.binary_cross_entropy_with_logits(logits, target, **ones, reduction=reduction)
    for array in (np.asarray, torch.asarray):
        ready = {name: None if v is None else array(v) for name, v in given.items()}
        loss = bce(array(logits), array(target), **ready, reduction=reduction)
        assert str(loss.dtype).endswith(dtype)
        assert worst(loss, right) <= (4 if dtype == "float64" else 0.51)


def by_formula(logits, target, weight, pos_weight, reduction):
    """The loss in torch's own operations, differentiable by every argument."""
    positive = F.softplus(-logits) * (1 if pos_weight is None else pos_weight)
    losses = (1 - target) * F.softplus(logits) + target * positive
    losses = losses * (1 if weight is None else weight)
    return losses if reduction == "none" else getattr(losses, reduction)()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weights", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_torch_with_every_gradient(rng, reduction, weights, dtype):
    def leaf(shape, needed=True):
        values = torch.tensor(rng.uniform(0, 2, shape), dtype=dtype)
        return values.requires_grad_() if needed else None

    logits, target = leaf((4, 3)), leaf((4, 3))
    weight, pos_weight = leaf((4, 1), weights[0]), leaf((3,), weights[1])
    leaves = [a for a in (logits, target, weight, pos_weight) if a is not None]
    loss = bce(logits, target, weight, pos_weight=pos_weight, reduction=reduction)
    right = by_formula(logits, target, weight, pos_weight, reduction)
    mine, expected = (torch.autograd.grad(value.sum(), leaves) for value in (loss, right))
    torch.testing.assert_close(mine, expected)
    fixed = {
        "weight": None if weight is None else weight.detach(),
        "pos_weight": None if pos_weight is None else pos_weight.detach(),
    }
    torchs = F.binary_cross_entropy_with_logits(logits, target, **fixed, reduction=reduction)
    torch.testing.assert_close(loss, torchs)
    torch.testing.assert_close(mine[:2], torch.autograd.grad(torchs.sum(), leaves[:2]))


@LIBRARIES
@pytest.mark.parametrize(
    ("logit", "target", "loss", "gradient"),
    [
        (INF, 1.0, 0.0, 0.0),
        (-INF, 0.0, 0.0, 0.0),
        (INF, 0.0, INF, 1.0),
        (-INF, 1.0, INF, -1.0),
        (INF, 0.5, INF, 0.5),
        (200.0, 0.0, 200.0, 1.0),
        (-200.0, 1.0, 200.0, -1.0),
        (30.0, 1.0, 9.357622968839737e-14, -9.357622968839299e-14),
        (0.0, 1.0, math.log(2), -0.5),
        (NAN, 1.0, NAN, NAN),
        (0.0, NAN, NAN, NAN),
    ],
)
def test_the_edges(logit, target, loss, gradient, array):
    layer = manual.BCEWithLogitsLoss(reduction="sum")
    value = layer.forward(array(np.array([logit])), array(np.array([target])))
    np.testing.assert_allclose(float(value), loss, rtol=3e-16)
    np.testing.assert_allclose(np.asarray(layer.backward()), [gradient], rtol=3e-16)


def test_targets_out_of_the_unit_interval_are_taken_as_they_are(rng):
    logits, target = torch.tensor(rng.normal(size=9)), torch.tensor(rng.normal(size=9) * 3)
    torch.testing.assert_close(
        bce(logits, target), F.binary_cross_entropy_with_logits(logits, target)
    )


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_backward_by_hand(rng, reduction):
    logits, target = rng.normal(0, 3, (3, 4)), rng.random((3, 4))
    weight, pos_weight = rng.uniform(0.5, 2, (3, 1)), rng.uniform(0.5, 2, 4)
    upstream = rng.normal(size=(3, 4)) if reduction == "none" else -1.5
    layer = manual.BCEWithLogitsLoss(weight, pos_weight=pos_weight, reduction=reduction)
    layer.forward(logits, target)
    dlogits = layer.backward(upstream)
    right = oracle.binary_cross_entropy_with_logits_vjp(
        logits, target, weight, pos_weight=pos_weight, reduction=reduction, upstream=upstream
    ).dlogits
    slopes = exact.differences(
        lambda moved: oracle.binary_cross_entropy_with_logits(
            moved, target, weight, pos_weight=pos_weight, reduction=reduction
        ),
        logits,
        upstream,
    )
    for expected in (right, slopes):
        np.testing.assert_allclose(dlogits, np.asarray(expected, float), rtol=1e-14, atol=1e-15)


@LIBRARIES
def test_no_elements(array):
    logits = array(np.zeros((0, 3)))
    assert math.isnan(float(bce(logits, logits)))
    assert float(bce(logits, logits, reduction="sum")) == 0
    assert tuple(bce(logits, logits, reduction="none").shape) == (0, 3)


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.float64)])
def test_the_wider_dtype_is_that_of_the_loss(dtypes):
    logits, target = (torch.ones(3, dtype=dtype) for dtype in dtypes)
    assert bce(logits, target).dtype == F.binary_cross_entropy_with_logits(logits, target).dtype
    assert bce(target, logits).dtype == dtypes[1]
    assert bce(logits, logits, target).dtype == dtypes[1]


@pytest.mark.parametrize("array", [np.asarray, torch.asarray])
def test_float16_means_do_not_overflow(array):
    logits = np.full(70_000, 300, np.float16)
    loss = bce(array(logits), array(np.zeros_like(logits)))
    assert float(loss) == 300
    assert str(loss.dtype).endswith("float16")


def test_it_is_the_cross_entropy_of_two_classes(rng):
    logits, target = rng.normal(0, 9, 50), rng.integers(0, 2, 50)
    rows = np.stack([np.zeros(50), logits], axis=1)
    np.testing.assert_allclose(
        bce(logits, target.astype(float), reduction="none"),
        xent.cross_entropy(rows, target, reduction="none"),
        rtol=1e-15,
    )
