"""Whether a result is right: against softmax by its definition in float64, a few rows at a time.

With x the logits of a row in float64, m their maximum and s = sum exp(x - m), the loss is
m + log s - x_t and the gradient of the mean over N rows (exp(x - m) / s - 1[c = t]) / N. No line is
shared with what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xent.bench import heads
from xent.bench.cases import AXIS, Case, Head
from xent.bench.records import OURS, Errors, rounded

Array = Any
BLOCK = 2**20  # numbers

# Relative errors. Ours are the accuracy contract's (docs/design.md), of ULPs of the dtype; in
# float64 with room for this reference, which is no more than float64 itself.
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}
OUR_ULPS = {"float16": 1, "bfloat16": 1, "float32": 4, "float64": 64}
# A peer is held to being the same function: torch's bfloat16 gradients are tens of percents off.
PEER_LOSS = {"float16": 0.05, "bfloat16": 0.05, "float32": 1e-4, "float64": 1e-10}
PEER_GRADIENT = {"float16": 0.5, "bfloat16": 0.5, "float32": 1e-3, "float64": 1e-10}


def errors(
    case: Case | Head, arrays: tuple, results: dict[str, tuple[Array, Array | None]]
) -> dict[str, Errors]:
    """Those of each subject's loss and gradient."""
    if isinstance(case, Head):
        return heads.errors(case, arrays, results)
    logits, target = arrays
    gradients = {subject: _sliceable(gradient) for subject, (_, gradient) in results.items()}
    total, worst = 0.0, dict.fromkeys(results, 0.0)
    for rows, losses, dlogits in _blocks(case, logits, target):
        total += losses
        size = np.maximum(np.abs(dlogits), SMALLEST[case.dtype])
        for subject, gradient in gradients.items():
            if gradient is None:
                continue
            if tuple(gradient.shape) != case.shape:
                worst[subject] = math.inf
                continue
            gap = np.max(np.abs(_float64(gradient[rows]) - dlogits) / size)
            worst[subject] = float(np.maximum(worst[subject], gap))  # keeps a NaN
    right = total / case.rows
    return {
        subject: Errors(
            abs(float(_float64(loss)) - right) / right,
            None if gradient is None else worst[subject],
            _limits(subject, case.dtype),
        )
        for subject, (loss, gradient) in results.items()
    }


def _limits(subject: str, dtype: str) -> tuple[float, float]:
    """The errors that a subject's loss and gradient may have."""
    if subject != OURS:
        return PEER_LOSS[dtype], PEER_GRADIENT[dtype]
    ours = OUR_ULPS[dtype] * EPS[dtype]
    return ours, ours


def finite(error: float | None) -> float | None:
    """As JSON can hold it."""
    return rounded(error) if error is not None and math.isfinite(error) else None


def _blocks(case: Case, logits: Array, target: Array) -> Iterator[tuple[slice, float, np.ndarray]]:
    """Rows of the first axis, the sum of their losses, and their gradient."""
    step = max(1, BLOCK * case.shape[0] // math.prod(case.shape))
    for start in range(0, case.shape[0], step):
        rows = slice(start, start + step)
        x = _float64(logits[rows])
        index = np.expand_dims(target[rows].numpy(), AXIS)
        x -= x.max(axis=AXIS, keepdims=True)
        powers = np.exp(x)
        sums = powers.sum(axis=AXIS, keepdims=True)
        losses = float(np.sum(np.log(sums) - np.take_along_axis(x, index, AXIS)))
        powers /= sums
        picked = np.take_along_axis(powers, index, AXIS)
        np.put_along_axis(powers, index, picked - 1, AXIS)
        yield rows, losses, powers / case.rows


def _sliceable(array: Array | None) -> Array | None:
    """torch tensors as they are, others as NumPy arrays: JAX compiles every slice."""
    return array if array is None or hasattr(array, "detach") else np.asarray(array)


def _float64(array: Array) -> np.ndarray:
    """A new NumPy array of a torch tensor or a NumPy array."""
    if hasattr(array, "detach"):
        array = array.detach().float() if array.element_size() < 4 else array.detach()
        array = array.numpy()
    return np.array(array, dtype=np.float64)
