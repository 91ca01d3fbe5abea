r"""Cross entropy with label smoothing e and z-loss z, from the statistics of a row of weight w:

loss = (1 - e) nll + e smooth + z w lse^2

d loss / d (lse, nll, smooth) = (2 z w lse,  1 - e,  e)

The z-loss carries the weight of its row, so that a weighted mean is one of (nll + z lse^2).
"""

from __future__ import annotations

from typing import Any

from xent.ops.stats import RowStats


def op(spec: Any) -> RowStats:
    """The statistics that the loss is made of."""
    return RowStats(spec.logit_scale, spec.softcap, smooth=spec.label_smoothing > 0)


def value(outputs: tuple, row_weight: Any, spec: Any) -> Any:
    """(N, D) losses of the rows from the outputs of `RowStats`."""
    lse, nll, smooth, _ = outputs
    # A factor of 0 adds nothing at all: 0 times an infinite statistic is NaN.
    loss = nll
    if spec.label_smoothing == 1:
        loss = smooth
    elif spec.label_smoothing:
        loss = (1 - spec.label_smoothing) * nll + spec.label_smoothing * smooth
    if spec.z_loss:
        loss = loss + spec.z_loss * row_weight * lse**2
    return loss


def partials(xp: Any, outputs: tuple, row_weight: Any, spec: Any) -> tuple:
    """Derivatives of `value` by (lse, nll, smooth, entropy); None is zero."""
    lse, nll, _, _ = outputs
    one = xp.ones_like(nll)
    by_lse = 2 * spec.z_loss * row_weight * lse if spec.z_loss else None
    by_smooth = spec.label_smoothing * one if spec.label_smoothing else None
    return by_lse, (1 - spec.label_smoothing) * one, by_smooth, None
