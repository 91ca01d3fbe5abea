"""How far a mean over rows may be off: standard error, of clusters of rows, and by bootstrap."""

from __future__ import annotations

import math

import numpy as np

NORMAL_95 = 1.959963984540054  # 95 % of a normal lie within so many standard deviations
QUANTILES = (0.025, 0.975)


def of_rows(rows: float, weight: float, loss: float, squares: tuple[float, float, float]) -> float:
    """The standard error of a weighted mean of independent rows.

    From the sums over rows of w, w l and of w^2, w^2 l, w^2 l^2, as a ratio of two sums; with equal
    weights, the standard deviation of l divided by sqrt(rows).
    """
    if rows < 2 or weight <= 0:
        return math.nan
    mean = loss / weight
    w2, w2l, w2l2 = squares
    spread = max(0.0, w2l2 - 2 * mean * w2l + mean * mean * w2)
    return math.sqrt(spread * rows / (rows - 1)) / weight


def of_groups(weight: np.ndarray, loss: np.ndarray) -> float:
    """The standard error of a weighted mean of rows that vary together within a group."""
    filled = weight > 0
    count = int(np.count_nonzero(filled))
    if count < 2:
        return math.nan
    total = math.fsum(weight)
    mean = math.fsum(loss) / total
    gaps = (loss - mean * weight)[filled]
    return math.sqrt(math.fsum(gaps * gaps) * count / (count - 1)) / total


def bootstrap(weight: np.ndarray, loss: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of rows (or groups) drawn with replacement, `draws` of them, sorted.

    Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7 (1979).
    """
    filled = np.flatnonzero(weight)
    weight, loss = weight[filled], loss[filled]
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for i in range(draws):
        drawn = rng.integers(0, len(filled), len(filled))
        means[i] = np.sum(loss[drawn]) / np.sum(weight[drawn])
    return np.sort(means)


def interval(mean: float, error: float, means: np.ndarray | None = None) -> tuple[float, float]:
    """The 95 % interval: percentiles of the bootstrap, or the normal's about the mean."""
    if means is not None:
        low, high = np.quantile(means, QUANTILES)
        return float(low), float(high)
    return mean - NORMAL_95 * error, mean + NORMAL_95 * error
