"""Right answers for rows too long for the oracle: extended precision, checked against the oracle.

NumPy's longdouble has 64 bits on x86. With k the largest logit, x_c - x_k is kept as the sum of two
numbers, so that the relative error of each exponential is a few 2^-64; NumPy sums by halves in
blocks of 128, so that the error of a sum is below 40 2^-64 at any length here; no later step
subtracts what it could cancel. In all below 0.03 units in the last place of a float64, and
`disagreement` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from xent.conformance import oracle
from xent.conformance.exact import FORMATS, by_entry, exactly

Long = np.longdouble
EXTENDED = np.finfo(Long).nmant >= 63
CANCEL = ("label_smoothing", "z_loss")  # options with which entries of a gradient are differences


@dataclass(frozen=True)
class Answer:
    """What is right, in longdouble."""

    loss: np.ndarray  # (N,)
    dlogits: np.ndarray  # (N, V) of the sum of the rows
    terms: np.ndarray  # (N, V) the largest of the terms that an entry of dlogits is the sum of
    log_softmax: np.ndarray  # (N, V)
    entropy: np.ndarray  # (N,)


def answer(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> Answer:
    """Loss, gradient, log-softmax and entropy of rows (N, V).

    The target is indices (N,) or probabilities (N, V). An entry of the gradient is mass p - q, or
    with the two terms' own mass - q and mass (1 - p) where p > 1/2, plus that of the z-loss; times
    the slope of the transformed logits.
    """
    classes = logits.shape[1]
    logits, slope = _transformed(logits, Long(logit_scale), softcap)
    exps, high, low, at_k = _shifted(logits)
    s = np.sum(np.where(at_k, 0, exps), axis=1, keepdims=True)
    surprisal = (np.log1p(s) - low) - high
    p = exps / (1 + s)
    rest = np.where(at_k, s / (1 + s), 1 - p)

    q = target.astype(Long) if target.ndim == 2 else np.zeros(logits.shape, Long)
    if target.ndim == 1:
        np.put_along_axis(q, target[:, None], Long(1), axis=1)
    smoothing = Long(label_smoothing)
    mass = np.sum(q, axis=1, keepdims=True)
    others = np.sum(np.where(at_k, 0, q), axis=1, keepdims=True)  # mass - q at k
    others = (1 - smoothing) * others + smoothing * (classes - 1) / classes
    q, mass = (1 - smoothing) * q + smoothing / classes, (1 - smoothing) * mass + smoothing
    sure = at_k & (p > 0.5)
    plus = np.where(sure, others, mass * p)
    minus = np.where(sure, mass * rest, q)

    lse = np.max(logits, axis=1, keepdims=True) + np.log1p(s)
    pull = 2 * Long(z_loss) * lse * p
    loss = np.sum(np.where(q == 0, 0, q * surprisal), axis=1) + Long(z_loss) * lse[:, 0] ** 2
    terms = np.maximum(np.maximum(np.abs(plus), np.abs(minus)), np.abs(pull))
    entropy = np.sum(np.where(p == 0, 0, p * surprisal), axis=1)
    return Answer(loss, slope * (plus - minus + pull), slope * terms, -surprisal, entropy)


def _transformed(logits: np.ndarray, scale: Any, softcap: float | None) -> tuple[Any, Any]:
    """softcap tanh(scale logits / softcap), and its slope: nothing is subtracted in it."""
    x = logits.astype(Long) * scale
    if softcap is None:
        return x, scale
    power = np.exp(-2 * np.abs(x) / softcap)
    return softcap * np.tanh(x / softcap), scale * 4 * power / (1 + power) ** 2


def losses(logits: np.ndarray, target: np.ndarray, chunk: int = 50_000) -> np.ndarray:
    """The losses of many short rows for class indices."""
    found = []
    for start in range(0, len(logits), chunk):
        rows = logits[start : start + chunk]
        exps, high, low, at_k = _shifted(rows)
        log_sum = np.log1p(np.sum(np.where(at_k, 0, exps), axis=1))
        index = target[start : start + chunk, None]
        at_target = [np.take_along_axis(a, index, axis=1)[:, 0] for a in (high, low)]
        found.append((log_sum - at_target[1]) - at_target[0])
    return np.concatenate(found)


def _shifted(logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """exp(x - max), x - max as two numbers, and where the maximum is."""
    x = logits.astype(Long)
    k = np.argmax(x, axis=1, keepdims=True)
    largest = np.take_along_axis(x, k, axis=1)
    high = x - largest
    shadow = high - x
    low = (x - (high - shadow)) - (largest + shadow)
    exps = np.exp(high)
    return exps + exps * low, high, low, np.arange(x.shape[1])[None, :] == k


def ulp_errors(got: Any, right: np.ndarray, dtype: str, at_least: Any = 0.0) -> np.ndarray:
    """As `oracle.ulp_error`, on longdouble arrays; the unit is that of max(|right|, at_least)."""
    bits, smallest, largest = FORMATS[dtype]
    got = np.asarray(got, Long)
    size = np.maximum(np.abs(right), at_least)
    exponent = np.clip(np.frexp(size)[1] - 1, smallest, largest)
    exponent = np.where(size == 0, smallest, exponent)
    with np.errstate(invalid="ignore"):
        errors = np.abs(got - right) * np.ldexp(Long(1), bits - 1 - exponent)
    both_nan = np.isnan(got) & np.isnan(right)
    return np.where((got == right) | both_nan, 0, np.where(np.isfinite(errors), errors, np.inf))


def disagreement(logits: np.ndarray, target: np.ndarray, **options: float) -> float:
    """The largest distance of `answer` from the oracle, in ULP of float64."""
    ours = answer(logits, target, **options)
    gradient = oracle.cross_entropy_grad(logits, target, reduction="sum", **options)
    cancels = target.ndim == 2 or not options.keys().isdisjoint(CANCEL)
    pairs = [
        (ours.loss, oracle.cross_entropy(logits, target, reduction="none", **options), 0.0),
        (ours.dlogits, gradient.dlogits, ours.terms if cancels else 0.0),
    ]
    if not options:
        pairs.append((ours.log_softmax, oracle.log_softmax(logits), 0.0))
    return max(
        float(ulp_errors(found, _to_long(exact), "float64", at_least).max())
        for found, exact, at_least in pairs
    )


def _to_long(exact: np.ndarray) -> np.ndarray:
    """mpmath numbers, rounded to longdouble by way of two floats of their significand."""
    with mpmath.workprec(200):
        significand, exponent = by_entry(mpmath.frexp, exact, outputs=2)
        high = significand.astype(float)
        low = (significand - exactly(high)).astype(float)
    return np.ldexp(high.astype(Long) + low, exponent.astype(int))
