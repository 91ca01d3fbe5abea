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

from xent.kernels.triton_math import double, slope_of_tanh, weighted
from xent.kernels.triton_statistics import (
    NUMBERS,
    TOTALS,
    distance,
    exponential,
    own_of,
    within,
)


@triton.jit
def slope_at(x, scale, cap, CAP: tl.constexpr, SCALE: tl.constexpr):
    """du/dx, without the factor of a scale where no softcap is."""
    slope = tl.zeros_like(x) + scale
    if CAP:
        slope = slope * slope_of_tanh(x * (scale / cap))
    return slope


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

    own, w_own = own_of(target, weight, t_row, k, t_class, live, TARGET, WEIGHT)
    others, w_others, center = tl.zeros_like(s), tl.zeros_like(s) + (classes - 1), s * 0
    if KEPT:
        others = tl.load(totals + rows * TOTALS, mask=live, other=0.0)
        center = tl.load(totals + rows * TOTALS + 2, mask=live, other=0.0)
        if WEIGHT:
            w_others = tl.load(totals + rows * TOTALS + 1, mask=live, other=0.0)
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
        x_t = tl.load(logits + x_row + t * class_step, mask=on, other=0.0).to(tl.float64)
        x_t = within(x_t, CAP)
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
    numbers = (m, a, at_k, at_t, g_nll, g_smooth, g_entropy * p, center)
    for n in tl.static_range(8):
        tl.store(found + rows * NUMBERS + n, numbers[n], mask=live)


@triton.jit(do_not_specialize=["scale_bits", "cap_bits"])
def gradient(
    logits, target, weight, argmax, found, out,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    d_outer, d_inner, d_class, inner, classes, columns, scale_bits, cap_bits,
    R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient."""
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
    m = tl.load(at, mask=live, other=0.0).to(WORK)
    a = tl.load(at + 1, mask=live, other=0.0).to(WORK)
    k = tl.load(argmax + rows, mask=live, other=0)
    at_k = tl.load(at + 2, mask=live, other=0.0)
    high, low = distance(x, m[:, None], scale, cap, CAP, SCALE, EXACT)
    e = exponential(high, low, EXACT)
    d = a[:, None] * e
    if ENTROPY:
        b = tl.load(at + 6, mask=live, other=0.0).to(WORK)
        center = tl.load(at + 7, mask=live, other=0.0).to(WORK)
        away = -(high + low) if EXACT else -high
        d += b[:, None] * weighted(e, away - center[:, None])
    if TARGET == 2 or SMOOTH:
        w = tl.full([R, B], 1, WORK)
        if WEIGHT:
            w = tl.load(weight + c[None, :], mask=inside, other=0.0).to(WORK)
        if SMOOTH:
            d -= tl.load(at + 5, mask=live, other=0.0).to(WORK)[:, None] * w
        if TARGET == 2:
            t_row = o * t_outer + i * t_inner
            place = target + t_row[:, None] + c[None, :] * t_class
            t = w * tl.load(place, mask=inside, other=0.0).to(WORK)
            d -= tl.load(at + 4, mask=live, other=0.0).to(WORK)[:, None] * t
    if CAP:
        d *= slope_at(x, scale, cap, CAP, SCALE)
    d = tl.where(c[None, :] == k[:, None], at_k.to(WORK)[:, None], d)
    if TARGET == 1:
        at_t = tl.load(at + 3, mask=live, other=0.0).to(WORK)
        chosen = (c[None, :] == code[:, None]) & (code != k)[:, None]
        d = tl.where(chosen, at_t[:, None], d)
        d = tl.where((code == -1)[:, None], 0.0, d)
    place = out + (o * d_outer + i * d_inner)[:, None] + c[None, :] * d_class
    tl.store(place, d.to(out.dtype.element_ty), mask=inside)
