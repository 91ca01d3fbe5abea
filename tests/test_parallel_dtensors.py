"""DTensors of logits and of heads, however they lie on a mesh of four processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import parallel_meshes as meshes
from parallel_ranks import run

import xent

N, V, D = 8, 11, 5
OPTIONS = {"label_smoothing": 0.1, "z_loss": 0.01, "ignore_index": -5}


def drawn(rng, reduction):
    target = rng.integers(0, V, N)
    target[1] = -5
    return {
        "logits": rng.normal(0, 2, (N, V)),
        "hidden": rng.normal(size=(N, D)),
        "linear_weight": rng.normal(size=(V, D)),
        "linear_bias": rng.normal(size=V),
        "weight": rng.uniform(0.5, 2, V),
        "target": target,
        "probabilities": rng.dirichlet(np.ones(V), N),
        "upstream": rng.uniform(1, 2, N if reduction == "none" else ()),
    }


def equal(found, wanted):
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("name", meshes.PLACES)
def test_logits(rng, name, soft):
    reduction = ["mean", "sum", "none"][rng.integers(3)]
    arrays, options = drawn(rng, reduction), OPTIONS | {"reduction": reduction}
    x = torch.from_numpy(arrays["logits"]).requires_grad_()
    weight = torch.from_numpy(arrays["weight"]).requires_grad_(soft)
    target = torch.from_numpy(arrays["probabilities" if soft else "target"])
    loss = xent.cross_entropy(x, target, weight, **options)
    loss.backward(torch.from_numpy(np.asarray(arrays["upstream"])))
    wanted = {"loss": loss.detach().numpy(), "logits": x.grad.numpy()}
    if soft:
        wanted["weight"] = weight.grad.numpy()
    else:
        told = xent.token_statistics(x.detach(), target, ignore_index=-5)
    for found in run(meshes.logits, 4, arrays, options, name, soft):
        equal(found, wanted)
        if not soft:
            np.testing.assert_array_equal(found["argmax"], told.argmax.numpy())
            np.testing.assert_allclose(found["entropy"], told.entropy.numpy(), rtol=1e-11)


@pytest.mark.parametrize("name", meshes.HEADS)
def test_heads(rng, name):
    reduction = ["mean", "sum", "none"][rng.integers(3)]
    arrays, options = drawn(rng, reduction), OPTIONS | {"reduction": reduction}
    names = ("hidden", "linear_weight", "linear_bias")
    leaves = {n: torch.from_numpy(arrays[n]).clone().requires_grad_() for n in names}
    h, w, b = leaves.values()
    target = torch.from_numpy(arrays["target"])
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, **options)
    loss.sum().backward()
    wanted = {n: leaf.grad.numpy() for n, leaf in leaves.items()}
    wanted["loss"] = loss.detach().numpy()
    for found in run(meshes.head, 4, arrays, options, name):
        equal(found, wanted)


def test_other_layouts_are_refused():
    for wide, sums, weight in run(meshes.refused, 4):
        assert wide.startswith("ValueError: parallel.linear_cross_entropy: hidden has placements")
        assert sums.startswith("ValueError: parallel.cross_entropy: logits has placements")
        assert weight.startswith("ValueError: parallel.linear_cross_entropy: linear_weight has")
