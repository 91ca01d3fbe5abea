"""The steps from the logits to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xent import info, reduction
from xent.explanation import formulas
from xent.explanation.batch import Array, Batch
from xent.explanation.digits import computed, given, signed
from xent.explanation.formulas import Formula
from xent.explanation.record import Step, Table
from xent.explanation.tables import by_class, left_out
from xent.explanation.told import Told
from xent.explanation.words import Words
from xent.inputs import dtype_name

MOST_TERMS = 12  # of a sum over rows that is written out


def steps(batch: Batch, told: Told, words: Words) -> list[Step]:
    """All steps forward."""
    found = [_logits(batch, told, words)]
    if batch.spec.softcap is not None or batch.spec.logit_scale != 1:
        found.append(_transform(batch, told, words))
    if len(told.row):
        found += _softmax(batch, told, words)
        found.append(_measure(batch, told, words))
    return [
        *found,
        _row_loss(batch, told, words),
        _denominator(batch, words),
        _loss(batch, words),
    ]


def make(
    name: str,
    words: Words,
    formula: Formula,
    values: Mapping[str, Any],
    text: str = "",
    **more: Any,
) -> Step:
    """A step whose title, and text where none is given, are those of its name."""
    arrays = {key: np.asarray(value) for key, value in values.items()}
    return Step(
        name=name,
        part=more.pop("part", "forward"),
        title=words(f"{name}.title"),
        formula=formula.plain,
        latex=formula.latex,
        text=text or words(f"{name}.text"),
        values=arrays,
        **more,
    )


def named(batch: Batch, told: Told, terms: list[str]) -> tuple[str, ...]:
    """A line for each row, named where there are several."""
    if batch.count == 1:
        return tuple(terms)
    return tuple(f"[{batch.label(int(r))}] {t}" for r, t in zip(told.row, terms, strict=True))


def _logits(batch: Batch, told: Told, words: Words) -> Step:
    kind = "indices" if batch.codes is not None else "probabilities"
    dtype = dtype_name(batch.rows.logits)
    text = words(f"input.{kind}", rows=batch.count, classes=batch.classes, dtype=dtype)
    ignored = [row for row in told.index if not batch.kept[row]]
    table = by_class(batch, told, words, told.x, own=True)
    if batch.codes is not None:
        told_target = [str(int(c)) for c in (told.codes if told.codes is not None else [])]
        lines = [(*line, y) for line, y in zip(table.rows, told_target, strict=True)]
        blank = ("",) * len(told.columns)
        lines += [(batch.label(int(row)), *blank, words("ignored")) for row in ignored]
        lines.sort(key=lambda line: _place(batch, told, line[0]))
        marked = _moved(lines, table)
        table = Table((*table.header, words("target")), tuple(lines), marked)
    values = {"row": told.row, "logits": told.x}
    if told.codes is not None:
        values["target"] = told.codes
    notes = left_out(batch, told, words)
    formula = formulas.logits(batch)
    return make("input", words, formula, values, text, table=table, notes=notes)


def _place(batch: Batch, told: Told, label: str) -> int:
    return [batch.label(int(row)) for row in told.index].index(label)


def _moved(lines: list[tuple[str, ...]], table: Table) -> frozenset[tuple[int, int]]:
    """The marks of a table after lines came between its own."""
    new = {line[0]: i for i, line in enumerate(lines)}
    return frozenset((new[table.rows[r][0]], column) for r, column in table.marked)


def _transform(batch: Batch, told: Told, words: Words) -> Step:
    spec = batch.spec
    scale = given(spec.logit_scale)
    if spec.softcap is None:
        formula = formulas.SCALE
        text = words("transform.scale", scale=scale, temperature=given(1 / spec.logit_scale))
    else:
        formula = formulas.SOFTCAP
        text = words("transform.softcap", scale=scale, cap=given(spec.softcap))
    table = by_class(batch, told, words, told.u)
    values = {"row": told.row, "u": told.u}
    return make("transform", words, formula, values, text, table=table)


def _softmax(batch: Batch, told: Told, words: Words) -> list[Step]:
    """From the shift to the probabilities."""

    def entries(name: str, formula: Formula, symbol: str, values: Array, **more: Array) -> Step:
        table = by_class(batch, told, words, values, more)
        arrays = {"row": told.row, symbol: values, **more}
        return make(name, words, formula, arrays, table=table)

    return [
        entries("shift", formulas.SHIFT, "z", told.z, max=told.top),
        entries("exponentials", formulas.EXPONENTIALS, "e", told.e),
        *_sums(batch, told, words),
        entries("log_probabilities", formulas.LOG_PROBABILITIES, "log_p", told.log_p),
        entries("probabilities", formulas.PROBABILITIES, "p", told.p),
    ]


def _sums(batch: Batch, told: Told, words: Words) -> list[Step]:
    """The sum of the exponentials and its logarithm, written out."""
    hidden = batch.classes - len(told.columns)
    sums, logs = [], []
    for r in range(len(told.row)):
        shown = told.e[r, told.columns]
        terms = [computed(v) for v in shown]
        if hidden:
            rest = told.total[r] - shown.sum()
            terms.append(computed(max(rest, 0.0)) if np.isfinite(rest) else computed(rest))
        total = computed(told.total[r])
        sums.append(f"S = {signed(terms)} = {total}")
        logs.append(f"lse = {computed(told.top[r])} + log {total} = {computed(told.lse[r])}")
    notes = (words("sum.rest", others=f"{hidden:,}"),) if hidden else ()
    of_sum, of_lse = ({"row": told.row, k: v} for k, v in (("S", told.total), ("lse", told.lse)))
    worked = named(batch, told, sums)
    return [
        make("sum", words, formulas.SUM, of_sum, worked=worked, notes=notes),
        make("lse", words, formulas.LSE, of_lse, worked=named(batch, told, logs)),
    ]


def _measure(batch: Batch, told: Told, words: Words) -> Step:
    spec = batch.spec
    text = [words("measure.soft" if batch.codes is None else "measure.index")]
    if spec.label_smoothing:
        part = computed(spec.label_smoothing / batch.classes)
        text.append(words("measure.smoothing", smoothing=given(spec.label_smoothing), part=part))
    values = {"row": told.row, "t": told.t, "m": told.mass}
    if batch.weight is not None:
        text.append(words("measure.weight"))
        values["weight"] = batch.weight
    table = by_class(batch, told, words, told.t, {words("mass"): told.mass})
    formula = formulas.target(batch)
    return make("measure", words, formula, values, " ".join(text), table=table)


def _row_loss(batch: Batch, told: Told, words: Words) -> Step:
    terms = [_written_out(batch, told, r) for r in range(len(told.row))]
    worked = dict(zip(told.row.tolist(), named(batch, told, terms), strict=True))
    for row in told.index[~batch.kept[told.index]].tolist():
        worked[row] = f"[{batch.label(row)}] {words('row_loss.ignored')}"
    text = words("row_loss.text")
    if batch.spec.z_loss:
        text += " " + words("row_loss.z", z=given(batch.spec.z_loss))
    values = {"row": told.row, "loss": told.loss, "losses": batch.losses}
    lines = tuple(worked[row] for row in told.index.tolist())
    return make("row_loss", words, formulas.row_loss(batch), values, text, worked=lines)


def _written_out(batch: Batch, told: Told, r: int) -> str:
    """The loss of a row as the sum of its terms; those of classes not shown are one."""
    t, log_p, loss = told.t[r], told.log_p[r], told.loss[r]
    shown = [int(c) for c in told.columns if t[c] != 0]
    terms = [f"{computed(t[c])} × {computed(0.0 - log_p[c])}" for c in shown]
    if len(terms) == 1 and t[shown[0]] == 1:
        terms = (
            [f"{computed(0.0 - log_p[shown[0]])}"]
            if batch.spec.z_loss
            else [f"-({computed(log_p[shown[0]])})"]
        )
    hidden = np.setdiff1d(np.flatnonzero(t), told.columns)
    if len(hidden):
        terms.append(computed(-(t[hidden] * log_p[hidden]).sum()))
    if batch.spec.z_loss:
        z, weight = given(batch.spec.z_loss), computed(told.weight[r])
        lse = computed(told.lse[r])
        terms.append(f"{z} × {weight} × {f'({lse})' if told.lse[r] < 0 else lse}²")
    return f"loss = {signed(terms) or '0'} = {computed(loss)}"


def _denominator(batch: Batch, words: Words) -> Step:
    divisor, weight = batch.denominator, batch.row_weight
    values: dict[str, Any] = {"weight": weight, "kept": batch.kept}
    worked: tuple[str, ...] = ()
    if divisor is None:
        text = words("denominator.none")
    elif batch.normalizer is not None:
        text, worked = words("denominator.given"), (f"D = {given(divisor)}",)
    elif batch.codes is None:
        text, worked = words("denominator.soft"), (f"D = {given(divisor)}",)
    else:
        text = words("denominator.mean", ignore_index=batch.spec.ignore_index)
        worked = (f"D = {_sum_of(weight, divisor, given)}",)
    if divisor == 0:
        text += " " + words("denominator.zero")
    ignored = batch.count - int(batch.kept.sum())
    values["D"] = 1.0 if divisor is None else divisor
    told = words("denominator.ignored", ignored=f"{ignored:,}", rows=f"{batch.count:,}")
    notes = (told,) if ignored else ()
    formula = formulas.denominator(batch)
    return make("denominator", words, formula, values, text, worked=worked, notes=notes)


def _sum_of(values: Array, total: float, written: Any) -> str:
    """A sum written out where that is short; else its first terms."""
    if len(values) == 1:
        return written(total)
    terms = [written(v) for v in values[:MOST_TERMS]]
    if len(values) > MOST_TERMS:
        terms = [*terms[:4], "..."]
    return f"{signed(terms)} = {written(total)}"


def _loss(batch: Batch, words: Words) -> Step:
    values = {"sum": batch.total, "loss": batch.loss}
    formula = formulas.loss(batch)
    if reduction.keeps_rows(batch.spec.reduction):
        return make("loss", words, formula, values, words("loss.none"))
    loss, divisor = float(batch.loss), batch.denominator
    with np.errstate(all="ignore"):
        bits = computed(float(info.to_bits(np.asarray(loss))))
    if divisor is None:
        text = words("loss.sum", bits=bits)
        worked = f"L = {_sum_of(batch.losses, loss, computed)}"
    else:
        values["D"] = divisor
        text = words("loss.mean", bits=bits)
        summed = _sum_of(batch.losses, batch.total, computed)
        top = f"({summed.rpartition(' = ')[0]})" if batch.count > 1 else summed
        if batch.count > MOST_TERMS:
            top = computed(batch.total)
        worked = f"L = {top} / {given(divisor)} = {computed(loss)}"
    return make("loss", words, formula, values, text, worked=(worked,))
