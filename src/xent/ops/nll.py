"""The negative log likelihood of given log-probabilities: loss = -w_y x_y, dloss / dx_y = -w_y."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xent.ops import Result
from xent.ops.blocks import Blocks, over_rows
from xent.ops.exact import take_last, working_dtype
from xent.ops.stats import at_target, safe, silence, weight_at


def op(spec: Any) -> NegativeLogLikelihood:
    """The op of the loss."""
    return NegativeLogLikelihood()


def value(outputs: tuple, row_weight: Any, spec: Any) -> Any:
    """(N, D) losses of the rows."""
    return outputs[0]


def partials(xp: Any, outputs: tuple, row_weight: Any, spec: Any) -> tuple:
    """The derivative of `value` by the op's output."""
    return (xp.ones_like(outputs[0]),)


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """The op: log-probabilities (N, D, V), target codes (N, D), weight (V,) -> loss (N, D)."""

    outputs = 1
    folds = (True, True, False)

    def forward(self, xp: Any, arrays: tuple, blocks: Blocks) -> Result:
        return Result((self._pick(xp, arrays, blocks),), ())

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple,
        blocks: Blocks,
    ) -> tuple:
        log_probs, codes, weight = arrays
        if log_probs.shape[-1] == 0:
            return xp.zeros_like(log_probs), None, None

        def block(x: Any, t: Any, g: Any) -> tuple:
            if weight is not None:
                g = g * weight_at(xp, xp.astype(weight, g.dtype), t)
            g = silence(xp, t, (g,))[0][:, None]
            at_t = xp.arange(x.shape[1], device=x.device)[None, :] == t[:, None]
            dx = xp.where(at_t, -g, xp.where(xp.isnan(g), g, 0.0))
            return (xp.astype(dx, x.dtype),)

        (dx,) = over_rows(xp, block, (log_probs, codes, cotangents[0]), blocks)
        return dx, None, None

    def jvp(
        self, xp: Any, arrays: tuple, residuals: tuple, tangents: tuple, blocks: Blocks
    ) -> tuple:
        log_probs, codes, weight = arrays
        dx, _, dw = tangents
        by_logs = None if dx is None else self._pick(xp, (dx, codes, weight), blocks)
        if dw is None:
            return (by_logs,)
        by_weight = self._pick(xp, (log_probs, codes, dw), blocks)
        return (by_weight if by_logs is None else by_logs + by_weight,)

    def _pick(self, xp: Any, arrays: tuple, blocks: Blocks) -> Any:
        log_probs, codes, weight = arrays
        work = working_dtype(xp, log_probs)
        if log_probs.shape[-1] == 0:
            return xp.zeros(codes.shape, dtype=work, device=codes.device)

        def block(x: Any, t: Any) -> tuple:
            w = None if weight is None else xp.astype(weight, work)
            chosen = -xp.astype(take_last(xp, x, safe(xp, t)), work)
            return silence(xp, t, (at_target(xp, chosen, t, w),))

        return over_rows(xp, block, (log_probs, codes), blocks)[0]
