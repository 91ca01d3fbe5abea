"""How well confidences are what they say: bins, their errors, and the scale that mends them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCALES = (2.0**-10, 2.0**10)  # between which the inverse of the temperature is looked for
CLOSE = 1e-7  # relative, of that scale
STEPS = 60
At = Callable[[float], tuple[float, float, float]]


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their share, and of them the mean confidence and accuracy."""

    lower: float
    upper: float
    share: float
    confidence: float
    accuracy: float


def bins_of(sums: np.ndarray) -> list[Bin]:
    """The bins from (3, bins) sums of share, confidence and right rows."""
    count = sums.shape[1]
    total = float(np.sum(sums[0]))
    told = []
    for i, (share, confidence, right) in enumerate(sums.T):
        inside = float(share) or float("nan")
        told.append(
            Bin(
                i / count,
                (i + 1) / count,
                float(share) / total,
                float(confidence) / inside,
                float(right) / inside,
            )
        )
    return told


def errors(bins: list[Bin]) -> tuple[float, float]:
    """ECE, the mean gap between confidence and accuracy, and MCE, the largest.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning,
    AAAI 2015.
    """
    filled = [b for b in bins if b.share]
    gaps = [abs(b.confidence - b.accuracy) for b in filled]
    return float(np.dot([b.share for b in filled], gaps)), max(gaps)


def best_scale(at: At, guess: float = 1.0, close: float = CLOSE) -> tuple[float, float] | None:
    """The factor of the logits at which the loss is least, and that loss; None for 0 or infinity.

    `at` gives the loss f, s f' and s^2 f'' at a factor s. f is convex: Newton's steps, but by a
    factor of two, or to the middle of a bracket, where they do not shrink fast.
    """
    low, high = SCALES
    scale, last = guess, math.inf
    for _ in range(STEPS):
        loss, slope, curve = at(scale)
        if slope <= 0:  # 0 too where a loss is so small that it is 0
            low = scale
        else:
            high = scale
        step = -slope / curve if curve > 0 else math.copysign(math.inf, -slope)
        if abs(step) <= close or high <= low * (1 + close):
            inside = SCALES[0] < scale < SCALES[1]
            return (scale, loss) if inside else None
        fast = abs(step) < last / 2
        last = abs(step)
        tried = scale * (1 + step) if fast and abs(step) < 0.5 else math.nan
        scale = tried if low < tried < high else _between(slope, low, high)
    return None


def _between(slope: float, low: float, high: float) -> float:
    """Twice or half as much while one side is open, then the middle of the bracket."""
    if slope <= 0 and high == SCALES[1]:
        return min(2 * low, high)
    if slope > 0 and low == SCALES[0]:
        return max(high / 2, low)
    return math.sqrt(low * high)
