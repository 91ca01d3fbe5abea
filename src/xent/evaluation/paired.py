"""Two sets of predictions for the same rows: a pass over both, and how far they differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from xent.evaluation import checks, divergence, files, passes, processes
from xent.evaluation.divergence import Pair
from xent.evaluation.groups import groups
from xent.evaluation.predictions import column, predictions
from xent.evaluation.single import UNITS
from xent.evaluation.sums import Totals
from xent.evaluation.uncertainty import NORMAL_95, of_groups, of_rows

# The percentiles of llama.cpp's table.
KL_AT = (100, 99.9, 99, 95, 90, 50, 10, 5, 1, 0)
CHANGE_AT = (100, 99.9, 99, 95, 90, 75, 50, 25, 10, 5, 1, 0.1, 0)


@dataclass(frozen=True)
class Mean:
    """A mean over rows and its standard error."""

    mean: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        return self.mean - NORMAL_95 * self.error, self.mean + NORMAL_95 * self.error


@dataclass(frozen=True)
class Comparison:
    """What `xent.compare` tells; losses and divergences in `unit`, changes of probability as such.

    Differences are new less base.
    """

    base: str
    new: str
    target: str
    kinds: tuple[str, str]
    classes: int
    rows: int
    ignored: int
    skipped: int
    unit: str
    base_loss: Mean
    new_loss: Mean
    difference: Mean  # of the losses, row by row
    interval: tuple[float, float]  # of the difference, 95 %
    error_of: str  # "rows" or "groups"
    correlation: float  # of the two losses
    kl: Mean  # of the new distribution from the base's
    kl_at: dict[float, float]  # by percentile
    change: Mean  # of the target's probability
    change_at: dict[float, float]
    change_rms: Mean
    same_top: Mean  # the share of rows with the same likeliest class
    base_perplexity: Mean
    new_perplexity: Mean
    ratio: Mean  # of the perplexities
    perplexity_difference: Mean
    base_accuracy: float
    new_accuracy: float
    bad: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as numbers, lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        from xent.evaluation.report import comparison_text

        return comparison_text(self)


def comparison(
    options: dict[str, Any], tick: Callable[[int, int, int], object] | None
) -> Comparison:
    """The comparison that `xent.compare` is asked for by its arguments."""
    asked = SimpleNamespace(**options)
    checks.option("compare", "unit_base", asked.unit_base, asked.unit_base in UNITS, "None or 2")
    sparse = asked.kind == "top-k" or any(
        files.members(given) == {"indices", "values"} for given in (asked.base, asked.new)
    )
    checks.option(
        "compare",
        "kind",
        "top-k" if sparse else asked.kind,
        not sparse,
        "one with all classes: the divergence depends on what top-k leaves out",
    )
    checks.option("compare", "chunk_mb", asked.chunk_mb, asked.chunk_mb > 0, "a number above 0")
    way = passes.way(asked.chunk_mb, tick)
    first = predictions("compare", asked.base, asked.axis, asked.kind)
    other = predictions("compare", asked.new, asked.axis, asked.kind)
    checks.same_shape("compare", other.name, other.numbers.shape, first.name, first.numbers.shape)
    labels = column("compare", asked.target, first, "fiu", asked.ignore_index)
    rows_of = groups("compare", asked.group, first)
    pair = Pair(first, other, labels, rows_of, way.piece_rows(first.classes))
    totals, bad = _run(pair, way, asked.skip_bad)
    scalars = dict(zip(divergence.SCALARS, map(float, totals["scalars"]), strict=True))
    if not scalars["kept"]:
        checks.no_rows("compare", labels.name, int(scalars["ignored"]), int(scalars["skipped"]))
    return _result(pair, totals, scalars, bad if asked.skip_bad else [], asked.unit_base)


def _run(pair: Pair, way: passes.Way, skip_bad: bool) -> tuple[Totals, list[checks.Bad]]:
    """The totals of all processes, and the broken rows; the first is raised where asked for."""
    totals, bad = Totals(), []
    first = pair.base
    width = 2 * first.classes * first.numbers.array.itemsize
    for one in passes.over(first.count, first.classes, width, way, pair.block):
        totals.add(one.sums)
        for name, size, places, values in one.at:
            (totals.put if name in divergence.OF_ROWS else totals.add_at)(
                name, size, places, values
            )
        bad = sorted([*bad, *one.bad])[: divergence.MOST_BAD]
        if bad and not skip_bad:
            break
    if processes.world()[1] == 1:
        every, found = totals, bad
    else:
        every, found = _shared(totals, bad)
    if found and not skip_bad:
        checks.broken("compare", found[0])
    return every, found


def _shared(totals: Totals, bad: list[checks.Bad]) -> tuple[Totals, list[checks.Bad]]:
    """What all processes found, the same in each of them."""
    import json

    every, found = Totals(), []
    for data in processes.gathered(totals.as_bytes()):
        every.add_bytes(data)
    for data in processes.gathered(json.dumps(bad).encode()):
        found += [checks.Bad(*row) for row in json.loads(data)]
    return every, sorted(found)


def _result(
    pair: Pair, totals: Totals, s: dict[str, float], bad: list[checks.Bad], base: int | None
) -> Comparison:
    unit, scale = UNITS[base]
    n = s["kept"]

    def mean(name: str, by: float = 1.0) -> Mean:
        value = math.inf if s[f"{name} infinite"] else s[name] / n
        squares = n, s[name], s[f"{name}2"]
        error = of_rows(n, n, s[name], squares) if math.isfinite(value) else math.nan
        return Mean(value / by, error / by)

    one, two, difference = mean("base"), mean("new"), mean("difference")
    by = "rows"
    if pair.groups is not None:
        by = "groups"
        difference = Mean(
            difference.mean, of_groups(totals["group rows"], totals["group difference"])
        )
    kept = totals["row kept"] > 0
    kl, change = totals["row kl"][kept], totals["row change"][kept]
    rms = math.sqrt(s["change2"] / n)
    rms_error = of_rows(n, n, s["change2"], (n, s["change2"], s["change4"]))
    shared = _covariance(s, "base", "new", "product") / n
    return Comparison(
        base=pair.base.name,
        new=pair.new.name,
        target=pair.target.name,
        kinds=(pair.base.kind, pair.new.kind),
        classes=pair.base.classes,
        rows=int(s["rows"]),
        ignored=int(s["ignored"]),
        skipped=int(s["skipped"]),
        unit=unit,
        base_loss=Mean(one.mean / scale, one.error / scale),
        new_loss=Mean(two.mean / scale, two.error / scale),
        difference=Mean(difference.mean / scale, difference.error / scale),
        interval=Mean(difference.mean / scale, difference.error / scale).interval,
        error_of=by,
        correlation=_correlation(s),
        kl=mean("kl", scale),
        kl_at={q: v / scale for q, v in _percentiles(kl, KL_AT).items()},
        change=mean("change"),
        change_at=_percentiles(change, CHANGE_AT),
        change_rms=Mean(rms, rms_error / (2 * rms) if rms else 0.0),
        same_top=Mean(
            s["same"] / n, math.sqrt(s["same"] / n * (1 - s["same"] / n) / max(1, n - 1))
        ),
        base_perplexity=_exp(one),
        new_perplexity=_exp(two),
        ratio=_exp(difference),
        perplexity_difference=_perplexity_difference(one, two, shared),
        base_accuracy=s["base right"] / n,
        new_accuracy=s["new right"] / n,
        bad=[str(row) for row in bad],
    )


def _exp(log: Mean) -> Mean:
    """The exponential of a mean, and its error to first order."""
    value = math.exp(log.mean) if log.mean < 709 else log.mean and math.inf
    return Mean(value, value * log.error if math.isfinite(value) else math.nan)


def _perplexity_difference(one: Mean, two: Mean, covariance: float) -> Mean:
    a, b = _exp(one).mean, _exp(two).mean
    if not (math.isfinite(a) and math.isfinite(b)):
        return Mean(math.nan, math.nan)
    spread = (a * one.error) ** 2 + (b * two.error) ** 2 - 2 * a * b * covariance
    return Mean(b - a, math.sqrt(max(0.0, spread)))


def _covariance(s: dict[str, float], a: str, b: str, product: str) -> float:
    """Of two quantities over rows."""
    n = s["kept"]
    return (s[product] - s[a] * s[b] / n) / max(1, n - 1)


def _correlation(s: dict[str, float]) -> float:
    spread = _covariance(s, "base", "base", "base2") * _covariance(s, "new", "new", "new2")
    if s["base infinite"] or s["new infinite"] or spread <= 0:
        return math.nan
    return min(1.0, _covariance(s, "base", "new", "product") / math.sqrt(spread))


def _percentiles(values: np.ndarray, at: tuple[float, ...]) -> dict[float, float]:
    """Linear between the two nearest rows; inf where one of them is."""
    ordered = np.sort(values)
    told = {}
    for q in at:
        place = q / 100 * (len(ordered) - 1)
        low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
        part = place - math.floor(place)
        told[q] = low if low == high or part == 0 else low + part * (high - low)
    return told
