"""The temperature that minimises the loss: over rows kept in memory, or over passes of the file.

Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xent.evaluation import passes, processes
from xent.evaluation.calibration import best_scale
from xent.evaluation.measures import Question
from xent.evaluation.predictions import IGNORED, LOWEST
from xent.evaluation.rows import row_numbers
from xent.evaluation.sums import Totals
from xent.kernels import cpu

KEPT, MOST_ROWS = 1 << 22, 1 << 14  # logits that are kept in memory, and rows, evenly spaced
SUMMED = 1 << 18  # logits that are summed at once


@dataclass(frozen=True)
class Temperature:
    """The temperature, the loss without it and with it, and over how many rows.

    The temperature is None where there is none: a loss is infinite, or falls for ever.
    """

    temperature: float | None
    before: float
    after: float
    rows: int


class Part(NamedTuple):
    """Some rows, and of each the target measure's mass m and product d: loss = m lse - d."""

    logits: np.ndarray  # (n, V)
    target: np.ndarray
    mass: np.ndarray
    product: np.ndarray
    weight: np.ndarray  # what the sum of the losses is divided by, summed


def of_sample(question: Question) -> Temperature:
    """Over all rows of a small file, evenly spaced ones of a larger."""
    found = question.predictions
    count = min(found.count, MOST_ROWS, max(1, KEPT // found.classes))
    rows = np.arange(count) * found.count // count
    step = _step(found.classes)
    parts = [_part(question, rows[i : i + step]) for i in range(0, count, step)]
    kept = sum(len(part.target) for part in parts)

    def at(scale: float) -> tuple[float, float]:
        totals = Totals()
        for sums in pool.map(lambda part: _sums(part, scale), parts):
            totals.add({"sums": sums})
        loss, slope, weight = totals["sums"]
        return float(loss / weight), float(slope / weight)

    with ThreadPoolExecutor(cpu.threads()) as pool:
        return _found(at, kept)


def of_all(question: Question, way: passes.Way) -> Temperature:
    """Over all rows, a pass of the file for each temperature that is tried."""
    found = question.predictions
    counts: list[int] = []

    def at(scale: float) -> tuple[float, float]:
        def work(start: int, stop: int) -> tuple[np.ndarray, int]:
            total, rows = np.zeros(3), 0
            for first, last in passes.pieces(start, stop, _step(found.classes)):
                part = _part(question, np.arange(first, last), slice(first, last))
                found.release(first, last)
                total = total + _sums(part, scale)
                rows += len(part.target)
            return total, rows

        totals = Totals()
        width = found.classes * found.numbers.array.itemsize
        for sums, rows in passes.over(found.count, found.classes, width, way, work):
            totals.add({"sums": sums, "rows": np.array(float(rows))})
        every = Totals()
        for data in processes.gathered(totals.as_bytes()):
            every.add_bytes(data)
        counts.append(int(every["rows"]))
        loss, slope, weight = every["sums"]
        return float(loss / weight), float(slope / weight)

    result = _found(at, 0)
    return Temperature(result.temperature, result.before, result.after, counts[0])


def _step(classes: int) -> int:
    """Rows that are summed at once: by the number of classes alone, for the sake of the bits."""
    return max(1, SUMMED // classes)


def _found(at: Callable[[float], tuple[float, float]], rows: int) -> Temperature:
    with np.errstate(invalid="ignore"):  # inf - inf, where a loss is infinite
        before = at(1.0)[0]
    if not math.isfinite(before):
        return Temperature(None, math.inf, math.inf, rows)
    scale = best_scale(at)
    if scale is None:
        return Temperature(None, before, before, rows)
    return Temperature(1 / scale, before, at(scale)[0], rows)


def _part(question: Question, rows: np.ndarray, place: slice | None = None) -> Part:
    """Rows of the file, which are at `place` where they lie side by side, but for broken ones."""
    found = question.predictions
    logits = found.take(rows) if place is None else found.logits(found.raw(place.start, place.stop))
    picked = question.target.flat[rows]
    with np.errstate(invalid="ignore"):
        target = picked.astype(np.int64)
        fine = (target == picked) & (target >= 0) & (target < found.classes)
    fine &= target != question.target.ignore_index
    with np.errstate(invalid="ignore"):
        logits = np.maximum(logits, LOWEST)
    fine &= ~np.isnan(logits).any(axis=1) & (logits.max(axis=1) < np.inf)
    fine &= logits.max(axis=1) > LOWEST
    if not fine.all():
        logits, target, rows = logits[fine], target[fine], rows[fine]
    classes, smoothing = question.class_weight, question.label_smoothing
    own = np.float64(logits[np.arange(len(target)), target])
    weight = np.ones(len(target)) if classes is None else classes[target]
    mass, product = (1 - smoothing) * weight, (1 - smoothing) * weight * own
    if smoothing:
        each = np.ones(found.classes) if classes is None else classes
        mass = mass + smoothing * np.mean(each)
        product = product + smoothing * (np.float64(logits) @ each) / found.classes
    if question.row_weight is not None:
        share = question.row_weight.flat[rows].astype(np.float64)
        mass, product, weight = share * mass, share * product, share * weight
    return Part(logits, target, mass, product, weight)


def _sums(part: Part, scale: float) -> np.ndarray:
    """The sums of the loss, of its slope by the scale, and of the weights."""
    logits, target, mass, product, weight = part
    if not len(target):
        return np.zeros(3)
    own = np.float64(logits[np.arange(len(target)), target])
    factor = logits.dtype.type(scale)
    numbers = row_numbers(logits if factor == 1 else logits * factor, target)
    scale = float(factor)
    loss = mass * (numbers.nll + scale * own) - scale * product
    slope = mass * (numbers.slope / scale + own) - product
    loss = np.where(own > LOWEST, loss, np.inf)
    loss = np.where(target == IGNORED, 0.0, loss)
    return np.array([np.sum(loss), np.sum(slope), np.sum(weight)])
