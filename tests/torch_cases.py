"""Every loss of xent on torch tensors, beside the same formula composed of torch's own operations.

A case has arrays, all floating and all differentiable, and two functions of them. Integer targets
and weights that have no derivative are bound in the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import xent


@dataclass(frozen=True)
class Case:
    arrays: tuple[Tensor, ...]  # the logits first
    ours: Callable[..., Any]
    plain: Callable[..., Any]

    def leaves(self) -> tuple[Tensor, ...]:
        """Fresh copies that require a gradient."""
        return tuple(a.detach().clone().requires_grad_() for a in self.arrays)


def _indices(rng: np.random.Generator, shape: tuple[int, ...], classes: int, ignore: int) -> Tensor:
    """Class indices of which one row, but not all, is ignored."""
    target = torch.from_numpy(rng.integers(0, classes, shape))
    target[target == ignore] = (ignore + 1) % classes
    target.view(-1)[-1] = ignore
    return target


def _real(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(0, 2, shape))


def _positive(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(0.2, 1.5, shape))


def _with_indices(**options: Any) -> Callable[[np.random.Generator], Case]:
    def make(rng: np.random.Generator) -> Case:
        x, t = _real(rng, 3, 4), torch.from_numpy(rng.integers(0, 4, 3))
        return Case(
            (x,),
            lambda x: xent.cross_entropy(x, t, **options),
            lambda x: F.cross_entropy(x, t, **options),
        )

    return make


def _weighted(reduction: str) -> Callable[[np.random.Generator], Case]:
    options = {"ignore_index": 1, "label_smoothing": 0.1, "reduction": reduction}

    def make(rng: np.random.Generator) -> Case:
        x, t, w = _real(rng, 3, 4), _indices(rng, (3,), 4, 1), _positive(rng, 4)
        return Case(
            (x,),
            lambda x: xent.cross_entropy(x, t, w, **options),
            lambda x: F.cross_entropy(x, t, w, **options),
        )

    return make


def _probabilities(**options: Any) -> Callable[[np.random.Generator], Case]:
    def make(rng: np.random.Generator) -> Case:
        p = torch.from_numpy(rng.dirichlet(np.ones(4), 3))
        arrays = (_real(rng, 3, 4), p, _positive(rng, 4))
        return Case(
            arrays,
            lambda x, p, w: xent.cross_entropy(x, p, w, **options),
            lambda x, p, w: F.cross_entropy(x, p, w, **options),
        )

    return make


def _unweighted_probabilities(rng: np.random.Generator) -> Case:
    p = torch.from_numpy(rng.dirichlet(np.ones(4), 3))
    return Case((_real(rng, 3, 4), p), xent.cross_entropy, F.cross_entropy)


def _transformed(
    z: float, c: float | None, s: float, soft: bool = False
) -> Callable[[np.random.Generator], Case]:
    def make(rng: np.random.Generator) -> Case:
        w = _positive(rng, 4)
        t = torch.from_numpy(rng.dirichlet(np.ones(4), 3)) if soft else _indices(rng, (3,), 4, 2)
        ignore = -100 if soft else 2

        def plain(x: Tensor) -> Tensor:
            u = s * x if c is None else c * torch.tanh(s * x / c)
            losses = F.cross_entropy(
                u, t, w, ignore_index=ignore, label_smoothing=0.2, reduction="none"
            )
            weights = torch.ones(3).double() if soft else w[t] * (t != ignore)
            return (losses + z * weights * u.logsumexp(1) ** 2).sum() / weights.sum()

        def ours(x: Tensor) -> Tensor:
            return xent.cross_entropy(
                x,
                t,
                w,
                ignore_index=ignore,
                label_smoothing=0.2,
                z_loss=z,
                softcap=c,
                logit_scale=s,
            )

        return Case((_real(rng, 3, 4),), ours, plain)

    return make


def _volume(rng: np.random.Generator) -> Case:
    t = _indices(rng, (2, 2, 2), 3, 0)
    return Case(
        (_real(rng, 2, 3, 2, 2),),
        lambda x: xent.cross_entropy(x, t, ignore_index=0),
        lambda x: F.cross_entropy(x, t, ignore_index=0),
    )


def _row(rng: np.random.Generator) -> Case:
    t = torch.tensor(int(rng.integers(5)))
    return Case(
        (_real(rng, 5),), lambda x: xent.cross_entropy(x, t), lambda x: F.cross_entropy(x, t)
    )


def _normalizer(rng: np.random.Generator) -> Case:
    t = torch.from_numpy(rng.integers(0, 4, 3))
    return Case(
        (_real(rng, 3, 4), torch.tensor(rng.uniform(1, 9), dtype=torch.float64)),
        lambda x, n: xent.cross_entropy(x, t, normalizer=n),
        lambda x, n: F.cross_entropy(x, t, reduction="sum") / n,
    )


def _nll(rng: np.random.Generator) -> Case:
    t, w = _indices(rng, (3, 2), 4, 3), _positive(rng, 4)
    return Case(
        (_real(rng, 3, 4, 2),),
        lambda x: xent.nll_loss(x, t, w, ignore_index=3),
        lambda x: F.nll_loss(x, t, w, ignore_index=3),
    )


def _along(ours: Callable[..., Tensor], plain: Callable[..., Tensor], axis: int) -> Callable:
    return lambda rng: Case(
        (_real(rng, 3, 4, 2),), lambda x: ours(x, axis=axis), lambda x: plain(x, dim=axis)
    )


def _binary(rng: np.random.Generator) -> Case:
    arrays = (_real(rng, 3, 2), torch.from_numpy(rng.uniform(0, 1, (3, 2))))
    return Case(arrays, xent.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits)


def _weighted_binary(rng: np.random.Generator) -> Case:
    y = torch.from_numpy(rng.uniform(0, 1, (3, 2)))

    def ours(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return xent.binary_cross_entropy_with_logits(x, y, w, pos_weight=v, reduction="sum")

    def plain(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        # torch's own has no derivative by its weights
        return -(w * ((1 - y) * F.logsigmoid(-x) + v * y * F.logsigmoid(x))).sum()

    return Case((_real(rng, 3, 2), y, _positive(rng, 3, 1), _positive(rng, 2)), ours, plain)


def _statistics(rng: np.random.Generator) -> Case:
    t = _indices(rng, (3,), 4, 0)

    def plain(x: Tensor) -> tuple[Tensor, ...]:
        u = 3 * torch.tanh(2 * x / 3)
        log_p, kept = u.log_softmax(1), t != 0
        entropy = -(log_p.exp() * log_p).sum(1)
        return log_p[torch.arange(3), t] * kept, entropy * kept, u.logsumexp(1) * kept

    def ours(x: Tensor) -> tuple[Tensor, ...]:
        return xent.token_statistics(x, t, ignore_index=0, softcap=3.0, logit_scale=2.0)[:3]

    return Case((_real(rng, 3, 4),), ours, plain)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "indices": _with_indices(),
    "indices none": _with_indices(reduction="none"),
    "indices sum": _with_indices(reduction="sum"),
    "weight, smoothing, ignored": _weighted("mean"),
    "weight, smoothing, ignored, none": _weighted("none"),
    "probabilities": _unweighted_probabilities,
    "probabilities, weight, smoothing": _probabilities(label_smoothing=0.1),
    "probabilities, weight, none": _probabilities(reduction="none"),
    "z-loss, softcap, scale": _transformed(0.01, 2.0, 0.7),
    "scale": _transformed(0.0, None, 0.7),
    "z-loss, softcap of probabilities": _transformed(0.01, 3.0, 1.0, soft=True),
    "volume": _volume,
    "one row": _row,
    "normalizer": _normalizer,
    "nll": _nll,
    "softmax": _along(xent.softmax, F.softmax, 1),
    "log-softmax": _along(xent.log_softmax, F.log_softmax, -1),
    "logsumexp": _along(xent.logsumexp, torch.logsumexp, 0),
    "binary": _binary,
    "binary, weights": _weighted_binary,
    "statistics": _statistics,
}
