"""A mean over rows on several processes has the denominator of all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import parallel_calls as calls
import parallel_cases as cases
from parallel_ranks import run

import xent


@pytest.mark.parametrize("name", ["weight", "sum", "z-loss", "normalizer", "ignored"])
def test_a_mean_is_that_of_all_rows(rng, name):
    arrays, options = cases.drawn(rng, name)
    arrays["target"][:4] = options.get("ignore_index", -100)  # all rows of the first process
    given = {n: torch.from_numpy(np.asarray(v)).clone() for n, v in arrays.items()}
    x, h, w = (given[n].requires_grad_() for n in ("logits", "hidden", "linear_weight"))
    loss = xent.cross_entropy(x, given["target"], given.get("weight"), **options)
    loss.backward(torch.tensor(1.5).double())
    other = xent.linear_cross_entropy(h, w, given["target"], weight=given.get("weight"), **options)
    other.backward()
    parts = run(calls.mean_over_rows, 3, arrays, [2, 0, 4], options)
    for value, _, head, _, dweight in parts:
        assert (value, head) == (parts[0][0], parts[0][2])
        assert value == pytest.approx(loss.item(), rel=1e-12)
        assert head == pytest.approx(other.item(), rel=1e-12)
        np.testing.assert_allclose(dweight, w.grad.numpy(), rtol=1e-9, atol=1e-12)
    for i, leaf in ((1, x), (3, h)):
        found = np.concatenate([part[i] for part in parts])
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-9, atol=1e-12)
