"""The Triton kernels of a whole loss: what `triton_loss` launches.

They share four float64 numbers on the device: what the sum over rows is divided by, the upstream
that the gradient is made for, NaN, and the upstream that backward was given. A kernel that is told
the places of two upstreams does nothing where they are the same: no host has to look.
"""
# What a function decorated with triton.jit means, no checker of types for Python knows:
# pyright: basic, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from xent.kernels.triton_gradient import coefficients_of, entries
from xent.kernels.triton_math import INFINITY, difference, double, within
from xent.kernels.triton_statistics import scan, values_of

DIVISOR, EXPECTED, NEVER, GIVEN = (tl.constexpr(n) for n in range(4))


@triton.jit
def add(acc, lost, x):
    """A sum with one more, and what all its additions have lost."""
    more, error = difference(acc, -x)
    return more, lost + error


@triton.jit
def sum_of(acc, lost):
    """The number that such sums, one in each lane, are in all."""
    lost = tl.sum(lost, 0)
    return tl.sum(acc, 0) + tl.where(tl.abs(lost) < INFINITY, lost, 0.0)


@triton.jit(do_not_specialize=["ignore", "divisor_bits"])
def prepare(
    target, weight, codes, sums, numbers, expected, count, span, classes, ignore, divisor_bits,
    B: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Codes of class indices, the sum of a span of row weights, and the shared numbers."""
    pid = tl.program_id(0).to(tl.int64)
    acc, lost = tl.zeros([B], tl.float64), tl.zeros([B], tl.float64)
    for start in range(0, span, B):
        n = pid * span + start + tl.arange(0, B)
        live = n < count
        t = tl.load(target + n, mask=live, other=0).to(tl.int64)
        inside = (t >= 0) & (t < classes)
        code = tl.where(t == ignore, -1, tl.where(inside, t, -2))
        tl.store(codes + n, code, mask=live)
        if COUNT:
            kept = live & (code >= 0)
            w = kept.to(tl.float64)
            if weight is not None:
                w = tl.load(weight + t, mask=kept, other=0.0).to(tl.float64)
            acc, lost = add(acc, lost, w)
    if COUNT:
        tl.store(sums + pid, sum_of(acc, lost))
    if pid == 0:
        if not COUNT:
            tl.store(numbers + DIVISOR, double(divisor_bits))
        upstream = tl.full([], 1.0, tl.float64)
        if expected is not None:
            upstream = tl.load(expected)
        tl.store(numbers + EXPECTED, upstream)
        tl.store(numbers + NEVER, float("nan"))
        tl.store(numbers + GIVEN, float("nan"))


@triton.jit
def summed(values, out, numbers, count, span, B: tl.constexpr, DIVIDE: tl.constexpr):
    """The sum of a span of float64 numbers, or the mean that it is the last sum of."""
    pid = tl.program_id(0).to(tl.int64)
    acc, lost = tl.zeros([B], tl.float64), tl.zeros([B], tl.float64)
    for start in range(0, span, B):
        n = pid * span + start + tl.arange(0, B)
        acc, lost = add(acc, lost, tl.load(values + n, mask=n < count, other=0.0))
    total = sum_of(acc, lost)
    if DIVIDE:
        total = total / tl.load(numbers + DIVISOR)
    tl.store(out + pid, total.to(out.dtype.element_ty))


@triton.jit
def heed(upstream, numbers, expected):
    """Note the upstream of a backward; and, where it can be divided by, expect it henceforth."""
    given = tl.load(upstream).to(tl.float64)
    tl.store(numbers + GIVEN, given)
    tl.store(expected, given, mask=(given != 0) & (tl.abs(given) < INFINITY))


@triton.jit
def row_weight(code, weight, live, TARGET: tl.constexpr, WEIGHT: tl.constexpr):
    """The weight of rows in a mean: that of their classes, 0 for one without."""
    w = tl.where(live, 1.0, 0.0).to(tl.float64)
    if TARGET == 1:
        on = live & (code >= 0)
        w = tl.where(on, 1.0, 0.0).to(tl.float64)
        if WEIGHT:
            w = tl.load(weight + code, mask=on, other=0.0).to(tl.float64)
    return w


@triton.jit
def loss_of(
    lse, nll, smooth, w, of_nll, of_smooth, of_lse2,
    NLL: tl.constexpr, SMOOTH: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """`ops.cross_entropy.value` of rows of weight w."""
    value = nll
    if not NLL:
        value = smooth
    elif SMOOTH:
        value = of_nll * nll + of_smooth * smooth
    if LSE:
        value = value + of_lse2 * w * lse * lse
    return value


@triton.jit(do_not_specialize=["asked", "nll_bits", "smooth_bits", "lse2_bits"])
def combine(
    target, weight, lse, nll, smooth, losses, by_lse, by_nll, by_smooth, numbers, count, asked,
    nll_bits, smooth_bits, lse2_bits, B: tl.constexpr, TARGET: tl.constexpr, WEIGHT: tl.constexpr,
    NLL: tl.constexpr, SMOOTH: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """The losses of rows and their derivatives by the statistics, times upstream / divisor."""
    n = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = n < count
    code = tl.zeros_like(n)
    if TARGET == 1:
        code = tl.load(target + n, mask=live, other=-1)
    w = row_weight(code, weight, live, TARGET, WEIGHT)
    of_nll, of_smooth, of_lse2 = double(nll_bits), double(smooth_bits), double(lse2_bits)
    z = tl.load(lse + n, mask=live, other=0.0)
    of_row = tl.load(nll + n, mask=live, other=0.0)
    even = z
    if SMOOTH:
        even = tl.load(smooth + n, mask=live, other=0.0)
    value = loss_of(z, of_row, even, w, of_nll, of_smooth, of_lse2, NLL, SMOOTH, LSE)
    tl.store(losses + n, value, mask=live)
    scale = tl.load(numbers + asked) / tl.load(numbers + DIVISOR)
    if LSE:
        tl.store(by_lse + n, scale * (2 * of_lse2 * w * z), mask=live)
    tl.store(by_nll + n, scale * of_nll + tl.zeros_like(z), mask=live)
    if SMOOTH:
        tl.store(by_smooth + n, scale * of_smooth + tl.zeros_like(z), mask=live)


BITS = ["scale_bits", "cap_bits", "nll_bits", "smooth_bits", "lse2_bits"]


@triton.jit(do_not_specialize=["asked", "done", *BITS])
def fused(
    logits, target, weight, losses, numbers, out,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    d_outer, d_inner, d_class, inner, classes, asked, done,
    scale_bits, cap_bits, nll_bits, smooth_bits, lse2_bits,
    R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr, SUM: tl.constexpr,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, NLL: tl.constexpr, SMOOTH: tl.constexpr,
    LSE: tl.constexpr, CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
    GRADIENT: tl.constexpr,
):  # fmt: skip
    """The losses of rows, and their gradient while the rows are in the second-level cache."""
    if tl.load(numbers + asked) == tl.load(numbers + done):
        return
    pid = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(inner, R)
    i = (pid % blocks) * R + tl.arange(0, R)
    o = pid // blocks
    live = i < inner
    rows = o * r_outer + i * r_inner
    x_row = o * outer_step + i * inner_step
    t_row = o * t_outer + i * t_inner
    code = tl.zeros_like(i)
    if TARGET == 1:
        code = tl.load(target + rows, mask=live, other=-1)
    active = live & (code != -1)
    scale, cap = double(scale_bits), double(cap_bits)
    of_nll, of_smooth, of_lse2 = double(nll_bits), double(smooth_bits), double(lse2_bits)
    LONG: tl.constexpr = EXACT and tl.float64 == WORK

    end = tl.where(tl.max(active.to(tl.int32), 0) > 0, classes, 0)  # ignored rows are not read
    m, k, s, far, others, spread, shares, mean = scan(
        logits, target, weight, x_row, t_row, live, active, class_step, t_class, classes,
        0, end, scale, cap, R, B, WORK, SUM,
        TARGET, WEIGHT, SMOOTH, False, CAP, SCALE, EXACT,
    )  # fmt: skip
    k = tl.where(k < 0, 0, k)
    s, _, lse, nll, smooth = values_of(
        logits, target, weight, x_row, t_row, code, live, class_step, t_class, classes,
        m, k, s, far, others, spread, shares, scale, cap,
        TARGET, WEIGHT, SMOOTH, CAP, SCALE, LONG,
    )  # fmt: skip
    w = row_weight(code, weight, live, TARGET, WEIGHT)
    value = loss_of(lse, nll, smooth, w, of_nll, of_smooth, of_lse2, NLL, SMOOTH, LSE)
    tl.store(losses + rows, value, mask=live)

    if GRADIENT:
        share = tl.load(numbers + asked) / tl.load(numbers + DIVISOR)
        void = tl.where(code == -2, float("nan"), tl.zeros_like(s))
        g = tl.where(active, share, 0.0) + void
        g_lse, g_smooth = void, void
        if LSE:
            g_lse = g * (2 * of_lse2 * w * lse)
        if SMOOTH:
            g_smooth = g * of_smooth / classes
        if not (WEIGHT and SMOOTH):
            shares = tl.zeros_like(s) + (classes - 1)
        m, a, at_k, at_t, by_t, by_w, b, center = coefficients_of(
            logits, target, weight, x_row, t_row, code, live, class_step, t_class,
            m, k, s, others, shares, mean, g_lse, g * of_nll, g_smooth, void, scale, cap,
            TARGET, WEIGHT, CAP, SCALE, LONG,
        )  # fmt: skip
        # `out` may be the logits: all warps have read what they need of them.
        tl.debug_barrier()
        scale, cap = scale.to(WORK), cap.to(WORK)
        columns = tl.cdiv(classes, B)
        # From the end: what was read last is in the cache for certain.
        for column in tl.range(0, columns, num_stages=3):
            c = (columns - 1 - column) * B + tl.arange(0, B).to(tl.int64)
            inside = live[:, None] & (c < classes)[None, :]
            place = logits + x_row[:, None] + c[None, :] * class_step
            on = inside & active[:, None]
            x = tl.load(place, mask=on, other=0.0, eviction_policy="evict_first")
            d = entries(
                within(x.to(WORK), CAP), c, inside, target, weight, t_row, t_class, code, k,
                m, a, at_k, at_t, by_t, by_w, b, center, scale, cap,
                R, B, WORK, TARGET, WEIGHT, SMOOTH, False, CAP, SCALE, EXACT,
            )  # fmt: skip
            place = out + (o * d_outer + i * d_inner)[:, None] + c[None, :] * d_class
            d = d.to(out.dtype.element_ty)
            tl.store(place, d, mask=inside, eviction_policy="evict_first")


@triton.jit(do_not_specialize=["asked", "done"])
def scaled(
    out, numbers, d_outer, d_inner, d_class, inner, classes, columns, asked, done,
    R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """A gradient made for one upstream, as that for another."""
    given, made_for = tl.load(numbers + asked), tl.load(numbers + done)
    if given == made_for:
        return
    pid = tl.program_id(0).to(tl.int64)
    block, column = pid // columns, pid % columns
    blocks = tl.cdiv(inner, R)
    i = (block % blocks) * R + tl.arange(0, R)
    o = block // blocks
    c = column * B + tl.arange(0, B)
    inside = (i < inner)[:, None] & (c < classes)[None, :]
    place = out + (o * d_outer + i * d_inner)[:, None] + c[None, :] * d_class
    d = tl.load(place, mask=inside, other=0.0).to(WORK) * (given / made_for).to(WORK)
    tl.store(place, d.to(out.dtype.element_ty), mask=inside)
