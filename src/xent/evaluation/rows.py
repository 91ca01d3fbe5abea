"""The numbers of a row that every measure is made of, from one pass of the compiled kernel.

The kernel gives the surprisal of the target, the log-sum-exp, the likeliest class and the gradient
g = p - (1 at the target) of rows that fit into the cache. Two dot products there give the rest:

    Brier score   sum (p - onehot)^2 = <g, g>
    entropy       -sum p log p       = surprisal - <g, logits>          as sum g = 0
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from xent.evaluation.predictions import IGNORED, LOWEST
from xent.kernels import cpu, library

SLICE = 8192  # a longer dot product is shared among BLAS's threads, which are not ours
LONG = 4096  # classes; a row of so many is worth a call of its own
KEPT = threading.local()


class RowNumbers(NamedTuple):
    """Of each row, shape (n,), float64 but for k; 0 for ignored rows."""

    nll: np.ndarray  # surprisal of the target, nats
    lse: np.ndarray
    k: np.ndarray  # int64, the likeliest class
    confidence: np.ndarray  # its probability
    entropy: np.ndarray  # nats
    brier: np.ndarray
    slope: np.ndarray  # sum p logits - logits[target], the derivative of nll by a scale


def row_numbers(logits: np.ndarray, target: np.ndarray, quick: bool = False) -> RowNumbers:
    """The numbers of rows (n, V) of float32 or float64 logits; a target of -1 is ignored.

    `quick` takes no gradient: entropy, brier and slope are 0. float16 is for `quick` alone.
    """
    run = _reference if library.why_not() else _kernel
    nll, lse, k, tail, gradient = run(logits, target, quick)
    if gradient is None:
        none = np.zeros(len(target))
        return RowNumbers(nll, lse, k, 1 / (1 + tail), none, none, none)
    with np.errstate(invalid="ignore", over="ignore"):
        slope = _dot(gradient, logits)
        lost = ~np.isfinite(slope) & np.isfinite(lse) & (target >= 0)
        if lost.any():  # 0 times a logit of -inf
            slope[lost] = _dot(gradient[lost], np.maximum(logits[lost], LOWEST))
        entropy = np.maximum(nll - slope, 0.0)
        hopeless = np.isinf(nll) & np.isfinite(lse)
        if hopeless.any():  # the target itself is at -inf: inf - inf
            entropy[hopeless] = _entropy(logits[hopeless], lse[hopeless])
    kept = target != IGNORED
    brier = np.where(kept, _dot(gradient, gradient), 0.0)
    return RowNumbers(nll, lse, k, 1 / (1 + tail), np.where(kept, entropy, 0.0), brier, slope)


def above_target(logits: np.ndarray, target: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How many classes are likelier than the target: read only where the likeliest is another."""
    rank = np.zeros(len(target), dtype=np.int64)
    wrong = np.flatnonzero((k != target) & (target != IGNORED))
    own = logits[wrong, target[wrong]]
    if logits.shape[1] >= LONG:
        for i, least in zip(wrong, own, strict=True):
            rank[i] = np.count_nonzero(logits[i] > least)
    elif len(wrong):
        above = logits[wrong] > own[:, None]
        rank[wrong] = np.add.reduce(above.view(np.uint8), axis=1, dtype=np.uint16)
    return rank


def _kernel(logits: np.ndarray, target: np.ndarray, quick: bool) -> tuple[Any, ...]:
    """Surprisal, log-sum-exp, likeliest class, sum of the other classes' exponentials, gradient."""
    n, classes = logits.shape
    numbers = np.empty((3, n))
    k = np.empty(n, dtype=np.int64)
    gradient = None if quick else _workspace(logits)
    nll, lse, tail = (cpu.address(numbers[i]) for i in range(3))
    fields = {
        **{
            "mode": cpu.STATISTICS if quick else cpu.LOSS,
            "logits": cpu.address(logits),
            "n": n,
            "d": 1,
            "v": classes,
        },
        **{"dtype": cpu.DTYPES[str(logits.dtype)], "stride_n": classes, "stride_d": classes},
        **{"stride_v": 1, "target_kind": cpu.INDICES, "target": cpu.address(target)},
        **{"ignore_index": IGNORED, "logit_scale": 1.0, "softcap": 0.0},
        **{"nll": nll, "lse": lse, "tail": tail, "k": cpu.address(k)},
        **{"gradient": cpu.address(gradient), "gradient_n": classes, "gradient_d": classes},
        **{"gradient_v": 1, "of_nll": 1.0, "divisor": 1.0, "upstream": 1.0},
        **{"losses": nll, "loss_dtype": cpu.DTYPES["float64"]},
    }
    # No `parallel`: other threads work on other rows.
    cpu.run(cpu.pack(*(fields.get(name, 0) for name in cpu.FIELDS)))
    return numbers[0], numbers[1], k, numbers[2], gradient


def _reference(logits: np.ndarray, target: np.ndarray, quick: bool) -> tuple[Any, ...]:
    """The same from the library's array code."""
    import xent

    wide = logits.astype(np.float64)
    told = xent.token_statistics(wide, target, ignore_index=IGNORED)
    gradient = xent.softmax(wide)
    kept = np.flatnonzero(target != IGNORED)
    top = gradient[np.arange(len(target)), told.argmax]
    with np.errstate(divide="ignore"):
        tail = 1 / top - 1
    gradient[kept, target[kept]] = np.expm1(told.log_prob[kept])
    gradient[target == IGNORED] = 0
    return -told.log_prob, told.lse, told.argmax, tail, None if quick else gradient


def _workspace(logits: np.ndarray) -> np.ndarray:
    """Room for a gradient, kept for the next piece of this thread: fresh memory costs more."""
    kept = getattr(KEPT, "room", None)
    if kept is None or kept.nbytes < logits.nbytes:
        kept = KEPT.room = np.empty(logits.nbytes, dtype=np.uint8)
    return kept[: logits.nbytes].view(logits.dtype).reshape(logits.shape)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The dot products of rows, in float64 from slice to slice."""
    total = np.zeros(len(a))
    for first in range(0, a.shape[1], SLICE):
        part = slice(first, first + SLICE)
        total += np.vecdot(a[:, part], b[:, part])
    return total


def _entropy(logits: np.ndarray, lse: np.ndarray) -> np.ndarray:
    log_p = np.maximum(np.float64(logits) - lse[:, None], LOWEST)
    return -np.sum(np.exp(log_p) * log_p, axis=1)
