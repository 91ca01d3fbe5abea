r"""Row statistics of logits hidden @ linear_weight.T + linear_bias that are never stored.

Logits are made for a tile at a time, so many rows by so many classes, and handed to `RowStats`.
Where a tile has all classes its statistics are those of its rows. Elsewhere the classes are cut
into slabs; with s, m = max and lse of a slab, those of the whole without a mark, and

    delta = lse' - lse = (m' - m) + log1p(s') - log1p(s),  q = exp(-delta), the slab's share,

a surprisal in the whole is that in the slab plus delta:

    s'      = sum over slabs of (1 + s) exp(m - m'), without the largest entry's 1
    nll'    = sum of nll + delta (sum t)            smooth' V = sum of smooth V_slab + delta (sum w)
    entropy' = sum of q (entropy + delta)

and the derivative by a slab's logits is that of its own statistics, under the cotangents

    g_nll,  g_smooth V_slab / V,  g_entropy q,
    q g_lse + g_nll (q (sum t)' - sum t) + g_smooth / V (q (sum w)' - sum w)
            + g_entropy q (entropy - entropy' + delta)

for nll, smooth, entropy and lse, where q y' - y = q (y' - y) + expm1(-delta) y cancels nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xent.ops import Result
from xent.ops.exact import row_sum, take_last
from xent.ops.rows import weighted
from xent.ops.stats import IGNORED, INVALID, RowStats, silence, weight_at
from xent.ops.tiles import Engine, Head, Sums, cuts, lengths, of_rows, of_slab, some


class Slab(NamedTuple):
    """The statistics of rows over some of the classes, or over all."""

    k: Any  # (R, 1), among all classes
    top: Any
    tail: Any
    nll: Any  # or None
    smooth: Any  # a sum over classes, or None
    entropy: Any  # or None
    mass: Any  # sum of the target measure; a number, or None without a target
    share: Any  # sum of the class weights


@dataclass(frozen=True)
class LinearStats:
    """The op: `RowStats` of logits made of its first arrays.

    Its arrays are hidden (N, D) and linear_weight (V, D), for each of `products` such pairs, then
    linear_bias (V,) or None, target codes (N, 1) or probabilities (N, 1, V) or None, and class
    weight (V,) or None. Its residuals are argmax, tail, largest logit and entropy, each (N, 1).
    """

    stats: RowStats = field(default_factory=RowStats)
    products: int = 1

    outputs = 4

    @property
    def folds(self) -> tuple[bool, ...]:
        return (True, False) * self.products + (False, True, False)

    def head(self, arrays: tuple) -> Head:
        pairs = tuple((arrays[2 * i], arrays[2 * i + 1]) for i in range(self.products))
        return Head(pairs, arrays[-3])

    def forward(self, xp: Any, arrays: tuple, engine: Engine) -> Result:
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._forward(xp, arrays, engine)
        found = self._forward(xp, self._some(arrays, kept), engine)
        n = arrays[0].shape[0]
        outputs, residuals = (tuple(engine.spread(a, kept, n) for a in part) for part in found)
        return Result(outputs, residuals)

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        engine: Engine,
    ) -> tuple:
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._vjp(xp, arrays, residuals, cotangents, wanted, engine)
        residuals, cotangents = (
            tuple(None if a is None else a[kept] for a in part) for part in (residuals, cotangents)
        )
        few = self._some(arrays, kept)
        found = self._vjp(xp, few, residuals, cotangents, wanted, engine)
        return self._spread(engine, found, kept, arrays[0].shape[0])

    def both(
        self, xp: Any, arrays: tuple, objective: Any, wanted: tuple[bool, ...], engine: Engine
    ) -> tuple[Any, tuple]:
        """The losses of rows (N, 1) and the gradients of their scaled sum.

        `objective.cotangents(outputs, cut)` gives the losses of some rows, and the cotangents of
        their statistics; `objective.some(kept)` is the same for the rows that are kept.
        """
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._both(xp, arrays, objective, wanted, engine)
        few, n = self._some(arrays, kept), arrays[0].shape[0]
        losses, found = self._both(xp, few, objective.some(kept), wanted, engine)
        return engine.spread(losses, kept, n), self._spread(engine, found, kept, n)

    def _some(self, arrays: tuple, kept: Any) -> tuple:
        folds = zip(arrays, self.folds, strict=True)
        return tuple(a[kept] if f and a is not None else a for a, f in folds)

    def _spread(self, engine: Engine, found: tuple, kept: Any, n: int) -> tuple:
        folds = zip(found, self.folds, strict=True)
        return tuple(engine.spread(a, kept, n) if f else a for a, f in folds)

    def _forward(self, xp: Any, arrays: tuple, engine: Engine) -> Result:
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size = engine.tile(head)
        rows = list(cuts(n, size.rows))
        found: list = [None] * len(rows)
        for slab in cuts(classes, size.classes):
            rights, bias = of_slab(engine, head, slab)
            for i, cut in enumerate(rows):
                lefts = of_rows(engine, head, cut)
                x = engine.logits(lefts, rights, bias)
                part = self._slab(engine, x, some(target, cut), weight, slab, classes)
                found[i] = part if found[i] is None else _merged(xp, found[i], part)
        ends = [
            self._finish(xp, part, some(target, cut), classes)
            for part, cut in zip(found, rows, strict=True)
        ]
        joined = [None if c[0] is None else xp.concat(c, axis=0) for c in zip(*ends, strict=True)]
        return Result(tuple(joined[:4]), tuple(joined[4:]))

    def _vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        engine: Engine,
    ) -> tuple:
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size, work = engine.tile(head), engine.work(head)
        g = _silence(xp, target, cotangents)
        sums = Sums(engine, arrays, wanted, work)
        rows, three = list(cuts(n, size.rows)), (any(wanted[:-2]), *wanted[-2:])
        for slab in cuts(classes, size.classes):
            rights, bias = of_slab(engine, head, slab)
            for cut in rows:
                lefts = of_rows(engine, head, cut)
                x = engine.logits(lefts, rights, bias)
                ends = (some(target, cut), *(some(a, cut) for a in (*residuals, *g)))
                t, kept, by = ends[0], ends[1:5], ends[5:]
                if x.shape[1] == classes:
                    given = (x[:, None, :], t, weight)
                    made = engine.vjp(self.stats, given, kept[:2], by, three)
                else:
                    made = self._part(engine, x, t, weight, slab, classes, kept, by, three)
                sums.add(cut, slab, lefts, rights, made)
            sums.close(slab)
        return sums.gradients()

    def _both(
        self, xp: Any, arrays: tuple, objective: Any, wanted: tuple[bool, ...], engine: Engine
    ) -> tuple[Any, tuple]:
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size, work = engine.tile(head), engine.work(head)
        if size.classes < classes or n == 0:
            result = self._forward(xp, arrays, engine)
            losses, g = objective.cotangents(result.outputs, slice(0, n))
            return losses, self._vjp(xp, arrays, result.residuals, g, wanted, engine)
        sums, found = Sums(engine, arrays, wanted, work), []
        whole, three = slice(0, classes), (any(wanted[:-2]), *wanted[-2:])
        rights, bias = of_slab(engine, head, whole)
        for cut in cuts(n, size.rows):
            lefts = of_rows(engine, head, cut)
            x = engine.logits(lefts, rights, bias)[:, None, :]
            given = (x, some(target, cut), weight)
            losses, made = engine.both(self.stats, given, objective, cut, three)
            found.append(losses)
            sums.add(cut, whole, lefts, rights, made)
        sums.close(whole)
        return xp.concat(found, axis=0), sums.gradients()

    def _slab(self, engine: Engine, x: Any, t: Any, weight: Any, slab: slice, classes: int) -> Slab:
        """The statistics of rows over the classes whose logits are x (R, C)."""
        xp, count = engine.xp, x.shape[1]
        w = None if weight is None else weight[slab]
        tc, inside = _within(xp, t, slab, classes)
        result = engine.forward(self.stats, (x[:, None, :], tc, w))
        (lse, nll, smooth, entropy), (k, tail) = result
        if count == 0:
            return Slab(k, lse, tail, nll, smooth, entropy, None, 0)
        top = self._transformed(xp, xp.astype(take_last(xp, x, k[:, 0]), tail.dtype))[:, None]
        smooth = None if smooth is None else smooth * count
        if count < classes:
            nll = nll if inside is None else xp.where(inside, nll, 0.0)
            masked = top == -float("inf")  # every class of the slab: no share, 1 + tail = 0
            tail = xp.where(masked, -1.0, tail)
            nll, smooth, entropy = (
                None if a is None else xp.where(masked, 0.0, a) for a in (nll, smooth, entropy)
            )
        mass = None if t is None else _mass(xp, tc, inside, w, tail.dtype)
        share = count if w is None else xp.sum(xp.astype(w, tail.dtype))
        return Slab(k + slab.start, top, tail, nll, smooth, entropy, mass, share)

    def _finish(self, xp: Any, s: Slab, t: Any, classes: int) -> tuple:
        """Outputs and residuals of rows from their statistics over all classes."""
        tail = xp.where(s.top == -float("inf"), float("nan"), s.tail)
        lse = xp.where(xp.isinf(s.top), s.top, s.top + xp.log1p(tail))
        smooth = s.smooth if s.smooth is None or classes == 0 else s.smooth / classes
        outputs = _silence(xp, t, (lse, s.nll, smooth, s.entropy))
        k = s.k if t is None or t.ndim == 3 else xp.where(t == IGNORED, 0, s.k)
        return (*outputs, k, tail, s.top, s.entropy)

    def _part(
        self,
        engine: Engine,
        x: Any,
        t: Any,
        weight: Any,
        slab: slice,
        classes: int,
        kept: tuple,
        g: tuple,
        wanted: tuple,
    ) -> tuple:
        """The gradients by the logits of a slab, and by target and class weights in it."""
        xp, (_, tail, top, entropy) = engine.xp, kept
        part = self._slab(engine, x, t, weight, slab, classes)
        w = None if weight is None else weight[slab]
        tc, inside = _within(xp, t, slab, classes)
        delta = _apart(xp, part, top, tail)
        q, less = xp.exp(-delta), xp.expm1(-delta)
        by_lse, by_nll, by_smooth, by_entropy = g
        by_lse = xp.zeros_like(delta) if by_lse is None else q * by_lse
        if by_nll is not None:
            mass = _mass(xp, t, None, weight, tail.dtype)
            by_lse = by_lse + by_nll * (q * (mass - part.mass) + less * part.mass)
            by_nll = by_nll if inside is None else xp.where(inside, by_nll, 0.0)
        if by_smooth is not None:
            share = classes if weight is None else xp.sum(xp.astype(weight, tail.dtype))
            by_smooth = by_smooth / classes
            by_lse = by_lse + by_smooth * (q * (share - part.share) + less * part.share)
            by_smooth = by_smooth * x.shape[1]
        if by_entropy is not None:
            by_lse = by_lse + by_entropy * q * (part.entropy - entropy + delta)
            by_entropy = by_entropy * q
        given, residuals = (x[:, None, :], tc, w), (part.k - slab.start, part.tail)
        cotangents = (by_lse, by_nll, by_smooth, by_entropy)
        dx, dt, dw = engine.vjp(self.stats, given, residuals, cotangents, wanted)
        if dx is not None:
            masked = part.top == -float("inf")
            if inside is not None:
                masked = masked & (t != INVALID)
            dx = xp.where(masked[:, :, None], 0.0, dx)
        if dt is not None and by_nll is not None:
            more = (by_nll * delta)[:, :, None]
            dt = xp.astype(dt + (more if w is None else more * w), dt.dtype)
        if dw is not None:
            times = 0.0 if by_nll is None else xp.astype(tc, delta.dtype) * by_nll[:, :, None]
            if by_smooth is not None:
                times = times + by_smooth[:, :, None] / x.shape[1]
            moved = xp.sum((times * delta[:, :, None])[:, 0, :], axis=0)
            dw = xp.astype(dw, delta.dtype) + moved
        return dx, dt, dw

    def _transformed(self, xp: Any, x: Any) -> Any:
        """What softcap and logit scale make of a logit."""
        scale, cap = self.stats.logit_scale, self.stats.softcap
        return scale * x if cap is None else cap * xp.tanh(x * (scale / cap))


def _silence(xp: Any, t: Any, values: tuple) -> tuple:
    """`silence` for (R, 1) values."""
    if t is None or t.ndim == 3:
        return values
    flat = tuple(None if value is None else value[:, 0] for value in values)
    return tuple(None if v is None else v[:, None] for v in silence(xp, t[:, 0], flat))


def _within(xp: Any, t: Any, slab: slice, classes: int) -> tuple[Any, Any]:
    """The target in a slab, and for codes (R, 1) whether it is there; class 0 stands for others."""
    if t is None or slab.stop - slab.start == classes:
        return t, None
    if t.ndim == 3:
        return t[:, :, slab], None
    inside = (t >= slab.start) & (t < slab.stop)
    return xp.where(inside, t - slab.start, xp.where(t < 0, t, 0)), inside


def _mass(xp: Any, t: Any, inside: Any, w: Any, dtype: Any) -> Any:
    """(R, 1) the sum of a target measure: class weights times probabilities."""
    if t.ndim == 3:
        t = xp.astype(t, dtype)
        return row_sum(xp, t if w is None else t * xp.astype(w, dtype))
    if w is None:
        mass = xp.astype(t >= 0, dtype)
    else:
        mass = weight_at(xp, xp.astype(w, dtype), t[:, 0])[:, None]
    return mass if inside is None else xp.where(inside, mass, 0.0)


def _apart(xp: Any, part: Slab, top: Any, tail: Any) -> Any:
    """(R, 1) log-sum-exp of all classes less that of a slab."""
    near = xp.log1p((tail - part.tail) / (1 + part.tail))
    far = (top - part.top) + (xp.log1p(tail) - xp.log1p(part.tail))
    return xp.where(part.top == top, near, far)


def _merged(xp: Any, a: Slab, b: Slab) -> Slab:
    """The statistics over the classes of two slabs."""
    first = (a.top >= b.top) | (a.top != a.top)
    top = xp.where(first, a.top, b.top)
    tail = xp.where(
        first,
        a.tail + (1 + b.tail) * xp.exp(b.top - top),
        b.tail + (1 + a.tail) * xp.exp(a.top - top),
    )
    apart = [_apart(xp, part, top, tail) for part in (a, b)]

    def added(name: str, measure: str) -> Any:
        if getattr(a, name) is None:
            return None
        terms = [
            getattr(part, name) + weighted(xp, getattr(part, measure) + xp.zeros_like(delta), delta)
            for part, delta in zip((a, b), apart, strict=True)
        ]
        return terms[0] + terms[1]

    entropy = None
    if a.entropy is not None:
        shares = [xp.exp(-delta) for delta in apart]
        terms = [
            q * part.entropy + weighted(xp, q, delta)
            for q, part, delta in zip(shares, (a, b), apart, strict=True)
        ]
        entropy = terms[0] + terms[1]
    mass = None if a.mass is None else a.mass + b.mass
    nll, smooth = added("nll", "mass"), added("smooth", "share")
    k = xp.where(first, a.k, b.k)
    return Slab(k, top, tail, nll, smooth, entropy, mass, a.share + b.share)
