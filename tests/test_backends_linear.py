"""A linear head outside autograd."""

from __future__ import annotations

import numpy as np
import torch

import xent
from xent.backends.linear import KernelEngine, Objective
from xent.ops import cross_entropy as ce
from xent.ops.stats import RowStats
from xent.spec import Spec


def test_a_torch_tensor_outside_autograd(rng):
    h, w = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    target = rng.integers(0, 6, 4)
    right, pull = xent.linear_cross_entropy_vjp(h, w, target)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (h, w)]
    loss, vjp = xent.linear_cross_entropy_vjp(*leaves, torch.from_numpy(target))
    assert not loss.requires_grad
    np.testing.assert_allclose(loss, right, rtol=1e-13)
    for ours, theirs in zip(vjp(2.0)[:2], pull(2.0)[:2], strict=True):
        assert not ours.requires_grad
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)


def test_losses_and_gradients_in_one_go_are_those_in_two(rng):
    import array_api_compat.numpy as xp

    x, target = rng.normal(size=(5, 1, 9)).astype(np.float32), rng.integers(0, 9, (5, 1))
    spec, weight = Spec(z_loss=0.01, label_smoothing=0.1), np.ones((5, 1))
    engine, op, three = KernelEngine(xp), ce.op(spec), (True, False, False)
    found = []
    for number in (0.25, None):  # None: not for the kernel
        objective = Objective(ce, spec, xp, weight, np.asarray(0.25), number)
        given = (x.copy(), target, None)
        losses, made = engine.both(op, given, objective, slice(0, 5), three)
        found.append((losses, made[0]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-8)
    assert engine.vjp(RowStats(), (x, target, None), (), (), (False,) * 3) == (None,) * 3
    few = objective.some(np.array([1, 3]))
    assert few.weight.shape == (2, 1)
