"""Derivatives of every order of a linear head, chunk by chunk: right, without N x V numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import xent

N, D, V = 3, 2, 11
KINDS = pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])


def close(got, right):
    torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-11)


def functions(rng, soft, n=N, d=D, v=V, chunk=None, over=None):
    """Ours and plain torch's, of hidden, weight and bias, and arrays for them."""
    h, w, b = (torch.from_numpy(rng.normal(size=s)) for s in ((n, d), (v, d), (v,)))
    weight = torch.from_numpy(rng.random(v))
    target = torch.from_numpy(rng.random((n, v))).softmax(1)
    if not soft:
        target = torch.from_numpy(rng.integers(0, v, n))
        target[1] = -100
    options = {"label_smoothing": 0.1, "weight": weight}

    def ours(h, w, b, **more):
        plan = None if chunk is None else xent.Plan(chunk_bytes=chunk, chunk_over=over)
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan, **options, **more)

    def plain(h, w, b, **more):
        return F.cross_entropy(h @ w.T + b, target, **options, **more)

    return ours, plain, (h, w, b)


@pytest.mark.parametrize(("soft", "reduction"), [(False, "mean"), (True, "none")])
def test_gradcheck(rng, soft, reduction):
    ours, _, arrays = functions(rng, soft, v=5, chunk=64 * 5 * 2)

    def function(*arrays):
        return ours(*arrays, reduction=reduction)

    leaves = [a.requires_grad_() for a in arrays]
    assert gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, leaves, check_fwd_over_rev=True)


@KINDS
def test_torch_func(rng, soft):
    ours, plain, arrays = functions(rng, soft)
    v = tuple(torch.from_numpy(rng.normal(size=tuple(a.shape))) for a in arrays)
    every = (0, 1, 2)
    close(grad(ours, every)(*arrays), grad(plain, every)(*arrays))
    close(jvp(ours, arrays, v), jvp(plain, arrays, v))
    close(hessian(ours, every)(*arrays), hessian(plain, every)(*arrays))
    close(jacrev(jacrev(ours))(*arrays), hessian(plain)(*arrays))
    close(jacfwd(jacfwd(ours))(*arrays), hessian(plain)(*arrays))
    close(jacfwd(jacrev(jacfwd(ours)))(*arrays), jacfwd(jacrev(jacfwd(plain)))(*arrays))


@pytest.mark.parametrize("over", ["rows", "classes"])
def test_a_hessian_of_many_tiles(rng, over):
    n, d, v = 3, 3, 7
    chunk = 64 * v * 2 if over == "rows" else 8 * n * 3  # 2 rows at a time; 3 classes
    ours, plain, arrays = functions(rng, False, n, d, v, chunk, over)
    close(hessian(ours, (0, 1, 2))(*arrays), hessian(plain, (0, 1, 2))(*arrays))


@KINDS
@pytest.mark.parametrize("mapped", [(0, None, None), (None, 0, None), (0, 0, None), (0, 0, 0)])
def test_vmap_of_values_and_gradients(rng, soft, mapped):
    ours, plain, arrays = functions(rng, soft, chunk=64 * V * 2)
    several = [
        torch.stack([a, 0.5 * a, -a]) if m == 0 else a for a, m in zip(arrays, mapped, strict=True)
    ]

    def at(i):
        return [a if m is None else a[i] for a, m in zip(several, mapped, strict=True)]

    right = torch.stack([plain(*at(i)) for i in range(3)])
    close(vmap(ours, mapped)(*several), right)
    got = vmap(grad(ours, (0, 1, 2)), mapped)(*several)
    columns = zip(*(grad(plain, (0, 1, 2))(*at(i)) for i in range(3)), strict=True)
    close(got, tuple(map(torch.stack, columns)))


class Largest(TorchDispatchMode):
    """The most numbers that any one piece of memory has held."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (list, tuple)) else (found,):
            if isinstance(tensor, torch.Tensor):
                size = tensor.untyped_storage().nbytes() // 8
                self.count = max(self.count, size)
        return found


def test_no_order_stores_the_logits(rng):
    n, d, v = 67, 33, 1301  # above the blocks of the kernels, with uneven tails
    ours, plain, arrays = functions(rng, False, n, d, v, chunk=64 * v * 4)
    h, w, b = leaves = [a.requires_grad_() for a in arrays]
    tangents = tuple(torch.ones_like(a) for a in arrays)

    def product(function):
        """First derivatives, and a product with the second."""
        first = torch.autograd.grad(function(*leaves), leaves, create_graph=True)
        return (*first, *torch.autograd.grad(torch.stack([g.sum() for g in first]).sum(), leaves))

    def rows(function):
        found = function(*leaves, reduction="none")
        return torch.autograd.grad(found, leaves, found.detach())

    def forward(function):
        plain_arrays = tuple(a.detach() for a in leaves)
        return jvp(grad(function), plain_arrays, tangents)

    def several(function):
        return vmap(grad(function), (0, None, None))(torch.stack([h, -h]).detach(), w, b)

    def first(function):
        return torch.autograd.grad(function(*leaves), leaves)

    for way in (first, product, rows, forward, several):
        with Largest() as seen:
            got = way(ours)
        assert seen.count < n * v, way
        close(got, way(plain))
    with Largest() as seen:
        product(plain)
    assert seen.count >= n * v  # and the check can fail
