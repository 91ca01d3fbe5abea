"""How the losses of rows become the result: the one place of none, sum and mean.

mean = sum_n loss_n / D. With class indices D is the weight of the kept rows, the sum of
weight[target_n]; with class probabilities it is the number of rows, as in torch. `normalizer` takes
the place of D.
"""

from __future__ import annotations

from typing import Any

REDUCTIONS = ("none", "sum", "mean")
NOTHING, GIVEN, ROW_WEIGHT = range(3)  # what divides: for a kernel, which takes no names


def divides(reduction: str) -> bool:
    """Whether a reduction has a denominator."""
    return reduction == "mean"


def divided_by(reduction: str, normalizer: Any) -> int:
    """What the sum over rows is divided by: NOTHING, a GIVEN number or the ROW_WEIGHT."""
    if not divides(reduction):
        return NOTHING
    return ROW_WEIGHT if normalizer is None else GIVEN


def keeps_rows(reduction: str) -> bool:
    """Whether the result has a loss for each row."""
    return reduction == "none"


def row_weight(xp: Any, rows: Any) -> Any:
    """(N, D) weight of each row in a mean: that of its class, 0 where the row is ignored."""
    work, shape = rows.work, rows.logits.shape[:2]
    if not rows.indexed:
        return xp.ones(shape, dtype=work, device=rows.device)
    if rows.weight is None:
        return xp.astype(rows.target >= 0, work)
    if rows.weight.shape[0] == 0:
        return xp.zeros(shape, dtype=work, device=rows.device)
    kept = xp.where(rows.target >= 0, rows.target, 0)
    weight = xp.astype(rows.weight, work)
    chosen = xp.take(weight, xp.reshape(kept, (-1,)), axis=0)
    return xp.where(rows.target >= 0, xp.reshape(chosen, shape), 0.0)


def denominator(rows: Any, weight: Any, reduction: str, normalizer: Any, total: Any) -> Any:
    """What the sum over rows is divided by: None where nothing is."""
    if not divides(reduction):
        return None
    if normalizer is not None:
        return normalizer
    if rows.indexed:
        return total(weight)
    # A mean over rows without classes is NaN in torch: it divides by N V / V.
    return weight.shape[0] * weight.shape[1] if rows.logits.shape[-1] else float("nan")


def reduce(xp: Any, loss: Any, divisor: Any, reduction: str, total: Any) -> Any:
    """The result from the (N, D) losses of the rows: the same losses, their sum or their mean."""
    if keeps_rows(reduction):
        return loss
    summed = total(loss)
    return summed if divisor is None else divide(xp, summed, divisor)


def row_scale(xp: Any, upstream: Any, divisor: Any, like: Any) -> Any:
    """(N, D) derivative of the result by each row's loss, times `upstream`."""
    if divisor is not None:
        upstream = divide(xp, upstream, divisor)
    return upstream + xp.zeros_like(like)


def divide(xp: Any, dividend: Any, divisor: Any) -> Any:
    """dividend / divisor as arrays divide: 0 / 0 is NaN and no error."""
    if isinstance(divisor, type(dividend)):  # an array; no number, nor a symbol for one
        divisor = xp.astype(divisor, dividend.dtype)
    return dividend / divisor
