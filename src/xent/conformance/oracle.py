"""The definitions themselves in exact arithmetic: what every number of xent is judged by.

One row at a time, by the textbook formula, in as many digits as it takes; nothing is arranged
against cancellation or overflow, and no line is shared with ops/. Arguments are NumPy arrays or
nested lists, each number taken as the exact one that it is; results are mpmath numbers or NumPy
object arrays of them, good to 60 digits down to exp(-1500). For a row of logits x, logit_scale s,
softcap c, target probabilities q after label smoothing and class weights w:

    z = c tanh(s x / c)       lse = log(sum exp(z))       p = exp(z) / sum exp(z)       t = w q
    row      = - sum t log(p) + z_loss r lse^2            r: w[target] for indices, else 1
    d row/dz = sum(t) p - t + 2 z_loss r lse p

A class with t = 0 adds 0, at a logit of -inf too. A row that holds nan or +inf, or -inf only, is
nan in every entry; an ignored row is 0 whatever it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mpf, nan

from xent.conformance.exact import (
    Exact,
    Numbers,
    by_entry,
    divide,
    exactly,
    fold,
    precision,
    shaped,
    times,
    unfold,
)
from xent.conformance.exact import ulp_error as ulp_error
from xent.conformance.softmax import (
    Softmax,
    cap_row,
    cap_row_slope,
    class_axis,
    softmax_row,
)
from xent.conformance.softmax import log_softmax as log_softmax
from xent.conformance.softmax import log_softmax_vjp as log_softmax_vjp
from xent.conformance.softmax import logsumexp as logsumexp
from xent.conformance.softmax import logsumexp_vjp as logsumexp_vjp
from xent.conformance.softmax import softmax as softmax
from xent.conformance.softmax import softmax_vjp as softmax_vjp
from xent.conformance.softmax import token_statistics as token_statistics
from xent.conformance.softmax import token_statistics_vjp as token_statistics_vjp
from xent.errors import bad


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `xent.cross_entropy`, by the same names."""

    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    logit_scale: float = 1.0
    normalizer: float | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.reduction not in ("none", "sum", "mean"):
            has = f"value {self.reduction!r}"
            raise bad(ValueError, "oracle", "reduction", has, "'none', 'sum' or 'mean'")


class Gradient(NamedTuple):
    """Derivatives, each in the shape of its argument; None where torch defines none."""

    dlogits: Exact
    dtarget: Exact | None = None
    dweight: Exact | None = None


def cross_entropy(
    logits: Numbers, target: Numbers, weight: Numbers | None = None, **options: Any
) -> Exact:
    """The loss of logits (N, V, ...), or (V,), for class indices or, in their shape, probabilities.

    Keyword arguments are those of `Options`.

    >>> print(mpmath.nstr(cross_entropy([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]], [2, 0]), 30))
    0.753109126556244997939082570734
    """
    chosen = Options(**options)
    with precision(logits, chosen.logit_scale):
        batch = _read(logits, target, weight, chosen)
        return _reduce([_row_loss(row, chosen) for row in batch.rows], batch, chosen)


def cross_entropy_grad(
    logits: Numbers,
    target: Numbers,
    weight: Numbers | None = None,
    *,
    upstream: Numbers = 1,
    **options: Any,
) -> Gradient:
    """Derivatives of sum(upstream * loss): dlogits, and for probabilities dtarget and dweight.

    >>> [float(entry) for entry in cross_entropy_grad([0.0, 0.0], 1).dlogits]
    [0.5, -0.5]
    """
    chosen = Options(**options)
    with precision(logits, chosen.logit_scale):
        batch = _read(logits, target, weight, chosen)
        classes = len(batch.weight)
        scales = _row_scales(upstream, batch, chosen)
        dlogits = _dlogits(batch, scales, chosen)
        if not batch.soft:
            return Gradient(dlogits)
        rows = [(row, g) for row, g in zip(batch.rows, scales, strict=True) if row is not None]
        sharp = [(1 - exactly(chosen.label_smoothing)) * w for w in batch.weight]
        dtarget = [[-g * v for v in times(sharp, row.log_p)] for row, g in rows]
        by_row = [[-g * v for v in times(row.q, row.log_p)] for row, g in rows]
        dweight = [mpmath.fsum(entries[c] for entries in by_row) for c in range(classes)]
        return Gradient(
            dlogits, unfold(dtarget, classes, batch.axis, batch.shape), shaped(dweight, (classes,))
        )


def nll_loss(
    log_prob: Numbers, target: Numbers, weight: Numbers | None = None, **options: Any
) -> Exact:
    """Minus the log-probability of the target class, times its weight; shapes as `cross_entropy`.

    Keyword arguments are `ignore_index`, `reduction` and `axis`.

    >>> print(nll_loss([-1.5, -0.25], 0))
    1.5
    """
    chosen = Options(**options)
    with precision(log_prob):
        batch = _read(log_prob, target, weight, chosen, normalized=True)
        return _reduce([_row_loss(row, chosen) for row in batch.rows], batch, chosen)


def nll_loss_vjp(
    log_prob: Numbers,
    target: Numbers,
    weight: Numbers | None = None,
    *,
    upstream: Numbers = 1,
    **options: Any,
) -> Exact:
    """The derivative of sum(upstream * loss) by log_prob, in its shape."""
    chosen = Options(**options)
    with precision(log_prob):
        batch = _read(log_prob, target, weight, chosen, normalized=True)
        return _dlogits(batch, _row_scales(upstream, batch, chosen), chosen)


class _Row(NamedTuple):
    logits: Sequence[Any]  # x
    softmax: Softmax | None  # of z; None: the logits are log-probabilities, and taken as they are
    q: Sequence[Any]
    mass: Sequence[Any]  # t
    weight: Any  # r, which is also the row's share in the denominator of a mean

    @property
    def log_p(self) -> Sequence[Any]:
        return self.logits if self.softmax is None else self.softmax.log_p


class _Batch(NamedTuple):
    rows: Sequence[_Row | None]  # None: ignored
    soft: bool  # the target holds probabilities
    weight: Sequence[Any]  # w
    axis: int
    shape: tuple[int, ...]  # of the logits without the class axis


def _read(
    logits: Numbers,
    target: Numbers,
    weight: Numbers | None,
    chosen: Options,
    normalized: bool = False,
) -> _Batch:
    axis = class_axis(logits, chosen.axis)
    rows, shape = fold(logits, axis)
    classes = np.shape(logits)[axis]
    weights = [mpf(1)] * classes if weight is None else list(exactly(weight))
    soft = np.shape(target) == np.shape(logits)
    targets: list[Any] = fold(target, axis)[0] if soft else np.asarray(target).reshape(-1).tolist()
    read = []
    for index, (row, y) in enumerate(zip(rows, targets, strict=True)):
        if not soft and y == chosen.ignore_index:
            read.append(None)
            continue
        if not soft and not 0 <= y < classes:
            has, expected = f"value {y} in row {index}", f"a class in [0, {classes})"
            raise bad(IndexError, "oracle", "target", has, expected)
        q, mass = _target_mass(y, weights, soft, chosen)
        z = None if normalized else cap_row(row, chosen.logit_scale, chosen.softcap)
        known = None if z is None else softmax_row(z)
        read.append(_Row(row, known, q, mass, mpf(1) if soft else weights[y]))
    return _Batch(read, soft, weights, axis, shape)


def _target_mass(y: Any, weight: Sequence[Any], soft: bool, chosen: Options) -> tuple[list, list]:
    given = y if soft else [mpf(c == y) for c in range(len(weight))]
    smoothing = exactly(chosen.label_smoothing)
    q = [(1 - smoothing) * share + smoothing / len(weight) for share in given]
    # As in torch: with indices, the weight of a class without probability is not looked at.
    return q, [w * v if soft or v else mpf(0) for w, v in zip(weight, q, strict=True)]


def _row_loss(row: _Row | None, chosen: Options) -> Any:
    if row is None:
        return mpf(0)
    loss = -mpmath.fsum(times(row.mass, row.log_p))
    if chosen.z_loss and row.softmax is not None:
        loss += exactly(chosen.z_loss) * row.weight * row.softmax.lse**2
    return loss


def _dlogits(batch: _Batch, scales: Sequence[Any], chosen: Options) -> Exact:
    zero = [mpf(0)] * len(batch.weight)
    rows = [
        zero if row is None else [scale * entry for entry in _row_dlogits(row, chosen)]
        for row, scale in zip(batch.rows, scales, strict=True)
    ]
    return unfold(rows, len(zero), batch.axis, batch.shape)


def _row_dlogits(row: _Row, chosen: Options) -> list[Any]:
    if row.softmax is None:
        return [-t for t in row.mass]
    pull = mpmath.fsum(row.mass)
    if chosen.z_loss:
        pull += 2 * exactly(chosen.z_loss) * row.weight * row.softmax.lse
    slope = cap_row_slope(row.logits, chosen.logit_scale, chosen.softcap)
    terms = zip(slope, row.softmax.p, row.mass, strict=True)
    return [s * (pull * p - t) for s, p, t in terms]


def _denominator(batch: _Batch, chosen: Options) -> Any:
    if chosen.reduction == "sum":
        return mpf(1)
    if chosen.normalizer is not None:
        return exactly(chosen.normalizer)
    if batch.soft and not batch.weight:
        return nan  # as in torch: the mean of probabilities of no class
    return mpmath.fsum(row.weight for row in batch.rows if row is not None)


def _reduce(losses: list[Any], batch: _Batch, chosen: Options) -> Exact:
    if chosen.reduction == "none":
        return shaped(losses, batch.shape)
    return divide(mpmath.fsum(losses), _denominator(batch, chosen))


def _row_scales(upstream: Numbers, batch: _Batch, chosen: Options) -> list[Any]:
    if chosen.reduction == "none":
        return list(np.broadcast_to(exactly(upstream), batch.shape).reshape(-1))
    return [divide(exactly(upstream), _denominator(batch, chosen))] * len(batch.rows)


def binary_cross_entropy_with_logits(
    logits: Numbers,
    target: Numbers,
    weight: Numbers = 1,
    *,
    pos_weight: Numbers = 1,
    reduction: str = "mean",
) -> Exact:
    """The loss -weight (pos_weight y log(p) + (1 - y) log(1 - p)) with p = 1 / (1 + exp(-x)).

    All shapes broadcast to that of the logits. A factor of 0 before an infinite logarithm gives 0.

    >>> print(binary_cross_entropy_with_logits([np.inf, -np.inf], [1.0, 0.0]))
    0.0
    """
    with _binary_precision(logits):
        losses = by_entry(_binary_loss, *map(exactly, (logits, target, weight, pos_weight)))
        if reduction == "none":
            return losses
        return divide(mpmath.fsum(np.ravel(losses)), _binary_denominator(logits, reduction))


def binary_cross_entropy_with_logits_vjp(
    logits: Numbers,
    target: Numbers,
    weight: Numbers = 1,
    *,
    pos_weight: Numbers = 1,
    reduction: str = "mean",
    upstream: Numbers = 1,
) -> Gradient:
    """Derivatives of sum(upstream * loss): dlogits and dtarget, both in the shape of the logits."""
    with _binary_precision(logits):
        scale = exactly(upstream)
        if reduction != "none":
            scale = divide(scale, _binary_denominator(logits, reduction))
        arrays = map(exactly, (logits, target, weight, pos_weight))
        return Gradient(*by_entry(_binary_gradient, scale, *arrays, outputs=2))


def _binary_precision(logits: Numbers) -> Any:
    values = np.asarray(logits, float)
    return precision(np.stack([values, -values]))


def _binary_denominator(logits: Numbers, reduction: str) -> Any:
    return mpf({"sum": 1, "mean": np.size(logits)}[reduction])


def _log_sigmoids(x: Any) -> tuple[Any, Any]:
    return -mpmath.log(1 + mpmath.exp(-x)), -mpmath.log(1 + mpmath.exp(x))


def _binary_loss(x: Any, y: Any, w: Any, v: Any) -> Any:
    return -mpmath.fsum(times((w * v * y, w * (1 - y)), _log_sigmoids(x)))


def _binary_gradient(g: Any, x: Any, y: Any, w: Any, v: Any) -> tuple[Any, Any]:
    p, rest = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
    positive, negative = times((w * v, w), _log_sigmoids(x))
    return g * w * ((1 - y) * p - v * y * rest), g * (negative - positive)
