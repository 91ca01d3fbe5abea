"""A split linear head: its two collectives, their bytes, what they overlap, and its accuracy."""

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
from xent import Plan

N, V, D = 12, 40, 7


def drawn(rng):
    target = rng.integers(0, V, N)
    target[[2, 5]] = -100
    return {
        "hidden": rng.normal(size=(N, D)),
        "linear_weight": rng.normal(size=(V, D)),
        "target": target,
    }


@pytest.mark.parametrize("plan", [None, Plan(chunk_bytes=400)], ids=["one tile", "many tiles"])
def test_a_head_takes_two_collectives(rng, plan):
    arrays = drawn(rng)
    rows = N - 2  # those that take part
    wanted = [("all_gather", 8 * (2 + 3 * N)), ("all_reduce", 8 * rows * D)]
    h = torch.from_numpy(arrays["hidden"]).requires_grad_()
    w = torch.from_numpy(arrays["linear_weight"]).requires_grad_()
    loss = xent.linear_cross_entropy(h, w, torch.from_numpy(arrays["target"]))
    loss.backward()
    parts = run(calls.head_counted, 3, arrays, plan, torch.float64)
    for found, order, value, dhidden, _ in parts:
        assert found == wanted
        # The sum over processes is on its way while the last product of the weights is made.
        assert order[-4:] == ["add tffff", "send", "add ftfff", "receive"]
        assert order.count("send") == 1
        assert all(told == "add ttfff" for told in order[:-4])
        assert (len(order) > 4) == (plan is not None)
        assert value == pytest.approx(loss.item(), rel=1e-13)
        np.testing.assert_array_equal(dhidden, parts[0][3])
        np.testing.assert_allclose(dhidden, h.grad.float().numpy(), rtol=1e-6)
    dweight = np.concatenate([part[4] for part in parts])
    np.testing.assert_allclose(dweight, w.grad.float().numpy(), rtol=1e-6)


def test_half_precision_gradients_are_summed_in_float32_and_rounded_once(rng):
    arrays = drawn(rng)
    h, w = (torch.from_numpy(arrays[n]).bfloat16().double() for n in ("hidden", "linear_weight"))
    h.requires_grad_()
    w.requires_grad_()
    xent.linear_cross_entropy(h, w, torch.from_numpy(arrays["target"])).backward()
    best = [np.linalg.norm(a.grad.bfloat16().double() - a.grad) for a in (h, w)]
    parts = run(calls.head_counted, 4, arrays, None, torch.bfloat16)
    for found, *_ in parts:
        assert found[1] == ("all_reduce", 4 * (N - 2) * D)
    dweight = np.concatenate([part[4] for part in parts])
    for found, exact, least in zip((parts[0][3], dweight), (h.grad, w.grad), best, strict=True):
        assert np.linalg.norm(found - exact.numpy()) < 1.3 * least


def test_an_adapter_is_split_with_its_head(rng):
    arrays = {
        "hidden": rng.normal(size=(N, D)),
        "weight": rng.normal(size=(V, D)),
        "a": rng.normal(size=(2, D)),
        "b": rng.normal(size=(V, 2)),
        "target": rng.integers(0, V, N),
    }
    parts = run(calls.low_rank, 3, arrays)
    loss, *whole = calls.low_rank(None, arrays)
    for part in parts:
        assert part[0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(part[1], whole[0], rtol=1e-9)
        np.testing.assert_allclose(part[2], whole[1], rtol=1e-9)
    for i in (2, 3):
        found = np.concatenate([part[i + 1] for part in parts])
        np.testing.assert_allclose(found, whole[i], rtol=1e-9, atol=1e-12)
