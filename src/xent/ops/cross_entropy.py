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


def coefficients(spec: Any) -> tuple[float, float, float]:
    """The factors of nll, smooth and row weight x lse^2 in the loss."""
    return 1 - spec.label_smoothing, spec.label_smoothing, spec.z_loss


def value(outputs: tuple, row_weight: Any, spec: Any) -> Any:
    """(N, D) losses of the rows from the outputs of `RowStats`."""
    lse, nll, smooth, _ = outputs
    of_nll, of_smooth, of_lse2 = coefficients(spec)
    # A factor of 0 adds nothing at all: 0 times an infinite statistic is NaN.
    loss = nll
    if of_nll == 0:
        loss = smooth
    elif of_smooth:
        loss = of_nll * nll + of_smooth * smooth
    if of_lse2:
        loss = loss + of_lse2 * row_weight * lse**2
    return loss


def partials(xp: Any, outputs: tuple, row_weight: Any, spec: Any) -> tuple:
    """Derivatives of `value` by (lse, nll, smooth, entropy); None is zero."""
    lse, nll, _, _ = outputs
    of_nll, of_smooth, of_lse2 = coefficients(spec)
    one = xp.ones_like(nll)
    by_lse = 2 * of_lse2 * row_weight * lse if of_lse2 else None
    return by_lse, of_nll * one, of_smooth * one if of_smooth else None, None
