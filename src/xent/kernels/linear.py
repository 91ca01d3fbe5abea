"""The compiled kernel on a tile of logits that it may write over: there gradients come to lie.

They are those of `xent.ops.tiles.Engine`: `vjp` is that of row statistics, `both` also gives the
losses. The tile is a compact array (R, 1, V).
"""

from __future__ import annotations

from typing import Any

from xent.kernels import cpu
from xent.ops.stats import RowStats
from xent.spec import Plan


def vjp(
    op: RowStats, arrays: tuple, residuals: tuple, cotangents: tuple, plan: Plan | None
) -> None:
    """Write the gradient by the logits over them."""
    names = "k", "tail", "by_lse", "by_nll", "by_smooth", "by_entropy"
    read = [None if r is None else cpu.compact(r) for r in (*residuals, *cotangents)]
    given = {name: cpu.address(r) for name, r in zip(names, read, strict=True)}
    cpu._run(op, arrays, plan, mode=cpu.GRADIENT, **given, **_over(arrays[0]))


def both(
    op: RowStats,
    arrays: tuple,
    coefficients: tuple[float, float, float],
    scale: float,
    losses: Any,
    plan: Plan | None,
) -> None:
    """Write the losses (R, 1) in float64, and over the logits scale times their gradient.

    A loss is so much of nll, smooth and row weight x lse^2 as the coefficients say.
    """
    given = dict(zip(("of_nll", "of_smooth", "of_lse2"), coefficients, strict=True))
    fields = {"losses": cpu.address(losses), "loss_dtype": cpu.DTYPES["float64"], "upstream": scale}
    cpu._run(op, arrays, plan, mode=cpu.LOSS, **given, **fields, **_over(arrays[0]))


def _over(logits: Any) -> dict[str, int]:
    names = "gradient_n", "gradient_d", "gradient_v"
    return {"gradient": cpu.address(logits), **dict(zip(names, cpu.strides(logits), strict=True))}
