r"""The Triton kernels of the gradient of row statistics.

With e_c = exp(u_c - m), s and the rest as in `ops/stats.py` and the cotangents g, for every class c
but the largest and the target

    dlogits_c = slope_c (a e_c - g_nll (w t)_c - g_smooth / V w_c + b e_c (m - u_c - center))

    a = (g_nll sum of w t + g_smooth / V sum of w + g_lse) / (1 + s)
    b = g_entropy / (1 + s),   center = sum of e (m - u) / (1 + s)

so that surprisal_c - entropy = m - u_c - center. `coefficients` writes these numbers of every row,
and the two entries left out, in float64; `gradient` then reads no logit but its own, and may write
over them.
"""
# What a function decorated with triton.jit means, no checker of types for Python knows:
# pyright: basic, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from xent.kernels.triton_math import (
    distance,
    double,
    exponential,
    slope_at,
    weighted,
    within,
)
from xent.kernels.triton_statistics import NUMBERS, TOTALS, own_of


@triton.jit
def coefficients_of(
    logits, target, weight, x_row, t_row, code, live, class_step, t_class,
    m, k, s, others, w_others, center, g_lse, g_nll, g_smooth, g_entropy, scale, cap,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, CAP: tl.constexpr, SCALE: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """m, a, the entries at the argmax and at the target, g_nll, g_smooth / V, b and center.

    `others` and `w_others` are the sums of w t and of w without the argmax, g_smooth is / V.
    """
    own, w_own = own_of(target, weight, t_row, k, t_class, live, TARGET, WEIGHT)
    t = tl.where(code < 0, 0, code)
    w_t = tl.zeros_like(s) + 1
    if WEIGHT:
        w_t = tl.load(weight + t, mask=live, other=0.0).to(tl.float64)
    if TARGET == 1:
        others = tl.where(t == k, 0.0, w_t)
        own = tl.where(t == k, w_t, 0.0)
    mass, share = others + own, w_others + w_own
    p, miss = 1 / (1 + s), s / (1 + s)
    sure = miss < 0.5
    at_k = g_nll * tl.where(sure, others - mass * miss, mass * p - own)
    at_k += g_smooth * tl.where(sure, w_others - share * miss, share * p - w_own)
    at_k += g_lse * p - g_entropy * p * center
    a = (g_nll * mass + g_smooth * share + g_lse) * p
    at_t = tl.zeros_like(s)
    if TARGET == 1:
        place = logits + x_row + t * class_step
        x_t = within(tl.load(place, mask=live & (code != -1), other=0.0).to(tl.float64), CAP)
        high, low = distance(x_t, m, scale, cap, CAP, SCALE, EXACT)
        p_t = exponential(high, low, EXACT) * p
        at_t = g_nll * w_t * (p_t - 1) + g_smooth * (share * p_t - (w_t if WEIGHT else 1.0))
        at_t += g_lse * p_t + g_entropy * weighted(p_t, -(high + low) - center)
        at_t *= slope_at(x_t, scale, cap, CAP, SCALE)
    at_k *= slope_at(m, scale, cap, CAP, SCALE)
    if SCALE and not CAP:
        a, g_nll, g_smooth, g_entropy = (
            a * scale,
            g_nll * scale,
            g_smooth * scale,
            g_entropy * scale,
        )
    return m, a, at_k, at_t, g_nll, g_smooth, g_entropy * p, center


@triton.jit(do_not_specialize=["scale_bits", "cap_bits"])
def coefficients(
    logits, target, weight, argmax, tails, by_lse, by_nll, by_smooth, by_entropy, totals, found,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    inner, classes, rows_in_all, scale_bits, cap_bits,
    R: tl.constexpr, TARGET: tl.constexpr, WEIGHT: tl.constexpr, KEPT: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
    LSE: tl.constexpr, NLL: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
):  # fmt: skip
    """m, a, the entries at the argmax and at the target, g_nll, g_smooth / V, b and center."""
    each = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    live = each < rows_in_all
    o, i = each // inner, each % inner
    rows = o * r_outer + i * r_inner
    x_row = o * outer_step + i * inner_step
    t_row = o * t_outer + i * t_inner
    scale, cap = double(scale_bits), double(cap_bits)
    code = tl.zeros_like(each)
    if TARGET == 1:
        code = tl.load(target + rows, mask=live, other=-1)
    on = live & (code != -1)
    k = tl.load(argmax + rows, mask=live, other=0)
    s = tl.load(tails + rows, mask=live, other=0.0)
    m = within(tl.load(logits + x_row + k * class_step, mask=on, other=0.0).to(tl.float64), CAP)
    void = tl.where(code == -2, float("nan"), tl.zeros_like(s))
    g_lse, g_nll, g_smooth, g_entropy = void, void, void, void
    if LSE:
        g_lse += tl.load(by_lse + rows, mask=on, other=0.0)
    if NLL:
        g_nll += tl.load(by_nll + rows, mask=on, other=0.0)
    if SMOOTH:
        g_smooth += tl.load(by_smooth + rows, mask=on, other=0.0)
        g_smooth = g_smooth / classes
    if ENTROPY:
        g_entropy += tl.load(by_entropy + rows, mask=on, other=0.0)

    others, w_others, center = tl.zeros_like(s), tl.zeros_like(s) + (classes - 1), s * 0
    if KEPT:
        others = tl.load(totals + rows * TOTALS, mask=live, other=0.0)
        center = tl.load(totals + rows * TOTALS + 2, mask=live, other=0.0)
        if WEIGHT:
            w_others = tl.load(totals + rows * TOTALS + 1, mask=live, other=0.0)
    numbers = coefficients_of(
        logits, target, weight, x_row, t_row, code, live, class_step, t_class,
        m, k, s, others, w_others, center, g_lse, g_nll, g_smooth, g_entropy, scale, cap,
        TARGET, WEIGHT, CAP, SCALE, EXACT,
    )  # fmt: skip
    for n in tl.static_range(8):
        tl.store(found + rows * NUMBERS + n, numbers[n], mask=live)


@triton.jit
def entries(
    x, c, inside, target, weight, t_row, t_class, code, k, m, a, at_k, at_t, by_t, by_w, b, center,
    scale, cap, R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr, TARGET: tl.constexpr,
    WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr, CAP: tl.constexpr,
    SCALE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Entries of the gradient at logits x of classes c, from the coefficients of their rows."""
    m, a, at_k, at_t = m.to(WORK), a.to(WORK), at_k.to(WORK), at_t.to(WORK)
    high, low = distance(x, m[:, None], scale, cap, CAP, SCALE, EXACT)
    e = exponential(high, low, EXACT)
    d = a[:, None] * e
    if ENTROPY:
        away = -(high + low) if EXACT else -high
        d += b.to(WORK)[:, None] * weighted(e, away - center.to(WORK)[:, None])
    if TARGET == 2 or SMOOTH:
        w = tl.full([R, B], 1, WORK)
        if WEIGHT:
            w = tl.load(weight + c[None, :], mask=inside, other=0.0).to(WORK)
        if SMOOTH:
            d -= by_w.to(WORK)[:, None] * w
        if TARGET == 2:
            place = target + t_row[:, None] + c[None, :] * t_class
            t = w * tl.load(place, mask=inside, other=0.0).to(WORK)
            d -= by_t.to(WORK)[:, None] * t
    if CAP:
        d *= slope_at(x, scale, cap, CAP, SCALE)
    d = tl.where(c[None, :] == k[:, None], at_k[:, None], d)
    if TARGET == 1:
        chosen = (c[None, :] == code[:, None]) & (code != k)[:, None]
        d = tl.where(chosen, at_t[:, None], d)
        d = tl.where((code == -1)[:, None], 0.0, d)
    return d


@triton.jit(do_not_specialize=["scale_bits", "cap_bits", "asked", "done"])
def gradient(
    logits, target, weight, argmax, found, out,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    d_outer, d_inner, d_class, inner, classes, columns, scale_bits, cap_bits,
    R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
    upstreams=None, asked=0, done=0,
):  # fmt: skip
    """A tile of the gradient; nothing where two of the upstreams are the same number."""
    if upstreams is not None:  # noqa: SIM102 - Triton compiles the outer one away
        if tl.load(upstreams + asked) == tl.load(upstreams + done):
            return
    pid = tl.program_id(0).to(tl.int64)
    block, column = pid // columns, pid % columns
    blocks = tl.cdiv(inner, R)
    i = (block % blocks) * R + tl.arange(0, R)
    o = block // blocks
    live = i < inner
    rows = o * r_outer + i * r_inner
    x_row = o * outer_step + i * inner_step
    c = column * B + tl.arange(0, B)
    inside = live[:, None] & (c < classes)[None, :]
    code = tl.zeros_like(i)
    if TARGET == 1:
        code = tl.load(target + rows, mask=live, other=-1)
    on = inside & (code != -1)[:, None]
    scale, cap = double(scale_bits).to(WORK), double(cap_bits).to(WORK)
    place = logits + x_row[:, None] + c[None, :] * class_step
    x = within(tl.load(place, mask=on, other=0.0).to(WORK), CAP)

    at = found + rows * NUMBERS
    k = tl.load(argmax + rows, mask=live, other=0)
    m, a = tl.load(at, mask=live, other=0.0), tl.load(at + 1, mask=live, other=0.0)
    at_k, at_t = tl.load(at + 2, mask=live, other=0.0), tl.load(at + 3, mask=live, other=0.0)
    by_t, by_w = tl.load(at + 4, mask=live, other=0.0), tl.load(at + 5, mask=live, other=0.0)
    b, center = tl.load(at + 6, mask=live, other=0.0), tl.load(at + 7, mask=live, other=0.0)
    t_row = o * t_outer + i * t_inner
    d = entries(
        x, c, inside, target, weight, t_row, t_class, code, k, m, a, at_k, at_t, by_t, by_w,
        b, center, scale, cap,
        R, B, WORK, TARGET, WEIGHT, SMOOTH, ENTROPY, CAP, SCALE, EXACT,
    )  # fmt: skip
    place = out + (o * d_outer + i * d_inner)[:, None] + c[None, :] * d_class
    tl.store(place, d.to(out.dtype.element_ty), mask=inside)
