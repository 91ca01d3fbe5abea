"""Derivatives at points where a formula that is right elsewhere gives NaN, 0 or half of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp
from torch.fx.experimental.proxy_tensor import make_fx

import xent

INF, NAN = math.inf, math.nan
ORDERS = {"check_fwd_over_rev": True, "check_rev_over_rev": True}


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


Y = torch.tensor([0, 2, 3])
P = double([0.5, 0.0, 0.2, 0.3], [0.1, 0.3, 0.6, 0.0], [0.0, 0.0, 0.0, 1.0])
W = double(0.5, 2.0, 1.5, 3.0)
FINITE_LOSS = {  # of rows with masked classes that no target asks for
    "indices": lambda x: xent.cross_entropy(x, Y),
    "weight": lambda x: xent.cross_entropy(x, Y, W, reduction="none"),
    "z-loss, scale": lambda x: xent.cross_entropy(x, Y, z_loss=0.1, logit_scale=0.7),
    "probabilities": lambda x: xent.cross_entropy(x, P),
    "probabilities, weight": lambda x: xent.cross_entropy(x, P, W, logit_scale=0.7),
    "softcap": lambda x: xent.cross_entropy(x, Y, label_smoothing=0.1, softcap=2.0),
    "softmax": lambda x: xent.softmax(x),
    "logsumexp": lambda x: xent.logsumexp(x),
    "statistics": lambda x: xent.token_statistics(x, Y)[:3],
}


def masked(rng):
    """Logits with one masked class in every row, never that of the target."""
    x = torch.from_numpy(rng.normal(0, 2, (3, 4)))
    x[torch.arange(3), torch.tensor([1, 3, 0])] = -INF
    return x.requires_grad_()


@pytest.mark.parametrize("name", FINITE_LOSS)
def test_masked_classes(rng, name):
    function, x = FINITE_LOSS[name], masked(rng)
    assert gradcheck(function, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x,), **ORDERS)


@pytest.mark.parametrize("name", FINITE_LOSS)
def test_masked_classes_of_a_recorded_loss(rng, name):
    x = masked(rng)
    function = FINITE_LOSS[name]
    flat = function if name != "statistics" else lambda x: torch.stack(function(x))
    recorded = make_fx(flat)(x.detach())
    scores = torch.from_numpy(rng.normal(size=flat(x).shape))
    ours, theirs = (torch.autograd.grad((f(x) * scores).sum(), x)[0] for f in (flat, recorded))
    torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 3.0}], ids=str)
def test_probabilities_with_zeros(rng, options):
    x = torch.from_numpy(rng.normal(0, 2, (3, 4))).requires_grad_()
    arrays = (x, P.clone().requires_grad_(), W.clone().requires_grad_())

    def loss(x, p, w):
        return xent.cross_entropy(x, p, w, **options)

    assert gradcheck(loss, arrays, check_forward_ad=True)
    assert gradgradcheck(loss, arrays, **ORDERS)


IGNORING = {
    "cross_entropy": lambda x, y, w: xent.cross_entropy(x, y),
    "weight": lambda x, y, w: xent.cross_entropy(x, y, w),
    "everything": lambda x, y, w: xent.cross_entropy(
        x, y, torch.ones(3), label_smoothing=0.1, z_loss=0.1, softcap=2.0, logit_scale=0.5
    ),
    "nll_loss": lambda x, y, w: xent.nll_loss(x, y, w),
    "statistics": lambda x, y, w: sum(s.sum() for s in xent.token_statistics(x, y)[:3]),
}


@pytest.mark.parametrize("name", IGNORING)
@pytest.mark.parametrize("held", [[NAN, 1.0, 2.0], [INF, -INF, NAN], [-INF, -INF, -INF]], ids=str)
def test_what_an_ignored_row_holds_reaches_no_derivative(name, held):
    # The weight of class 0, which no kept row has, is not the weight of an ignored row either.
    x, y = double([0.3, -1.0, 2.0], held, [1.0, 0.0, -2.0]), torch.tensor([1, -100, 2])
    weight, clean = double(NAN, 2.0, 3.0), double([0.3, -1.0, 2.0], [0, 0, 0], [1.0, 0.0, -2.0])
    direction = double([1.0, -2.0, 3.0], [NAN, INF, 1.0], [0.5, 0.2, 0.1])

    def loss(x):
        return IGNORING[name](x, y, weight)

    for function in (loss, make_fx(loss)(clean)):
        kept = grad(function)(clean)
        torch.testing.assert_close(grad(function)(x), kept, rtol=0, atol=0)
        assert kept[1].tolist() == [0, 0, 0]
        second = hessian(function)(x)
        torch.testing.assert_close(second, hessian(function)(clean), rtol=0, atol=0)
        assert not second[1].any()
        assert not second[:, :, 1].any()
        still = direction.clone()
        still[1] = 0
        moved, right = (jvp(function, (a,), (v,))[1] for a, v in ((x, direction), (clean, still)))
        torch.testing.assert_close(moved, right, rtol=1e-14, atol=0)


def test_an_upstream_of_zero_for_an_infinite_loss():
    x = double([1.0, -INF, 2.0], [0.0, 1.0, 2.0]).requires_grad_()
    loss = xent.cross_entropy(x, torch.tensor([1, 1]), reduction="none")
    assert loss[0] == INF
    (g,) = torch.autograd.grad(loss, x, double(0.0, 1.0))
    assert g[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(g[1], torch.softmax(x[1], 0).detach() - double(0.0, 1.0, 0.0))


def test_binary_logits_of_exactly_0():
    # p = 1/2: the derivatives of softplus and of the sigmoid are 1/2 and 1/4, not 0.
    x, y = double(0.0, 0.0, 0.0), double(0.0, 0.5, 1.0)
    w, v = double(1.0, 2.0, 3.0), double(2.0, 1.0, 0.5)

    def loss(x, y, w, v):
        return xent.binary_cross_entropy_with_logits(x, y, w, pos_weight=v, reduction="sum")

    def plain(x, y, w, v):
        return (w * ((1 - y) * F.softplus(x) + v * y * F.softplus(-x))).sum()

    arrays, every = (x, y, w, v), (0, 1, 2, 3)
    for second in (hessian, lambda f, argnums: jacrev(jacrev(f, argnums), argnums)):
        got, right = (second(f, argnums=every)(*arrays) for f in (loss, plain))
        torch.testing.assert_close(got, right, rtol=1e-15, atol=0)
    assert torch.diagonal(hessian(loss)(*arrays)).tolist() == [0.25, 0.5, 0.375]
    for third in (jacfwd(jacrev(jacrev(loss))), jacrev(jacfwd(jacfwd(loss)))):
        torch.testing.assert_close(third(*arrays), jacfwd(hessian(plain))(*arrays))


def test_infinite_binary_logits_that_are_right():
    x, y = double(INF, -INF, 0.3).requires_grad_(), double(1.0, 0.0, 0.2)

    def loss(x):
        return xent.binary_cross_entropy_with_logits(x, y)

    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    p = 1 / (1 + math.exp(-0.3))
    torch.testing.assert_close(first.detach(), double(0.0, 0.0, (p - 0.2) / 3))
    torch.testing.assert_close(second, double(0.0, 0.0, p * (1 - p) / 3))


def test_every_derivative_of_a_softcap_at_0():
    y = torch.tensor(1)

    def loss(x):
        return xent.cross_entropy(x, y, softcap=2.0, logit_scale=1.5)

    def plain(x):
        return F.cross_entropy(2 * torch.tanh(1.5 * x / 2), y)

    for first, second, third in ((jacrev,) * 3, (jacfwd, jacrev, jacrev), (jacfwd,) * 3):
        got, right = (first(second(third(f)))(double(0.0, 0.0, 1.0)) for f in (loss, plain))
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-15)


def test_equal_largest_logits():
    x = double([1.0, 1.0, 1.0], [2.0, 2.0, -1.0]).requires_grad_()
    functions = (
        lambda x: xent.cross_entropy(x, torch.tensor([2, 0]), label_smoothing=0.1),
        lambda x: xent.token_statistics(x, torch.tensor([2, 0]))[:3],
        xent.softmax,
        xent.log_softmax,
    )
    for function in functions:
        assert gradcheck(function, (x,), check_forward_ad=True)
        assert gradgradcheck(function, (x,), **ORDERS)
