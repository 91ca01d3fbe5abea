r"""Softmax and its logarithm, with their derivatives.

    y = log p:   dx = g - p sum(g)              y' = h - <p, h>
    y = p:       dx = p (h - <p, h>)            y' = p (h - <p, h>)

h = g - g_k (or x' - x'_k): a constant added to g changes nothing, and with that of the largest
entry taken off, an almost certain row leaves small terms instead of differences of large ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xent.ops import Result
from xent.ops.blocks import Blocks, over_rows
from xent.ops.exact import row_sum, take_last
from xent.ops.rows import Row, shift, surprisal, tail_of, weighted


@dataclass(frozen=True)
class Softmax:
    """The op: x (N, D, V) -> softmax or log-softmax along the last axis, in the type of x."""

    log: bool = False

    outputs = 1
    folds = (True,)

    def forward(self, xp: Any, arrays: tuple, blocks: Blocks) -> Result:
        if arrays[0].shape[-1] == 0:
            return Result((xp.zeros_like(arrays[0]),), (None, None))

        def block(x: Any) -> tuple:
            row = shift(xp, x)
            tail = tail_of(xp, row)
            y = -surprisal(xp, row, tail) if self.log else row.probabilities(xp, tail)
            return xp.astype(y, x.dtype), row.k, tail

        y, k, tail = over_rows(xp, block, arrays, blocks)
        return Result((y,), (k, tail))

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple,
        blocks: Blocks,
    ) -> tuple:
        return self._along(xp, arrays[0], residuals, cotangents[0], blocks, transposed=True)

    def jvp(
        self, xp: Any, arrays: tuple, residuals: tuple, tangents: tuple, blocks: Blocks
    ) -> tuple:
        return self._along(xp, arrays[0], residuals, tangents[0], blocks, transposed=False)

    def _along(
        self, xp: Any, x: Any, residuals: tuple, direction: Any, blocks: Blocks, transposed: bool
    ) -> tuple:
        if x.shape[-1] == 0:
            return (xp.zeros_like(x),)

        def block(x: Any, k: Any, tail: Any, direction: Any) -> tuple:
            row = shift(xp, x, k)
            p = row.probabilities(xp, tail)
            v = xp.astype(direction, p.dtype)
            if self.log and transposed:
                y = _log_vjp(xp, row, p, tail, v)
            else:
                h = v - take_last(xp, v, k)[:, None]
                y = h - row_sum(xp, weighted(xp, p, h))[:, None]
                y = y if self.log else weighted(xp, p, y)
            return (xp.astype(y, x.dtype),)

        return over_rows(xp, block, (x, *residuals, direction), blocks)


def _log_vjp(xp: Any, row: Row, p: Any, tail: Any, g: Any) -> Any:
    """g - p sum(g), with entry k taken as (1 - p_k) sum(g) - (sum of the others) if p_k > 1/2."""
    total = row_sum(xp, g)[:, None]
    others = row_sum(xp, xp.where(row.at_k, 0.0, g))[:, None]
    rest = (tail / (1 + tail))[:, None]
    return xp.where(row.at_k & (rest < 0.5), rest * total - others, g - p * total)
