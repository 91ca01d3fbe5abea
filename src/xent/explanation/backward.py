"""The steps from the loss back to the logits."""

from __future__ import annotations

import numpy as np

from xent import reduction
from xent.explanation import formulas
from xent.explanation.batch import Array, Batch
from xent.explanation.digits import cells, computed
from xent.explanation.forward import make
from xent.explanation.record import Step, Table
from xent.explanation.tables import by_class, header, marks
from xent.explanation.told import Told
from xent.explanation.words import Words

MOST_CLASSES = 8  # of a Jacobian that is written out


def steps(batch: Batch, told: Told, words: Words) -> list[Step]:
    """All steps backward."""
    if not len(told.row):
        return [_gradient(batch, told, words)]
    found = [_row_gradient(batch, told, words), _gradient(batch, told, words)]
    if 1 < batch.classes <= MOST_CLASSES:
        found.append(_jacobian(batch, told, words))
    return found


def _row_gradient(batch: Batch, told: Told, words: Words) -> Step:
    values = {"row": told.row, "p": told.p, "t": told.t, "m": told.mass, "du": told.du}
    text = words("row_gradient.text")
    if not batch.spec.z_loss:
        text += " " + words("row_gradient.sums")
    table = by_class(batch, told, words, told.du)
    formula = formulas.row_gradient(batch)
    worked = _written_out(batch, told)
    return make(
        "row_gradient", words, formula, values, text, table=table, worked=worked, part="backward"
    )


def _written_out(batch: Batch, told: Told) -> tuple[str, ...]:
    """m p - t of the first row, number by number."""
    if batch.spec.z_loss:
        return ()
    lines = []
    mass = "" if told.mass[told.example] == 1 else f"{computed(told.mass[told.example])} × "
    for c in told.columns[: min(4, len(told.columns))]:
        p, t, du = (computed(a[told.example, c]) for a in (told.p, told.t, told.du))
        lines.append(f"∂loss / ∂u_{int(c)} = {mass}{p} - {t} = {du}")
    return (
        (f"[{batch.label(int(told.row[told.example]))}]", *lines)
        if batch.count > 1
        else tuple(lines)
    )


def _gradient(batch: Batch, told: Told, words: Words) -> Step:
    divided = reduction.divides(batch.spec.reduction)
    text = words("gradient.mean" if divided else "gradient.sum")
    kept = batch.kept[told.index]
    if not kept.all():
        text += " " + words("gradient.ignored")
    columns = told.columns
    crowded = len(columns) < batch.classes
    lines = []
    for i, row in enumerate(told.index.tolist()):
        line = cells(told.gradient[i, columns])
        scale = () if crowded else (computed(float(batch.scale[row])),)
        lines.append((batch.label(row), *line, *scale))
    place = np.flatnonzero(kept)
    marked = frozenset((int(place[r]), c) for r, c in marks(told))
    more = () if crowded else (words("scale"),)
    table = Table((*header(batch, told, words), *more), tuple(lines), marked)
    values = {
        "row": told.index,
        "gradient": told.gradient,
        "scale": batch.scale[told.index],
        "slope": told.slope,
    }
    formula = formulas.gradient(batch)
    return make("gradient", words, formula, values, text, table=table, part="backward")


def _jacobian(batch: Batch, told: Told, words: Words) -> Step:
    p, t = told.p[told.example], told.t[told.example]
    jacobian = np.diag(p) - np.outer(p, p)
    with np.errstate(all="ignore"):
        by_p = np.where(t == 0, 0.0, -t / p)
        product = jacobian @ by_p
    names = [str(int(c)) for c in range(batch.classes)]
    lines = [(name, *cells(jacobian[i])) for i, name in enumerate(names)]
    lines.append((words("jacobian.product"), *cells(product)))
    table = Table(("i, j", *names), tuple(lines))
    values: dict[str, Array] = {"p": p, "jacobian": jacobian, "by_p": by_p, "product": product}
    return make(
        "jacobian",
        words,
        formulas.JACOBIAN,
        values,
        words("jacobian.text", row=batch.label(int(told.row[told.example]))),
        table=table,
        part="backward",
    )
