"""The gradient that is computed with the loss, and what autograd asks of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import xent
from xent import Plan
from xent.backends import fast
from xent.kernels import library

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import ULP, cast, near, same_bits

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

REFERENCE = Plan(kernel="reference")
LIMITS = {**ULP, "float64": (6.5, 16.0)}  # with the reference's own error
DTYPES = pytest.mark.parametrize("dtype", list(LIMITS))
CLASSES = pytest.mark.parametrize("classes", [5, 200])


@pytest.fixture
def fused():
    return importlib.import_module("xent.backends.torch_fused")


@pytest.fixture
def made(fused, monkeypatch):
    """The addresses of the gradients that were allocated."""
    found, whole = [], fused._fresh

    def fresh(*arguments):
        gradient = whole(*arguments)
        found.append(gradient.data_ptr())  # held, it would be copied
        return gradient

    monkeypatch.setattr(fused, "_fresh", fresh)
    return found


def draw(rng, shape, dtype="float64"):
    """A leaf and class indices."""
    x = cast(rng.normal(0, 3, shape), dtype).requires_grad_()
    return x, torch.from_numpy(rng.integers(0, shape[1], shape[0]))


def exactly(x, t, weight=None, upstream=1.0, **options):
    """The gradient in float64."""
    leaf = x.detach().double().requires_grad_()
    loss = xent.cross_entropy(leaf, t, weight, plan=REFERENCE, **options)
    return grad(loss, leaf, torch.full_like(loss, upstream))[0]


def test_backward_hands_out_what_forward_made(rng, made):
    x, t = draw(rng, (7, 300))
    xent.cross_entropy(x, t).backward()
    assert len(made) == 1
    assert x.grad.data_ptr() == made[0]


def test_a_second_backward_computes_it_anew(rng, made):
    x, t = draw(rng, (7, 300))
    loss = xent.cross_entropy(x, t)
    (first,) = grad(loss, x, retain_graph=True)
    kept = first.clone()
    (second,) = grad(loss, x, retain_graph=True)
    same_bits(second, kept)
    assert second.data_ptr() != first.data_ptr()
    first.zero_()
    same_bits(second, kept)
    loss.backward()
    same_bits(x.grad, kept)
    assert len(made) == 3
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_gradients_add_up(rng):
    x, t = draw(rng, (7, 300))
    (once,) = grad(xent.cross_entropy(x, t), x)
    for _ in range(2):
        xent.cross_entropy(x, t).backward()
    same_bits(x.grad, 2 * once)
    (both,) = grad(xent.cross_entropy(x, t) + xent.cross_entropy(x, t), x)
    same_bits(both, 2 * once)


@DTYPES
@CLASSES
@pytest.mark.parametrize("upstream", [1.0, 2.0, 0.3, -1e-3, 32768.0, 0.0])
def test_an_upstream_is_as_good_as_one(rng, dtype, classes, upstream):
    x, t = draw(rng, (6, classes), dtype)
    loss = xent.cross_entropy(x, t)
    (g,) = grad(loss, x, torch.tensor(upstream).to(loss.dtype))
    right = exactly(x, t, upstream=float(torch.tensor(upstream).to(loss.dtype)))
    near(g, right, dtype, LIMITS[dtype][1], 0, classes * max(1, abs(upstream)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@CLASSES
def test_a_scaled_loss_does_not_underflow(rng, dtype, classes):
    x, t = draw(rng, (500, classes), dtype)
    with torch.autocast("cpu", getattr(torch, dtype)):
        loss = xent.cross_entropy(x, t)
    assert loss.dtype == torch.float32
    (g,) = grad(loss * 65536, x)
    assert g.dtype == x.dtype
    near(g, exactly(x, t, upstream=65536.0), dtype, 0.51, 0, classes * 65536)


@DTYPES
def test_the_upstream_that_is_remembered_changes_no_bits(rng, dtype):
    x, t = draw(rng, (40, 100), dtype)
    upstreams = torch.tensor([1, 0.3, 7, -2.5, 1e-3]).to(x.dtype)

    def gradient(upstream):
        return grad(xent.cross_entropy(x, t), x, upstream)[0]

    right = []
    for upstream in upstreams:
        fast._prepared.cache_clear()
        right.append(gradient(upstream))
    for place in rng.integers(0, len(upstreams), 20):
        same_bits(gradient(upstreams[place]), right[place])


def test_the_last_upstream_is_expected_by_the_next_loss(rng, made):
    x, t = draw(rng, (40, 100))
    fast._prepared.cache_clear()
    xent.cross_entropy(x, t).backward(torch.tensor(3.0).double())
    made.clear()
    x.grad = None
    xent.cross_entropy(x, t).backward(torch.tensor(3.0).double())
    assert x.grad.data_ptr() == made[0]


@pytest.mark.parametrize("upstream", [float("nan"), float("inf"), 1e-290])
def test_any_upstream(rng, upstream):
    x, t = draw(rng, (4, 5))
    with np.errstate(all="ignore"):
        right = exactly(x, t, upstream=upstream)
    for _ in range(2):
        (g,) = grad(xent.cross_entropy(x, t), x, torch.tensor(upstream, dtype=x.dtype))
        torch.testing.assert_close(g, right, rtol=1e-13, atol=0, equal_nan=True)


CASES = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothing": {"label_smoothing": 0.2},
    "z-loss": {"z_loss": 0.1},
    "softcap": {"softcap": 5.0, "logit_scale": 0.5},
    "normalizer": {"normalizer": 3.0},
    "ignored": {"ignore_index": 1},
}
EACH = pytest.mark.parametrize("name", CASES)
KINDS = pytest.mark.parametrize("kind", ["indices", "weight", "probabilities", "both"])


def case(rng, name, kind):
    """A leaf and a loss of it."""
    x, t = draw(rng, (4, 5))
    t[:2] = torch.tensor([0, 1])
    weight = cast(rng.uniform(0.5, 2, 5), "float64") if kind in ("weight", "both") else None
    if kind in ("probabilities", "both") and name != "ignored":
        t = cast(rng.dirichlet(np.ones(5), 4), "float64")
    return x, lambda x, plan=None: xent.cross_entropy(x, t, weight, plan=plan, **CASES[name])


@EACH
@KINDS
def test_derivatives_of_first_and_second_order(rng, name, kind):
    x, loss = case(rng, name, kind)
    assert gradcheck(loss, x)
    assert gradgradcheck(loss, x)


@EACH
@KINDS
def test_a_graph_of_the_gradient(rng, name, kind):
    x, loss = case(rng, name, kind)
    upstream = torch.ones_like(loss(x)).requires_grad_()
    (g,) = grad(loss(x), x, upstream, create_graph=True)
    (plain,) = grad(loss(x), x, upstream.detach())
    torch.testing.assert_close(g, plain, rtol=1e-12, atol=1e-15)
    found = grad((g**2).sum(), (x, upstream))
    (g,) = grad(loss(x, REFERENCE), x, upstream, create_graph=True)
    right = grad((g**2).sum(), (x, upstream))
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-13)


@EACH
def test_many_upstreams_at_once(rng, name):
    x, loss = case(rng, name, "weight")
    value = loss(x)
    upstreams = torch.from_numpy(rng.normal(size=(3, *value.shape)))
    (found,) = grad(value, x, upstreams, is_grads_batched=True, retain_graph=True)
    right = [grad(value, x, one, retain_graph=True)[0] for one in upstreams]
    torch.testing.assert_close(found, torch.stack(right), rtol=1e-12, atol=1e-15)


@EACH
@KINDS
def test_hooks_of_what_is_saved(rng, name, kind):
    x, loss = case(rng, name, kind)
    (right,) = grad(loss(x).sum(), x)
    with torch.autograd.graph.save_on_cpu():
        value = loss(x).sum()
    (found,) = grad(value, x, retain_graph=True)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(grad(value, x)[0], right, rtol=1e-12, atol=1e-15)


@EACH
@pytest.mark.parametrize("gaps", [1, 2])
def test_what_is_unpacked_may_lie_otherwise(rng, name, gaps):
    def unpack(saved):
        return saved.repeat_interleave(gaps, -1)[..., ::gaps]

    x, loss = case(rng, name, "probabilities")
    (right,) = grad(loss(x).sum(), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda s: s, unpack):
        value = loss(x).sum()
    for _ in range(2):
        (found,) = grad(value, x, retain_graph=True)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-15)


@EACH
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint(rng, name, reentrant):
    x, loss = case(rng, name, "weight")
    (right,) = grad(loss(2 * x).sum(), x)
    checkpoint(lambda x: loss(2 * x), x, use_reentrant=reentrant).sum().backward()
    torch.testing.assert_close(x.grad, right, rtol=1e-12, atol=1e-15)


def test_logits_that_are_no_leaf(rng):
    x, t = draw(rng, (4, 5))
    w = torch.from_numpy(rng.normal(size=(5, 5))).requires_grad_()
    found = grad(xent.cross_entropy(x @ w, t), (x, w))
    right = grad(xent.cross_entropy(x @ w, t, plan=REFERENCE), (x, w))
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-15)


def test_layouts(rng):
    x = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    t = torch.from_numpy(rng.integers(0, 5, (2, 3, 4)))
    for view in (x.movedim(-1, 1), x.movedim(-1, 1).contiguous()):
        leaf = view.detach().requires_grad_()
        xent.cross_entropy(leaf, t).backward()
        assert leaf.grad.stride() == view.stride()
        torch.testing.assert_close(leaf.grad, exactly(view, t), check_stride=False)
    wide = torch.zeros(4, 10, dtype=torch.float64, requires_grad=True)
    xent.cross_entropy(wide[:, ::2], torch.zeros(4, dtype=torch.int64)).backward()
    assert (wide.grad[:, 1::2] == 0).all()
    assert (wide.grad[:, 2::2] == 0.05).all()
    row = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    xent.cross_entropy(row.expand(4, 5), torch.zeros(4, dtype=torch.int64)).backward()
    torch.testing.assert_close(row.grad, torch.tensor([-0.8, 0.2, 0.2, 0.2, 0.2]).double())


def test_what_needs_no_gradient_has_none(rng):
    x, t = draw(rng, (4, 5))
    loss = xent.cross_entropy(x.detach(), t)
    assert not loss.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(xent.cross_entropy(x, t), loss)
    with torch.inference_mode():
        assert not xent.cross_entropy(x.clone(), t).requires_grad


def test_gradients_of_target_and_weight(rng):
    x, t = draw(rng, (4, 5))
    p = cast(rng.dirichlet(np.ones(5), 4), "float64").requires_grad_()
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(xent.cross_entropy, (x, p, w))
    assert gradcheck(lambda p: xent.cross_entropy(x.detach(), p), p)
    assert gradcheck(lambda w: xent.cross_entropy(x.detach(), p.detach(), w), w)
    with pytest.raises(RuntimeError, match="weight has requires_grad=True with class indices"):
        xent.cross_entropy(x, t, w)
    with torch.no_grad():
        torch.testing.assert_close(xent.cross_entropy(x, t, w), xent.cross_entropy(x, t))


@DTYPES
def test_dtypes_and_autocast(rng, dtype):
    x, t = draw(rng, (4, 5), dtype)
    half = dtype in ("float16", "bfloat16")
    for reduction in ("mean", "none"):
        assert xent.cross_entropy(x, t, reduction=reduction).dtype == x.dtype
        with torch.autocast("cpu", torch.bfloat16):
            loss = xent.cross_entropy(x, t, reduction=reduction)
        assert loss.dtype == (torch.float32 if half else x.dtype)
        right = xent.cross_entropy(x.detach().double(), t, reduction=reduction, plan=REFERENCE)
        name = "float32" if half else dtype
        near(loss.detach(), right, name, LIMITS[name][0])
        (g,) = grad(loss.sum(), x)
        assert g.dtype == x.dtype
        near(g, exactly(x, t, reduction=reduction), dtype, LIMITS[dtype][1])


def test_logits_changed_after_the_loss(rng):
    x, t = draw(rng, (4, 5))
    y = x * 1
    loss = xent.cross_entropy(y, t)
    y.mul_(2)  # the gradient is made already, and handed out
    torch.testing.assert_close(grad(loss, x, retain_graph=True)[0], exactly(x, t))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_weight_that_is_trained_elsewhere_changes_no_bit_without_a_graph(rng):
    for _ in range(30):
        x, p = torch.from_numpy(rng.normal(size=(7, 5))), torch.from_numpy(rng.random((7, 5)))
        w = torch.from_numpy(rng.random(5))
        right = xent.cross_entropy(x, p, w, label_smoothing=0.1)
        with torch.no_grad():
            leaf = w.clone().requires_grad_()
            same_bits(xent.cross_entropy(x, p, leaf, label_smoothing=0.1), right)


@pytest.mark.parametrize("asarray", [torch.tensor, np.array])
def test_a_weight_of_another_length_is_refused_after_a_right_one(asarray) -> None:
    """The record of a right call was kept by the logits alone: the next weight was read past it."""
    logits, target = asarray([[0.0, 1.0, 2.0]]), asarray([1])
    assert xent.cross_entropy(logits, target, asarray([1.0, 1.0, 1.0])) > 0
    for length in (2, 4):
        with pytest.raises(ValueError, match=rf"weight has shape \({length},\)"):
            xent.cross_entropy(logits, target, asarray([1.0] * length))
