"""A block of logits made ready for any softmax: transformed, and shifted by its largest entry.

With u the transformed logits, k = argmax u, m = u_k and tail s = sum over c != k of exp(u_c - m):

    p_c         = exp(u_c - m) / (1 + s)
    surprisal_c = -log p_c = log1p(s) - (u_c - m)        both terms >= 0: nothing cancels
    1 - p_k     = s / (1 + s)

The transform is u = logit_scale x, or softcap tanh(logit_scale x / softcap). Where logits come in
the dtype computed in, u - m is kept as two numbers: its rounding error of half a unit in the last
place would be |u - m| / 2 units in the last place of exp(u - m).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xent.ops.exact import difference, product, row_sum, take_last, working_dtype


class Row(NamedTuple):
    """A block of rows, transformed and shifted: all that the derivatives need of the logits."""

    k: Any  # (R,) argmax
    top: Any  # (R,) largest transformed logit
    high: Any  # (R, V) u - top, rounded
    low: Any  # (R, V) what rounding lost of it, or None
    at_k: Any  # (R, V) bool, true at the argmax
    slope: Any  # (R, V) du/dx, or a number

    def exponentials(self, xp: Any) -> Any:
        """(R, V) exp(u - top)."""
        e = xp.exp(self.high)
        return e if self.low is None else e + e * self.low

    def probabilities(self, xp: Any, tail: Any) -> Any:
        """(R, V) softmax."""
        return self.exponentials(xp) / (1 + tail)[:, None]


def shift(
    xp: Any, x: Any, k: Any = None, *, logit_scale: float = 1.0, softcap: float | None = None
) -> Row:
    """Transform a block of logits and take its largest entry off; `k` where it is known."""
    work = working_dtype(xp, x)
    wider = x.dtype != work
    x = xp.astype(x, work)
    if k is None:
        k = xp.argmax(x, axis=1)  # before the softcap, in which large logits become equal
    slope: Any = logit_scale
    if softcap is not None:
        scaled = x * (logit_scale / softcap)
        small = xp.exp(-2 * magnitude(xp, scaled))
        slope = 4 * logit_scale * small / (1 + small) ** 2  # 1 - tanh^2 without cancellation
        x = softcap * xp.tanh(scaled)
    top = take_last(xp, x, k)
    high, low = (x - top[:, None], None) if wider else difference(xp, x, top[:, None])
    if softcap is None and logit_scale != 1:
        top = top * logit_scale
        if low is None:
            high = high * logit_scale
        else:
            high, lost = product(xp, high, logit_scale)
            low = low * logit_scale + lost
    at_k = xp.arange(x.shape[1], device=x.device)[None, :] == k[:, None]
    return Row(k, top, high, low, at_k, slope)


def tail_of(xp: Any, row: Row) -> Any:
    """(R,) sum of exp(u - top) over all but the largest; NaN where a row has no finite largest."""
    others = row_sum(xp, xp.where(row.at_k, 0.0, row.exponentials(xp)))
    return others + take_last(xp, row.high, row.k)  # top - top: 0, or NaN for an infinite top


def surprisal(xp: Any, row: Row, tail: Any) -> Any:
    """(R, V) -log p."""
    log_sum = xp.log1p(tail)[:, None]
    return (log_sum if row.low is None else log_sum - row.low) - row.high


def surprisal_at(xp: Any, row: Row, tail: Any, index: Any) -> Any:
    """(R,) -log p of one entry of each row."""
    log_sum = xp.log1p(tail)
    low = 0.0 if row.low is None else take_last(xp, row.low, index)
    return (log_sum - low) - take_last(xp, row.high, index)


def magnitude(xp: Any, values: Any) -> Any:
    """|values|, whose derivative at 0 is -1 and not 0, as that of abs is: what is smooth in values
    but written with |values| then has its right derivatives at 0 too."""
    return xp.where(values > 0, values, -values)


def weighted(xp: Any, measure: Any, values: Any) -> Any:
    """measure * values, where 0 times an infinite value is 0."""
    # The value is masked, not the product: the product's derivatives stay those of a product, and
    # the derivative of the masked 0 * inf is no NaN.
    return measure * xp.where((measure == 0) & xp.isinf(values), 0.0, values)
