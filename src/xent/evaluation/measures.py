"""What a block of rows adds to each measure, and the measures that the totals make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import xent.evaluation.rows as kernel
from xent.evaluation.groups import Groups
from xent.evaluation.passes import pieces
from xent.evaluation.predictions import IGNORED, Column, Predictions, broken_rows, numbers_of
from xent.evaluation.sample import Sample
from xent.evaluation.sums import Totals

# Losses are counted in bins of a tenth of a decade, the first for what is below, the last above.
DECADES = (-8, 3)
LOSS_BINS = (DECADES[1] - DECADES[0]) * 10 + 2
AS_GIVEN = ("probabilities", "log-probabilities")  # kinds that are not divided by their sum
MOST_BAD = 10  # broken rows that are listed; all are counted


@dataclass(frozen=True)
class Question:
    """What is asked of the rows of a file."""

    predictions: Predictions
    target: Column
    class_weight: np.ndarray | None  # (V,) float64
    row_weight: Column | None
    label_smoothing: float
    top: int
    bins: int
    worst: int
    groups: Groups | None
    keep_rows: bool
    piece_rows: int
    sample: Sample | None  # rows to keep
    source: Any = kernel  # of `row_numbers`; sparse predictions have their own


@dataclass
class Block:
    """What a block of rows adds."""

    sums: dict[str, np.ndarray]
    at: list[tuple[str, int, np.ndarray, np.ndarray]]  # name, size, places, values
    worst: list[tuple[float, int, int, int]]  # -loss, row, target, likeliest class
    bad: list[Any]
    bad_count: int
    rows: dict[str, tuple[int, np.ndarray]]  # first row, a number for each


def block(question: Question, start: int, stop: int) -> Block:
    """The numbers of rows [start, stop), read a piece at a time, and their sums."""
    parts, bad = [], []
    for first, last in pieces(start, stop, question.piece_rows):
        found, wrong = _piece(question, first, last)
        parts.append(found)
        bad += wrong
    columns = parts[0]
    if len(parts) > 1:
        columns = {name: np.concatenate([p[name] for p in parts]) for name in columns}
    return _summed(question, start, columns, bad)


def _piece(question: Question, start: int, stop: int) -> tuple[dict[str, np.ndarray], list[Any]]:
    found = question.predictions
    target, bad = question.target.targets(start, stop, found.classes)
    raw = found.raw(start, stop)
    logits, bfloat16 = found.stored(raw)
    if question.sample is not None:
        question.sample.keep(start, stop, logits)
    of_file = question.target.flat[start:stop] == question.target.ignore_index
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = question.source.row_numbers(logits, target, bfloat16)
    kept = target != IGNORED
    broken = broken_rows(found, start, numbers.lse)
    for row in broken:
        kept[row.row - start] = False
    bad = sorted([*bad, *broken])
    nll, confidence = numbers.nll, numbers.confidence
    if found.kind in AS_GIVEN:
        nll, confidence = _as_given(found, raw, target, numbers)
    wide = numbers_of(logits, bfloat16) if question.label_smoothing else logits
    loss, weight = _loss(question, start, stop, wide, target, nll, numbers)
    found.release(start, stop)
    return {
        **{"kept": kept, "ignored": of_file, "target": target, "k": numbers.k, "loss": loss},
        **{"weight": weight, "confidence": confidence, "entropy": numbers.entropy},
        **{"brier": numbers.brier, "in_top": numbers.above < question.top},
    }, bad


def _as_given(
    found: Predictions, raw: np.ndarray, target: np.ndarray, numbers: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Surprisal and confidence of probabilities as they are, not divided by their sum."""
    at = np.arange(len(target))
    own, top = (
        np.float64(numbers_of(raw[at, k], found.numbers.bfloat16)) for k in (target, numbers.k)
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if found.kind == "probabilities":
            own = -np.log(own)
        else:
            own, top = -own, np.exp(top)
    return np.where(target == IGNORED, 0.0, own + 0.0), np.minimum(top, 1.0)


def _loss(
    question: Question,
    start: int,
    stop: int,
    logits: np.ndarray,
    target: np.ndarray,
    nll: np.ndarray,
    numbers: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted loss of each row divided by its weight, and its weight."""
    from xent import cross_entropy

    rows, classes = question.row_weight, question.class_weight
    weight = np.ones(stop - start) if rows is None else rows.weights(start, stop)
    of_class = None if classes is None else np.where(target == IGNORED, 0.0, classes[target])
    smoothing = question.label_smoothing
    if smoothing:
        whole = cross_entropy(
            np.float64(logits),
            target,
            classes,
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=smoothing,
        )
        if question.predictions.kind in AS_GIVEN:
            mass = 1.0 if classes is None else smoothing * np.mean(classes)
            mass = mass if of_class is None else mass + (1 - smoothing) * of_class
            whole = whole - numbers.lse * mass
        with np.errstate(invalid="ignore", divide="ignore"):
            nll = whole if of_class is None else np.where(of_class > 0, whole / of_class, 0.0)
    return nll, weight if of_class is None else weight * of_class


def _summed(
    question: Question, start: int, columns: dict[str, np.ndarray], bad: list[Any]
) -> Block:
    all_rows = len(columns["kept"])
    kept = columns["kept"]
    ignored = columns["ignored"]
    whole = bool(kept.all())
    c = columns if whole else {name: values[kept] for name, values in columns.items()}
    row = np.arange(start, start + all_rows) if whole else start + np.flatnonzero(kept)
    loss, weight, right = c["loss"], c["weight"], c["target"] == c["k"]
    share = (
        None if question.row_weight is None else question.row_weight.flat[row].astype(np.float64)
    )
    alike = share is None and question.class_weight is None  # all weights are 1
    finite = np.isfinite(loss)
    fine = loss if finite.all() else np.where(finite, loss, 0.0)
    weighted = fine if alike else weight * fine

    def of(values: np.ndarray) -> float:
        return float(np.sum(values if share is None else share * values))

    sums = {
        "scalars": np.array(
            [
                all_rows,
                np.count_nonzero(ignored),
                len(bad),
                len(row),
                len(row) - np.count_nonzero(finite),
                np.sum(weight),
                np.sum(weighted),
                np.sum(weight if alike else weight * weight),
                np.sum(weighted if alike else weight * weighted),
                np.sum(weighted * weighted),
                len(row) if share is None else np.sum(share),
                *(of(values) for values in (right, c["in_top"], c["brier"], c["entropy"])),
            ]
        ),
        "bins": _bins(question.bins, c["confidence"], right, share),
        "losses": np.bincount(loss_bin(loss), minlength=LOSS_BINS).astype(np.float64),
    }
    return Block(
        sums,
        _by_class(question, c, None if alike else weight, weighted, finite, right)
        + _by_group(question, row, weight, weighted),
        _worst(question.worst, row, c),
        bad[:MOST_BAD],
        len(bad),
        _rows(question, start, all_rows, row, weight, weighted),
    )


SCALARS = (
    *("rows", "ignored", "skipped", "kept", "infinite", "weight", "loss", "weight2"),
    *("weight2_loss", "weight2_loss2", "share", "right", "in_top", "brier", "entropy"),
)


def _bins(
    bins: int, confidence: np.ndarray, right: np.ndarray, share: np.ndarray | None
) -> np.ndarray:
    """Of each bin [i, i + 1) / bins of confidence: the rows' share, confidence, right ones."""
    at = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    told = confidence if share is None else share * confidence
    own = None if share is None else share[right]
    given = (at, share), (at, told), (at[right], own)
    return np.stack([np.bincount(of, weights=w, minlength=bins) for of, w in given]) * 1.0


def loss_bin(loss: np.ndarray) -> np.ndarray:
    """Which bin a loss is counted in."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decade = np.floor(10 * (np.log10(np.maximum(loss, 0.0)) - DECADES[0])) + 1
    return np.clip(decade, 0, LOSS_BINS - 1).astype(np.int64)


def _by_class(
    question: Question,
    c: Any,
    weight: np.ndarray | None,
    weighted: np.ndarray,
    finite: np.ndarray,
    right: np.ndarray,
) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    classes = question.predictions.classes
    if classes <= len(right):  # sorting takes longer than a place for each class
        seen = told = np.arange(classes)
        place, count = c["target"], np.bincount(c["k"], minlength=classes)
    else:
        seen, place = np.unique(c["target"], return_inverse=True)
        told, count = np.unique(c["k"], return_counts=True)

    def per(of: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(of, weights=values, minlength=len(seen)).astype(np.float64)

    rows = per(place)
    return [
        ("class rows", classes, seen, rows),
        ("class weight", classes, seen, rows if weight is None else per(place, weight)),
        ("class loss", classes, seen, per(place, weighted)),
        ("class infinite", classes, seen, per(place[~finite])),
        ("class right", classes, seen, per(place[right])),
        ("class told", classes, told, count.astype(np.float64)),
    ]


def _by_group(
    question: Question, row: np.ndarray, weight: np.ndarray, weighted: np.ndarray
) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    if question.groups is None:
        return []
    codes, count = question.groups
    seen, place = np.unique(codes[row], return_inverse=True)
    sums = [np.bincount(place, weights=w, minlength=len(seen)) for w in (weight, weighted)]
    names = "group weight", "group loss"
    return [(name, count, seen, s) for name, s in zip(names, sums, strict=True)]


def _worst(count: int, row: np.ndarray, c: Any) -> list[tuple[float, int, int, int]]:
    loss = c["loss"]
    if not count or not len(loss):
        return []
    edge = np.partition(loss, -min(count, len(loss)))[-min(count, len(loss))]
    at = np.flatnonzero(loss >= edge)
    at = at[np.argsort(-loss[at], kind="stable")][:count]
    return [(-float(loss[i]), int(row[i]), int(c["target"][i]), int(c["k"][i])) for i in at]


def _rows(
    question: Question, start: int, rows: int, row: np.ndarray, weight: Any, weighted: Any
) -> dict[str, tuple[int, np.ndarray]]:
    if not question.keep_rows:
        return {}
    kept = np.zeros((2, rows))
    kept[:, row - start] = weight, weighted
    return {"row weight": (start, kept[0]), "row loss": (start, kept[1])}


class Gathered:
    """The blocks of all processes: totals, the worst rows, the broken rows."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.totals = Totals()
        self.worst: list[tuple[float, int, int, int]] = []
        self.bad: list[Any] = []

    def add(self, one: Block) -> None:
        """Add a block."""
        self.totals.add(one.sums)
        for name, size, places, values in one.at:
            self.totals.add_at(name, size, places, values)
        for name, (first, values) in one.rows.items():
            size = self.question.predictions.count
            self.totals.put(name, size, np.arange(first, first + len(values)), values)
        self.worst = sorted([*self.worst, *one.worst])[: self.question.worst]
        self.bad = sorted([*self.bad, *one.bad])[:MOST_BAD]

    def scalars(self) -> dict[str, float]:
        """The sums over all rows."""
        return dict(zip(SCALARS, map(float, self.totals["scalars"]), strict=True))
