"""The loss of a linear head is that of its logits, for every option, on NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import xent
from xent.conformance import oracle

N, D, V = 11, 7, 37
OPTIONS = [
    {},
    {"label_smoothing": 0.1, "reduction": "none"},
    {"z_loss": 0.01, "softcap": 3.0, "logit_scale": 0.7},
    {"reduction": "sum", "ignore_index": 5},
    {"normalizer": 5.0},
]
PLANS = [
    None,
    xent.Plan(chunk_bytes=600, chunk_over="rows"),
    xent.Plan(chunk_bytes=600, chunk_over="classes"),
    xent.Plan(kernel="reference"),
    xent.Plan(gradient="recompute"),
]


def arrays_of(rng, soft, weighted) -> Any:
    hidden, linear_weight = rng.normal(size=(N, D)), rng.normal(size=(V, D))
    target = rng.dirichlet(np.ones(V), N) if soft else rng.integers(0, V, N)
    if not soft:
        target[3], target[8] = -100, 5
    return hidden, linear_weight, rng.normal(size=V), target, rng.random(V) if weighted else None


def allowed(soft, options):
    return not (soft and options.get("ignore_index", -1) >= 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_numpy(rng, soft, options):
    if not allowed(soft, options):
        return
    for weighted in (False, True):
        h, w, b, target, weight = arrays_of(rng, soft, weighted)
        if not soft and "ignore_index" in options:
            target[3] = 5
        right, pull = xent.cross_entropy_vjp(h @ w.T + b, target, weight, **options)
        dlogits = pull(np.ones_like(right) * 0.5)
        for plan in PLANS:
            given = {"linear_bias": b, "weight": weight, "plan": plan, **options}
            np.testing.assert_allclose(
                xent.linear_cross_entropy(h, w, target, **given), right, rtol=1e-12
            )
            loss, vjp = xent.linear_cross_entropy_vjp(h, w, target, **given)
            np.testing.assert_allclose(loss, right, rtol=1e-12)
            for _ in range(2):
                found = vjp(np.ones_like(right) * 0.5)
                expected = (dlogits @ w, dlogits.T @ h, dlogits.sum(0))
                for ours, theirs in zip(found, expected, strict=True):
                    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("soft", [False, True])
def test_torch(rng, soft, dtype):
    kind = getattr(torch, dtype)
    loss_tol = 1e-12 if dtype == "float64" else 2e-5
    tol = {"float64": 1e-11, "float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    for options in OPTIONS:
        if not allowed(soft, options):
            continue
        for plan in PLANS:
            h, w, b, target, weight = map(torch.from_numpy, arrays_of(rng, soft, True))
            if not soft and "ignore_index" in options:
                target[3] = 5
            leaves = [a.to(kind).requires_grad_() for a in (h, w, b)]
            wide = [a.detach().double().requires_grad_() for a in leaves]
            if soft:
                target = target.to(kind)
            h, w, b = leaves
            given = {"weight": weight.to(kind), **options}
            ours = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan, **given)
            assert ours.dtype == torch.promote_types(kind, torch.float32)
            given["weight"] = given["weight"].double()
            logits = wide[0] @ wide[1].T + wide[2]
            right = xent.cross_entropy(logits, target.double() if soft else target, **given)
            torch.testing.assert_close(ours.double(), right, rtol=loss_tol, atol=loss_tol)
            up = torch.from_numpy(rng.normal(size=tuple(right.shape)))
            got = torch.autograd.grad(ours, leaves, up.to(ours.dtype).reshape(ours.shape))
            expected = torch.autograd.grad(right, wide, up.reshape(right.shape))
            for mine, theirs, leaf in zip(got, expected, leaves, strict=True):
                assert mine.dtype == leaf.dtype
                torch.testing.assert_close(mine.double(), theirs, rtol=tol, atol=tol)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_oracle(rng, soft, reduction):
    # eighths, of which products and sums are exact: the oracle is given the logits themselves
    h, w, b = (rng.integers(-16, 17, shape) / 8 for shape in ((4, 3), (5, 3), (5,)))
    logits, weight = h @ w.T + b, rng.random(5)
    target = rng.dirichlet(np.ones(5), 4) if soft else np.array([3, -100, 0, 4])
    options = {"label_smoothing": 0.1, "z_loss": 0.01, "reduction": reduction}
    right = oracle.cross_entropy(logits, target, weight, **options)
    upstream = rng.normal(size=np.shape(right))
    found = oracle.cross_entropy_grad(logits, target, weight, upstream=upstream, **options)
    dlogits = found.dlogits.astype(float)
    for plan in (None, xent.Plan(chunk_bytes=80, chunk_over="classes")):
        given = {"linear_bias": b, "weight": weight, "plan": plan, **options}
        loss, vjp = xent.linear_cross_entropy_vjp(h, w, target, **given)
        np.testing.assert_allclose(loss, np.asarray(right).astype(float), rtol=1e-14)
        leaves = [torch.from_numpy(a).requires_grad_() for a in (h, w, b)]
        given |= {"linear_bias": leaves[2], "weight": torch.from_numpy(weight)}
        ours = xent.linear_cross_entropy(*leaves[:2], torch.from_numpy(target), **given)
        np.testing.assert_allclose(ours.detach(), np.asarray(right).astype(float), rtol=1e-14)
        got = torch.autograd.grad(ours, leaves, torch.from_numpy(np.asarray(upstream)))
        expected = dlogits @ w, dlogits.T @ h, dlogits.sum(0)
        for mine, theirs, exact in zip(vjp(upstream), got, expected, strict=True):
            np.testing.assert_allclose(mine, exact, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(theirs, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("heads", [(), (2,), (2, 3)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", [None, torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)])
def test_torchs_own_argument_for_argument(rng, heads, soft, options):
    h = torch.from_numpy(rng.normal(size=(4, D))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=(5, *heads, D))).requires_grad_()
    b = torch.from_numpy(rng.normal(size=(5, *heads))).requires_grad_()
    weight = torch.from_numpy(rng.random(5))
    if soft:
        target = torch.from_numpy(rng.random((4, 5, *heads))).softmax(1)
    else:
        target = torch.from_numpy(rng.integers(0, 5, (4, *heads)))
        target[0] = 3
    for reduction in ("mean", "sum", "none"):
        given = {"linear_bias": b, "weight": weight, "reduction": reduction}
        given |= {"ignore_index": None if soft else 3, "label_smoothing": 0.2}
        right = F.linear_cross_entropy(h, w, target, **given)
        ours = xent.linear_cross_entropy(h, w, target, options=options, **given)
        torch.testing.assert_close(ours, right)
        got = torch.autograd.grad(ours.sum(), (h, w, b))
        torch.testing.assert_close(got, torch.autograd.grad(right.sum(), (h, w, b)))
        loss, vjp = xent.linear_cross_entropy_vjp(
            h, w, target, **{**given, "ignore_index": -100 if soft else 3}
        )
        torch.testing.assert_close(loss, right.detach())
        torch.testing.assert_close(tuple(vjp(torch.ones_like(loss))), got)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("soft", [False, True])
def test_shift_pairs_a_hidden_state_with_a_later_target(rng, library, soft):
    h, w = rng.normal(size=(2, 6, D)), rng.normal(size=(V, D))
    target = rng.dirichlet(np.ones(V), (2, 6)) if soft else rng.integers(0, V, (2, 6))
    if library == "torch":
        h, w, target = map(torch.from_numpy, (h, w, target))
    right = xent.linear_cross_entropy(h[:, :-2], w, target[:, 2:], reduction="none")
    got = xent.linear_cross_entropy(h, w, target, reduction="none", shift=2)
    assert got.shape == (2, 4)
    np.testing.assert_allclose(np.asarray(got), np.asarray(right), rtol=1e-12)
    _, vjp = xent.linear_cross_entropy_vjp(h, w, target, shift=2)
    assert vjp().hidden.shape == (2, 6, D)
    assert not np.asarray(vjp().hidden[:, 4:]).any()


def test_token_statistics_are_those_of_the_logits(rng):
    h, w, b, target, _ = arrays_of(rng, False, False)
    for plan in PLANS:
        options = {"softcap": 4.0, "logit_scale": 0.8, "plan": plan}
        right = xent.token_statistics(h @ w.T + b, target, **options)
        got = xent.linear_token_statistics(h, w, target, linear_bias=b, **options)
        for ours, theirs in zip(got, right, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
        leaf = torch.from_numpy(h).requires_grad_()
        w_, b_, t_ = map(torch.from_numpy, (w, b, target))
        ours = xent.linear_token_statistics(leaf, w_, t_, linear_bias=b_, **options)
        theirs = xent.token_statistics(leaf @ w_.T + b_, t_, **options)
        for a, c in zip(ours[:3], theirs[:3], strict=True):
            up = torch.from_numpy(rng.normal(size=N))
            torch.testing.assert_close(
                torch.autograd.grad(a, leaf, up, retain_graph=True),
                torch.autograd.grad(c, leaf, up, retain_graph=True),
            )


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_an_adapter_is_never_formed(rng, library):
    h, w, b, target, _ = arrays_of(rng, False, False)
    a_, b_ = rng.normal(size=(2, D)), rng.normal(size=(V, 2))
    if library == "numpy":
        whole = w + 1.5 * b_ @ a_
        right, pull = xent.linear_cross_entropy_vjp(h, whole, target, linear_bias=b)
        loss, vjp = xent.linear_cross_entropy_vjp(
            h, xent.LowRank(w, a_, b_, 1.5), target, linear_bias=b
        )
        np.testing.assert_allclose(loss, right, rtol=1e-12)
        found, expected = vjp(2.0), pull(2.0)
        dw = expected.linear_weight
        np.testing.assert_allclose(found.hidden, expected.hidden, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.linear_weight.weight, dw, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.linear_weight.a, 1.5 * b_.T @ dw, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.linear_weight.b, 1.5 * dw @ a_.T, rtol=1e-9, atol=1e-12)
        return
    h, w, a_, b_ = (torch.from_numpy(x).requires_grad_() for x in (h, w, a_, b_))
    target = torch.from_numpy(target)
    loss = xent.linear_cross_entropy(h, xent.LowRank(w, a_, b_, 1.5), target)
    right = xent.linear_cross_entropy(h, w + 1.5 * b_ @ a_, target)
    torch.testing.assert_close(loss, right)
    leaves = (h, w, a_, b_)
    ours = torch.autograd.grad(loss, leaves, create_graph=True)
    theirs = torch.autograd.grad(right, leaves, create_graph=True)
    torch.testing.assert_close(ours, theirs)
    twice = [
        torch.autograd.grad(torch.stack([g.sin().sum() for g in gs]).sum(), leaves)
        for gs in (ours, theirs)
    ]
    torch.testing.assert_close(*twice)
    frozen = xent.LowRank(w.detach(), a_, b_)
    xent.linear_cross_entropy(h.detach(), frozen, target).backward()
    for leaf in (a_, b_):
        assert leaf.grad is not None
        assert leaf.grad.any()


def test_dtypes_are_promoted_and_gradients_are_given_back(rng):
    h = torch.from_numpy(rng.normal(size=(4, D))).bfloat16().requires_grad_()
    w = torch.from_numpy(rng.normal(size=(V, D))).float().requires_grad_()
    target = torch.tensor([1, 2, 3, 4], dtype=torch.int32)
    loss = xent.linear_cross_entropy(h, w, target)
    assert loss.dtype == torch.float32
    dh, dw = torch.autograd.grad(loss, (h, w))
    assert dh.dtype == torch.bfloat16
    assert dw.dtype == torch.float32
    right = F.cross_entropy(h.float() @ w.T, target.long())
    torch.testing.assert_close(loss, right)
    torch.testing.assert_close(dw, torch.autograd.grad(right, w)[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_targets_of_unsigned_integers(rng, dtype):
    h, w, b, target, _ = arrays_of(rng, False, False)
    target[3] = 200
    unsigned = target.astype(dtype)
    for options in ({}, {"reduction": "none", "plan": PLANS[2]}):
        given = {"ignore_index": 200, **options}
        right, pull = xent.linear_cross_entropy_vjp(h, w, target, linear_bias=b, **given)
        loss, vjp = xent.linear_cross_entropy_vjp(h, w, unsigned, linear_bias=b, **given)
        np.testing.assert_array_equal(loss, right)
        assert all(map(np.array_equal, vjp(1.0), pull(1.0)))
        leaves = [torch.from_numpy(a).requires_grad_() for a in (h, w, b)]
        found = [
            xent.linear_cross_entropy(*leaves[:2], t, linear_bias=leaves[2], **given)
            for t in (torch.from_numpy(target), torch.from_numpy(unsigned))
        ]
        assert torch.equal(*found)
        gradients = [torch.autograd.grad(loss.sum(), leaves) for loss in found]
        assert all(map(torch.equal, *gradients))
    unsigned[5] = 100
    for convert in (np.asarray, torch.from_numpy):
        with pytest.raises(IndexError, match="target has value 100 at row 5"):
            xent.linear_cross_entropy(*map(convert, (h, w, unsigned)), ignore_index=200)
