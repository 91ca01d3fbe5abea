"""The temperature that minimises the loss: over rows kept in memory, or over passes of the file.

Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, section 4.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xent.evaluation import passes, processes
from xent.evaluation.calibration import At, best_scale
from xent.evaluation.measures import Question
from xent.evaluation.predictions import IGNORED, numbers_of
from xent.evaluation.rows import row_numbers
from xent.evaluation.sample import Sample
from xent.evaluation.sums import Totals

FEW = 16  # the part of the sample that a first guess is made from
NEAR = 1e-3  # of that guess
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
    """Some rows, and of each the target measure's mass m: loss = m nll + scale rest."""

    logits: np.ndarray  # (n, V)
    bfloat16: bool
    target: np.ndarray
    mass: np.ndarray
    rest: np.ndarray
    weight: np.ndarray  # what the sum of the losses is divided by, summed


def of_sample(question: Question, sample: Sample) -> Temperature:
    """Over the sample: a first guess over some of its rows, then Newton's steps over all."""
    whole = _part(question, sample.rows, sample.logits, sample.bfloat16)
    kept = int(np.count_nonzero(whole.target != IGNORED))
    few = _part(question, sample.rows[::FEW], sample.logits[::FEW].copy(), sample.bfloat16)

    def of(part: Part) -> At:
        def at(scale: float) -> tuple[float, float, float]:
            loss, slope, curve, weight = _sums(part, scale, threads=True)
            return float(loss / weight), float(slope / weight), float(curve / weight)

        return at

    guess = None
    if np.any(few.target != IGNORED) and kept > 2 * FEW:
        with np.errstate(invalid="ignore"):  # inf - inf, where a loss is infinite
            guess = best_scale(of(few), 1.0, NEAR)
    return _found(of(whole), kept, guess[0] if guess else 1.0)


def of_all(question: Question, near: Temperature, way: passes.Way) -> Temperature:
    """Over all rows, a pass of the file for each temperature that is tried from the sample's on."""
    found = question.predictions
    counts: list[int] = []
    step = max(1, SUMMED // found.classes)  # by the number of classes alone, for the bits

    def at(scale: float) -> tuple[float, float, float]:
        def work(start: int, stop: int) -> tuple[np.ndarray, int]:
            total, rows = np.zeros(4), 0
            for first, last in passes.pieces(start, stop, step):
                logits, bfloat16 = found.stored(found.raw(first, last))
                part = _part(question, np.arange(first, last), logits, bfloat16)
                total = total + _sums(part, scale)
                rows += int(np.count_nonzero(part.target != IGNORED))
                found.release(first, last)
            return total, rows

        totals = Totals()
        width = found.classes * found.numbers.array.itemsize
        for sums, rows in passes.over(found.count, found.classes, width, way, work):
            totals.add({"sums": sums, "rows": np.array(float(rows))})
        every = Totals()
        for data in processes.gathered(totals.as_bytes()):
            every.add_bytes(data)
        counts.append(int(every["rows"]))
        loss, slope, curve, weight = every["sums"]
        return float(loss / weight), float(slope / weight), float(curve / weight)

    result = _found(at, 0, 1 / near.temperature if near.temperature else 1.0)
    return Temperature(result.temperature, result.before, result.after, counts[0])


def _found(at: At, rows: int, guess: float) -> Temperature:
    with np.errstate(invalid="ignore"):  # inf - inf, where a loss is infinite
        first = at(1.0)
    if not math.isfinite(first[0]):
        return Temperature(None, math.inf, math.inf, rows)
    best = best_scale(lambda scale: first if scale == 1.0 else at(scale), guess)
    if best is None:
        return Temperature(None, first[0], first[0], rows)
    return Temperature(1 / best[0], first[0], best[1], rows)


def _part(question: Question, rows: np.ndarray, logits: np.ndarray, bfloat16: bool) -> Part:
    """Rows of the file, the broken ones as ignored ones."""
    found = question.predictions
    picked = question.target.flat[rows]
    with np.errstate(invalid="ignore"):
        target = picked.astype(np.int64)
        fine = (target == picked) & (target >= 0) & (target < found.classes)
    fine &= target != question.target.ignore_index
    target[~fine] = IGNORED
    classes, smoothing = question.class_weight, question.label_smoothing
    weight: np.ndarray = np.ones(len(target)) if classes is None else classes[target]
    mass, rest = weight, np.zeros(len(target))
    if smoothing:
        wide = numbers_of(logits, bfloat16).astype(np.float64)
        each = np.ones(found.classes) if classes is None else classes
        own = wide[np.arange(len(target)), target]
        # The mean of the other classes' nll is that of the target less the gap of the logits.
        with np.errstate(invalid="ignore"):
            gap = np.mean(each) * own - (wide @ each) / found.classes
        mass = (1 - smoothing) * weight + smoothing * np.mean(each)
        rest = np.where(fine, smoothing * gap, 0.0)
    share = 1.0
    if question.row_weight is not None:
        share = question.row_weight.flat[rows].astype(np.float64)
    mass, rest, weight = (np.where(fine, share * x, 0.0) for x in (mass, rest, weight))
    return Part(logits, bfloat16, target, mass, rest, weight)


def _sums(part: Part, scale: float, threads: bool = False) -> np.ndarray:
    """The sums of the loss, of its two derivatives by the scale's logarithm, of the weights."""
    wide = part.logits.dtype == np.float64
    factor = float(scale if wide else np.float32(scale))  # as the kernel has it
    numbers = row_numbers(part.logits, part.target, part.bfloat16, factor, threads)
    fine = np.isfinite(numbers.lse)
    kept = fine & (part.mass > 0)
    loss, slope, curve = (
        part.mass * np.where(kept, np.asarray(x), 0.0)
        for x in (numbers.nll, numbers.slope, numbers.curve)
    )
    rest = np.where(fine, factor * part.rest, 0.0)
    weight = np.where(fine, part.weight, 0.0)
    return np.array([np.sum(loss + rest), np.sum(slope + rest), np.sum(curve), np.sum(weight)])
