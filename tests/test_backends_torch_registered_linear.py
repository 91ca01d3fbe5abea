"""The operators of a linear head: torch's own checks of them, and every derivative."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import xent
from xent.backends import torch_registered as registered
from xent.ops.linear import LinearStats
from xent.ops.stats import RowStats

EVERY = LinearStats(RowStats(0.7, 2.0, smooth=True, entropy=True))
TWO = LinearStats(EVERY.stats, products=2)
N, V = 4, 5


def of_operator(rng, kind, op):
    """The arrays of a LinearStats, those that may have a gradient requiring it."""
    widths = (3, 2)[: op.products]
    shapes = [(n, width) for width in widths for n in (N, V)]
    *pairs, b = (torch.from_numpy(rng.normal(size=s)).requires_grad_() for s in (*shapes, (V,)))
    if kind == "indices":
        codes = torch.from_numpy(rng.integers(0, V, (N, 1)))
        codes[1] = -1
        return (*pairs, b, codes, None)
    target = torch.from_numpy(rng.dirichlet([1.0] * V, (N, 1))).requires_grad_()
    weight = torch.from_numpy(rng.uniform(0.2, 1.5, V)).requires_grad_()
    return (*pairs, None, target, weight)


OPERATORS = pytest.mark.parametrize(
    ("kind", "op"),
    [("indices", LinearStats()), ("indices", EVERY), ("probabilities", EVERY), ("indices", TWO)],
    ids=["plain", "every", "probabilities", "adapter"],
)


@OPERATORS
def test_torch_finds_no_fault_in_the_operators(rng, monkeypatch, kind, op):
    calls = {}
    for name in ("_forward", "_vjp"):
        operator = getattr(registered, name)

        def call(*given, operator=operator):
            calls[operator] = given
            return operator(*given)

        monkeypatch.setattr(registered, name, call)
    found = registered.apply(op, of_operator(rng, kind, op), None).outputs
    torch.stack([o.sum() for o in found if o is not None]).sum().backward()
    monkeypatch.undo()
    assert set(calls) == {registered._forward, registered._vjp}
    for operator, (given, *others) in calls.items():
        tracked = operator is registered._forward
        leaves = [t.detach().requires_grad_(tracked and t.requires_grad) for t in given]
        opcheck(operator, (leaves, *others))


@pytest.mark.parametrize(("kind", "op"), [("indices", TWO), ("probabilities", EVERY)])
def test_every_derivative_of_an_operator(rng, kind, op):
    arrays = of_operator(rng, kind, op)
    at = [i for i, a in enumerate(arrays) if a is not None and a.requires_grad]

    def outputs(*given):
        full = list(arrays)
        for i, a in zip(at, given, strict=True):
            full[i] = a
        plan = xent.Plan(chunk_bytes=2 * 64 * V)  # 2 rows at a time

        return tuple(o for o in registered.apply(op, tuple(full), plan).outputs if o is not None)

    leaves = [arrays[i] for i in at]
    assert gradcheck(outputs, leaves, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(outputs, leaves, check_fwd_over_rev=True, fast_mode=True)


class Largest(TorchDispatchMode):
    """The most numbers that a result has."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(found) if isinstance(t, torch.Tensor)]
        self.count = max(self.count, *sizes, 0)
        return found


def test_second_derivatives_of_what_is_compiled_store_no_logits(rng):
    n, d, v = 67, 33, 301
    shapes = (n, d), (v, d), (v,)
    leaves = [torch.from_numpy(rng.normal(size=s)).requires_grad_() for s in shapes]
    target = torch.from_numpy(rng.integers(0, v, n))
    target[::3] = -100

    def function(h, w, b):
        plan = xent.Plan(chunk_bytes=64 * v * 4)
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan)

    def twice(loss):
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)

    torch._dynamo.reset()
    loss = torch.compile(function, fullgraph=True, backend="eager")(*leaves)
    with Largest() as seen:
        got = twice(loss)
    assert v * d <= seen.count < n * v
    torch.testing.assert_close(got, twice(function(*leaves)), rtol=1e-9, atol=1e-11)


def test_a_record_within_a_record_is_told_in_full():
    for op in (LinearStats(), EVERY, TWO):
        real, whole = [], []
        words = registered._told(op, real, whole)
        assert registered._read(iter(words), iter(real), iter(whole)) == op


def test_whom_the_operators_serve():
    h, w, target = torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(3, 1, dtype=torch.int64)
    assert registered.serves(LinearStats(), (h, torch.nn.Parameter(w), None, target, None))
    meta = h.to("meta"), w.to("meta"), None, target.to("meta"), None
    assert not registered.serves(LinearStats(), meta)
