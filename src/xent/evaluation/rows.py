"""The numbers of a row that every measure is made of, from one look of the compiled kernel at it.

With gap = logits[k] - logits, and the likeliest class k left out of all sums:

    entropy       -sum p log p            = log1p(tail) + sum p gap
    Brier score   sum (p - onehot)^2      = (1 - p[target])^2 + sum of the other p^2
    slope         of nll by log(scale)    = gap[target] - sum p gap
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xent.evaluation.predictions import IGNORED, LOWEST, numbers_of
from xent.kernels import cpu, library


class RowNumbers(NamedTuple):
    """Of each row, shape (n,), float64 but for k and above; 0 for ignored rows."""

    nll: np.ndarray  # surprisal of the target, nats
    lse: np.ndarray
    k: np.ndarray  # int64, the likeliest class
    confidence: np.ndarray  # its probability
    entropy: np.ndarray  # nats
    brier: np.ndarray
    above: np.ndarray  # int64, how many classes are likelier than the target
    slope: np.ndarray  # derivative of nll by the logarithm of a scale of the logits
    curve: np.ndarray | None = None  # its second derivative, where a scale is given


def row_numbers(
    logits: np.ndarray,
    target: np.ndarray,
    bfloat16: bool = False,
    scale: float | None = None,
    threads: bool = False,
) -> RowNumbers:
    """The numbers of rows (n, V) of logits, or of the bits of bfloat16; a target of -1 is ignored.

    With a scale, those of the scaled logits; with threads, by all of the kernel's.
    """
    if library.why_not():
        return _reference(numbers_of(logits, bfloat16), target, scale)
    return RowNumbers(**cpu.measures(logits, target, scale, bfloat16, threads))


def _reference(logits: np.ndarray, target: np.ndarray, scale: float | None) -> RowNumbers:
    """The same in float64 by NumPy."""
    x = logits.astype(np.float64) * (1.0 if scale is None else scale)
    at, kept, k = np.arange(len(target)), target != IGNORED, np.argmax(x, axis=1)
    with np.errstate(invalid="ignore"):
        top, own = x[at, k], x[at, target]
        gap = np.minimum(top[:, None] - x, -LOWEST)  # finite: 0 times it is to be 0
        p = np.exp(-gap)
        p[at, k] = 0
        tail = p.sum(axis=1)
        share, log_sum = 1 / (1 + tail), np.log1p(tail)
        p *= share[:, None]
        mean, square = (p * gap).sum(axis=1), (p * gap * gap).sum(axis=1)
        other = np.where(k == target, tail * share, 1 - p[at, target])
        p[at, k] = share
        p[at, target] = 0
        numbers = {
            "nll": log_sum + (top - own),
            "lse": top + log_sum,
            "k": k,
            "confidence": share,
            "entropy": log_sum + mean,
            "brier": other * other + (p * p).sum(axis=1),
            "above": np.count_nonzero(x > own[:, None], axis=1),
            "slope": (top - own) - mean,
        }
        if scale is not None:
            numbers["curve"] = square - mean * mean
    return RowNumbers(**{name: np.where(kept, values, 0) for name, values in numbers.items()})
