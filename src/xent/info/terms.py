"""The terms of the sums, each right to a few ULP of itself, without cancellation or 0 log 0.

With r = log(a / b) every divergence is a sum of a r - a + b >= 0 (Csiszár 1975), which is 0 only
where a = b. It equals sum a r when a and b have the same sum; where the sums differ by a rounding
error e, sum a r is off by e and may be negative, this sum is off by e^2 / 2 and never negative.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from xent.info.arrays import Array, device, is_torch
from xent.ops.exact import difference


@dataclass(frozen=True)
class Probabilities:
    """Distributions given by their probabilities, one in each row."""

    xp: Any
    p: Array  # (..., V)
    support: Array  # (..., V) bool: where p is not 0

    @classmethod
    def of(cls, xp: Any, p: Array) -> Probabilities:
        """The rows (..., V) of p."""
        return cls(xp, p, p != 0)  # not >: what is no probability becomes nan

    def surprisal(self, needed: Array) -> Array:
        """-log p; 0 where p is 0 and the surprisal is not needed, so that 0 log 0 is 0."""
        return -log(self.xp, self.xp.where(self.support | needed, self.p, 1.0))


@dataclass(frozen=True)
class Logits:
    """Distributions given by logits x, one in each row; -inf is a class of probability 0.

    x - max(x) is held as shifted + low, exactly (Knuth's two-sum), and the largest class is left
    out of the sum of the weights, so that log1p keeps what 1 + rest would lose.
    """

    xp: Any
    p: Array  # (..., V) softmax(x)
    support: Array  # (..., V) bool: where p is not 0, be it too small for the format
    shifted: Array  # (..., V) x - max(x), rounded; 0 where x is -inf
    low: Array  # (..., V) what the rounding took
    weight: Array  # (..., V) exp(x - max(x))
    rest: Array  # (..., 1) sum of the weights of all classes but the largest, which weighs 1

    @classmethod
    def of(cls, xp: Any, logits: Array) -> Logits:
        """The softmax of the rows (..., V) of logits."""
        support = logits != -math.inf
        top = largest(xp, logits)
        # A sum that picks, not max: its gradient goes to the one class that `rest` leaves out.
        peak = xp.sum(xp.where(top, logits, 0.0), axis=-1, keepdims=True)
        finite = xp.where(support, logits, peak)
        shifted, low = difference(xp, finite, peak)
        weight = xp.where(support | top, xp.exp(shifted) * (1 + low), 0.0)
        rest = total(xp, xp.where(top, 0.0, weight))[..., None]
        return cls(xp, weight / (1 + rest), support, shifted, low, weight, rest)

    def surprisal(self, needed: Array) -> Array:
        """-log softmax(x); 0 where x is -inf and the surprisal is not needed."""
        xp = self.xp
        surprisal = (xp.log1p(self.rest) - self.low) - self.shifted
        surprisal = xp.where(self.support, surprisal, 0.0)
        return xp.where(needed & ~self.support, math.inf, surprisal)


Rows = Probabilities | Logits


def mean_surprisal(p: Rows, q: Rows) -> Array:
    """-sum p log q over each row: the cross entropy of q under p, the entropy where q is p."""
    xp = p.xp
    surprisal = q.surprisal(p.support)
    finite = surprisal < math.inf
    terms = p.p * xp.where(finite, surprisal, 0.0)
    return total(xp, terms) + xp.sum(xp.where(finite, 0.0, surprisal), axis=-1)


def divergence(p: Rows, q: Rows) -> Array:
    """sum p log(p / q) - p + q over each row."""
    xp = p.xp
    ratio, difference = compare(p, q)
    finite = ratio < math.inf
    terms = excess(xp, p.p, xp.where(finite, ratio, 0.0), difference)
    terms = xp.where(p.support, xp.where(finite, terms, 0.0), q.p)
    return total(xp, terms) + xp.sum(xp.where(finite, 0.0, ratio), axis=-1)


def halfway_divergence(p: Rows, q: Rows) -> Array:
    """The mean of the divergences of p and of q from m = (p + q) / 2, over each row."""
    xp = p.xp
    _, difference = compare(p, q)
    middle = (p.p + q.p) / 2
    both = []
    for row, offset in ((p.p, difference / 2), (q.p, -difference / 2)):
        positive = row != 0
        a, m = xp.where(positive, row, 1.0), xp.where(positive, middle, 1.0)
        offset = xp.where(positive, offset, 0.0)
        terms = excess(xp, a, log_ratio(xp, a, m, offset), offset)
        both.append(total(xp, xp.where(positive, terms, middle)))
    return (both[0] + both[1]) / 2


def compare(p: Rows, q: Rows) -> tuple[Array, Array]:
    """log(p / q), 0 where p is 0, and p - q: both accurate where p and q are close."""
    xp = p.xp
    if isinstance(p, Logits) and isinstance(q, Logits):
        return _compare_logits(xp, p, q)
    difference = p.p - q.p
    if isinstance(p, Probabilities) and isinstance(q, Probabilities):
        a, b = xp.where(p.support, p.p, 1.0), xp.where(p.support, q.p, 1.0)
        return log_ratio(xp, a, b, xp.where(p.support, difference, 0.0)), difference
    # Not log(p / q): the softmax of finite logits may be 0 in the format.
    ratio = q.surprisal(p.support) - p.surprisal(p.support)
    return xp.where(p.support, ratio, 0.0), difference


def _compare_logits(xp: Any, p: Logits, q: Logits) -> tuple[Array, Array]:
    """`compare` from the difference of the logits, not from the two rounded softmaxes."""
    both = p.support & q.support
    delta = xp.where(both, (p.shifted - q.shifted) + (p.low - q.low), 0.0)
    near = both & (xp.abs(delta) < 1)
    growth = q.weight * xp.expm1(xp.where(near, delta, 0.0))
    growth = total(xp, xp.where(near, growth, p.weight - q.weight))[..., None] / (1 + q.rest)
    small = xp.abs(growth) < 0.5
    shift = xp.where(  # log(sum of p's weights / sum of q's weights)
        small,
        xp.log1p(xp.where(small, growth, 0.0)),
        xp.log((1 + p.rest) / (1 + q.rest)),
    )
    ratio = xp.where(both, delta - shift, 0.0)
    near = both & (xp.abs(ratio) < 1)
    close = -p.p * xp.expm1(-xp.where(near, ratio, 0.0))
    ratio = xp.where(p.support & ~q.support, math.inf, ratio)
    return ratio, xp.where(near, close, p.p - q.p)


def largest(xp: Any, rows: Array) -> Array:
    """One True in each row, at its largest entry (at the first of equal ones)."""
    classes = xp.arange(rows.shape[-1], device=device(rows))
    return classes == xp.argmax(rows, axis=-1, keepdims=True)


def log(xp: Any, a: Array) -> Array:
    """log a, -inf at 0 without NumPy's warning."""
    with quiet(a):
        return xp.log(a)


def quiet(array: Array) -> AbstractContextManager[Any]:
    """Where -inf from log 0 and inf from an overflow are meant: no warning of NumPy's."""
    if is_torch(array):
        return nullcontext()  # torch does not warn, and torch.compile cannot trace errstate
    return np.errstate(divide="ignore", over="ignore")


def log_ratio(xp: Any, a: Array, b: Array, difference: Array) -> Array:
    """log(a / b) for a > 0 and b >= 0, to a few ULP of itself, given a - b."""
    normal = b >= float(xp.finfo(b.dtype).smallest_normal)  # else a / b may overflow
    divisor = xp.where(normal, b, 1.0)
    growth = difference / divisor
    close = normal & (growth > -0.5)
    far = xp.where(normal, xp.log(a / divisor), xp.log(a) - log(xp, b))
    return xp.where(close, xp.log1p(xp.where(close, growth, 0.0)), far)


def excess(xp: Any, a: Array, ratio: Array, difference: Array) -> Array:
    """a r - a + b for r = log(a / b), to a few ULP of itself, given r and a - b.

    Where |r| < 1/2 it is a (exp(-r) - 1 + r) = a r^2 (1/2! - r/3! + r^2/4! - ...).
    """
    near = xp.abs(ratio) < 0.5
    r = xp.where(near, ratio, 0.0)
    series = xp.zeros_like(r)
    for k in range(16, 1, -1):
        series = 1 / math.factorial(k) - r * series
    return xp.where(near, a * (r * r * series), a * ratio - difference)


def total(xp: Any, terms: Array) -> Array:
    """The sum over the last axis as if in twice the precision: two-sums, pairwise."""
    low = xp.zeros_like(terms)
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            zero = xp.zeros_like(terms[..., :1])
            terms, low = xp.concat([terms, zero], axis=-1), xp.concat([low, zero], axis=-1)
        half = terms.shape[-1] // 2
        a, b = terms[..., :half], terms[..., half:]
        terms = a + b
        back = terms - a
        low = low[..., :half] + low[..., half:] + ((a - (terms - back)) + (b - back))
    return (terms + low)[..., 0]
