"""bench/heads.py: the arrays, the floors and the reference of the linear head."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from xent.bench import heads
from xent.bench.cases import BOTH, FORWARD, Head
from xent.bench.records import OURS


def right(case, seed):
    """The arrays, and torch's loss and gradients in float64."""
    hidden, weight, target = arrays = heads.drawn(case, seed)
    leaves = hidden.double().requires_grad_(), weight.double().requires_grad_()
    loss = F.cross_entropy(F.linear(*leaves), target)
    return arrays, loss.detach(), torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("ignored", [0, 50])
@pytest.mark.parametrize("block", [1, 7, 256])
def test_the_reference_is_torch_in_float64(ignored, block, seed, monkeypatch):
    monkeypatch.setattr(heads, "BLOCK", block)
    case = Head((20, 5, 70), "float32", ignored)
    arrays, loss, gradients = right(case, seed)
    assert (arrays[2] == heads.IGNORED).sum() == 20 * ignored // 100
    found = heads.errors(case, arrays, {"torch": (loss, gradients), "forward": (loss, None)})
    assert found["torch"].loss < 1e-14
    assert found["torch"].gradient < 1e-13
    assert found["forward"].gradient is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_rounded_result_passes_and_more_does_not(dtype, seed):
    case = Head((20, 5, 70), dtype)
    arrays, loss, gradients = right(case, seed)
    rounded = tuple(g.to(a.dtype) for g, a in zip(gradients, arrays, strict=False))

    def passes(*result):
        return heads.errors(case, arrays, {OURS: result})[OURS].within

    assert passes(loss, rounded)
    for factor in (1.01, math.nan):
        assert not passes(loss * factor, rounded)
        assert not passes(loss, (rounded[0], rounded[1] * factor))
        assert not passes(loss, (rounded[0] * factor, rounded[1]))


def test_floors_are_the_products(seed):
    arrays = heads.drawn(Head((6, 5, 11), "float32"), seed)
    hidden, weight, _ = arrays
    (product,) = heads.floors(arrays, FORWARD).values()
    torch.testing.assert_close(product.once()[0], hidden @ weight.T)
    (products,) = heads.floors(arrays, BOTH).values()
    torch.testing.assert_close(products.once()[0], hidden @ weight.T @ weight)


@pytest.mark.parametrize("work", [heads.xent_head, heads.torch_eager, heads.torch_chunked])
def test_all_compute_the_mean_and_its_gradients(work, seed):
    case = Head((20, 5, 70), "float64")
    arrays, loss, gradients = right(case, seed)
    for quantity, one in work(*arrays).items():
        for _ in range(2):
            value, found = one.once()
            assert math.isclose(value.item(), loss.item(), rel_tol=1e-12)
            assert (found is None) == (quantity == FORWARD)
            for got, expected in zip(found or (), gradients, strict=False):
                torch.testing.assert_close(got, expected)
