"""The numbers of the rows that are shown, from the formulas that every loss of xent is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xent.backends import numpy as reference
from xent.explanation.batch import Array, Batch
from xent.inputs import namespace
from xent.ops import rows as ops


@dataclass(frozen=True)
class Told:
    """Shown rows; all arrays but `index` and `gradient` are of those of them that take part, R."""

    index: Array  # (I,) the rows shown, the ignored among them
    row: Array  # (R,) those that take part
    columns: Array  # the classes shown
    codes: Array | None  # (R,) class indices
    x: Array  # (R, V) logits
    u: Array  # (R, V) transformed
    slope: Array  # (R, V) du/dx
    top: Array  # (R,) max u
    z: Array  # (R, V) u - top
    e: Array  # (R, V) exp(z)
    total: Array  # (R,) sum of e
    lse: Array  # (R,)
    log_p: Array  # (R, V)
    p: Array  # (R, V)
    t: Array  # (R, V) target measure
    mass: Array  # (R,) its sum
    weight: Array  # (R,) in a mean
    loss: Array  # (R,)
    du: Array  # (R, V) derivative of the row's loss by u
    gradient: Array  # (I, V) derivative of the result by the logits

    @property
    def example(self) -> int:
        """Which of the rows that take part serves where one is enough: the first unbroken one."""
        return int(np.isfinite(self.loss).argmax())


def chosen(batch: Batch, rows: int) -> Array:
    """The rows to show: all, or those of the largest loss; NaN is the worst."""
    return np.arange(batch.count) if batch.count <= rows else worst(batch, rows)


def worst(batch: Batch, count: int) -> Array:
    """Rows that take part by falling loss, NaN first."""
    height = np.where(np.isnan(batch.losses), np.inf, batch.losses)
    height[~batch.kept] = -np.inf
    first = np.lexsort((~np.isnan(batch.losses), -height))
    return first[: min(count, int(batch.kept.sum()))]


def told(batch: Batch, index: Array, classes: int) -> Told:
    """Everything about the rows to show."""
    kept = batch.kept[index]
    row = index[kept]
    x, target = (np.zeros((0, batch.classes)), None) if len(row) == 0 else batch.take(row)
    codes = None if batch.codes is None else batch.codes[row]
    xp, spec = namespace(x), batch.spec
    with reference.quiet():
        shifted = ops.shift(xp, x, logit_scale=spec.logit_scale, softcap=spec.softcap)
        tail = ops.tail_of(xp, shifted)
        plain = spec.softcap is None and spec.logit_scale == 1
        u = x if plain else shifted.top[:, None] + shifted.high
        t = _measure(batch, target, codes, x.shape)
        p = np.asarray(shifted.probabilities(xp, tail))
        lse = np.where(np.isinf(shifted.top), shifted.top, shifted.top + np.log1p(tail))
        by_u, gradient = np.zeros_like(x), np.zeros((len(index), batch.classes))
        if target is not None:
            untransformed = {"softcap": None, "logit_scale": 1.0}
            by_u = batch.row_gradient(u, target, np.ones(len(row)), **untransformed)
            gradient[kept] = batch.row_gradient(x, target, batch.scale[row])
        return Told(
            index=index,
            row=row,
            columns=_columns(p, codes, classes),
            codes=codes,
            x=x,
            u=u,
            slope=np.broadcast_to(shifted.slope, x.shape),
            top=np.asarray(shifted.top),
            z=np.asarray(shifted.high),
            e=np.asarray(shifted.exponentials(xp)),
            total=1 + np.asarray(tail),
            lse=lse,
            log_p=0.0 - np.asarray(ops.surprisal(xp, shifted, tail)),
            p=p,
            t=t,
            mass=t.sum(axis=1),
            weight=batch.row_weight[row],
            loss=batch.losses[row],
            du=by_u,
            gradient=gradient,
        )


def _measure(
    batch: Batch, target: Array | None, codes: Array | None, shape: tuple[int, ...]
) -> Array:
    """(R, V) the target with label smoothing and class weights in it."""
    smoothing = batch.spec.label_smoothing
    if target is None:
        return np.zeros(shape)
    q = target if codes is None else (np.arange(shape[1]) == codes[:, None]).astype(np.float64)
    t = (1 - smoothing) * q + smoothing / shape[1] if smoothing else q
    return t if batch.weight is None else batch.weight * t


def _columns(p: Array, codes: Array | None, most: int) -> Array:
    """The classes to show: all, or the targets and then the likeliest of each row in turn."""
    classes = p.shape[1]
    if classes <= most:
        return np.arange(classes)
    found: dict[int, None] = {} if codes is None else dict.fromkeys(int(c) for c in codes)
    known = np.where(np.isnan(p), -1.0, p)
    likely = np.argpartition(-known, most - 1, axis=1)[:, :most]
    order = np.take_along_axis(likely, np.argsort(-np.take_along_axis(known, likely, 1), 1), 1)
    found.update(dict.fromkeys(int(c) for c in order.T.reshape(-1)))
    found.update(dict.fromkeys(range(most)))  # rows of NaN, or no rows at all
    return np.sort(np.fromiter(found, dtype=np.int64)[:most])
