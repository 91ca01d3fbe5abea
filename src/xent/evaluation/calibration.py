"""How well confidences are what they say: bins, their errors, and the scale that mends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCALES = (2.0**-10, 2.0**10)  # between which the inverse of the temperature is looked for
CLOSE = 1e-7  # relative, of that scale
STEPS = 60


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


def best_scale(at: Callable[[float], tuple[float, float]]) -> float | None:
    """The factor of the logits at which the loss is least; None where it is 0 or infinite.

    `at` gives the loss and its slope. The loss is convex in the factor, so its slope rises: the
    zero is bracketed from 1 by doubling and found by the Illinois form of regula falsi.
    """
    low = high = 1.0
    slope_low = slope_high = at(1.0)[1]
    while slope_high <= 0 and high < SCALES[1]:  # 0 too where a loss is so small that it is 0
        low, slope_low, high = high, slope_high, 2 * high
        slope_high = at(high)[1]
    while slope_low > 0 and low > SCALES[0]:
        high, slope_high, low = low, slope_low, low / 2
        slope_low = at(low)[1]
    if not slope_low <= 0 < slope_high:
        return None
    kept = 0
    for _ in range(STEPS):
        if high - low <= CLOSE * high or not slope_low or not slope_high:
            break
        middle = (low * slope_high - high * slope_low) / (slope_high - slope_low)
        if not low < middle < high:
            break
        slope = at(middle)[1]
        if slope < 0:
            slope_high = slope_high / 2 if kept < 0 else slope_high
            low, slope_low, kept = middle, slope, -1
        else:
            slope_low = slope_low / 2 if kept > 0 else slope_low
            high, slope_high, kept = middle, slope, 1
    if not slope_low:
        return low
    return high if abs(slope_high) < abs(slope_low) else low
