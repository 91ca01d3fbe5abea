"""bench/peers.py: each computes what its name says, and is given what it needs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import xent
from xent.bench import cases, peers

EVERY = peers.PEERS.items()
BUILT = [n for n, p in EVERY if not p.compiles and cases.LOGITS in p.work] + list(peers.OWN)
SHAPES = ["6x11", "2x5x4x3"]


def drawn(name: str, seed: int) -> tuple[Any, Any]:
    case = cases.named(name)
    assert case is not None
    return peers.drawn(case, seed)


LOGITS = cases.Case((6, 11), "float32")  # the suite, wherever no more of the case counts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BUILT)
def test_all_compute_the_mean_and_its_gradient(name: str, shape: str, seed: int) -> None:
    dtype = "float16" if name == "torch-upcast" else "float64"
    logits, target = drawn(f"{shape}-{dtype}", seed)
    kept = logits.clone()
    leaf = logits.double().clone().requires_grad_()
    loss = F.cross_entropy(leaf, target)
    (gradient,) = torch.autograd.grad(loss, leaf)
    close = {"rtol": 2e-3, "atol": 1e-4} if dtype == "float16" else {"rtol": 1e-12, "atol": 1e-16}
    for quantity, work in peers.work_of(name, LOGITS, (logits, target)).items():
        for _ in range(2):  # a call leaves nothing behind
            got, got_gradient = work.once()
            got = got.detach() if isinstance(got, torch.Tensor) else got
            np.testing.assert_allclose(got, loss.item(), **close)
            assert (got_gradient is None) == (quantity == cases.FORWARD)
            if got_gradient is not None:
                np.testing.assert_allclose(got_gradient, gradient, **close)
    assert torch.equal(logits, kept)


def test_a_gradient_is_new_at_every_call(seed: int) -> None:
    logits, target = drawn("6x11-float32", seed)
    for name in BUILT:
        work = peers.work_of(name, LOGITS, (logits, target)).get(cases.BOTH)
        if work is not None:
            (_, one), (_, other) = work.once(), work.once()
            assert not np.shares_memory(np.asarray(one), np.asarray(other)), name


def test_a_forward_of_torch_records_nothing(seed: int) -> None:
    work = peers.torch_eager(*drawn("6x11-float32", seed))
    loss, _ = work[cases.FORWARD].once()
    assert not loss.requires_grad


def test_logits_are_drawn_by_their_seed(seed: int) -> None:
    (one, target), (again, _), (other, _) = (
        drawn("40x50-bfloat16", number) for number in (seed, seed, seed + 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.dtype == torch.bfloat16
    assert 1.8 < one.float().std() < 2.2
    assert target.min() >= 0
    assert target.max() < 50


def test_the_floors_move_the_logits(seed: int) -> None:
    logits, _ = drawn("6x11-float32", seed)
    forward = peers.floors(LOGITS, (logits,), cases.FORWARD)
    assert list(forward) == ["sum"]
    assert torch.equal(forward["sum"].once()[0], logits.sum())
    both = peers.floors(LOGITS, (logits,), cases.BOTH)
    assert list(both) == ["copy", "clone"]
    assert list(peers.floors(LOGITS, (logits,), cases.IN_PLACE)) == ["copy"]
    (one, _), (again, _) = both["copy"].once(), both["copy"].once()
    assert one.data_ptr() == again.data_ptr() != logits.data_ptr()
    for floor in both.values():
        assert torch.equal(floor.once()[0], logits)


def test_in_place_is_measured_where_there_is_one(seed: int, monkeypatch) -> None:
    given = []

    def cross_entropy(logits: Any, target: Any, plan: Any = None) -> Any:
        given.append((logits, plan))
        return F.cross_entropy(logits, target)

    monkeypatch.setattr(xent, "cross_entropy", cross_entropy)
    logits, target = drawn("6x11-float32", seed)
    work = peers.xent_torch(logits, target)[cases.IN_PLACE]
    for _ in range(2):
        work.once()
    (one, plan), (other, _) = given
    assert plan == xent.Plan(inplace=True)
    assert not one.is_leaf
    assert one.requires_grad
    assert len({one.data_ptr(), other.data_ptr(), logits.data_ptr()}) == 3
    assert list(peers.work_of(peers.OURS_IN_PLACE, LOGITS, (logits, target))) == [cases.IN_PLACE]


def test_a_peer_that_lacks_a_module_tells_it() -> None:
    lacking = dataclasses.replace(peers.PEERS["scipy"], needs=("scipy", "no_such_module"))
    assert lacking.missing() == ["no_such_module"]
    assert peers.PEERS["torch"].missing() == []


def test_every_peer_stands_beside_an_xent_and_has_dtypes() -> None:
    for name, peer in peers.PEERS.items():
        assert peer.ours in peers.OWN, name
        assert set(peer.dtypes) <= set(cases.SIZES), name
    assert not set(peers.PEERS) & set(peers.OWN)
