"""bench/check.py: the reference is right, and what is wrong is found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from xent.bench import check
from xent.bench.cases import SIZES, named
from xent.bench.peers import drawn
from xent.bench.records import OURS


def right(case: Any, seed: int) -> tuple[Any, Any, Any, Any]:
    """Logits, target, and torch's loss and gradient in float64."""
    logits, target = drawn(case, seed)
    leaf = logits.double().clone().requires_grad_()
    loss = F.cross_entropy(leaf, target)
    return logits, target, loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("block", [1, 7, 2**20])
@pytest.mark.parametrize("name", ["9x11-float32", "3x5x4x2-float64", "5x7-bfloat16"])
def test_the_reference_is_torch_in_float64(
    name: str, block: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "BLOCK", block)
    case = named(name)
    logits, target, loss, gradient = right(case, seed)
    results = {"torch": (loss, gradient), "numpy": (loss.numpy(), None)}
    found = check.errors(case, (logits, target), results)
    assert found["torch"].loss < 1e-14
    assert found["torch"].gradient < 1e-12
    assert found["numpy"].gradient is None


@pytest.mark.parametrize("dtype", SIZES)
def test_a_rounded_result_passes_and_more_does_not(dtype: str, seed: int) -> None:
    case = named(f"6x11-{dtype}")
    logits, target, loss, gradient = right(case, seed)
    exact = (loss.to(logits.dtype), gradient.to(logits.dtype))
    limit = check.OUR_ULPS[dtype] * check.EPS[dtype]

    def passes(result: tuple[Any, Any]) -> bool:
        return check.errors(case, (logits, target), {OURS: result})[OURS].within

    assert passes(exact)
    assert not passes((loss * (1 + 2 * limit), gradient))
    far = gradient.clone()
    far[3, 7] *= 1 + 2 * limit
    assert not passes((loss, far))
    far[3, 7] = math.nan
    assert not passes((loss, far))
    assert not passes((loss * math.nan, gradient))
    assert not passes((loss, gradient[:, :1]))
    assert not passes((loss, gradient * 6))  # the sum's


def test_a_peer_may_be_further_off_but_not_another_function(seed: int) -> None:
    case = named("6x11-float32")
    logits, target, loss, gradient = right(case, seed)

    def passes(result: tuple[Any, Any]) -> bool:
        return check.errors(case, (logits, target), {"p": result})["p"].within

    assert passes((loss * (1 + 5e-5), gradient * (1 + 5e-4)))
    assert not passes((loss * (1 + 5e-4), gradient))
    assert not passes((loss, gradient * (1 + 5e-3)))


def test_json_holds_finite_errors_only() -> None:
    assert check.finite(1.23456e-7) == 1.235e-7
    assert [check.finite(error) for error in (None, math.nan, math.inf)] == [None] * 3


def test_constants_are_the_formats() -> None:
    for dtype in SIZES:
        told = torch.finfo(getattr(torch, dtype))
        assert check.EPS[dtype] == told.eps
        assert check.SMALLEST[dtype] == told.smallest_normal
    assert np.finfo(np.float64).eps == check.EPS["float64"]
