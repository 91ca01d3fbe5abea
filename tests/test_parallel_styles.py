"""The parallel style, and heads under FSDP2 with and without it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

sys.path.insert(0, str(Path(__file__).parent))
import parallel_meshes as meshes
from parallel_ranks import run
from test_parallel_dtensors import drawn

import xent


def whole(arrays, **options):
    names = ("hidden", "linear_weight", "linear_bias")
    h, w, b = (torch.from_numpy(arrays[n]).clone().requires_grad_() for n in names)
    target = torch.from_numpy(arrays["target"])
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, **options)
    loss.backward()
    return loss.item(), h.grad.numpy(), w.grad.numpy()


@pytest.mark.parametrize("layout", [Replicate(), Shard(0)], ids=str)
def test_a_module_in_a_plan(rng, layout):
    arrays = drawn(rng, "mean")
    arrays["target"][1] = -100
    loss, dhidden, dweight = whole(arrays, z_loss=0.01)
    parts = run(meshes.styled, 4, arrays, layout)
    for rank, found in enumerate(parts):
        wanted = dhidden[2 * rank : 2 * rank + 2] if layout == Shard(0) else dhidden
        assert found["loss"] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(found["hidden"], wanted, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(found["weight"], dweight, rtol=1e-10, atol=1e-13)
        assert found["text"].startswith("TypeError: VocabParallel: module has type ReLU")


@pytest.mark.parametrize("reshard", [True, False, None])
@pytest.mark.parametrize("classes", [False, True], ids=["whole", "split"])
def test_a_head_under_fsdp2(rng, reshard, classes):
    arrays = drawn(rng, "mean")
    arrays["target"][1] = 3  # as many rows count on each process: the mean of means is the mean
    loss, _, dweight = whole(arrays)
    for found, first, second in run(meshes.sharded_head, 4, arrays, reshard, classes):
        assert found == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(first, dweight, rtol=1e-10, atol=1e-13)
        np.testing.assert_array_equal(first, second)
