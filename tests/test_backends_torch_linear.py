"""A linear head under autograd: each defect that fused heads are known for, and none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import xent

N, D, V = 9, 70, 137
PLANS = [None, xent.Plan(chunk_bytes=4 * V * 4), xent.Plan(chunk_bytes=999, chunk_over="classes")]
EACH_PLAN = pytest.mark.parametrize("plan", PLANS, ids=["whole", "rows", "classes"])


def arrays_of(rng, dtype=torch.float64, ignored=True) -> Any:
    h = torch.from_numpy(rng.normal(size=(N, D)) / 8).to(dtype).requires_grad_()
    w = torch.from_numpy(rng.normal(size=(V, D))).to(dtype).requires_grad_()
    b = torch.from_numpy(rng.normal(size=V)).to(dtype).requires_grad_()
    target = torch.from_numpy(rng.integers(0, V, N))
    if ignored:
        target[::3] = -100
    return h, w, b, target


def plain(h: Any, w: Any, b: Any, target: Any, **options: Any) -> Any:
    return F.cross_entropy(F.linear(h, w, b), target, **options)


def close(got, right):
    torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-11)


@EACH_PLAN
def test_every_backward_gives_the_gradient_of_its_upstream(rng, plan):
    h, w, b, target = arrays_of(rng)
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan)
    right = plain(h, w, b, target)
    for factor in (3.0, 3.0, 1.0, 0.5):
        got, wanted = (
            torch.autograd.grad(a * factor, (h, w, b), retain_graph=True) for a in (loss, right)
        )
        close(got, wanted)


@EACH_PLAN
@pytest.mark.parametrize("leaves", ["h", "w", "b", "hw", "hb", "wb"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_subset_may_be_frozen(rng, plan, leaves, reduction):
    every = dict(zip("hwb", arrays_of(rng)[:3], strict=True))
    target = arrays_of(rng)[3]
    given = [a if n in leaves else a.detach() for n, a in every.items()]
    h, w, b = given
    options = {"reduction": reduction}
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan, **options)
    up = torch.from_numpy(rng.normal(size=tuple(loss.shape))).reshape(loss.shape)
    wanted = [every[n] for n in leaves]
    right = plain(h, w, b, target, **options)
    close(torch.autograd.grad(loss, wanted, up), torch.autograd.grad(right, wanted, up))


@EACH_PLAN
def test_all_ignored_is_nan_with_a_gradient_of_0(rng, plan):
    h, w, b, target = arrays_of(rng)
    target[:] = -100
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan)
    assert loss.isnan()
    loss.backward()
    for leaf in (h, w, b):
        assert leaf.grad is not None
        assert not leaf.grad.any()
    with torch.no_grad():
        h.fill_(float("nan"))
    rows = xent.linear_cross_entropy(h, w, target, reduction="none", plan=plan)
    assert not rows.any()
    for found in torch.autograd.grad(rows.sum(), (h, w), create_graph=True):
        assert not found.any()


@EACH_PLAN
def test_nothing_that_was_passed_is_changed(rng, plan):
    h, w, b, target = arrays_of(rng)
    before = [a.detach().clone() for a in (h, w, b, target)]
    versions = [a._version for a in (h, w, b, target)]
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan)
    (loss * 2).backward()
    for array, old, version in zip((h, w, b, target), before, versions, strict=True):
        assert torch.equal(array, old)
        assert array._version == version


@EACH_PLAN
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_create_graph_gives_a_gradient_that_can_be_differentiated(rng, plan, reduction):
    h, w, b, target = arrays_of(rng)
    options = {"reduction": reduction, "label_smoothing": 0.1}
    found = []
    for loss in (
        xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan, **options),
        plain(h, w, b, target, **options),
    ):
        gradients = torch.autograd.grad(loss.square().sum(), (h, w, b), create_graph=True)
        assert all(g.requires_grad for g in gradients)
        penalty = torch.stack([g.square().sum() for g in gradients]).sum()
        found.append((*gradients, *torch.autograd.grad(penalty, (h, w, b))))
    close(*found)


def test_forward_mode_is_not_silently_0(rng):
    h, w, b, target = arrays_of(rng)
    v = tuple(torch.from_numpy(rng.normal(size=tuple(a.shape))) for a in (h, w, b))
    arrays = tuple(a.detach() for a in (h, w, b))

    def ours(h, w, b):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b)

    got = torch.func.jvp(ours, arrays, v)
    close(got, torch.func.jvp(lambda *a: plain(*a, target), arrays, v))
    assert got[1] != 0
    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(a, t) for a, t in zip(arrays, v, strict=True)]
        close(torch.autograd.forward_ad.unpack_dual(ours(*dual)).tangent, got[1])


def test_checkpointing_tied_and_non_contiguous_weights(rng):
    h, w, _, target = arrays_of(rng)
    right = torch.autograd.grad(plain(h, w, None, target), (h, w))
    for reentrant in (False, True):
        loss = checkpoint(xent.linear_cross_entropy, h, w, target, use_reentrant=reentrant)
        loss.backward()
        close((h.grad, w.grad), right)
        h.grad = w.grad = None
    turned = w.detach().T.contiguous().requires_grad_()
    close(
        torch.autograd.grad(xent.linear_cross_entropy(h, turned.T, target), turned)[0].T, right[1]
    )
    tokens = torch.from_numpy(rng.integers(0, V, N))
    losses = [xent.linear_cross_entropy(w[tokens], w, target), plain(w[tokens], w, None, target)]
    close(*(torch.autograd.grad(loss, w) for loss in losses))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("confident", [False, True])
def test_gradients_are_within_1_05_of_the_correctly_rounded(rng, dtype, confident):
    n, d, v = 256, 32, 2048
    h = torch.from_numpy(rng.normal(size=(n, d))).to(dtype)
    w = torch.from_numpy(rng.normal(size=(v, d)) / 4).to(dtype)
    target = torch.from_numpy(rng.integers(0, v, n))
    if confident:
        h = (4 * w[target].double()).to(dtype)
    exact = [a.double().requires_grad_() for a in (h, w)]
    right = F.cross_entropy(exact[0] @ exact[1].T, target)
    gradients = torch.autograd.grad(right, exact)
    for plan in (None, xent.Plan(chunk_bytes=1 << 18)):
        leaves = [a.clone().requires_grad_() for a in (h, w)]
        loss = xent.linear_cross_entropy(*leaves, target, plan=plan)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), right, rtol=1e-5, atol=1e-12)
        scale = 65536.0 if dtype == torch.float16 else 1.0
        found = torch.autograd.grad(loss * scale, leaves)
        for got, wide in zip(found, gradients, strict=True):
            best = ((wide * scale).to(dtype).double() - wide * scale).norm()
            error = (got.double() - wide * scale).norm()
            floor = 2e-6 * (wide * scale).norm() if dtype == torch.float32 else 0
            assert error <= 1.05 * best + floor


def test_autocast_multiplies_what_it_would(rng):
    h, w, b, target = arrays_of(rng, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = xent.linear_cross_entropy(h, w, target, linear_bias=b)
    assert loss.dtype == torch.float32
    rounded = [a.bfloat16() for a in (h, w, b)]
    right = plain(*(a.double() for a in rounded), target)
    torch.testing.assert_close(loss.double(), right, rtol=1e-6, atol=0)
    got, wanted = (torch.autograd.grad(a, (h, w, b)) for a in (loss, right))
    torch.testing.assert_close(got, wanted, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_with_ignored_rows(rng, reduction):
    h, w, b, target = arrays_of(rng)

    def ours(h, w, b):
        return xent.linear_cross_entropy(
            h, w, target, linear_bias=b, reduction=reduction, plan=PLANS[1]
        )

    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    loss, right = compiled(h, w, b), plain(h, w, b, target, reduction=reduction)
    close(loss, right)
    leaves = (h, w, b)
    close(
        torch.autograd.grad(loss.square().sum(), leaves),
        torch.autograd.grad(right.square().sum(), leaves),
    )


def test_a_normalizer_that_is_a_tensor(rng):
    h, w, b, target = arrays_of(rng)
    count = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    ours = xent.linear_cross_entropy(h, w, target, linear_bias=b, normalizer=count)
    right = plain(h, w, b, target, reduction="sum") / count
    leaves = (h, w, b, count)
    close(torch.autograd.grad(ours, leaves), torch.autograd.grad(right, leaves))


def test_two_runs_give_the_same_bits_with_and_without_a_graph(rng):
    h, w, b, target = arrays_of(rng, torch.float32)
    losses = [xent.linear_cross_entropy(h, w, target, linear_bias=b) for _ in range(2)]
    first, second = (torch.autograd.grad(loss, (h, w, b)) for loss in losses)
    assert all(map(torch.equal, first, second))
    assert torch.equal(*losses)


def test_a_bad_target_names_its_row(rng):
    h, w, _, target = arrays_of(rng)
    target[4] = V
    with pytest.raises(IndexError, match=rf"^linear_cross_entropy: target has value {V} at row 4"):
        xent.linear_cross_entropy(h, w, target)
    plan = xent.Plan(check_targets=False)
    rows = xent.linear_cross_entropy(h, w, target, reduction="none", plan=plan)
    assert np.flatnonzero(rows.detach().isnan().numpy()).tolist() == [4]


@pytest.mark.parametrize("over", ["rows", "classes"])
@pytest.mark.parametrize("options", [{}, {"reduction": "none", "label_smoothing": 0.1}], ids=str)
def test_a_bias_is_added_once_however_many_blocks_there_are(rng, over, options):
    n, d, v = 70, 300, 1301
    h = torch.from_numpy(rng.normal(size=(n, d)) / 16).requires_grad_()
    w = torch.from_numpy(rng.normal(size=(v, d))).requires_grad_()
    b = torch.from_numpy(10 * rng.normal(size=v)).requires_grad_()
    target = torch.from_numpy(rng.integers(0, v, n))
    plan = xent.Plan(chunk_bytes=8 * 70 * 200, chunk_over=over)  # 10 rows, or 200 classes
    loss = xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan, **options)
    right = plain(h, w, b, target, **options)
    close(loss, right)
    up = torch.from_numpy(np.asarray(rng.normal(size=tuple(loss.shape))))
    close(torch.autograd.grad(loss, (h, w, b), up), torch.autograd.grad(right, (h, w, b), up))
    numbers = [a.detach().numpy() for a in (h, w, target, b)]
    given = {"linear_bias": numbers[3], "plan": plan, **options}
    value, vjp = xent.linear_cross_entropy_vjp(*numbers[:3], **given)
    close(torch.as_tensor(value), right.detach())
    found = vjp(np.ones_like(value))
    expected = torch.autograd.grad(plain(h, w, b, target, **options).sum(), (h, w, b))
    close(tuple(map(torch.from_numpy, found)), expected)
