"""Why the shift is safe, and what naive formulas give in formats of 16 and 32 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xent.conformance.draws import rounded
from xent.explanation import formulas
from xent.explanation.batch import Array, Batch
from xent.explanation.digits import cells, computed, given
from xent.explanation.forward import make
from xent.explanation.record import Step, Table
from xent.explanation.told import Told
from xent.explanation.words import Words
from xent.functional import cross_entropy

FORMATS = ("float16", "bfloat16", "float32")
SHIFT, STRETCH = 100.0, 200.0  # past what exp can take and give in float32
MOST_COLUMNS = 5  # of probabilities beside their sum
AHEAD = 17.0  # exp(-17) is nothing beside 1 in float32, and still a number in float16

Round = Callable[[Array], Array]


def steps(batch: Batch, told: Told, words: Words) -> list[Step]:
    """The two steps, of the first row shown; none where no row takes part."""
    if not len(told.row):
        return []
    return [_shift_is_safe(batch, told, words), _naive(batch, told, words)]


def _shift_is_safe(batch: Batch, told: Told, words: Words) -> Step:
    u, top = told.u[told.example], float(told.top[told.example])
    shifts = np.array([0.0, -top if np.isfinite(top) else 0.0, 1000.0])
    with np.errstate(all="ignore"):
        e = np.exp(u + shifts[:, None])
        sums = e.sum(axis=1)
        p = e / sums[:, None]
    columns = told.columns[:MOST_COLUMNS]
    names = [f"p_{int(c)}" for c in columns]
    marked = [given(a) for a in shifts]
    marked[1] += " (-max)"
    lines = [
        (name, computed(s), *cells(row))
        for name, s, row in zip(marked, sums, p[:, columns], strict=True)
    ]
    table = Table(("a", "Σ exp(u_c + a)", *names), tuple(lines))
    text = words("shift_is_safe.text", row=batch.label(int(told.row[told.example])))
    values = {"a": shifts, "sum": sums, "p": p, "softmax": told.p[told.example]}
    return make(
        "shift_is_safe",
        words,
        formulas.SHIFT_IS_SAFE,
        values,
        text,
        table=table,
        part="numerics",
    )


def naive_losses(u: Array, t: Array, name: str) -> Array:
    """(4,) loss by exp without a shift, log Σ exp - u, log of a shifted softmax, and by xent.

    Every operation is rounded to the format, and the sums once; xent's is rounded at its end. A
    class without a target takes no part, so that no 0 * inf comes in.
    """

    def r(values: Array) -> Array:
        return rounded(values, name)

    with np.errstate(all="ignore"):
        x, asked = r(u), t != 0
        e = r(np.exp(x))
        total = r(e.sum())
        plain = r(-np.log(r(e / total)))
        log = r(r(np.log(total)) - x)
        z = r(x - x.max())
        e = r(np.exp(z))
        shifted = r(-np.log(r(e / r(e.sum()))))
        found = [r(r(t[asked] * loss[asked]).sum()) for loss in (plain, log, shifted)]
        right = cross_entropy(x, t, reduction="sum")
    return np.array([*(float(v) for v in found), float(r(np.asarray(right)))])


def _naive(batch: Batch, told: Told, words: Words) -> Step:
    u, t = told.u[told.example], told.t[told.example]
    ways = {
        words("naive.given"): u,
        words("naive.raised", by=given(SHIFT)): u + SHIFT,
        words("naive.lowered", by=given(STRETCH)): u - STRETCH,
        words("naive.stretched", by=given(STRETCH)): u * STRETCH,
    }
    notes = [words("naive.limits")]
    if told.codes is not None and batch.classes > 1 and not batch.spec.label_smoothing:
        ways[words("naive.ahead", by=given(AHEAD))] = _ahead(u, int(told.codes[told.example]))
        notes.append(words("naive.ahead.text", by=given(AHEAD)))
    lines, found = [], np.empty((len(ways), len(FORMATS), 4))
    for i, (name, logits) in enumerate(ways.items()):
        for j, kind in enumerate(FORMATS):
            found[i, j] = naive_losses(logits, t, kind)
            lines.append((name if j == 0 else "", kind, *cells(found[i, j])))
    columns = "softmax.plain", "softmax.log", "softmax.shift"
    header = (words("logits"), words("format"), *(words(c) for c in columns), "xent")
    text = words("naive.text", row=batch.label(int(told.row[told.example])))
    values = {"logits": np.stack(list(ways.values())), "losses": found}
    return make(
        "naive",
        words,
        formulas.NAIVE,
        values,
        text,
        table=Table(header, tuple(lines)),
        notes=tuple(notes),
        part="numerics",
    )


def _ahead(u: Array, target: int) -> Array:
    """The logits with the target's above all others."""
    moved = u.copy()
    moved[target] = np.delete(u, target).max() + AHEAD
    return moved
