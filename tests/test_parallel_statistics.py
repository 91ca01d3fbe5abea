"""Statistics of split logits: one collective, no second derivative, half precision, a compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import parallel_calls as calls
from parallel_ranks import run

import xent

N, V = 5, 9
COLUMNS = {  # numbers of each row that a process tells: top, tail, nll, and what options ask for
    "indices": (3, {}),
    "smoothing": (4, {"label_smoothing": 0.1}),
    "weight": (4, {"weight": np.ones(V)}),
    "probabilities": (4, {}),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_loss_takes_one_collective_forward_and_none_backward(rng, name):
    logits, target = rng.normal(size=(N, V)), rng.integers(0, V, N)
    if name == "probabilities":
        target = rng.dirichlet(np.ones(V), N)
    columns, options = COLUMNS[name]
    one = ("all_gather", 8 * (2 + columns * N))
    for found in run(calls.rows_counted, 3, logits, target, options):
        assert found == [one, "forward"] * 2
    # one process alone has nothing to tell
    assert run(calls.rows_counted, 1, logits, target, options) == [["forward"] * 2]


def test_other_derivatives_raise():
    for second, forward, functional in run(calls.twice, 2):
        assert second.startswith("NotImplementedError: parallel.cross_entropy: shard has a second")
        assert "Error" in forward
        assert "Error" in functional


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_equals_the_unsplit_call(rng, dtype):
    logits, target = rng.normal(0, 4, (300, 200)), rng.integers(0, 200, 300)
    x = torch.from_numpy(logits).to(dtype).requires_grad_()
    loss = xent.cross_entropy(x, torch.from_numpy(target))
    loss.backward()
    parts = run(calls.half, 2, logits, target, dtype)
    size = torch.finfo(dtype).eps
    for name, value, _ in parts:
        assert name == str(dtype)
        assert value == pytest.approx(loss.item(), rel=2 * size)
    found = np.concatenate([part[2] for part in parts], axis=1)
    np.testing.assert_allclose(found, x.grad.float().numpy(), rtol=4 * size, atol=1e-7)


def test_it_compiles_in_one_piece(rng):
    logits, weight = rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    for found in run(calls.compiled, 2, logits, weight, rng.integers(0, 6, 4)):
        for eager, compiled in zip(found[::2], found[1::2], strict=True):
            for one, other in zip(eager, compiled, strict=True):
                if one is not None:
                    np.testing.assert_allclose(other, one, rtol=1e-12)
