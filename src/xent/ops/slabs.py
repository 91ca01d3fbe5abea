r"""Row statistics over some of the classes, merged to those over all without losing a digit.

With s, m = max and lse of a slab of classes, those of all classes without a mark, and

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

A slab whose logits are all -inf, or that has no classes, has m = -inf and 1 + s = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xent.ops.exact import row_sum, working_dtype
from xent.ops.rows import weighted
from xent.ops.stats import IGNORED, INVALID, RowStats, silence, weight_at


class Slab(NamedTuple):
    """The statistics of rows over some of the classes, or over all."""

    k: Any  # (N, D), among all classes
    top: Any
    tail: Any
    nll: Any  # or None
    smooth: Any  # a sum over classes, or None
    entropy: Any  # or None
    mass: Any  # sum of the target measure; None without a target
    share: Any  # sum of the class weights, or the number of classes


class Whole(NamedTuple):
    """What the derivative by a slab's logits needs of all classes."""

    tail: Any  # (N, D)
    top: Any
    entropy: Any  # or None
    mass: Any  # or None
    share: Any


def slab_of(engine: Any, stats: RowStats, x: Any, t: Any, w: Any, at: slice, classes: int) -> Slab:
    """The statistics over the classes `at`, whose logits are x (N, D, C).

    `t` is codes of all classes or probabilities of these; `w` is the weights of these.
    """
    xp, count, work = engine.xp, x.shape[-1], working_dtype(engine.xp, x)
    tc, inside = _within(xp, t, at, classes)
    share = share_of(xp, w, count, work)
    if count == 0:
        return _no_classes(xp, stats, x, t, at, share)
    (_, nll, smooth, entropy), (k, tail) = engine.forward(stats, (x, tc, w))
    n, d = (xp.arange(length, device=x.device) for length in x.shape[:2])
    top = _transformed(xp, stats, xp.astype(x[n[:, None], d[None, :], k], tail.dtype))
    smooth = None if smooth is None else smooth * count
    if count < classes:
        nll = nll if inside is None else xp.where(inside, nll, 0.0)
        masked = top == -float("inf")  # every class of the slab: no share, 1 + tail = 0
        tail = xp.where(masked, -1.0, tail)
        nll, smooth, entropy = (
            None if a is None else xp.where(masked, 0.0, a) for a in (nll, smooth, entropy)
        )
    mass = None if t is None else mass_of(xp, tc, inside, w, tail.dtype)
    return Slab(k + at.start, top, tail, nll, smooth, entropy, mass, share)


def finish(xp: Any, s: Slab, t: Any, classes: int) -> tuple[tuple, tuple]:
    """Outputs and residuals (argmax, tail, top, entropy) of rows from the slab of all classes."""
    masked = s.top == -float("inf")
    tail = xp.where(masked, float("nan"), s.tail)
    lse = xp.where(xp.isinf(s.top), s.top, s.top + xp.log1p(tail))
    nll, smooth, entropy = s.nll, s.smooth, s.entropy
    nothing = masked & (classes > 0)
    nll, smooth, entropy = (
        None if a is None else xp.where(nothing, float("nan"), a) for a in (nll, smooth, entropy)
    )
    smooth = None if smooth is None else smooth / max(1, classes)
    outputs = silenced(xp, t, (lse, nll, smooth, entropy))
    k = s.k if t is None or t.ndim == 3 else xp.where(t == IGNORED, 0, s.k)
    return outputs, (k, tail, s.top, s.entropy)


def slab_vjp(
    engine: Any,
    stats: RowStats,
    arrays: tuple,
    at: slice,
    classes: int,
    part: Slab,
    whole: Whole,
    g: tuple,
    wanted: tuple,
) -> tuple:
    """The gradients by the logits of a slab, and by target and class weights in it.

    `arrays` are those of `slab_of`, `part` is what it found; `g` are the cotangents of lse, nll,
    smooth and entropy of all classes.
    """
    xp, (x, t, w) = engine.xp, arrays
    tc, inside = _within(xp, t, at, classes)
    delta = _apart(xp, part, whole.top, whole.tail)
    q, less = xp.exp(-delta), xp.expm1(-delta)
    by_lse, by_nll, by_smooth, by_entropy = g
    by_lse = xp.zeros_like(delta) if by_lse is None else q * by_lse
    if by_nll is not None:
        by_lse = by_lse + by_nll * (q * (whole.mass - part.mass) + less * part.mass)
        by_nll = by_nll if inside is None else xp.where(inside, by_nll, 0.0)
    if by_smooth is not None:
        by_smooth = by_smooth / classes
        by_lse = by_lse + by_smooth * (q * (whole.share - part.share) + less * part.share)
        by_smooth = by_smooth * x.shape[-1]
    if by_entropy is not None:
        by_lse = by_lse + by_entropy * q * (part.entropy - whole.entropy + delta)
        by_entropy = by_entropy * q
    residuals = (part.k - at.start, part.tail)
    cotangents = (by_lse, by_nll, by_smooth, by_entropy)
    dx, dt, dw = engine.vjp(stats, (x, tc, w), residuals, cotangents, wanted)
    if dx is not None:
        masked = part.top == -float("inf")
        if inside is not None:
            masked = masked & (t != INVALID)
        dx = xp.where(masked[:, :, None], 0.0, dx)
    if dt is not None and by_nll is not None:
        more = (by_nll * delta)[:, :, None]
        dt = xp.astype(dt + (more if w is None else more * w), dt.dtype)
    if dw is not None:
        times = xp.zeros_like(delta)[:, :, None]
        if by_nll is not None:
            times = times + xp.astype(tc, delta.dtype) * by_nll[:, :, None]
        if by_smooth is not None:
            times = times + by_smooth[:, :, None] / x.shape[-1]
        moved = xp.sum(weighted(xp, times, delta[:, :, None]), axis=(0, 1))
        dw = xp.astype(dw, delta.dtype) + moved
    return dx, dt, dw


def merged(xp: Any, a: Slab, b: Slab) -> Slab:
    """The statistics over the classes of two slabs."""
    first = (a.top >= b.top) | (a.top != a.top)
    top = xp.where(first, a.top, b.top)
    tail = xp.where(first, _tail(xp, a, b), _tail(xp, b, a))
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


def silenced(xp: Any, t: Any, values: tuple) -> tuple:
    """`silence` for (N, D) values."""
    if t is None or t.ndim == 3:
        return values
    flat = tuple(None if value is None else xp.reshape(value, (-1,)) for value in values)
    found = silence(xp, xp.reshape(t, (-1,)), flat)
    return tuple(None if f is None else xp.reshape(f, t.shape) for f in found)


def mass_of(xp: Any, t: Any, inside: Any, w: Any, dtype: Any) -> Any:
    """(N, D) the sum of a target measure: class weights times probabilities."""
    if t.ndim == 3:
        t = xp.astype(t, dtype)
        return row_sum(xp, t if w is None else t * xp.astype(w, dtype))
    if w is None:
        mass = xp.astype(t >= 0, dtype)
    else:
        mass = xp.reshape(weight_at(xp, xp.astype(w, dtype), xp.reshape(t, (-1,))), t.shape)
    return mass if inside is None else xp.where(inside, mass, 0.0)


def share_of(xp: Any, w: Any, count: int, dtype: Any) -> Any:
    """The sum of class weights."""
    return count if w is None else xp.sum(xp.astype(w, dtype))


def inside_of(t: Any, at: slice) -> Any:
    """Whether the class of each code is one of those `at`."""
    return (t >= at.start) & (t < at.stop)


def _no_classes(xp: Any, stats: RowStats, x: Any, t: Any, at: slice, share: Any) -> Slab:
    zero = xp.zeros(x.shape[:2], dtype=working_dtype(xp, x), device=x.device)
    return Slab(
        xp.astype(zero, xp.int64) + at.start,
        zero - float("inf"),
        zero - 1,
        None if t is None else zero,
        zero if stats.smooth else None,
        zero if stats.entropy else None,
        None if t is None else zero,
        share,
    )


def _within(xp: Any, t: Any, at: slice, classes: int) -> tuple[Any, Any]:
    """Codes within a slab and whether they are there, class 0 for others; probabilities alone."""
    if t is None or t.ndim == 3 or at.stop - at.start == classes:
        return t, None
    inside = inside_of(t, at)
    return xp.where(inside, t - at.start, xp.where(t < 0, t, 0)), inside


def _transformed(xp: Any, stats: RowStats, x: Any) -> Any:
    """What softcap and logit scale make of a logit."""
    scale, cap = stats.logit_scale, stats.softcap
    return scale * x if cap is None else cap * xp.tanh(x * (scale / cap))


def _tail(xp: Any, high: Slab, low: Slab) -> Any:
    """The tail of two slabs of which the first has the largest logit."""
    gap = xp.where(low.top == -float("inf"), low.top, low.top - high.top)
    return high.tail + (1 + low.tail) * xp.exp(gap)


def _apart(xp: Any, part: Slab, top: Any, tail: Any) -> Any:
    """(N, D) log-sum-exp of all classes less that of a slab."""
    near = xp.log1p((tail - part.tail) / (1 + part.tail))
    far = (top - part.top) + (xp.log1p(tail) - xp.log1p(part.tail))
    delta = xp.where(part.top == top, near, far)
    return xp.where(part.top == -float("inf"), float("inf"), delta)
