"""The linear head: its arrays, who computes it, its floor, and whether a result is right.

The loss is the cross entropy of hidden @ linear_weight.T; a result is it and the gradients by
both, as a tuple.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import xent
from xent.bench.cases import BOTH, FORWARD, Head
from xent.bench.records import OURS, Errors
from xent.bench.work import Work

Array = Any
IGNORED = -100
BLOCK = 256  # rows whose logits the check has in float64

# Relative errors in norm. What a gradient that is rounded once has is at most half a unit for each
# entry; ours has room for the products' own rounding. A peer is held to being the same function.
OUR_GRADIENT = {"float16": 1e-3, "bfloat16": 3e-3, "float32": 2e-5, "float64": 1e-12}
OUR_LOSS = {"float16": 1e-5, "bfloat16": 1e-5, "float32": 1e-5, "float64": 1e-12}
PEER_GRADIENT = {"float16": 0.05, "bfloat16": 0.05, "float32": 1e-4, "float64": 1e-10}
PEER_LOSS = {"float16": 0.05, "bfloat16": 0.05, "float32": 1e-4, "float64": 1e-10}


def drawn(case: Head, seed: int) -> tuple[Array, Array, Array]:
    """Hidden states and weights, such that logits have a standard deviation of 2; the target."""
    import torch

    n, width, classes = case.shape
    rng = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    hidden = torch.randn(n, width, generator=rng).to(dtype)
    weight = torch.randn(classes, width, generator=rng).mul_(2 / math.sqrt(width)).to(dtype)
    target = torch.randint(classes, (n,), generator=rng)
    target[torch.randperm(n, generator=rng)[: n * case.ignored // 100]] = IGNORED
    return hidden, weight, target


def floors(arrays: tuple, quantity: str) -> dict[str, Work]:
    """The matrix products that a loss, or it and its gradients, cannot do without, of all rows."""
    import torch

    hidden, weight, _ = arrays
    logits = torch.mm(hidden, weight.T)
    if quantity == FORWARD:
        return {"product": Work(lambda: (torch.mm(hidden, weight.T, out=logits), None))}
    dhidden, dweight = torch.empty_like(hidden), torch.empty_like(weight)

    def products() -> tuple[Array, None]:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight, out=dhidden)
        torch.mm(logits.T, hidden, out=dweight)
        return dhidden, None

    return {"three products": Work(products)}


def of(loss: Callable[..., Array]) -> Callable[..., dict[str, Work]]:
    """The work of a loss of hidden, weight and target, under autograd."""

    def work(hidden: Array, weight: Array, target: Array) -> dict[str, Work]:
        import torch

        leaves = hidden.detach().requires_grad_(), weight.detach().requires_grad_()

        def both() -> tuple[Array, Array]:
            value = loss(*leaves, target)
            return value, torch.autograd.grad(value, leaves)

        return {FORWARD: Work(lambda: (loss(hidden, weight, target), None)), BOTH: Work(both)}

    return work


def _eager(hidden: Array, weight: Array, target: Array) -> Array:
    from torch.nn import functional as F

    return F.cross_entropy(F.linear(hidden, weight), target)


def _chunked(hidden: Array, weight: Array, target: Array) -> Array:
    from torch import nn

    options: Any = nn.LinearCrossEntropyOptions()  # torch >= 2.13
    return nn.functional.linear_cross_entropy(hidden, weight, target, options=options)


def torch_compile(hidden: Array, weight: Array, target: Array) -> dict[str, Work]:
    """torch's loss of all logits, compiled for this shape."""
    import torch

    compiled: Any = torch.compile(_eager, dynamic=False)
    return of(compiled)(hidden, weight, target)


xent_head, torch_eager, torch_chunked = of(xent.linear_cross_entropy), of(_eager), of(_chunked)


def errors(case: Head, arrays: tuple, results: dict[str, tuple]) -> dict[str, Errors]:
    """Those of each subject: of the loss, and the larger of the two gradients' in norm."""
    import torch

    wanted = any(gradients is not None for _, gradients in results.values())
    hidden, weight, target = arrays
    with torch.no_grad():
        loss, dhidden, dweight = _right(hidden, weight, target, wanted)
    found = {}
    for subject, (value, gradients) in results.items():
        worst = None
        if gradients is not None:
            pairs = zip(gradients, (dhidden, dweight), strict=True)
            norm = torch.linalg.vector_norm
            apart = [norm(g.double() - right) / norm(right) for g, right in pairs]
            worst = float(torch.stack(apart).max())  # keeps a NaN
        error = abs(float(value.detach()) - loss) / loss
        if subject == OURS:
            limits = OUR_LOSS[case.dtype], OUR_GRADIENT[case.dtype]
        else:
            limits = PEER_LOSS[case.dtype], PEER_GRADIENT[case.dtype]
        found[subject] = Errors(error, worst, limits)
    return found


def _right(hidden: Array, weight: Array, target: Array, wanted: bool) -> tuple[float, Array, Array]:
    """Loss and gradients by softmax's definition in float64, a few rows at a time."""
    import torch

    kept = (target != IGNORED).nonzero()[:, 0]
    wide, total = weight.double(), 0.0
    dhidden = torch.zeros(hidden.shape, dtype=torch.float64)
    dweight = torch.zeros(weight.shape, dtype=torch.float64)
    for rows in kept.split(BLOCK):
        h, t = hidden[rows].double(), target[rows][:, None]
        x = h @ wide.T
        top = x.max(dim=1, keepdim=True).values
        p = torch.exp(x - top)
        sums = p.sum(dim=1, keepdim=True)
        total += float((torch.log(sums) + top - x.gather(1, t)).sum())
        if not wanted:
            continue
        p.div_(sums).scatter_add_(1, t, torch.full_like(t, -1, dtype=p.dtype)).div_(len(kept))
        dhidden[rows] = p @ wide
        dweight.addmm_(p.T, h)
    return total / len(kept), dhidden, dweight
