"""Dtypes of losses and gradients, autocast, promotion, requires_grad, the defaults of torch."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import xent
from xent.conformance import oracle

sys.path.insert(0, str(Path(__file__).parent))
from torch_cases import CASES

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)
PAIRS = list(itertools.product(FLOATS, FLOATS))
EACH = pytest.mark.parametrize("name", CASES)
Y = torch.tensor([0, 2, 1])


def softmax_of(x, axis=-1, dtype=None):
    return F.softmax(x, axis, dtype=dtype)


def log_softmax_of(x, axis=-1, dtype=None):
    return F.log_softmax(x, axis, dtype=dtype)


# Ours, torch's, and their arguments: logits, something of a second dtype, weights as the logits.
CALLS = {
    "indices": (xent.cross_entropy, F.cross_entropy, lambda x, p, w: (x, Y)),
    "weight": (xent.cross_entropy, F.cross_entropy, lambda x, p, w: (x, Y, w)),
    "probabilities": (xent.cross_entropy, F.cross_entropy, lambda x, p, w: (x, p)),
    "probabilities, weight": (xent.cross_entropy, F.cross_entropy, lambda x, p, w: (x, p, w)),
    "nll": (xent.nll_loss, F.nll_loss, lambda x, p, w: (x, Y)),
    "nll, weight": (xent.nll_loss, F.nll_loss, lambda x, p, w: (x, Y, w)),
    "softmax": (xent.softmax, softmax_of, lambda x, p, w: (x,)),
    "log-softmax": (xent.log_softmax, log_softmax_of, lambda x, p, w: (x,)),
    "softmax, dtype": (xent.softmax, softmax_of, lambda x, p, w: (x, -1, p.dtype)),
    "log-softmax, dtype": (xent.log_softmax, log_softmax_of, lambda x, p, w: (x, 0, p.dtype)),
    "logsumexp": (xent.logsumexp, torch.logsumexp, lambda x, p, w: (x, -1)),
}


@pytest.mark.parametrize("inside", [None, *HALF], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_dtypes_are_torchs_and_gradients_are_their_arrays(name, inside):
    ours, theirs, arguments = CALLS[name]
    for first, second in PAIRS:
        x = torch.randn(3, 4).to(first).requires_grad_()
        given = arguments(
            x, torch.softmax(torch.randn(3, 4), 1).to(second), torch.rand(4).to(first)
        )
        with torch.autocast("cpu", inside or torch.bfloat16, enabled=inside is not None):
            got, right = ours(*given), theirs(*given)
        assert (got.dtype, got.requires_grad) == (right.dtype, True)
        torch.testing.assert_close(got, right, rtol=2e-2, atol=2e-2)
        got.sum().backward()
        assert x.grad.dtype == first


@pytest.mark.parametrize("inside", [None, *HALF], ids=str)
def test_binary_losses_are_of_the_widest_dtype(inside):
    # torch's has the dtype of the target where that is narrower than that of the logits.
    for first, second in PAIRS:
        x, y = torch.randn(3, 4).to(first).requires_grad_(), torch.rand(3, 4).to(second)
        with torch.autocast("cpu", inside or torch.bfloat16, enabled=inside is not None):
            got = xent.binary_cross_entropy_with_logits(x, y, pos_weight=torch.ones(4).to(first))
        right = torch.promote_types(first, second)
        assert got.dtype == (torch.float32 if inside and right in HALF else right)
        got.backward()
        assert x.grad.dtype == first


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics_of_half_precision_are_float32(dtype):
    x = torch.randn(3, 4).to(dtype).requires_grad_()
    statistics = xent.token_statistics(x, Y)
    wide = torch.float32 if dtype in HALF else dtype
    assert [s.dtype for s in statistics] == [wide, wide, wide, torch.int64]
    assert [s.requires_grad for s in statistics] == [True, True, True, False]
    sum(s.sum() for s in statistics[:3]).backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_is_rounded_once(rng, dtype):
    x = torch.from_numpy(rng.normal(0, 4, (70, 500))).to(dtype)
    y = torch.from_numpy(rng.integers(0, 500, 70))
    p = torch.from_numpy(rng.dirichlet([0.1] * 500, 70)).to(dtype)
    for function in (
        lambda x, p: xent.cross_entropy(x, y, reduction="none"),
        lambda x, p: xent.cross_entropy(x, p, label_smoothing=0.1, reduction="sum"),
        lambda x, p: xent.softmax(x),
        lambda x, p: xent.log_softmax(x),
        lambda x, p: xent.binary_cross_entropy_with_logits(x, p, reduction="none"),
    ):
        values, grads = [], []
        for to in (dtype, torch.float64):
            leaf = x.to(to).requires_grad_()
            values.append(function(leaf, p.to(to)))
            upstream = torch.full_like(values[-1], 0.5)
            grads.append(torch.autograd.grad(values[-1], leaf, upstream)[0])
        for narrow, wide in (values, grads):
            errors = oracle.ulp_error(
                narrow.detach().double().numpy(), wide.detach().numpy(), str(dtype)[6:]
            )
            assert np.max(errors) <= 0.51


@EACH
def test_the_default_dtype_and_device_are_no_part_of_the_answer(rng, name):
    case = CASES[name](rng)
    arrays = tuple(a.float() for a in case.arrays)
    right = case.ours(*arrays)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        got = case.ours(*arrays)
        leaves = tuple(a.clone().requires_grad_() for a in arrays)
        result = case.ours(*leaves)
        sum(r.sum() for r in (result if isinstance(result, tuple) else (result,))).backward()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    torch.testing.assert_close(got, right, rtol=0, atol=0)
    assert leaves[0].grad.dtype == torch.float32


def test_a_loss_of_float32_inside_autocast_keeps_its_digits():
    x, y = torch.randn(50, 20, requires_grad=True), torch.arange(50) % 20
    right = xent.cross_entropy(x, y)
    (g,) = torch.autograd.grad(right, x)
    with torch.autocast("cpu", torch.bfloat16):
        got = xent.cross_entropy(x, y)
        (h,) = torch.autograd.grad(got, x, create_graph=True)
    assert torch.equal(got, right)
    torch.testing.assert_close(h, g, rtol=1e-6, atol=0)


def test_a_network_under_autocast_has_torchs_gradients(rng):
    x, y = (
        torch.from_numpy(rng.normal(size=(8, 5))).float(),
        torch.from_numpy(rng.integers(0, 3, 8)),
    )
    model = torch.nn.Linear(5, 3)
    found = []
    for loss in (xent.cross_entropy, F.cross_entropy):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model(x), y)
        assert value.dtype == torch.float32
        found.append(torch.autograd.grad(value, list(model.parameters())))
    torch.testing.assert_close(*found, rtol=2e-2, atol=1e-3)
