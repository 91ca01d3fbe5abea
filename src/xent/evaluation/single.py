"""One set of predictions: a pass over its rows, and everything that is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from xent.evaluation import calibration, checks, files, passes, processes, sample, sparse
from xent.evaluation import temperature as fits
from xent.evaluation import uncertainty as errors
from xent.evaluation.calibration import Bin
from xent.evaluation.groups import groups
from xent.evaluation.measures import Gathered, Question, block
from xent.evaluation.predictions import Column, column, predictions
from xent.evaluation.sums import block_rows
from xent.evaluation.temperature import Temperature

UNITS = {None: ("nats", 1.0), 2: ("bits", math.log(2))}


@dataclass(frozen=True)
class Evaluation:
    """What `xent.evaluate` tells; losses, entropy and baseline in `unit`, shares in [0, 1]."""

    predictions: str
    target: str
    kind: str
    kind_detected: bool
    dtype: str
    classes: int
    rows: int
    ignored: int
    skipped: int
    infinite: int  # rows whose target has probability 0
    unit: str
    loss: float
    standard_error: float
    interval: tuple[float, float]  # 95 %
    error_of: str  # "rows", "groups", "bootstrap of rows" or "bootstrap of groups"
    bits: float
    perplexity: float
    log_perplexity: float  # nats
    accuracy: float
    top: int
    top_accuracy: float
    brier: float
    ece: float
    mce: float
    entropy: float
    baseline: float
    skill: float
    temperature: Temperature | None
    bins: list[Bin]
    worst: list[dict[str, Any]]
    bad: list[str]
    per_class: list[dict[str, Any]]
    losses: np.ndarray = field(repr=False)  # rows counted in tenths of a decade of nats

    def as_dict(self) -> dict[str, Any]:
        """The same as numbers, lists and dicts, for JSON."""
        told = asdict(self)
        told["losses"] = self.losses.astype(int).tolist()
        return told

    def __str__(self) -> str:
        from xent.evaluation.report import evaluation_text

        return evaluation_text(self)


def evaluation(
    options: dict[str, Any], tick: Callable[[int, int, int], object] | None
) -> Evaluation:
    """The evaluation that `xent.evaluate` is asked for by its arguments."""
    asked = SimpleNamespace(**options)
    _check(asked)
    way = passes.way(asked.chunk_mb, tick)
    question = _question(asked, way)
    found = question.predictions
    gathered = Gathered(question)
    width = found.classes * found.numbers.array.itemsize
    for one in passes.over(
        found.count, found.classes, width, way, lambda a, b: block(question, a, b)
    ):
        gathered.add(one)
        if gathered.bad and not asked.skip_bad:
            break
    gathered = _shared(question, gathered)
    if gathered.bad and not asked.skip_bad:
        checks.broken("evaluate", gathered.bad[0])
    scalars = gathered.scalars()
    if not scalars["kept"]:
        counts = int(scalars["ignored"]), int(scalars["skipped"])
        checks.no_rows("evaluate", question.target.name, *counts)
    fit = None
    if question.sample is not None:
        question.sample.share(block_rows(found.classes))
        fit = fits.of_sample(question, question.sample)
        if asked.temperature == "all":
            fit = fits.of_all(question, fit, way)
    return _result(asked, question, gathered, scalars, fit)


def _check(asked: Any) -> None:
    for name, fine, expected in (
        ("base", asked.base in UNITS, "None or 2"),
        ("label_smoothing", 0 <= asked.label_smoothing <= 1, "a number in [0, 1]"),
        ("temperature", asked.temperature in ("sample", "all", "none"), "sample, all or none"),
        ("bins", asked.bins >= 1, "1 or more"),
        ("top", asked.top >= 1, "1 or more"),
        ("worst", asked.worst >= 0, "0 or more"),
        ("bootstrap", asked.bootstrap == 0 or asked.bootstrap >= 2, "0, or 2 or more"),
        ("chunk_mb", asked.chunk_mb > 0, "a number above 0"),
    ):
        checks.option("evaluate", name, getattr(asked, name), fine, expected)


def _question(asked: Any, way: passes.Way) -> Question:
    """The files, opened and checked."""
    source: Any = {}
    members = files.members(asked.predictions)
    if asked.kind == "top-k" or asked.indices is not None or members == {"indices", "values"}:
        found = sparse.opened("evaluate", asked, members)
        source = {"source": found.source}
        found = found.predictions
    else:
        found = predictions("evaluate", asked.predictions, asked.axis, asked.kind)

    def per_row(given: Any) -> Column | None:
        return None if given is None else column("evaluate", given, found, "fiu", 0)

    rows_of = groups("evaluate", asked.group, found)
    weights = None
    if asked.weight is not None:
        numbers = files.opened("evaluate", asked.weight, column=True)
        checks.numeric("evaluate", numbers.name, numbers.array.dtype, "fiu", "numbers")
        weights = numbers.array.reshape(-1).astype(np.float64)
        weights = checks.class_weight("evaluate", numbers.name, weights, found.classes)
    fitted = found.kind != "top-k" and asked.temperature in ("sample", "all")
    mapped = found.is_stored and not asked.label_smoothing
    itemsize = found.numbers.array.itemsize
    itemsize = itemsize if mapped else max(8 if found.numbers.dtype == "float64" else 4, itemsize)
    return Question(
        predictions=found,
        target=column("evaluate", asked.target, found, "fiu", asked.ignore_index),
        class_weight=weights,
        row_weight=per_row(asked.row_weight),
        label_smoothing=asked.label_smoothing,
        top=asked.top,
        bins=asked.bins,
        worst=asked.worst,
        groups=rows_of,
        keep_rows=bool(asked.bootstrap) and rows_of is None,
        sample=sample.evenly(found) if fitted else None,
        piece_rows=way.piece_rows(found.cube.shape[1], itemsize, mapped),
        **source,
    )


def _shared(question: Question, own: Gathered) -> Gathered:
    """What all processes found, the same in each of them."""
    if processes.world()[1] == 1:
        return own
    import json

    words = json.dumps([own.worst, own.bad]).encode()
    every = Gathered(question)
    for data in processes.gathered(own.totals.as_bytes()):
        every.totals.add_bytes(data)
    for data in processes.gathered(words):
        worst, bad = json.loads(data)
        every.worst = sorted([*every.worst, *((a, b, c, d) for a, b, c, d in worst)])[
            : question.worst
        ]
        every.bad = sorted([*every.bad, *(checks.Bad(*row) for row in bad)])
    return every


def _result(
    asked: Any,
    question: Question,
    gathered: Gathered,
    s: dict[str, float],
    fit: Temperature | None,
) -> Evaluation:
    unit, scale = UNITS[asked.base]
    found, totals = question.predictions, gathered.totals
    loss = math.inf if s["infinite"] else s["loss"] / s["weight"] if s["weight"] else math.nan
    error, interval, error_of = _error(asked, question, gathered, s, loss)
    baseline = _baseline(question, totals)
    bins = calibration.bins_of(totals["bins"])
    ece, mce = calibration.errors(bins)
    if fit is not None:
        fit = Temperature(fit.temperature, fit.before / scale, fit.after / scale, fit.rows)
    return Evaluation(
        predictions=found.name,
        target=question.target.name,
        kind=found.kind,
        kind_detected=found.detected,
        dtype=found.numbers.dtype,
        classes=found.classes,
        rows=int(s["rows"]),
        ignored=int(s["ignored"]),
        skipped=int(s["skipped"]),
        infinite=int(s["infinite"]),
        unit=unit,
        loss=loss / scale,
        standard_error=error / scale,
        interval=(interval[0] / scale, interval[1] / scale),
        error_of=error_of,
        bits=loss / math.log(2),
        perplexity=math.exp(loss) if loss < 709 else math.inf if loss == loss else math.nan,
        log_perplexity=loss,
        accuracy=s["right"] / s["share"],
        top=asked.top,
        top_accuracy=s["in_top"] / s["share"],
        brier=s["brier"] / s["share"],
        ece=ece,
        mce=mce,
        entropy=s["entropy"] / s["share"] / scale,
        baseline=baseline / scale,
        skill=1 - loss / baseline if baseline else math.nan,
        temperature=fit,
        bins=bins,
        worst=[
            {"row": row, "target": of, "predicted": k, "loss": -negative / scale}
            for negative, row, of, k in gathered.worst
        ],
        bad=[str(row) for row in gathered.bad] if asked.skip_bad else [],
        per_class=_per_class(question, totals, scale),
        losses=totals["losses"],
    )


def _error(
    asked: Any, question: Question, gathered: Gathered, s: dict[str, float], loss: float
) -> tuple[float, tuple[float, float], str]:
    """The standard error of the loss, its 95 % interval, and what they are of."""
    totals, by = gathered.totals, "rows" if question.groups is None else "groups"
    if not math.isfinite(loss):
        return math.nan, (math.nan, math.nan), by
    if asked.bootstrap:
        name = "row" if question.groups is None else "group"
        weight, weighted = totals[f"{name} weight"], totals[f"{name} loss"]
        means = errors.bootstrap(weight, weighted, asked.bootstrap, asked.seed)
        return float(np.std(means, ddof=1)), errors.interval(0, 0, means), f"bootstrap of {by}"
    if question.groups is None:
        squares = s["weight2"], s["weight2_loss"], s["weight2_loss2"]
        error = errors.of_rows(s["kept"], s["weight"], s["loss"], squares)
    else:
        error = errors.of_groups(totals["group weight"], totals["group loss"])
    return error, errors.interval(loss, error), by


def _baseline(question: Question, totals: Any) -> float:
    """The least loss of one distribution for all rows: of the targets' own shares."""
    measure = totals["class weight"]
    total = float(np.sum(measure))
    e, weight = question.label_smoothing, question.class_weight
    if e:
        rows = (
            np.divide(measure, weight, out=np.zeros_like(measure), where=weight > 0)
            if (weight is not None)
            else measure
        )
        each = 1.0 if weight is None else weight
        measure = (1 - e) * measure + e / question.predictions.classes * each * np.sum(rows)
    if not total:
        return math.nan
    filled = measure[measure > 0]
    return math.fsum(filled * np.log(np.sum(filled) / filled)) / total


def _per_class(question: Question, totals: Any, scale: float) -> list[dict[str, Any]]:
    rows, told = totals["class rows"], totals["class told"]
    loss, weight = totals["class loss"], totals["class weight"]
    infinite, right = totals["class infinite"], totals["class right"]
    table = []
    for c in np.flatnonzero((rows > 0) | (told > 0)):
        mean = math.inf if infinite[c] else loss[c] / weight[c] / scale if weight[c] else math.nan
        table.append(
            {
                "class": int(c),
                "rows": int(rows[c]),
                "loss": float(mean),
                "accuracy": float(right[c] / rows[c]) if rows[c] else math.nan,
                "predicted": int(told[c]),
            }
        )
    return table
