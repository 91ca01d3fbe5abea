r"""Binary cross entropy of logits x, target y, weight w and positive weight v, by element:

loss = w ((1 - y) softplus(x) + v y softplus(-x)),  softplus(x) = max(x, 0) + log1p(exp(-|x|))

    dloss / dx = w ((1 - y) sigmoid(x) - v y sigmoid(-x))
    dloss / dy = w (v softplus(-x) - softplus(x))               with v = 1 it is -w x
    dloss / dw = loss / w
    dloss / dv = w y softplus(-x)

A factor of 0 counts for nothing, so that x = inf with y = 1 and x = -inf with y = 0 lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xent.ops import Result
from xent.ops.blocks import Blocks, over_rows
from xent.ops.exact import working_dtype
from xent.ops.rows import magnitude, weighted


def op(spec: Any) -> BinaryCrossEntropy:
    """The op of the loss."""
    return BinaryCrossEntropy()


def value(outputs: tuple, row_weight: Any, spec: Any) -> Any:
    """(N, 1) losses of the elements."""
    return outputs[0]


def partials(xp: Any, outputs: tuple, row_weight: Any, spec: Any) -> tuple:
    """The derivative of `value` by the op's output."""
    return (xp.ones_like(outputs[0]),)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The op: logits, target, weight or None, pos_weight or None, all (N, 1, 1) -> loss (N, 1)."""

    outputs = 1
    folds = (True, True, True, True)

    def forward(self, xp: Any, arrays: tuple, blocks: Blocks) -> Result:
        def block(x: Any, y: Any, w: Any, v: Any) -> tuple:
            x, y, w, v = _work(xp, x, y, w, v)
            return (_times(xp, w, _unweighted(xp, x, y, v))[:, 0],)

        return Result(over_rows(xp, block, arrays, blocks), ())

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple,
        blocks: Blocks,
    ) -> tuple:
        def block(*given: Any) -> tuple:
            x, y, w, v = _work(xp, *given[:4])
            g = given[4][:, None]
            partials = _partials(xp, x, y, w, v)
            return tuple(
                xp.astype(weighted(xp, g, partial), array.dtype) if want else None
                for partial, array, want in zip(partials, given, wanted, strict=False)
            )

        return over_rows(xp, block, (*arrays, cotangents[0]), blocks)

    def jvp(
        self, xp: Any, arrays: tuple, residuals: tuple, tangents: tuple, blocks: Blocks
    ) -> tuple:
        def block(*given: Any) -> tuple:
            x, y, w, v = _work(xp, *given[:4])
            partials = _partials(xp, x, y, w, v)
            moves = zip(partials, given[4:], strict=True)
            terms = [weighted(xp, xp.astype(t, x.dtype), p) for p, t in moves if t is not None]
            moved = xp.zeros_like(x)
            for term in terms:
                moved = moved + term
            return (moved[:, 0],)

        return over_rows(xp, block, (*arrays, *tangents), blocks)


def _work(xp: Any, x: Any, *others: Any) -> tuple:
    work = working_dtype(xp, x)
    return tuple(None if a is None else xp.astype(a, work) for a in (x, *others))


def _unweighted(xp: Any, x: Any, y: Any, v: Any) -> Any:
    positive = y if v is None else v * y
    return weighted(xp, 1 - y, _softplus(xp, x)) + weighted(xp, positive, _softplus(xp, -x))


def _partials(xp: Any, x: Any, y: Any, w: Any, v: Any) -> tuple:
    positive = y if v is None else v * y
    dx = (1 - y) * _sigmoid(xp, x) - positive * _sigmoid(xp, -x)
    dy = -x if v is None else weighted(xp, v, _softplus(xp, -x)) - _softplus(xp, x)
    dw = None if w is None else _unweighted(xp, x, y, v)
    dv = None if v is None else _times(xp, w, weighted(xp, y, _softplus(xp, -x)))
    return _times(xp, w, dx), _times(xp, w, dy), dw, dv


def _times(xp: Any, w: Any, values: Any) -> Any:
    return values if w is None else weighted(xp, w, values)


def _softplus(xp: Any, x: Any) -> Any:
    return xp.where(x > 0, x, 0.0) + xp.log1p(xp.exp(-magnitude(xp, x)))


def _sigmoid(xp: Any, x: Any) -> Any:
    small = xp.exp(-magnitude(xp, x))
    return xp.where(x > 0, 1.0, small) / (1 + small)
