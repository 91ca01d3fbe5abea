r"""Row statistics of logits and their derivatives: the only N x V work of every softmax loss.

With p, surprisal = -log p, k and s as in rows.py, and h = u' - u'_k, the tangent of the transformed
logits relative to that of the largest:

    lse         = m + log1p(s)                  dlse / du_c     = p_c
    nll         = sum_c t_c surprisal_c         dnll / du_c     = (sum t) p_c - t_c
    smooth      = 1/V sum_c w_c surprisal_c     dsmooth / du_c  = 1/V ((sum w) p_c - w_c)
    entropy     = sum_c p_c surprisal_c         dentropy / du_c = p_c (surprisal_c - entropy)
                                                surprisal_c'    = <p, h> - h_c

w is the class weight and t = class weight x target probability. Where p_k > 1/2, entry k of
(sum t) p - t is (sum of the other t) - (sum t) s / (1 + s): 1 - p_k is never formed from p_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xent.ops import Result
from xent.ops.blocks import Blocks, over_rows
from xent.ops.exact import row_sum, take_last, working_dtype
from xent.ops.rows import Row, shift, surprisal, surprisal_at, tail_of, weighted

IGNORED, INVALID = -1, -2  # codes of a target index that takes no part, and of one out of range


@dataclass(frozen=True)
class RowStats:
    """The op: logits, target and class weights -> (lse, nll, smooth, entropy), each (N, D).

    Its arrays are logits (N, D, V), the target as codes (N, D) or probabilities (N, D, V) or None,
    and weight (V,) or None. Its residuals are argmax and tail, each (N, D).
    """

    logit_scale: float = 1.0
    softcap: float | None = None
    smooth: bool = False
    entropy: bool = False

    outputs = 4
    folds = (True, True, False)

    def forward(self, xp: Any, arrays: tuple, blocks: Blocks) -> Result:
        logits, target, weight = arrays
        if logits.shape[-1] == 0:
            return self._no_classes(xp, logits, target)

        def block(x: Any, t: Any) -> tuple:
            row = self._shift(xp, x, t)
            tail = tail_of(xp, row)
            w = _work(xp, weight, row.high)
            every = self.smooth or self.entropy or (t is not None and t.ndim == 2)
            s = surprisal(xp, row, tail) if every else None
            nll = None
            if t is not None and t.ndim == 1:
                nll = at_target(xp, surprisal_at(xp, row, tail, safe(xp, t)), t, w)
            elif t is not None:
                nll = expected(xp, s, t, w)
            smooth = self._smooth(xp, s, w) if self.smooth else None
            entropy = _entropy(xp, row.probabilities(xp, tail), s) if self.entropy else None
            lse = xp.where(xp.isinf(row.top), row.top, row.top + xp.log1p(tail))
            outputs = (lse, nll, smooth, entropy)
            return (*silence(xp, t, outputs), row.k, tail)

        *outputs, k, tail = over_rows(xp, block, (logits, target), blocks)
        return Result(tuple(outputs), (k, tail))

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple,
        blocks: Blocks,
    ) -> tuple:
        logits, target, weight = arrays
        if logits.shape[-1] == 0:
            return tuple(
                xp.zeros_like(a) if w else None for a, w in zip(arrays, wanted, strict=True)
            )
        dweights: list = []

        def block(x: Any, t: Any, k: Any, tail: Any, *g: Any) -> tuple:
            row = self._shift(xp, x, t, k)
            w = _work(xp, weight, row.high)
            dx = dt = None
            if wanted[0]:
                dx = self._dlogits(xp, row, tail, t, w, silence(xp, t, g)) * row.slope
                dx = xp.astype(dx, x.dtype)
            s = surprisal(xp, row, tail) if wanted[1] or wanted[2] else None
            if wanted[1]:
                dt = self._dtarget(xp, s, t, w, g)
            if wanted[2]:
                dweights.append(self._dweight(xp, s, t, g))
            return dx, dt

        inputs = (logits, target, *residuals, *cotangents)
        dlogits, dtarget = over_rows(xp, block, inputs, blocks)
        dweight = None
        if wanted[2]:
            dweight = xp.astype(row_sum(xp, xp.stack(dweights, axis=-1)), weight.dtype)
        return dlogits, dtarget, dweight

    def jvp(
        self, xp: Any, arrays: tuple, residuals: tuple, tangents: tuple, blocks: Blocks
    ) -> tuple:
        logits, target, weight = arrays
        dweight = tangents[2]
        if logits.shape[-1] == 0:
            moved = self._no_classes(xp, logits, target).outputs
            return tuple(None if o is None else xp.zeros_like(o) for o in moved)

        def block(x: Any, t: Any, k: Any, tail: Any, dx: Any, dt: Any) -> tuple:
            row = self._shift(xp, x, t, k)
            s = surprisal(xp, row, tail)
            w, dw = _work(xp, weight, s), _work(xp, dweight, s)
            p = row.probabilities(xp, tail)
            du = xp.zeros_like(s) if dx is None else xp.astype(dx, s.dtype) * row.slope
            du_k = take_last(xp, du, k)
            h = du - du_k[:, None]
            mean_h = row_sum(xp, weighted(xp, p, h))
            ds = mean_h[:, None] - h
            nll = smooth = dentropy = None
            if t is not None:
                nll = expected(xp, ds, t, w)
                if dt is not None:
                    nll = nll + expected(xp, s, dt, w)
                if dw is not None:
                    nll = nll + expected(xp, s, t, dw)
            if self.smooth:
                smooth = self._smooth(xp, ds, w)
                if dw is not None:
                    smooth = smooth + self._smooth(xp, s, dw)
            if self.entropy:
                dentropy = row_sum(xp, weighted(xp, p, s - _entropy(xp, p, s)[:, None]) * h)
            return silence(xp, t, (du_k + mean_h, nll, smooth, dentropy))

        inputs = (logits, target, *residuals, *tangents[:2])
        return over_rows(xp, block, inputs, blocks)

    def _shift(self, xp: Any, x: Any, t: Any, k: Any = None) -> Row:
        if t is not None and t.ndim == 1:
            # What an ignored row holds, NaN included, must not reach a derivative of any order.
            x = xp.where(t[:, None] == IGNORED, 0.0, x)
        return shift(xp, x, k, logit_scale=self.logit_scale, softcap=self.softcap)

    def _dlogits(self, xp: Any, row: Row, tail: Any, t: Any, w: Any, g: tuple) -> Any:
        """(R, V) derivative by the transformed logits; g are the cotangents of the outputs."""
        p = row.probabilities(xp, tail)
        rest = (tail / (1 + tail))[:, None]  # 1 - p_k
        g_lse, g_nll, g_smooth, g_entropy = (None if c is None else c[:, None] for c in g)
        du = xp.zeros_like(p)
        if g_nll is not None and t.ndim == 1:
            at_t = xp.arange(p.shape[1], device=p.device)[None, :] == t[:, None]
            miss = xp.where(at_t & row.at_k, -rest, p - xp.astype(at_t, p.dtype))
            if w is not None:
                miss = miss * weight_at(xp, w, t)[:, None]
            du = du + g_nll * miss
        elif g_nll is not None:
            t = xp.astype(t, p.dtype) if w is None else w * xp.astype(t, p.dtype)
            du = du + g_nll * _excess(xp, p, rest, row.at_k, t)
        if g_smooth is not None:
            share = xp.ones_like(p) if w is None else xp.broadcast_to(w, p.shape)
            du = du + g_smooth * _excess(xp, p, rest, row.at_k, share / p.shape[1])
        if g_lse is not None:
            du = du + g_lse * p
        if g_entropy is not None:
            s = surprisal(xp, row, tail)
            du = du + g_entropy * weighted(xp, p, s - _entropy(xp, p, s)[:, None])
        return du

    def _dtarget(self, xp: Any, s: Any, t: Any, w: Any, g: tuple) -> Any:
        if g[1] is None:
            return xp.zeros_like(t)
        dt = weighted(xp, g[1][:, None], s if w is None else weighted(xp, w, s))
        return xp.astype(dt, t.dtype)

    def _smooth(self, xp: Any, s: Any, w: Any) -> Any:
        return row_sum(xp, s if w is None else weighted(xp, w, s)) / s.shape[1]

    def _dweight(self, xp: Any, s: Any, t: Any, g: tuple) -> Any:
        by_class = xp.zeros_like(s)
        if g[1] is not None:
            by_class = by_class + g[1][:, None] * weighted(xp, xp.astype(t, s.dtype), s)
        if g[2] is not None:
            by_class = by_class + g[2][:, None] * s / s.shape[1]
        return row_sum(xp, xp.permute_dims(by_class, (1, 0)))

    def _no_classes(self, xp: Any, logits: Any, target: Any) -> Result:
        lead = logits.shape[:2]

        def zeros(dtype: Any = None) -> Any:  # each its own array, for a library's derivatives
            work = working_dtype(xp, logits) if dtype is None else dtype
            return xp.zeros((lead[0] * lead[1],), dtype=work, device=logits.device)

        outputs = (
            zeros() - float("inf"),
            None if target is None else zeros(),
            zeros() if self.smooth else None,
            zeros() if self.entropy else None,
        )
        codes = None if target is None or target.ndim == 3 else xp.reshape(target, (-1,))
        outputs = silence(xp, codes, outputs)
        shaped = tuple(None if o is None else xp.reshape(o, lead) for o in outputs)
        return Result(shaped, (xp.reshape(zeros(xp.int64), lead), xp.reshape(zeros(), lead)))


def _entropy(xp: Any, p: Any, s: Any) -> Any:
    return row_sum(xp, weighted(xp, p, s))


def safe(xp: Any, codes: Any) -> Any:
    """Target codes with class 0 in place of none, to index with."""
    return xp.where(codes < 0, 0, codes)


def at_target(xp: Any, chosen: Any, codes: Any, w: Any) -> Any:
    """(R,) what was chosen at the target, times the weight of its class."""
    return chosen if w is None else weighted(xp, weight_at(xp, w, codes), chosen)


def weight_at(xp: Any, w: Any, codes: Any) -> Any:
    """(R,) weight of the class of each row; 0 for a row of none, whatever class 0 weighs."""
    return xp.where(codes < 0, 0.0, xp.take(w, safe(xp, codes), axis=0))


def expected(xp: Any, s: Any, t: Any, w: Any) -> Any:
    """(R,) sum_c w_c t_c s_c, for target codes (R,) or probabilities (R, V)."""
    if t.ndim == 1:
        return at_target(xp, take_last(xp, s, safe(xp, t)), t, w)
    t = xp.astype(t, s.dtype)
    return row_sum(xp, weighted(xp, t if w is None else w * t, s))


def _excess(xp: Any, p: Any, rest: Any, at_k: Any, t: Any) -> Any:
    """(R, V) (sum t) p - t, without forming 1 - p_k where p_k > 1/2."""
    mass = row_sum(xp, t)[:, None]
    others = row_sum(xp, xp.where(at_k, 0.0, t))[:, None]
    return xp.where(at_k & (rest < 0.5), others - mass * rest, mass * p - t)


def silence(xp: Any, t: Any, values: tuple) -> tuple:
    """(R,) values, 0 for rows whose target is ignored and NaN where it is out of range."""
    if t is None or t.ndim == 2:  # probabilities
        return values

    def one(value: Any) -> Any:
        return xp.where(t == IGNORED, 0.0, xp.where(t == INVALID, float("nan"), value))

    return tuple(None if value is None else one(value) for value in values)


def _work(xp: Any, weight: Any, like: Any) -> Any:
    return None if weight is None else xp.astype(weight, like.dtype)
