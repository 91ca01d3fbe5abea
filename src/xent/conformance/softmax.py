"""Softmax by its definition in exact arithmetic, with its logarithm, its statistics and their vjps.

p = exp(x) / sum exp(x), log p = x - lse, lse = log(sum exp(x)). A row that holds nan or +inf, or
-inf only, has no p: every entry is nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mpf, nan

from xent.conformance.exact import (
    Exact,
    Numbers,
    along,
    exactly,
    fold,
    precision,
    shaped,
    times,
    unfold,
)


class Softmax(NamedTuple):
    """One row: its lse, and per class the logarithm of p and p."""

    lse: Any
    log_p: list[Any]
    p: list[Any]


class Statistics(NamedTuple):
    """Four numbers per row, each in the shape of the target, in nats."""

    log_prob: Exact
    entropy: Exact
    lse: Exact
    argmax: np.ndarray


def softmax_row(z: Sequence[Any]) -> Softmax:
    """The softmax of one row of mpmath numbers."""
    powers = [mpmath.exp(value) for value in z]
    total = mpmath.fsum(powers)
    lse = mpmath.log(total)
    if z and not mpmath.isfinite(lse):
        return Softmax(lse, [nan] * len(z), [nan] * len(z))
    return Softmax(lse, [value - lse for value in z], [power / total for power in powers])


def cap_row(row: Sequence[Any], logit_scale: float, softcap: float | None) -> list[Any]:
    """Softcap * tanh(logit_scale * x / softcap), or logit_scale * x."""
    s, c = exactly(logit_scale), softcap and exactly(softcap)
    return [s * x if c is None else c * mpmath.tanh(s * x / c) for x in row]


def cap_row_slope(row: Sequence[Any], logit_scale: float, softcap: float | None) -> list[Any]:
    """The derivative of `cap_row`, entry by entry."""
    s, c = exactly(logit_scale), softcap and exactly(softcap)
    return [s if c is None else s * mpmath.sech(s * x / c) ** 2 for x in row]


def softmax(logits: Numbers, axis: int = -1) -> Exact:
    """P, in the shape of the logits."""
    with precision(logits):
        return along(axis, lambda z: softmax_row(z).p, logits)


def softmax_vjp(logits: Numbers, upstream: Numbers, axis: int = -1) -> Exact:
    """The derivative of sum(upstream * p): p (upstream - sum(p upstream))."""

    def row(z: list[Any], g: list[Any]) -> list[Any]:
        p = softmax_row(z).p
        mean = mpmath.fsum(a * b for a, b in zip(p, g, strict=True))
        return [a * (b - mean) for a, b in zip(p, g, strict=True)]

    with precision(logits):
        return along(axis, row, logits, upstream)


def log_softmax(logits: Numbers, axis: int = -1) -> Exact:
    """Log p, in the shape of the logits."""
    with precision(logits):
        return along(axis, lambda z: softmax_row(z).log_p, logits)


def log_softmax_vjp(logits: Numbers, upstream: Numbers, axis: int = -1) -> Exact:
    """The derivative of sum(upstream * log p): upstream - p sum(upstream)."""

    def row(z: list[Any], g: list[Any]) -> list[Any]:
        total = mpmath.fsum(g)
        return [own - p * total for own, p in zip(g, softmax_row(z).p, strict=True)]

    with precision(logits):
        return along(axis, row, logits, upstream)


def logsumexp(logits: Numbers, axis: int = -1) -> Exact:
    """Lse, in the shape of the logits without the axis."""
    with precision(logits):
        rows, shape = fold(logits, axis)
        return shaped([softmax_row(z).lse for z in rows], shape)


def logsumexp_vjp(logits: Numbers, upstream: Numbers, axis: int = -1) -> Exact:
    """The derivative of sum(upstream * lse): upstream exp(x - lse)."""
    with precision(logits):
        rows, shape = fold(logits, axis)
        dlogits = []
        for z, g in zip(rows, _per_row(upstream, shape), strict=True):
            lse = softmax_row(z).lse
            dlogits.append([g * mpmath.exp(x - lse) for x in z])
        return unfold(dlogits, np.shape(logits)[axis], axis, shape)


def token_statistics(
    logits: Numbers,
    target: Numbers,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    axis: int | None = None,
) -> Statistics:
    """Log-probability of the target, entropy, lse and argmax of every row of (N, V, ...) or (V,).

    All four are 0 where the row is ignored.
    """
    with precision(logits, logit_scale):
        rows, shape = fold(logits, class_axis(logits, axis))
        targets = np.asarray(target).reshape(-1).tolist()
        numbers = []
        for x, y in zip(rows, targets, strict=True):
            if y == ignore_index:
                numbers.append((mpf(0), mpf(0), mpf(0), 0))
                continue
            row = softmax_row(cap_row(x, logit_scale, softcap))
            first = int(np.argmax(np.asarray(x, float)))  # nan counts as the largest
            numbers.append((row.log_p[y], _entropy(row), row.lse, first))
        log_prob, entropy, lse, argmax = ([n[i] for n in numbers] for i in range(4))
        return Statistics(
            *(shaped(column, shape) for column in (log_prob, entropy, lse)),
            argmax=np.reshape(np.asarray(argmax, int), shape),
        )


def token_statistics_vjp(
    logits: Numbers,
    target: Numbers,
    *,
    log_prob: Numbers = 0,
    entropy: Numbers = 0,
    lse: Numbers = 0,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    axis: int | None = None,
) -> Exact:
    """Dlogits for cotangents of log_prob, entropy and lse, each per row or one number for all.

    d log p[y] = 1[y] - p, d entropy = - p (log p + entropy) and d lse = p, times the cap's slope.
    """
    with precision(logits, logit_scale):
        classes = class_axis(logits, axis)
        rows, shape = fold(logits, classes)
        targets = np.asarray(target).reshape(-1).tolist()
        cotangents = [_per_row(g, shape) for g in (log_prob, entropy, lse)]
        dlogits = []
        for x, y, by_log_prob, by_entropy, by_lse in zip(rows, targets, *cotangents, strict=True):
            if y == ignore_index:
                dlogits.append([mpf(0)] * len(x))
                continue
            row = softmax_row(cap_row(x, logit_scale, softcap))
            slope = cap_row_slope(x, logit_scale, softcap)
            p_log_p, h = times(row.p, row.log_p), _entropy(row)
            dz = [
                by_log_prob * ((c == y) - p) - by_entropy * (p_log_p[c] + p * h) + by_lse * p
                for c, p in enumerate(row.p)
            ]
            dlogits.append([s * entry for s, entry in zip(slope, dz, strict=True)])
        return unfold(dlogits, np.shape(logits)[classes], classes, shape)


def class_axis(logits: Numbers, axis: int | None) -> int:
    """The axis of the classes; None is torch's rule."""
    return min(1, np.ndim(logits) - 1) if axis is None else axis


def _entropy(row: Softmax) -> Any:
    return -mpmath.fsum(times(row.p, row.log_p))


def _per_row(cotangent: Numbers, shape: tuple[int, ...]) -> list[Any]:
    return list(np.broadcast_to(exactly(cotangent), shape).reshape(-1))
